"""Reads a body with bounds: what every value can reach, whatever enters. Nothing measured goes in.

A bound is an integer: int64 where nothing can pass it, and Python's own integers beyond, so that no sum or product
wraps. What has no bound is `UNBOUNDED`. Operations are monotone in each argument, or are one operation where their
arguments belong together, so that the ends of a range give the ends of the result. `where` knows in each branch what
its condition says of the values that it compares.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nervecord.compiler.body.evaluate import FUNCTIONS
from nervecord.compiler.body.expression import Array, Body, Node

UNBOUNDED = 1 << 256
"""Stands for a bound that does not exist."""
FAR = 1 << 192
"""A bound of this magnitude is none: no operation brings `UNBOUNDED` below it."""
HELD = 1 << 61
"""Bounds below it are computed in int64."""
WIDENED_AFTER = 64
"""Steps after which a range of carried state that still grows has no bound."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A range for each element, the ends included.

    Args:
        ends: (2, n) or (2, 1), lowest and highest; where the lowest is above the highest nothing is possible.
        reach: no end is larger in magnitude.
    """

    ends: Array
    reach: int

    @classmethod
    def of(cls, low: Any, high: Any) -> Bounds:
        """From two ends, each one number or one for each element."""
        low, high = np.atleast_1d(np.asarray(low)), np.atleast_1d(np.asarray(high))
        return cls.made(np.array(np.broadcast_arrays(low.ravel(), high.ravel())))

    @classmethod
    def made(cls, ends: Array) -> Bounds:
        """From (2, n) ends, held as narrow as they are."""
        if ends.dtype == np.bool_:
            ends = ends.astype(np.int64)
        reach = int(np.abs(ends).max()) if ends.size else 0
        if ends.dtype == object and reach < HELD:
            ends = ends.astype(np.int64)
        return cls(ends, reach)

    @property
    def low(self) -> Array:
        """Lowest values, (n,) or (1,)."""
        return self.ends[0]

    @property
    def high(self) -> Array:
        """Highest values, (n,) or (1,)."""
        return self.ends[1]

    @property
    def lowest(self) -> int:
        """The lowest value of any element."""
        return int(self.ends[0].min())

    @property
    def highest(self) -> int:
        """The highest value of any element."""
        return int(self.ends[1].max())

    @property
    def largest(self) -> int:
        """The largest magnitude of any element."""
        return max(self.highest, -self.lowest)

    def hull(self, other: Bounds) -> Bounds:
        """What either can be."""
        return _joined(np.minimum(self.low, other.low), np.maximum(self.high, other.high), self, other)

    def meet(self, other: Bounds) -> Bounds:
        """What both can be."""
        return _joined(np.maximum(self.low, other.low), np.minimum(self.high, other.high), self, other)

    def within(self, other: Bounds) -> bool:
        """Whether nothing of it lies outside the other."""
        return bool((self.low >= other.low).all() and (self.high <= other.high).all())

    def same(self, other: Bounds) -> bool:
        """Whether both are the same range."""
        return self.ends.shape == other.ends.shape and bool((self.ends == other.ends).all())


ANYTHING = Bounds.of(-UNBOUNDED, UNBOUNDED)
ZERO = Bounds.of(0, 0)
EITHER = Bounds.of(0, 1)


def _joined(low: Array, high: Array, *of: Bounds) -> Bounds:
    reach = max(b.reach for b in of)
    ends = np.array([low, high] if low.shape == high.shape else np.broadcast_arrays(low, high))
    return Bounds(ends, reach) if reach < HELD else Bounds.made(ends)


def _exact(of: Bounds, *, wide: bool) -> Array:
    return of.ends.astype(object) if wide and of.ends.dtype != object else of.ends


# --------------------------------------------------------------------------------------------------------------------
# Operations


def _limit(reach: int, *of: Bounds) -> tuple[bool, list[Array]]:
    """Whether Python's integers are needed for what reaches so far, and the ends of the arguments so."""
    wide = reach >= HELD or any(b.ends.dtype == object for b in of)
    return wide, [_exact(b, wide=wide) for b in of]


