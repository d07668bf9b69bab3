"""What networks without spikes have between their connections: a function of each value on its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, get_args

import numpy as np

from nervecord.compiler.ops import fields
from nervecord.compiler.ops.fields import Array, Shape
from nervecord.compiler.ops.level import Level
from nervecord.compiler.ops.op import Op, Role, State

if TYPE_CHECKING:
    from nervecord.compiler.arithmetic import Arithmetic


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


Function: TypeAlias = Literal["tanh", "relu", "elu"]
FUNCTIONS: dict[Function, Callable[[Array, float], Array]] = {
    "tanh": lambda x, alpha: np.tanh(x),
    "relu": lambda x, alpha: np.maximum(x, 0.0),
    "elu": _elu,
}


@dataclass(frozen=True, slots=True, eq=False)
class Activation(Op):
    """y = f(x), elementwise: tanh x, max(x, 0) (relu), or x where x > 0 and alpha (e^x - 1) elsewhere (elu).

    It has no state and no spikes, so that no chip here takes it: it is for the networks that are teachers.
    """

    function: Function = fields.choice("f", get_args(Function))
    shape: Shape = fields.shape("shape of x, without the batch")
    alpha: float = fields.number("of elu, its limit far below zero", 1.0, above=0)

    ROLE: ClassVar[Role] = "passing"
    LEVELS: ClassVar[frozenset[Level]] = frozenset({Level.DISCRETE})

    @classmethod
    def kinds(cls, level: Level) -> tuple[str, ...]:
        return tuple(name.capitalize() for name in FUNCTIONS) if level in cls.LEVELS else ()

    @property
    def kind(self) -> str:
        return self.function.capitalize()

    @property
    def in_shape(self) -> Shape:
        return self.shape

    @property
    def bound(self) -> float | None:
        return 1.0 if self.function == "tanh" else None

    def step(self, state: State, x: Array, arithmetic: Arithmetic | None = None) -> Array:
        return FUNCTIONS[self.function](x, self.alpha)
