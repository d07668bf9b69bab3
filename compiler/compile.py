"""The one straight line from a policy to a program."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from nervecord.compiler.calibrate import calibrate
from nervecord.compiler.check import check
from nervecord.compiler.files import write_atomically
from nervecord.compiler.findings import raise_on_errors
from nervecord.compiler.graph import Graph, Level
from nervecord.compiler.measured import measured_findings, measured_spikes
from nervecord.compiler.node import Array
from nervecord.compiler.passes.discretise import discretise
from nervecord.compiler.place import place
from nervecord.compiler.program import Program
from nervecord.compiler.target import Target
from nervecord.compiler.textform import explain as explain_change
from nervecord.compiler.textform import to_text
from nervecord.compiler.verify import require
from nervecord.errors import ContractError, InfeasibleError

VERSIONED = ("nervecord", "numpy", "nir")
"""Packages whose versions a program names."""


def compile_policy(
    graph: Graph,
    target: Target[object],
    *,
    dt: float | None = None,
    calibration: Array | None = None,
    dump: str | os.PathLike[str] | None = None,
    explain: Callable[[str], None] | None = None,
) -> Program:
    """Compile a policy.

    After each step the graph is verified; with `dump` it is written as text, with `explain` its changes are told.

    Args:
        graph: a policy, at IMPORTED or DISCRETE level, with a contract.
        target: what for.
        dt: seconds per step, where the graph does not say.
        calibration: (k, observations) that choose the scales; by default those the policy carries.
        dump: folder for `00-read.txt`, `01-discrete.txt`, `02-lowered.txt`; made if missing.
        explain: called with one line per change.

    Raises:
        GraphError: the graph is not legal.
        ContractError: it carries no contract or no observations to calibrate with.
        InfeasibleError: the target cannot hold or express it; every reason is listed.
    """
    steps = _Steps(dump, explain)
    steps.done("read", require(graph))
    discrete = steps.done("discrete", require(discretise(graph, dt=dt), Level.DISCRETE))
    if discrete.contract is None:
        raise ContractError(
            "the graph carries no contract, so it is no policy",
            where="graph",
            hint="`nervecord train` writes policies; inspect and simulate take any NIR graph",
        )
    raise_on_errors(check(discrete, target.spec), InfeasibleError, where=target.spec.name)
    calibrated = calibrate(discrete, calibration)
    lowered = target.lower(discrete, calibrated)
    final = steps.done("lowered", require(lowered.graph))
    findings = check(final, target.spec)
    raise_on_errors(findings, InfeasibleError, where=target.spec.name)
    program = Program(
        target=target.spec.name,
        graph=final.replace(recorded=None),
        report={
            "lowering": dict(lowered.report),
            "placement": place(final, target.spec).to_dict(),
            "findings": [finding.to_dict() for finding in findings],
            "spikes_per_action_float": dict(calibrated.spikes_per_action),
        },
        versions={**{name: metadata.version(name) for name in VERSIONED}, "python": platform.python_version()},
        allowances=(*target.spec.given, *lowered.allowances),
    )
    rows = discrete.recorded if calibration is None else calibration
    return program if rows is None or final.level is not Level.INTEGER else _measured(program, rows)


def _measured(program: Program, observations: Array) -> Program:
    """The program with what it does on these observations in its report."""
    report = dict(program.report)
    spikes = measured_spikes(program.graph, observations)
    found = measured_findings(program.contract, report["lowering"], report["spikes_per_action_float"], spikes)
    report["spikes_per_action"] = spikes
    report["findings"] = [*report["findings"], *(finding.to_dict() for finding in found)]
    return dataclasses.replace(program, report=report)


class _Steps:
    """Dumps and explains the graph after each step."""

    def __init__(self, dump: str | os.PathLike[str] | None, explain: Callable[[str], None] | None) -> None:
        self.folder = None if dump is None else Path(dump)
        self.explain = explain
        self.before: Graph | None = None
        self.count = 0

    def done(self, name: str, graph: Graph) -> Graph:
        """`name` is what was just done."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / f"{self.count:02}-{name}.txt", to_text(graph).encode())
        if self.explain is not None and self.before is not None:
            for line in explain_change(self.before, graph):
                self.explain(f"{name}: {line}")
        self.before = graph
        self.count += 1
        return graph
