"""Rules about numbers: what fits into the chip, and what its bits can tell apart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from nervecord.compiler.check.rules import (
    GRAPH,
    Case,
    Hit,
    Look,
    above,
    breaking,
    cited,
    decay_step,
    decays,
    threshold,
    whole,
)
from nervecord.compiler.lower.entries import TOO_LARGE, coarsest
from nervecord.compiler.ops import Array, IntegerSpike, Level, Mantissas, Neuron
from nervecord.compiler.target.implied import computes, integers
from nervecord.compiler.target.protocol import Limits
from nervecord.errors import InfeasibleError

LOST_WEIGHTS = 0.25
"""Share of a connection's weights that may round to zero before it is worth a warning."""
DECAY_ERROR = 0.1
"""Relative error of 1 - decay, so of the time constant, that is worth a warning."""


def inputs(case: Case) -> Iterator[Hit]:
    where = case.named(case.topology.entries[0]) if case.topology.entries else GRAPH
    yield from above(
        case.spec.limits.inputs,
        case.placement.inputs,
        where,
        "has more input channels than the chip",
        "drop or combine observations, or choose a target with more inputs",
    )


def outputs(case: Case) -> Iterator[Hit]:
    where = case.named(case.topology.readouts[0]) if case.topology.readouts else GRAPH
    yield from above(
        case.spec.limits.outputs,
        case.placement.outputs,
        where,
        "has more outputs than the chip",
        "read fewer neurons, or decode several values from one population on the host",
    )


def neurons(case: Case) -> Iterator[Hit]:
    yield from above(
        case.spec.limits.neurons,
        case.placement.neurons,
        GRAPH,
        "has more neurons than the chip",
        "train narrower layers",
    )


def hidden_neurons(case: Case) -> Iterator[Hit]:
    yield from above(
        case.spec.limits.hidden,
        case.placement.hidden,
        GRAPH,
        "has more hidden neurons than the chip",
        "train narrower layers",
    )


def synapses(case: Case) -> Iterator[Hit]:
    yield from above(
        case.spec.limits.synapses,
        case.placement.synapses,
        GRAPH,
        "has more synapses than the chip",
        "prune weights or train narrower layers",
    )


def layers(case: Case) -> Iterator[Hit]:
    yield from above(
        case.spec.limits.layers,
        len(case.placement.layers),
        GRAPH,
        "has more layers than the chip",
        "train fewer layers",
    )


def layers_min(case: Case) -> Iterator[Hit]:
    fact, count = case.spec.limits.layers_min, len(case.placement.layers)
    if fact.value is not None and count < fact.value:
        yield Hit(
            GRAPH,
            "has fewer layers of neurons than the chip needs",
            count,
            whole(fact.value),
            "train one more layer",
            cited(fact),
            breaking(fact),
        )


def fan_in(case: Case) -> Iterator[Hit]:
    for layer in case.placement.layers:
        yield from above(
            case.spec.limits.fan_in,
            layer.fan_in,
            layer.label,
            "a neuron has more synapses than may enter one",
            "prune its inputs, or insert a layer that sums parts of them",
        )


def fan_out(case: Case) -> Iterator[Hit]:
    limits = case.spec.limits
    sources: dict[str, Array] = {}
    for wire in case.topology.wires:
        for name in wire.sources:
            if case.graph.nodes[name].size == wire.fan_out.size:
                sources[name] = sources.get(name, np.zeros_like(wire.fan_out)) + wire.fan_out
    for name, counts in sources.items():
        entry = name not in case.topology.populations and limits.input_fan_out.value is not None
        yield from above(
            limits.input_fan_out if entry else limits.fan_out,
            int(counts.max(initial=0)),
            case.named(name),
            "a neuron or input reaches more neurons than the chip allows",
            "prune its outputs, or repeat the neuron and share its targets",
        )


def capacity_unknown(case: Case) -> Iterator[Hit]:
    limits = case.spec.limits
    per_chip = limits.neurons.known or limits.hidden.value not in (None, math.inf)
    if per_chip or (limits.cores.known and limits.neurons_per_core.known) or case.spec.convolution is not None:
        return
    message, fix = "nothing public says how many neurons the chip holds", "ask the vendor, then give what you know: "
    if case.spec.file:
        message = f"{case.spec.file} does not say how many neurons the chip holds"
        fix = "state neurons in its section [limits], or give "
    yield Hit(GRAPH, message, case.placement.neurons, fix=f"{fix}--set neurons=N", source=limits.neurons.source)


_CORE_FIXES = {
    "neurons_per_core": ("holds fewer neurons than one", "choose another target"),
    "axons_in_per_core": ("one neuron has more sources than a core has input axons", "prune it or sum in two layers"),
    "axons_out_per_core": ("one neuron reaches more cores than a core has output axons", "train narrower layers"),
    "synapse_bits_per_core": ("the synapses of one neuron exceed a core's memory", "prune it or sum in two layers"),
}


