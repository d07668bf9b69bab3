"""The learner of an algorithm, as a file of training/learners/: random search for a linear policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nervecord.training.algorithms.climb import Climb  # type: ignore[import-not-found]  # where the test puts it
from nervecord.training.learners.base import Rollout, Setup
from nervecord.training.learners.teacher import Teacher
from nervecord.training.policy.actor import Act


class Climber:
    """Adds noise to the weights, and keeps what earned more."""

    state_size = 0
    restart_steps = 0

    def __init__(self, setup: Setup) -> None:
        self.settings: Climb = setup.config.algorithm
        self.device = torch.device("cpu")
        self.best = self.weights = torch.zeros(len(setup.low), setup.observations)
        self.reward = float("-inf")

    def schedule(self, step: int, total: int) -> None:
        self.weights = self.best + self.settings.stride * torch.randn_like(self.best)

    def act(self, observations: Tensor, state: Tensor | None) -> Act:
        actions = observations @ self.weights.T
        return Act(actions, actions, state)

    def mode(self, observations: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return observations @ self.best.T, state

    def update(self, rollout: Rollout) -> dict[str, float]:
        reward = float(rollout.rewards[rollout.valid].mean())
        if reward > self.reward:
            self.best, self.reward = self.weights, reward
        return {"best_reward": self.reward}

    def absorb(self, rollout: Rollout) -> None:
        pass

    def restart_episodes(self) -> None:
        pass

    def prepare(self, collect: Callable[[], Rollout]) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "reward": self.reward}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.reward = state["best"], state["reward"]


class ClimberTeacher(Teacher):
    """What it found, to imitate."""

    def __init__(self, content: dict[str, Any], observations: int, low: Tensor, high: Tensor, outputs: int) -> None:
        super().__init__(content, observations, low, high, outputs)
        self.parts = {"best": content["learner"]["best"]}

    def forward(self, observations: Tensor) -> Tensor:
        actions: Tensor = observations @ self.parts["best"].T
        return actions
