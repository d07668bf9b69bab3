"""Rules about neurons and what enters them: kinds, resets, leaks, biases, parameters, input."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nervecord.compiler.check.placement import bias_carriers, has_current
from nervecord.compiler.check.rules import (
    Case,
    Hit,
    breaking,
    cited,
    decay_step,
    decays,
    float_spike,
    leak,
    threshold,
    time_constants,
)
from nervecord.compiler.findings import Severity
from nervecord.compiler.lower.prepare import MOST_GROUPS, prepares
from nervecord.compiler.lower.refusals import LEAK_IN_CURRENT, NO_BIAS_CARRIER
from nervecord.compiler.ops import OPS, Array, Input, Level, Neuron, Op, is_core
from nervecord.compiler.plan.topology import Wire
from nervecord.compiler.target.protocol import DECIDING

KIND_FIXES = {
    "Conv1d": "unroll it into an Affine where it is small, or use a target that convolves",
    "Conv2d": "unroll it into an Affine where it is small, or use a target that convolves",
    "SumPool2d": "fold it into the next layer's weights, or use strides in place of pooling",
    "AvgPool2d": "fold it into the next layer's weights, or use strides in place of pooling",
    "Delay": "delay a whole connection by steps (Affine.delay) instead",
    "DelayLine": "delay whole connections: put a Delay of one length right before or behind an Affine",
    "Scale": "fold the factors into the weights of the connection before or after it",
    "Flatten": "give the network flat vectors; its order of values is what the weights expect",
    "Threshold": "use an IF neuron, which spikes on its membrane",
    **dict.fromkeys(
        ("Tanh", "Relu", "Elu"), "teach a spiking policy to act as this network does: nervecord distill FILE --env ID"
    ),
}
"""Kind -> what a user can do where a target has nothing like it."""


def unsupported_node(case: Case) -> Iterator[Hit]:
    supported = case.spec.kinds(case.graph.level)
    for name, op in case.graph.nodes.items():
        if not is_core(op) or op.kind in supported:
            continue
        fix = KIND_FIXES.get(op.kind, "")
        if not fix and case.spec.kinds(Level.DISCRETE) and case.graph.level is Level.INTEGER:
            fix = "this graph is already in another chip's integers: compile from the float policy"
        elif not fix:
            alike = [kind for kind in supported if _alike(op, kind, case.graph.level)]
            fix = f"replace it by {' or '.join(alike)}" if alike else "choose another target"
        if case.spec.nodes_confidence in DECIDING:
            yield Hit(case.named(name), f"{op.kind} cannot be realised", None, None, fix, case.spec.nodes_source)
        else:
            message = f"nothing public says whether {op.kind} can be realised"
            yield Hit(case.named(name), message, None, None, fix, case.spec.nodes_source, "unknown")


def _alike(op: Op, kind: str, level: Level) -> bool:
    """Whether a kind could stand in for an op: spiking for spiking, readout for readout, weights for weights."""
    made_by = next((node for node in OPS.values() if kind in node.kinds(level)), None)
    if made_by is None or made_by.ROLE != type(op).ROLE:
        return False
    return op.spikes == kind.endswith("F") if made_by is Neuron else made_by.ROLE in ("connection", "population")


def reset_rule(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.resets
    for name, op in case.neurons():
        spike = float_spike(op)
        if spike is None:
            continue
        rule = spike.reset
        if fact.value is None:
            yield Hit(
                case.named(name),
                f"resets by {rule!r}, and what the chip does is not known",
                rule,
                source=fact.source,
                severity="unknown",
            )
        elif rule not in fact.value:
            yield Hit(
                case.named(name),
                f"resets by {rule!r}, which the chip does not do",
                rule,
                ", ".join(fact.value),
                "train with reset to zero: no conversion keeps the spikes"
                if "value" in fact.value
                else f"train with reset by {fact.value[0]!r}: no conversion keeps the spikes",
                cited(fact),
                breaking(fact),
            )


def reset_value(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.nonzero_reset
    for name, op in case.neurons():
        spike = float_spike(op)
        if spike is None or spike.reset != "value" or not (spike.reset_value != 0).any() or fact.value:
            continue
        yield Hit(
            case.named(name),
            "resets to a value other than zero",
            _extreme(spike.reset_value),
            0,
            "train with a reset value of 0, or shift v, threshold and leak by it (v then starts at minus that)",
            cited(fact),
            "unknown" if fact.value is None else breaking(fact),
        )


def refractory(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.resets
    for name, op in case.neurons():
        spike = float_spike(op)
        if spike is None or not spike.refractory or (fact.value is not None and "refractory" in fact.value):
            continue
        reason = "and the chip's neurons do not" if fact.known else "and whether the chip's do is not known"
        yield Hit(
            case.named(name),
            f"rests for some steps after a spike, {reason}",
            spike.refractory,
            0,
            "train without a refractory period",
            cited(fact),
            "unknown" if fact.value is None else breaking(fact),
        )


def leak_term(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.leak
    for name, op in case.neurons():
        value = leak(op)
        if value is None or not (value != 0).any() or fact.value == "native":
            continue
        if fact.value == "bias" and has_current(op) and case.spec.behaviour.current_bias.value == "native":
            yield Hit(
                case.named(name),
                LEAK_IN_CURRENT.message,
                _extreme(value),
                0,
                LEAK_IN_CURRENT.fix,
                cited(case.spec.behaviour.current_bias),
            )
            continue
        if fact.value == "bias":
            yield Hit(
                case.named(name),
                "its leak term becomes the neuron's bias",
                _extreme(value),
                fix="nothing to do: the two are the same",
                source=cited(fact),
                severity="info",
            )
            continue
        yield Hit(
            case.named(name),
            "has a leak towards a value other than zero",
            _extreme(value),
            0,
            "set v_leak to 0 and shift the threshold, or train without it",
            cited(fact),
            "unknown" if fact.value is None else breaking(fact),
        )


def no_decay(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.decays
    if fact.value != "none":
        return
    for name, op in case.neurons():
        for parameter, values in decays(op, case.graph.dt).items():
            if (values < 1).any():
                yield Hit(
                    case.named(name),
                    f"its {parameter} is not 1, and the chip's neurons only integrate",
                    float(values.min()),
                    1,
                    "train integrate-and-fire neurons (decay 1)",
                    cited(fact),
                    breaking(fact),
                )


def population_parameters(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.per_neuron
    if fact.value is None:
        return
    for name, op in case.topology.populations.items():
        for parameter, values, grid in _parameters(case, op):
            spread = float(values.max() - values.min()) if values.size else 0.0
            if parameter in fact.value or spread <= grid:
                continue
            distinct = int(np.unique(np.round(values / grid) if grid else values).size)
            fix = f"train one {parameter} per layer, or split the layer by it into {distinct}"
            if parameter != "threshold" and case.splits and distinct <= MOST_GROUPS:
                # In steps of time it would be split already: `compiler.lower.prepare`.
                yield Hit(
                    case.named(name),
                    f"{parameter} differs from neuron to neuron, and compiling splits the population",
                    distinct,
                    MOST_GROUPS,
                    "nothing to do; one per layer costs no populations",
                    cited(fact),
                    "info",
                )
                continue
            if parameter != "threshold" and case.compiles and prepares(case.spec) and distinct > MOST_GROUPS:
                fix += ", or compile with --allow-clustered-decays"
            if parameter == "threshold":
                fix = (
                    "divide each neuron's incoming weights, biases and leak by its threshold and set all thresholds "
                    "to 1: the spikes stay the same, as reset is to zero"
                )
            yield Hit(
                case.named(name),
                f"{parameter} differs from neuron to neuron ({values.min():.6g} to {values.max():.6g})",
                distinct,
                1,
                fix,
                cited(fact),
                breaking(fact),
            )


def _parameters(case: Case, op: Op) -> Iterator[tuple[str, Array, float]]:
    """(name, values, largest difference that does not matter) of what may have to be equal in a population."""
    grid = decay_step(case)
    if isinstance(op, Neuron):
        decay_of = decays(op, case.graph.dt)
        for name, values in decay_of.items():
            yield name, values, grid
        for name, times in time_constants(op).items() if not decay_of else ():
            if np.isfinite(times).all():
                yield name, times, 1e-6 * float(np.abs(times).max(initial=0))
    values_of = threshold(op)
    if values_of is not None:
        yield "threshold", values_of, 1e-9 * float(np.abs(values_of).max(initial=0))


def bias(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.bias
    if fact.value:
        return
    for wire in case.topology.wires:
        if not wire.biased or _with_current(case, wire):
            continue
        severity: Severity | None
        if fact.value is None:
            message, severity = "adds a bias, and nothing public says whether the neurons have one", "unknown"
        else:
            message, severity = "adds a bias, and the neurons have none", breaking(fact)
        yield Hit(case.named(wire.name), message, None, None, "train with bias=False", cited(fact), severity)


_OTHER_BIASES: dict[str | None, tuple[str, Severity]] = {
    None: ("nothing public says whether the chip's does", "unknown"),
    "settled": ("the chip's adds at once what that settles at: the first steps differ", "warning"),
}


def bias_channel(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.current_bias
    if fact.value == "native":
        return
    if fact.value != "channel":
        other, severity = _OTHER_BIASES.get(fact.value, ("the chip's does not", "error"))
        message = f"its bias enters a synaptic current, and {other}"
        supported = case.spec.kinds(case.graph.level)
        for wire in case.topology.wires:
            if wire.biased and any(op.kind in supported for op in _with_current(case, wire)):
                yield Hit(case.named(wire.name), message, None, None, "train with bias=False", cited(fact), severity)
        return
    for name, source in bias_carriers(case.graph, case.topology, case.spec).items():
        biased = next(wire for wire in case.topology.into(name) if wire.biased)
        if source is None:
            yield Hit(
                case.named(biased.name), NO_BIAS_CARRIER.message, None, None, NO_BIAS_CARRIER.fix, cited(fact), "error"
            )
            continue
        what = "input that is always on" if source in case.topology.entries else "neuron that spikes in every step"
        yield Hit(
            case.named(biased.name),
            f"its bias enters a synaptic current, and takes one more {what}",
            1,
            None,
            "nothing to do; train with bias=False to save it",
            cited(fact),
        )


def _with_current(case: Case, wire: Wire) -> list[Op]:
    """Neurons with a synaptic current that a connection feeds."""
    return [op for op in (case.graph.nodes[name] for name in wire.destinations) if has_current(op)]


# --------------------------------------------------------------------------------------------------------------------
# What enters


def graded_input(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.graded_input
    if fact.value:
        return
    code = "encode on the host as spikes: train with --encoder population"
    for name, op in _entries(case):
        if op.spikes:
            continue
        if case.contract is not None or not _undeclared(op) or case.graph.level is Level.INTEGER:
            yield Hit(
                case.named(name),
                "sends real values, and the chip takes binary spikes only"
                if fact.known
                else "sends real values, and nothing public says whether the chip takes them",
                None,
                None,
                code + " (each value as spikes of several neurons); or choose a target that takes graded spikes",
                cited(fact),
                "unknown" if fact.value is None else breaking(fact),
            )
        else:
            yield Hit(
                case.named(name),
                "must carry spikes: the chip takes no real values",
                fix="nothing to do if the input is spikes; if not, " + code,
                source=cited(fact),
                severity="info",
            )


def undeclared_input(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.graded_input
    if not case.integers and (fact.value or case.contract is not None or case.graph.level is Level.INTEGER):
        return
    why = "integers need to know" if case.integers else "the chip takes spikes only"
    for name, op in _entries(case):
        if _undeclared(op):
            yield Hit(
                case.named(name),
                f"nothing says whether spikes or values enter here, and {why}",
                None,
                None,
                "say it: --inputs spikes, or --inputs 4.0, the limit of values; or give it a contract",
                cited(fact),
                "unknown",
            )


def unlimited_input(case: Case) -> Iterator[Hit]:
    if not case.integers:
        return
    fact = case.spec.behaviour.graded_input
    for name, op in _entries(case):
        if op.bound is None and not _undeclared(op):
            yield Hit(
                case.named(name),
                "values enter without a limit, and the chip's integers have one",
                None,
                None,
                "give the Input a limit, at which values are clipped, or put a Normalise before the core",
                cited(fact),
            )


def _entries(case: Case) -> Iterator[tuple[str, Op]]:
    return ((name, case.graph.nodes[name]) for name in case.topology.entries)


def _undeclared(op: Op) -> bool:
    return isinstance(op, Input) and op.carries == "unknown" and op.limit is None


def _extreme(values: Array) -> float:
    return float(values.flat[int(np.abs(values).argmax())])
