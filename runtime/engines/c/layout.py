"""What of a plan becomes what in C: rings of spikes, connections, populations, with proved types.

    Ring    what a source sent in the last steps: the places of its spikes, and their values where they are not 0 and 1
    Link    a connection: a product that is taken once per action, rows that spikes add up, or a product of values
    Cell    a population: its links, its state, its threshold, and in which steps of a block its work is useful

Types follow from proved ranges (`compiler.lower.ranges`): a sum is an int32_t where no partial sum can leave it, and a
state is clamped only where it may reach its limit. Overflow that wraps needs no code: it was proved not to happen.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.body.bounds import Bounds
from nervecord.compiler.body.fold import folded
from nervecord.compiler.body.intervals import IntervalReading, over_steps
from nervecord.compiler.findings import raise_on_errors
from nervecord.compiler.lower.linear import largest_sent, senders
from nervecord.compiler.lower.ranges import op_range, overflows, prove_bodies
from nervecord.compiler.ops import Array, Csr, HostOp, Level, Mantissas, Op
from nervecord.compiler.plan.plan import Entry, Plan, Step, Unit
from nervecord.errors import GraphError, InfeasibleError
from nervecord.runtime.engines.c.constants import INT32, Table, signed, unsigned
from nervecord.runtime.engines.c.equations import Equations
from nervecord.runtime.engines.c.names import identifiers

SPARSE = 1 / 4
"""A matrix with a smaller part of weights that are not zero is stored by its rows: half the memory at least, and on a
processor without wide registers less time."""


@dataclass(frozen=True, slots=True)
class Ring:
    """See the module. name: identifier. slots: steps that are kept. valued: values go with the places."""

    name: str
    width: int
    slots: int
    valued: bool
    most: int

    @property
    def place(self) -> str:
        """Type of a place."""
        return unsigned(self.width - 1)

    @property
    def count(self) -> str:
        """Type of how many places there are."""
        return unsigned(self.width)

    @property
    def value(self) -> str:
        """Type of a value."""
        return signed(-self.most, self.most)


@dataclass(frozen=True, slots=True, eq=False)
class LinkLayout:
    """A connection.

    Args:
        name: identifier. step: of the plan.
        weight: mantissas by source, (in, out); of a sparse matrix those that are not zero, with `column` and `start`.
        exponent: of the sum, what all mantissas have in common taken into it. each: products are shifted, not the sum.
        wide: the sum needs 64 bits.
        taps: the rings that feed it; of one that is held none.
        held: the entry whose product is taken once per block. slots: how many blocks of products are kept.
        when: of a held one, for each step of a block how many blocks ago its product was taken; None: it is zero.
    """

    name: str
    step: Step
    weight: Table
    column: Table | None
    start: Table | None
    exponent: int
    each: bool
    wide: bool
    delay: int
    taps: tuple[Ring, ...]
    held: str | None
    slots: int
    when: tuple[int | None, ...]

    @property
    def dense(self) -> Mantissas:
        """The op."""
        assert isinstance(self.step.op, Mantissas)
        return self.step.op

    @property
    def inputs(self) -> int:
        """Values that enter."""
        return self.dense.in_shape[0]

    @property
    def outputs(self) -> int:
        """Values that it gives."""
        return self.dense.out_shape[0]

    @property
    def rows(self) -> bool:
        """Whether it is a sum of rows: binary spikes of one source."""
        return self.held is None and len(self.taps) == 1 and not self.taps[0].valued

    @property
    def stored(self) -> int:
        """Weights that are stored."""
        return int(self.weight.values.size)


@dataclass(frozen=True, slots=True, eq=False)
class PopulationLayout:
    """A population.

    Args:
        name: identifier. unit: of the plan. links: what feeds it.
        ring: what it sends; None where it is read.
        equations: of its body, and the tables of their constants.
        useful: steps of a block in which it works.
    """

    name: str
    unit: Unit
    links: tuple[LinkLayout, ...]
    ring: Ring | None
    equations: Equations
    useful: range

    @property
    def op(self) -> Op:
        """The op."""
        return self.unit.step.op

    @property
    def shown(self) -> str:
        """The member of the state that is read where it is looked at."""
        return f"{self.name}_{type(self.op).SHOWN}"


@dataclass(frozen=True, eq=False)
class CLayout:
    """A plan in the form that is printed.

    Args:
        entries: in the order of what `step_q` takes. rings: by name of the source.
        pulses: entry that makes spikes itself -> the equations of one of its steps.
    """

    plan: Plan
    names: dict[str, str]
    entries: tuple[Entry, ...]
    rings: dict[str, Ring]
    links: dict[str, LinkLayout]
    cells: tuple[PopulationLayout, ...]
    pulses: dict[str, Equations]
    tables: list[Table] = field(default_factory=list)

    @property
    def arithmetic(self) -> Arithmetic:
        """Of the graph."""
        assert self.plan.graph.arithmetic is not None
        return self.plan.graph.arithmetic

    @property
    def in_sizes(self) -> tuple[int, ...]:
        """Numbers of each entry that a step takes: a bias source is none of them."""
        return tuple(taken(entry) for entry in self.entries)

    @property
    def in_rows(self) -> int:
        """Rows of what a block takes: the steps of a stream, else one."""
        return 1 if self.plan.schedule.held else self.plan.schedule.steps

    @property
    def out_sizes(self) -> tuple[int, ...]:
        """Numbers of each read."""
        return tuple(self.plan.step(read.source).op.size for read in self.plan.reads)

    @property
    def in_dim(self) -> int:
        """Integers that a block takes."""
        return self.in_rows * sum(self.in_sizes)

    @property
    def out_dim(self) -> int:
        """Integers that a block gives."""
        return self.in_rows * sum(self.out_sizes)


def taken(entry: Entry) -> int:
    """Numbers of an entry that its user gives."""
    return entry.op.size - bool(_host(entry).appended)


def bias_source(entry: Entry) -> int:
    """What a bias source behind the numbers that its user gives sends in each step; 0 where there is none."""
    return _host(entry).appended


def limits(entry: Entry) -> tuple[int, int]:
    """Smallest and largest number that its user may give."""
    op = _host(entry)
    if op.PULSES:
        return op.drive
    low, high = (end.ravel()[: taken(entry)] for end in op_range(op, entry.name))
    return int(low.min()), int(high.max())


def _host(entry: Entry) -> HostOp:
    assert isinstance(entry.op, HostOp)  # what enters a core comes from the host
    return entry.op


def c_layout(plan: Plan, *, whole: bool = False) -> CLayout:
    """How a plan is printed.

    Args:
        plan: of an INTEGER graph.
        whole: populations work in every step of a block, also in those whose results nothing useful comes of.

    Raises:
        GraphError: it is not of integers.
        InfeasibleError: a range cannot be proved, or an op has no form in C; it is named.
    """
    return _LayoutBuilder(plan, whole).layout()


class _LayoutBuilder:
    """Makes the form of one plan."""

    def __init__(self, plan: Plan, whole: bool) -> None:
        if plan.graph.level is not Level.INTEGER or plan.graph.arithmetic is None:
            raise GraphError(
                f"is at level {plan.graph.level.value}, and C is printed of integers",
                where="graph",
                hint="compile it for a target",
            )
        self.plan, self.whole, self.arithmetic = plan, whole, plan.graph.arithmetic
        self._refuse()
        proofs = prove_bodies(plan)
        raise_on_errors(overflows([proof.range for proof in proofs], self.arithmetic), InfeasibleError, where="c")
        self.proved = {proof.range.name: proof for proof in proofs}
        self.sent = largest_sent(plan)
        self.names = identifiers(plan.graph.nodes)
        self.tables: list[Table] = []
        # Where every connection has a delay, readers come before what they read: a ring then needs one step less.
        delayed = all(tap.lag > 0 for step in plan.connections for tap in step.taps)
        self.units = plan.units[::-1] if delayed else plan.units
        self.order = {unit.step.name: k for k, unit in enumerate(self.units)}

    def _refuse(self) -> None:
        """What there is no C for, by its name."""
        for step in self.plan.core:
            integer = step.op.has_body and Level.INTEGER in step.op.levels
            if not (isinstance(step.op, Mantissas) or integer):
                raise InfeasibleError(f"{step.op.kind} has no form in C", where=step.name)

    def layout(self) -> CLayout:
        """The whole form."""
        plan = self.plan
        rings = self._rings()
        links = {step.name: self._link(step, rings) for step in plan.connections}
        cells = tuple(self._cell(unit, links, rings) for unit in self.units)
        pulses = {entry.name: self._pulses(entry) for entry in plan.entries if _host(entry).PULSES}
        return CLayout(plan, self.names, plan.entries, rings, links, cells, pulses, self.tables)

    def _pulses(self, entry: Entry) -> Equations:
        op = _host(entry)
        reached = over_steps(op.pulse_body, Bounds.of(*op.drive), 0)
        body = folded(reached.body, reached.values)
        bounds = IntervalReading(body).every(reached.x, reached.state)
        return Equations(self.names[entry.name], body, bounds, entry.name)

    # ------------------------------------------------------------------------------------------------ rings

    def _rings(self) -> dict[str, Ring]:
        return {
            name: Ring(
                self.names[name], sender.source.op.size, self._slots(name), sender.graded, max(sender.largest, 1)
            )
            for name, sender in senders(self.plan).items()
        }

    def _slots(self, source: str) -> int:
        """Steps of what it sent that its readers need; 1 where nothing reads it."""
        slots = 1
        for unit in self.plan.units:
            for step in unit.incoming:
                for tap in step.taps:
                    if tap.source == source and step.name not in self.plan.hoisted:
                        # A reader that comes first in a step, or is the source itself, reads before it is written.
                        first = source in self.order and self.order[unit.step.name] <= self.order[source]
                        slots = max(slots, tap.lag + (0 if first else 1))
        return slots

    # ------------------------------------------------------------------------------------------------ links

    def _link(self, step: Step, rings: dict[str, Ring]) -> LinkLayout:
        dense, name = step.op, self.names[step.name]
        assert isinstance(dense, Mantissas)
        each = self.arithmetic.shifts_each and dense.weight_exp < 0
        weight, exponent = _common(dense.weight.T.astype(np.int64), dense.weight_exp)
        hoisted = step.name in self.plan.hoisted
        taps = () if hoisted else tuple(rings[tap.source] for tap in step.taps)
        reach = self.sent[step.taps[0].source] if hoisted else sum(ring.most for ring in taps)
        if each and not hoisted and len(taps) == 1 and not taps[0].valued:
            # Of binary spikes the products are the weights: they are shifted here.
            weight = weight << exponent if exponent > 0 else weight >> -exponent
            weight, exponent = _common(weight, 0)
            each = False
        each = each and exponent < 0
        sums = int(np.abs(weight).sum(axis=0).max(initial=0)) * reach
        product = int(np.abs(weight).max(initial=0)) * reach
        when = self._when(dense.delay) if hoisted else ()
        stored, column, start = self._stored(name, weight, step.name)
        return LinkLayout(
            name=name,
            step=step,
            weight=stored,
            column=column,
            start=start,
            exponent=exponent,
            each=each,
            wide=max(sums << max(exponent, 0), product) >= INT32,
            delay=dense.delay,
            taps=taps,
            held=step.taps[0].source if hoisted else None,
            slots=1 + max((back for back in when if back is not None), default=0),
            when=when,
        )

    def _when(self, delay: int) -> tuple[int | None, ...]:
        """For each step of a block: how many blocks ago what arrives was taken; None where nothing arrives."""
        window, steps = self.plan.window, self.plan.schedule.steps
        blocks: list[int | None] = []
        for k in range(window):
            back, at = divmod(k - delay, window)
            blocks.append(-back if at < steps else None)
        return tuple(blocks)

    def _stored(self, name: str, weight: Array, label: str) -> tuple[Table, Table | None, Table | None]:
        kind = signed(int(weight.min(initial=0)), int(weight.max(initial=0)))
        if np.count_nonzero(weight) >= SPARSE * weight.size:
            table = Table(f"{name}_weight", kind, weight, f"by source, {weight.shape[0]} x {weight.shape[1]}")
            self.tables.append(table)
            return table, None, None
        rows, about = Csr.of(weight), f"those of {weight.shape[0]} x {weight.shape[1]} that are not zero"
        stored = (
            Table(f"{name}_weight", kind, rows.values, about),
            Table(f"{name}_column", unsigned(weight.shape[1] - 1), rows.columns, "the column of each"),
            Table(f"{name}_start", unsigned(int(rows.starts[-1])), rows.starts, "where the row of each source begins"),
        )
        self.tables += stored
        return stored

    # ------------------------------------------------------------------------------------------------ cells

    def _cell(self, unit: Unit, links: dict[str, LinkLayout], rings: dict[str, Ring]) -> PopulationLayout:
        step = unit.step
        proved = self.proved[step.name]
        equations = Equations(self.names[step.name], proved.folded, proved.bounds(proved.folded), step.name)
        self.tables += equations.tables.values()
        return PopulationLayout(
            name=self.names[step.name],
            unit=unit,
            links=tuple(links[s.name] for s in unit.incoming),
            ring=rings[step.name] if step.op.sending else None,
            equations=equations,
            useful=self._useful(step),
        )

    def _useful(self, step: Step) -> range:
        """Where state is cleared before each block, only T steps of a population matter: nothing else is read."""
        window = self.plan.window
        if self.whole or not self.plan.schedule.resets:
            return range(window)
        return range(min(step.phase, window), min(step.phase + self.plan.schedule.steps, window))


def _common(weight: Array, exponent: int) -> tuple[Array, int]:
    """Mantissas without the power of two that all of them have, which goes into the exponent: narrower tables."""
    bits = int(np.bitwise_or.reduce(weight, axis=None, initial=0))
    if bits == 0:
        return weight, 0
    twos = (bits & -bits).bit_length() - 1
    return weight >> twos, exponent + twos
