"""What the proof of ranges passes from op to op: what one sends, and what a population can reach.

A population's body is read with bounds (`compiler.body.intervals`), over the steps between two clearings of the state,
or to bounds that one step does not leave where it is carried. Nothing measured enters: a bound holds for every input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.body.intervals import Reached
from nervecord.compiler.ops.fields import Array

LARGEST_SUM = 1 << 46
"""No accumulator holds as much. Sums of a connection that go beyond stay there, so that int64 holds them."""
LONGEST_RUN = 1 << 28
"""Steps without a reset for which sums over carried state are proved: three days at a thousand steps a second."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Integers that go from one op to the next.

    Args:
        low, high: (n,), of each value at one step.
        total: the same of its sum since state was cleared, whatever the step; None where nothing bounds that.
    """

    low: Array
    high: Array
    total: tuple[Array, Array] | None = None

    @classmethod
    def nothing(cls, size: int) -> Sent:
        """Zeros."""
        zero = np.zeros(size, dtype=np.int64)
        return cls(zero, zero, (zero, zero))

    def __add__(self, other: Sent) -> Sent:
        total = None
        if self.total is not None and other.total is not None:
            total = self.total[0] + other.total[0], self.total[1] + other.total[1]
        return Sent(self.low + other.low, self.high + other.high, total)

    @property
    def largest(self) -> int:
        """Largest magnitude of a value at one step."""
        return int(max(self.high.max(), -self.low.min()))


@dataclass(frozen=True, slots=True)
class Reach:
    """What a population can reach.

    Args:
        current: largest magnitude of its synaptic current.
        state: smallest and largest value of its membrane, or of what else it keeps, before a spike and any overflow.
        sends: what it sends into connections; None where it sends nothing.
        accumulator_limit: a sum that enters stays below it in magnitude.
        state_limits: smallest and largest value that its state holds.
        exact: beyond those it saturates, as the definition does.
        readout: its membrane is read through a threshold that it must not pass.
        reached: its equations, and what their values reach.
    """

    current: int
    state: tuple[int, int]
    sends: Sent | None
    accumulator_limit: int
    state_limits: tuple[int, int]
    exact: bool
    reached: Reached
    readout: bool = False


def raised(x: Array, by: int) -> Array:
    """x << by of int64, `LARGEST_SUM` where it is further than that."""
    most = LARGEST_SUM >> by
    return np.clip(x, -most, most) << by


def spiking(size: int, arithmetic: Arithmetic) -> Sent:
    """What neurons that spike send."""
    return Sent(np.zeros(size, dtype=np.int64), np.full(size, arithmetic.spikes_per_step, dtype=np.int64))
