"""A float graph to the integers of an arithmetic, with what its connections cost in steps handled exactly.

Every connection costs steps. In a policy whose state is cleared before each action, a population whose longest path
from the inputs costs p steps therefore does its T useful steps at steps p .. p + T - 1 of a block of T + L, L being the
latency of the last read. Shorter paths are delayed, so that what met in training still meets; each population is
cleared when its turn comes, so that whatever a bias or a synaptic current did before, while the pipeline filled or
drained, is gone when the first useful input arrives. The result equals the delay-free network of the training, step for
step, with biases and synaptic currents, whatever stood in the connections' buffers.

With carried state there is no window: connections wait as long as in training, where that pays for what they cost.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.findings import Finding
from nervecord.compiler.graph.graph import Edge, Graph
from nervecord.compiler.graph.names import unused
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.lower.choose import choose, report_error, sparest
from nervecord.compiler.lower.entries import (
    Entering,
    always_on,
    bias_carrier,
    code_of,
    encoder_scales,
    entering_of,
    with_channel,
)
from nervecord.compiler.lower.normal import Link, Population, populations
from nervecord.compiler.lower.quantise import COARSE_THRESHOLD, Incoming, Quantised, Settings, quantise
from nervecord.compiler.lower.ranges import op_range
from nervecord.compiler.lower.refusals import (
    CARRIED_WITHOUT_DELAYS,
    DELAYED_IN_A_WINDOW,
    LEAK_IN_CURRENT,
    NO_BIAS_CARRIER,
    RECURRENT_IN_A_WINDOW,
)
from nervecord.compiler.lower.relay import relays
from nervecord.compiler.lower.reports import SMALLEST
from nervecord.compiler.lower.retime import Timing, retime
from nervecord.compiler.lower.slices import sliced
from nervecord.compiler.ops import ArgmaxDecode, Decode, Input, Level, Op, Output, Quantise, Rescale
from nervecord.compiler.plan.calibrate import Calibration, StreamCalibration
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.compiler.plan.topology import Topology
from nervecord.errors import InfeasibleError

OPTIONS = ("weight_bits", "weight_slices")
"""Options of targets that say how floats become integers."""


@dataclass(frozen=True)
class Draft:
    """What stays the same whatever scale the encoders have.

    Args:
        plan: of the float graph.
        arithmetic, weight_bits, whole: as of `lower`.
        rest_bits: most bits by which a second slice is finer than the first; None for all there is room for.
        populations: in normal form. timing: of them.
        carriers: population -> the link that carries its current bias.
        drivers: populations that get a neuron more, a bias channel for what they feed.
    """

    plan: Plan
    arithmetic: Arithmetic
    weight_bits: int
    whole: bool
    populations: tuple[Population, ...]
    timing: Timing
    entries: tuple[Entering, ...]
    carriers: Mapping[str, Link]
    drivers: frozenset[str]
    rest_bits: int | None = None
    done: dict[str, Quantised] = field(default_factory=dict)
    """Populations that no encoder's scale changes, quantised once."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An integer graph of one choice of scales.

    Args:
        scale: entry -> integers per unit.
        late: Output -> steps by which it is later than the float graph's.
    """

    subject: Graph | Policy
    layers: tuple[Quantised, ...]
    scale: Mapping[str, float]
    late: Mapping[str, int]

    def plan(self, schedule: Schedule) -> Plan:
        """Of the graph or policy."""
        return plan(self.subject) if isinstance(self.subject, Policy) else plan(self.subject, schedule)

    @property
    def exponents(self) -> dict[str, int]:
        """Connection -> weight exponent."""
        return {name: link.weight_exp for layer in self.layers for name, link in layer.links.items()}


def lower(
    subject: Graph | Policy,
    arithmetic: Arithmetic,
    calibration: Calibration | StreamCalibration | None,
    *,
    schedule: Schedule | None = None,
    weight_bits: int | None = None,
    weight_slices: int = 1,
    whole: bool = False,
) -> tuple[Graph | Policy, dict[str, Any]]:
    """DISCRETE -> INTEGER, and what it cost.

    The encoders' scale is the one of `INPUT_EXPONENTS` with the smallest error of what leaves over recorded input; all
    other scales follow from the proof of their ranges. Spikes that enter have no scale.

    Args:
        subject: a DISCRETE policy, or a graph that the rules allow.
        arithmetic: of the target.
        calibration: its behaviour on recorded input; None only for a graph whose inputs are spikes, or to take the
            finest scale that fits.
        schedule: of a graph that is no policy.
        weight_bits: of mantissas; by default all that the arithmetic has.
        weight_slices: mantissas that make up a weight, 1 or 2; see `compiler.lower.slices`.
        whole: weights without an exponent that cuts bits off and biases in whole units, as some formats need.

    Returns:
        The INTEGER subject; and a report of plain JSON types: "populations" (range, step and error of each), "entries"
        (scale, limit and bias channel of each encoder), "latency" (steps until the last output has seen an input),
        the error against float on recorded input ("action_error_rms" and so on), "warnings", "findings".

    Raises:
        InfeasibleError: it cannot be expressed or its ranges cannot be proved.
    """
    with _as_finding():
        draft = _draft(subject, arithmetic, schedule, weight_bits or arithmetic.weight_bits, weight_slices, whole)
        candidates = list(_candidates(draft, subject))
    # One in which nothing saturates is better than one in which something may, whatever the recorded input says.
    clean = [candidate for candidate in candidates if not any(layer.warnings for layer in candidate.layers)]
    finest = choose(clean or candidates, calibration, draft.plan)
    best = finest
    if weight_slices > 1:
        best = sparest(finest, _thinner(draft, subject, finest), calibration, draft.plan)
    return best.subject, _report(draft, best, finest, calibration)


@contextlib.contextmanager
def _as_finding() -> Iterator[None]:
    """A refusal to lower, with the code by which the rules show it."""
    try:
        yield
    except InfeasibleError as error:
        fix = error.hint or ""
        error.findings = (Finding("no-scale", "error", error.where or "graph", error.message, fix=fix),)
        raise


def _candidates(draft: Draft, subject: Graph | Policy) -> Iterator[Candidate]:
    """One for each choice of the encoders' scales that fits, from the coarsest.

    Raises:
        InfeasibleError: none does.
    """
    refused, count = None, 0
    for scale in encoder_scales(draft.entries, draft.arithmetic):
        try:
            candidate = _candidate(draft, subject, scale)
        except InfeasibleError as error:
            refused = refused or error  # the coarsest scale's reason is the one that no scale mends
            continue
        count += 1
        yield candidate
    if not count:
        assert refused is not None
        raise refused


def _thinner(draft: Draft, subject: Graph | Policy, finest: Candidate) -> Iterator[Candidate]:
    """The same with second slices of no use, then finer by one bit, by two and so on: the fewer bits, the fewer weights
    take a synapse of both."""
    for bits in range(draft.weight_bits - 1):
        try:
            thinner = _candidate(dataclasses.replace(draft, rest_bits=bits, done={}), subject, finest.scale)
        except InfeasibleError:
            continue
        if thinner.exponents == finest.exponents:
            return  # no exponent has room for more
        if any(layer.warnings for layer in finest.layers) or not any(layer.warnings for layer in thinner.layers):
            yield thinner


def trial(subject: Graph | Policy, arithmetic: Arithmetic, *, schedule: Schedule | None = None) -> Graph | Policy:
    """The integers of the first scales that fit, without choosing among them.

    Raises:
        InfeasibleError: `lower` would raise the same.
    """
    with _as_finding():
        draft = _draft(subject, arithmetic, schedule, arithmetic.weight_bits, 1, False)
        return next(_candidates(draft, subject)).subject


def _draft(
    subject: Graph | Policy,
    arithmetic: Arithmetic,
    schedule: Schedule | None,
    weight_bits: int,
    weight_slices: int,
    whole: bool,
) -> Draft:
    if not 2 <= weight_bits <= arithmetic.weight_bits:
        raise InfeasibleError(f"{weight_bits} weight bits lie outside 2..{arithmetic.weight_bits}", where="weight_bits")
    if weight_slices not in (1, 2):
        raise InfeasibleError(f"is {weight_slices}, 1 or 2 can be", where="weight_slices")
    if weight_slices > 1 and whole:
        raise InfeasibleError("a second slice needs an exponent that cuts bits off", where="weight_slices")
    float_plan = plan(subject) if isinstance(subject, Policy) else plan(subject, schedule)
    normal_form = populations(float_plan)
    trained = {p.name for p in normal_form}
    timing = retime(float_plan, normal_form, arithmetic.connection_delay)
    _require_timing(float_plan, normal_form, timing)
    entries = tuple(entering_of(float_plan, entry.name, entry.op) for entry in float_plan.entries)
    normal_form, timing = relays(normal_form, timing, arithmetic, {e.name for e in entries if e.limit is not None})
    carriers = _carriers(float_plan, normal_form, arithmetic, entries)
    sources = {link.source for link in carriers.values()}
    entries = tuple(with_channel(float_plan, e) if e.name in sources and e.code == e.name else e for e in entries)
    drivers = frozenset(sources) - {entry.name for entry in entries}
    if weight_slices > 1:
        codes = {entry.code for entry in entries}
        normal_form, timing = sliced(
            normal_form, timing, trained, {*float_plan.graph.nodes, *timing.phase, *timing.wait, *codes}
        )
    return Draft(float_plan, arithmetic, weight_bits, whole, tuple(normal_form), timing, entries, carriers, drivers)


def _require_timing(float_plan: Plan, normal_form: Sequence[Population], timing: Timing) -> None:
    """What would be late in a way that training knew nothing of."""
    for p in normal_form:
        for link in p.links:
            if float_plan.schedule.resets and link.delay:
                component = Topology.of(float_plan.graph).component
                recurrent = component[link.source] == component[p.name]
                refusal = RECURRENT_IN_A_WINDOW if recurrent else DELAYED_IN_A_WINDOW
                raise refusal.error(link.origin[0], link.delay, 0)
    if float_plan.contract is not None and not float_plan.schedule.resets:
        late = next((p for p in normal_form if timing.phase[p.name]), None)
        if late is not None:
            raise CARRIED_WITHOUT_DELAYS.error(late.label, timing.phase[late.name], 0)


def _carriers(
    float_plan: Plan, normal_form: Sequence[Population], arithmetic: Arithmetic, entries: Sequence[Entering]
) -> dict[str, Link]:
    """Which link carries a population's current bias; see `bias_carrier`."""
    if arithmetic.bias_in_current:
        late = next((p for p in normal_form if p.needs_channel and (p.bias != 0).any()), None)
        if late is not None:
            raise LEAK_IN_CURRENT.error(late.label)
        return {}
    encoders = {e.name for e in entries if not isinstance(e.op, Input) or e.limit is not None}
    inputs = {e.name for e in entries} - encoders
    readouts = {read.source for read in float_plan.reads}
    # Where a neuron may spike several times in a step, none spikes just once in each.
    once = arithmetic.spikes_per_step == 1
    spiking = {p.name for p in normal_form if p.threshold is not None and once} - readouts
    carriers: dict[str, Link] = {}
    for p in normal_form:
        if not p.needs_channel:
            continue
        source = bias_carrier((link.source for link in p.links), encoders, spiking, inputs)
        if source is None:
            raise NO_BIAS_CARRIER.error(p.label)
        carriers[p.name] = next(link for link in p.links if link.source == source)
    return carriers


