"""Proved ranges of a plan of integers: what every sum and membrane can reach, whatever comes in.

Interval arithmetic with the definition's own rounding, from the limits of what enters through the weights, over the
steps between two resets (or to the limit that cannot be passed where state is carried). Nothing measured enters, so a
bound that holds here holds for every input.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.findings import Finding
from nervecord.compiler.ops import (
    Array,
    Dense,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Neuron,
    Op,
)
from nervecord.compiler.plan import Plan, Unit
from nervecord.errors import GraphError

ROWS = 1 << 20
"""Weights looked at at once, to bound the memory it takes."""
UNBOUNDED = 1 << 62
"""Stands for a bound that does not exist."""
BEYOND = 1 << 30
"""No accumulator reaches it."""
FAR = 1 << 46
"""No synaptic current reaches it."""


@dataclass(frozen=True, slots=True)
class UnitRange:
    """What one population and the connections that feed it can reach.

    Args:
        name: of the population. connections: names.
        product: largest |W s| of a connection before its exponent.
        accumulator: largest magnitude of the sum that enters.
        current: largest magnitude of the synaptic current.
        membrane: smallest and largest v before a reset and before any overflow, in v's units.
        readout: the membrane is read and must not spike.
    """

    name: str
    connections: tuple[str, ...]
    product: int
    accumulator: int
    current: int
    membrane: tuple[int, int]
    readout: bool

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return dataclasses.asdict(self)


def prove(plan: Plan) -> list[UnitRange]:
    """Ranges of every population, in execution order.

    Args:
        plan: of an INTEGER graph.
    """
    arithmetic = plan.graph.arithmetic
    assert arithmetic is not None
    interval = plan.window if plan.schedule.resets else 0
    limits = entering(plan)
    return [_unit(unit, arithmetic, interval, limits) for unit in plan.units]


def overflows(ranges: Sequence[UnitRange], arithmetic: Arithmetic) -> list[Finding]:
    """One finding for every range that the arithmetic cannot hold; a warning where it saturates, which is exact."""
    found: list[Finding] = []
    for r in ranges:
        where = " + ".join(r.connections)
        for field, limit in (("product", arithmetic.product_limit), ("accumulator", arithmetic.accumulator_limit)):
            value = getattr(r, field)
            if value >= limit:
                found.append(
                    _overflow(f"{field}-overflow", "error", where, f"its {field} may overflow", value, limit - 1)
                )
        saturates = arithmetic.current_overflow.startswith("saturate")
        if r.current > arithmetic.current_range[1]:
            found.append(_overflow(
                "current-overflow", "warning" if saturates else "error", r.name, "its current may overflow",
                r.current, arithmetic.current_range[1],
            ))  # fmt: skip
        found += _membrane(r, arithmetic)
    return found


def _membrane(r: UnitRange, arithmetic: Arithmetic) -> list[Finding]:
    low, high = r.membrane
    least, most = arithmetic.membrane_range
    if r.readout and high > arithmetic.readout_limit and arithmetic.readout == "largest-threshold":
        return [_overflow("readout-saturates", "error", r.name, "may spike, and it is read", high,
                          arithmetic.readout_limit)]  # fmt: skip
    if low >= least and high <= most:
        return []
    exact = arithmetic.membrane_overflow.startswith("saturate")
    value, limit = (low, least) if low < least else (high, most)
    return [_overflow("membrane-saturates", "warning" if exact else "error", r.name, "may saturate", value, limit)]


def _overflow(code: str, severity: Any, node: str, message: str, value: int, limit: int) -> Finding:
    shown: int | str = "none" if abs(value) >= UNBOUNDED else value
    fix = "scale the weights down: a smaller weight exponent" if severity == "error" else "nothing to do: it is exact"
    return Finding(code, severity, node, message, shown, limit, fix=fix)


def entering(plan: Plan) -> dict[str, tuple[Array, Array]]:
    """Entry -> (low, high), one value per channel, of what it sends."""
    return {entry.name: op_range(entry.op, entry.name) for entry in plan.entries}


def op_range(op: Op, name: str = "") -> tuple[Array, Array]:
    """(low, high) per channel of what an integer entry sends.

    Raises:
        GraphError: it sends real numbers, or integers without a limit.
    """
    found = op.sends
    if found is None:
        raise GraphError(
            f"{op.kind} sends values of which no range in integers is known", where=name or op.label,
            hint="put a Quantise between it and the integers, or give the Input a limit",
        )  # fmt: skip
    return found


def _unit(unit: Unit, arithmetic: Arithmetic, interval: int, entries: Mapping[str, tuple[Array, Array]]) -> UnitRange:
    op = unit.step.op
    assert isinstance(op, Neuron)
    product = 0
    total_low = total_high = np.zeros(op.size, dtype=np.int64)
    for connection in unit.incoming:
        dense = connection.op
        assert isinstance(dense, Dense)
        low = high = np.zeros(dense.in_shape, dtype=np.int64)
        for tap in connection.taps:
            most = np.full(dense.in_shape, arithmetic.spikes_per_step)
            a, b = entries.get(tap.source, (np.zeros_like(most), most))
            # What feeds it may be silent, so zero belongs to every range.
            low, high = low + np.minimum(a, 0), high + np.maximum(b, 0)
        reach, bottom, top = dense_range(dense, arithmetic, low, high)
        product = max(product, reach)
        total_low, total_high = total_low + bottom, total_high + top
    current, membrane = integrate(op, arithmetic, interval, total_low, total_high)
    return UnitRange(
        name=unit.step.name,
        connections=tuple(c.name for c in unit.incoming),
        product=product,
        accumulator=int(max(total_high.max(), -total_low.min())),
        current=current,
        membrane=membrane,
        readout=op.spike is None,
    )


def dense_range(dense: Dense, arithmetic: Arithmetic, low: Array, high: Array) -> tuple[int, Array, Array]:
    """(largest |product| before the exponent, low, high per output after it) of inputs in low..high per channel."""
    rows, width = dense.weight.shape
    bottom, top = np.empty(rows), np.empty(rows)
    at_once = max(1, ROWS // max(width, 1))
    span = (high - low).astype(np.float64)
    floats = low.astype(np.float64), high.astype(np.float64)
    for start in range(0, rows, at_once):
        # Whole numbers below 2^53: float64 is exact in any order, and its matrix product is fast.
        weight = dense.weight[start : start + at_once].astype(np.float64)
        upward = np.maximum(weight, 0) @ span
        these = slice(start, start + len(weight))
        top[these], bottom[these] = weight @ floats[0] + upward, weight @ floats[1] - upward
    reach = int(max(top.max(), -bottom.min()))
    if arithmetic.accumulate == "shift-each" and dense.weight_exp < 0:
        ends = [(dense.weight.astype(np.int64) * end) >> -dense.weight_exp for end in (low, high)]
        return reach, np.minimum(*ends).sum(axis=1), np.maximum(*ends).sum(axis=1)
    low_end, high_end = (arithmetic.shifted(end.astype(np.int64), dense.weight_exp) for end in (bottom, top))
    return reach, low_end, high_end


def integrate(
    op: Neuron, arithmetic: Arithmetic, interval: int, low: Array, high: Array
) -> tuple[int, tuple[int, int]]:
    """Largest |current|, and the range of the membrane before a spike and before overflow.

    Args:
        interval: steps between two clearings of the state; 0: it is carried.
        low, high: of what enters at a step, per neuron.
    """
    held = op.membrane
    assert isinstance(held, IntegerMembrane)
    bias = held.bias.astype(np.int64) << held.bias_exp
    # Far beyond what any accumulator holds, so that nothing is hidden, and int64 holds all that follows.
    a_low, a_high = (np.clip(end, -BEYOND, BEYOND) << arithmetic.input_shift for end in (low, high))
    if arithmetic.bias_enters == "current":
        a_low, a_high, bias = a_low + bias, a_high + bias, np.zeros_like(bias)
    if not interval:
        return _settle(op, arithmetic, a_low, a_high, bias)
    keep_u = op.synapse.decay if isinstance(op.synapse, IntegerSynapse) else None
    threshold = op.spike.threshold << arithmetic.threshold_shift if isinstance(op.spike, IntegerSpike) else None
    zero = np.zeros_like(bias)
    u_low, u_high, v_low, v_high = zero, zero, zero, zero
    worst = (zero, zero)
    for _ in range(interval):
        # Zero stays inside every interval: neurons may sit still, and decay is monotone.
        before = (u_low, u_high, v_low, v_high)
        u_low = np.minimum((zero if keep_u is None else arithmetic.decayed(u_low, keep_u)) + a_low, 0)
        u_high = np.maximum((zero if keep_u is None else arithmetic.decayed(u_high, keep_u)) + a_high, 0)
        u_low, u_high = np.maximum(u_low, -FAR), np.minimum(u_high, FAR)
        v_low = np.minimum(arithmetic.decayed(v_low, held.decay) + u_low + bias, 0)
        v_high = np.maximum(arithmetic.decayed(v_high, held.decay) + u_high + bias, 0)
        worst = (np.minimum(worst[0], v_low), np.maximum(worst[1], v_high))
        v_low, v_high = arithmetic.membrane(v_low), arithmetic.membrane(v_high)
        if threshold is not None and arithmetic.spikes_per_step == 1 and arithmetic.reset == "zero":
            v_high = np.minimum(v_high, max(threshold, 0))
        if all(np.array_equal(a, b) for a, b in zip(before, (u_low, u_high, v_low, v_high), strict=True)):
            break  # the steps that are left change nothing
    return int(max(u_high.max(), -u_low.min())), (int(worst[0].min()), int(worst[1].max()))


def _settle(
    op: Neuron, arithmetic: Arithmetic, a_low: Array, a_high: Array, bias: Array
) -> tuple[int, tuple[int, int]]:
    """The same for state that is never cleared: x = keep x + c cannot pass c / (1 - keep), from either side."""
    held = op.membrane
    assert isinstance(held, IntegerMembrane)
    u_low, u_high = np.minimum(a_low, 0), np.maximum(a_high, 0)
    if isinstance(op.synapse, IntegerSynapse):
        u_low, u_high = (np.clip(_limit(c, op.synapse.decay, arithmetic), -FAR, FAR) for c in (u_low, u_high))
    low, high = np.minimum(u_low + bias, 0), np.maximum(u_high + bias, 0)
    v_low, v_high = _limit(low, held.decay, arithmetic), _limit(high, held.decay, arithmetic)
    if isinstance(op.spike, IntegerSpike) and arithmetic.reset == "zero":
        level = np.array(op.spike.threshold << arithmetic.threshold_shift, dtype=np.int64)
        v_high = arithmetic.decayed(level, held.decay) + high
    current = int(max(u_high.max(), -u_low.min()))
    return current, (int(v_low.min()), int(v_high.max()))


def _limit(c: Array, code: int, arithmetic: Arithmetic) -> Array:
    """The bound of x = decayed(x) + c, rounded away from zero; `UNBOUNDED` where nothing decays."""
    if arithmetic.decay == "shift":
        # What is lost is at least x / 2^code - 1, so x stays within (|c| + 1) * 2^code.
        return np.where(c == 0, 0, np.sign(c) * ((np.abs(c) + 1) << min(code, 30)))
    if code == 0:
        return np.sign(c) * UNBOUNDED
    return np.sign(c) * -(-np.abs(c) * arithmetic.decay_codes // code)
