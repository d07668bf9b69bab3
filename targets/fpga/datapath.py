"""Reads the bodies of populations as signals: one datapath for all populations whose equations are alike, in stages.

Populations share a datapath where their bodies differ in constants alone. A constant that differs between neurons comes
from a memory, one that differs between populations is chosen by the population's number, one that is an operation's
shift or width must be the same. Each value has the width that its proved range needs, so nothing is clipped or lost
that the equations do not say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth import Cat, Const, Module, Mux, Shape, Signal, Value, signed, unsigned

from nervecord.compiler.body.expression import Body, Node
from nervecord.errors import InfeasibleError
from nervecord.targets.fpga.layout import Equations

BUDGET = 2
"""Additions, or one multiplication, between two registers."""
LEVELS = 64
"""Most levels that are counted at once."""
FIXED = {
    "shift_left": (1,),
    "shift_right": (1,),
    "scaled": (1, 2),
    "lose": (1,),
    "wrap": (1,),
    "wrap_once": (1, 2),
    "count_levels": (2,),
    "left_of_levels": (2,),
}
"""Operation -> arguments that must be one number when the hardware is made."""


@dataclass(frozen=True, slots=True)
class Field:
    """A number of a memory's word. bits: of it. signed: it may be negative."""

    bits: int
    signed: bool

    @classmethod
    def holding(cls, low: int, high: int) -> Field:
        """The narrowest one for a range."""
        if low >= 0:
            return cls(max(high.bit_length(), 1), False)
        return cls(max((-low - 1).bit_length(), high.bit_length() if high > 0 else 0) + 1, True)

    @property
    def shape(self) -> Shape:
        """As a signal's."""
        return signed(self.bits) if self.signed else unsigned(self.bits)


@dataclass(frozen=True, eq=False)
class Unit:
    """A datapath, and the populations that use it.

    Args:
        body: with the constants of the first. members: equations of each, by the number that they have here.
    """

    body: Body
    members: tuple[Equations, ...]

    def field(self, place: int) -> Field:
        """What holds a node's value in all of them."""
        ranges = [member.ranges[place] for member in self.members]
        return Field.holding(min(low for low, _ in ranges), max(high for _, high in ranges))

    @property
    def state(self) -> dict[str, Field]:
        """State -> what holds it; before the first step it is 0."""
        fields = {}
        for name, place in self.body.kept.items():
            places = [place, *(k for k, n in enumerate(self.body.nodes) if n.operation == "state" and n.name == name)]
            ranges = [member.ranges[k] for member in self.members for k in places]
            fields[name] = Field.holding(min(0, *(low for low, _ in ranges)), max(0, *(high for _, high in ranges)))
        return fields

    @property
    def constants(self) -> dict[int, Field]:
        """Place -> what holds a constant that differs between neurons."""
        fields = {}
        for place in self.body.values:
            every = [member.body.values[place] for member in self.members]
            if any(value.size > 1 and (value != value.flat[0]).any() for value in every):
                fields[place] = Field.holding(min(int(v.min()) for v in every), max(int(v.max()) for v in every))
        return fields


def units(equations: Sequence[Equations]) -> tuple[list[Unit], list[tuple[int, int]]]:
    """The datapaths that these populations need, and (datapath, number in it) of each population.

    Raises:
        InfeasibleError: an operation has no hardware; it is named.
    """
    members_of: dict[Any, list[Equations]] = {}
    keys = [_key(each) for each in equations]
    places = []
    for key, each in zip(keys, equations, strict=True):
        members = members_of.setdefault(key, [])
        places.append((list(members_of).index(key), len(members)))
        members.append(each)
    return [Unit(members[0].body, tuple(members)) for members in members_of.values()], places


def _key(equations: Equations) -> Any:
    """What two populations have in common that share a datapath."""
    body = equations.body
    fixed = []
    for place, node in enumerate(body.nodes):
        if node.arguments and node.operation not in READINGS:
            raise InfeasibleError(f"the operation {node.operation!r} has no hardware")
        for k in FIXED.get(node.operation, ()):
            value = body.values.get(node.arguments[k])
            if value is None or (value != value.flat[0]).any():
                raise InfeasibleError(
                    f"argument {k + 1} of {node.operation!r} is not one number, which hardware is made for"
                )
            fixed.append((place, k, int(value.flat[0])))
    return body.structure, tuple(fixed)


# --------------------------------------------------------------------------------------------------------------------
# Stages