def _constant(p: Population, scale: float, arithmetic: Arithmetic) -> int:
    """Value of the bias channel: the power of two with which the largest bias is no larger than the largest weight, or
    the largest one that the arithmetic sends."""
    most = 1 << max(arithmetic.graded_limit.bit_length() - 1, 0)
    largest = max(max(float(np.abs(link.stored).max(initial=0.0)) for link in p.links), SMALLEST)
    ratio = float(np.abs(p.current_bias).max()) * scale / largest
    return int(2 ** np.ceil(np.log2(min(max(ratio, 1.0), most))))


def _candidate(draft: Draft, subject: Graph | Policy, scale: Mapping[str, float]) -> Candidate:
    float_plan = draft.plan
    constants = {
        entry.name: max(
            (
                _constant(p, scale.get(entry.name, 1.0), draft.arithmetic)
                for p in draft.populations
                if p.name in draft.carriers and draft.carriers[p.name].source == entry.name
            ),
            default=0,
        )
        for entry in draft.entries
    }
    codes = {
        entry.name: code_of(entry, scale.get(entry.name), constants[entry.name], draft.arithmetic)
        for entry in draft.entries
    }
    layers = _quantise(draft, codes, scale)
    nodes: dict[str, Op] = {step.name: step.op for step in float_plan.before}
    edges: list[Edge] = [(tap.source, step.name) for step in float_plan.before for tap in step.taps]
    sender = {entry.name: entry.code for entry in draft.entries}
    for entry in draft.entries:
        if entry.code != entry.name:
            edges.append((entry.name, entry.code))
        nodes[entry.code] = codes[entry.name]
    for p, layer in zip(draft.populations, layers, strict=True):
        for link in p.links:
            if link.name in layer.links:
                nodes[link.name] = layer.links[link.name]
                edges += [(sender.get(link.source, link.source), link.name), (link.name, p.name)]
        nodes[p.name] = layer.neuron
    _after(float_plan, {p.name: layer for p, layer in zip(draft.populations, layers, strict=True)}, nodes, edges)
    graph = Graph(Level.INTEGER, nodes, tuple(edges), float_plan.graph.dt, draft.arithmetic)
    lowered: Graph | Policy = graph if float_plan.contract is None else Policy(graph, float_plan.contract)
    return Candidate(lowered, tuple(layers), dict(scale), _late(draft))


