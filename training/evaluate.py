"""Deterministic evaluation: each environment plays one episode of its own seed, without action noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nervecord.training.learners.ppo import Learner
from nervecord.training.simulators.base import environment_seeds, make_simulator

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
        """Mean, standard error, 95 % interval (normal), number and mean length of episodes."""
        half = 1.96 * self.standard_error
        return {
            "mean_return": self.mean,
            "standard_error": self.standard_error,
            "interval95": [self.mean - half, self.mean + half],
            "episodes": len(self.returns),
            "mean_length": float(np.mean(self.lengths)),
        }


def evaluate(learner: Learner, episodes: int, *, purpose: int) -> Evaluation:
    """Play `episodes` episodes on the seeds of a purpose (`VALIDATION` or `TEST`); no random state is touched."""
    config = learner.config
    seeds = environment_seeds(config.seed, purpose, 0, episodes)
    returns: list[float] = []
    lengths: list[int] = []
    # Isaac Lab has one simulation, that of the training, and no more environments than it.
    lanes = min(LANES, config.num_envs) if config.sim == "isaaclab" else LANES
    for start in range(0, episodes, lanes):
        part = _play(learner, seeds[start : start + lanes])
        returns += part.returns
        lengths += part.lengths
    return Evaluation(tuple(returns), tuple(lengths))


def _play(learner: Learner, seeds: list[int]) -> Evaluation:
    config = learner.config
    simulator = make_simulator(config.env, seeds, kind=config.sim, threads=config.threads, device=config.device)
    try:
        running = np.ones(len(seeds), bool)
        returns = np.zeros(len(seeds))
        lengths = np.zeros(len(seeds), np.int64)
        observations = simulator.reset()
        state = None
        while running.any():
            inputs = torch.from_numpy(observations).to(learner.device, torch.float32)
            taken, state = learner.deterministic(inputs, state)
            actions = np.clip(taken.cpu().numpy().astype(np.float64), simulator.low, simulator.high)
            result = simulator.step(actions)
            returns += result.rewards * running
            lengths += running
            running &= ~(result.terminated | result.truncated)
            observations = result.observations
    finally:
        simulator.close()
    return Evaluation(tuple(returns.tolist()), tuple(lengths.tolist()))
