"""One case: what `inspect` says is what `compile` does, and what compiles is equal in definition and emulator."""

from __future__ import annotations

import warnings

import numpy as np
from agreement.draws import Case, draw, values

import nervecord
from nervecord.compiler.check.table import UNANSWERED
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Array
from nervecord.errors import NervecordError

STEPS = 30
"""Of input on which the engines are compared; of a policy actions."""


def run_case(number: int) -> str:
    """What came of the random case of this number; see `outcome_of`."""
    return outcome_of(draw(number))


def outcome_of(case: Case) -> str:
    """What came of a case: the codes that refuse it, or "feasible".

    Raises:
        AssertionError: the two disagree, or the engines do. Anything else: a defect.
    """
    target = case.target
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = nervecord.inspect(case.subject, target, steps=case.steps)
        (answer,) = report.targets
        illegal = tuple(f for f in report.findings if f.severity == "error")
        findings = illegal or (*report.findings, *answer.findings)
        expected = {f.code for f in findings if f.severity == "error" or f.code in UNANSWERED}
        refusal, program = None, None
        try:
            program = nervecord.compile(case.subject, target, steps=case.steps, calibration=case.calibration)
        except NervecordError as error:
            refusal = error
        if program is None:
            refused = set(refusal.codes if refusal is not None else ())
            if case.calibration is not None and not refused and "beyond what float64 holds" in str(refusal):
                return "recorded input overflows"
            open_still = {f.code for f in findings if f.severity == "unknown"}
            agree = refused == expected or (not expected and refused <= open_still)
            assert agree, f"inspect says {sorted(expected)}, compile {sorted(refused)}: {refusal}"
            assert refused, f"a refusal has no code: {refusal}"
            assert not report.feasible, "what is refused is not feasible"
            return " + ".join(sorted(refused))
        assert not expected, f"inspect says {sorted(expected)}, and it compiles"
        limits_known = not any(f.severity == "unknown" for f in findings)
        assert report.feasible == limits_known, "a graph that compiles is feasible, where no limit is unknown"
        equal(case, program)
    return "feasible" if limits_known else "feasible, limits unknown"


def equal(case: Case, program: Program) -> None:
    """The definition and the emulator give the same for the same input, and end in the same state."""
    if program.graph.arithmetic is None:
        return  # floats have no emulator
    rng = np.random.default_rng(case.number)
    if isinstance(program.subject, Policy):
        size = program.policy.contract.observation.size
        observations = rng.normal(size=(STEPS, size)) * 3
        observations[rng.random(observations.shape) < 0.05] = 1e6
        actions: list[list[Array]] = []
        for engine in ("definition", "emulator"):
            with nervecord.open(program, engine=engine) as session:
                actions.append([session.step(row) for row in observations])
        assert np.array_equal(*actions), "the actions differ"
        return
    graph = program.graph
    inputs = {name: values(rng, graph.nodes[name], STEPS) for name in graph.inputs}
    outputs: list[dict[str, Array]] = []
    for engine in ("definition", "emulator"):
        with nervecord.stream(program, engine=engine) as stream:
            outputs.append(stream.run(inputs))
    for name in graph.outputs:
        assert np.array_equal(outputs[0][name], outputs[1][name]), f"{name} differs"
