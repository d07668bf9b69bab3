"""The ends of every declared bound, in every engine: equal to the definition, or refused by a rule that has a name.

What is drawn comes from the declarations (`conformance.templates`), so that a new bound is tried by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from conformance.ends import (
    SUBTRACTS,
    Place,
    alone,
    float_ends,
    host_ends,
    integer_ends,
    places,
    problems,
    reached,
    smallest_integers,
    smallest_policy,
)
from conformance.pairs import Row
from conformance.running import (
    FLOATS,
    INTEGERS,
    NEAR,
    POLICIES,
    Actions,
    Run,
    actions_of,
    assert_equal,
    assert_same_actions,
    every_row,
    opened,
    part_of,
    run_of,
)
from conformance.templates import BASE, SCHEDULES, WIDEST, fitted, integer_graph, integer_problems

from nervecord.compiler.arithmetic import BOUNDS
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Flatten, Scale, fields
from nervecord.compiler.ops.fields import LARGEST_AXIS, LARGEST_INTEGER
from nervecord.errors import InfeasibleError

FIRST, LAST = -(1 << 31), LARGEST_INTEGER - 1
REFUSED: dict[Place, str] = {
    **{(kind, "shape", LARGEST_AXIS): "size at in" for kind in ("Input", "Output", "Activation")},
    **{(kind, "width", LARGEST_AXIS): "size at graph" for kind in ("Delta", "Sigma", "BiasChannel", "ArgmaxDecode")},
    **{(kind, "columns", end): "columns at " for kind in ("SparseAffine", "Sparse") for end in (FIRST, LAST)},
    **{(kind, "starts", end): "rows at " for kind in ("SparseAffine", "Sparse") for end in (FIRST, LAST)},
    **{(kind, "inputs", LAST): "convolution at " for kind in ("SparseAffine", "Sparse")},
    **{(kind, "weight", end): "range at fc" for kind in ("Dense",) for end in (FIRST, LAST)},
    **{("Sparse", "values", end): "range at rows" for end in (FIRST, LAST)},
    **{("IntegerMembrane", "bias", end): "range at neurons" for end in (FIRST, LAST)},
    **{("Convolution", name, LARGEST_AXIS): "convolution at " for name in ("input_shape", "kernel", "padding")},
    **{("Convolution", name, LAST): "convolution at " for name in ("features", "groups")},
    ("IntegerMembrane", "decay", 1 << 16): "range at neurons",
    ("Conv", "padding", LARGEST_AXIS): "shape at out",
    ("Conv", "groups", LAST): "shape at op",
    ("Conv", "input_size", LARGEST_AXIS): "size at graph",
    ("Flatten", "input_shape", LARGEST_AXIS): "size at graph",
    ("Pool", "kernel", LARGEST_AXIS): "shape at op",
    ("Pool", "padding", LARGEST_AXIS): "shape at out",
    ("Pool", "input_shape", LARGEST_AXIS): "size at graph",
    ("Quantise", "width", LARGEST_AXIS): "shape at out",
    **{("Quantise", name, 1 << 24): "limit at quantise" for name in ("limit", "constant")},
}
"""Ends that nothing takes -> the rule that says so, and where."""


def test_every_end_of_a_field_has_a_case_or_a_rule() -> None:
    """A new field with bounds stands in a template."""
    tables: list[Mapping[Place, Any]] = [float_ends(), host_ends(), integer_ends()]
    there = {place for ends in tables for place, case in ends.items() if not isinstance(case, set)}
    for graph in (smallest_policy().graph, *smallest_integers()):
        assert problems(graph) == set()
        there |= set(reached(graph))
    assert set(places()) - there == set(REFUSED)
    for place, rule in REFUSED.items():
        wrong = {problem for ends in tables for problem in ends.get(place, ())}
        assert any(problem.startswith(rule) for problem in wrong), (place, wrong)


def test_a_shape_has_at_most_the_axes_that_arrays_have_room_for() -> None:
    """The batch and windows over its axes are more axes of one array."""
    most = fields.MOST_AXES
    assert problems(alone(Flatten((1,) * most, 0, -1))) == set()
    assert {f"shape at {name}" for name in ("in", "op")} <= problems(alone(Flatten((1,) * (most + 1), 0, -1)))
    assert "shape at op" in problems(alone(Scale(np.ones((1,) * (most + 1)))))


# --------------------------------------------------------------------------------------------------------------------
# Integers

LONG = (("Dense", "delay", 4096), ("Sparse", "delay", 4096))
"""Ends behind which nothing arrives for thousands of steps."""


def arithmetic_end(name: str, end: int) -> Run:
    """The network with one number of the arithmetic at an end, in the first arithmetic that takes it."""
    for base in (BASE, WIDEST):
        for more in ({}, SUBTRACTS):
            row = {"schedule": "carried", f"arithmetic.{name}": end, **more}
            if not integer_problems(row, base):
                return run_of(row, fitted(integer_graph(row, base), SCHEDULES["carried"]), 8)
    raise AssertionError(f"no arithmetic takes {name} = {end}")


def op_end(case: tuple[Row, Any], count: int = 8) -> Run:
    """The network with one number of an op at an end."""
    row, base = case
    return run_of(row, fitted(integer_graph(row, base), SCHEDULES["carried"]), count)


@functools.cache
def end_runs(every: bool) -> list[Run]:
    """Of all ends, or of every fifth; and the smallest networks."""
    part = slice(None, None, 1 if every else 5)
    numbers = [(name, end) for name, bounds in BOUNDS.items() for end in bounds][part]
    ops = [case for case in integer_ends().values() if not isinstance(case, set)][part]
    small = [run_of({}, fitted(graph, SCHEDULES["carried"])) for graph in smallest_integers()]
    return [*(arithmetic_end(*number) for number in numbers), *map(op_end, ops), *small]


@pytest.mark.long
@every_row
@pytest.mark.parametrize("engine", INTEGERS)
def test_every_end_of_a_bound_of_integers(engine: str, every: bool) -> None:
    """Each of an arithmetic and of an op."""
    for run in part_of(every, engine, INTEGERS, end_runs(every)):
        assert_equal(run, opened(INTEGERS[engine], run.plan))


@pytest.mark.slow
@pytest.mark.parametrize("place", LONG, ids=lambda place: place[0])
@pytest.mark.parametrize("engine", INTEGERS)
def test_what_arrives_after_the_longest_delay(engine: str, place: Place) -> None:
    case = integer_ends()[place]
    assert not isinstance(case, set)
    run = op_end(case, int(place[2]) + 20)
    assert_equal(run, opened(INTEGERS[engine], run.plan))


# --------------------------------------------------------------------------------------------------------------------
# Floats


LACKS = {("onnx", "DelayLine")}
"""What an engine refuses by its name."""


@functools.cache
def float_runs() -> dict[Place, Run]:
    return {
        place: run_of({"place": place}, graph, 10) for place, graph in float_ends().items() if isinstance(graph, Graph)
    }


@pytest.mark.parametrize("engine", FLOATS)
def test_every_end_of_a_bound_of_floats(engine: str) -> None:
    """Of an op alone."""
    for (kind, *_), run in float_runs().items():
        if (engine, kind) in LACKS:
            with pytest.raises(InfeasibleError, match=kind):
                opened(FLOATS[engine], run.plan)
            continue
        assert_equal(run, opened(FLOATS[engine], run.plan), NEAR[engine])


# --------------------------------------------------------------------------------------------------------------------
# The host


FAR_ACTIONS = {(kind, name) for kind in ("Decode", "CountDecode") for name in ("low", "high")}
"""Limits that float32 does not hold, in which actions leave some engines."""
REFUSALS = {"onnx": FAR_ACTIONS, "c": FAR_ACTIONS | {("CountDecode", "weight"), ("CountArgmaxDecode", "weight")}}
"""What an engine refuses at both ends; C also sums that overflow a double, which its arithmetic has no trace of."""


@functools.cache
def host_runs() -> list[Actions]:
    policies = {place: policy for place, policy in host_ends().items() if isinstance(policy, Policy)}
    cases: dict[Any, Policy] = {**policies, "smallest": smallest_policy()}
    return [actions_of({"place": place}, policy) for place, policy in cases.items()]


@pytest.mark.parametrize("engine", POLICIES)
def test_every_end_of_a_bound_of_the_host(engine: str) -> None:
    """The actions, or that there is none to trust."""
    for run in host_runs():
        (place,) = run.row.values()
        if place[:2] in REFUSALS.get(engine, ()):
            with pytest.raises(InfeasibleError):
                opened(POLICIES[engine], run.policy, 1)
            continue
        assert_same_actions(run, engine)
