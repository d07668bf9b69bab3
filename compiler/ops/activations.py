"""What networks without spikes have between their connections: a function of each value on its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.body.trace import Tracer, Value
from nervecord.compiler.ops import fields
from nervecord.compiler.ops.fields import Shape
from nervecord.compiler.ops.level import Level
from nervecord.compiler.ops.op import Op, Role
from nervecord.errors import no_case

Function: TypeAlias = Literal["tanh", "relu", "elu"]


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
        return tuple(name.capitalize() for name in get_args(Function)) if level in cls.LEVELS else ()

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
            case "elu":
                below = do.constant("alpha", self.alpha) * do.expm1(do.minimum(do.x, 0.0))
                return do.where(do.x > 0, do.x, below)
            case other:
                raise no_case(other, "function", "definition")
