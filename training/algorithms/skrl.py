"""Algorithms of skrl."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nervecord.training.algorithms.off_policy import OffPolicy
from nervecord.training.algorithms.td7 import TD7Settings
from nervecord.training.fields import with_default


@dataclass(frozen=True)
class SkrlAlgorithm(OffPolicy):
    """One of skrl's off-policy agents, with plain networks."""

    own_networks: ClassVar[bool] = True

    hidden: int = with_default(TD7Settings, "hidden", 256)
    random_steps: int = with_default(TD7Settings, "random_steps", 25_000)

    def hidden_weights(self) -> dict[str, int]:
        return {"--hidden": self.hidden**2}


@dataclass(frozen=True)
class SAC(SkrlAlgorithm):
    """skrl's soft actor-critic."""

    name: ClassVar[str] = "sac"
    about: ClassVar[str] = "skrl's soft actor-critic, without spikes"
    learner_class: ClassVar[str] = "nervecord.training.learners.skrl_agents:SACLearner"


@dataclass(frozen=True)
class TD3(SkrlAlgorithm):
    """skrl's TD3."""

    name: ClassVar[str] = "td3"
    about: ClassVar[str] = "skrl's TD3, without spikes"
    learner_class: ClassVar[str] = "nervecord.training.learners.skrl_agents:TD3Learner"