def _late(draft: Draft) -> dict[str, int]:
    """Output -> the phase of what it reads, through a decoder if there is one."""
    latency: dict[str, int] = {}
    for step in draft.plan.after:
        phases = [draft.timing.phase.get(tap.source, latency.get(tap.source, 0)) for tap in step.taps]
        latency[step.name] = max(phases)
    return {name: latency[name] for name in draft.plan.graph.outputs}


def _quantise(draft: Draft, codes: Mapping[str, Op], scale: Mapping[str, float]) -> list[Quantised]:
    interval = 0
    if draft.plan.schedule.resets:
        phases = [draft.timing.phase[read.source] for read in draft.plan.reads]
        interval = draft.plan.schedule.steps + max(phases)
    settings = Settings(draft.arithmetic, draft.weight_bits, interval, draft.whole, draft.rest_bits)

    def one(p: Population, cap: float | None = None) -> Quantised:
        incoming = [_incoming(draft, p, link, codes, scale) for link in p.links]
        waits = [draft.timing.wait[link.name] for link in p.links]
        return quantise(p, incoming, waits, settings, drives=p.name in draft.drivers, cap=cap)

    quantised: dict[str, Quantised] = {}
    for p in draft.populations:
        graded = any(link.source in scale for link in p.links)
        if graded or p.name not in draft.done:
            quantised[p.name] = one(p)
            if not graded:
                draft.done[p.name] = quantised[p.name]
        else:
            quantised[p.name] = draft.done[p.name]
    for group in _shared_reads(draft.plan):
        # Membranes that a decoder adds up mean the same: the coarsest unit of them serves all.
        unit = min(1 / quantised[name].report.unit for name in group)
        for p in draft.populations:
            if p.name in group and 1 / quantised[p.name].report.unit != unit:
                quantised[p.name] = one(p, cap=unit)
    return [quantised[p.name] for p in draft.populations]


