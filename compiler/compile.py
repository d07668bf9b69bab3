"""The one straight line from a graph or policy to a program."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from nervecord.compiler.check.placement import place
from nervecord.compiler.check.table import errors, findings_of
from nervecord.compiler.files.atomic import made_folder, write_atomically
from nervecord.compiler.files.program import Program
from nervecord.compiler.findings import Finding, raise_on_errors
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy, parts
from nervecord.compiler.graph.schedule import STREAM, Schedule
from nervecord.compiler.graph.text import explain as explain_change
from nervecord.compiler.graph.text import to_text
from nervecord.compiler.graph.verify import require
from nervecord.compiler.lower.clustered import clustering_error
from nervecord.compiler.lower.lower import OPTIONS
from nervecord.compiler.lower.prepare import prepared, prepares
from nervecord.compiler.ops import Array, Level
from nervecord.compiler.passes.cluster import Clustered
from nervecord.compiler.passes.discretise import discretise
from nervecord.compiler.plan.calibrate import Calibration, StreamCalibration, calibrate, calibrate_stream
from nervecord.compiler.plan.measured import measured_spikes, silent_layers
from nervecord.compiler.plan.plan import plan
from nervecord.compiler.target.abilities import Adopting
from nervecord.compiler.target.implied import adopted
from nervecord.compiler.target.options import chosen_options
from nervecord.compiler.target.protocol import Lowered, Target, TargetSpec
from nervecord.compiler.target.specfile import spec_to_dict
from nervecord.errors import InfeasibleError, NervecordError

VERSIONED = ("nervecord", "numpy", "nir")
"""Packages whose versions a program names."""


def compile_graph(
    subject: Graph | Policy,
    target: Target[Any],
    *,
    dt: float | None = None,
    schedule: Schedule = STREAM,
    calibration: Array | Mapping[str, Array] | None = None,
    allow_clustered_decays: bool = False,
    dump: str | os.PathLike[str] | None = None,
    explain: Callable[[str], None] | None = None,
) -> Program:
    """Compile a policy, or a graph that is none: its program then takes and gives spikes or values step by step.

    After each step the graph is verified; with `dump` it is written as text, with `explain` its changes are told.

    Args:
        subject: at IMPORTED or DISCRETE level; one of integers, in an arithmetic that the target has, stays as it is.
        target: what for.
        dt: seconds per step, where the graph does not say.
        schedule: of a graph that is no policy: a stream whose state is carried, or blocks before which it is cleared.
        calibration: recorded input that chooses the scales. Of a policy (k, observations), by default those it carries;
            of a graph (steps, n), or Input -> such.
        allow_clustered_decays: where a population has more decays than it can be split by, bring them together: the
            program's report says by how much they moved, and what that changed on the recorded input.
        dump: folder for `00-read.txt`, `01-discrete.txt`, one file for each pass of `compiler.lower.prepare` that
            changed something, and `lowered.txt`, numbered; made if missing.
        explain: called with one line per change.

    Raises:
        GraphError: the graph is not legal.
        ContractError: a policy has no observations to calibrate with, and the target computes in integers.
        InfeasibleError: the target cannot hold or express it; every reason is listed.
    """
    steps = _Steps(dump, explain)
    steps.done("read", require(subject))
    if allow_clustered_decays and (parts(subject)[0].level is Level.INTEGER or not prepares(target.spec)):
        raise NervecordError(
            f"has no meaning here: nothing is quantised for {target.spec.name}",
            where="allow_clustered_decays",
            hint="leave it out",
        )
    if parts(subject)[0].level is Level.INTEGER:
        return _as_it_is(subject, target, schedule)
    discrete = steps.done("discrete", require(discretise(subject, dt=dt), Level.DISCRETE))
    clustered: list[Clustered] | None = [] if allow_clustered_decays else None
    before: Calibration | StreamCalibration | None = None
    for name, variant in prepared(discrete, target.spec, clustered):
        if name == "clustered":
            before = _calibrate(discrete, target.spec, schedule, calibration)
        calibration = _flat(calibration, parts(discrete)[0], parts(variant)[0])
        discrete = steps.done(name, require(variant, Level.DISCRETE))
    raise_on_errors(errors(discrete, target.spec, schedule), InfeasibleError, where=target.spec.name)
    calibrated = _calibrate(discrete, target.spec, schedule, calibration)
    lowered = target.lower(discrete, calibrated, schedule)
    if clustered:
        lowered = _told(lowered, clustered, clustering_error(before, calibrated, parts(discrete)[0]))
    final = steps.done("lowered", require(lowered.subject))
    program = _program(final, target, schedule, lowered, _activity(calibrated), parts(discrete)[0].notes)
    if isinstance(final, Policy) and isinstance(calibrated, Calibration) and program.graph.level is Level.INTEGER:
        return _measured(program, calibrated)
    return program


def _told(lowered: Lowered, clustered: Sequence[Clustered], error: Mapping[str, Any]) -> Lowered:
    """What was lowered, with what clustering of decays did before."""
    report = {"populations": [dataclasses.asdict(it) for it in clustered], **error}
    return dataclasses.replace(
        lowered,
        report={**lowered.report, "clustered": report},
        allowances=(*lowered.allowances, *(str(it) for it in clustered)),
    )


def _program(
    final: Graph | Policy,
    target: Target[Any],
    schedule: Schedule,
    lowered: Lowered,
    activity: Mapping[str, Any],
    notes: tuple[Finding, ...] = (),
) -> Program:
    """What was lowered, checked and placed; `notes` are what was found before."""
    findings = findings_of(final, target.spec, schedule)
    raise_on_errors(findings, InfeasibleError, where=target.spec.name)
    graph, contract = parts(final)
    return Program(
        target=target.spec.name,
        graph=graph,
        contract=contract,
        schedule=final.schedule if isinstance(final, Policy) else schedule,
        report={
            "lowering": dict(lowered.report),
            "placement": place(graph, target.spec).to_dict(),
            "findings": [finding.to_dict() for finding in (*notes, *findings)],
            **activity,
            **({"target": {"file": target.spec.file, "spec": spec_to_dict(target.spec)}} if target.spec.file else {}),
        },
        versions={**{name: metadata.version(name) for name in VERSIONED}, "python": platform.python_version()},
        allowances=(*target.spec.own_limits, *lowered.allowances),
    )


def _as_it_is(subject: Graph | Policy, target: Target[Any], schedule: Schedule) -> Program:
    """A graph that is in integers which the target has.

    Raises:
        NervecordError: an option says how floats would become integers.
        InfeasibleError: the target computes otherwise, or a range of the graph cannot be proved.
    """
    graph, _ = parts(subject)
    assert graph.arithmetic is not None
    for name, value in chosen_options(target).items():
        if name in OPTIONS:
            raise NervecordError(
                f"is {value}, and the weights are integers already",
                where=name,
                hint="leave it out, or start from the floats",
            )
    chosen = adopted(target, graph)
    if chosen.spec.integers is None:
        raise InfeasibleError(
            "is in integers already, of an arithmetic that is not this target's",
            where=target.spec.name,
            hint="compile it for the target whose integers they are",
        )
    raise_on_errors(findings_of(subject, chosen.spec, schedule), InfeasibleError, where=target.spec.name)
    report: Mapping[str, object] = {"kept": "in the target's integers already"}
    if isinstance(chosen, Adopting):
        report = {**chosen.lower(subject, None, schedule).report, **report}
    return _program(subject, chosen, schedule, Lowered(subject, report), {})


def _measured(program: Program, calibrated: Calibration) -> Program:
    """The program with what it does on the observations that calibrated it in its report."""
    spikes = measured_spikes(program.policy, calibrated.observations)
    silent = [finding.to_dict() for finding in silent_layers(calibrated.spikes_per_action, spikes)]
    report = {**program.report, "spikes_per_action": spikes, "findings": [*program.report["findings"], *silent]}
    return dataclasses.replace(program, report=report)


def _calibrate(
    subject: Graph | Policy, spec: TargetSpec, schedule: Schedule, recording: Array | Mapping[str, Array] | None
) -> Calibration | StreamCalibration | None:
    if isinstance(subject, Policy):
        if spec.integers is None and recording is None and subject.recorded is None:
            return None  # floats have no scale to choose
        return calibrate(subject, recording)  # type: ignore[arg-type]  # the front tells the two apart
    return None if recording is None else calibrate_stream(plan(subject, schedule), recording)


def _flat(recording: Array | Mapping[str, Array] | None, before: Graph, after: Graph) -> Any:
    """Recorded input of a graph's Inputs, for a graph whose Inputs are flat."""
    if before is after or recording is None:
        return recording
    if not isinstance(recording, Mapping):
        shape = before.nodes[before.inputs[0]].in_shape if len(before.inputs) == 1 else ()
        return _rows(np.asarray(recording), shape)
    shapes = {name: before.nodes[name].in_shape for name in before.inputs}
    return {name: _rows(np.asarray(array), shapes.get(name, ())) for name, array in recording.items()}


