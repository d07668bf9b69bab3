"""Declarations of algorithms, as a file of training/algorithms/: a learner's, and one more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nervecord.training.algorithms.base import Algorithm, Asset
from nervecord.training.algorithms.distill import Distill
from nervecord.training.fields import flag


@dataclass(frozen=True)
class Climb(Algorithm):
    """Random search."""

    name: ClassVar[str] = "climb"
    about: ClassVar[str] = "random search for a linear policy"
    learner_class: ClassVar[str] = "nervecord.training.learners.climb:Climber"
    teacher_class: ClassVar[str] = "nervecord.training.learners.climb:ClimberTeacher"
    assets: ClassVar[frozenset[Asset]] = frozenset({Asset.ACTIONS})
    own_networks: ClassVar[bool] = True
    takes_choices: ClassVar[bool] = False
    takes_processes: ClassVar[bool] = False

    stride: float = flag(0.1, "standard deviation of what is added to the weights", above=0, resumable=True)


@dataclass(frozen=True)
class Copy(Distill):
    """A second algorithm of the verb `distill`."""

    name: ClassVar[str] = "copy"
    about: ClassVar[str] = "imitation in a test"
