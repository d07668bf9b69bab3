"""What algorithms share that learn from a replay of transitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nervecord.errors import NervecordError
from nervecord.training.algorithms.base import Algorithm
from nervecord.training.fields import flag, flag_name, with_default


@dataclass(frozen=True)
class OffPolicy(Algorithm):
    """What learns from all that was seen."""

    takes_choices: ClassVar[bool] = False
    takes_processes: ClassVar[bool] = False
    fills_with: ClassVar[str] = "random_steps"
    """The field with the environment steps before the first update, which fill the replay."""

    num_envs: int = with_default(Algorithm, "num_envs", 16)
    minibatch: int = flag(256, "transitions of one gradient step, over all processes", least=1)
    steps_per_update: float = flag(2.0, "environment steps for each update", above=0)
    capacity: int = flag(1_000_000, "transitions in the replay", least=1, most=1 << 30)

    def _check_together(self) -> None:
        super()._check_together()
        if (steps := getattr(self, self.fills_with)) >= self.steps:
            raise NervecordError(
                f"is {steps:,}, and the whole training has {self.steps:,} steps: nothing would be learnt",
                where=flag_name(self.fills_with),
                hint="lower it, or raise --steps, which counts them",
            )