def _shared_reads(float_plan: Plan) -> list[set[str]]:
    """Populations without spikes whose integers decoders add up, those of decoders that share one together."""
    readouts = {r.source for r in float_plan.reads}
    groups: list[set[str]] = []
    for step in float_plan.after:
        sources = {tap.source for tap in step.taps if tap.source in readouts}
        if isinstance(step.op, Output) or len(sources) < 2 or any(float_plan.step(name).op.spikes for name in sources):
            continue
        for group in [group for group in groups if group & sources]:
            groups.remove(group)
            sources |= group
        groups.append(sources)
    return groups


def _incoming(draft: Draft, p: Population, link: Link, codes: Mapping[str, Op], scale: Mapping[str, float]) -> Incoming:
    carries = p.name in draft.carriers and draft.carriers[p.name].name in (link.name, link.rest_of)
    width = link.weight.shape[1]
    code = codes.get(link.source)
    if isinstance(code, Quantise):
        low, high = op_range(code)
        return Incoming(low, high, scale[link.source], code.constant, carries)
    always = (code is not None and always_on(code)) or link.source in draft.drivers
    low = np.zeros(width + always, dtype=np.int64)
    most = 1 if link.source in {entry.name for entry in draft.entries} else draft.arithmetic.spikes_per_step
    return Incoming(low, np.full_like(low, most), 1.0, int(always), carries)


