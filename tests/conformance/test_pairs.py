"""Every pair of values of two declared choices, and the ends of every declared bound, in every engine: equal to the
definition, or forbidden by a rule that has a name.

What is drawn comes from the declarations (`conformance.templates`), so that a new choice is tried by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from conformance.pairs import Pair, Row, covering
from conformance.templates import (
    BASE,
    CLIP,
    FLOAT_NODES,
    HOST_NODES,
    SCALE,
    SCHEDULES,
    WIDEST,
    declared_of,
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
    shown,
)

from nervecord.compiler.arithmetic import BOUNDS
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import OPS, PART_TYPES, Array, Decode, Level, Normalise, Quantise, fields
from nervecord.compiler.ops.level import EXECUTABLE
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.errors import MissingDependencyError
from nervecord.runtime.engines.c.session import CSession, CStream
from nervecord.runtime.engines.emulator.session import EmulatorSession, EmulatorStream
from nervecord.runtime.session import MachineSession
from nervecord.runtime.stream import MachineStream
from nervecord.targets.onnx.engine import OnnxSession, OnnxStream

QUICK = ("-O0",)
"""What C computes is not the optimiser's affair."""


def torch_stream(made: Plan, **options: Any) -> Any:
    pytest.importorskip("torch")
    from nervecord.runtime.engines.torch.session import BatchedStream

    return BatchedStream(made, **options)


def torch_session(policy: Policy, batch: int) -> Any:
    pytest.importorskip("torch")
    from nervecord.runtime.engines.torch.session import BatchedSession

    return BatchedSession(policy, batch)


Streams = Mapping[str, Callable[[Plan], Any]]
INTEGERS: Streams = {
    "emulator": EmulatorStream,
    "emulator, wide": lambda made: EmulatorStream(made, wide=True),
    "emulator, instructions": lambda made: EmulatorStream(made, fast=False),
    "torch": torch_stream,
    "onnx": OnnxStream,
    "c": lambda made: CStream(made, flags=QUICK),
}
FLOATS: Streams = {"torch": torch_stream, "onnx": OnnxStream}
POLICIES: Mapping[str, Callable[[Policy, int], Any]] = {
    "emulator": EmulatorSession,
    "emulator, host apart": lambda made, batch: EmulatorSession(made, batch, fuse=False),
    "torch": torch_session,
    "onnx": lambda made, batch: OnnxSession(made, batch=batch),
    "c": lambda made, batch: CSession(made, batch, flags=QUICK),
}


def opened(make: Callable[..., Any], *arguments: Any) -> Any:
    """A session; where what it needs is not installed, the test is skipped."""
    try:
        return make(*arguments)
    except MissingDependencyError as error:
        pytest.skip(str(error))


@dataclass(frozen=True)
class Run:
    """A network, what enters it, and what the definition makes of that.

    Args:
        row: what was chosen.
        blocks: by Input. outputs, traces: of each block. states: after each block.
    """

    row: Row
    plan: Plan
    blocks: list[dict[str, Array]]
    outputs: list[dict[str, Array]]
    traces: list[dict[str, Array]]
    states: list[dict[str, dict[str, Array]]]


