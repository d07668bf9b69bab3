"""Proved ranges of an integer graph: what every accumulator and membrane can reach, whatever is observed.

Interval arithmetic with the definition's own rounding, from the encoder's limit through the weights, over the steps
between two resets (or to the limit it cannot pass where state is carried). Nothing measured enters, so a bound that
holds here holds for every observation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler import semantics
from nervecord.compiler.findings import Finding
from nervecord.compiler.graph import Graph, Level
from nervecord.compiler.host import Host
from nervecord.compiler.node import Array
from nervecord.compiler.verify import require
from nervecord.errors import GraphError

ACCUMULATOR_LIMIT = 1 << 17
"""Below it a << 6 fits 24 bits, so the synaptic current wraps at most once and int32 never overflows."""
PRODUCT_LIMIT = 1 << 31
"""Lava accumulates W s in int32."""


@dataclass(frozen=True, slots=True)
class LayerRange:
    """What one connection and the neurons behind it can reach.

    Args:
        dense, neuron: names.
        product: largest |W s| before the weight exponent.
        accumulator: largest |a| after it.
        current: largest |u|.
        membrane: smallest and largest v before a reset, in v's units (64 per threshold unit); None: no bound was found.
        readout: the neurons are read and must not spike.
    """

    dense: str
    neuron: str
    product: int
    accumulator: int
    current: int
    membrane: tuple[int, int] | None
    readout: bool


def prove(graph: Graph) -> list[LayerRange]:
    """Ranges of every layer, in order.

    Args:
        graph: INTEGER, a chain of FixedDense and FixedLIF or FixedReadout.

    Raises:
        GraphError: the graph is no such chain.
    """
    require(graph, Level.INTEGER)
    low, high = input_range(graph)
    ranges = []
    for name in graph.order():
        node = graph.nodes[name]
        if not isinstance(node, n.FixedDense):
            continue
        (neuron,) = graph.destinations(name)
        target = graph.nodes[neuron]
        if not isinstance(target, (n.FixedLIF, n.FixedReadout)) or len(graph.sources(neuron)) != 1:
            raise GraphError("only chains of connection and neurons can be bounded", where=neuron)
        proved = layer_range(name, node, neuron, target, low, high)
        ranges.append(proved)
        low, high = np.zeros(target.in_shape, dtype=np.int64), np.ones(target.in_shape, dtype=np.int64)
    return ranges


def check(ranges: list[LayerRange]) -> list[Finding]:
    """One finding for every range that the arithmetic cannot hold."""
    found = []
    limits = [("product", PRODUCT_LIMIT - 1), ("accumulator", ACCUMULATOR_LIMIT - 1), ("current", semantics.V_LIMIT)]
    for layer in ranges:
        for field, limit in limits:
            value = getattr(layer, field)
            if value > limit:
                found.append(_overflow(f"{field}-overflow", layer.dense, f"{field} may overflow", value, limit))
        if layer.membrane is None:
            found.append(_overflow("membrane-unbounded", layer.neuron, "carried membrane has no bound", "none", 0))
            continue
        low, high = layer.membrane
        if -low > semantics.V_LIMIT:
            found.append(_overflow("membrane-saturates", layer.neuron, "may saturate", low, -semantics.V_LIMIT))
        limit = semantics.READOUT_THRESHOLD << semantics.MANTISSA_SHIFT
        if layer.readout:
            if high > limit:
                found.append(_overflow("readout-saturates", layer.neuron, "readout may spike", high, limit))
        elif high > semantics.V_LIMIT:
            found.append(_overflow("membrane-saturates", layer.neuron, "may saturate", high, semantics.V_LIMIT))
    return found


def _overflow(code: str, node: str, message: str, value: int | str, limit: int) -> Finding:
    return Finding(code, "error", node, message, value, limit, fix="scale the weights down: a smaller weight exponent")


def input_range(graph: Graph) -> tuple[Array, Array]:
    """(low, high) of what enters the core: the encoder's limits, or binary spikes."""
    quantisers = [node for _, node in graph.of_type(n.Quantise)]
    if quantisers:
        (node,) = quantisers
        assert isinstance(node, n.Quantise)
        high = np.full(node.size, node.limit, dtype=np.int64)
        low = -high
        if node.constant:
            # The source also sends zeros, while the pipeline drains.
            low = np.append(low, min(node.constant, 0))
            high = np.append(high, max(node.constant, 0))
        return low, high
    (entry,) = Host(graph).sources
    shape = graph.nodes[entry].out_shape
    return np.zeros(shape, dtype=np.int64), np.ones(shape, dtype=np.int64)


