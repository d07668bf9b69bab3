"""What `inspect` says: the graph, and for each target verdict, findings, resources, events and energy.

Plain data: `Report.to_dict` for machines (stable, documented keys), `Report.to_text` for logs; the command line makes
tables of the same values.
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from nervecord.compiler.check.cost import Estimate, Events, count_events, estimate
from nervecord.compiler.check.graphfacts import GraphFacts, graph_facts
from nervecord.compiler.check.placement import Placement
from nervecord.compiler.check.rules import Case
from nervecord.compiler.check.table import Verdict, case_findings, not_checked, verdict
from nervecord.compiler.files.program import Program
from nervecord.compiler.findings import Finding
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.notebook import table
from nervecord.compiler.graph.policy import Policy, parts
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.graph.verify import verify
from nervecord.compiler.passes.discretise import undiscretisable
from nervecord.compiler.plan.measured import CODES
from nervecord.compiler.plan.topology import Topology
from nervecord.compiler.target.implied import adopted
from nervecord.compiler.target.protocol import Target, TargetSpec
from nervecord.compiler.target.specfile import trust
from nervecord.errors import FileFormatError

FORMAT = 2
"""Of `Report.to_dict`; grows when a key changes its meaning or goes away. (2: `exceeded` of a layer was `broken`.)"""

_GRAVEST_FIRST = ("error", "unknown", "warning", "info")

_WIDTH = 116
"""Columns of the text, for lists that are broken into lines."""


@dataclass(frozen=True, slots=True)
class TargetReport:
    """A graph on one target. placement, events None where the graph itself is too damaged to look at.

    file: of the user's that describes the target; "" where it is installed.
    limits_given: a sentence for each limit that is the user's own, in place of the target's.
    limits: name -> value, about, source, confidence, of the limits that are known.
    """

    target: str
    title: str
    verdict: Verdict
    findings: tuple[Finding, ...]
    placement: Placement | None
    events: Events | None
    energy: Estimate | None
    not_checked: tuple[str, ...]
    limits_given: tuple[str, ...] = ()
    limits: dict[str, dict[str, Any]] = field(default_factory=dict)
    file: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "target": self.target,
            "title": self.title,
            "verdict": self.verdict,
            "findings": [finding.to_dict() for finding in self.findings],
            "resources": None if self.placement is None else self.placement.to_dict(),
            "events": None if self.events is None else self.events.to_dict(),
            "energy": None if self.energy is None else self.energy.to_dict(),
            "not_checked": list(self.not_checked),
            "limits_given": list(self.limits_given),
            "limits": self.limits,
            "file": self.file,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What `inspect` found. facts None where the graph is too damaged to describe."""

    facts: GraphFacts | None
    findings: tuple[Finding, ...]
    targets: tuple[TargetReport, ...]

    def __repr__(self) -> str:
        verdicts = ", ".join(f"{target.target} {target.verdict}" for target in self.targets)
        return f"<Report: {verdicts or 'no target'}>"

    def _repr_html_(self) -> str:
        grave = ("error", "unknown", "warning")
        rows = []
        for target in self.targets:
            codes = dict.fromkeys(f.code for f in target.findings if f.severity in grave)
            rows.append((target.target, target.verdict, ", ".join(codes)))
        return table("Report", ("target", "verdict", "because of"), rows)

    @property
    def feasible(self) -> bool:
        """Whether the graph is legal and every target's verdict is "feasible"."""
        return not any(f.severity == "error" for f in self.findings) and all(
            target.verdict == "feasible" for target in self.targets
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; keys are stable within one `format`."""
        return {
            "format": FORMAT,
            "graph": None if self.facts is None else self.facts.to_dict(),
            "findings": [finding.to_dict() for finding in self.findings],
            "targets": [target.to_dict() for target in self.targets],
        }

    def to_text(self) -> str:
        """For people and logs, without colours."""
        lines = [] if self.facts is None else _facts_text(self.facts)
        for finding in self.findings:
            lines += finding_text(finding)
        for target in self.targets:
            lines += ["", *_target_text(target)]
        return "\n".join(lines) + "\n"


def inspect(
    subject: Graph | Policy, targets: Sequence[TargetSpec | Target[Any]], schedule: Schedule | None = None
) -> Report:
    """Look at a graph or policy of any level, by itself and for each target; runs nothing and needs no engine.

    A violation of the graph's own rules makes every verdict "infeasible"; where an op goes against what it declares of
    itself, or there is more than can be looked at, targets are not looked at further.

    Args:
        targets: specs, or targets whose options count where floats become integers.
        schedule: of a graph that is no policy; by default a stream.
    """
    violations = tuple(verify(subject)) or undiscretisable(subject)
    if violations and (_damaged(subject) or any(finding.code in ("size", "shape") for finding in violations)):
        empty = tuple(
            TargetReport(spec.name, spec.title, "infeasible", (), None, None, None, not_checked(spec), spec.own_limits)
            for spec in map(spec_of, targets)
        )
        return Report(None, violations, empty)
    graph, contract = parts(subject)
    topology = Topology.of(graph)
    reports = tuple(_target(subject, target, topology, schedule, legal=not violations) for target in targets)
    findings = (*violations, *graph.notes)
    return Report(graph_facts(graph, contract, schedule, topology), findings, reports)


def _damaged(subject: Graph | Policy) -> bool:
    """Whether an op goes against its declarations, so that nothing can be said of its arrays."""
    graph, _ = parts(subject)
    return any(True for op in graph.nodes.values() for _ in op.violations())


def spec_of(target: TargetSpec | Target[Any]) -> TargetSpec:
    """The spec of a target; a spec is its own."""
    return target if isinstance(target, TargetSpec) else target.spec


def _target(
    subject: Graph | Policy,
    target: TargetSpec | Target[Any],
    topology: Topology,
    schedule: Schedule | None,
    *,
    legal: bool,
) -> TargetReport:
    if not isinstance(target, TargetSpec):
        target = adopted(target, parts(subject)[0])
    spec = spec_of(target)
    case = Case.of(subject, spec, schedule, topology, None if isinstance(target, TargetSpec) else target)
    findings = tuple(case_findings(case))
    events = count_events(subject, spec, topology=topology, schedule=schedule)
    return TargetReport(
        target=spec.name,
        title=spec.title,
        verdict=verdict(findings) if legal else "infeasible",
        findings=findings,
        # Nothing is placed of a network without neurons, and what was not computed is no zero.
        placement=case.placement if topology.populations else None,
        events=events,
        energy=estimate(events, spec) if topology.populations else None,
        not_checked=not_checked(spec),
        limits_given=spec.own_limits,
        limits=_limits(spec),
        file=spec.file,
    )


def _limits(spec: TargetSpec) -> dict[str, dict[str, Any]]:
    limits = {}
    for f in fields(spec.limits):
        fact = getattr(spec.limits, f.name)
        if fact.known and not math.isinf(fact.value):
            stated = {"value": fact.value, "source": fact.source, "confidence": fact.confidence}
            limits[f.name] = {**stated, "about": f.metadata["about"]}
    return limits


def with_measured(report: Report, program: Program) -> Report:
    """What `inspect` says of a program's graph, and what was found when it was compiled.

    Raises:
        FileFormatError: the program's own report is malformed.
    """
    stored = program.report.get("findings", [])
    if not isinstance(stored, list):
        raise FileFormatError("its report's findings are no list", where="report.json")
    lowering = program.report.get("lowering", {})
    more = lowering.get("findings", []) if isinstance(lowering, dict) else []
    if not isinstance(more, list):
        raise FileFormatError("its report's findings are no list", where="report.json")
    findings = tuple(finding for finding in map(Finding.from_dict, [*stored, *more]) if finding.code in CODES)
    targets = tuple(
        dataclasses.replace(target, findings=(*target.findings, *findings))
        if target.target == program.target
        else target
        for target in report.targets
    )
    return dataclasses.replace(report, targets=targets)


# --------------------------------------------------------------------------------------------------------------------
# Text


def finding_text(finding: Finding) -> list[str]:
    """A finding in two or three lines: what and how much, the fix, the limit's source."""
    measure = ""
    if finding.value is not None and finding.limit is not None:
        measure = f" ({_number(finding.value)} against {_number(finding.limit)})"
    lines = [f"  {finding.severity:<8} {finding.code}: {finding.node}: {finding.message}{measure}"]
    if finding.fix:
        lines.append(f"           fix: {finding.fix}")
    if finding.source and finding.severity in ("error", "unknown"):
        lines.append(f"           source: {finding.source}")
    return lines


def _number(value: float | int | str) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else value


def _facts_text(facts: GraphFacts) -> list[str]:
    step = "time step not said" if facts.dt is None else f"time step {facts.dt:g} s"
    lines = [
        f"graph: {facts.level}, {step}; {_count(facts.neurons, 'neuron')}, {_count(facts.synapses, 'synapse')}, "
        f"{_count(facts.parameters, 'parameter')}, depth {facts.depth}"
        + (f"; recurrent: {', '.join(facts.recurrent)}" if facts.recurrent else "")
    ]
    if facts.policy is not None:
        p = facts.policy
        named = ", ".join(p["choices"])
        actions = f"a choice of {len(p['choices'])} actions ({named})" if named else f"{p['actions']} actions"
        lines.append(
            f"policy: {p['environment']}, {p['observations']} observations -> {actions}, "
            f"T = {p['steps']}, state {p['state']}, one action per {p['control_period']:g} s"
        )
        lines += [*_channels_text("observation", p["observation"]), *_channels_text("action", p["action"])]
    width = max((len(node.name) for node in facts.nodes), default=0)
    lines += [
        f"  {node.name:<{width}}  {node.kind:<20} {node.size:>10}  {node.parameters:>8,} parameters"
        for node in facts.nodes
    ]
    return lines


def _channels_text(what: str, channels: list[dict[str, Any]]) -> list[str]:
    """The channels in order, broken into lines."""
    texts = []
    for channel in channels:
        limits = ""
        if channel["low"] is not None and channel["high"] is not None:
            limits = f" {channel['low']:g}..{channel['high']:g}"
        texts.append(channel["name"] + limits + (f" {channel['unit']}" if channel["unit"] else ""))
    return textwrap.wrap(
        f"{what}: {', '.join(texts)}",
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _target_text(report: TargetReport) -> list[str]:
    lines = [f"{report.target} ({report.title}): {report.verdict}"]
    lines += [f"  limit given: {sentence}" for sentence in report.limits_given]
    for finding in sorted(report.findings, key=lambda finding: _GRAVEST_FIRST.index(finding.severity)):
        lines += finding_text(finding)
    if report.placement is not None:
        lines += _placement_text(report.placement)
    if report.events is not None:
        events = report.events
        kind = "at most" if events.bound else "measured:"
        unit = f"action ({events.steps} steps)" if events.steps > 1 else "step"
        lines.append(
            f"  events per {unit}: {kind} {events.input_events:,.0f} synaptic from inputs, "
            f"{events.spike_events:,.0f} from spikes, {events.updates:,.0f} neuron updates"
        )
    if report.energy is not None:
        lines.append(f"  energy: {report.energy}")
    if report.not_checked:
        lines.append(f"  not checked: {'; '.join(report.not_checked)}")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _placement_text(placement: Placement) -> list[str]:
    text = (
        f"  uses: {_count(placement.inputs, 'input')}, {_count(placement.neurons, 'neuron')} "
        f"({_count(placement.outputs, 'output')}), {_count(placement.synapses, 'synapse')}"
    )
    if placement.cores is not None:
        text += f", {_count(placement.cores, 'core')}"
        if placement.memory_bits is not None:
            text += f", {placement.memory_bits / 8192:,.1f} KiB synapse memory"
        if placement.confidence != "exact":
            text += f" [by limits that are {trust(placement.confidence)}]"
    lines = [text]
    if placement.cores is not None:
        for layer in placement.layers:
            shares = ", ".join(
                f"{value:,} {name.removesuffix('_per_core').replace('_', ' ')}"
                for name, value in layer.per_core.items()
                if value
            )
            lines.append(f"    {layer.label}: {_count(layer.cores or 0, 'core')}, the fullest with {shares}")
    return lines
