"""Every engine of every target that compiles, as the installed targets declare them, and what is compared.

An engine joins by being named in the spec of its target. `LACKS` says what one refuses that its target compiles; the
suite holds it to that in both directions.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance.cases import CASES, Case

from nervecord.compiler.check.table import errors
from nervecord.compiler.compile import compile_graph
from nervecord.compiler.files.program import Program
from nervecord.compiler.findings import Finding
from nervecord.compiler.ops import Array, Level
from nervecord.compiler.plan.plan import Plan
from nervecord.compiler.target.abilities import Installable
from nervecord.compiler.target.specfile import spec_from_dict
from nervecord.errors import ContractError, MissingDependencyError, NervecordError
from nervecord.runtime.answer import NOT_FINITE
from nervecord.runtime.measure.replay import Replay, threshold_of, useful_steps
from nervecord.runtime.session import MachineSession, Session
from nervecord.runtime.stream import MachineStream
from nervecord.targets.catalogue import AnyTarget, compiling_names, find_target
from nervecord.targets.integers import IntegerTarget

LACKS: dict[tuple[str, str], str] = {}
"""(engine, case) -> words of its refusal, of what its target compiles."""
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "onnx, integers": ("onnx", {"form": "integer"}),
    "lava, two slices": ("lava", {"weight_slices": 2}),
}
"""A target with options that make another arithmetic of it: name here -> (target, options)."""
DEFINITIONS = ("definition", "reference")
"""Engines that are the definition: what the others are compared with."""
ACTIONS = 12
NEAR = 1e-4
"""Floats: actions of an engine in float32 differ by so much, and spikes where the membrane is as near to its
threshold. Finer measures of one engine stand in its own tests."""


def own_chip() -> AnyTarget:
    """A target that a user's file describes: Lava's widths, and other choices than Lava's where there are any."""
    path = Path(__file__).parents[2] / "targets" / "lava" / "spec.toml"
    lava = tomllib.loads(path.read_text(encoding="utf-8"))
    arithmetic = {
        **lava["arithmetic"],
        "weight_signs": "twos-complement",
        "current_overflow": "saturate",
        "membrane_overflow": "saturate",
        "decay_bits": 8,
        "decay_rounding": "floor",
        "compare": ">=",
        "readout": "membrane",
    }
    free = {"value": "unlimited", "source": "made up", "confidence": "exact"}
    header = {name: lava[name] for name in ("title", "summary", "nodes")}
    limits = dict.fromkeys(("cores", "neurons"), free)
    return IntegerTarget(
        spec_from_dict(
            {**header, "name": "own-chip", "engines": [], "arithmetic": arithmetic, "behaviour": {}, "limits": limits}
        )
    )


@functools.cache
def target(name: str) -> AnyTarget:
    if name in VARIANTS:
        of, options = VARIANTS[name]
        return dataclasses.replace(find_target(of), **options)  # type: ignore[type-var]
    return own_chip() if name == "own-chip" else find_target(name)


@functools.cache
def targets() -> tuple[str, ...]:
    """Names of what compiles, of their variants, and of a chip that a file describes."""
    return (*compiling_names(), *VARIANTS, "own-chip")


def engines(name: str) -> tuple[str, ...]:
    """Of a target that compiles to floats, those that run floats."""
    names = target(name).spec.engines
    return names if target(name).spec.integers is not None else tuple(e for e in names if e != "emulator")


@functools.cache
def against(name: str, case: str) -> tuple[Finding, ...]:
    """What a target's spec says against a case."""
    content = CASES[case]
    return tuple(errors(content.make(), target(name).spec, content.schedule))


@functools.cache
def program(name: str, case: str) -> Program:
    """A case compiled for a target, on inputs of its own kind.

    What has Lava's arithmetic takes the integers that were lowered for Lava, so that each case is lowered once;
    `test_one_arithmetic_is_lowered_alike` holds the targets to that.
    """
    if lowers_as_lava(name) and not against("lava", case):
        lowered = program("lava", case)
        subject = lowered.graph if lowered.contract is None else lowered.policy
        return compile_graph(subject, target(name), schedule=CASES[case].schedule)
    return lowered_alone(name, case)


