"""The host's ops as ONNX nodes: normaliser, encoders and decoders, in double, operation by operation as defined.

`compiler.ops.host` rounds each operation on its own, and so do separate nodes: the results are equal to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nervecord.compiler.ops import (
    ArgmaxDecode,
    Array,
    BiasChannel,
    CountArgmaxDecode,
    CountDecode,
    Decode,
    Input,
    Normalise,
    Op,
    PopulationEncode,
    Quantise,
    Rescale,
)
from nervecord.compiler.ops.population import COEFFICIENTS, DEGREE, HALF_LOG2_E, LARGEST_EXPONENT, ONE, POWERS
from nervecord.targets.onnx.builder import Builder
from nervecord.targets.onnx.equations import Value
from nervecord.targets.onnx.integers import DOUBLE

BEFORE: tuple[type[Op], ...] = (Input, Normalise, Quantise, BiasChannel, PopulationEncode)
AFTER: tuple[type[Op], ...] = (Decode, Rescale, CountDecode, ArgmaxDecode, CountArgmaxDecode)


def all_true(builder: Builder, each: str, count: int) -> str:
    """Whether all of `count` columns [batch, count] are true: [batch, 1]."""
    ones = builder.constant(np.ones((count, 1), dtype=np.float32))
    found = builder.op("MatMul", builder.cast(each, np.float32), ones)
    return builder.op("Equal", found, builder.constant(np.array([[count]], dtype=np.float32)))


def finite(builder: Builder, x: str) -> str:
    """Which values are neither NaN nor infinite; x - x is 0 for those alone."""
    return builder.op("Equal", builder.op("Sub", x, x), builder.row(np.zeros(1), DOUBLE))


# --------------------------------------------------------------------------------------------------------------------
# Before the core


def entered(builder: Builder, op: Op, x: str) -> str:
    """What an op before the core makes of x; of an encoder of spikes see `train`."""
    match op:
        case Input():
            if op.limit is None or op.spikes:
                return x
            return builder.clipped(x, -op.limit, op.limit, DOUBLE)
        case Normalise():
            centred = builder.op("Sub", x, builder.row(op.mean, DOUBLE))
            divided = builder.op("Div", centred, builder.row(op.divisor, DOUBLE))
            return builder.clipped(divided, -op.clip, op.clip, DOUBLE)
        case Quantise():
            scaled = builder.op("Mul", x, builder.row(np.array([op.scale]), DOUBLE))
            whole = builder.clipped(builder.op("Round", scaled), -float(op.limit), float(op.limit), DOUBLE)
            if not op.constant:
                return whole
            return builder.joined([whole, builder.full(np.array([op.constant]), DOUBLE)])
        case BiasChannel():
            return builder.joined([x, builder.full(np.ones(1), DOUBLE)])
    raise TypeError(op.kind)


def train(builder: Builder, op: PopulationEncode, v: Value, x: str, steps: int) -> tuple[list[str], str]:
    """(spikes of each step, accumulators after the last); v: before the first."""
    units = _activation(builder, op, x)
    sent: list[str] = []
    one = builder.row(np.array([ONE]), DOUBLE)
    for _ in range(steps):
        v = units if v is None else builder.op("Add", v, units)
        spiked = builder.op("Not", builder.op("Less", v, one))
        v = builder.op("Where", spiked, builder.op("Sub", v, one), v)
        spikes = builder.cast(spiked, DOUBLE)
        sent.append(builder.joined([spikes, builder.full(np.ones(1), DOUBLE)]) if op.always else spikes)
    assert v is not None
    return sent, v


def _activation(builder: Builder, op: PopulationEncode, x: str) -> str:
    """`population.activation`: [batch, channels * neurons]."""

    def number(value: float) -> str:
        return builder.constant(np.array([[[value]]], dtype=DOUBLE))

    channels, width = op.mean.shape
    low, high = builder.row(op.mean[:, 0], DOUBLE), builder.row(op.mean[:, -1], DOUBLE)
    held = builder.reshaped(builder.op("Min", builder.op("Max", x, low), high), builder.batch, channels, 1)
    z = builder.op("Div", builder.op("Sub", held, builder.constant(op.mean[None])), number(op.sigma))
    e = builder.op("Min", builder.op("Mul", builder.op("Mul", z, z), number(HALF_LOG2_E)), number(LARGEST_EXPONENT))
    k = builder.op("Floor", e)
    f = builder.op("Sub", e, k)
    p = number(COEFFICIENTS[DEGREE])
    for c in COEFFICIENTS[DEGREE - 1 :: -1]:
        p = builder.op("Add", builder.op("Mul", p, f), number(c))
    power = builder.op("Gather", builder.constant(POWERS), builder.cast(k, np.int64))
    units = builder.op("Round", builder.op("Mul", builder.op("Mul", p, power), number(float(ONE))))
    return builder.reshaped(units, builder.batch, channels * width)


# --------------------------------------------------------------------------------------------------------------------
# After the core


def decoded(builder: Builder, op: Op, x: str) -> str:
    """What an op after the core makes of x, in double."""
    match op:
        case Decode():
            scaled = builder.op("Mul", x, builder.row(op.scale, DOUBLE))
            moved = builder.op("Add", scaled, builder.row(op.offset, DOUBLE))
            return builder.clipped(moved, op.low, op.high, DOUBLE)
        case Rescale():
            return builder.op("Mul", x, builder.row(op.scale, DOUBLE))
        case CountDecode():
            return builder.clipped(_weighed(builder, op.weight, op.offset, x), op.low, op.high, DOUBLE)
        case ArgmaxDecode():
            return _first_largest(builder, x, op.width)
        case CountArgmaxDecode():
            return _first_largest(builder, _weighed(builder, op.weight, op.offset, x), op.choices)
    raise TypeError(op.kind)


def _weighed(builder: Builder, weight: Array, offset: Array, counts: str) -> str:
    """`compiler.ops.host.weigh`: the products are added in the order of the neurons."""
    actions, neurons = weight.shape
    apart = builder.reshaped(counts, builder.batch, actions, neurons)
    products = builder.op("Mul", apart, builder.constant(weight[None]))
    parts = [
        builder.op("Gather", products, builder.constant(np.array(k, dtype=np.int64)), axis=2) for k in range(neurons)
    ]
    return builder.op("Add", _summed(builder, parts), builder.row(offset, DOUBLE))


def _summed(builder: Builder, parts: Sequence[str]) -> str:
    found = builder.total(parts)
    assert found is not None
    return found


def _first_largest(builder: Builder, x: str, width: int) -> str:
    chosen = builder.cast(builder.op("ArgMax", x, axis=1, keepdims=1), DOUBLE)
    known = all_true(builder, finite(builder, x), width)
    return builder.op("Where", known, chosen, builder.constant(np.full((1, 1), np.nan)))