def _after(float_plan: Plan, layers: Mapping[str, Quantised], nodes: dict[str, Op], edges: list[Edge]) -> None:
    """Decoders in the integers' scale, and Outputs; a stream's membranes leave as the values they stand for."""
    for step in float_plan.after:
        sources = [tap.source for tap in step.taps]
        scales = {layers[s].scale for s in sources if s in layers}
        op = step.op
        if isinstance(op, (Decode, Rescale)):
            op = op.replace(scale=op.scale / min(scales))
        elif isinstance(op, ArgmaxDecode):
            # The readout has one scale for all actions, so their order stays; what a unit is worth is for reports.
            op = op.replace(scale=float(op.scale / min(scales)))
        elif isinstance(op, Output) and scales and not all(float_plan.step(s).op.spikes for s in sources):
            # Each in its own unit: what is added are the values that integers stand for.
            sources = [_rescaled(s, op, float_plan, layers, nodes, edges) for s in sources]
        nodes[step.name] = op
        edges += [(s, step.name) for s in sources]


def _rescaled(
    source: str, op: Op, float_plan: Plan, layers: Mapping[str, Quantised], nodes: dict[str, Op], edges: list[Edge]
) -> str:
    """The name of what gives a population's membranes as the values they stand for, and its spikes as they are."""
    scale = 1.0 if float_plan.step(source).op.spikes else 1 / layers[source].scale
    name = unused(f"{source}.rescale", float_plan.graph.nodes)
    if name not in nodes:
        nodes[name] = Rescale(np.full(op.in_shape, scale))
        edges.append((source, name))
    return name


def _report(
    draft: Draft, best: Candidate, finest: Candidate, calibration: Calibration | StreamCalibration | None
) -> dict[str, Any]:
    integers = best.plan(draft.plan.schedule)
    error, findings = report_error(best, calibration, draft.plan, integers)
    rests = [link.name for p in draft.populations for link in p.links if link.rest_of]
    finer = "" if rests or draft.whole else ": two weight slices may make it finer"
    warnings = [
        f"{layer.report.population}: the threshold is only {layer.report.threshold} units, so rounding is coarse{finer}"
        for layer in best.layers
        if layer.report.threshold is not None and layer.report.threshold < COARSE_THRESHOLD
    ]
    if rests and best.exponents.keys().isdisjoint(rests):
        low, high = draft.arithmetic.weight_exponent_low, draft.arithmetic.weight_exponent_high
        reason = f"exponents from {low} to {high} have no room for one, or all are exact"
        if not finest.exponents.keys().isdisjoint(rests):
            reason = "with one the recorded input gives hardly a smaller error"
        warnings.append(f"no weight has a second slice: {reason}")
    all_findings: list[Finding] = [finding for layer in best.layers for finding in layer.warnings] + findings
    warnings += [str(finding) for finding in all_findings]
    entries = []
    for entry in draft.entries:
        code = integers.graph.nodes[entry.code]
        quantiser = code if isinstance(code, Quantise) else None
        channel = quantiser.constant if quantiser else int(always_on(code))
        entries.append(
            {
                "name": entry.name,
                "scale": quantiser.scale if quantiser else None,
                "limit": quantiser.limit if quantiser else None,
                "bias_channel": channel,
            }
        )
        if channel and not integers.schedule.resets:
            warnings.append("the bias channel starts one step late at an episode's first step")
    return {
        "entries": entries,
        "populations": [layer.report.to_dict() for layer in best.layers],
        "latency": max(best.late.values()),
        "output_latency": dict(best.late),
        **error,
        "warnings": warnings,
        "findings": [finding.to_dict() for finding in all_findings],
    }
