"""Core ops of integers as ONNX nodes: whole numbers in double, exact to the bit in any arithmetic.

Every value is a whole number below 2^53, as the proved ranges say, so that double holds it and no order of adding
matters. Products by a power of two are exact, so that a shift is a product, rounded down by Floor. Sums of products
that stay below 2^24 are made in float32, whose matrix products are faster. A connection gives its sum shifted up by
`input_shift` already, as the neuron takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from nervecord.compiler.arithmetic import Overflow
from nervecord.compiler.findings import raise_on_errors
from nervecord.compiler.lower.ranges import UnitRange, entering, overflows, prove
from nervecord.compiler.ops import (
    Array,
    Dense,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Mantissas,
    Neuron,
    Op,
    Sparse,
)
from nervecord.compiler.plan import Plan
from nervecord.errors import InfeasibleError, no_case
from nervecord.targets.onnx.builder import Builder
from nervecord.targets.onnx.floats import Slots, Value

DOUBLE: type = np.float64
LARGEST_SINGLE = 1 << 24
"""Whole numbers up to it are exact in float32."""


class Integers:
    """Makes the nodes of one step of a core op.

    Args:
        builder: takes them.
        plan: INTEGER, of a policy.

    Raises:
        InfeasibleError: a range cannot be proved, so that nothing says that double is exact.
    """

    dtype = DOUBLE

    def __init__(self, builder: Builder, plan: Plan) -> None:
        arithmetic = plan.graph.arithmetic
        assert arithmetic is not None
        self.builder, self.plan, self.arithmetic = builder, plan, arithmetic
        proved = prove(plan)
        raise_on_errors(overflows(proved, arithmetic), InfeasibleError, where="onnx")
        # By node: two of them may share an op, and what enters is each one's own.
        self._ranges: Mapping[str, UnitRange] = {found.name: found for found in proved}
        self._entering = {step.name: _entering(plan, step.name) for step in plan.connections}
        self._kernels: dict[type[Op], Callable[..., Value]] = {
            Dense: self._dense, Sparse: self._dense, Neuron: self._neuron
        }  # fmt: skip

    def takes(self, op: Op) -> bool:
        """Whether there is a kernel."""
        return type(op) in self._kernels

    def step(self, name: str, op: Op, state: Slots, x: Value) -> Value:
        """What the op of a node gives, a connection shifted up by `input_shift`; `state` is updated."""
        return self._kernels[type(op)](name, op, state, x)

    def shown(self, op: Op, value: str) -> str:
        """What the op gives, in its own units."""
        return self._times(value, -self.arithmetic.input_shift) if isinstance(op, Mantissas) else value

    # ------------------------------------------------------------------------------------------ connections

    def _dense(self, name: str, op: Mantissas, state: Slots, x: Value) -> Value:
        if x is None:
            return None
        shift, exponent = self.arithmetic.input_shift, op.weight_exp
        low, high = self._entering[name]
        reach = max(-low, high)
        if self.arithmetic.shifts_each and exponent < 0:
            if reach > 1 or low < 0:
                return self._times(self._shift_each(op, x), shift)
            # Zeros and ones: a product is a weight, which can be shifted before.
            return self._product(op.weight >> -exponent, shift, reach, x)
        if exponent >= 0:
            return self._product(op.weight, exponent + shift, reach, x)
        return self._times(self.builder.op("Floor", self._product(op.weight, exponent, reach, x)), shift)

    def _product(self, weight: Array, power: int, reach: int, x: str) -> str:
        """(W * 2^power) x, [batch, out]."""
        builder = self.builder
        largest = int(np.abs(weight).sum(axis=1, dtype=np.int64).max())
        # A power of two moves no digit, so what counts is the sum of whole numbers.
        kind: type = np.float32 if largest * reach < LARGEST_SINGLE else DOUBLE
        stored = builder.cast(builder.constant(_narrow(weight.T)), kind)
        if power:
            stored = builder.op("Mul", stored, builder.constant(np.array(2.0**power, dtype=kind)))
        entered = x if kind is DOUBLE else builder.cast(x, kind)
        made = builder.op("MatMul", entered, stored)
        return made if kind is DOUBLE else builder.cast(made, DOUBLE)

    def _shift_each(self, op: Mantissas, x: str) -> str:
        """Every product rounded down on its own, then their sum, by a product with ones."""
        builder, (rows, width) = self.builder, op.weight.shape
        beside = builder.reshaped(x, builder.batch, 1, width)
        weight = builder.cast(builder.constant(_narrow(op.weight)), DOUBLE)
        weight = builder.op("Mul", weight, builder.constant(np.array(2.0**op.weight_exp)))
        rounded = builder.op("Floor", builder.op("Mul", beside, weight))
        summed = builder.op("MatMul", rounded, builder.constant(np.ones((width, 1))))
        return builder.reshaped(summed, builder.batch, rows)

    # ------------------------------------------------------------------------------------------ neurons

    def _neuron(self, name: str, op: Neuron, state: Slots, x: Value) -> Value:
        held, arithmetic, found = op.membrane, self.arithmetic, self._ranges[name]
        assert isinstance(held, IntegerMembrane)
        bias: Array = held.bias.astype(np.int64) << held.bias_exp
        late = state["u"] if op.synapse is not None and arithmetic.current_is_late else None
        entering = x
        if isinstance(op.synapse, IntegerSynapse):
            entering = self.builder.total([self._decayed(state["u"], op.synapse.decay), x])
        if arithmetic.bias_in_current:
            entering, bias = self._plus(entering, bias), np.zeros_like(bias)
        if found.current > arithmetic.current_limit:
            entering = self._overflown(
                entering, arithmetic.current_bits, arithmetic.current_overflow, arithmetic.current_range
            )
        received = entering
        if op.synapse is not None:
            state["u"] = entering
            received = late if arithmetic.current_is_late else entering
        v = self._plus(self.builder.total([self._decayed(state["v"], held.decay), received]), bias)
        low, high = arithmetic.membrane_range
        if found.membrane[0] < low or found.membrane[1] > high:
            v = self._overflown(v, arithmetic.membrane_bits, arithmetic.membrane_overflow, arithmetic.membrane_range)
        if op.spike is None:
            state["v"] = v
            return v
        assert isinstance(op.spike, IntegerSpike)
        return self._fire(op, state, self._standing(v, op.size), op.spike.threshold)

    def _fire(self, op: Neuron, state: Slots, v: str, threshold: int) -> Value:
        builder, arithmetic = self.builder, self.arithmetic
        level = threshold << arithmetic.threshold_shift
        limit = self._number(level)
        if arithmetic.subtracts and arithmetic.spikes_per_step > 1 and level > 0:
            counts = builder.op("Div", v, limit)
            if arithmetic.fires_at_level:
                counts = builder.op("Floor", counts)
            else:
                counts = builder.op("Sub", builder.op("Ceil", counts), self._number(1))
            counts = builder.clipped(counts, 0.0, float(arithmetic.spikes_per_step), DOUBLE)
            state["v"] = builder.op("Sub", v, builder.op("Mul", counts, limit))
            return counts
        if not arithmetic.fires_at_level:
            spiked = builder.op("Greater", v, limit)
        else:
            spiked = builder.op("Not", builder.op("Less", v, limit))
        lower = self._number(0) if not arithmetic.subtracts else builder.op("Sub", v, limit)
        state["v"] = builder.op("Where", spiked, lower, v)
        return builder.cast(spiked, DOUBLE)

    def _decayed(self, x: Value, code: int) -> Value:
        """`Arithmetic.decayed`."""
        builder, arithmetic = self.builder, self.arithmetic
        if x is None:
            return None
        if arithmetic.decays_by_shift:
            lost = builder.op("Floor", self._times(x, -code))
            if arithmetic.loses_at_least_one:
                lost = builder.op("Where", builder.op("Equal", lost, self._number(0)), builder.op("Sign", x), lost)
            return builder.op("Sub", x, lost)
        keep = arithmetic.decay_codes - code
        if keep == 0:
            return None
        if code == 0:
            return x
        # The product by keep has less than 53 bits, and the power of two moves none of them.
        kept = builder.op("Mul", x, builder.constant(np.array([[keep * 2.0**-arithmetic.decay_bits]])))
        if arithmetic.rounds_down:
            return builder.op("Floor", kept)
        return builder.op("Mul", builder.op("Sign", kept), builder.op("Floor", builder.op("Abs", kept)))

    def _overflown(self, x: Value, bits: int, overflow: Overflow, limits: tuple[int, int]) -> Value:
        """`Arithmetic.current` and `Arithmetic.membrane`."""
        builder, (low, high) = self.builder, limits
        if x is None:
            return None
        match overflow:
            case "saturate" | "saturate-symmetric":
                return builder.clipped(x, float(low), float(high), DOUBLE)
            case "wrap":
                above = builder.op("Sub", x, self._number(low))
                times = builder.op("Floor", self._times(above, -bits))
                return builder.op("Sub", x, builder.op("Mul", times, self._number(2.0**bits)))
            case "wrap-once":
                period = self._number(2.0**bits)
                under = builder.op("Where", builder.op("Less", x, self._number(low)), builder.op("Add", x, period), x)
                lower = builder.op("Sub", x, period)
                return builder.op("Where", builder.op("Greater", x, self._number(high)), lower, under)
            case other:
                raise no_case(other, "overflow", "onnx")

    # ------------------------------------------------------------------------------------------ small things

    def _plus(self, x: Value, bias: Array) -> Value:
        if not bias.any():
            return x
        return (
            self.builder.full(bias, DOUBLE) if x is None else self.builder.op("Add", x, self.builder.row(bias, DOUBLE))
        )

    def _times(self, x: str, power: int) -> str:
        """x * 2^power."""
        return x if power == 0 else self.builder.op("Mul", x, self._number(2.0**power))

    def _number(self, value: float) -> str:
        return self.builder.constant(np.array([[value]], dtype=DOUBLE))

    def _standing(self, x: Value, size: int) -> str:
        return self.builder.full(np.zeros(size), DOUBLE) if x is None else x


def _narrow(weight: Array) -> Array:
    """In the smallest whole type, which the file then holds."""
    largest = int(np.abs(weight).max(initial=0))
    kind = np.int8 if largest < 1 << 7 else np.int16 if largest < 1 << 15 else np.int32
    return np.ascontiguousarray(weight, dtype=kind)


def _entering(plan: Plan, name: str) -> tuple[int, int]:
    """Smallest and largest value that enters a connection."""
    arithmetic, sent = plan.graph.arithmetic, entering(plan)
    assert arithmetic is not None
    low = high = 0
    for tap in plan.step(name).taps:
        if tap.source in sent:
            low += int(sent[tap.source][0].min())
            high += int(sent[tap.source][1].max())
        else:
            high += arithmetic.spikes_per_step
    return low, high