class Datapath:
    """A unit as signals.

    Args:
        m: the module that gets them. unit: to read. name: of the signals.
        x, state, constants: signals of stage 0, by name and place; 1 neuron per cycle. member: number of the
            population, the same for many cycles.
    """

    def __init__(
        self,
        m: Module,
        unit: Unit,
        name: str,
        x: Value,
        state: Mapping[str, Value],
        constants: Mapping[int, Value],
        member: Value,
    ) -> None:
        self.m, self.unit, self.name = m, unit, name
        self.x, self.state, self.constants, self.member = x, state, constants, member
        self._at: dict[tuple[int, int], Value] = {}
        self._stage: dict[int, int] = {}
        self._cost: dict[int, int] = {}
        body = unit.body
        for place, node in enumerate(body.nodes):
            self._read(place, node)
        ends = [body.result, *body.kept.values()]
        self.depth = max(self._stage[place] for place in ends)

    def ends(self, depth: int) -> tuple[Value, dict[str, Value]]:
        """The result and the states after the step, in the stage `depth`."""
        body = self.unit.body
        return self.at(body.result, depth), {name: self.at(place, depth) for name, place in body.kept.items()}

    def at(self, place: int, stage: int) -> Value:
        """A node's value in a stage; one number is the same in all of them."""
        if place in self.unit.body.values and place not in self.constants:
            return self._at[place, 0]
        if (place, stage) not in self._at:
            before = self.at(place, stage - 1)
            later = Signal(before.shape(), name=f"{self.name}_{place}_{stage}")
            self.m.d.sync += later.eq(before)
            self._at[place, stage] = later
        return self._at[place, stage]

    def _read(self, place: int, node: Node) -> None:
        shape = self.unit.field(place).shape
        if not node.arguments:
            self._stage[place] = self._cost[place] = 0
            self._at[place, 0] = self._resized(self._origin(place, node), shape, place, 0)
            return
        stage = max(self._stage[k] for k in node.arguments)
        spent = max((self._cost[k] for k in node.arguments if self._stage[k] == stage), default=0)
        cost = COSTS.get(node.operation, 1)
        if spent and spent + cost > BUDGET:
            stage, spent = stage + 1, 0
        self._stage[place], self._cost[place] = stage, spent + cost
        arguments = [self.at(k, stage) for k in node.arguments]
        numbers = {k: int(self.unit.body.values[node.arguments[k]].flat[0]) for k in FIXED.get(node.operation, ())}
        value = READINGS[node.operation](arguments, numbers, node)
        self._at[place, stage] = self._resized(value, shape, place, stage)

    def _resized(self, value: Any, shape: Shape, place: int, stage: int) -> Value:
        """The value in the width of its range: what is cut off is proved to be its sign alone."""
        resized = Signal(shape, name=f"{self.name}_{place}_{stage}_")
        self.m.d.comb += resized.eq(value)
        return resized

    def _origin(self, place: int, node: Node) -> Value:
        if node.operation == "input":
            return self.x
        if node.operation == "state":
            return self.state[node.name]
        if place in self.constants:
            return self.constants[place]
        numbers = [int(member.body.values[place].flat[0]) for member in self.unit.members]
        value: Value = Const(numbers[0], self.unit.field(place).shape)
        for k, number in enumerate(numbers):
            if number != numbers[0]:
                value = Mux(self.member == k, Const(number, self.unit.field(place).shape), value)
        return value


# --------------------------------------------------------------------------------------------------------------------
# Operations


def _scaled(a: list[Value], numbers: Mapping[int, int], node: Node) -> Any:
    """x * factor / 2^bits. Towards zero: 2^bits - 1 more is added to what is negative before it is rounded down."""
    product = a[0] * Const(numbers[1])
    bits = numbers[2]
    if node.settings[0] == "zero" and bits:
        product = product + Mux(product < 0, Const((1 << bits) - 1), 0)
    return product >> bits


def _lose(a: list[Value], numbers: Mapping[int, int], node: Node) -> Any:
    lost = a[0] >> min(numbers[1], len(a[0]))
    if node.settings[0]:
        lost = Mux(lost == 0, Mux(a[0] < 0, Const(-1, 2), Mux(a[0] == 0, Const(0, 2), Const(1, 2))), lost)
    return a[0] - lost


def _count_levels(a: list[Value], numbers: Mapping[int, int], node: Node) -> Any:
    if numbers[2] > LEVELS:
        raise InfeasibleError(f"counts up to {numbers[2]} levels, hardware counts up to {LEVELS}")
    total: Any = Const(0)
    for k in range(1, numbers[2] + 1):
        level = a[1] * Const(k)
        total = total + (a[0] >= level if node.settings[0] else a[0] > level)
    return total


