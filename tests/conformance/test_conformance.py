"""Every engine of every installed target on every case: declared support equals the definition, declared lack is
refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance.cases import CASES, Choice, choices, choices_of, sigma_delta
from conformance.document import conformance_doc
from conformance.engines import (
    DEFINITIONS,
    LACKS,
    against,
    assert_same_populations,
    check,
    engines,
    lowered_alone,
    lowers_as_lava,
    opened,
    program,
    require_engine,
    target,
    targets,
)
from examples import some
from graphs import draw
from policies import random_policy

from nervecord.compiler.compile import compile_graph
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.policy import Policy, parts
from nervecord.compiler.graph.schedule import STREAM, Schedule
from nervecord.compiler.ops import (
    OPS,
    Dense,
    Input,
    IntegerMembrane,
    IntegerSpike,
    Level,
    Neuron,
    Op,
    Output,
    SigmaDelta,
    fields,
)
from nervecord.compiler.target.implied import integers
from nervecord.errors import InfeasibleError
from nervecord.runtime.answer import ACTION_NOT_FINITE
from nervecord.runtime.session import MachineSession
from nervecord.runtime.stream import MachineStream

REPOSITORY = Path(__file__).parents[2]
PAIRS = [(name, engine) for name in targets() for engine in engines(name) if engine not in DEFINITIONS]
COMPILED = [name for name in targets() if target(name).spec.integers is not None]


LARGE = ("branches 7", "branches carried 5", "recurrence 5", "recurrence 6", "decays")
"""Cases that take seconds to lower."""
SAME = (("c", "emulator"), ("lava", "c"), ("onnx, integers", "emulator"), ("fpga", "emulator"), ("fpga", "fpga-sim"))
"""Pairs whose engine and integers are those of another pair, which runs every case."""
FEW = (
    "carried",
    "skip",
    "code and counts",
    "choice",
    "synaptic current carried",
    "delay line",
    "stream in blocks",
    "stream of membranes",
    "limit alone",
)
"""Cases of what `make test` runs a part of: Lava, whose start takes a second (`make test-lava` runs all, and 250
graphs), a chip of one's own, which is lowered as Lava is, and `SAME`."""


def cases_of(name: str, engine: str = "") -> list[Any]:
    """Each case, of which some are slow."""
    is_part = engine == "lava" or (name == "own-chip" and engine) or (name, engine) in SAME
    slow = set(CASES) - set(FEW) if is_part else set(LARGE) if name == "own-chip" else set()
    optimised = FEW if (name, engine) == ("c", "c") else ()
    return [
        pytest.param(case, marks=[pytest.mark.slow] * (case in slow) + [pytest.mark.optimised] * (case in optimised))
        for case in CASES
    ]


def marked(name: str, engine: str) -> Any:
    """Engines that must be installed apart are run by `make test-lava`."""
    marks = [pytest.mark.lava] if engine == "lava" else []
    if name == "lava, two slices":
        # The arithmetic is lava's, in which each engine runs every case; tests/compiler/test_slices.py has slices.
        marks.append(pytest.mark.slow)
    return pytest.param(name, engine, marks=marks, id=f"{name}-{engine}")


on_every_engine = pytest.mark.parametrize(("name", "engine"), [marked(*pair) for pair in PAIRS])


@pytest.mark.parametrize(
    ("name", "engine", "case"),
    [
        pytest.param(*pair.values, *case.values, marks=[*pair.marks, *case.marks], id=f"{case.values[0]}-{pair.id}")
        for pair in (marked(*pair) for pair in PAIRS)
        for case in cases_of(*pair.values)
    ],
)
def test_declared_support_equals_the_definition(name: str, engine: str, case: str) -> None:
    if against(name, case):
        pytest.skip("the target does not declare it; see test_declared_lack_is_refused")
    check(name, engine, case)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        # In two slices what is refused is what lava refuses, and what is not takes twice as long to lower.
        pytest.param(name, *case.values, marks=[*case.marks, *([pytest.mark.slow] if "slices" in name else [])])
        for name in targets()
        for case in cases_of(name)
    ],
)
def test_declared_lack_is_refused(name: str, case: str) -> None:
    """By the code that `inspect` shows, and by nothing else; what is not refused compiles."""
    findings = against(name, case)
    if not findings:
        program(name, case)
        return
    with pytest.raises(InfeasibleError) as caught:
        compile_graph(CASES[case].make(), target(name), schedule=CASES[case].schedule)
    assert all(finding.message in str(caught.value) for finding in findings)


