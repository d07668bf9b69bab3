"""What all ops share: a frozen value whose type says everything that is true of it.

An elementwise op says its step once, as a body of equations (`compiler.body`), which every engine reads; run with
numpy it is the definition that they are tested against. What mixes elements has a `step` of its own in plain numpy.
Arrays have the batch first; shapes leave it out. Float levels compute in float64, the integer level in int64.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, TypeAlias

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.body.evaluate import Evaluator
from nervecord.compiler.body.expression import Body
from nervecord.compiler.body.trace import Tracer, Value
from nervecord.compiler.ops import fields
from nervecord.compiler.ops.fields import Array, Shape
from nervecord.compiler.ops.level import EXECUTABLE, Level
from nervecord.compiler.ops.nirnode import Fields
from nervecord.compiler.ops.reach import Reach, Sent
from nervecord.errors import GraphError

State: TypeAlias = dict[str, Array]
"""An op's state: name -> (batch, ...) array."""
Role: TypeAlias = Literal["input", "output", "before", "after", "connection", "passing", "population"]
"""What an op is in a policy: an end; a host op before or after the core; a weighted connection; something that passes
values on (scaled, reshaped, pooled, delayed); or a population of neurons."""
NirForm: TypeAlias = tuple[str, dict[str, Array]]
"""A NIR type and its fields as a file holds them."""


