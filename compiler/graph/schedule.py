"""When a graph works: steps between two clearings of its state, and how input comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from nervecord.errors import GraphError, unknown_name

StateRule: TypeAlias = Literal["reset", "carried"]
"""reset: all state is cleared before each block of steps; carried: never."""
LONGEST_BLOCK = 1 << 16
"""Steps of the longest block."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Blocks of steps.

    Args:
        steps: useful steps of a block, T. Of a policy a block is an action.
        state: see `StateRule`.
        held: one input per block, held (or sent as spikes) over its steps, as a policy's observation is; else an input
            at every step: a stream.
    """

    steps: int = 1
    state: StateRule = "carried"
    held: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= LONGEST_BLOCK:
            raise GraphError(f"a block has {self.steps} steps, 1 to {LONGEST_BLOCK} are possible", where="steps")
        if self.state not in get_args(StateRule):
            raise unknown_name("state rule", self.state, get_args(StateRule), where="schedule")

    @property
    def resets(self) -> bool:
        """Whether state is cleared before each block."""
        return self.state == "reset"


STREAM = Schedule()
"""Step by step, state carried."""