def _found(ends: Array, reach: int, wide: bool) -> Bounds:
    return Bounds.made(ends) if wide else Bounds(ends, reach)


def _add(a: Bounds, b: Bounds) -> Bounds:
    reach = a.reach + b.reach
    wide, (x, y) = _limit(reach, a, b)
    return _found(x + y, reach, wide)


def _subtract(a: Bounds, b: Bounds) -> Bounds:
    reach = a.reach + b.reach
    wide, (x, y) = _limit(reach, a, b)
    return _found(x - y[::-1], reach, wide)


def _multiply(a: Bounds, b: Bounds) -> Bounds:
    reach = a.reach * b.reach
    wide, (x, y) = _limit(reach, a, b)
    corners = [x[i] * y[j] for i in (0, 1) for j in (0, 1)]
    return _found(np.array([np.minimum.reduce(corners), np.maximum.reduce(corners)]), reach, wide)


def _negate(a: Bounds) -> Bounds:
    return Bounds(-a.ends[::-1], a.reach)


def _absolute(a: Bounds) -> Bounds:
    low = np.maximum(np.maximum(a.low, -a.high), 0)
    return Bounds(np.array([low, np.maximum(np.abs(a.low), np.abs(a.high))]), a.reach)


def _minimum(a: Bounds, b: Bounds) -> Bounds:
    return _joined(np.minimum(a.low, b.low), np.minimum(a.high, b.high), a, b)


def _maximum(a: Bounds, b: Bounds) -> Bounds:
    return _joined(np.maximum(a.low, b.low), np.maximum(a.high, b.high), a, b)


def _clip(x: Bounds, low: Bounds, high: Bounds) -> Bounds:
    return _narrow(_minimum(_maximum(x, low), high))


def _narrow(x: Bounds) -> Bounds:
    """The same with a reach as small as it is."""
    return Bounds.made(x.ends)


def _single(value: Bounds) -> int:
    """A constant that is one number."""
    if value.ends.size != 2:
        raise TypeError("a width, a shift or a number of levels is one constant for all elements")
    return int(value.ends[0, 0])


def _shift_left(x: Bounds, bits: Bounds) -> Bounds:
    k = _single(bits)
    reach = x.reach << k
    wide, (ends,) = _limit(reach, x)
    return _found(ends << k, reach, wide)


def _shift_right(x: Bounds, bits: Bounds) -> Bounds:
    return Bounds(x.ends >> _single(bits), x.reach)


def _scaled(x: Bounds, factor: Bounds, bits: Bounds, rounding: str) -> Bounds:
    """Monotone in x, as factors are not negative."""
    f, k = _single(factor), _single(bits)
    reach = x.reach * f
    wide, (ends,) = _limit(reach, x)
    return _found(FUNCTIONS["scaled"](ends, f, k, rounding), max(x.reach, reach >> k), wide)


def _lose(x: Bounds, shift: Bounds, at_least_one: bool) -> Bounds:
    """Monotone in x."""
    return _found(FUNCTIONS["lose"](x.ends, _single(shift), at_least_one), x.reach, x.ends.dtype == object)


def _count_levels(v: Bounds, level: Bounds, most: Bounds, reached: bool) -> Bounds:
    m = _single(most)
    return _found(FUNCTIONS["count_levels"](v.ends, level.ends[:1], m, reached), m, v.ends.dtype == object)


def _left_of_levels(v: Bounds, level: Bounds, most: Bounds, reached: bool) -> Bounds:
    """Of v above 0 a rest within one level stays, as long as no more than `most` levels lie below v."""
    m, first = _single(most), level.low
    reach = max(v.reach, level.reach)
    wide, (ends, levels) = _limit(v.reach + level.reach * m, v, level)
    rest = np.where(ends[1] < first, ends[1], levels[1] - (1 if reached else 0))
    high = np.maximum(np.minimum(ends[1], rest), ends[1] - levels[0] * m)
    low = np.minimum(ends[0], 0 if reached else 1)
    return _found(np.array([low, high]), reach, wide)


