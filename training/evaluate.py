"""Deterministic evaluation: each environment plays one episode of its own seed, without action noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nervecord.runtime.result import interval95
from nervecord.training.learners.base import Learner
from nervecord.training.settings.config import TrainConfig
from nervecord.training.simulators.base import environment_seeds
from nervecord.training.simulators.kinds import kind_named
from nervecord.training.simulators.make import make_simulator

LANES = 128
"""Environments stepped together at most."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Returns of deterministic episodes."""

    returns: tuple[float, ...]
    lengths: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def standard_error(self) -> float:
        """Standard error of the mean; nan for one episode."""
        if len(self.returns) < 2:
            return math.nan
        return float(np.std(self.returns, ddof=1) / math.sqrt(len(self.returns)))

    def as_dict(self) -> dict[str, Any]:
        """Mean, standard error, 95 % interval (Student's t), number and mean length of episodes; of one episode no
        standard error and no interval, None."""
        several = len(self.returns) > 1
        half = interval95(np.array(self.returns))
        return {
            "mean_return": self.mean,
            "standard_error": self.standard_error if several else None,
            "interval95": [self.mean - half, self.mean + half] if several else None,
            "episodes": len(self.returns),
            "mean_length": float(np.mean(self.lengths)),
        }


def evaluate(learner: Learner, config: TrainConfig, episodes: int, *, purpose: int) -> Evaluation:
    """Play `episodes` episodes on the seeds of a purpose (`VALIDATION` or `TEST`); no random state is touched."""
    seeds = environment_seeds(config.run.seed, purpose, 0, episodes)
    returns: list[float] = []
    lengths: list[int] = []
    # A shared simulation is that of the training, and has no more environments than it.
    lanes = min(LANES, config.algorithm.num_envs) if kind_named(config.run.sim).is_shared else LANES
    for start in range(0, episodes, lanes):
        part = _play(learner, config, seeds[start : start + lanes])
        returns += part.returns
        lengths += part.lengths
    return Evaluation(tuple(returns), tuple(lengths))


def _play(learner: Learner, config: TrainConfig, seeds: list[int]) -> Evaluation:
    simulator = make_simulator(
        config.task.env,
        seeds,
        kind=config.run.sim,
        wrappers=config.task.wrappers,
        threads=config.run.threads,
        device=config.run.device,
    )
    device = learner.device
    low, high = (torch.as_tensor(side, dtype=torch.float32, device=device) for side in (simulator.low, simulator.high))
    try:
        running = torch.ones(len(seeds), dtype=torch.bool, device=device)
        returns = torch.zeros(len(seeds), dtype=torch.float64, device=device)
        lengths = torch.zeros(len(seeds), dtype=torch.int64, device=device)
        observations = simulator.reset().to(device, torch.float32)
        state, steps = None, 0
        # On a GPU the look at what still runs waits for it, so it is taken now and then; what ended is not counted on.
        every = 1 if device.type == "cpu" else 25
        while steps % every or running.any():
            actions, state = learner.mode(observations, state)
            result = simulator.step(actions.clamp(low, high).to(simulator.device))
            returns += result.rewards.to(returns).where(running, 0.0)
            lengths += running
            running &= ~(result.terminated | result.truncated).to(device)
            observations = result.observations.to(device, torch.float32)
            steps += 1
    finally:
        simulator.close()
    return Evaluation(tuple(returns.tolist()), tuple(lengths.tolist()))
