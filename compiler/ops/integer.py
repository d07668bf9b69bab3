"""The weighted connection in a target's integers. (Neurons in integers are compositions like the others.)"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nervecord.compiler.arithmetic import LARGEST_DELAY, Arithmetic
from nervecord.compiler.blas import matmul
from nervecord.compiler.ops import fields
from nervecord.compiler.ops.connections import Matrix
from nervecord.compiler.ops.csr import Csr
from nervecord.compiler.ops.fields import Array
from nervecord.compiler.ops.level import Level
from nervecord.compiler.ops.op import State

SINGLE = 1 << 24
"""Whole numbers below it are exact in float32."""


class Mantissas(Matrix):
    """What connections in integers share: what of them an arithmetic does not hold, and that a step is prepared."""

    __slots__ = ()

    weight_exp: int
    weight_bits: int

    def misfits(self, arithmetic: Arithmetic) -> Iterator[fields.Violation]:
        a = arithmetic
        yield from fields.outside("weight_exp", self.weight_exp, a.weight_exponent_low, a.weight_exponent_high)
        yield from fields.outside("weight_bits", self.weight_bits, 1, a.weight_bits)
        yield from fields.outside("delay", self.delay, a.connection_delay, a.delay_max)
        low, high = int(self.stored.min()), int(self.stored.max())
        mixed = low < 0 < high
        least, most = a.weight_range(mixed=mixed, positive=high > 0)
        if not (low == high == 0):
            yield from fields.outside("weight", low, least, most)
            yield from fields.outside("weight", high, least, most)
        step = a.weight_step(min(self.weight_bits, a.weight_bits), mixed=mixed)
        if int(np.bitwise_or.reduce(self.stored, axis=None)) & (step - 1):  # a step is a power of two
            yield "weight-grid", f"weights are no multiples of {step}, as {self.weight_bits} bits need", None, None

    def by_source(self) -> Csr:
        """(in, out) of what is not zero; one zero of a matrix of zeros."""
        return Csr.of(self.weight.T)

    def step(self, state: State, x: Array, arithmetic: Arithmetic | None = None) -> Array:
        return self.stepper(arithmetic)(state, x)


@dataclass(frozen=True, slots=True, eq=False)
class Dense(Mantissas):
    """y(t) = (W x(t - delay)) * 2^weight_exp, rounded down; what a neuron's reset clears is not the connection's.

    Binary spikes or graded values enter, as its sources give; the plan says which.
    """

    weight: Array = fields.array("mantissas as the chip stores them", "out", "in", dtype=np.int32)
    weight_exp: int = fields.integer("exponent of the sum", -24, 24, 0)
    weight_bits: int = fields.integer("bits of a mantissa", 1, 16, 8)
    delay: int = fields.integer("steps, those that the target's connections cost included", 0, LARGEST_DELAY, 1)

    LEVELS: ClassVar[frozenset[Level]] = frozenset({Level.INTEGER})

    def stepper(self, arithmetic: Arithmetic | None) -> Callable[[State, Array], Array]:
        assert arithmetic is not None
        shift, exponent = arithmetic.shifted, self.weight_exp
        if arithmetic.shifts_each and exponent < 0:
            return lambda state, x: self._shift_each(x)
        # Whole sums below 2^53, of binary spikes mostly below 2^24: there floats are exact in any order of adding, and
        # their matrix products are fast.
        largest = int(np.abs(self.weight).sum(axis=1, dtype=np.int64).max())
        floats = self.weight.T.astype(np.float64 if largest >= SINGLE else np.float32)

        def product(state: State, x: Array) -> Array:
            reach = largest * int(np.abs(x).max(initial=0))
            weight = floats.astype(np.float64) if reach >= SINGLE and floats.dtype == np.float32 else floats
            return shift(matmul(x.astype(weight.dtype), weight).astype(np.int64), exponent)

        return product

    def _shift_each(self, x: Array) -> Array:
        """Each product is rounded on its own, so that no matrix product can do it."""
        total = np.zeros((len(x), self.weight.shape[0]), dtype=np.int64)
        for j in range(self.weight.shape[1]):
            total += (x[:, j, None].astype(np.int64) * self.weight[:, j]) >> -self.weight_exp
        return total