def _wrap(x: Bounds, bits: Bounds) -> Bounds:
    half = 1 << (_single(bits) - 1)
    held = (x.low >= -half) & (x.high < half)
    return Bounds.made(np.array([np.where(held, x.low, -half), np.where(held, x.high, half - 1)]))


def _wrap_once(x: Bounds, low: Bounds, high: Bounds) -> Bounds:
    least, most = _single(low), _single(high)
    span = most - least + 1
    wide, (ends,) = _limit(x.reach + span, x)
    bottom, top = ends
    # What lies below, within and above the range, each with its correction; a part without values has its ends crossed.
    parts = [
        (bottom + span, np.minimum(top, least - 1) + span),
        (np.maximum(bottom, least), np.minimum(top, most)),
        (np.maximum(bottom, most + 1) - span, top - span),
    ]
    lows = [np.where(a <= b, a, x.reach + span) for a, b in parts]
    highs = [np.where(a <= b, b, -x.reach - span) for a, b in parts]
    return _found(np.array([np.minimum.reduce(lows), np.maximum.reduce(highs)]), x.reach + span, wide)


def _compared(holds: Callable[[Any, Any], Any], never: Callable[[Any, Any], Any]) -> Callable[[Bounds, Bounds], Bounds]:
    """A comparison from the ends: `holds` of (low of a, high of b, ...) where it always does, `never` the same."""

    def run(a: Bounds, b: Bounds) -> Bounds:
        always, impossible = holds(a, b), never(a, b)
        return Bounds(np.array(np.broadcast_arrays(always, ~impossible)).astype(np.int64), 1)

    return run


def _logic(function: Callable[[Any, Any], Any]) -> Callable[[Bounds, Bounds], Bounds]:
    return lambda a, b: Bounds(np.array([function(a.low, b.low), function(a.high, b.high)]), 1)


READINGS: dict[str, Callable[..., Bounds]] = {
    "add": _add,
    "subtract": _subtract,
    "multiply": _multiply,
    "minimum": _minimum,
    "maximum": _maximum,
    "negate": _negate,
    "absolute": _absolute,
    "shift_left": _shift_left,
    "shift_right": _shift_right,
    "scaled": _scaled,
    "lose": _lose,
    "count_levels": _count_levels,
    "left_of_levels": _left_of_levels,
    "wrap": _wrap,
    "wrap_once": _wrap_once,
    "clip": _clip,
    "greater": _compared(lambda a, b: a.low > b.high, lambda a, b: a.high <= b.low),
    "greater_equal": _compared(lambda a, b: a.low >= b.high, lambda a, b: a.high < b.low),
    "less": _compared(lambda a, b: a.high < b.low, lambda a, b: a.low >= b.high),
    "less_equal": _compared(lambda a, b: a.high <= b.low, lambda a, b: a.low > b.high),
    "equal": _compared(
        lambda a, b: (a.low == a.high) & (b.low == b.high) & (a.low == b.low),
        lambda a, b: (a.low > b.high) | (b.low > a.high),
    ),
    "both": _logic(np.minimum),
    "either": _logic(np.maximum),
    "negated": lambda a: Bounds(1 - a.ends[::-1], 1),
    "as_integer": lambda a: a,
}
"""Operation of integers -> its ends from the ends of its arguments. (`where` is read by `Proof`, which refines.)"""


# --------------------------------------------------------------------------------------------------------------------
# Bodies


