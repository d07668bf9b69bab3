"""Fields of ops, declared once: what a value is, its bounds, its shape, what it means.

A declaration is the metadata of a dataclass field. Verification, serialisation and documentation are loops over the
declarations, so a field that is declared here needs no line anywhere else.

Shapes are written in symbols: ("out", "in") binds two sizes, and the same symbol in another field of the op must be the
same size; ("...",) binds a whole shape, that of a population.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]
Kind: TypeAlias = Literal["array", "integer", "number", "flag", "choice", "shape", "part", "names"]

LARGEST_INTEGER = 1 << 31
"""No scalar of a graph is as large; files that hold larger ones are refused."""
LARGEST_AXIS = 1 << 26
"""No axis of a shape is longer."""
MOST_AXES = 16
"""No shape has more axes: windows over all but one, with the batch, are then an array of 32, the most of numpy 1."""
KEY = "declared"


@dataclass(frozen=True, slots=True)
class Declared:
    """What is known of a field.

    Args:
        kind: of value. about: what it means, with its unit.
        symbols: an array's shape, in symbols.
        dtype: of an array.
        low, high: inclusive bounds of every number; above: an exclusive lower bound.
        optional: None is allowed.
        infinite: infinities are allowed (a time constant of an integrator).
        options: of a choice.
        least: fewest entries of a shape.
    """

    kind: Kind
    about: str
    symbols: tuple[str, ...] = ()
    dtype: type = np.float64
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    optional: bool = False
    infinite: bool = False
    options: tuple[str, ...] = ()
    least: int = 1


def _field(declared: Declared, default: Any = dataclasses.MISSING) -> Any:
    return dataclasses.field(default=default, metadata={KEY: declared})


def array(
    about: str, *symbols: str, dtype: type = np.float64, default: Any = dataclasses.MISSING, **bounds: Any
) -> Any:
    """An array field; `default=None` makes it optional."""
    return _field(Declared("array", about, symbols, dtype, optional=default is None, **bounds), default)


def integer(about: str, low: int, high: int = LARGEST_INTEGER - 1, default: Any = dataclasses.MISSING) -> Any:
    """An integer in low..high."""
    return _field(Declared("integer", about, low=low, high=high), default)


def number(about: str, default: Any = dataclasses.MISSING, **bounds: Any) -> Any:
    """A finite real number."""
    return _field(Declared("number", about, optional=default is None, **bounds), default)


def flag(about: str, default: bool = False) -> Any:
    """True or false."""
    return _field(Declared("flag", about), default)


def choice(about: str, options: tuple[str, ...], default: Any = dataclasses.MISSING) -> Any:
    """One of some words."""
    return _field(Declared("choice", about, options=options), default)


def shape(about: str, least: int = 1, default: Any = dataclasses.MISSING) -> Any:
    """Sizes of axes, or one number per axis."""
    return _field(Declared("shape", about, least=least, low=1, high=LARGEST_AXIS), default)


def pair(about: str, low: int, default: Any = dataclasses.MISSING) -> Any:
    """Whole numbers, one per spatial axis."""
    return _field(Declared("shape", about, least=1, low=low, high=LARGEST_AXIS), default)


def part(about: str, *, optional: bool = False, default: Any = dataclasses.MISSING) -> Any:
    """A part of a composed op."""
    return _field(Declared("part", about, optional=optional), default)


def declarations(kind: type) -> tuple[tuple[str, Declared], ...]:
    """(name, declaration) of a type's declared fields, in order."""
    of: Any = kind  # its values have no hash, it has
    return _declarations(of)


@functools.cache
def _declarations(kind: Any) -> tuple[tuple[str, Declared], ...]:
    return tuple((field.name, field.metadata[KEY]) for field in dataclasses.fields(kind) if KEY in field.metadata)


def freeze(value: object) -> None:
    """Make a frozen dataclass's arrays read-only copies of the declared type. Called by `__post_init__`."""
    for name, declared in declarations(type(value)):
        content = getattr(value, name)
        if declared.kind == "array" and content is not None:
            array: Array = np.array(content, dtype=declared.dtype, order="C")
            array.setflags(write=False)
            object.__setattr__(value, name, array)
        elif declared.kind == "shape" and isinstance(content, list):
            object.__setattr__(value, name, tuple(content))


