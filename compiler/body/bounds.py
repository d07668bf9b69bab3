"""Bounds of a value: what it can reach, and what operations make of that.

An end of a range is an integer for all elements, or an array with one for each. Arrays are of int64 where nothing can
pass it, and of Python's own integers beyond, so that no sum or product wraps. What has no bound is `UNBOUNDED`.
Operations are monotone in each argument, or are one operation where their arguments belong together, so that the ends
of a range give the ends of the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from nervecord.compiler.body.evaluate import FUNCTIONS, select
from nervecord.compiler.body.expression import Array

End: TypeAlias = int | Array

UNBOUNDED = 1 << 256
"""Stands for a bound that does not exist."""
FAR = 1 << 192
"""A bound of this magnitude is none: no operation brings `UNBOUNDED` below it."""
HELD = 1 << 61
"""Bounds below it are computed in int64."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A range for each element, the ends included.

    Args:
        low, high: of each element; where the lowest is above the highest nothing is possible.
        reach: no end is larger in magnitude.
    """

    low: End
    high: End
    reach: int

    @classmethod
    def of(cls, low: Any, high: Any) -> Bounds:
        """From two ends, each one number or one for each element, held as narrow as they are."""
        low, high = _end(low), _end(high)
        return cls(low, high, max(_reach(low), _reach(high)))

    @property
    def ends(self) -> Array:
        """Lowest and highest values, (2, n) or (2, 1)."""
        return np.array(np.broadcast_arrays(*(np.atleast_1d(_array(end)) for end in (self.low, self.high))))

    @property
    def lowest(self) -> int:
        """The lowest value of any element."""
        return self.low if isinstance(self.low, int) else int(self.low.min())

    @property
    def highest(self) -> int:
        """The highest value of any element."""
        return self.high if isinstance(self.high, int) else int(self.high.max())

    @property
    def largest(self) -> int:
        """The largest magnitude of any element."""
        return max(self.highest, -self.lowest)

    @property
    def empty(self) -> Any:
        """Where nothing is possible: one truth value, or one for each element."""
        return _holds("greater", self.low, self.high)

    def hull(self, other: Bounds) -> Bounds:
        """What either can be."""
        return joined(least(self.low, other.low), most(self.high, other.high), self, other)

    def meet(self, other: Bounds) -> Bounds:
        """What both can be."""
        return joined(most(self.low, other.low), least(self.high, other.high), self, other)

    def within(self, other: Bounds) -> bool:
        """Whether nothing of it lies outside the other."""
        return bool(np.all(_holds("greater_equal", self.low, other.low))) and bool(
            np.all(_holds("less_equal", self.high, other.high))
        )

    def same(self, other: Bounds) -> bool:
        """Whether both are the same range."""
        return self.within(other) and other.within(self)

    def narrow(self) -> Bounds:
        """The same with a reach as small as it is."""
        return Bounds.of(self.low, self.high)


def _array(end: End) -> Array:
    return end if not isinstance(end, int) else np.array(end, dtype=np.int64 if abs(end) < HELD else object)


def _end(value: Any) -> End:
    if type(value) is int:
        return value
    array = np.asarray(value)
    if array.size == 1:
        return int(array.reshape(-1)[0])
    array = array.ravel()
    if array.dtype == object and _reach(array) >= HELD:
        return array
    return array.astype(np.int64, copy=False)


def _reach(end: End) -> int:
    if isinstance(end, int):
        return abs(end)
    return int(max(end.max(), -end.min())) if end.size else 0


def _aligned(a: End, b: End) -> tuple[Any, Any]:
    """Both so that numpy's functions take them: an integer that int64 lacks meets Python's integers alone."""
    if isinstance(a, int) and abs(a) >= HELD and not isinstance(b, int):
        return a, b.astype(object)
    if isinstance(b, int) and abs(b) >= HELD and not isinstance(a, int):
        return a.astype(object), b
    return a, b


def least(a: End, b: End) -> End:
    """The lower of two ends, element by element."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    result: Array = np.minimum(*_aligned(a, b))
    return result


