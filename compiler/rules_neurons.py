"""Rules about neurons and what enters them: kinds, resets, leaks, biases, parameters, input."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.findings import Severity
from nervecord.compiler.graph import Level
from nervecord.compiler.node import Array, Node
from nervecord.compiler.place import biased_currents
from nervecord.compiler.rules import Case, Hit, broken, cited, decay_of
from nervecord.compiler.target import DECIDING
from nervecord.compiler.topology import CURRENT_BASED, WEIGHTED, Connection, is_core

RESETTING = (n.ContinuousIF, n.ContinuousLIF, n.ContinuousCubaLIF, n.DiscreteLIF, n.DiscreteCubaLIF)
"""Neurons that spike and then reset, at float levels."""

_KIND_FIXES = {
    "Conv2d": "unroll it into an Affine where it is small, or use a target that convolves (speck)",
    "Pool2d": "fold it into the next layer's weights, or use strides in place of pooling",
    "Delay": "delay a whole connection by steps (Affine.delay) instead",
    "Scale": "fold the factors into the weights of the connection before or after it",
    "Flatten": "give the network flat vectors; its order of values is what the weights expect",
    "Threshold": "use an IF neuron, which spikes on its membrane",
}


def unsupported_node(case: Case) -> Iterator[Hit]:
    supported = case.spec.kinds(case.graph.level)
    for name, node in case.graph.nodes.items():
        if not is_core(node) or node.kind in supported:
            continue
        fix = _KIND_FIXES.get(node.kind, "")
        if not fix and case.spec.kinds(Level.DISCRETE) and case.graph.level is Level.INTEGER:
            fix = "this graph is already in another chip's integers: compile from the float policy"
        elif not fix:
            alike = [kind for kind in supported if hasattr(n, kind) and _alike(node, getattr(n, kind))]
            fix = f"replace it by {' or '.join(alike)}" if alike else "choose another target"
        if case.spec.nodes_confidence in DECIDING:
            yield Hit(case.named(name), f"{node.kind} cannot be realised", None, None, fix, case.spec.nodes_source)
        else:
            message = f"nothing public says whether {node.kind} can be realised"
            yield Hit(case.named(name), message, None, None, fix, case.spec.nodes_source, "unknown")


def _alike(node: Node, kind: type[Node]) -> bool:
    """Whether a kind could stand in for a node: spiking for spiking, readout for readout, weights for weights."""
    groups = (n.SPIKING, tuple(kind for kind in n.NEURONS if kind not in n.SPIKING), WEIGHTED)
    return any(isinstance(node, group) and issubclass(kind, group) for group in groups)


def reset_rule(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.resets
    for name, node in case.populations(*RESETTING):
        # NIR's neurons have one rule: reset to a value.
        rule: str = getattr(node, "reset", "value")
        if fact.value is None:
            yield Hit(
                case.named(name), f"resets by {rule!r}, and what the chip does is not known", rule,
                source=fact.source, severity="unknown",
            )  # fmt: skip
        elif rule not in fact.value:
            yield Hit(
                case.named(name), f"resets by {rule!r}, which the chip does not do", rule, ", ".join(fact.value),
                "train with reset to zero: no conversion keeps the spikes"
                if "value" in fact.value
                else f"train with reset by {fact.value[0]!r}: no conversion keeps the spikes",
                cited(fact), broken(fact),
            )  # fmt: skip


def reset_value(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.nonzero_reset
    for name, node in case.populations():
        value = getattr(node, "reset_value", None)
        if value is None or not (value != 0).any() or getattr(node, "reset", "value") != "value" or fact.value:
            continue
        yield Hit(
            case.named(name), "resets to a value other than zero", _extreme(value), 0,
            "train with a reset value of 0, or shift v, threshold and leak by it (v then starts at minus that)",
            cited(fact), "unknown" if fact.value is None else broken(fact),
        )  # fmt: skip


def leak(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.leak
    for name, node in case.populations():
        value = getattr(node, "leak", None)
        if value is None or not (value != 0).any() or fact.value == "native":
            continue
        if fact.value == "bias":
            yield Hit(
                case.named(name), "its leak term becomes the neuron's bias", _extreme(value),
                fix="nothing to do: the two are the same", source=cited(fact), severity="info",
            )  # fmt: skip
            continue
        yield Hit(
            case.named(name), "has a leak towards a value other than zero", _extreme(value), 0,
            "set v_leak to 0 and shift the threshold, or train without it", cited(fact),
            "unknown" if fact.value is None else broken(fact),
        )  # fmt: skip


def no_decay(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.decays
    if fact.value != "none":
        return
    for name, node in case.populations():
        for parameter, values in decay_of(node, case.graph.dt).items():
            if (values < 1).any():
                yield Hit(
                    case.named(name), f"its {parameter} is not 1, and the chip's neurons only integrate",
                    float(values.min()), 1, "train integrate-and-fire neurons (decay 1)", cited(fact), broken(fact),
                )  # fmt: skip


def population_parameters(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.per_neuron
    if fact.value is None:
        return
    for name, node in case.populations():
        for parameter, values, grid in _parameters(case, node):
            spread = float(values.max() - values.min()) if values.size else 0.0
            if parameter in fact.value or spread <= grid:
                continue
            distinct = int(np.unique(np.round(values / grid) if grid else values).size)
            fix = f"train one {parameter} per layer, or split the layer by it into {distinct}"
            if parameter == "threshold":
                fix = (
                    "divide each neuron's incoming weights, biases and leak by its threshold and set all thresholds "
                    "to 1: the spikes stay the same, as reset is to zero"
                )
            yield Hit(
                case.named(name),
                f"{parameter} differs from neuron to neuron ({values.min():.6g} to {values.max():.6g})",
                distinct, 1, fix, cited(fact), broken(fact),
            )  # fmt: skip


def _parameters(case: Case, node: Node) -> Iterator[tuple[str, Array, float]]:
    """(name, values, largest difference that does not matter) of what may have to be equal in a population."""
    bits = case.spec.limits.decay_bits.value
    grid = 0.0 if bits is None or math.isinf(bits) else 2.0 ** -float(bits)
    decays = decay_of(node, case.graph.dt)
    for name, values in decays.items():
        yield name, values, grid
    if not decays:
        for name, field in (("decay", "tau"), ("current decay", "tau_syn")):
            times: Array | None = getattr(node, field, None)
            if times is not None and np.isfinite(times).all():
                yield name, times, 1e-6 * float(np.abs(times).max(initial=0))
    threshold = getattr(node, "threshold", None)
    if isinstance(threshold, np.ndarray):
        yield "threshold", threshold, 1e-9 * float(np.abs(threshold).max(initial=0))


def bias(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.bias
    if fact.value:
        return
    for connection in case.topology.connections:
        if not connection.biased or _current_based(case, connection):
            continue
        severity: Severity | None
        if fact.value is None:
            message, severity = "adds a bias, and nothing public says whether the neurons have one", "unknown"
        else:
            message, severity = "adds a bias, and the neurons have none", broken(fact)
        yield Hit(
            case.named(connection.name), message, None, None, "train with bias=False", cited(fact), severity,
        )  # fmt: skip


def bias_channel(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.current_bias
    if fact.value == "native":
        return
    if fact.value != "channel":
        supported = case.spec.kinds(case.graph.level)
        for connection in case.topology.connections:
            if connection.biased and any(node.kind in supported for node in _current_based(case, connection)):
                yield Hit(
                    case.named(connection.name),
                    "its bias enters a synaptic current, and nothing public says whether the chip's does",
                    None, None, "train with bias=False", cited(fact), "unknown" if fact.value is None else "error",
                )  # fmt: skip
        return
    for connection in biased_currents(case.graph, case.topology, case.spec):
        from_input = any(source in case.topology.entries for source in connection.sources)
        what = "input that is always on" if from_input else "neuron that spikes in every step"
        yield Hit(
            case.named(connection.name), f"its bias enters a synaptic current, and takes one more {what}",
            1, None, "nothing to do; train with bias=False to save it", cited(fact),
        )  # fmt: skip


def _current_based(case: Case, connection: Connection) -> list[Node]:
    """Neurons with a synaptic current that a connection feeds."""
    reached = (case.graph.nodes[name] for name in connection.destinations)
    return [node for node in reached if isinstance(node, CURRENT_BASED)]


def graded_input(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.graded_input
    if fact.value:
        return
    code = "encode on the host as spikes: train with --encoder population"
    for name in case.topology.entries:
        if isinstance(case.graph.nodes[name], n.PopulationEncode):
            continue
        real = case.graph.contract is not None or not isinstance(case.graph.nodes[name], n.Input)
        graded = any(getattr(c.node, "graded", False) for c in case.topology.out_of(name))
        if case.graph.level is Level.INTEGER and not graded:
            continue
        if real or graded:
            yield Hit(
                case.named(name),
                "sends real values, and the chip takes binary spikes only" if fact.known
                else "sends real values, and nothing public says whether the chip takes them",
                None, None,
                code + " (each value as spikes of several neurons); or choose a target with graded spikes (lava)",
                cited(fact), "unknown" if fact.value is None else broken(fact),
            )  # fmt: skip
        else:
            yield Hit(
                case.named(name), "must carry spikes: the chip takes no real values",
                fix="nothing to do if the input is spikes; if not, " + code, source=cited(fact), severity="info",
            )  # fmt: skip


def _extreme(values: Array) -> float:
    return float(values.flat[int(np.abs(values).argmax())])