def lowered_alone(name: str, case: str) -> Program:
    """The same, from floats, whatever was lowered for another target."""
    content = CASES[case]
    subject = content.make()
    recorded = None if hasattr(subject, "contract") else stream_of(case, np.random.default_rng(1), 200)
    return compile_graph(subject, target(name), schedule=content.schedule, calibration=recorded)


def lowers_as_lava(name: str) -> bool:
    """Whether a target other than Lava has its arithmetic and its options."""
    other, lava = target(name), target("lava")
    same = other.spec.integers is not None and other.spec.integers == lava.spec.integers
    return same and name != "lava" and getattr(other, "weight_slices", 1) == getattr(lava, "weight_slices", 1)


def stream_of(case: str, rng: np.random.Generator, steps: int) -> Array:
    """(steps, ...) that a case's Input takes."""
    content: Case = CASES[case]
    graph: Any = content.make()
    shape = graph.nodes[graph.inputs[0]].in_shape
    if content.values == "values":
        return np.clip(rng.normal(size=(steps, *shape)), -4, 4).astype(np.float32).astype(np.float64)
    return (rng.random((steps, *shape)) < 0.3).astype(np.float64)


def require_engine(name: str, engine: str) -> None:
    """Skip an engine whose own interpreter is not installed."""
    chip: Any = target(name)
    if isinstance(chip, Installable):
        installation = chip.installation()
        if installation.engine == engine and not installation.installed:
            pytest.skip(installation.about)


def opened(name: str, engine: str, program: Program) -> Any:
    """A session or a stream of a program; an engine whose package is not installed is skipped."""
    if engine == "fpga-sim" and importlib.util.find_spec("amaranth") is not None:
        from nervecord.targets.fpga import simulator

        # A few blocks take no time beside what the compiler takes.
        simulator.OPTIMISE = "-O0"
    try:
        if program.contract is None:
            return target(name).stream(program, engine=engine)
        return target(name).open(program, engine=engine)
    except MissingDependencyError as error:
        pytest.skip(str(error))


# --------------------------------------------------------------------------------------------------------------------
# Equality


def same(actual: Array, expected: Array) -> bool:
    """Bit-exact; or the definition's values rounded to float32, for an engine whose interface is that."""
    return np.array_equal(actual, expected) or np.array_equal(actual, expected.astype(np.float32))


def assert_same_integers(session: Session, program: Program, rng: np.random.Generator, batch: int) -> None:
    """Actions and what every population gave in the steps that belong to an action, bit for bit."""
    plain = MachineSession(program.policy, batch=batch)
    session.reset(batch)
    before = session.counts
    contract = plain.contract
    for k in range(ACTIONS):
        rows = (rng.normal(size=(batch, contract.observation.size)) * 2).astype(np.float32).astype(np.float64)
        if k == 4:
            rows[0, 0] = np.nan
        expected, actual = plain.step(rows), session.step(rows)
        assert actual.shape == expected.shape
        assert same(actual, expected), (k, actual, expected)
        assert session.last is not None
        assert session.last.reasons == plain.last.reasons  # type: ignore[union-attr]
        assert_same_populations(plain.plan, session.trace(), plain.trace())
        if k == 7 and batch > 1:
            for each in (plain, session):
                each.reset(rows=np.array([1]))
    counts = session.counts.since(before)
    assert counts.actions == plain.counts.actions
    assert counts.fail_safe == plain.counts.fail_safe == {NOT_FINITE: 1}
    spikes = sum(plain.counts.spikes.values())
    assert spikes > 0 or not plain.counts.spikes, "a silent graph would be equal to anything"


def assert_same_populations(plan: Plan, actual: dict[str, Array], expected: dict[str, Array]) -> None:
    for unit in plan.units:
        name = unit.step.name
        at = plan.useful(name)
        np.testing.assert_array_equal(actual[name][at], expected[name][at], err_msg=name)


