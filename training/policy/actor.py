"""Stochastic policies: a network, and a distribution about its outputs.

Actions are values with Gaussian noise of state-independent size, or a choice drawn by softmax of the network's outputs,
the logits; then an action is one number, the index of the action, (B, 1). Without noise the first of the largest is
taken, as the compiler's decoders define it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nervecord.training.algorithms.on_policy import OnPolicy
from nervecord.training.policy.mirror import mirror_of
from nervecord.training.policy.network import AnnPolicy, SpikingPolicy, make_policy
from nervecord.training.settings.config import TrainConfig

LOG_TWO_PI = math.log(2 * math.pi)


@dataclass(frozen=True, slots=True)
class Act:
    """What is done in a batch of states: actions (B, actions); what the network gave, means or logits (B, outputs);
    the next state (B, state_size) or None."""

    actions: Tensor
    outputs: Tensor
    state: Tensor | None


class Actor(nn.Module):
    """A network whose outputs are the middle of what is done, and a distribution about it."""

    net: SpikingPolicy | AnnPolicy

    def forward(self, x: Tensor, state: Tensor | None = None) -> Act:
        """Act in normalised observations (B, observations), the carried state being (B, state_size) or None."""
        outputs, after = self.net(x, state)
        return Act(self.draw(outputs), outputs, after)

    def draw(self, outputs: Tensor) -> Tensor:
        """Actions (B, actions) for what the network gave."""
        raise NotImplementedError

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """Log probability (B,) of actions."""
        raise NotImplementedError

    def entropy(self, outputs: Tensor) -> Tensor:
        """Mean entropy of the distributions, a scalar."""
        raise NotImplementedError

    def best(self, outputs: Tensor) -> Tensor:
        """Actions (B, actions) without noise."""
        raise NotImplementedError

    def mode(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Actions without noise, and the next state."""
        outputs, after = self.net(x, state)
        return self.best(outputs), after

    def exploration(self) -> dict[str, Tensor]:
        """How much actions vary, for the metrics."""
        return {}

    def set_log_std(self, value: Tensor | float) -> None:
        """Set the log standard deviation of the noise; nothing where there is none."""


class GaussianActor(Actor):
    """Actions are values with Gaussian noise.

    Args:
        observations, actions: sizes.
        config: of the run.
    """

    def __init__(self, observations: int, actions: int, config: TrainConfig) -> None:
        super().__init__()
        self.net = make_policy(observations, actions, config)
        algorithm = config.algorithm
        assert isinstance(algorithm, OnPolicy)
        learnt = algorithm.noise == "learnt"
        self.log_std = nn.Parameter(torch.full((actions,), algorithm.log_std), requires_grad=learnt)
        mirror = mirror_of(config.task.env) if config.network.mirror else None
        self.pairs = mirror.actions.order if mirror else None

    def spread(self) -> Tensor:
        """Log standard deviation of each action's noise, (actions,); that of a mirrored pair is one."""
        return self.log_std if self.pairs is None else (self.log_std + self.log_std[self.pairs]) / 2

    def draw(self, outputs: Tensor) -> Tensor:
        return outputs + self.spread().exp() * torch.randn_like(outputs)

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        log_std = self.spread()
        constant = log_std.sum() + 0.5 * LOG_TWO_PI * outputs.shape[-1]
        return -0.5 * ((actions - outputs) * (-log_std).exp()).square().sum(-1) - constant

    def entropy(self, outputs: Tensor) -> Tensor:
        return self.spread().sum() + 0.5 * (LOG_TWO_PI + 1) * outputs.shape[-1]

    def best(self, outputs: Tensor) -> Tensor:
        return outputs

    def set_log_std(self, value: Tensor | float) -> None:
        self.log_std.data[:] = value

    def exploration(self) -> dict[str, Tensor]:
        return {"log_std": self.log_std.detach().mean()}


class CategoricalActor(Actor):
    """An action is a choice.

    Args:
        observations, choices: size of an observation, number of actions to choose from.
        config: of the run.
    """

    def __init__(self, observations: int, choices: int, config: TrainConfig) -> None:
        super().__init__()
        self.net = make_policy(observations, choices, config)

    def draw(self, outputs: Tensor) -> Tensor:
        return torch.multinomial(torch.softmax(outputs, dim=-1), 1).float()

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        return torch.log_softmax(outputs, dim=-1).gather(-1, actions.long())[:, 0]

    def entropy(self, outputs: Tensor) -> Tensor:
        logs = torch.log_softmax(outputs, dim=-1)
        return -(logs.exp() * logs).sum(-1).mean()

    def best(self, outputs: Tensor) -> Tensor:
        return first_largest(outputs).float()


def first_largest(logits: Tensor) -> Tensor:
    """Index of the largest of each row (B, choices), of several equal ones the first: (B, 1)."""
    return logits.argmax(-1, keepdim=True)


def make_actor(observations: int, actions: int, choices: int, config: TrainConfig) -> Actor:
    """The actor of a task: of `actions` values, or of `choices` actions to choose from."""
    if choices:
        return CategoricalActor(observations, choices, config)
    return GaussianActor(observations, actions, config)
