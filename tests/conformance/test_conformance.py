"""Every engine of every installed target on every case: declared support equals the definition, declared lack is
refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance.cases import CASES
from conformance.document import conformance_doc
from conformance.engines import (
    DEFINITIONS,
    LACKS,
    against,
    assert_same_populations,
    check,
    engines,
    opened,
    program,
    require_engine,
    target,
    targets,
)
from graphs import draw

from nervecord.compiler.compile import compile_graph
from nervecord.compiler.files.program import Program
from nervecord.compiler.ops import OPS, Level
from nervecord.compiler.policy import parts
from nervecord.errors import InfeasibleError
from nervecord.runtime.stream import MachineStream
from nervecord.targets.integers import integers

REPOSITORY = Path(__file__).parents[2]
PAIRS = [(name, engine) for name in targets() for engine in engines(name) if engine not in DEFINITIONS]
COMPILED = [name for name in targets() if target(name).spec.integers is not None]


def marked(name: str, engine: str) -> Any:
    """Engines that must be installed apart are run by `make test-lava`."""
    marks = [pytest.mark.lava] if engine == "lava" else []
    if name == "lava, two slices":
        # The arithmetic is lava's, in which each engine runs every case; tests/compiler/test_slices.py has slices.
        marks.append(pytest.mark.slow)
    return pytest.param(name, engine, marks=marks, id=f"{name}-{engine}")


on_every_engine = pytest.mark.parametrize(("name", "engine"), [marked(*pair) for pair in PAIRS])


@on_every_engine
@pytest.mark.parametrize("case", CASES)
def test_declared_support_equals_the_definition(name: str, engine: str, case: str) -> None:
    if against(name, case):
        pytest.skip("the target does not declare it; see test_declared_lack_is_refused")
    check(name, engine, case)


@pytest.mark.parametrize("name", targets())
@pytest.mark.parametrize("case", CASES)
def test_declared_lack_is_refused(name: str, case: str) -> None:
    """By the code that `inspect` shows, and by nothing else; what is not refused compiles."""
    found = against(name, case)
    if not found:
        program(name, case)
        return
    with pytest.raises(InfeasibleError) as caught:
        compile_graph(CASES[case].make(), target(name), schedule=CASES[case].schedule)
    assert all(finding.message in str(caught.value) for finding in found)


@on_every_engine
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(k, marks=pytest.mark.slow) for k in range(2, 10))])
def test_random_graphs_of_integers(name: str, engine: str, seed: int) -> None:
    """The core's own generator, in the target's arithmetic: extremes of every parameter, to the bit."""
    spec = target(name).spec
    if spec.integers is None:
        pytest.skip("computes in floats")
    require_engine(name, engine)
    case = draw(4000 + seed, integers(spec))
    made = Program(spec.name, case.plan.graph, schedule=case.plan.schedule)
    with opened(name, engine, made) as session:
        wanted, found = MachineStream(session.plan), session
        steps = case.plan.schedule.steps
        for start in range(0, len(next(iter(case.inputs.values()))), steps):
            block = {key: x[start : start + steps] for key, x in case.inputs.items()}
            want, got = wanted.step(block), found.step(block)
            for key, rows in want.items():
                np.testing.assert_array_equal(got[key], rows, err_msg=f"{start}: {key}")
            assert_same_populations(case.plan, found.trace(), wanted.trace())


def test_the_cases_have_every_op_and_choice() -> None:
    """A new op is a new case."""
    had: set[str] = set()
    for case in CASES.values():
        graph, _ = parts(case.make())
        had |= {op.kind for op in graph.nodes.values()}
    made_by_lowering = {"Quantise", "Rescale", "Dense"}
    every = {kind for op in OPS.values() if Level.DISCRETE in op.LEVELS for kind in op.kinds(Level.DISCRETE)}
    assert every - made_by_lowering - had == set()
    lowered: set[str] = set()
    for name in COMPILED:
        for case_name in CASES:
            if not against(name, case_name):
                lowered |= {op.kind for op in program(name, case_name).graph.nodes.values()}
    assert made_by_lowering <= lowered


def test_there_is_something_to_test_and_to_refuse() -> None:
    for name in COMPILED:
        refused = {case for case in CASES if against(name, case)}
        assert 5 <= len(refused) <= len(CASES) - 12, name
    assert not any(against("reference", case) for case in CASES)
    assert {engine for engine, _ in LACKS} <= {engine for _, engine in PAIRS}


def test_the_document_is_current(request: pytest.FixtureRequest) -> None:
    path = REPOSITORY / "docs" / "conformance.md"
    text = conformance_doc()
    if request.config.getoption("--update-golden"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text
