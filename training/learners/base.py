"""What all learners share: the protocol, and the rollout that they learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from nervecord.training.policy.actor import Act
from nervecord.training.processes.distributed import SOLO, Group
from nervecord.training.settings.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Setup:
    """What a learner is made from. Of several processes each has one, over its share of the environments."""

    observations: int
    """Size of an observation."""
    low: Tensor
    """Least action, (actions,)."""
    high: Tensor
    """Greatest action, (actions,)."""
    config: TrainConfig
    group: Group = SOLO
    """The processes that learn together."""
    choices: int = 0
    """Number of actions to choose from, an action being the number of one; 0 where actions are values."""
    sources: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Checkpoints that a new training starts from, by the field that names each."""
    content: dict[str, Any] | None = None
    """The checkpoint that the training resumes from, which holds what it needs of its sources."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """T steps of N environments, in tensors on the learner's device.

    A step that only reset an environment is not valid: its action did nothing. Row t + 1 of `observations` is what step
    t led to, also where an episode ended in it.
    """

    observations: Tensor
    """Raw, (T + 1, N, observations) float32; the last row begins the next rollout."""
    actions: Tensor
    """As drawn, beyond the limits too, (T, N, actions) float32."""
    outputs: Tensor
    """What the network gave, of which the actions were drawn: means or logits, (T, N, outputs) float32."""
    states: Tensor | None
    """Carried state before each action, (T, N, state_size), or None."""
    rewards: Tensor
    """(T, N) float64."""
    terminated: Tensor
    """(T, N) bool: the task ended, nothing follows. Also set where the time limit ended the episode too."""
    truncated: Tensor
    """(T, N) bool: the episode was cut short; what would have followed is still worth something."""
    valid: Tensor
    """(T, N) bool."""

    @property
    def done(self) -> Tensor:
        """Where an episode ended, (T, N) bool."""
        return self.terminated | self.truncated

    def flat(self, tensor: Tensor) -> Tensor:
        """A tensor (T, N, ...) or (T + 1, N, ...) with a row for each of the T N steps."""
        return tensor[: len(self.valid)].flatten(0, 1)


class Learner(Protocol):
    """What acts, and learns from rollouts. Observations that it is given are raw."""

    device: torch.device
    state_size: int
    """Numbers that the policy carries from action to action for each environment."""
    restart_steps: int
    """Steps after which the episodes of half of the environments are cut again and again; 0: never."""

    def schedule(self, step: int, total: int) -> None:
        """Set what follows a schedule for the next rollout and its update: `step` of `total` environment steps are
        over."""
        ...

    def act(self, observations: Tensor, state: Tensor | None) -> Act:
        """Act with exploration noise, without gradient, for observations (N, observations) and state (N, states)."""
        ...

    def mode(self, observations: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Actions without noise, not yet limited, and the next state, without gradient."""
        ...

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Learn; returns what goes into the metrics."""
        ...

    def absorb(self, rollout: Rollout) -> None:
        """Take the rollout's observations into the statistics; after the update."""
        ...

    def restart_episodes(self) -> None:
        """Forget the running episodes: new ones begin in all environments."""
        ...

    def prepare(self, collect: Callable[[], Rollout]) -> None:
        """Gather again what is in no checkpoint, before a resumed run continues; rollouts collected so do not count."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that was learnt, in plain containers and tensors."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave, or a part of it."""
        ...
