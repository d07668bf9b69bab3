"""What of a plan becomes hardware: the one place where this target reads plans.

Source       what an entry or a population sent in the last steps: a ring of lists of spikes
Connection   weights by source; what feeds them, and how products are scaled
Entrance     what enters the core under a name, as the host writes it: of a population code its spikes
Population   its body, with the proved bounds of every value, and when it works
Exit         what the host reads, and in which steps
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervecord.compiler.body.expression import Body
from nervecord.compiler.body.trace import Tracer
from nervecord.compiler.ops import Array, HostOp, Level, Mantissas
from nervecord.compiler.plan.plan import Entry, Plan
from nervecord.errors import GraphError, InfeasibleError
from nervecord.runtime.engines.c.layout import LinkLayout, PopulationLayout, Ring, bias_source, c_layout, limits


@dataclass(frozen=True, slots=True)
class Source:
    """See the module.

    Args:
        name: of the plan. size: places. slots: steps that are kept. valued: values go with the places.
        most: largest magnitude of a value.
    """

    name: str
    size: int
    slots: int
    valued: bool
    most: int


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """See the module.

    Args:
        name: of the plan. weight: (sources, outputs) int64, what all have in common taken into the exponent.
        exponent: of the sum, or of each product where `each`; a negative one rounds down.
        taps: (source, steps ago), whose lists add up. Of one whose source is held it is the entry, 0 steps ago.
        held: its product is taken once per block, and kept for `slots` blocks.
        when: of a held one, for each step of a block how many blocks ago its product was taken; None: it is zero.
    """

    name: str
    weight: Array
    exponent: int
    each: bool
    taps: tuple[tuple[str, int], ...]
    held: bool
    slots: int
    when: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Equations:
    """A body, and the lowest and highest value of each of its nodes."""

    body: Body
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """See the module.

    Args:
        incoming: what feeds it. source: what it sends; None where it is read alone.
        useful: steps of a block in which it works. clears: the step before which its state is cleared; None: never.
    """

    name: str
    size: int
    equations: Equations
    incoming: tuple[Connection, ...]
    source: Source | None
    useful: range
    clears: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Entrance:
    """See the module.

    Args:
        low, high: of the numbers that the host writes. fixed: those after them that are always the same.
        held: it is listed once per block, for products alone; else in every step.
        rows: of numbers that the host writes: one, or one for each of the first steps of a block.
        source: its list.
    """

    name: str
    size: int
    low: int
    high: int
    fixed: tuple[int, ...]
    equations: Equations
    held: bool
    rows: int
    source: Source

    @property
    def given(self) -> int:
        """Numbers of a row that the host's user gives."""
        return self.size - len(self.fixed)


@dataclass(frozen=True, slots=True)
class Exit:
    """See the module. rows: it is read in each step from `first` to `last`; else the sum over them is."""

    population: str
    size: int
    first: int
    last: int
    rows: bool


@dataclass(frozen=True, eq=False)
class Layout:
    """A plan as the hardware needs it. Populations are in the order of execution."""

    plan: Plan
    entrances: tuple[Entrance, ...]
    populations: tuple[Population, ...]
    exits: tuple[Exit, ...]

    @property
    def window(self) -> int:
        """Steps of a block."""
        return self.plan.window


def layout(plan: Plan) -> Layout:
    """What of a plan becomes hardware.

    Raises:
        GraphError: it is not of integers.
        InfeasibleError: a range cannot be proved, or an op has no hardware; it is named.
    """
    _refuse(plan)
    printed = c_layout(plan)
    names = {identifier: name for name, identifier in printed.names.items()}
    populations = tuple(_population(plan, cell, names) for cell in printed.cells)
    rings = dict(printed.rings)
    constant = {link.held for link in printed.links.values() if link.held is not None}
    entrances = [
        entrance
        for entry in plan.entries
        for entrance in _entrances(plan, entry, rings.get(entry.name), entry.name in constant)
    ]
    rows = not plan.schedule.held
    exits = tuple(Exit(read.source, plan.step(read.source).op.size, read.first, read.last, rows) for read in plan.reads)
    return Layout(plan, tuple(entrances), populations, exits)


