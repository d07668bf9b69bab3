"""A simulator, as a file of training/simulators/: carts that are to be pushed to the middle."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nervecord.training.simulators.base import Step, Uncut, shared_seed

LENGTH = 20


class CartSimulator(Uncut):
    """Position and velocity; the action is a push. An episode has 20 steps."""

    where = "--sim cart"
    observation_size = 2
    low, high = np.array([-1.0]), np.array([1.0])
    device = torch.device("cpu")
    control_period: float | None = 0.05

    def __init__(self, env: str, seeds: list[int]) -> None:
        self.num_envs = len(seeds)
        self.draw = torch.Generator().manual_seed(shared_seed(seeds))
        self.carts, self.age = torch.zeros(self.num_envs, 2), torch.zeros(self.num_envs, dtype=torch.int64)

    def reset(self) -> Tensor:
        self._begin(torch.ones(self.num_envs, dtype=torch.bool))
        return self.carts.clone()

    def _begin(self, where: Tensor) -> None:
        self.carts[where] = torch.rand(int(where.sum()), 2, generator=self.draw) * 2 - 1
        self.age[where] = 0

    def step(self, actions: Tensor) -> Step:
        ends = self.age >= LENGTH
        self.carts[:, 1] += 0.1 * actions[:, 0].float()
        self.carts[:, 0] += 0.1 * self.carts[:, 1]
        self.age += 1
        self._begin(ends)
        rewards = torch.where(ends, 0.0, 1 - self.carts[:, 0].abs())
        return Step(self.carts.clone(), rewards, torch.zeros_like(ends), self.age >= LENGTH)

    def close(self) -> None:
        pass