class IntervalReading:
    """A body of integers, ready to be read with bounds.

    Args:
        body: the equations.
        known: node -> bounds that follow from something else than one step's equations.
    """

    def __init__(self, body: Body, known: Mapping[int, Bounds] | None = None) -> None:
        self.body = body
        self._known = known or {}
        self._constants = {place: Bounds.of(value, value) for place, value in body.values.items()}
        self._behind: dict[int, set[int]] = {}

    def step(self, x: Bounds, state: Mapping[str, Bounds]) -> dict[int, Bounds]:
        """What kept, observed and checked values and the result reach in one step, and all that they need."""
        values = _Step(self, x, state)
        body = self.body
        for place in (*body.kept.values(), *body.observed.values(), body.result, *(k for k, _ in body.checks)):
            values.of(place)
        return values.found

    def every(self, x: Bounds, state: Mapping[str, Bounds]) -> list[Bounds]:
        """What every node reaches in one step."""
        values = _Step(self, x, state)
        return [values.of(place) for place in range(len(self.body.nodes))]

    def constant(self, place: int) -> Bounds:
        """Of a constant."""
        return self._constants[place]

    def known(self, place: int) -> Bounds | None:
        """See `known` above."""
        return self._known.get(place)

    def behind(self, place: int) -> set[int]:
        """All nodes that follow from one."""
        if place not in self._behind:
            reached = {place}
            for k in range(place + 1, len(self.body.nodes)):
                if reached.intersection(self.body.nodes[k].arguments):
                    reached.add(k)
            self._behind[place] = reached
        return self._behind[place]


class _Step:
    """One step of a reading; `implied` are values that a condition narrows."""

    def __init__(
        self, reading: IntervalReading, x: Bounds, state: Mapping[str, Bounds], outer: _Step | None = None,
        implied: Mapping[int, Bounds] | None = None,
    ) -> None:  # fmt: skip
        self.reading, self.x, self.state, self.outer = reading, x, state, outer
        self.found: dict[int, Bounds] = dict(implied or {})
        self._narrower = set[int]().union(*(reading.behind(place) for place in self.found))

    def of(self, place: int) -> Bounds:
        """The bounds of a node."""
        value = self.found.get(place)
        if value is None:
            if self.outer is not None and place not in self._narrower:
                return self.outer.of(place)
            value = self._value(self.reading.body.nodes[place], place)
            known = self.reading.known(place)
            value = value if known is None else value.meet(known)
            self.found[place] = value if self.outer is None else value.meet(self.outer.of(place))
        return self.found[place]

    def _value(self, node: Node, place: int) -> Bounds:
        match node.operation:
            case "constant":
                return self.reading.constant(place)
            case "input":
                return self.x
            case "state":
                return self.state[node.name]
            case "where":
                return self._selected(*node.arguments)
        if node.operation not in READINGS:
            raise TypeError(f"no bounds are known of the operation {node.operation}")
        return READINGS[node.operation](*[self.of(k) for k in node.arguments], *node.settings)

    def _selected(self, condition: int, a: int, b: int) -> Bounds:
        """Of both branches where both are possible, else of the one that is."""
        taken, never_a = self._branch(condition, True, a)
        left, never_b = self._branch(condition, False, b)
        if never_a is None and never_b is None:
            return taken.hull(left)
        no_a: Any = np.False_ if never_a is None else never_a
        no_b: Any = np.False_ if never_b is None else never_b
        low = np.where(no_a, left.low, np.where(no_b, taken.low, np.minimum(taken.low, left.low)))
        high = np.where(no_a, left.high, np.where(no_b, taken.high, np.maximum(taken.high, left.high)))
        return Bounds.made(np.array(np.broadcast_arrays(low, high)))

    def _branch(self, condition: int, holds: bool, place: int) -> tuple[Bounds, Array | None]:
        """A branch's bounds, and for which elements it is impossible; None where for none of them."""
        implied = self._implied(condition, holds)
        if not implied:
            return self.of(place), None
        never = functools.reduce(np.logical_or, [bounds.low > bounds.high for bounds in implied.values()])
        value = _Step(self.reading, self.x, self.state, self, implied).of(place)
        return value, never if never.any() else None

    def _implied(self, condition: int, holds: bool) -> dict[int, Bounds]:
        """What a condition says of the values that it compares: place -> narrower bounds."""
        node = self.reading.body.nodes[condition]
        match node.operation:
            case "negated":
                return self._implied(node.arguments[0], not holds)
            case "both" | "either" if (node.operation == "both") == holds:
                found = self._implied(node.arguments[0], holds)
                for place, bounds in self._implied(node.arguments[1], holds).items():
                    found[place] = found[place].meet(bounds) if place in found else bounds
                return found
        sides = _SIDES.get((node.operation, holds))
        if sides is None:
            return {}
        a, b = node.arguments
        found = {}
        for place, other, above in ((a, b, sides[0]), (b, a, not sides[0])):
            if self.reading.body.nodes[place].operation == "constant":
                continue
            value, apart = self.of(place), Bounds.of(sides[1], sides[1])
            if above:
                limit = _add(self.of(other), apart)
                found[place] = _joined(np.maximum(value.low, limit.low), value.high, value, limit)
            else:
                limit = _subtract(self.of(other), apart)
                found[place] = _joined(value.low, np.minimum(value.high, limit.high), value, limit)
        return found


