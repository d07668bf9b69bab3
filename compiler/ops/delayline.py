"""A delay in steps that is a node of its own, each channel with its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.ops import fields
from nervecord.compiler.ops.connections import LONGEST_DELAY
from nervecord.compiler.ops.fields import Array, Shape
from nervecord.compiler.ops.level import Level
from nervecord.compiler.ops.op import NirForm, Op, Role, State


@dataclass(frozen=True, slots=True, eq=False)
class DelayLine(Op):
    """y_k(t) = x_k(t - steps_k), with x = 0 before the first step.

    Discretising makes one of a NIR Delay that no Affine next to it can take: channels that differ, other neighbours.
    """

    steps: Array = fields.array("whole steps of each channel", "...", dtype=np.int64, low=0, high=LONGEST_DELAY)

    ROLE: ClassVar[Role] = "passing"
    LEVELS: ClassVar[frozenset[Level]] = frozenset({Level.DISCRETE})

    @property
    def in_shape(self) -> Shape:
        return tuple(self.steps.shape)

    @property
    def lag(self) -> int:
        """What every channel waits at least; the rest of the longer ones is kept in the state."""
        return int(self.steps.min())

    @property
    def kept(self) -> int:
        """Steps by which the longest channel waits beyond `lag`."""
        return int(self.steps.max()) - self.lag

    def state(self, batch: int) -> State:
        return {"line": np.zeros((batch, self.kept, *self.in_shape))} if self.kept else {}

    def step(self, state: State, x: Array, arithmetic: Arithmetic | None = None) -> Array:
        if not state:
            return x.copy()  # x is a view of what is kept for `lag`, and that moves on
        line = np.concatenate([state["line"], x[:, None]], axis=1)
        state["line"] = line[:, 1:]
        # The newest stands last, at index `kept`.
        flat = line.reshape(len(x), self.kept + 1, -1)
        back = self.kept - (self.steps.ravel() - self.lag)
        arriving: Array = flat[:, back, np.arange(self.size)]
        return arriving.reshape(x.shape)

    def to_nir(self, dt: float, name: str) -> NirForm:
        return "Delay", {"delay": self.steps * dt}
