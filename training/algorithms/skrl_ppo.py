"""skrl's PPO, with the networks of this package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nervecord.training.algorithms.base import Asset
from nervecord.training.algorithms.on_policy import OnPolicy
from nervecord.training.algorithms.ppo import PPO
from nervecord.training.fields import with_default


@dataclass(frozen=True)
class SkrlPPO(OnPolicy):
    """skrl's update of proximal policy optimisation."""

    name: ClassVar[str] = "skrl-ppo"
    about: ClassVar[str] = "skrl's PPO, for policies whose state is reset"
    learner_class: ClassVar[str] = "nervecord.training.learners.skrl_ppo:SkrlPPOLearner"
    teacher_class: ClassVar[str] = PPO.teacher_class
    assets: ClassVar[frozenset[Asset]] = PPO.assets
    takes_presets: ClassVar[bool] = True
    takes_carried: ClassVar[bool] = False
    takes_choices: ClassVar[bool] = False
    takes_processes: ClassVar[bool] = False

    clip: float = with_default(PPO, "clip", 0.2)
    entropy: float = with_default(PPO, "entropy", 0.0)
    value_weight: float = with_default(PPO, "value_weight", 0.5)
