"""How many examples a property is tried on: a part in `make test`, all with `--all-examples` in `make test-slow`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

PART = 4
"""In `make test` one example of so many is drawn."""
LEAST = 5

ALL = False
"""Whether all are drawn; tests/conftest.py sets it before a test is imported."""


def examples(full: int) -> int:
    """Of a property that `full` examples are drawn for, those of this run."""
    return full if ALL else min(full, max(LEAST, full // PART))


def some(values: Iterable[Any], quick: int, *, several: bool = False) -> list[Any]:
    """Parameters of a test, of which `make test` takes the first `quick` and `make test-slow` the others; `several`:
    each value is a tuple of arguments."""
    marks = [pytest.mark.slow]
    return [
        value if k < quick else pytest.param(*(value if several else (value,)), marks=marks)
        for k, value in enumerate(values)
    ]
