"""Whether a target can hold and express a graph: one rule table, for `inspect` and `compile` alike.

All findings come at once, in the maker's names, each with the value, the limit, the limit's source and a fix. The
verdict follows from them:

    infeasible  at least one error: an exact limit is exceeded, or something cannot be expressed
    unknown     no error, but a limit that is only second-hand is exceeded, or a capability that the graph needs (a kind
                of reset, capacity at all) is not known
    feasible    neither; limits that nobody published are then listed as not checked, and second-hand ones that were
                kept are named by the finding `second-hand-limits`
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, TypeAlias

from nervecord.compiler.check.chip_rules import CHIP_RULES
from nervecord.compiler.check.network_rules import NETWORK_RULES
from nervecord.compiler.check.rules import Case, Rule
from nervecord.compiler.findings import Finding
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops import Level
from nervecord.compiler.target.protocol import TargetSpec

Verdict: TypeAlias = Literal["feasible", "infeasible", "unknown"]

RULES: tuple[Rule, ...] = (*NETWORK_RULES, *CHIP_RULES)
"""Every rule, in the order findings are reported."""


UNANSWERED = ("undeclared-input",)
"""Codes of what `inspect` leaves open and compiling must know."""


def findings_of(subject: Graph | Policy, spec: TargetSpec, schedule: Schedule | None = None) -> list[Finding]:
    """Everything that speaks against, or is worth knowing about, this graph or policy on this target.

    Args:
        subject: at any level; arrays must have their ops' shapes (see `compiler.graph.verify`).
        spec: the target.
        schedule: of a graph that is no policy; by default a stream.

    Returns:
        Findings in the order of `RULES`, then of the graph; an empty list where there is nothing to say.
    """
    return case_findings(Case.of(subject, spec, schedule))


def case_findings(case: Case) -> list[Finding]:
    """The same of what is analysed already."""
    findings: list[Finding] = []
    for rule in sorted(RULES, key=lambda rule: rule.last):
        if not (rule.last and any(finding.severity == "error" or finding.code in UNANSWERED for finding in findings)):
            findings += rule(case)
    return findings + _grown(case, findings)


def _grown(case: Case, findings: Sequence[Finding]) -> list[Finding]:
    """What speaks against the integers of a float graph that is allowed, where they take more than the floats: relays
    of waits beyond the longest delay, and second slices of weights."""
    if case.graph.level is not Level.DISCRETE or any(f.severity == "error" or f.code in UNANSWERED for f in findings):
        return []
    lowered = case.lowered
    if not isinstance(lowered, (Graph, Policy)):
        return []
    inner = Case.of(lowered, case.spec, case.schedule)
    if len(inner.topology.wires) <= len(case.topology.wires):
        return []
    codes = {finding.code for finding in findings if finding.severity == "unknown"}
    more = [f for f in case_findings(inner) if f.severity in ("error", "unknown") and f.code not in codes]
    if case.slices and case.calibration is None:
        # Recorded input, which compiling may be given, says how many weights are to have a second slice.
        words = "with a second slice of all weights that have room for one it "
        fix = "give compile recorded input (--calibration): with it fewer weights have a second slice"
        more = [
            dataclasses.replace(finding, severity="unknown", message=words + finding.message, fix=fix)
            for finding in more
        ]
    return more


def errors(subject: Graph | Policy, spec: TargetSpec, schedule: Schedule | None = None) -> list[Finding]:
    """What of `findings_of` forbids lowering, which then finds out by itself whether there are scales."""
    case = Case.of(subject, spec, schedule)
    findings = [finding for rule in RULES if not rule.last for finding in rule(case)]
    return [
        dataclasses.replace(finding, severity="error")
        for finding in findings
        if finding.severity == "error" or finding.code in UNANSWERED
    ]


def verdict(findings: Sequence[Finding]) -> Verdict:
    """What findings come to; see the module."""
    severities = {finding.severity for finding in findings}
    if "error" in severities:
        return "infeasible"
    return "unknown" if "unknown" in severities else "feasible"


def not_checked(spec: TargetSpec) -> tuple[str, ...]:
    """What no verdict on this target covers: what the spec says so, and the limits without a value."""
    unknown = [name.replace("_", " ") for name, _, fact in spec.facts() if fact.value is None]
    why = f"not stated in {spec.file}" if spec.file else "not published"
    return (*spec.not_checked, *([f"{why}: {', '.join(unknown)}"] if unknown else []))


BOARD = (
    "The board holds too little for what is compiled, its clock is not reached, or something has no hardware.",
    "What the finding says: another board, fewer lanes, or another network.",
)
"""Of the code `board`, which targets find that know boards."""
