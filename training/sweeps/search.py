"""Random search: configurations drawn from ranges, the same ones whenever the study is read."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from nervecord.errors import NervecordError
from nervecord.training.fields import value_text

LARGEST = 1e100
"""Of the ends of a range: their difference is to be a number."""
DIGITS = 3
"""Significant digits of what is drawn: names of runs hold it."""


def draw(
    ranges: Mapping[str, Any], samples: int, key: str, *, whole: frozenset[str], place: str
) -> list[dict[str, Any]]:
    """`samples` values for each field.

    Args:
        ranges: field -> list of values, {"uniform": [low, high]} or {"log": [low, high]}.
        samples: how many; the first are the same whatever their number.
        key: what the draws follow from, beside the field and the number of the sample.
        whole: fields of integers.
        place: of the table, for errors.

    Raises:
        NervecordError: a range is none.
    """
    for name, values in ranges.items():
        _check(name, values, place)
    return [
        {
            name: _value(values, random.Random(f"{key}/{name}/{number}"), is_whole=name in whole)
            for name, values in ranges.items()
        }
        for number in range(samples)
    ]


def _value(values: Any, source: random.Random, *, is_whole: bool) -> Any:
    if isinstance(values, list):
        return source.choice(values)
    ((kind, (low, high)),) = values.items()
    value = source.uniform(low, high) if kind == "uniform" else math.exp(source.uniform(math.log(low), math.log(high)))
    return round(value) if is_whole else float(f"{value:.{DIGITS}g}")


def _check(name: str, values: Any, place: str) -> None:
    match values:
        case [_, *_]:
            return
        case {"uniform": [low, high]} | {"log": [low, high]} if len(values) == 1:
            are_numbers = all(type(end) in (int, float) and abs(end) <= LARGEST for end in (low, high))
            if are_numbers and low < high and ("uniform" in values or low > 0):
                return
    raise NervecordError(
        f"{name} is {value_text(values)}, no range",
        where=place,
        hint="write a list of values, { uniform = [low, high] } or { log = [low, high] } with 0 < low < high",
    )