def held_list(name: str) -> str:
    """The name of the list of a held entry, from which products are taken; it may have a ring too."""
    return f"{name} (held)"


def _refuse(plan: Plan) -> None:
    """What there is no hardware for, by its name."""
    if plan.graph.level is not Level.INTEGER or plan.graph.arithmetic is None:
        raise GraphError(
            f"is at level {plan.graph.level.value}, and hardware is made of integers",
            where="graph",
            hint="compile it for a target",
        )
    for step in plan.core:
        if not (isinstance(step.op, Mantissas) or (step.op.has_body and Level.INTEGER in step.op.levels)):
            raise InfeasibleError(f"{step.op.kind} has no hardware", where=step.name)


def _source(name: str, ring: Ring) -> Source:
    return Source(name, ring.width, ring.slots, ring.valued, ring.most)


def _population(plan: Plan, cell: PopulationLayout, names: dict[str, str]) -> Population:
    step = cell.unit.step
    equations = Equations(cell.equations.body, tuple((b.lowest, b.highest) for b in cell.equations.bounds))
    return Population(
        name=step.name,
        size=step.op.size,
        equations=equations,
        incoming=tuple(_connection(link, names) for link in cell.links),
        source=None if cell.ring is None else _source(step.name, cell.ring),
        useful=cell.useful,
        clears=step.phase % plan.window if plan.schedule.resets else None,
    )


def _connection(link: LinkLayout, names: dict[str, str]) -> Connection:
    if link.held is not None:
        taps: tuple[tuple[str, int], ...] = ((held_list(link.held), 0),)
    else:
        taps = tuple((names[ring.name], link.delay) for ring in link.taps)
    return Connection(
        name=link.step.name,
        weight=_dense(link),
        exponent=link.exponent,
        each=link.each,
        taps=taps,
        held=link.held is not None,
        slots=link.slots,
        when=link.when,
    )


def _dense(link: LinkLayout) -> Array:
    """Weights by source, those that are zero included."""
    if link.column is None or link.start is None:
        return link.weight.values.reshape(link.inputs, link.outputs)
    matrix = np.zeros((link.inputs, link.outputs), dtype=np.int64)
    starts = link.start.values
    source = np.repeat(np.arange(link.inputs), np.diff(starts))
    count = int(starts[-1])
    matrix[source, link.column.values[:count]] = link.weight.values[:count]
    return matrix


def _entrances(plan: Plan, entry: Entry, ring: Ring | None, held: bool) -> list[Entrance]:
    """An entry's list for products that are taken once, and its ring, where there are such."""
    low, high = limits(entry)
    constant = bias_source(entry)
    pulses = isinstance(entry.op, HostOp) and entry.op.PULSES
    if pulses:
        low, high = 0, 1
    fixed = (constant,) if constant else ()
    most = max(abs(low), abs(high), *(abs(x) for x in fixed), 1)
    rows = plan.schedule.steps if pulses or not plan.schedule.held else 1
    equations = _identity(min(low, 0, *fixed), max(high, 0, *fixed))
    entrances = []
    if held:
        source = Source(held_list(entry.name), entry.op.size, 1, entry.graded, most)
        entrances.append(Entrance(entry.name, entry.op.size, low, high, fixed, equations, True, rows, source))
    if ring is not None:
        entrances.append(
            Entrance(entry.name, entry.op.size, low, high, fixed, equations, False, rows, _source(entry.name, ring))
        )
    return entrances


def _identity(low: int, high: int) -> Equations:
    """What enters, as it is."""
    do = Tracer("integer")
    return Equations(do.body(do.x), ((low, high),))


def identity(bound: int) -> Equations:
    """The equations of what passes on what enters, of a magnitude up to `bound`."""
    return _identity(-bound, bound)
