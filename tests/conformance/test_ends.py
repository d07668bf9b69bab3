"""The ends of every declared bound, in every engine: equal to the definition, or refused by a rule that has a name.

What is drawn comes from the declarations (`conformance.templates`), so that a new bound is tried by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
from conformance.pairs import Row
from conformance.running import INTEGERS, Run, assert_equal, every_row, opened, part_of, run_of
from conformance.templates import (
    BASE,
    SCHEDULES,
    WIDEST,
    declared_of,
    fitted,
    integer_graph,
    integer_nodes,
    integer_problems,
)

from nervecord.compiler.arithmetic import BOUNDS

# --------------------------------------------------------------------------------------------------------------------
# Integers
SUBTRACTS: Row = {"arithmetic.reset": "subtract"}
ENDS: list[tuple[str, int]] = [(f"arithmetic.{name}", end) for name, bounds in BOUNDS.items() for end in bounds]
"""Of every number of an arithmetic."""
SIZES = ("width", "inputs", "features", "groups")
LONG = (("fc.delay", 4096), ("rows.delay", 4096))
"""Ends behind which nothing arrives for thousands of steps."""


def op_ends() -> Iterator[tuple[str, int]]:
    """Of every number of an op of integers, sizes apart; each once, though several nodes have it."""
    done: set[tuple[type, str]] = set()
    for name, op in integer_nodes(WIDEST).items():
        for path, declared, owner in declared_of(op, name):
            field = path.rpartition(".")[2]
            if declared.kind != "integer" or field in SIZES or (type(owner), field) in done:
                continue
            done.add((type(owner), field))
            yield from ((path, int(end)) for end in (declared.low, declared.high))


def end_run(place: tuple[str, int], count: int) -> Run | set[str]:
    """The network with one number at its end, in the first arithmetic that takes it; else what speaks against it."""
    problems: set[str] = set()
    for base in (BASE, WIDEST):
        for more in ({}, SUBTRACTS):
            row = {"schedule": "carried", place[0]: place[1], **more}
            problems = integer_problems(row, base)
            if not problems:
                return run_of(row, fitted(integer_graph(row, base), SCHEDULES["carried"]), count)
    return problems


@functools.cache
def end_runs(every: bool) -> list[Run]:
    """Of all ends, or of every fifth; none is refused but those of `REFUSED`."""
    places = [place for place in (*ENDS, *op_ends()) if place not in REFUSED][:: 1 if every else 5]
    found = {place: end_run(place, 8) for place in places}
    assert {place: run for place, run in found.items() if isinstance(run, set)} == {}
    return [run for run in found.values() if isinstance(run, Run)]


REFUSED = {("neurons.membrane.decay", 1 << 16): "range at neurons"}
"""Ends that no arithmetic takes -> the rule that says so."""


def test_an_end_is_refused_by_a_rule() -> None:
    assert {place: " ".join(end_run(place, 8)) for place in REFUSED} == REFUSED  # type: ignore[arg-type]


@every_row
@pytest.mark.parametrize("engine", INTEGERS)
def test_every_end_of_a_bound_of_integers(engine: str, every: bool) -> None:
    """Each of an arithmetic and of an op."""
    for run in part_of(every, engine, INTEGERS, end_runs(every)):
        assert_equal(run, opened(INTEGERS[engine], run.plan))


@pytest.mark.slow
@pytest.mark.parametrize("place", LONG, ids=lambda place: place[0])
@pytest.mark.parametrize("engine", INTEGERS)
def test_what_arrives_after_the_longest_delay(engine: str, place: tuple[str, int]) -> None:
    run = end_run(place, place[1] + 20)
    assert isinstance(run, Run)
    assert_equal(run, opened(INTEGERS[engine], run.plan))