def _rows(array: Array, shape: tuple[int, ...]) -> Array:
    """The axes of one value joined, where the array ends in them; what does not is refused where it is used."""
    fits = len(shape) > 1 and array.shape[-len(shape) :] == shape
    return array.reshape(*array.shape[: -len(shape)], -1) if fits else array


def _activity(calibrated: Calibration | StreamCalibration | None) -> dict[str, Any]:
    match calibrated:
        case Calibration():
            return {"spikes_per_action_float": dict(calibrated.spikes_per_action)}
        case StreamCalibration():
            return {"spikes_per_step_float": dict(calibrated.spikes_per_step)}
    return {}


class _Steps:
    """Dumps and explains the graph after each step."""

    def __init__(self, dump: str | os.PathLike[str] | None, explain: Callable[[str], None] | None) -> None:
        self.folder = None if dump is None else Path(dump)
        self.explain = explain
        self.before: Graph | Policy | None = None
        self.count = 0

    def done(self, name: str, subject: Graph | Policy) -> Graph | Policy:
        """`name` is what was just done."""
        if self.folder is not None:
            made_folder(self.folder)
            write_atomically(self.folder / f"{self.count:02}-{name}.txt", to_text(subject).encode())
        if self.explain is not None and self.before is not None:
            for line in explain_change(self.before, subject):
                self.explain(f"{name}: {line}")
        self.before = subject
        self.count += 1
        return subject