@pytest.mark.parametrize("name", [name for name in COMPILED if lowers_as_lava(name)])
@pytest.mark.parametrize(
    "case", ["chain", "carried", "stream in blocks", *(pytest.param(k, marks=pytest.mark.slow) for k in CASES)]
)
def test_one_arithmetic_is_lowered_alike(name: str, case: str) -> None:
    if against("lava", case) or against(name, case):
        pytest.skip("the target does not declare it; see test_declared_lack_is_refused")
    assert lowered_alone(name, case).graph == program("lava", case).graph


@on_every_engine
def test_whoever_gets_the_fail_safe_action_is_known(name: str, engine: str) -> None:
    """Weights of a decoder at the edge of float64, whose sums are NaN for some robots and 0 for others, who act.

    The fail-safe action is what those who act do as well, and a robot that is not counted fails like any other.
    """
    require_engine(name, engine)
    policy = policy_of_counts()
    program = compile_graph(policy, target(name))
    decode = program.graph.nodes["decode"]
    wild = decode.replace(weight=np.tile([1.7e308, -1.7e308], (2, 1)), offset=np.zeros(2))
    graph = program.graph.replace(nodes={**program.graph.nodes, "decode": wild})
    changed = Program(program.target, graph, program.contract, report=program.report)
    if engine == "c":
        with pytest.raises(InfeasibleError, match="weights"):
            opened(name, engine, changed)
        return
    batch = 1 if engine == "lava" else 6
    rng, replaced, acted = np.random.default_rng(5), 0, 0
    with opened(name, engine, changed) as session, MachineSession(changed.policy, batch=batch) as plain:
        session.reset(batch)
        for _ in range(4 if engine == "lava" else 8):
            rows = rng.normal(size=(batch, 3)).astype(np.float32).astype(np.float64)
            rows[-1, 0] = np.nan if batch > 1 else rows[-1, 0]
            active = rng.random(batch) < 0.7
            expected, actual = plain.step(rows, active), session.step(rows, active)
            np.testing.assert_array_equal(actual, expected)
            assert session.last.reasons == plain.last.reasons  # type: ignore[union-attr]
            replaced += plain.last.reasons.count(ACTION_NOT_FINITE)  # type: ignore[union-attr]
            acted += sum(r is None and not a.any() for r, a in zip(plain.last.reasons, expected, strict=True))  # type: ignore[union-attr]
        assert session.counts.fail_safe == plain.counts.fail_safe
    assert (replaced, acted) >= (1, 1)


def policy_of_counts() -> Policy:
    """Actions from counts of spikes, without limits, and 0 as the fail-safe one."""
    policy = random_policy(sizes=(3, 8, 2), steps=3, output_population=2)
    action = dataclasses.replace(policy.contract.action, low=None, high=None)
    return policy.replace(contract=dataclasses.replace(policy.contract, action=action, fail_safe=(0.0, 0.0)))


@on_every_engine
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(k, marks=pytest.mark.slow) for k in range(2, 10))])
def test_random_graphs_of_integers(name: str, engine: str, seed: int) -> None:
    """The core's own generator, in the target's arithmetic: extremes of every parameter, to the bit."""
    spec = target(name).spec
    if spec.integers is None:
        pytest.skip("computes in floats")
    require_engine(name, engine)
    case = draw(4000 + seed, integers(spec))
    program = Program(spec.name, case.plan.graph, schedule=case.plan.schedule)
    with opened(name, engine, program) as session:
        reference = MachineStream(session.plan)
        steps = case.plan.schedule.steps
        for start in range(0, len(next(iter(case.inputs.values()))), steps):
            block = {key: x[start : start + steps] for key, x in case.inputs.items()}
            expected, actual = reference.step(block), session.step(block)
            for key, rows in expected.items():
                np.testing.assert_array_equal(actual[key], rows, err_msg=f"{start}: {key}")
            assert_same_populations(case.plan, session.trace(), reference.trace())


LOWERED = (
    "chain",
    "code with a bias source",
    "convolution in 2-D",
    "SparseAffine.bias: given",
    "stream of values",
    "stream of membranes",
)
"""Cases of which lowering makes what no graph of floats can say: bias channels, sparse matrices of integers."""


