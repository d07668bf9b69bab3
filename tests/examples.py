"""How many examples a property is tried on: a part in `make test`, all with `--all-examples` in `make test-slow`."""

from __future__ import annotations

PART = 4
"""In `make test` one example of so many is drawn."""
LEAST = 5

ALL = False
"""Whether all are drawn; tests/conftest.py sets it before a test is imported."""


def examples(full: int) -> int:
    """Of a property that `full` examples are drawn for, those of this run."""
    return full if ALL else min(full, max(LEAST, full // PART))