def layer_range(
    name: str, dense: n.FixedDense, neuron: str, node: n.FixedLIF | n.FixedReadout, low: Array, high: Array
) -> LayerRange:
    """Range of one layer whose inputs, (in,) each, lie in low..high or are absent."""
    # The input may always be absent (a drained pipeline), so zero belongs to its range.
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    weight = dense.weight.astype(np.int64)
    positive, negative = np.maximum(weight, 0), np.minimum(weight, 0)
    top, bottom = positive @ high + negative @ low, positive @ low + negative @ high
    e = dense.weight_exp
    a_top, a_bottom = (top << e, bottom << e) if e > 0 else (top >> -e, bottom >> -e)
    u_low, u_high, membrane = _integrate(node, a_bottom, a_top)
    return LayerRange(
        dense=name,
        neuron=neuron,
        product=int(max(top.max(), -bottom.min())),
        accumulator=int(max(a_top.max(), -a_bottom.min())),
        current=int(max(u_high.max(), -u_low.min())),
        membrane=membrane,
        readout=isinstance(node, n.FixedReadout),
    )


def _integrate(
    node: n.FixedLIF | n.FixedReadout, a_low: Array, a_high: Array
) -> tuple[Array, Array, tuple[int, int] | None]:
    """Bounds of u and v over the steps between two resets; of v before a spike resets it."""
    if not node.reset_interval:
        return _settle(node, a_low, a_high)
    bias = node.bias_mant.astype(np.int64) << node.bias_exp
    du, dv = semantics.DECAY_ONE - (node.du + 1), semantics.DECAY_ONE - node.dv
    shift = semantics.MANTISSA_SHIFT
    zero = np.zeros_like(bias)
    u_low, u_high, v_low, v_high = zero, zero, zero, zero
    worst = (zero, zero)
    for _ in range(node.reset_interval):
        # Zero stays inside every interval: neurons may sit still, and decay is monotone.
        u_low = np.minimum(semantics.decay(u_low, du) + (a_low << shift), 0)
        u_high = np.maximum(semantics.decay(u_high, du) + (a_high << shift), 0)
        v_low = np.minimum(semantics.decay(v_low, dv) + u_low + bias, 0)
        v_high = np.maximum(semantics.decay(v_high, dv) + u_high + bias, 0)
        worst = (np.minimum(worst[0], v_low), np.maximum(worst[1], v_high))
        if isinstance(node, n.FixedLIF):
            v_high = np.minimum(v_high, node.threshold << shift)
    return u_low, u_high, (int(worst[0].min()), int(worst[1].max()))


def _settle(
    node: n.FixedLIF | n.FixedReadout, a_low: Array, a_high: Array
) -> tuple[Array, Array, tuple[int, int] | None]:
    """The same for state that is never cleared: x = decay(x) + c cannot pass c / (1 - decay), from either side."""
    bias = node.bias_mant.astype(np.int64) << node.bias_exp
    shift = semantics.MANTISSA_SHIFT
    u_low, u_high = _limit(a_low << shift, node.du + 1), _limit(a_high << shift, node.du + 1)
    low, high = np.minimum(u_low + bias, 0), np.maximum(u_high + bias, 0)
    if isinstance(node, n.FixedLIF):
        threshold = np.array(node.threshold << shift, dtype=np.int64)
        v_high = semantics.decay(threshold, semantics.DECAY_ONE - node.dv) + high
        grows = low
    else:
        v_high = _limit(high, node.dv) if node.dv else high
        grows = np.concatenate([low, high])
    if node.dv == 0 and grows.any():
        return u_low, u_high, None
    v_low = _limit(low, node.dv) if node.dv else low
    return u_low, u_high, (int(v_low.min()), int(v_high.max()))


def _limit(c: Array, leak: int) -> Array:
    """c * 4096 / leak, rounded away from zero."""
    return np.sign(c) * -(-np.abs(c) * semantics.DECAY_ONE // leak)