def run_of(row: Row, graph: Graph, count: int = 20) -> Run:
    """The definition on some blocks of values and spikes."""
    schedule = SCHEDULES[row.get("schedule", "carried")]
    made = plan(graph, schedule)
    blocks = list(_blocks(graph, schedule.steps, count // schedule.steps))
    found = Run(row, made, blocks, [], [], [])
    with MachineStream(made) as session:
        for block in blocks:
            found.outputs.append({name: rows.copy() for name, rows in session.step(block).items()})
            found.traces.append(session.trace())
            found.states.append(session.state())
    return found


def _blocks(graph: Graph, steps: int, count: int) -> Iterator[dict[str, Array]]:
    """Values and spikes at random; then for a while the largest, beyond what a limit allows, later the smallest."""
    rng = np.random.default_rng(7)
    high, low = (range(first, first + max(count // 5, 1)) for first in (count // 4, count // 2))
    whole = graph.level is Level.INTEGER
    for k in range(count):
        block = {}
        for name in graph.inputs:
            op: Any = graph.nodes[name]
            shape = (steps, 1, *op.in_shape)
            if op.spikes:
                block[name] = (rng.random(shape) < (1.0 if k in high else 0.0 if k in low else 0.5)).astype(np.float64)
                continue
            most = 3.0 if op.limit is None else op.limit + 1
            x = rng.uniform(-most, most, size=shape).astype(np.float32).astype(np.float64)
            x = np.trunc(x) if whole else x
            block[name] = np.full(shape, most) if k in high else np.full(shape, -most) if k in low else x
        yield block


def assert_equal(run: Run, session: Any, tolerance: float = 0.0) -> None:
    """What leaves and what every population gives in its useful steps."""
    with session:
        for k, block in enumerate(run.blocks):
            found = session.step(block)
            trace = session.trace()
            for name, rows in run.outputs[k].items():
                np.testing.assert_allclose(found[name], rows, tolerance, tolerance, err_msg=f"{run.row}, {k}: {name}")
            for unit in run.plan.units:
                name, at = unit.step.name, run.plan.useful(unit.step.name)
                wanted = run.traces[k][name][at]
                near = 0.0 if unit.step.op.spikes else tolerance
                np.testing.assert_allclose(trace[name][at], wanted, near, near, err_msg=f"{run.row}, {k}: {name}")


def silent(runs: list[Run]) -> set[str]:
    """Populations that gave nothing but zeros in all runs: they would be equal to anything."""
    names = {unit.step.name for run in runs for unit in run.plan.units}
    return names - {name for run in runs for trace in run.traces for name, rows in trace.items() if rows.any()}


def part_of(every: bool, engine: str, engines: Mapping[str, Any], runs: list[Any]) -> list[Any]:
    """All runs, or, of an engine that is not the first one, every third of them, another one for the next engine."""
    number = list(engines).index(engine)
    return runs if every or not number else runs[number % 3 :: 3]


every_row = pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["part", "all"])


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
    return covering(integer_factors(), integer_problems, shown)


@functools.cache
def integer_runs() -> list[Run]:
    return [run_of(row, fitted(integer_graph(row), SCHEDULES[row["schedule"]])) for row in integer_array()[0]]


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


@every_row
@pytest.mark.parametrize("engine", INTEGERS)
def test_every_pair_of_choices_of_integers(engine: str, every: bool) -> None:
    for run in part_of(every, engine, INTEGERS, integer_runs()):
        assert_equal(run, opened(INTEGERS[engine], run.plan))


def test_the_networks_of_integers_reach_what_their_choices_are_about() -> None:
    """Spikes of every population, several in one step, and currents and membranes that saturate at both ends."""
    runs = integer_runs()
    assert silent(runs) == set()
    most, ends = 0, set()
    for run in runs:
        a = run.plan.graph.arithmetic
        assert a is not None
        most = max(most, *(int(trace["neurons"].max()) for trace in run.traces))
        for state in (each[name] for each in run.states for name in ("neurons", "read")):
            for key, rule, (low, high) in (
                ("u", a.current_overflow, a.current_range),
                ("v", a.membrane_overflow, a.membrane_range),
            ):
                values = state.get(key)
                if values is not None:
                    ends |= {(key, rule, end) for end, at in (("low", low), ("high", high)) if (values == at).any()}
    assert most == 3
    for rule in ("saturate", "saturate-symmetric"):
        assert {("v", rule, "low"), ("v", rule, "high"), ("u", rule, "high")} <= ends
    assert ("u", "saturate", "low") in ends


# --------------------------------------------------------------------------------------------------------------------
# Ends of bounds

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


# --------------------------------------------------------------------------------------------------------------------
# Floats


@functools.cache
def float_runs() -> list[Run]:
    rows, forbidden = covering(float_factors(), float_problems, shown)
    assert forbidden == {}
    return [run_of(row, float_graph(row), 10) for row in rows]


NEAR = {"torch": 1e-9, "onnx": 1e-4}
"""What float64 and float32 leave between the definition's values and theirs; no spike may differ, as no membrane here
is as near to its threshold."""


@every_row
@pytest.mark.parametrize("engine", FLOATS)
def test_every_pair_of_choices_of_floats(engine: str, every: bool) -> None:
    for run in part_of(every, engine, FLOATS, float_runs()):
        assert_equal(run, opened(FLOATS[engine], run.plan), NEAR[engine])


def test_the_networks_of_floats_are_not_silent() -> None:
    assert silent(float_runs()) == set()


# --------------------------------------------------------------------------------------------------------------------
# The host


@dataclass(frozen=True)
class Actions:
    """A policy, what it observed, and what the definition did."""

    row: Row
    policy: Policy
    observations: Array
    wanted: list[Array]
    reasons: list[Any]


TIES = [sign * (k + 0.5) / SCALE for k in range(4) for sign in (1, -1)]
"""Observations that the channel whose divisor is 1 makes the middle between two integers."""
LARGEST = float(np.finfo(np.float32).max)
BOUNDARIES = [
    0.0,
    -0.0,
    *TIES,
    0.5,
    -0.5,
    1.5,
    -1.5,
    2.0,
    -2.0,
    5.5,
    -5.5,
    6.5,
    -6.5,
    CLIP,
    -CLIP,
    100.0,
    LARGEST,
    -LARGEST,
    1e-45,
    -1e-45,
    float(np.nextafter(np.float32(5.5), np.float32(6))),
    np.nan,
    np.inf,
]


@functools.cache
def host_runs() -> list[Actions]:
    """Three actions, each robot with one value of the boundaries in all channels, and then another."""
    rows, forbidden = covering(host_factors(), host_problems, host_shown)
    assert forbidden == {}
    found = []
    for row in rows:
        policy = host_policy(row)
        size = policy.contract.observation.size
        values = np.array(BOUNDARIES, dtype=np.float32).astype(np.float64)
        x = np.stack([np.repeat(np.roll(values, 5 * k)[:, None], size, axis=1) for k in range(3)])
        x[2, :, ::2] = x[0, :, ::2]
        with MachineSession(policy, batch=len(values)) as session:
            wanted, reasons = [], []
            for rows_ in x:
                wanted.append(session.step(rows_).copy())
                reasons.append(session.last.reasons)  # type: ignore[union-attr]
        found.append(Actions(row, policy, x, wanted, reasons))
    return found


@every_row
@pytest.mark.parametrize("engine", POLICIES)
def test_every_pair_of_choices_of_the_host(engine: str, every: bool) -> None:
    """At zeros of both signs, ties, limits, clips, the largest and the smallest numbers, and what is none; to the bit,
    where an action is a float32 rounded."""
    for run in part_of(every, engine, POLICIES, host_runs()):
        batch = run.observations.shape[1]
        with opened(POLICIES[engine], run.policy, batch) as session:
            for k, x in enumerate(run.observations):
                found, wanted = session.step(x), run.wanted[k]
                wanted = wanted.astype(np.float32).astype(np.float64) if engine in ("onnx", "c") else wanted
                np.testing.assert_array_equal(found, wanted, err_msg=f"{run.row}, {k}")
                np.testing.assert_array_equal(np.signbit(found), np.signbit(wanted), err_msg=f"{run.row}, {k}: sign")
                assert session.last.reasons == run.reasons[k], run.row


def test_the_host_meets_what_its_boundaries_are_about() -> None:
    """Actions at every limit and between them, and each choice; ties, and values that an encoder's limit cuts off."""
    runs = host_runs()
    for leaves, wanted in (("choose", 4), ("choose counts", 3)):
        chosen = {float(a) for run in runs if run.row["leaves"] == leaves for each in run.wanted for a in each.ravel()}
        assert len(chosen) >= wanted - 1, leaves
    run = next(run for run in runs if run.row["enters"] == "values" and run.row["leaves"] == "decode")
    normalise, quantise = (HOST_NODES[name] for name in ("normalise", "quantise"))
    assert isinstance(normalise, Normalise)
    assert isinstance(quantise, Quantise)
    y = np.array(TIES) / normalise.divisor[1]
    assert (np.abs(y * quantise.scale % 1) == 0.5).all()
    assert quantise.limit < CLIP * quantise.scale
    actions, op = np.concatenate(run.wanted), HOST_NODES["decode"]
    assert isinstance(op, Decode)
    assert (actions == op.low).any()
    assert (actions == op.high).any()
    assert ((actions > op.low) & (actions < op.high)).any()