def most(a: End, b: End) -> End:
    """The higher of two ends, element by element."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    result: Array = np.maximum(*_aligned(a, b))
    return result


_PYTHON: dict[str, Callable[[Any, Any], bool]] = {
    "greater": lambda a, b: a > b,
    "greater_equal": lambda a, b: a >= b,
    "less": lambda a, b: a < b,
    "less_equal": lambda a, b: a <= b,
}


def _holds(comparison: str, a: End, b: End) -> Any:
    """A comparison of ends: one truth value, or one for each element."""
    return _PYTHON[comparison](*_aligned(a, b))


def chosen(condition: Any, a: End, b: End) -> End:
    """a where the condition holds, else b."""
    result: End = select(condition, *_aligned(*((_array(a), _array(b)) if np.ndim(condition) else (a, b))))
    return result


def joined(low: End, high: End, *of: Bounds) -> Bounds:
    """A range between ends that were among those of others."""
    reach = max(bounds.reach for bounds in of)
    return Bounds(low, high, reach) if reach < HELD else Bounds.of(low, high)


ZERO = Bounds.of(0, 0)


# --------------------------------------------------------------------------------------------------------------------
# Operations


def _exact(reach: int, *of: Bounds) -> list[End]:
    """The ends of the arguments, in Python's integers where int64 does not hold what reaches so far."""
    ends = [end for bounds in of for end in (bounds.low, bounds.high)]
    if reach < HELD and all(bounds.reach < HELD for bounds in of):
        return ends
    return [end if isinstance(end, int) else end.astype(object) for end in ends]


def _result(low: Any, high: Any, reach: int) -> Bounds:
    return Bounds(low, high, reach) if reach < HELD else Bounds.of(low, high)


def add(a: Bounds, b: Bounds) -> Bounds:
    """Of a + b."""
    reach = a.reach + b.reach
    a_low, a_high, b_low, b_high = _exact(reach, a, b)
    return _result(a_low + b_low, a_high + b_high, reach)


def subtract(a: Bounds, b: Bounds) -> Bounds:
    """Of a - b."""
    reach = a.reach + b.reach
    a_low, a_high, b_low, b_high = _exact(reach, a, b)
    return _result(a_low - b_high, a_high - b_low, reach)


def _multiply(a: Bounds, b: Bounds) -> Bounds:
    reach = a.reach * b.reach
    a_low, a_high, b_low, b_high = _exact(reach, a, b)
    corners = [x * y for x in (a_low, a_high) for y in (b_low, b_high)]
    low, high = corners[0], corners[0]
    for corner in corners[1:]:
        low, high = least(low, corner), most(high, corner)
    return _result(low, high, reach)


def _negate(a: Bounds) -> Bounds:
    return Bounds(-a.high, -a.low, a.reach)


def _absolute(a: Bounds) -> Bounds:
    larger: Any = most(-a.low, a.high)
    return Bounds(most(most(a.low, -a.high), 0), larger, a.reach)


def _minimum(a: Bounds, b: Bounds) -> Bounds:
    return joined(least(a.low, b.low), least(a.high, b.high), a, b)


def _maximum(a: Bounds, b: Bounds) -> Bounds:
    return joined(most(a.low, b.low), most(a.high, b.high), a, b)


def _clip(x: Bounds, low: Bounds, high: Bounds) -> Bounds:
    return _minimum(_maximum(x, low), high).narrow()


def _single(value: Bounds) -> int:
    """A constant that is one number."""
    if not isinstance(value.low, int):
        raise TypeError("a width, a shift or a number of levels is one constant for all elements")
    return value.low


def _shift_left(x: Bounds, bits: Bounds) -> Bounds:
    k = _single(bits)
    reach = x.reach << k
    low, high = _exact(reach, x)
    return _result(low << k, high << k, reach)


def _shift_right(x: Bounds, bits: Bounds) -> Bounds:
    k = _single(bits)
    return Bounds(x.low >> k, x.high >> k, x.reach)


def _scaled(x: Bounds, factor: Bounds, bits: Bounds, rounding: str) -> Bounds:
    """Monotone in x, as factors are not negative."""
    f, k = _single(factor), _single(bits)
    reach = x.reach * f
    low, high = (FUNCTIONS["scaled"](end, f, k, rounding) for end in _exact(reach, x))
    return Bounds.of(low, high) if reach >= HELD else Bounds(low, high, max(x.reach, (reach >> k) + 1))


