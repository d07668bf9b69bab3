"""Proved ranges of a plan of integers: what every sum and membrane can reach, whatever comes in.

Interval arithmetic with the definition's own rounding, from the limits of what enters through the weights, over the
steps between two resets (or to the limit that cannot be passed where state is carried). Nothing measured enters, so a
bound that holds here holds for every input.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from nervecord.compiler.arithmetic import PRODUCT_BITS, Arithmetic
from nervecord.compiler.blas import matmul
from nervecord.compiler.body.bounds import FAR, Bounds
from nervecord.compiler.body.expression import Body
from nervecord.compiler.body.fold import folded
from nervecord.compiler.body.intervals import IntervalReading, Reached
from nervecord.compiler.findings import Finding
from nervecord.compiler.ops import Array, Mantissas, Op, Sparse
from nervecord.compiler.ops.reach import LARGEST_SUM, LONGEST_RUN, Reach, Sent, raised, spiking
from nervecord.compiler.plan.plan import Plan, Unit
from nervecord.errors import GraphError, InfeasibleError

ROWS = 1 << 20
"""Weights looked at at once, to bound the memory it takes."""


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
        message: largest magnitude of what it sends at a step; 0 where it sends nothing.
        accumulator_limit: the accumulator must stay below it.
        membrane_limits: smallest and largest v that is held; exact: beyond those it saturates.
    """

    name: str
    connections: tuple[str, ...]
    product: int
    accumulator: int
    current: int
    membrane: tuple[int, int]
    readout: bool
    message: int
    accumulator_limit: int
    membrane_limits: tuple[int, int]
    exact: bool

    @classmethod
    def of(cls, name: str, connections: Sequence[str], product: int, entering: Sent, reached: Reach) -> UnitRange:
        """Of what enters a population, and what it reaches then."""
        return cls(
            name=name,
            connections=tuple(connections),
            product=product,
            accumulator=entering.largest,
            current=reached.current,
            membrane=reached.state,
            readout=reached.readout,
            message=0 if reached.sends is None else reached.sends.largest,
            accumulator_limit=reached.accumulator_limit,
            membrane_limits=reached.state_limits,
            exact=reached.exact,
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Proved:
    """A population's range, with its equations and what each of their values reaches."""

    range: UnitRange
    reached: Reached

    @cached_property
    def folded(self) -> Body:
        """The equations without what never acts."""
        return folded(self.reached.body, self.reached.values)

    def bounds(self, body: Body) -> list[Bounds]:
        """What every node of the folded equations reaches."""
        reached = self.reached
        bounds = {place: reached.named(name) for name, place in body.observed.items()}
        return IntervalReading(body, bounds).every(reached.x, reached.state)


def prove(plan: Plan) -> list[UnitRange]:
    """Ranges of every population, in execution order.

    Args:
        plan: of an INTEGER graph.
    """
    return [proof.range for proof in prove_bodies(plan)]


def prove_bodies(plan: Plan) -> list[Proved]:
    """The same with the populations' equations; of one plan they are proved once."""
    if plan not in _PROVED:
        _PROVED[plan] = _proofs(plan)
    return _PROVED[plan]


_PROVED: WeakKeyDictionary[Plan, list[Proved]] = WeakKeyDictionary()


def _proofs(plan: Plan) -> list[Proved]:
    arithmetic = plan.graph.arithmetic
    assert arithmetic is not None
    interval = plan.window if plan.schedule.resets else 0
    sent = {name: Sent(*bounds) for name, bounds in entering(plan).items()}
    # Of spikes the range is known beforehand, so that loops of them are no loops here.
    sent |= {u.step.name: spiking(u.step.op.size, arithmetic) for u in plan.units if u.step.op.spikes}
    proofs = {unit.step.name: _unit(unit, arithmetic, interval, sent) for unit in _senders_first(plan)}
    return [proofs[unit.step.name] for unit in plan.units]


def _senders_first(plan: Plan) -> Iterator[Unit]:
    """The populations so that what sends messages stands before what gets them.

    The order of execution is another: a connection with a delay does not wait for what feeds it.

    Raises:
        InfeasibleError: messages go round in a loop.
    """
    senders = {unit.step.name for unit in plan.units if unit.step.op.messages}
    fed: dict[str, list[Unit]] = {}
    waits: dict[str, int] = {}
    for unit in plan.units:
        sources = {tap.source for step in unit.incoming for tap in step.taps} & senders
        waits[unit.step.name] = len(sources)
        for source in sorted(sources):
            fed.setdefault(source, []).append(unit)
    ready = [unit for unit in plan.units if not waits[unit.step.name]]
    for unit in ready:
        yield unit
        for behind in fed.get(unit.step.name, ()):
            waits[behind.step.name] -= 1
            if not waits[behind.step.name]:
                ready.append(behind)
    if len(ready) < len(plan.units):
        raise InfeasibleError(
            "is part of a loop of messages, or behind one, and nothing bounds how large they get",
            where=next(unit.step.name for unit in plan.units if waits[unit.step.name] and unit.step.name in senders),
            hint="take the loop out, or let spiking neurons close it",
        )


def overflows(ranges: Sequence[UnitRange], arithmetic: Arithmetic) -> list[Finding]:
    """One finding for every range that the arithmetic cannot hold; a warning where it saturates, which is exact."""
    findings: list[Finding] = []
    for r in ranges:
        where = " + ".join(r.connections)
        for field, limit in (("product", arithmetic.product_limit), ("accumulator", r.accumulator_limit)):
            value = getattr(r, field)
            if value >= limit:
                findings.append(
                    _overflow(f"{field}-overflow", "error", where, f"its {field} may overflow", value, limit - 1)
                )
        saturates = arithmetic.current_overflow.startswith("saturate")
        if r.current > arithmetic.current_limit:
            findings.append(
                _overflow(
                    "current-overflow",
                    "warning" if saturates else "error",
                    r.name,
                    "its current may overflow",
                    r.current,
                    arithmetic.current_limit,
                )
            )
        findings += _membrane(r, arithmetic)
    return findings


def _membrane(r: UnitRange, arithmetic: Arithmetic) -> list[Finding]:
    low, high = r.membrane
    least, most = r.membrane_limits
    if r.readout and high > arithmetic.readout_limit and arithmetic.reads_through_threshold:
        return [
            _overflow("readout-saturates", "error", r.name, "may spike, and it is read", high, arithmetic.readout_limit)
        ]
    if low >= least and high <= most:
        return []
    value, limit = (low, least) if low < least else (high, most)
    return [_overflow("membrane-saturates", "warning" if r.exact else "error", r.name, "may saturate", value, limit)]


def _overflow(code: str, severity: Any, node: str, message: str, value: int, limit: int) -> Finding:
    value_shown: int | str = "none" if abs(value) >= FAR else value
    fix = "scale the weights down: a smaller weight exponent" if severity == "error" else "nothing to do: it is exact"
    return Finding(code, severity, node, message, value_shown, limit, fix=fix)


def entering(plan: Plan) -> dict[str, tuple[Array, Array]]:
    """Entry -> (low, high), one value per channel, of what it sends."""
    return {entry.name: op_range(entry.op, entry.name) for entry in plan.entries}


def op_range(op: Op, name: str = "") -> tuple[Array, Array]:
    """(low, high) per channel of what an integer entry sends.

    Raises:
        GraphError: it sends real numbers, or integers without a limit.
    """
    bounds = op.sends
    if bounds is None:
        raise GraphError(
            f"{op.kind} sends values of which no range in integers is known",
            where=name or op.label,
            hint="put a Quantise between it and the integers, or give the Input a limit",
        )
    return bounds


def _unit(unit: Unit, arithmetic: Arithmetic, interval: int, sent: dict[str, Sent]) -> Proved:
    op, product, entering = unit.step.op, 0, Sent.nothing(unit.step.op.size)
    for connection in unit.incoming:
        dense = connection.op
        assert isinstance(dense, Mantissas)
        total = Sent.nothing(math.prod(dense.in_shape))
        for tap in connection.taps:
            total = total + sent[tap.source]
        reach, passed = propagate(dense, arithmetic, interval, total)
        product, entering = max(product, reach), entering + passed
    reached = op.reach(arithmetic, interval, entering)
    if reached.sends is not None:
        _require_sent(unit.step.op, reached.reached, reached.sends)
        sent[unit.step.name] = reached.sends
    proved = UnitRange.of(unit.step.name, [c.name for c in unit.incoming], product, entering, reached)
    return Proved(proved, reached.reached)


def _require_sent(op: Op, reached: Reached, sends: Sent) -> None:
    """Refuse an op that says of what it sends less than its equations give.

    Raises:
        InfeasibleError: it does.
    """
    result = reached.values[reached.body.result]
    if not result.within(Bounds.of(sends.low, sends.high)):
        raise InfeasibleError(
            f"gives {result.lowest} to {result.highest}, and says that it sends {sends.low.min()} to "
            f"{sends.high.max()}",
            where=op.label,
            hint="let its `reach` say what its body gives",
        )


def propagate(dense: Mantissas, arithmetic: Arithmetic, interval: int, entering: Sent) -> tuple[int, Sent]:
    """(largest |product| before the exponent, what it gives) of a connection.

    Where an exponent rounds down, a sum over steps loses less than one unit in each of them.
    """
    # What feeds it may be silent, so zero belongs to every range.
    product, low, high = dense_range(dense, arithmetic, np.minimum(entering.low, 0), np.maximum(entering.high, 0))
    if entering.total is None:
        return product, Sent(low, high)
    reach, least, most = dense_range(dense, arithmetic, *entering.total)
    if reach >= 1 << PRODUCT_BITS:
        return product, Sent(low, high)  # floats are not exact there, and nothing holds it
    if dense.weight_exp < 0:
        roundings = dense.in_shape[0] if arithmetic.shifts_each else 1
        least = least - roundings * (interval or LONGEST_RUN)
    if max(int(most.max()), -int(least.min())) >= LARGEST_SUM:
        return product, Sent(low, high)
    return product, Sent(low, high, (least, most))


def dense_range(dense: Mantissas, arithmetic: Arithmetic, low: Array, high: Array) -> tuple[int, Array, Array]:
    """(largest |product| before the exponent, low, high per output after it) of inputs in low..high per channel.

    What is beyond `LARGEST_SUM` stays there. So does all of a product that is beyond `PRODUCT_BITS`, which no
    arithmetic holds.
    """
    if isinstance(dense, Sparse):
        return _sparse_range(dense, arithmetic, low, high)
    (rows,), (width,) = dense.out_shape, dense.in_shape
    bottom, top = np.empty(rows), np.empty(rows)
    at_once = max(1, ROWS // max(width, 1))
    span = (high - low).astype(np.float64)
    floats = low.astype(np.float64), high.astype(np.float64)
    for start in range(0, rows, at_once):
        # Whole numbers below 2^53: float64 is exact in any order, and its matrix product is fast.
        weight = dense.rows(start, start + at_once).astype(np.float64)
        upward = matmul(np.maximum(weight, 0), span)
        these = slice(start, start + len(weight))
        top[these], bottom[these] = matmul(weight, floats[0]) + upward, matmul(weight, floats[1]) - upward
    reach = int(max(top.max(), -bottom.min()))
    if arithmetic.shifts_each and dense.weight_exp < 0 and reach < 1 << PRODUCT_BITS:
        parts = [_each(dense, start, at_once, low, high) for start in range(0, rows, at_once)]
        least, most = (np.concatenate(end) for end in zip(*parts, strict=True))
        return reach, least, most
    return reach, *_ends(bottom, top, reach, dense.weight_exp)


def _ends(bottom: Array, top: Array, reach: int, exponent: int) -> tuple[Array, Array]:
    """Sums after the exponent, as int64."""
    if reach >= 1 << PRODUCT_BITS:
        bottom, top = (np.clip(end, -LARGEST_SUM, LARGEST_SUM) for end in (bottom, top))
    low, high = bottom.astype(np.int64), top.astype(np.int64)
    if exponent > 0:
        return raised(low, exponent), raised(high, exponent)
    return np.clip(low >> -exponent, -LARGEST_SUM, LARGEST_SUM), np.clip(high >> -exponent, -LARGEST_SUM, LARGEST_SUM)


def _sparse_range(dense: Sparse, arithmetic: Arithmetic, low: Array, high: Array) -> tuple[int, Array, Array]:
    """`dense_range` of a sparse matrix: a zero gives nothing, and rows may be too wide to be laid out."""
    matrix, e = dense.csr, dense.weight_exp

    def added(values: Array) -> Array:
        return matrix.with_values(values).products(np.ones((1, dense.inputs), dtype=values.dtype))[0]

    # Whole numbers below 2^53, as above.
    ends = [dense.values * end[dense.columns].astype(np.float64) for end in (low, high)]
    bottom, top = added(np.minimum(*ends)), added(np.maximum(*ends))
    reach = int(max(top.max(), -bottom.min()))
    if arithmetic.shifts_each and e < 0 and reach < 1 << PRODUCT_BITS:
        shifted = [(dense.values.astype(np.int64) * end[dense.columns]) >> -e for end in (low, high)]
        return reach, added(np.minimum(*shifted)), added(np.maximum(*shifted))
    return reach, *_ends(bottom, top, reach, e)


def _each(dense: Mantissas, start: int, at_once: int, low: Array, high: Array) -> tuple[Array, Array]:
    """(low, high) of some outputs where every product is shifted before it is added."""
    weight = dense.rows(start, start + at_once).astype(np.int64)
    ends = [(weight * end) >> -dense.weight_exp for end in (low, high)]
    return np.minimum(*ends).sum(axis=1), np.maximum(*ends).sum(axis=1)
