"""CPU time of training for each environment step, and how much of it is the simulator's own.

    python benchmarks/train_cost.py [--updates 4]

A real training runs for some updates with every action written down; then a fresh simulator with the same seeds is
stepped with those actions and nothing else. The difference is what learning costs: policy, memory, PPO. CPU time is
that of the whole process, simulator threads included (RUSAGE_SELF).
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from typing import Any

import numpy as np
import torch
from fused_update import machine

from nervecord.training.config import TrainConfig
from nervecord.training.run import Run
from nervecord.training.simulators.base import TRAINING, Simulator, StepResult, environment_seeds, make_simulator


def cpu_seconds() -> float:
    """User and system time of this process so far, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Recording:
    """A simulator that writes down the actions it is given."""

    def __init__(self, inner: Simulator) -> None:
        self.inner, self.actions = inner, []
        self.num_envs, self.observation_size = inner.num_envs, inner.observation_size
        self.low, self.high = inner.low, inner.high

    def reset(self) -> Any:
        return self.inner.reset()

    def step(self, actions: Any) -> StepResult:
        self.actions.append(np.array(actions))
        return self.inner.step(actions)

    def close(self) -> None:
        self.inner.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--neurons", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5, help="steps per action")
    parser.add_argument("--policy", default="snn")
    args = parser.parse_args()
    config = TrainConfig(
        policy=args.policy, layers=(args.neurons,), steps_per_action=args.steps, num_envs=64, rollout=64,
        minibatch=1024, epochs=8, threads=1, out=tempfile.gettempdir(),
    )  # fmt: skip
    run = Run(config, None)
    run.rollout()  # compiles, and warms up
    recording = Recording(run.simulator)
    run.simulator = recording
    before = cpu_seconds()
    for _ in range(args.updates):
        run.rollout()
    training = cpu_seconds() - before
    run.simulator.close()

    seeds = environment_seeds(config.seed, TRAINING, 0, config.num_envs)
    simulator = make_simulator(config.env, seeds, kind=config.sim, threads=1)
    simulator.reset()
    before = cpu_seconds()
    for actions in recording.actions:
        simulator.step(actions)
    simulating = cpu_seconds() - before
    simulator.close()

    steps = args.updates * config.batch
    total, own = 1e6 * training / steps, 1e6 * simulating / steps
    print(f"machine: {machine()}")
    print(
        f"{config.env}, {args.policy} {args.neurons}, T = {args.steps}, {config.epochs} epochs, minibatch "
        f"{config.minibatch}, {steps} environment steps, CPU microseconds for each"
    )
    print(f"training          {total:8.1f}")
    print(f"simulator alone   {own:8.1f}")
    print(f"outside it        {total - own:8.1f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