def _lose(x: Bounds, shift: Bounds, at_least_one: bool) -> Bounds:
    """Monotone in x."""
    low, high = (FUNCTIONS["lose"](end, _single(shift), at_least_one) for end in (x.low, x.high))
    return _result(low, high, x.reach)


def _count_levels(v: Bounds, level: Bounds, count: Bounds, reached: bool) -> Bounds:
    m = _single(count)
    ends = _exact(max(v.reach, level.reach), v, level)
    low, high = (FUNCTIONS["count_levels"](end, ends[2], m, reached) for end in ends[:2])
    return Bounds.of(low, high)


def _left_of_levels(v: Bounds, level: Bounds, count: Bounds, reached: bool) -> Bounds:
    """Of v above 0 a rest within one level stays, as long as no more than `count` levels lie below v."""
    m = _single(count)
    low, high, first, last = _exact(v.reach + level.reach * m, v, level)
    rest = chosen(_holds("less", high, first), high, last - (1 if reached else 0))
    highest = most(least(high, rest), high - first * m)
    return _result(least(low, 0 if reached else 1), highest, max(v.reach, level.reach))


def _wrap(x: Bounds, bits: Bounds) -> Bounds:
    half = 1 << (_single(bits) - 1)
    inside = _holds("greater_equal", x.low, -half) & _holds("less", x.high, half)
    return Bounds.of(chosen(inside, x.low, -half), chosen(inside, x.high, half - 1))


def _wrap_once(x: Bounds, low: Bounds, high: Bounds) -> Bounds:
    bottom_end, top_end = _single(low), _single(high)
    span = top_end - bottom_end + 1
    bottom, top = _exact(x.reach + span, x)
    # What lies below, within and above the range, each with its correction; a part without values has its ends crossed.
    parts = [
        (bottom + span, least(top, bottom_end - 1) + span),
        (most(bottom, bottom_end), least(top, top_end)),
        (most(bottom, top_end + 1) - span, top - span),
    ]
    lowest: End = x.reach + span
    highest: End = -x.reach - span
    for a, b in parts:
        some = _holds("less_equal", a, b)
        lowest = least(lowest, chosen(some, a, x.reach + span))
        highest = most(highest, chosen(some, b, -x.reach - span))
    return _result(lowest, highest, x.reach + span)


def _truth(always: Any, never: Any) -> Bounds:
    """Of a truth value that always or never holds, as far as ranges tell."""
    return Bounds(always * 1, 1 - never * 1, 1)


def _compared(always: str, never: str) -> Callable[[Bounds, Bounds], Bounds]:
    """A comparison that is monotone: it holds always, or never, where these comparisons of the near ends hold."""
    if always.startswith("greater"):
        return lambda a, b: _truth(_holds(always, a.low, b.high), _holds(never, a.high, b.low))
    return lambda a, b: _truth(_holds(always, a.high, b.low), _holds(never, a.low, b.high))


def _equal(a: Bounds, b: Bounds) -> Bounds:
    never = _holds("greater", a.low, b.high) | _holds("greater", b.low, a.high)
    always = (
        _holds("greater_equal", a.low, a.high)
        & _holds("greater_equal", b.low, b.high)
        & _holds("greater_equal", a.low, b.low)
        & _holds("less_equal", a.low, b.low)
    )
    return _truth(always, never)


READINGS: dict[str, Callable[..., Bounds]] = {
    "add": add,
    "subtract": subtract,
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
    "greater": _compared("greater", "less_equal"),
    "greater_equal": _compared("greater_equal", "less"),
    "less": _compared("less", "greater_equal"),
    "less_equal": _compared("less_equal", "greater"),
    "equal": _equal,
    "both": lambda a, b: Bounds(least(a.low, b.low), least(a.high, b.high), 1),
    "either": lambda a, b: Bounds(most(a.low, b.low), most(a.high, b.high), 1),
    "negated": lambda a: Bounds(1 - a.high, 1 - a.low, 1),
    "as_integer": lambda a: a,
}
"""Operation of integers -> its ends from the ends of its arguments. (`where` is read apart, as it refines.)"""
