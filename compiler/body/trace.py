"""Records an op's equations: `Tracer` gives values that stand for numbers, and notes what is done with them.

An `if` on a declared choice happens while tracing, so that a body holds one choice only; an `if` on a traced value is
an error, as a traced value is every element's at once.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from nervecord.compiler.body.expression import Array, Body, Kind, Node, Rounding, Setting, dtype_of

Number: TypeAlias = "Value | int | float | Array"


class Value:
    """A traced value.

    Args:
        do: the tracer that recorded it. place: of its node.
    """

    __slots__ = ("do", "place")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, do: Tracer, place: int) -> None:
        self.do, self.place = do, place

    @property
    def kind(self) -> Kind:
        """Of its values."""
        return self.do.nodes[self.place].kind

    def __bool__(self) -> bool:
        raise TypeError("a traced value is neither true nor false: use `where`")

    def __add__(self, other: Number) -> Value:
        return self.do.numeric("add", self, other)

    def __radd__(self, other: Number) -> Value:
        return self.do.numeric("add", other, self)

    def __sub__(self, other: Number) -> Value:
        return self.do.numeric("subtract", self, other)

    def __rsub__(self, other: Number) -> Value:
        return self.do.numeric("subtract", other, self)

    def __mul__(self, other: Number) -> Value:
        return self.do.numeric("multiply", self, other)

    def __rmul__(self, other: Number) -> Value:
        return self.do.numeric("multiply", other, self)

    def __truediv__(self, other: Number) -> Value:
        return self.do.numeric("divide", self, other)

    def __neg__(self) -> Value:
        return self.do.numeric("negate", self)

    def __abs__(self) -> Value:
        return self.do.numeric("absolute", self)

    def __lshift__(self, bits: Number) -> Value:
        return self.do.numeric("shift_left", self, bits)

    def __rshift__(self, bits: Number) -> Value:
        return self.do.numeric("shift_right", self, bits)

    def __gt__(self, other: Value | float) -> Value:
        return self.do.compared("greater", self, other)

    def __ge__(self, other: Value | float) -> Value:
        return self.do.compared("greater_equal", self, other)

    def __lt__(self, other: Value | float) -> Value:
        return self.do.compared("less", self, other)

    def __le__(self, other: Value | float) -> Value:
        return self.do.compared("less_equal", self, other)

    def equals(self, other: Number) -> Value:
        """Whether it is the same number. (`==` is Python's own.)"""
        return self.do.compared("equal", self, other)

    def __and__(self, other: Value) -> Value:
        return self.do.record("both", "bool", (self, other))

    def __or__(self, other: Value) -> Value:
        return self.do.record("either", "bool", (self, other))

    def __invert__(self) -> Value:
        return self.do.record("negated", "bool", (self,))


class Tracer:
    """Records a body. Equal nodes are one node.

    Args:
        kind: of what enters, "integer" or "float".
    """

    def __init__(self, kind: Kind) -> None:
        self.nodes: list[Node] = []
        self.values: dict[int, Array] = {}
        self._kept: dict[str, Value] = {}
        self._observed: dict[str, Value] = {}
        self._checks: list[tuple[Value, str]] = []
        self._places: dict[Any, int] = {}
        self.x = self._node(Node("input", kind, name="x"))

    # ------------------------------------------------------------------------------------------------ sources

    def state(self, name: str, kind: Kind | None = None) -> Value:
        """A state's value at the end of the step before; 0 before the first. `kind`: that of x by default."""
        return self._node(Node("state", kind or self.x.kind, name=name))

    def constant(self, name: str, value: int | float | Array, kind: Kind | None = None) -> Value:
        """A number, or one for each element, with the name under which it is printed and recognised."""
        kind = kind or self.x.kind
        node = Node("constant", kind, name=name)
        array: Array = np.array(value, dtype=dtype_of(kind))
        array.setflags(write=False)
        key = (node, array.shape, array.tobytes())
        if key not in self._places:
            self._places[key] = len(self.nodes)
            self.nodes.append(node)
            self.values[self._places[key]] = array
        return Value(self, self._places[key])

    # ------------------------------------------------------------------------------------------------ operations

    def where(self, condition: Value, a: Number, b: Number) -> Value:
        """a where the condition holds, else b."""
        kind = next(value.kind for value in (a, b, self.x) if isinstance(value, Value))
        return self.record("where", kind, (condition, self._value(a, kind), self._value(b, kind)))

    def clip(self, x: Value, low: Number, high: Number) -> Value:
        """min(max(x, low), high)."""
        return self.numeric("clip", x, low, high)

    def minimum(self, a: Number, b: Number) -> Value:
        """The smaller one."""
        return self.numeric("minimum", a, b)

    def maximum(self, a: Number, b: Number) -> Value:
        """The larger one."""
        return self.numeric("maximum", a, b)

    def wrap(self, x: Value, bits: int) -> Value:
        """x modulo 2^bits, into the signed range."""
        return self.numeric("wrap", x, self.constant("bits", bits))

    def wrap_once(self, x: Value, low: int, high: int) -> Value:
        """x with one correction by the length of low..high."""
        return self.numeric("wrap_once", x, self.constant("low", low), self.constant("high", high))

    def scaled(self, x: Value, factor: Number, bits: Number, rounding: Rounding) -> Value:
        """x * factor / 2^bits, rounded."""
        return self.numeric("scaled", x, factor, bits, settings=(rounding,))

    def lose(self, x: Value, shift: Number, *, at_least_one: bool) -> Value:
        """x without x / 2^shift, which is rounded down, or is at least 1 of what is not 0."""
        return self.numeric("lose", x, shift, settings=(at_least_one,))

    def count_levels(self, v: Value, level: Number, most: Number, *, reached: bool) -> Value:
        """How often v passes (or reaches) a level above 0, at most `most` times."""
        return self.numeric("count_levels", v, level, most, settings=(reached,))

    def left_of_levels(self, v: Value, level: Number, most: Number, *, reached: bool) -> Value:
        """v without the levels that `count_levels` counts."""
        return self.numeric("left_of_levels", v, level, most, settings=(reached,))

    def floor(self, x: Value) -> Value:
        """Rounded down, a float still."""
        return self.numeric("floor", x)

    def rint(self, x: Value) -> Value:
        """Rounded to the nearest integer, halves to the even one; a float still."""
        return self.numeric("rint", x)

    def power_of_two(self, k: Value) -> Value:
        """2^-k of a float k that is an integer from 0 to 32; exact."""
        return self.numeric("power_of_two", k)

    def tanh(self, x: Value) -> Value:
        """The hyperbolic tangent; float levels alone, as its bits are not the same everywhere."""
        return self.numeric("tanh", x)

    def expm1(self, x: Value) -> Value:
        """e^x - 1; float levels alone."""
        return self.numeric("expm1", x)

    def as_kind(self, x: Value, kind: Kind) -> Value:
        """A truth value as 0 or 1, or a number as another kind."""
        return x if x.kind == kind else self.record(f"as_{kind}", kind, (x,))

    # ------------------------------------------------------------------------------------------------ what it says

    def keep(self, name: str, value: Value) -> None:
        """The value of a state after the step."""
        self._kept[name] = value

    def observe(self, name: str, value: Value) -> None:
        """A value that others look at under this name."""
        self._observed[name] = value

    def check(self, holds: Value, message: str) -> None:
        """What must hold for every element; what is wrong where it does not."""
        self._checks.append((holds, message))

    def body(self, result: Value) -> Body:
        """What was recorded."""
        return Body(
            nodes=tuple(self.nodes),
            values=self.values,
            result=result.place,
            kept={name: value.place for name, value in self._kept.items()},
            observed={name: value.place for name, value in self._observed.items()},
            checks=tuple((value.place, message) for value, message in self._checks),
        )

    # ------------------------------------------------------------------------------------------------ recording

    def numeric(self, operation: str, *arguments: Number, settings: tuple[Setting, ...] = ()) -> Value:
        """An operation on numbers of one kind."""
        kind = next(value.kind for value in arguments if isinstance(value, Value))
        return self.record(operation, kind, tuple(self._value(value, kind) for value in arguments), settings)

    def compared(self, operation: str, a: Number, b: Number) -> Value:
        """A comparison of numbers of one kind."""
        kind = next(value.kind for value in (a, b) if isinstance(value, Value))
        return self.record(operation, "bool", (self._value(a, kind), self._value(b, kind)))

    def record(
        self, operation: str, kind: Kind, arguments: tuple[Value, ...], settings: tuple[Setting, ...] = ()
    ) -> Value:
        """A node, or the one that is equal to it."""
        return self._node(Node(operation, kind, tuple(value.place for value in arguments), settings))

    def _value(self, number: Number, kind: Kind) -> Value:
        if isinstance(number, Value):
            if number.kind != kind:
                raise TypeError(f"an operation mixes {number.kind} and {kind}")
            return number
        return self.constant("", number, kind)

    def _node(self, node: Node) -> Value:
        if node not in self._places:
            self._places[node] = len(self.nodes)
            self.nodes.append(node)
        return Value(self, self._places[node])