def test_the_cases_have_every_op_and_choice() -> None:
    """A new op is a new case."""
    had: set[str] = set()
    for case in CASES.values():
        graph, _ = parts(case.make())
        had |= {op.kind for op in graph.nodes.values()}
    made_by_lowering = {"Quantise", "Rescale", "Dense"}
    every = {kind for op in OPS.values() if Level.DISCRETE in op.LEVELS for kind in op.kinds(Level.DISCRETE)}
    assert every - made_by_lowering - had == set()
    lowered = {op.kind for name in LOWERED for op in program("lava", name).graph.nodes.values()}
    assert made_by_lowering <= lowered


def test_the_cases_have_every_value_of_every_choice() -> None:
    """As the ops declare them: a new one without a case cannot be. Those of integers alone stand in `INTEGERS`."""
    had: set[Choice] = set(INTEGERS)
    for case in CASES.values():
        had |= set(choices_of(parts(case.make())[0]))
    for name in LOWERED:
        had |= set(choices_of(program("lava", name).graph))
    assert sorted({choice for choice, _ in choices()} - had) == []
    for name, case in CASES.items():
        of, _, rest = name.partition(".")
        if rest and of in {choice.of for choice, _ in choices()}:
            field, _, value = rest.partition(": ")
            assert Choice(of, field, value) in set(choices_of(parts(case.make())[0])), name


INTEGERS: dict[Choice, Graph] = {
    Choice("SigmaDelta", "activation", value): sigma_delta(value)
    for value in next(d.options for name, d in fields.declarations(SigmaDelta) if name == "activation")
}
"""A value of a choice of an op that is lowered from nothing -> a graph of integers that has it."""


@on_every_engine
@pytest.mark.parametrize("choice", INTEGERS, ids=lambda choice: choice.name)
def test_choices_of_integers(name: str, engine: str, choice: Choice) -> None:
    """Every engine gives what the definition gives."""
    spec = target(name).spec
    if spec.integers is None:
        pytest.skip("computes in floats")
    require_engine(name, engine)
    program = Program(spec.name, INTEGERS[choice].replace(arithmetic=integers(spec)), schedule=STREAM)
    assert_same_rows(name, engine, program, np.random.default_rng(0).integers(-30, 31, size=(40, 3)))


LIMITS = {"whole": 3.0, "fractional": 1.5}
SCHEDULES = (STREAM, Schedule(4, "carried", held=True), Schedule(4, "reset", held=True))


@on_every_engine
@pytest.mark.parametrize("limit", some(["fractional", "whole"], 1))
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_an_inputs_limit_in_integers(name: str, engine: str, schedule: Schedule, limit: str) -> None:
    """Values beyond it, some of them fractions, straight into a connection: clipped, then rounded towards zero."""
    spec = target(name).spec
    if spec.integers is None or not spec.integers.graded_bits:
        pytest.skip("takes no graded integers")
    require_engine(name, engine)
    weight = 2 * np.random.default_rng(1).integers(-60, 60, size=(4, 3))
    nodes: list[tuple[str, Op]] = [
        ("in", Input((3,), "values", LIMITS[limit])),
        ("fc", Dense(weight, 0, 8, 1)),
        ("lif", Neuron(IntegerMembrane(40, np.zeros(4)), None, IntegerSpike(90))),
        ("out", Output((4,))),
    ]
    graph = chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=integers(spec))
    program = Program(spec.name, graph, schedule=schedule)
    if engine == "onnxruntime" and schedule.held:
        with pytest.raises(InfeasibleError, match=r"^schedule: .*input"):
            opened(name, engine, program)
        return
    assert_same_rows(name, engine, program, np.random.default_rng(2).normal(size=(40, 3)).astype(np.float32) * 4)


def assert_same_rows(name: str, engine: str, program: Program, x: np.ndarray) -> None:
    with opened(name, engine, program) as session:
        expected, actual = MachineStream(session.plan).run(x), session.run(x)
        for key, rows in expected.items():
            np.testing.assert_array_equal(actual[key], rows, err_msg=key)
        assert any(rows.any() for rows in expected.values()), "a silent graph would be equal to anything"


def test_there_is_something_to_test_and_to_refuse() -> None:
    for name in COMPILED:
        refused = {case for case in CASES if against(name, case)}
        assert 5 <= len(refused) <= len(CASES) - 12, name
    assert not any(against("reference", case) for case in CASES)
    assert {engine for engine, _ in LACKS} <= {engine for _, engine in PAIRS}


def test_the_document_is_current(stored: Callable[[Path, str], None]) -> None:
    stored(REPOSITORY / "docs" / "conformance.md", conformance_doc())
