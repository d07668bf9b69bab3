"""Interval arithmetic of populations in integers: what their state can reach, whatever enters.

With the definition's own rounding, over the steps between two clearings of the state, or to the limit that cannot be
passed where it is carried. Nothing measured enters, so a bound that holds here holds for every input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nervecord.compiler.ops.fields import Array

if TYPE_CHECKING:
    from nervecord.compiler.arithmetic import Arithmetic

UNBOUNDED = 1 << 62
"""Stands for a bound that does not exist."""
FAR = 1 << 46
"""No accumulator, synaptic current or membrane holds as much, and no sum of messages that has a bound reaches it. What
goes beyond stays there, so that int64 holds all that follows: 2^16 of them, or one times a factor of 16 bits."""
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
    """

    current: int
    state: tuple[int, int]
    sends: Sent | None
    accumulator_limit: int
    state_limits: tuple[int, int]
    exact: bool
    readout: bool = False


def raised(x: Array, by: int) -> Array:
    """x << by of int64, `FAR` where it is further than that."""
    most = FAR >> by
    return np.clip(x, -most, most) << by


def spiking(size: int, arithmetic: Arithmetic) -> Sent:
    """What neurons that spike send."""
    return Sent(np.zeros(size, dtype=np.int64), np.full(size, arithmetic.spikes_per_step, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Leaky:
    """The parameters of neurons that matter here.

    Args:
        bias: added at every step. decay: code of the membrane. synapse: code of the current; None without one.
        threshold: mantissa; None where it does not spike.
    """

    bias: Array
    decay: int
    synapse: int | None
    threshold: int | None


def integrate(op: Leaky, arithmetic: Arithmetic, interval: int, low: Array, high: Array) -> tuple[int, tuple[int, int]]:
    """Largest |current|, and the range of the membrane before a spike and before overflow.

    Args:
        interval: steps between two clearings of the state; 0: it is carried.
        low, high: of what enters at a step, per neuron.
    """
    bias = op.bias
    a_low, a_high = (raised(end, arithmetic.input_shift) for end in (low, high))
    if arithmetic.bias_in_current:
        a_low, a_high, bias = a_low + bias, a_high + bias, np.zeros_like(bias)
    if not interval:
        return _settle(op, arithmetic, a_low, a_high, bias)
    keep_u = op.synapse
    threshold = None if op.threshold is None else op.threshold << arithmetic.threshold_shift
    zero = np.zeros_like(bias)
    u_low, u_high, v_low, v_high = zero, zero, zero, zero
    worst = (zero, zero)
    for _ in range(interval):
        # Zero stays inside every interval: neurons may sit still, and decay is monotone.
        before = (u_low, u_high, v_low, v_high)
        u_low = np.minimum((zero if keep_u is None else arithmetic.decayed(u_low, keep_u)) + a_low, 0)
        u_high = np.maximum((zero if keep_u is None else arithmetic.decayed(u_high, keep_u)) + a_high, 0)
        u_low, u_high = np.maximum(u_low, -FAR), np.minimum(u_high, FAR)
        v_low = np.minimum(arithmetic.decayed(v_low, op.decay) + u_low + bias, 0)
        v_high = np.maximum(arithmetic.decayed(v_high, op.decay) + u_high + bias, 0)
        worst = (np.minimum(worst[0], v_low), np.maximum(worst[1], v_high))
        v_low, v_high = (np.clip(arithmetic.membrane(end), -FAR, FAR) for end in (v_low, v_high))
        if threshold is not None and arithmetic.spikes_per_step == 1 and not arithmetic.subtracts:
            v_high = np.minimum(v_high, max(threshold, 0))
        if all(np.array_equal(a, b) for a, b in zip(before, (u_low, u_high, v_low, v_high), strict=True)):
            break  # the steps that are left change nothing
    return int(max(u_high.max(), -u_low.min())), (int(worst[0].min()), int(worst[1].max()))


def _settle(op: Leaky, arithmetic: Arithmetic, a_low: Array, a_high: Array, bias: Array) -> tuple[int, tuple[int, int]]:
    """The same for state that is never cleared: x = keep x + c cannot pass c / (1 - keep), from either side."""
    u_low, u_high = np.minimum(a_low, 0), np.maximum(a_high, 0)
    if op.synapse is not None:
        u_low, u_high = (np.clip(_limit(c, op.synapse, arithmetic), -FAR, FAR) for c in (u_low, u_high))
    low, high = np.minimum(u_low + bias, 0), np.maximum(u_high + bias, 0)
    v_low, v_high = _limit(low, op.decay, arithmetic), _limit(high, op.decay, arithmetic)
    if op.threshold is not None and not arithmetic.subtracts:
        # Where no membrane comes to its threshold, the largest that there is.
        level = np.array(min(op.threshold << arithmetic.threshold_shift, arithmetic.membrane_range[1]), dtype=np.int64)
        v_high = arithmetic.decayed(level, op.decay) + high
    current = int(max(u_high.max(), -u_low.min()))
    return current, (int(v_low.min()), int(v_high.max()))


def _limit(c: Array, code: int, arithmetic: Arithmetic) -> Array:
    """The bound of x = decayed(x) + c, rounded away from zero; `UNBOUNDED` where nothing decays."""
    if arithmetic.decays_by_shift:
        # What is lost is at least x / 2^code - 1, so x stays within (|c| + 1) * 2^code.
        most = UNBOUNDED >> code
        return np.where(c == 0, 0, np.sign(c) * (np.minimum(np.abs(c) + 1, most) << code))
    if code == 0:
        return np.sign(c) * UNBOUNDED
    return np.sign(c) * -(-np.abs(c) * arithmetic.decay_codes // code)
