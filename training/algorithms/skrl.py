"""Algorithms of skrl."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nervecord.training.algorithms.base import Algorithm
from nervecord.training.fields import MOST_ENVS, MOST_WIDTH, flag


@dataclass(frozen=True)
class SkrlAlgorithm(Algorithm):
    """One of skrl's off-policy agents, with plain networks."""

    learner_class: ClassVar[str] = "nervecord.training.learners.skrl_agents:SkrlLearner"
    own_networks: ClassVar[bool] = True
    takes_choices: ClassVar[bool] = False
    takes_processes: ClassVar[bool] = False

    num_envs: int = flag(16, "environments stepped together", least=1, most=MOST_ENVS)
    minibatch: int = flag(256, "transitions of one gradient step", least=1)
    steps_per_update: float = flag(2.0, "environment steps for each update", above=0)
    hidden: int = flag(256, "neurons of each of its two hidden layers", least=1, most=MOST_WIDTH)
    capacity: int = flag(1_000_000, "transitions in the replay", least=1, most=1 << 30)
    random_steps: int = flag(25_000, "steps of uniformly random actions before the first update", least=1)


@dataclass(frozen=True)
class SAC(SkrlAlgorithm):
    """skrl's soft actor-critic."""

    name: ClassVar[str] = "sac"
    about: ClassVar[str] = "skrl's soft actor-critic, without spikes"


@dataclass(frozen=True)
class TD3(SkrlAlgorithm):
    """skrl's TD3."""

    name: ClassVar[str] = "td3"
    about: ClassVar[str] = "skrl's TD3, without spikes"
