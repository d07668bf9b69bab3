"""Running statistics of observations and of discounted returns, in float64 on the learner's device.

Both are frozen from the first step of a rollout to the end of its update, so that the first probability ratios are 1,
and then take in the rollout (`absorb`), with those of other processes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nervecord.training.processes.distributed import SOLO, Group

EPSILON = 1e-8
"""Added to an observation's standard deviation before it divides, and, as in Gymnasium, to the variance of returns."""


class RunningMoments:
    """Mean and variance of rows, merged batch by batch (Chan et al.).

    Args:
        size: of a row.
        count: rows that the first values, mean 0 and variance 1, stand for.
        device: where they are.
        group: processes that share them.
    """

    def __init__(self, size: int, *, count: float, device: torch.device, group: Group = SOLO) -> None:
        self.mean = torch.zeros(size, dtype=torch.float64, device=device)
        self.variance = torch.ones(size, dtype=torch.float64, device=device)
        self.count = torch.tensor(count, dtype=torch.float64, device=device)
        self.group = group

    def merge(self, rows: Tensor, valid: Tensor) -> None:
        """Take in the valid ones (n,) bool of rows (n, size), of this process and all others; none change nothing."""
        count, mean, squares = self.group.moments(rows, valid)
        delta, total = mean - self.mean, self.count + count
        squares = self.variance * self.count + squares + delta.square() * self.count * count / total
        self.mean = self.mean + delta * (count / total)
        self.variance, self.count = squares / total, total

    def state_dict(self) -> dict[str, Tensor]:
        """mean (size,), variance (size,), count ()."""
        return {"mean": self.mean.cpu(), "variance": self.variance.cpu(), "count": self.count.cpu()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave."""
        for name in ("mean", "variance", "count"):
            setattr(self, name, state[name].to(getattr(self, name)).clone())


class ObservationNormaliser:
    """obs_rms: (x - mean) / (deviation + epsilon), within the clip.

    Args:
        size: of an observation.
        clip: limit of a normalised observation.
        device, group: as of `RunningMoments`.
    """

    def __init__(self, size: int, clip: float, device: torch.device, group: Group = SOLO) -> None:
        self.moments = RunningMoments(size, count=1.0, device=device, group=group)
        self.clip = clip
        self._refresh()

    def _refresh(self) -> None:
        self._mean = self.moments.mean.float()
        self._deviation = self.moments.variance.float().sqrt() + EPSILON

    def __call__(self, observations: Tensor) -> Tensor:
        """Normalised observations (..., size), float32."""
        return ((observations - self._mean) / self._deviation).clamp(-self.clip, self.clip)

    def absorb(self, observations: Tensor, valid: Tensor) -> None:
        """Take in the valid ones (n,) of observations (n, size)."""
        self.moments.merge(observations, valid)
        self._refresh()

    def state_dict(self) -> dict[str, Tensor]:
        """The statistics."""
        return self.moments.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave."""
        self.moments.load_state_dict(state)
        self._refresh()


class RewardNormaliser:
    """Divides rewards by the square root of the discounted return's running variance plus EPSILON, as Gymnasium's
    NormalizeReward does; the mean stays. It works on whole rollouts: their returns are taken in, then all their rewards
    are divided.

    Args:
        num_envs: environments of this process.
        gamma: discount of the return.
        clip: limit of a normalised reward.
        device, group: as of `RunningMoments`.
    """

    def __init__(self, num_envs: int, gamma: float, clip: float, device: torch.device, group: Group = SOLO) -> None:
        self.gamma, self.clip = gamma, clip
        self.returns = torch.zeros(num_envs, dtype=torch.float64, device=device)
        self.moments = RunningMoments(1, count=1e-4, device=device, group=group)

    def __call__(self, rewards: Tensor, done: Tensor, valid: Tensor) -> Tensor:
        """Normalised rewards (T, N) float32 of a rollout, each argument (T, N); 0 where a step is not valid."""
        rewards = rewards.double()
        followed = torch.empty_like(rewards)
        for t in range(len(rewards)):
            self.returns = torch.where(valid[t], self.gamma * self.returns + rewards[t], self.returns)
            followed[t] = self.returns
            self.returns = self.returns.masked_fill(done[t], 0.0)
        self.moments.merge(followed.reshape(-1, 1), valid.reshape(-1))
        scaled = (rewards / torch.sqrt(self.moments.variance + EPSILON)).clamp(-self.clip, self.clip)
        return scaled.masked_fill(~valid, 0.0).float()

    def restart(self) -> None:
        """Begin new episodes everywhere."""
        self.returns = torch.zeros_like(self.returns)

    def state_dict(self) -> dict[str, Any]:
        """The statistics, and the returns so far of the running episodes."""
        return {"returns": self.returns.cpu(), **self.moments.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave; running returns of other environments are left out."""
        self.moments.load_state_dict({name: state[name] for name in ("mean", "variance", "count")})
        if "returns" in state and state["returns"].shape == self.returns.shape:
            self.returns = state["returns"].to(self.returns).clone()
