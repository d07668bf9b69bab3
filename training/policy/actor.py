"""Policies that act with chance: a network, and a distribution around what it gives.

Actions are values with Gaussian noise of state-independent size, or a choice drawn by softmax of the network's outputs,
the logits; then an action is one number, the index of the action, (B, 1). Without noise the first of the largest is
taken, as the compiler's decoders define it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nervecord.errors import NervecordError
from nervecord.training.config import OnPolicy, TrainConfig
from nervecord.training.policy.mirror import mirror_of
from nervecord.training.policy.network import AnnPolicy, SpikingPolicy, make_policy

LOG_TWO_PI = math.log(2 * math.pi)


@dataclass(frozen=True, slots=True)
class Act:
    """What an actor does in a batch of states: actions (B, actions), log probability and entropy (B,), the next state
    (B, state_size) or None."""

    actions: Tensor
    log_prob: Tensor
    entropy: Tensor
    state: Tensor | None


class Actor(nn.Module):
    """A network whose outputs are the middle of what is done."""

    net: SpikingPolicy | AnnPolicy

    def forward(self, x: Tensor, state: Tensor | None = None, taken: Tensor | None = None) -> Act:
        """Act in normalised observations (B, observations).

        Args:
            x: the observations.
            state: carried state (B, state_size), where the network has one.
            taken: actions (B, actions) whose probability is asked for; None to draw them.
        """
        raise NotImplementedError

    def mode(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Actions without noise, and the next state."""
        raise NotImplementedError

    def exploration(self) -> dict[str, Tensor]:
        """How much actions vary, for the metrics."""
        return {}


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

    def forward(self, x: Tensor, state: Tensor | None = None, taken: Tensor | None = None) -> Act:
        mean, after = self.net(x, state)
        log_std = self.spread()
        std = log_std.exp()
        actions = mean + std * torch.randn_like(mean) if taken is None else taken
        constant = log_std.sum() + 0.5 * LOG_TWO_PI * mean.shape[-1]
        log_prob = -0.5 * ((actions - mean) / std).square().sum(-1) - constant
        entropy = (constant + 0.5 * mean.shape[-1]).expand(len(mean))
        return Act(actions, log_prob, entropy, after)

    def mode(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        mean, after = self.net(x, state)
        return mean, after

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

    def forward(self, x: Tensor, state: Tensor | None = None, taken: Tensor | None = None) -> Act:
        logits, after = self.net(x, state)
        logs = torch.log_softmax(logits, dim=-1)
        probabilities = logs.exp()
        actions = torch.multinomial(probabilities.detach(), 1).float() if taken is None else taken
        log_prob = logs.gather(-1, actions.long())[:, 0]
        return Act(actions, log_prob, -(probabilities * logs).sum(-1), after)

    def mode(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        logits, after = self.net(x, state)
        return first_largest(logits).float(), after


def first_largest(logits: Tensor) -> Tensor:
    """Index of the largest of each row (B, choices), of several equal ones the first: (B, 1)."""
    return logits.argmax(-1, keepdim=True)


def make_actor(observations: int, actions: int, choices: int, config: TrainConfig) -> Actor:
    """The actor of a task: of `actions` values, or of `choices` actions to choose from.

    Raises:
        NervecordError: the configuration says of a choice what only values have.
    """
    if not choices:
        return GaussianActor(observations, actions, config)
    algorithm = config.algorithm
    if isinstance(algorithm, OnPolicy) and algorithm.noise != "learnt":
        raise NervecordError(
            f"is {algorithm.noise!r}, and {config.task.env} lets choose among {choices} actions, whose draw has no "
            "such size",
            where="--noise",
            hint="use --entropy to keep the choice open",
        )
    return CategoricalActor(observations, choices, config)
