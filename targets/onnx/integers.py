"""Core ops of integers as ONNX nodes: whole numbers in double, exact to the bit in any arithmetic.

Every value is a whole number below 2^53, as the proved ranges say, so that double holds it and no order of adding
matters. Products by a power of two are exact, so that a shift is a product, rounded down by Floor. Sums of products
that stay below 2^24 are made in float32, whose matrix products are faster. Populations are bodies, read by `equations`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nervecord.compiler.findings import raise_on_errors
from nervecord.compiler.lower.ranges import Proved, entering, overflows, prove_bodies
from nervecord.compiler.ops import Array, Mantissas, Op
from nervecord.compiler.plan.plan import Plan, Step
from nervecord.errors import InfeasibleError
from nervecord.targets.onnx.builder import Builder
from nervecord.targets.onnx.equations import Equations, Slots, Value

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
        proofs = prove_bodies(plan)
        raise_on_errors(overflows([proof.range for proof in proofs], arithmetic), InfeasibleError, where="onnx")
        self._proved = {proof.range.name: proof for proof in proofs}
        self._bodies = {name: proof.folded for name, proof in self._proved.items()}
        entered = _entering(plan, self._proved)
        self._reach = {name: max(-low, high) for name, (low, high) in entered.items()}
        self._signed = {name for name, (low, _) in entered.items() if low < 0}
        self._equations = Equations(builder, DOUBLE)

    def takes(self, op: Op) -> bool:
        """Whether there is a form of it."""
        if op.has_body:
            return self._equations.takes(op.traced(self.arithmetic))
        return isinstance(op, Mantissas)

    def step(self, step: Step, state: Slots, x: Value) -> Value:
        """What the op gives; `state` is updated."""
        if isinstance(step.op, Mantissas):
            return self._dense(step.name, step.op, x)
        return self._equations.step(self._bodies[step.name], step.op.size, state, x)

    def wide(self, step: Step, name: str) -> bool:
        """Whether a state takes two columns where it is carried, as float32 does not hold all of its values."""
        low, high = self._proved[step.name].range.membrane_limits
        if name == "u":
            low, high = self.arithmetic.current_range
        return max(-low, high) > LARGEST_SINGLE

    # ------------------------------------------------------------------------------------------ connections

    def _dense(self, name: str, op: Mantissas, x: Value) -> Value:
        if x is None:
            return None
        exponent, reach = op.weight_exp, self._reach[name]
        if self.arithmetic.shifts_each and exponent < 0:
            if reach > 1 or name in self._signed:
                return self._shift_each(op, x)
            # Zeros and ones: a product is a weight, which can be shifted before.
            return self._product(op.weight >> -exponent, 0, reach, x)
        product = self._product(op.weight, exponent, reach, x)
        return product if exponent >= 0 else self.builder.op("Floor", product)

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
        product = builder.op("MatMul", entered, stored)
        return product if kind is DOUBLE else builder.cast(product, DOUBLE)

    def _shift_each(self, op: Mantissas, x: str) -> str:
        """Every product rounded down on its own, then their sum, by a product with ones."""
        builder, (rows, width) = self.builder, op.weight.shape
        beside = builder.reshaped(x, builder.batch, 1, width)
        weight = builder.cast(builder.constant(_narrow(op.weight)), DOUBLE)
        weight = builder.op("Mul", weight, builder.constant(np.array(2.0**op.weight_exp)))
        rounded = builder.op("Floor", builder.op("Mul", beside, weight))
        summed = builder.op("MatMul", rounded, builder.constant(np.ones((width, 1))))
        return builder.reshaped(summed, builder.batch, rows)

    def _times(self, x: str, power: int) -> str:
        """x * 2^power."""
        return x if power == 0 else self.builder.op("Mul", x, self.builder.constant(np.array([[2.0**power]])))


def _narrow(weight: Array) -> Array:
    """In the smallest whole type, which the file then holds."""
    largest = int(np.abs(weight).max(initial=0))
    kind = np.int8 if largest < 1 << 7 else np.int16 if largest < 1 << 15 else np.int32
    return np.ascontiguousarray(weight, dtype=kind)


def _entering(plan: Plan, proved: Mapping[str, Proved]) -> dict[str, tuple[int, int]]:
    """Connection -> smallest and largest value that enters it."""
    arithmetic = plan.graph.arithmetic
    assert arithmetic is not None
    bounds = {name: (int(low.min()), int(high.max())) for name, (low, high) in entering(plan).items()}
    for unit in plan.units:
        message = proved[unit.step.name].range.message
        bounds[unit.step.name] = (-message, message) if unit.step.op.messages else (0, arithmetic.spikes_per_step)
    return {
        step.name: (sum(bounds[tap.source][0] for tap in step.taps), sum(bounds[tap.source][1] for tap in step.taps))
        for step in plan.connections
    }