@dataclass(frozen=True, slots=True)
class Synapses:
    """What a connection costs.

    Args:
        fan_out: (in,) synapses with a non-zero weight of each source value.
        fan_in: most of them into one output value.
        stored: synapses with the zeros of a dense matrix.
    """

    fan_out: Array
    fan_in: int
    stored: int


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """An op. `origin`: the names its maker used, kept through fusions; errors speak in those names."""

    origin: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)

    ROLE: ClassVar[Role]
    LEVELS: ClassVar[frozenset[Level]]
    """Levels at which the op is legal."""
    SHOWN: ClassVar[str] = ""
    """The state that is read where a population is looked at or sends nothing."""
    NIR: ClassVar[tuple[str, ...]] = ()
    """NIR types that `from_nir` reads."""

    def __post_init__(self) -> None:
        fields.freeze(self)

    # ---------------------------------------------------------------------------------------------- what it is

    @property
    def kind(self) -> str:
        """The name that findings, specs and dumps print."""
        return type(self).__name__

    @classmethod
    def kinds(cls, level: Level) -> tuple[str, ...]:
        """What `kind` can be at a level; empty where the op has no meaning there, or is of another op's kind."""
        return (cls.__name__,) if level in cls.LEVELS else ()

    @property
    def levels(self) -> frozenset[Level]:
        """Levels at which this op is legal."""
        return type(self).LEVELS

    @property
    def in_shape(self) -> Shape:
        """Shape of x, without the batch."""
        raise TypeError(f"{self.kind} declares no input shape")

    @property
    def out_shape(self) -> Shape:
        """Shape of y, without the batch."""
        return self.in_shape

    @property
    def size(self) -> int:
        """Number of values it gives."""
        return math.prod(self.out_shape)

    @property
    def lag(self) -> int:
        """Steps between an input and the output it reaches first: y(t) depends on x(t - lag)."""
        return 0

    @property
    def kept(self) -> int:
        """Steps of its input that it keeps itself, beyond `lag`."""
        return 0

    @property
    def spikes(self) -> bool:
        """Whether it gives spikes rather than values."""
        return False

    @property
    def messages(self) -> bool:
        """Whether a population gives graded messages: whole numbers for connections, most of them zero."""
        return False

    @property
    def sending(self) -> bool:
        """Whether what it gives may enter a connection on a target: spikes or messages, and no membranes."""
        return self.spikes or self.messages

    @property
    def bound(self) -> float | None:
        """Largest magnitude of what it gives, whatever it gets; None where there is none."""
        return 1.0 if self.spikes else None

    @property
    def sends(self) -> tuple[Array, Array] | None:
        """(low, high), one integer per value, of what it sends into integers from the host, whatever it gets.

        None where it sends real numbers, or integers without a limit: no range of integers can be proved behind it.
        """
        if not self.spikes:
            return None
        return np.zeros(self.size, dtype=np.int64), np.ones(self.size, dtype=np.int64)

    def violations(self) -> Iterator[fields.Violation]:
        """What of its fields goes against their declarations and the op's own rules."""
        yield from fields.violations(self)

    def misfits(self, arithmetic: Arithmetic) -> Iterator[fields.Violation]:
        """What of it an arithmetic does not hold, at the integer level."""
        return iter(())

    # ---------------------------------------------------------------------------------------------- what it does

    def state(self, batch: int) -> State:
        """State before the first step: zeros. Stateless ops have none."""
        return {}

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        """The equations of one step of an elementwise op: what it gives for `do.x`.

        x has been delayed by `lag` already. `arithmetic` is the graph's, at the integer level.
        """
        raise NotImplementedError(self.kind)

    @property
    def has_body(self) -> bool:
        """Whether its step is a body of equations."""
        return type(self).body is not Op.body

    def traced(self, arithmetic: Arithmetic | None) -> Body:
        """Its body."""
        whole = self.levels == {Level.INTEGER} or (Level.INTEGER in self.levels and arithmetic is not None)
        tracer = Tracer("integer" if whole else "float")
        return tracer.body(self.body(tracer, arithmetic))

    def step(self, state: State, x: Array, arithmetic: Arithmetic | None = None) -> Array:
        """One step: y (batch, *out_shape) from x (batch, *in_shape); `state` is updated."""
        if self.has_body:
            return self.stepper(arithmetic)(state, x)
        raise GraphError(
            f"{self.kind} has no meaning in steps of time", where=self.label, hint="give --dt, which makes steps of it"
        )

    def stepper(self, arithmetic: Arithmetic | None) -> Callable[[State, Array], Array]:
        """`step` for many steps: what does not change between them is prepared once."""
        if not self.has_body:
            return lambda state, x: self.step(state, x, arithmetic)
        evaluator = Evaluator(self.traced(arithmetic))

        def run(state: State, x: Array) -> Array:
            try:
                return evaluator.step(state, x)
            except ArithmeticError as error:
                if isinstance(error, FloatingPointError):
                    raise
                raise GraphError(str(error), where=self.label) from None

        return run

    def discrete(self, dt: float, convention: str) -> Op:
        """The op in steps of dt seconds; see `compiler.passes.discretise`. The op itself where it has no time in it."""
        return self

    def reach(self, arithmetic: Arithmetic, interval: int, entering: Sent) -> Reach:
        """Of a population in integers: what its state can reach and what it sends.

        Args:
            interval: steps between two clearings of the state; 0: it is carried.
            entering: sums of what its connections give.
        """
        raise NotImplementedError(self.kind)

    # ---------------------------------------------------------------------------------------------- what it costs

    @property
    def neurons(self) -> int:
        """Neurons it holds."""
        return self.size if type(self).ROLE == "population" else 0

    def synapses(self) -> Synapses | None:
        """Of a connection; None for anything else."""
        return None

    @property
    def laid_out(self) -> int:
        """Values that a step lays out beside what it takes and gives, in a batch of one."""
        return 0

    @property
    def operations(self) -> int:
        """Multiplications or like work of a step, in a batch of one."""
        return self.size

    # ---------------------------------------------------------------------------------------------- NIR

    @classmethod
    def from_nir(cls, nir_fields: Fields, fed: Shape | None) -> Op:
        """From the fields of a NIR node; `fed` is the shape that feeds it, where that is known."""
        raise NotImplementedError(cls.__name__)

    def to_nir(self, dt: float, name: str) -> NirForm:
        """NIR type and fields.

        Raises:
            GraphError: NIR cannot say it.
        """
        raise GraphError(f"{self.kind} cannot be written as NIR", where=name)

    # ---------------------------------------------------------------------------------------------- values

    @property
    def label(self) -> str:
        """Its maker's name for it, or its kind."""
        return " + ".join(self.origin) or self.kind

    def replace(self, **changes: Any) -> Self:
        """A copy with these fields changed."""
        return dataclasses.replace(self, **changes)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(fields.same(getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))

    __hash__ = None  # type: ignore[assignment]  # ops hold arrays; key by node name instead


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A part of a composed op: declared fields, and nothing by itself."""

    LEVEL: ClassVar[Level]

    def __post_init__(self) -> None:
        fields.freeze(self)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(fields.same(getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))

    __hash__ = None  # type: ignore[assignment]


def runs(op: Op) -> bool:
    """Whether it can be executed at one of its levels."""
    return bool(op.levels & EXECUTABLE)
