"""Reward normalisation, as Gymnasium's NormalizeReward does it, for a batch of environments."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nervecord.training.distributed import Group

Array = NDArray[Any]


class RewardNormaliser:
    """Divides rewards by the running standard deviation of the discounted return; the mean stays.

    Args:
        num_envs: environments.
        gamma: discount of the return.
        clip: limit of a normalised reward.
    """

    def __init__(self, num_envs: int, gamma: float, clip: float) -> None:
        self.gamma, self.clip = gamma, clip
        self.returns = np.zeros(num_envs)
        self.mean, self.variance, self.count = 0.0, 1.0, 1e-4

    def __call__(self, rewards: Array, done: Array, real: Array) -> Array:
        """Normalised rewards (N,) float64; steps that are not `real` keep 0 and teach nothing."""
        values = self._follow(rewards, done, real)
        if len(values):
            self._absorb(float(values.mean()), float(values.var()), len(values))
        return self._scale(rewards, real)

    def _follow(self, rewards: Array, done: Array, real: Array) -> Array:
        """The discounted returns of the real steps, after taking in this step's rewards."""
        self.returns = np.where(real, self.gamma * self.returns + rewards, self.returns)
        values: Array = self.returns[real]
        self.returns[done] = 0.0
        return values

    def _scale(self, rewards: Array, real: Array) -> Array:
        scaled: Array = np.clip(rewards / np.sqrt(self.variance + 1e-8), -self.clip, self.clip)
        return np.where(real, scaled, 0.0)

    def restart(self) -> None:
        """Begin new episodes everywhere."""
        self.returns[:] = 0.0

    def _absorb(self, mean: float, variance: float, count: int) -> None:
        delta, total = mean - self.mean, self.count + count
        squares = self.variance * self.count + variance * count + delta**2 * self.count * count / total
        self.mean += delta * count / total
        self.variance, self.count = squares / total, total

    def state_dict(self) -> dict[str, Any]:
        """The running statistics and returns."""
        return {
            "returns": torch.from_numpy(self.returns.copy()),
            "mean": self.mean,
            "variance": self.variance,
            "count": self.count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.returns = state["returns"].numpy().copy()
        self.mean, self.variance, self.count = state["mean"], state["variance"], state["count"]


class SharedRewardNormaliser(RewardNormaliser):
    """The same over the environments of several processes, normalised at the end of a rollout.

    In one process each step's rewards are divided by statistics that hold that step. To do the same at once, the
    processes would have to wait for each other at every step. Instead each notes its steps' moments, all exchange them
    once per rollout, and each goes through the steps again, with the moments of all.
    """

    def __init__(self, num_envs: int, gamma: float, clip: float) -> None:
        super().__init__(num_envs, gamma, clip)
        self._noted: list[tuple[Array, Array]] = []
        self._moments: list[tuple[int, float, float]] = []

    def note(self, rewards: Array, done: Array, real: Array) -> None:
        """Take one step's rewards (N,), to be normalised by `settle`."""
        values = self._follow(rewards, done, real)
        mean, variance = (float(values.mean()), float(values.var())) if len(values) else (0.0, 0.0)
        self._moments.append((len(values), mean, variance))
        self._noted.append((rewards.copy(), real.copy()))

    def settle(self, group: Group) -> Array:
        """Normalised rewards (steps, N) float64 of the steps noted since the last call; all processes call it."""
        moments = np.array(group.gather(self._moments))  # (processes, steps, 3)
        scaled = []
        for step, (rewards, real) in enumerate(self._noted):
            counts, means, variances = moments[:, step].T
            count = counts.sum()
            if count:
                mean = (counts * means).sum() / count
                variance = (counts * (variances + (means - mean) ** 2)).sum() / count
                self._absorb(float(mean), float(variance), int(count))
            scaled.append(self._scale(rewards, real))
        self._noted.clear()
        self._moments.clear()
        return np.stack(scaled)
