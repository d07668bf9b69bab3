"""The host's ops as ONNX nodes: normaliser, encoders and decoders, in double, operation by operation as defined.

`compiler.ops.host` rounds each operation on its own, and so do separate nodes: the results are equal to the bit.
"""

from __future__ import annotations

import numpy as np

from nervecord.compiler.body.expression import Body
from nervecord.compiler.ops import Array, HostOp, Op
from nervecord.targets.onnx.builder import Builder
from nervecord.targets.onnx.equations import Equations, Slots
from nervecord.targets.onnx.integers import DOUBLE


def all_true(builder: Builder, each: str, count: int) -> str:
    """Whether all of `count` columns [batch, count] are true: [batch, 1]."""
    ones = builder.constant(np.ones((count, 1), dtype=np.float32))
    count_true = builder.op("MatMul", builder.cast(each, np.float32), ones)
    return builder.op("Equal", count_true, builder.constant(np.array([[count]], dtype=np.float32)))


def finite(builder: Builder, x: str) -> str:
    """Which values are neither NaN nor infinite; x - x is 0 for those alone."""
    return builder.op("Equal", builder.op("Sub", x, x), builder.row(np.zeros(1), DOUBLE))


class Host:
    """Makes the nodes of host ops, in double.

    Args:
        builder: takes them.
    """

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self._equations = Equations(builder, DOUBLE)
        self._bodies: dict[int, tuple[Body, Body | None]] = {}

    def takes(self, op: Op) -> bool:
        """Whether every operation of an op has a form."""
        return isinstance(op, HostOp) and all(self._equations.takes(body) for body in self._traced(op) if body)

    def step(self, op: Op, x: str) -> str:
        """What an op without `pulse` makes of x."""
        assert isinstance(op, HostOp)
        y = self._values(op, x)
        if op.CHOOSES:
            width = op.in_shape[0] if op.weights is None else len(op.weights)
            return _first_largest(self.builder, y, width)
        return self._appended(op, y)

    def train(self, op: Op, state: Slots, x: str, steps: int) -> list[str]:
        """What an op with `pulse` sends in each step; its state goes on."""
        assert isinstance(op, HostOp)
        body = self._traced(op)[1]
        assert body is not None
        size, drive = op.size - bool(op.appended), self._values(op, x)
        return [
            self._appended(op, self._standing(self._equations.step(body, size, state, drive), size))
            for _ in range(steps)
        ]

    def _traced(self, op: HostOp) -> tuple[Body, Body | None]:
        if id(op) not in self._bodies:
            self._bodies[id(op)] = op.traced(), op.pulse_body if op.PULSES else None
        return self._bodies[id(op)]

    def _values(self, op: HostOp, x: str) -> str:
        if op.spread > 1:
            each = np.repeat(np.arange(op.in_shape[0]), op.spread)
            x = self.builder.op("Gather", x, self.builder.constant(each), axis=1)
        if op.weights is not None:
            x = _ordered_sums(self.builder, op.weights, x)
        size = op.in_shape[0] * op.spread if op.weights is None else len(op.weights)
        return self._standing(self._equations.step(self._traced(op)[0], size, {}, x), size)

    def _standing(self, value: str | None, size: int) -> str:
        return self.builder.full(np.zeros(size), DOUBLE) if value is None else value

    def _appended(self, op: HostOp, y: str) -> str:
        if not op.appended:
            return y
        return self.builder.joined([y, self.builder.full(np.array([op.appended]), DOUBLE)])


def _ordered_sums(builder: Builder, weights: Array, x: str) -> str:
    """`compiler.ops.hostop.ordered_sums`: the products are added in their order."""
    sums, each = weights.shape
    apart = builder.reshaped(x, builder.batch, sums, each)
    products = builder.op("Mul", apart, builder.constant(weights[None]))
    places = (builder.constant(np.array(k, dtype=np.int64)) for k in range(each))
    total = builder.total([builder.op("Gather", products, place, axis=2) for place in places])
    assert total is not None
    return total


def _first_largest(builder: Builder, x: str, width: int) -> str:
    chosen = builder.cast(builder.op("ArgMax", x, axis=1, keepdims=1), DOUBLE)
    all_finite = all_true(builder, finite(builder, x), width)
    return builder.op("Where", all_finite, chosen, builder.constant(np.full((1, 1), np.nan)))