def same(a: object, b: object) -> bool:
    """Whether two field values are equal to the bit."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return type(a) is type(b) and a == b


Violation: TypeAlias = tuple[str, str, float | int | str | None, float | int | str | None]
"""Code, message, value, limit."""


def violations(value: object) -> Iterator[Violation]:
    """What of a value's fields goes against their declarations, shapes among them."""
    bound: dict[str, int] = {}
    population: Shape | None = None
    for name, declared in declarations(type(value)):
        content = getattr(value, name)
        if content is None:
            if not declared.optional:
                yield "missing", f"{name} is missing", None, None
            continue
        match declared.kind:
            case "array":
                yield from _array_values(name, declared, content)
                yield from _axes(name, content.ndim)
                if declared.symbols == ("...",):
                    if population is not None and content.shape != population:
                        yield "shape", f"{name} has shape {content.shape}, the population {population}", None, None
                    population = population or content.shape
                else:
                    yield from _array_shape(name, declared, content, bound)
            case "integer":
                if isinstance(content, bool) or not isinstance(content, (int, np.integer)):
                    yield "type", f"{name} is {content!r}, an integer is needed", None, None
                else:
                    yield from _between(name, int(content), declared)
            case "number":
                if isinstance(content, bool) or not isinstance(content, (int, float, np.floating, np.integer)):
                    yield "type", f"{name} is {content!r}, a number is needed", None, None
                elif not math.isfinite(content):
                    yield "not-finite", f"{name} is {content}", None, None
                else:
                    yield from _between(name, float(content), declared)
            case "flag":
                if not isinstance(content, bool):
                    yield "type", f"{name} is {content!r}, true or false is needed", None, None
            case "choice":
                if content not in declared.options:
                    yield "choice", f"{name} is {content!r}, none of {', '.join(declared.options)}", None, None
            case "shape":
                yield from _sizes(name, declared, content)
            case "part":
                yield from violations(content)


def outside(name: str, value: int, low: int, high: int) -> Iterator[Violation]:
    """A violation where a value of an integer op lies outside what the arithmetic has."""
    if not low <= value <= high:
        yield "range", f"{name} lies outside {low}..{high}", value, high if value > high else low


def _between(name: str, content: float, declared: Declared) -> Iterator[Violation]:
    if content < declared.low:
        yield name.replace("_", "-"), f"{name} is too small", content, declared.low
    elif content <= declared.above:
        yield name.replace("_", "-"), f"{name} must be more than {declared.above:g}", content, declared.above
    elif content > declared.high:
        yield name.replace("_", "-"), f"{name} is too large", content, declared.high


def _array_values(name: str, declared: Declared, content: Array) -> Iterator[Violation]:
    if content.size == 0:
        yield "empty", f"{name} has no elements", None, None
        return
    if content.dtype.kind == "f":
        bad = np.isnan(content) if declared.infinite else ~np.isfinite(content)
        if bad.any():
            yield "not-finite", f"{name} has {int(bad.sum())} values that are NaN or infinite", None, None
            return
    low, high = content.min().item(), content.max().item()
    code = name.replace("_", "-")
    if low < declared.low:
        yield code, f"{name} has values that are too small", low, declared.low
    elif low <= declared.above:
        yield code, f"{name} must be more than {declared.above:g}", low, declared.above
    if high > declared.high:
        yield code, f"{name} has values that are too large", high, declared.high


def _array_shape(name: str, declared: Declared, content: Array, bound: dict[str, int]) -> Iterator[Violation]:
    if content.ndim != len(declared.symbols):
        yield "shape", f"{name} has {content.ndim} axes, not {len(declared.symbols)}", None, None
        return
    for symbol, size in zip(declared.symbols, content.shape, strict=True):
        if bound.setdefault(symbol, size) != size:
            yield "shape", f"{name} has {size} for {symbol}, another field {bound[symbol]}", size, bound[symbol]


def _sizes(name: str, declared: Declared, content: object) -> Iterator[Violation]:
    if not isinstance(content, tuple) or not all(type(k) is int for k in content) or len(content) < declared.least:
        yield "shape", f"{name} is {content!r}, at least {declared.least} integers are needed", None, None
        return
    yield from _axes(name, len(content))
    for size in content:
        yield from _between(name, size, declared)


def _axes(name: str, count: int) -> Iterator[Violation]:
    if count > MOST_AXES:
        yield "shape", f"{name} has too many axes", count, MOST_AXES
