"""What each executable node computes: the definition. Plain numpy, one function per type, batch first.

Float levels are float64. The integer level is exact integer arithmetic in int64 and equals the fixed-point models of
lava-nc 0.10.0 (PyDenseModelBitAcc, PyLifModelBitAcc, PyLifResetModelBitAcc) to the bit, within the ranges that
compiling proves. Engines may be faster; none may differ.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nervecord.compiler import nodes as n
from nervecord.compiler.node import Array, Node
from nervecord.errors import GraphError

State: TypeAlias = dict[str, Array]
"""A node's state: name -> (batch, ...) array. "u" synaptic current, "v" membrane, "buffer" a connection's pipeline."""

DECAY_ONE = 4096
"""Decay factors are fractions of 2^12."""
U_WRAP = 1 << 23
"""The synaptic current wraps to 24 bit, signed."""
V_LIMIT = (1 << 23) - 1
"""The membrane saturates here."""
MANTISSA_SHIFT = 6
"""Activations and thresholds enter 6 bits up: u, v = value << 6."""
READOUT_THRESHOLD = 131071
"""The largest threshold mantissa: a neuron that is read instead of spiking has this one."""


def initial_state(node: Node, batch: int) -> State:
    """State before the first step: zeros. Stateless nodes have none."""
    dtype: type = np.int64 if isinstance(node, (n.FixedDense, *n.FIXED_NEURONS)) else np.float64

    def zeros(*shape: int) -> Array:
        return np.zeros(shape, dtype=dtype)

    match node:
        case n.Affine(delay=delay) if delay > 0:
            return {"buffer": zeros(delay, batch, *node.out_shape)}
        case n.FixedDense():
            return {"buffer": zeros(1, batch, *node.out_shape)}
        case n.DiscreteLI() | n.DiscreteLIF():
            return {"v": zeros(batch, *node.in_shape)}
        case n.DiscreteCubaLI() | n.DiscreteCubaLIF() | n.FixedLIF() | n.FixedReadout():
            return {"u": zeros(batch, *node.in_shape), "v": zeros(batch, *node.in_shape)}
    return {}


def step(node: Node, state: State, x: Array, t: int) -> Array:
    """One step of a node that does not delay: y from x (batch, *in_shape); `state` is updated.

    Args:
        t: steps since the session was reset, from 0; reset windows count on it.

    Raises:
        GraphError: the node has no executable meaning.
    """
    match node:
        case n.Input() | n.Output():
            return x
        case n.Affine():
            y = product(node, x)
            return y if node.bias is None else y + node.bias
        case n.DiscreteLI() | n.DiscreteCubaLI():
            state["v"] = float_membrane(node, state, x)
            return state["v"]
        case n.DiscreteLIF() | n.DiscreteCubaLIF():
            v = float_membrane(node, state, x)
            spiked = v > node.threshold
            state["v"] = apply_reset(node, v, spiked)
            return spiked.astype(np.float64)
        case n.FixedLIF():
            _fixed_membrane(node, state, x, t)
            spiked = state["v"] > (node.threshold << MANTISSA_SHIFT)
            state["v"] = np.where(spiked, 0, state["v"])
            return spiked.astype(np.int64)
        case n.FixedReadout():
            _fixed_membrane(node, state, x, t)
            # The chip's neuron would spike and lose its value here; compiling proves that it does not.
            if (state["v"] > (READOUT_THRESHOLD << MANTISSA_SHIFT)).any():
                raise GraphError("readout membrane passed its threshold", where=(*node.origin, node.kind)[0])
            return state["v"]
        case n.Scale():
            return node.scale * x
        case n.Flatten():
            return x.reshape(x.shape[0], *node.out_shape)
        case n.Threshold():
            return (x > node.threshold).astype(np.float64)
        case n.Normalise():
            return normalise(node, x)
        case n.Quantise():
            return quantise(node, x)
        case n.Decode():
            return np.clip(x * node.scale + node.offset, node.low, node.high)
        case n.ArgmaxDecode():
            return first_largest(x)
    raise GraphError(f"{node.kind} cannot be executed", where=(*node.origin, node.kind)[0])


def product(node: Node, x: Array) -> Array:
    """W x of a weighted connection, before any delay and bias: (batch, in) -> (batch, out)."""
    match node:
        case n.Affine():
            return x @ node.weight.T
        case n.FixedDense():
            accumulated = x.astype(np.int64) @ node.weight.astype(np.int64).T
            e = node.weight_exp
            return accumulated << e if e > 0 else accumulated >> -e
    raise GraphError(f"{node.kind} is no weighted connection")


def delayed_output(node: Node, state: State) -> Array:
    """What a delaying connection gives at this step: the oldest product in its buffer, and its bias."""
    y = state["buffer"][0]
    if isinstance(node, n.Affine) and node.bias is not None:
        return y + node.bias
    return y.copy()


def push(state: State, y: Array) -> None:
    """End of the step for a delaying connection: y enters its buffer, the oldest leaves."""
    buffer = state["buffer"]
    buffer[:-1] = buffer[1:]
    buffer[-1] = y


# --------------------------------------------------------------------------------------------------------------------


def apply_reset(node: n.DiscreteLIF | n.DiscreteCubaLIF, v: Array, spiked: NDArray[np.bool_]) -> Array:
    """v after a float neuron's reset rule, where it spiked."""
    match node.reset:
        case "value":
            return np.where(spiked, node.reset_value, v)
        case "subtract":
            return np.where(spiked, v - node.threshold, v)
        case "none":
            return v
    raise GraphError(f"unknown reset rule {node.reset!r}")


