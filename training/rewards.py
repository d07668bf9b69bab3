"""Reward normalisation, as Gymnasium's NormalizeReward does it, for a batch of environments."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

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
        self.returns = np.where(real, self.gamma * self.returns + rewards, self.returns)
        self._absorb(self.returns[real])
        self.returns[done] = 0.0
        scaled: Array = np.clip(rewards / np.sqrt(self.variance + 1e-8), -self.clip, self.clip)
        return np.where(real, scaled, 0.0)

    def restart(self) -> None:
        """Begin new episodes everywhere."""
        self.returns[:] = 0.0

    def _absorb(self, values: Array) -> None:
        if not len(values):
            return
        mean, variance, count = float(values.mean()), float(values.var()), len(values)
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