def _wrap(a: list[Value], numbers: Mapping[int, int], node: Node) -> Any:
    bits = numbers[1]
    return a[0][:bits].as_signed() if len(a[0]) >= bits else a[0]


def _wrap_once(a: list[Value], numbers: Mapping[int, int], node: Node) -> Any:
    low, high = numbers[1], numbers[2]
    span = high - low + 1
    return Mux(a[0] > high, a[0] - span, Mux(a[0] < low, a[0] + span, a[0]))


def _least(x: Any, y: Any) -> Any:
    return Mux(x < y, x, y)


def _most(x: Any, y: Any) -> Any:
    return Mux(x > y, x, y)


READINGS: dict[str, Callable[[list[Value], Mapping[int, int], Node], Any]] = {
    "add": lambda a, k, node: a[0] + a[1],
    "subtract": lambda a, k, node: a[0] - a[1],
    "multiply": lambda a, k, node: a[0] * a[1],
    "minimum": lambda a, k, node: _least(a[0], a[1]),
    "maximum": lambda a, k, node: _most(a[0], a[1]),
    "negate": lambda a, k, node: -a[0],
    "absolute": lambda a, k, node: Mux(a[0] < 0, -a[0], a[0]),
    "shift_left": lambda a, k, node: a[0] << k[1],
    "shift_right": lambda a, k, node: a[0] >> min(k[1], len(a[0])),
    "scaled": _scaled,
    "lose": _lose,
    "count_levels": _count_levels,
    "left_of_levels": lambda a, k, node: a[0] - a[1] * _count_levels(a, k, node),
    "wrap": _wrap,
    "wrap_once": _wrap_once,
    "greater": lambda a, k, node: a[0] > a[1],
    "greater_equal": lambda a, k, node: a[0] >= a[1],
    "less": lambda a, k, node: a[0] < a[1],
    "less_equal": lambda a, k, node: a[0] <= a[1],
    "equal": lambda a, k, node: a[0] == a[1],
    "both": lambda a, k, node: a[0] & a[1],
    "either": lambda a, k, node: a[0] | a[1],
    "negated": lambda a, k, node: a[0] == 0,
    "where": lambda a, k, node: Mux(a[0], a[1], a[2]),
    "clip": lambda a, k, node: _least(_most(a[0], a[1]), a[2]),
    "as_integer": lambda a, k, node: a[0],
}
"""Operation -> the signal of its value, as wide as it can be."""
COSTS = {
    "multiply": 2,
    "scaled": 2,
    "left_of_levels": 2,
    "count_levels": 2,
    "clip": 2,
    "wrap_once": 2,
    "as_integer": 0,
    "shift_left": 0,
    "shift_right": 0,
    "wrap": 0,
    "negated": 0,
    "both": 0,
    "either": 0,
    "where": 0,
}
"""Operation -> additions that take as long; 1 of those that are not here."""


def packed(fields: Mapping[Any, Field]) -> int:
    """Bits of a word that has them all."""
    return sum(field.bits for field in fields.values())


def unpack(word: Value, fields: Mapping[Any, Field]) -> dict[Any, Value]:
    """The numbers of a word."""
    parts, at = {}, 0
    for key, field in fields.items():
        bits = word[at : at + field.bits]
        parts[key] = bits.as_signed() if field.signed else bits
        at += field.bits
    return parts


def pack(values: Mapping[Any, Value], fields: Mapping[Any, Field]) -> Value:
    """The word of these numbers."""
    parts = []
    for key, field in fields.items():
        wide = values[key]
        parts.append(_extended(wide, field.bits))
    return Cat(*parts)


def _extended(value: Value, bits: int) -> Value:
    """The lowest bits, the sign repeated where there are not as many."""
    have = len(value)
    if have >= bits:
        return value[:bits]
    sign = value[-1] if value.shape().signed else Const(0)
    return Cat(value, *[sign] * (bits - have))


def constant_words(unit: Unit, member: int, size: int) -> list[int]:
    """A population's part of the memory of constants, a word for each neuron."""
    fields = unit.constants
    words = [0] * size
    at = 0
    for place, field in fields.items():
        values = np.broadcast_to(unit.members[member].body.values[place].ravel(), (size,))
        for k, value in enumerate(values.tolist()):
            words[k] |= (int(value) & ((1 << field.bits) - 1)) << at
        at += field.bits
    return words
