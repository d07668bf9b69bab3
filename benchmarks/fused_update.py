"""The fused spiking update against the literal snnTorch loop: one forward and backward of the policy, side by side.

    python benchmarks/fused_update.py [--batch 1024 --neurons 256 --steps 5]

Rounds of the two alternate in one process on one thread, and the median of each is taken, so that a busy machine
slows both. Prints milliseconds, their ratio, and the machine.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from measure import machine_line

from nervecord.training.policy.network import SpikingPolicy
from nervecord.training.settings.config import TrainConfig


def update(policy: SpikingPolicy, x: torch.Tensor, target: torch.Tensor) -> float:
    """CPU seconds of one forward and backward."""
    started = time.process_time()
    policy.zero_grad()
    mean, _ = policy(x)
    (mean - target).square().mean().backward()
    return time.process_time() - started


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Measure and print; returns milliseconds by operator."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--neurons", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--observations", type=int, default=27)
    parser.add_argument("--actions", type=int, default=8)
    parser.add_argument("--neuron", default="leaky")
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(args.batch, args.observations)
    target = torch.randn(args.batch, args.actions)
    policies = {}
    for operator in ("fused", "snntorch"):
        config = TrainConfig.of(
            layers=(args.neurons,), steps_per_action=args.steps, neuron=args.neuron, operator=operator
        )
        policies[operator] = SpikingPolicy(args.observations, args.actions, config)
    policies["snntorch"].load_state_dict(policies["fused"].state_dict())
    seconds: dict[str, list[float]] = {operator: [] for operator in policies}
    for round_number in range(args.rounds + 3):
        for operator, policy in policies.items():
            duration = update(policy, x, target)
            if round_number >= 3:  # compiling and warming up
                seconds[operator].append(duration)
    gradients = [policy.hidden[0].weight.grad for policy in policies.values()]
    milliseconds = {operator: 1e3 * statistics.median(values) for operator, values in seconds.items()}
    print(f"machine: {machine_line()}")
    print(f"batch {args.batch}, {args.neurons} {args.neuron} neurons, T = {args.steps}, forward + backward, CPU time")
    print(f"fused     {milliseconds['fused']:8.2f} ms")
    print(f"snnTorch  {milliseconds['snntorch']:8.2f} ms")
    print(f"ratio     {milliseconds['snntorch'] / milliseconds['fused']:8.2f}")
    print(f"largest difference of a weight's gradient: {(gradients[0] - gradients[1]).abs().max():.2e}")
    return milliseconds


if __name__ == "__main__":
    main()
