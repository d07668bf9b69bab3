"""Every pair of values of two declared choices in every engine: equal to the definition, or forbidden by a named rule.

What is drawn comes from the declarations (`conformance.templates`), so that a new choice is tried by itself.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conformance.pairs import Draw, Pair, Row, covering
from conformance.running import (
    FLOATS,
    INTEGERS,
    NEAR,
    POLICIES,
    TIES,
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
from conformance.templates import (
    BASE,
    CLIP,
    FLOAT_NODES,
    HOST_NODES,
    SCHEDULES,
    fitted,
    float_factors,
    float_graph,
    float_problems,
    host_factors,
    host_policy,
    host_problems,
    host_shown,
    integer_factors,
    integer_graph,
    integer_nodes,
    integer_problems,
    relevant_part,
)

from nervecord.compiler.ops import OPS, PART_TYPES, Decode, Normalise, Quantise, fields
from nervecord.compiler.ops.level import EXECUTABLE


def silent(runs: list[Run]) -> set[str]:
    """Populations that gave nothing but zeros in all runs: they would be equal to anything."""
    names = {unit.step.name for run in runs for unit in run.plan.units}
    return names - {name for run in runs for trace in run.traces for name, rows in trace.items() if rows.any()}


def pair(*places: tuple[str, Any]) -> Pair:
    return frozenset(places)


# --------------------------------------------------------------------------------------------------------------------
# What is declared


def test_every_declared_choice_is_a_factor() -> None:
    """A new op, or a new field of one, stands in a template; what may be left out is there in it."""
    templates = (FLOAT_NODES, HOST_NODES, integer_nodes(BASE))
    there = {
        (type(piece).__name__, name)
        for nodes in templates
        for op in nodes.values()
        for piece in pieces(op)
        for name, declared in fields.declarations(type(piece))
        if getattr(piece, name) is not None and is_chosen(declared)
    }
    needed = {
        (kind.__name__, name)
        for kind in (*OPS.values(), *PART_TYPES.values())
        for name, declared in fields.declarations(kind)
        if EXECUTABLE & (kind.LEVELS if hasattr(kind, "LEVELS") else {kind.LEVEL}) and is_chosen(declared)
    }
    assert needed - there == set()


def is_chosen(declared: fields.Declared) -> bool:
    """Whether a field is a choice, a number or a part: no array and no size of one."""
    return declared.optional or declared.kind not in ("array", "shape", "names")


def pieces(op: Any) -> Iterator[Any]:
    """An op and its parts."""
    yield op
    for name, declared in fields.declarations(type(op)):
        if declared.kind == "part" and getattr(op, name) is not None:
            yield from pieces(getattr(op, name))


# --------------------------------------------------------------------------------------------------------------------
# Integers


@functools.cache
def integer_array() -> tuple[list[Row], dict[Pair, set[str]]]:
    return covering(integer_factors(), integer_problems, relevant_part)


SATURATED = {("u", "saturate", "low")} | {
    (key, rule, end)
    for rule in ("saturate", "saturate-symmetric")
    for key, end in (("v", "low"), ("v", "high"), ("u", "high"))
}
"""Current or membrane, how it overflows, and the end of its range that some network reaches."""
OVERFLOWS = {"u": "arithmetic.current_overflow", "v": "arithmetic.membrane_overflow"}


@functools.cache
def integer_runs() -> list[Run]:
    """A run of each row, and of further ones until all ends are reached."""
    runs = [integer_run(row) for row in integer_array()[0]]
    draw = Draw(integer_factors(), integer_problems, relevant_part, np.random.default_rng(1))
    for key, rule, end in sorted(SATURATED - ends_of(runs)):
        more = (integer_run(row) for row in draw.legal({OVERFLOWS[key]: rule}, 50))
        runs += itertools.islice((run for run in more if (key, rule, end) in ends_of([run])), 1)
    return runs


def integer_run(row: Row) -> Run:
    return run_of(row, fitted(integer_graph(row), SCHEDULES[row["schedule"]]))


def ends_of(runs: list[Run]) -> set[tuple[str, str, str]]:
    """What of `SATURATED` the populations of some runs reach."""
    reached = set()
    for run in runs:
        a = run.plan.graph.arithmetic
        assert a is not None
        for state in (each[name] for each in run.states for name in ("neurons", "read")):
            for key, rule, (low, high) in (
                ("u", a.current_overflow, a.current_range),
                ("v", a.membrane_overflow, a.membrane_range),
            ):
                values = state.get(key)
                if values is not None:
                    reached |= {(key, rule, end) for end, at in (("low", low), ("high", high)) if (values == at).any()}
    return reached


FACTORS_KEEP, SHIFTS_LOSE = "at-least-one rounds shifts", "a decay that shifts rounds down"
FORBIDDEN: dict[Pair, str] = {
    pair(("neurons.spike", None)): "analogue-layer at neurons",
    pair(("spikes.carries", "values")): "wiring at always",
    pair(("spikes.carries", "unknown")): "wiring at always",
    pair(("values.carries", "values"), ("values.limit", None)): "limit at values",
    pair(("values.carries", "unknown"), ("values.limit", None)): "limit at values",
    pair(("arithmetic.decay", "factor"), ("arithmetic.decay_rounding", "at-least-one")): FACTORS_KEEP,
    pair(("arithmetic.decay", "shift"), ("arithmetic.decay_rounding", "zero")): SHIFTS_LOSE,
    pair(("arithmetic.decay", "shift"), ("arithmetic.decay_rounding", "half-up")): SHIFTS_LOSE,
    pair(("arithmetic.readout", "none"), ("read.spike", None)): "readout at read",
    pair(("arithmetic.reset", "zero"), ("arithmetic.spikes_per_step", 3)): "several spikes in a step need reset",
}
"""What no network of integers can have -> the rule that says so, or how its words begin."""


def test_pairs_of_integers_are_all_there_but_those_that_a_rule_forbids() -> None:
    rows, forbidden = integer_array()
    assert forbidden.keys() == FORBIDDEN.keys()
    for place, rules in forbidden.items():
        assert rules, place
        assert [rule for rule in rules if not rule.startswith(FORBIDDEN[place])] == [], place
    assert len(rows) < 40


@pytest.mark.long
@every_row
@pytest.mark.parametrize("engine", INTEGERS)
def test_every_pair_of_choices_of_integers(engine: str, every: bool) -> None:
    for run in part_of(every, engine, INTEGERS, integer_runs()):
        assert_equal(run, opened(INTEGERS[engine], run.plan))


@pytest.mark.long
def test_the_networks_of_integers_reach_what_their_choices_are_about() -> None:
    """Spikes of every population, several in one step, and currents and membranes that saturate at both ends."""
    runs = integer_runs()
    assert silent(runs) == set()
    assert max(int(trace["neurons"].max()) for run in runs for trace in run.traces) == 3
    assert ends_of(runs) >= SATURATED


# --------------------------------------------------------------------------------------------------------------------
# Floats


@functools.cache
def float_runs() -> list[Run]:
    rows, forbidden = covering(float_factors(), float_problems, relevant_part)
    assert forbidden == {}
    return [run_of(row, float_graph(row), 10) for row in rows]


@every_row
@pytest.mark.parametrize("engine", FLOATS)
def test_every_pair_of_choices_of_floats(engine: str, every: bool) -> None:
    for run in part_of(every, engine, FLOATS, float_runs()):
        assert_equal(run, opened(FLOATS[engine], run.plan), NEAR[engine])


def test_the_networks_of_floats_are_not_silent() -> None:
    assert silent(float_runs()) == set()


# --------------------------------------------------------------------------------------------------------------------
# The host


@functools.cache
def host_runs() -> list[Actions]:
    """Three actions, each robot with one value of the boundaries in all channels, and then another."""
    rows, forbidden = covering(host_factors(), host_problems, host_shown)
    assert forbidden == {}
    return [actions_of(row, host_policy(row)) for row in rows]


@every_row
@pytest.mark.parametrize("engine", POLICIES)
def test_every_pair_of_choices_of_the_host(engine: str, every: bool) -> None:
    """At zeros of both signs, ties, limits, clips, the largest and the smallest numbers, and what is none."""
    for run in part_of(every, engine, POLICIES, host_runs()):
        assert_same_actions(run, engine)


def test_the_host_meets_what_its_boundaries_are_about() -> None:
    """Actions at every limit and between them, and each choice; ties, and values that an encoder's limit cuts off."""
    runs = host_runs()
    for leaves, expected in (("choose", 4), ("choose counts", 3)):
        choices = {
            float(a) for run in runs if run.row["leaves"] == leaves for each in run.expected for a in each.ravel()
        }
        assert len(choices) >= expected - 1, leaves
    run = next(run for run in runs if run.row["enters"] == "values" and run.row["leaves"] == "decode")
    normalise, quantise = (HOST_NODES[name] for name in ("normalise", "quantise"))
    assert isinstance(normalise, Normalise)
    assert isinstance(quantise, Quantise)
    y = np.array(TIES) / normalise.divisor[1]
    assert (np.abs(y * quantise.scale % 1) == 0.5).all()
    assert quantise.limit < CLIP * quantise.scale
    actions, op = np.concatenate(run.expected), HOST_NODES["decode"]
    assert isinstance(op, Decode)
    assert (actions == op.low).any()
    assert (actions == op.high).any()
    assert ((actions > op.low) & (actions < op.high)).any()
