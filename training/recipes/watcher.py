"""Who is told how a chain proceeds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeAlias

from nervecord.training.recipes.recipe import PlannedStage

Side: TypeAlias = Literal["float", "fixed"]
SIDES: tuple[Side, ...] = ("float", "fixed")
"""The policy in float64, and the compiled one."""


class Watcher:
    """Shows nothing; what shows progress replaces these."""

    def training(self, stage: PlannedStage) -> AbstractContextManager[Callable[[Any], None] | None]:
        """The callback of a stage's training (`nervecord.training.run.ProgressCallback`), for the time of it."""
        return nullcontext()

    def episodes(self, side: Side) -> AbstractContextManager[Callable[[int, int, float], None] | None]:
        """The callback of a block of episodes (`nervecord.runtime.loop.Progress`), for the time of it."""
        return nullcontext()

    def note(self, text: str) -> None:
        """A line about what comes next."""