def float_membrane(
    node: n.DiscreteLI | n.DiscreteLIF | n.DiscreteCubaLI | n.DiscreteCubaLIF, state: State, x: Array
) -> Array:
    """v of this step before any reset; the synaptic current in `state` is updated, v is not."""
    if isinstance(node, (n.DiscreteCubaLI, n.DiscreteCubaLIF)):
        state["u"] = x = node.current_decay * state["u"] + node.current_gain * x
    return node.decay * state["v"] + node.gain * x + node.leak


def decay(a: Array, factor: int) -> Array:
    """sign(a) * ((|a| * factor) >> 12): rounds toward zero."""
    return np.sign(a) * ((np.abs(a) * factor) >> 12)


def _fixed_membrane(node: n.FixedLIF | n.FixedReadout, state: State, x: Array, t: int) -> None:
    if node.reset_interval and t % node.reset_interval == node.reset_offset:
        state["u"] = np.zeros_like(state["u"])
        state["v"] = np.zeros_like(state["v"])
    u = decay(state["u"], DECAY_ONE - (node.du + 1)) + (x.astype(np.int64) << MANTISSA_SHIFT)
    # Once, as Lava does: a sum beyond twice the range leaves 24 bits, and compiling refuses weights that could.
    u = np.where(u > U_WRAP, u - 2 * U_WRAP, np.where(u <= -U_WRAP, u + 2 * U_WRAP, u))
    bias = node.bias_mant.astype(np.int64) << node.bias_exp
    state["u"] = u
    state["v"] = np.clip(decay(state["v"], DECAY_ONE - node.dv) + u + bias, -V_LIMIT, V_LIMIT)


def normalise(node: n.Normalise, x: Array) -> Array:
    """The host's normalisation in float64: subtract, divide, clip, each rounded on its own."""
    return np.clip((x - node.mean) / divisor(node), -node.clip, node.clip)


def count_decode(node: n.CountDecode, counts: Array) -> Array:
    """The action (batch, actions) of spike counts (batch, actions * neurons); see the node for the order of its sum."""
    return np.clip(weigh_counts(node, counts), node.low, node.high)


def weigh_counts(node: n.CountDecode | n.CountArgmaxDecode, counts: Array) -> Array:
    """What spike counts (batch, actions * neurons) say of each action: (batch, actions), before any limit or choice."""
    c = counts.reshape(len(counts), *node.weight.shape).astype(np.float64)
    y = node.weight[:, 0] * c[..., 0]
    for k in range(1, node.weight.shape[1]):
        y = y + node.weight[:, k] * c[..., k]
    return y + node.offset


def first_largest(x: Array) -> Array:
    """The choice (batch, 1) among x (batch, actions): index of the first largest; NaN where not all are finite."""
    chosen = np.argmax(x, axis=-1).astype(np.float64)
    return np.where(np.isfinite(x).all(axis=-1), chosen, np.nan)[..., None]


def divisor(node: n.Normalise) -> Array:
    """What the host divides by, (n,)."""
    if node.epsilon_outside:
        return np.sqrt(node.variance) + node.epsilon
    return np.sqrt(node.variance + node.epsilon)


def quantise(node: n.Quantise, x: Array) -> Array:
    """The host's encoding into graded integers: multiply, round half to even, clip."""
    y = np.clip(np.rint(x * node.scale), -node.limit, node.limit).astype(np.int64)
    if not node.constant:
        return y
    return np.concatenate([y, np.full((y.shape[0], 1), node.constant, dtype=np.int64)], axis=1)
