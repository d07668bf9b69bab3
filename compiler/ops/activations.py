"""What networks without spikes have between their connections: a function of each value on its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nervecord.compiler.body.trace import Tracer, Value
from nervecord.compiler.ops import fields
from nervecord.compiler.ops.fields import Shape
from nervecord.compiler.ops.level import Level
from nervecord.compiler.ops.op import Op, Role

if TYPE_CHECKING:
    from nervecord.compiler.arithmetic import Arithmetic


FUNCTIONS = ("tanh", "relu", "elu")


@dataclass(frozen=True, slots=True, eq=False)
class Activation(Op):
    """y = f(x), elementwise: tanh x, max(x, 0) (relu), or x where x > 0 and alpha (e^x - 1) elsewhere (elu).

    It has no state and no spikes, so that no chip here takes it: it is for the networks that are teachers.
    """

    function: str = fields.choice("f", FUNCTIONS)
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

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        match self.function:
            case "tanh":
                return do.tanh(do.x)
            case "relu":
                return do.maximum(do.x, 0.0)
        below = do.constant("alpha", self.alpha) * do.expm1(do.minimum(do.x, 0.0))
        return do.where(do.x > 0, do.x, below)
