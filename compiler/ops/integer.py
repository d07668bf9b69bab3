"""The weighted connection in a target's integers. (Neurons in integers are compositions like the others.)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nervecord.compiler.arithmetic import LARGEST_DELAY
from nervecord.compiler.ops import fields
from nervecord.compiler.ops.connections import matrix_synapses
from nervecord.compiler.ops.fields import Array, Shape
from nervecord.compiler.ops.level import Level
from nervecord.compiler.ops.op import Op, Role, State, Synapses

if TYPE_CHECKING:
    from nervecord.compiler.arithmetic import Arithmetic


@dataclass(frozen=True, slots=True, eq=False)
class Dense(Op):
    """y(t) = (W x(t - delay)) * 2^weight_exp, rounded down; what a neuron's reset clears is not the connection's.

    Binary spikes or graded values enter, as its sources give; the plan says which.
    """

    weight: Array = fields.array("mantissas as the chip stores them", "out", "in", dtype=np.int32)
    weight_exp: int = fields.integer("exponent of the sum", -24, 24, 0)
    weight_bits: int = fields.integer("bits of a mantissa", 1, 16, 8)
    delay: int = fields.integer("steps, those that the target's connections cost included", 0, LARGEST_DELAY, 1)

    ROLE: ClassVar[Role] = "connection"
    LEVELS: ClassVar[frozenset[Level]] = frozenset({Level.INTEGER})

    @property
    def in_shape(self) -> Shape:
        return (int(self.weight.shape[1]),)

    @property
    def out_shape(self) -> Shape:
        return (int(self.weight.shape[0]),)

    @property
    def lag(self) -> int:
        return self.delay

    def step(self, state: State, x: Array, arithmetic: Arithmetic | None = None) -> Array:
        assert arithmetic is not None
        weight = self.weight.astype(np.float64)
        if arithmetic.accumulate == "shift-each" and self.weight_exp < 0:
            # Each product is rounded on its own, so that no matrix product can do it.
            total = np.zeros((len(x), self.weight.shape[0]), dtype=np.int64)
            for j in range(self.weight.shape[1]):
                total += (x[:, j, None].astype(np.int64) * self.weight[:, j]) >> -self.weight_exp
            return total
        # Sums stay far below 2^53, where float64 is exact in any order of adding, and its matrix product is fast.
        total = (x.astype(np.float64) @ weight.T).astype(np.int64)
        return arithmetic.shifted(total, self.weight_exp)

    def synapses(self) -> Synapses:
        return matrix_synapses(self.weight)