def core_limit(case: Case) -> Iterator[Hit]:
    for layer in case.placement.layers:
        for name in layer.exceeded:
            fact = getattr(case.spec.limits, name)
            message, fix = _CORE_FIXES[name]
            yield from above(fact, layer.per_core[name] or 0, layer.label, message, fix)


def cores(case: Case) -> Iterator[Hit]:
    if case.placement.cores is not None:
        yield from above(
            case.spec.limits.cores,
            case.placement.cores,
            GRAPH,
            "needs more cores than the chip has",
            "train narrower layers or prune weights; several chips are not modelled",
        )


def layer_split(case: Case) -> Iterator[Hit]:
    for layer in case.placement.layers:
        if layer.cores is None or layer.cores < 2:
            continue
        tight = max(
            (name for name in layer.per_core if _share(case, name, layer.per_core[name]) is not None),
            key=lambda name: _share(case, name, layer.per_core[name]) or 0.0,
            default="neurons_per_core",
        )
        yield Hit(
            layer.label,
            f"is split over {layer.cores} cores, {tight.replace('_', ' ')} being the tightest limit",
            layer.cores,
            1,
            "nothing to do",
            cited(getattr(case.spec.limits, tight)),
        )


def _share(case: Case, name: str, used: int | None) -> float | None:
    limit = getattr(case.spec.limits, name).value
    return None if not limit or math.isinf(limit) or used is None else used / limit


def memory_unknown(case: Case) -> Iterator[Hit]:
    fact = case.spec.limits.synapse_bits_per_core
    if fact.value in (None, math.inf):
        return
    for layer in case.placement.layers:
        if layer.cores is not None and layer.memory_bits is None:
            yield Hit(
                layer.label,
                "how its synapses share a core's memory is not modelled",
                None,
                whole(fact.value or 0),
                "unroll the convolution into an Affine to count it without sharing",
                cited(fact),
            )


def configurations(case: Case) -> Iterator[Hit]:
    limits = case.spec.limits
    if not any(fact.value is not None for fact in (limits.decays_per_core, limits.thresholds_per_core)):
        return
    for name, op in case.topology.populations.items():
        decay_of = decays(op, case.graph.dt) if isinstance(op, Neuron) else {}
        if decay_of:
            pairs = np.stack([_on_grid(case, values.ravel()) for values in decay_of.values()], axis=1)
            yield from above(
                limits.decays_per_core,
                len(np.unique(pairs, axis=0)),
                case.named(name),
                "has more different decays than a core's table",
                "train fewer time constants per layer",
            )
        values_of = threshold(op)
        if values_of is not None:
            yield from above(
                limits.thresholds_per_core,
                len(np.unique(values_of)),
                case.named(name),
                "has more different thresholds than a core's table",
                "divide each neuron's incoming weights by its threshold, and set all thresholds to 1",
            )


def _on_grid(case: Case, values: Array) -> Array:
    step = decay_step(case)
    return np.rint(values / step) if step else values


# --------------------------------------------------------------------------------------------------------------------
# What bits can tell apart


def weight_resolution(case: Case) -> Iterator[Hit]:
    fact = case.spec.limits.weight_bits
    if fact.value is None or not 2 <= fact.value <= 16:
        return
    levels = 2 ** (int(fact.value) - 1) - 1
    for wire in case.topology.wires:
        if wire.weight is None:
            continue
        weight = np.abs(wire.weight)
        nonzero = weight[weight > 0]
        if not nonzero.size:
            continue
        lost = float(np.mean(nonzero < nonzero.max() / levels / 2))
        if lost > LOST_WEIGHTS:
            yield Hit(
                case.named(wire.name),
                f"{lost:.0%} of its weights become zero in {int(fact.value)} bits, as the largest is "
                f"{nonzero.max() / np.median(nonzero):.0f} times the median",
                round(lost, 4),
                LOST_WEIGHTS,
                "train with weight decay or clip the largest weights",
                cited(fact),
            )


def _decay_text(lost: float) -> str:
    """The decay 1 - lost; as that difference where six digits would say 1."""
    return f"1 - {lost:.3g}" if 0 < lost < 1e-6 else f"{1 - lost:.6g}"


def decay_resolution(case: Case) -> Iterator[Hit]:
    bits, kind, step = case.spec.limits.decay_bits, case.spec.behaviour.decays, decay_step(case)
    for name, op in case.neurons():
        for parameter, decay in decays(op, case.graph.dt).items():
            lost = 1 - decay[decay < 1]
            if not lost.size:
                continue
            if kind.value == "shift":
                # The nearest 2^-k; a decay of 0 is k = 0.
                nearest, fact, form = 2.0 ** np.rint(np.log2(lost)), kind, "1 - 2^-k"
            elif step:
                nearest, fact, form = np.rint(lost / step) * step, bits, f"{whole(bits.value or 0)} bits"  # type: ignore[assignment]
            else:
                continue
            error = np.abs(nearest - lost) / lost
            worst = int(error.argmax())
            if error[worst] > DECAY_ERROR:
                yield Hit(
                    case.named(name),
                    f"{parameter} {_decay_text(lost[worst])} becomes {_decay_text(nearest[worst])} in {form}",
                    round(float(error[worst]), 4),
                    DECAY_ERROR,
                    "train with the nearest value the chip has, or with another time step",
                    cited(fact),
                )