_SIDES: dict[tuple[str, bool], tuple[bool, int]] = {
    ("greater", True): (True, 1),
    ("greater", False): (False, 0),
    ("greater_equal", True): (True, 0),
    ("greater_equal", False): (False, 1),
    ("less", True): (False, 1),
    ("less", False): (True, 0),
    ("less_equal", True): (False, 0),
    ("less_equal", False): (True, 1),
}
"""(comparison, whether it holds) -> whether its first argument lies above the second, and by how much at least."""


@dataclass(frozen=True, slots=True)
class Reached:
    """What a body can reach over many steps.

    Args:
        body: the equations. x: what enters at a step.
        state: before any step. values: of the nodes that matter, over all steps.
    """

    body: Body
    x: Bounds
    state: dict[str, Bounds]
    values: dict[int, Bounds]

    def named(self, name: str) -> Bounds:
        """Of an observed value."""
        return self.values[self.body.observed[name]]


def over_steps(
    body: Body, x: Bounds, steps: int, *, known: Mapping[int, Bounds] | None = None,
    proposals: Iterable[Mapping[str, Bounds]] = (),
) -> Reached:  # fmt: skip
    """What a body reaches, from a state of zeros on.

    Args:
        body: of integers. x: what enters at each step; neurons that nothing enters see 0, which belongs to it.
        steps: between two clearings of the state; 0: it is carried.
        known: see `IntervalReading`.
        proposals: state -> bounds that may hold where it is carried. The first ones are taken from which one step
            leads to nothing beyond them, which is what makes them true.
    """
    reading, x = IntervalReading(body, known), x.hull(ZERO)
    for proposed in proposals:
        state = {name: bounds.hull(ZERO) for name, bounds in proposed.items()}
        values = reading.step(x, state)
        if all(values[place].within(state[name]) for name, place in body.kept.items()):
            return Reached(body, x, state, values)
    state = dict.fromkeys(body.kept, ZERO)
    values = {}
    for k in range(steps or WIDENED_AFTER + len(body.kept) + 1):
        # The state only grows from step to step, so the last step's values are those of all steps.
        values = reading.step(x, state)
        after = {name: _narrow(state[name].hull(values[place])) for name, place in body.kept.items()}
        if all(after[name].same(state[name]) for name in after):
            break
        if not steps and k >= WIDENED_AFTER:
            after = {name: _widened(state[name], bounds) for name, bounds in after.items()}
        state = after
    # What is kept is 0, or what an earlier step left.
    state = {name: ZERO.hull(values[place]) for name, place in body.kept.items()}
    return Reached(body, x, state, values)


def _widened(before: Bounds, after: Bounds) -> Bounds:
    """Without a bound where it still grows."""
    low = np.where(after.low < before.low, -UNBOUNDED, after.low.astype(object))
    high = np.where(after.high > before.high, UNBOUNDED, after.high.astype(object))
    return Bounds.made(np.array(np.broadcast_arrays(low, high)))
