"""What algorithms share that learn from a replay of transitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nervecord.training.algorithms.base import Algorithm
from nervecord.training.fields import flag, with_default


@dataclass(frozen=True)
class OffPolicy(Algorithm):
    """What learns from all that was seen."""

    takes_choices: ClassVar[bool] = False
    takes_processes: ClassVar[bool] = False

    num_envs: int = with_default(Algorithm, "num_envs", 16)
    minibatch: int = flag(256, "transitions of one gradient step, over all processes", least=1)
    steps_per_update: float = flag(2.0, "environment steps for each update", above=0)
    capacity: int = flag(1_000_000, "transitions in the replay", least=1, most=1 << 30)
