"""CPU time of training for each environment step, and how much of it is the simulator's own.

    python benchmarks/train_cost.py [--updates 4]

A real training runs for some updates with the CPU time inside its simulator counted apart: that of the whole process,
simulator threads included, so that both are measured on the same steps and under the same load. The difference is what
learning costs: policy, rollout, update. Each part is the median over updates.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
from typing import Any

import torch
from measure import machine_line
from torch import Tensor

from nervecord.training.run import Run, resolved
from nervecord.training.settings.config import TrainConfig
from nervecord.training.simulators.base import Simulator, Step


def cpu_seconds() -> float:
    """User and system time of this process so far, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Timed:
    """A simulator that adds up the CPU time of its steps; everything else is the simulator's own."""

    def __init__(self, inner: Simulator) -> None:
        self.inner, self.seconds = inner, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def step(self, actions: Tensor) -> Step:
        """A step of the simulator."""
        before = cpu_seconds()
        result = self.inner.step(actions)
        self.seconds += cpu_seconds() - before
        return result


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Measure and print; returns microseconds for each environment step: total, simulator, outside."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Ant-v4")
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--minibatch", type=int, default=1024)
    parser.add_argument("--neurons", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5, help="steps per action")
    parser.add_argument("--policy", default="snn")
    args = parser.parse_args(argv)
    config = resolved(
        TrainConfig.of(
            env=args.env,
            policy=args.policy,
            layers=(args.neurons,),
            steps_per_action=args.steps,
            num_envs=args.num_envs,
            rollout=64,
            minibatch=args.minibatch,
            epochs=8,
            threads=1,
            out=tempfile.gettempdir(),
        )
    )
    run = Run(config, None)
    run.rollout()  # compiles, and warms up
    timed = Timed(run.simulator)
    run.collector.simulator = timed  # type: ignore[assignment]  # it has all that a simulator has
    total, own = [], []
    for _ in range(args.updates):
        before, timed.seconds = cpu_seconds(), 0.0
        run.rollout()
        total.append(1e6 * (cpu_seconds() - before) / config.batch)
        own.append(1e6 * timed.seconds / config.batch)
    run.simulator.close()
    outside = [a - b for a, b in zip(total, own, strict=True)]
    medians = {name: statistics.median(part) for name, part in (("training", total), ("simulator", own))}
    medians["outside"] = statistics.median(outside)
    print(f"machine: {machine_line()}")
    print(
        f"{args.env}, {args.policy} {args.neurons}, T = {args.steps}, 8 epochs, minibatch {args.minibatch}, "
        f"{args.num_envs} environments, {args.updates} x {config.batch} environment steps, CPU microseconds for each"
    )
    print(f"training          {medians['training']:8.1f}")
    print(f"simulator         {medians['simulator']:8.1f}")
    print(f"outside it        {medians['outside']:8.1f} (from {min(outside):.1f} to {max(outside):.1f})")
    return medians


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
