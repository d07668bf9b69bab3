"""Random search: configurations drawn from ranges, the same ones whenever the study is read."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from nervecord.errors import NervecordError
from nervecord.training.fields import shown

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
        whole: fields of whole numbers.
        place: of the table, for errors.

    Raises:
        NervecordError: a range is none.
    """
    for name, given in ranges.items():
        _check(name, given, place)
    found = []
    for number in range(samples):
        chosen = {}
        for name, given in ranges.items():
            source = random.Random(f"{key}/{name}/{number}")
            chosen[name] = _value(given, source, is_whole=name in whole)
        found.append(chosen)
    return found


def _value(given: Any, source: random.Random, *, is_whole: bool) -> Any:
    if isinstance(given, list):
        return source.choice(given)
    ((kind, (low, high)),) = given.items()
    value = source.uniform(low, high) if kind == "uniform" else math.exp(source.uniform(math.log(low), math.log(high)))
    return round(value) if is_whole else float(f"{value:.{DIGITS}g}")


def _check(name: str, given: Any, place: str) -> None:
    if isinstance(given, list) and given:
        return
    if isinstance(given, dict) and len(given) == 1:
        ((kind, ends),) = given.items()
        is_pair = (
            isinstance(ends, list)
            and len(ends) == 2
            and all(type(end) in (int, float) and abs(end) <= LARGEST for end in ends)
        )
        if kind in ("uniform", "log") and is_pair and ends[0] < ends[1] and (kind == "uniform" or ends[0] > 0):
            return
    raise NervecordError(
        f"{name} is {shown(given)}, no range",
        where=place,
        hint="write a list of values, { uniform = [low, high] } or { log = [low, high] } with 0 < low < high",
    )
