"""What `inspect` prints: verdicts first, then what stands against them, and with --verbose everything else.

Laid out by rich to the terminal's width, with colour where there is one (NO_COLOR is kept).
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nervecord.cli.show import clean
from nervecord.compiler.check.cost import energy_text
from nervecord.compiler.target.specfile import trust

if TYPE_CHECKING:
    from nervecord.compiler.check.graphfacts import GraphFacts
    from nervecord.compiler.check.placement import Placement
    from nervecord.compiler.findings import Finding
    from nervecord.compiler.inspect import Report, TargetReport

GRAVEST_FIRST = ("error", "unknown", "warning", "info")
STYLES = {
    "feasible": "bold green",
    "infeasible": "bold red",
    "unknown": "bold yellow",
    "error": "bold red",
    "warning": "yellow",
    "info": "cyan",
}
PER_CORE = {
    "neurons_per_core": "neurons",
    "axons_in_per_core": "axons in",
    "axons_out_per_core": "axons out",
    "synapse_bits_per_core": "synapse bits",
}


def inspect_text(report: Report, name: str, *, verbose: bool) -> RenderableType:
    """The whole of it.

    Args:
        name: of the file. verbose: nodes, notes, resources, events, sources and what was not checked too.
    """
    parts: list[RenderableType] = [Text(clean(name), style="bold", overflow="fold")]
    if report.facts is not None:
        parts += [Text(clean(line)) for line in _facts(report.facts)]
        if verbose:
            parts += ["", _nodes(report.facts), *_channels(report.facts)]
    if report.findings:
        parts += ["", Text("the graph itself", style="bold"), *_findings(report.findings, verbose=True)]
    if report.targets:
        parts += ["", _verdicts(report)]
    common = {} if verbose else _common(report.targets)
    for names, findings in _by_targets(common).items():
        parts += ["", Text(", ".join(names), style="bold"), *_findings(findings, verbose=verbose)]
    for target in report.targets:
        blocks = list(_target(target, verbose=verbose, without=common))
        if blocks:
            head = Text(target.target, style="bold")
            head.append(f" ({target.title}): ", style="not bold")
            head.append(target.verdict, style=STYLES[target.verdict])
            parts += ["", head, *blocks]
    if not verbose:
        parts += ["", Text(_more(report), style="dim")]
    return Group(*parts)


def _more(report: Report) -> str:
    notes = sum(finding.severity == "info" for target in report.targets for finding in target.findings)
    energy = "energy is an estimate, not measured; " if any(target.energy for target in report.targets) else ""
    also = f"{notes} note{'s' * (notes != 1)}, " if notes else ""
    return f"{energy}--verbose shows {also}nodes, resources, events, sources and what was not checked"


def _facts(facts: GraphFacts) -> Iterator[str]:
    if facts.policy is not None:
        p = facts.policy
        named = ", ".join(p["choices"])
        within = f" within the wrappers {', '.join(p['wrappers'])}" if p["wrappers"] else ""
        actions = f"a choice of {len(p['choices'])} actions ({named})" if named else f"{p['actions']} actions"
        yield (
            f"policy for {p['environment']}{within}: {p['observations']} observations to {actions}, T = {p['steps']}, "
            f"state {p['state']}, one action per {p['control_period']:g} s"
        )
    unsaid = "time step not said" if facts.neurons else "no neurons, so no time step"
    step = unsaid if facts.dt is None else f"time step {facts.dt:g} s"
    loops = f"; recurrent: {', '.join(facts.recurrent)}" if facts.recurrent else ""
    yield (
        f"{facts.level}, {step}; {_count(facts.neurons, 'neuron')}, {_count(facts.synapses, 'synapse')}, "
        f"{_count(facts.parameters, 'parameter')}, depth {facts.depth}{loops}"
    )


def _nodes(facts: GraphFacts) -> Table:
    table = _table("node", "kind", ("shape", "right"), ("parameters", "right"), "runs on")
    for node in facts.nodes:
        table.add_row(Text(clean(node.name)), node.kind, node.size, f"{node.parameters:,}", node.side)
    return table


def _channels(facts: GraphFacts) -> Iterator[RenderableType]:
    """Of a policy: what its observation and its action hold, in order."""
    if facts.policy is None:
        return
    for what in ("observation", "action"):
        if what == "action" and facts.policy["choices"]:
            return
        table = _table(("place", "right"), what, "unit", "limits")
        for k, channel in enumerate(facts.policy[what]):
            low, high = channel["low"], channel["high"]
            limits = "" if low is None and high is None else f"{_number(low)} to {_number(high)}"
            table.add_row(str(k), Text(clean(channel["name"])), Text(clean(channel["unit"])), limits)
        yield from ("", table)


def _verdicts(report: Report) -> Table:
    """One line for each target: what decides it stands in the last column."""
    per = "energy per action" if report.facts is not None and report.facts.policy is not None else "energy per step"
    table = _table("target", "verdict", ("cores", "right"), ("memory", "right"), (per, "right"), "because of")
    for target in report.targets:
        placement = target.placement
        cores = None if placement is None else placement.cores
        bits = None if placement is None else placement.memory_bits
        energy = target.energy
        bound = "at most " if energy is not None and energy.bound else ""
        table.add_row(
            target.target,
            Text(target.verdict, style=STYLES[target.verdict]),
            "-" if cores is None else f"{cores:,}",
            "-" if bits is None else f"{bits / 8192:,.1f} KiB",
            "-" if energy is None else f"{bound}{energy_text(energy.high)}",
            _because(target),
        )
    return table


def _because(target: TargetReport) -> Text:
    """Codes of what stands against a target, the gravest first, each once."""
    codes = {f.code: f.severity for f in sorted(target.findings, key=_gravity) if f.severity != "info"}
    return Text(", ").join(Text(code, style=STYLES[severity]) for code, severity in codes.items())


def _key(finding: Finding) -> tuple[str, ...]:
    """All that is printed of a finding without --verbose."""
    return (finding.severity, finding.code, finding.node, _measure(finding), finding.message, finding.fix)


def _common(targets: Sequence[TargetReport]) -> dict[tuple[str, ...], tuple[Finding, tuple[str, ...]]]:
    """Findings that several targets share, with their names."""
    by_key: dict[tuple[str, ...], dict[str, Finding]] = {}
    for target in targets:
        for finding in target.findings:
            if finding.severity != "info":
                by_key.setdefault(_key(finding), {})[target.target] = finding
    return {key: (next(iter(by.values())), tuple(by)) for key, by in by_key.items() if len(by) > 1}


def _by_targets(common: dict[tuple[str, ...], tuple[Finding, tuple[str, ...]]]) -> dict[tuple[str, ...], list[Finding]]:
    """Names of targets -> what is said of all of them."""
    by_names: dict[tuple[str, ...], list[Finding]] = {}
    for finding, names in common.values():
        by_names.setdefault(names, []).append(finding)
    return by_names


def _target(
    target: TargetReport, *, verbose: bool, without: Container[tuple[str, ...]] = ()
) -> Iterator[RenderableType]:
    """What is of one target. without: findings that were printed with those of others."""
    for sentence in target.limits_given:
        yield _indented(f"limit given: {sentence}")
    yield from _findings([it for it in target.findings if _key(it) not in without], verbose=verbose)
    if not verbose:
        return
    if target.placement is not None:
        yield from _placement(target.placement)
    if target.events is not None:
        events = target.events
        kind = "at most" if events.bound else "measured:"
        unit = f"action ({events.steps} steps)" if events.steps > 1 else "step"
        yield _indented(
            f"events per {unit}: {kind} {events.input_events:,.0f} synaptic from inputs, "
            f"{events.spike_events:,.0f} from spikes, {events.updates:,.0f} neuron updates"
        )
    if target.energy is not None:
        yield _indented(f"energy: {target.energy}")
    for text in target.not_checked:
        yield _indented(f"not checked: {text}", style="dim")


@dataclass(slots=True)
class _Alike:
    """Findings that say the same of several nodes."""

    first: Finding
    nodes: list[str]


def _findings(findings: Sequence[Finding], *, verbose: bool) -> Iterator[RenderableType]:
    """Grouped: what is said of several nodes in the same words is said once."""
    groups: dict[tuple[str, ...], _Alike] = {}
    for finding in sorted(findings, key=_gravity):
        if finding.severity == "info" and not verbose:
            continue
        key = (finding.severity, finding.code, finding.message, finding.fix)
        groups.setdefault(key, _Alike(finding, [])).nodes.append(f"{finding.node}{_measure(finding)}")
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, width=7)
    table.add_column(overflow="fold")
    for group in groups.values():
        first = group.first
        text = Text(first.code, style="bold")
        text.append(f"  {clean(', '.join(group.nodes))}", style="not bold")
        text.append(f"\n{clean(first.message)}", style="not bold")
        if first.fix:
            text.append("\nfix: ", style="not bold green")
            text.append(first.fix, style="not bold")
        if verbose and first.source:
            text.append(f"\nsource: {first.source}", style="not bold dim")
        table.add_row(Text(first.severity, style=STYLES[first.severity]), text)
    if groups:
        yield Padding(table, (0, 0, 0, 2))


def _measure(finding: Finding) -> str:
    """Value against limit; what words say already is not said again."""
    if finding.value is None or finding.limit is None:
        return ""
    return f" ({_number(finding.value)} against {_number(finding.limit)})"


def _placement(placement: Placement) -> Iterator[RenderableType]:
    limits = "" if placement.confidence == "exact" else f"; cores by limits that are {trust(placement.confidence)}"
    yield _indented(
        f"uses: {_count(placement.inputs, 'input')}, {_count(placement.neurons, 'neuron')} "
        f"({_count(placement.outputs, 'output')}), {_count(placement.synapses, 'synapse')}{limits}"
    )
    if placement.cores is None:
        return
    table = _table("layer", ("cores", "right"), *((f"{name}, fullest", "right") for name in PER_CORE.values()))
    for layer in placement.layers:
        shares = (layer.per_core.get(name) for name in PER_CORE)
        numbers = ("-" if value is None else f"{value:,}" for value in shares)
        table.add_row(Text(clean(layer.label)), f"{layer.cores:,}", *numbers)
    yield Padding(table, (0, 0, 0, 2))


def _gravity(finding: Finding) -> int:
    return GRAVEST_FIRST.index(finding.severity)


def _number(value: float | int | str) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else value


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _indented(text: str, style: str = "") -> Padding:
    return Padding(Text(text, style=style), (0, 0, 0, 2))


def _table(*columns: str | tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        name, side = (column, "left") if isinstance(column, str) else column
        table.add_column(name, justify="right" if side == "right" else "left", overflow="fold")
    return table