def assert_near_floats(session: Session, program: Program, rng: np.random.Generator) -> None:
    """One robot, up to the first spike that a membrane near its threshold flips."""
    plain = MachineSession(program.policy)
    session.reset(1)
    margins = Replay(plain.plan)
    carried = not plain.plan.schedule.resets
    compared = 0
    for k in range(ACTIONS):
        row = (rng.normal(size=plain.contract.observation.size) * 2).astype(np.float32).astype(np.float64)
        expected_action, actual_action = plain.step(row), session.step(row)
        expected, actual = useful_steps(plain.plan, plain.trace()), useful_steps(plain.plan, session.trace())
        membranes = margins.action(row, expected)
        flipped = first_flip(plain.plan, expected, actual)
        if flipped is None:
            np.testing.assert_allclose(actual_action, expected_action, atol=NEAR, rtol=NEAR, err_msg=f"action {k}")
            compared += 1
            continue
        name, step, neuron = flipped
        v, threshold = membranes[name].membranes, threshold_of(plain.plan.step(name).op)
        assert v is not None
        assert threshold is not None
        assert abs(v[step].ravel()[neuron] - threshold.ravel()[neuron]) <= NEAR, f"action {k}: {flipped}"
        if carried:
            break
    assert compared >= ACTIONS // 2


def first_flip(plan: Plan, expected: dict[str, Array], actual: dict[str, Array]) -> tuple[str, int, int] | None:
    """(population, useful step, neuron) of the first spike that differs: in time, then in the plan's order."""
    flips = []
    for depth, unit in enumerate(plan.units):
        name = unit.step.name
        if unit.step.op.spikes and not np.array_equal(expected[name], actual[name]):
            apart = expected[name].reshape(len(expected[name]), -1) != actual[name].reshape(len(actual[name]), -1)
            step = int(apart.any(axis=1).argmax())
            flips.append((step, depth, name, int(apart[step].argmax())))
    return None if not flips else (min(flips)[2], min(flips)[0], min(flips)[3])


def assert_same_stream(session: Any, program: Program, case: str, rng: np.random.Generator) -> None:
    """What leaves over a recording: integers to the bit, floats of graphs that flip no spike."""
    inputs = stream_of(case, rng, 40)
    # Where passing ops were composed, values enter flat.
    shape = session.plan.graph.nodes[session.plan.graph.inputs[0]].in_shape
    inputs = inputs.reshape(len(inputs), *shape)
    expected = MachineStream(session.plan).run(inputs)
    actual = session.run(inputs)
    assert list(actual) == list(expected)
    exact = program.graph.level is Level.INTEGER
    for name, rows in expected.items():
        if exact:
            np.testing.assert_array_equal(actual[name], rows, err_msg=name)
        else:
            np.testing.assert_allclose(actual[name], rows, atol=NEAR, err_msg=name)
    assert any(rows.any() for rows in expected.values()), "a silent graph would be equal to anything"


def check(name: str, engine: str, case: str) -> None:
    """An engine of a target against the definition, on one case that the target's spec allows."""
    require_engine(name, engine)
    compiled_case = program(name, case)
    lack = LACKS.get((engine, case))
    if lack is not None:
        with pytest.raises(NervecordError, match=lack):
            opened(name, engine, compiled_case)
        return
    with opened(name, engine, compiled_case) as session:
        rng = np.random.default_rng(len(case))
        if compiled_case.contract is None:
            assert_same_stream(session, compiled_case, case, rng)
        elif compiled_case.graph.level is not Level.INTEGER:
            assert_near_floats(session, compiled_case, rng)
        else:
            assert_same_integers(session, compiled_case, rng, 1)
            try:
                session.reset(3)
            except ContractError as error:
                assert error.where == "batch"  # noqa: PT017  # an engine may hold one robot, and then says so
            else:
                assert_same_integers(session, compiled_case, rng, 3)


@dataclass(frozen=True)
class PopulationLayout:
    """What a target says of a case: the codes that speak against it, or none."""

    codes: tuple[str, ...] = dataclasses.field(default=())

    @property
    def text(self) -> str:
        return "equal" if not self.codes else ", ".join(f"`{code}`" for code in self.codes)


def cell(name: str, case: str) -> PopulationLayout:
    return PopulationLayout(tuple(dict.fromkeys(finding.code for finding in against(name, case))))