def threshold_range(case: Case) -> Iterator[Hit]:
    fact = case.spec.limits.threshold_max
    if fact.value == math.inf:
        return
    for name, op in case.topology.populations.items():
        values = threshold(op)
        if isinstance(op, Neuron) and isinstance(op.spike, IntegerSpike):
            largest = op.spike.threshold
            yield from above(fact, largest, case.named(name), "its threshold exceeds the chip's", "lower scales")
        elif values is not None and (values <= 0).any():
            yield Hit(
                case.named(name),
                "has a threshold that is not positive",
                float(values.min()),
                0,
                "train with positive thresholds: it spikes without input",
                cited(fact),
                breaking(fact),
            )


def foreign_integers(case: Case) -> Iterator[Hit]:
    if not case.compiles or computes(case.spec, case.graph):
        return
    yield Hit(
        GRAPH,
        "is in integers already, of an arithmetic that is not this target's",
        None,
        None,
        "compile it for the target whose integers they are, or start from the floats",
        case.spec.arithmetic,
    )


def weight_range(case: Case) -> Iterator[Hit]:
    limits = case.spec.limits
    for wire in case.topology.wires:
        if not isinstance(wire.op, Mantissas):
            continue
        name, fix = case.named(wire.name), "compile again from the float policy for this target"
        weight = wire.op.stored
        yield from above(limits.weight_max, int(weight.max()), name, "a weight exceeds the chip's largest", fix)
        low = limits.weight_min
        if low.value not in (None, math.inf) and weight.min() < (low.value or 0):
            yield Hit(
                name,
                "a weight lies below the chip's smallest",
                int(weight.min()),
                whole(low.value or 0),
                fix,
                cited(low),
                breaking(low),
            )
        yield from above(limits.weight_bits, wire.op.weight_bits, name, "weights have more bits", fix)


def graded_range(case: Case) -> Iterator[Hit]:
    fact = case.spec.limits.message_bits
    if not case.spec.behaviour.graded_input.value:
        return
    for name in case.topology.entries:
        op = case.graph.nodes[name]
        if op.spikes or op.bound is None:
            continue
        if case.graph.level is not Level.INTEGER:
            yield from _coarsest(case, name, op.bound)
            continue
        bits = int(op.bound).bit_length() + 1
        yield from above(
            fact, bits, case.named(name), "its integers exceed a graded spike", "lower the encoder's scale"
        )


def _coarsest(case: Case, name: str, bound: float) -> Iterator[Hit]:
    """Values are sent as so many integers per unit or more."""
    scale = coarsest(bound)
    limit = 0 if case.spec.integers is None else integers(case.spec).graded_limit
    if case.spec.integers is not None and bound * scale >= limit + 1:
        most = limit / scale
        yield Hit(
            case.named(name),
            TOO_LARGE,
            whole(bound),
            whole(most),
            f"a clip or limit of at most {most:g}",
            case.spec.arithmetic,
        )


# --------------------------------------------------------------------------------------------------------------------
# What can be proved


def _proved(code: str) -> Look:
    def look(case: Case) -> Iterator[Hit]:
        for finding in case.overflows:
            if finding.code == code:
                yield Hit(
                    finding.node,
                    finding.message,
                    finding.value,
                    finding.limit,
                    finding.fix,
                    case.spec.arithmetic,
                    finding.severity,
                )

    return look


product_overflow = _proved("product-overflow")
accumulator_overflow = _proved("accumulator-overflow")
current_overflow = _proved("current-overflow")
membrane_saturates = _proved("membrane-saturates")
readout_saturates = _proved("readout-saturates")


def no_scale(case: Case) -> Iterator[Hit]:
    refusal = case.lowered
    if isinstance(refusal, InfeasibleError):
        yield Hit(
            refusal.where or GRAPH,
            refusal.message,
            None,
            None,
            refusal.hint or "train with a smaller range of weights, or with weight decay",
            case.spec.arithmetic,
        )


# --------------------------------------------------------------------------------------------------------------------


def second_hand_limits(case: Case) -> Iterator[Hit]:
    fields = {f.name for f in dataclasses.fields(Limits)}
    parts = []
    for name, share in case.placement.utilisation.items():
        fact = getattr(case.spec.limits, name) if name in fields else None
        if fact is not None and fact.confidence in ("second-hand", "conflicting") and share <= 1:
            part = f"{share:.1%}" if share >= 0.001 else "under 0.1%"
            parts.append(f"{name} {part} of {fact}")
    if parts:
        yield Hit(
            GRAPH,
            "keeps to limits that are not official: " + "; ".join(parts),
            fix="if you have better numbers, give them: --set LIMIT=N",
            source="see each limit's source in the target's table",
        )
