"""The plan: a graph's schedule as data, made once and read by everything that executes, proves, prints or counts.

    Step     an op, where its input comes from (buffers of other steps, each with a lag), the step in a block at which
             its useful work begins
    Unit     a population and the connections that feed it: what a chip updates
    Entry    what enters the core: held over the T steps of an action, sent as spikes, or given step by step
    Read     what leaves the core: in which step, or over which steps it is summed
    Plan     host steps before the core, core steps in execution order, host steps after it

In a block of `window` = T + latency steps every population works T useful steps from its phase on; at the integer level
its state is cleared when its phase comes (its connections' buffers never are), at the discrete level everything is
cleared before the block. What a plan does not refuse, every engine runs, and equally.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypeAlias

from nervecord.compiler.findings import Finding, raise_on_errors
from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy, parts
from nervecord.compiler.graph.schedule import STREAM, Schedule
from nervecord.compiler.graph.verify import require
from nervecord.compiler.ops import Decoder, Level, Op, Output, PopulationEncode, is_core
from nervecord.errors import GraphError

Entering: TypeAlias = Literal["held", "pulses", "stream"]
"""How values enter: one for all T steps of an action; spikes that an encoder makes, other ones at each step; given."""


@dataclass(frozen=True, slots=True)
class Tap:
    """A step's input: what the step of this name gave, `lag` steps ago."""

    source: str
    lag: int


@dataclass(frozen=True, slots=True)
class Step:
    """One op in its place.

    Args:
        name, op: of the graph.
        taps: its inputs, which add up, in the order of the plan.
        phase: first useful step of a block.
        keeps: how many steps its output is kept for readers with a lag.
    """

    name: str
    op: Op
    taps: tuple[Tap, ...]
    phase: int
    keeps: int = 0


@dataclass(frozen=True, slots=True)
class Unit:
    """A population with the connections that feed it; `others` are what feeds it without being a connection."""

    step: Step
    incoming: tuple[Step, ...]
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """What enters the core under this name. `keeps`: as of a `Step`. graded: not only 0 and 1."""

    name: str
    op: Op
    entering: Entering
    graded: bool
    keeps: int = 0


@dataclass(frozen=True, slots=True)
class Read:
    """What leaves the core: of `source`, the value in step `first`, or the sum over first..last; in a block."""

    source: str
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Plan:
    """See the module. Two plans are the same only if they are one, so that what follows from it is kept beside it.

    Args:
        graph, schedule, contract: what it was made of; contract None for a graph that is no policy.
        before: host steps before the core, the Inputs first; once per action (a stream: per step).
        entries: what enters the core.
        core: in execution order.
        after: host steps after the core, the Outputs last.
        reads: of every core step that a host step or an Output takes.
        latency: steps from the first useful step of the inputs to that of the last read.
    """

    graph: Graph
    schedule: Schedule
    contract: Contract | None
    before: tuple[Step, ...]
    entries: tuple[Entry, ...]
    core: tuple[Step, ...]
    after: tuple[Step, ...]
    reads: tuple[Read, ...]
    latency: int
    _step: dict[str, Step] = field(default_factory=dict, repr=False)

    @property
    def window(self) -> int:
        """Steps of a block: T, and those until the last read has seen all of them."""
        return self.schedule.steps + self.latency

    def step(self, name: str) -> Step:
        """The core step of this name."""
        return self._step[name]

    def entry(self, name: str) -> Entry:
        """The entry of this name."""
        return next(entry for entry in self.entries if entry.name == name)

    def clears(self, step: Step, t: int) -> bool:
        """Whether a population's state is cleared before it works at step t (counted from the last reset)."""
        return self.schedule.resets and t % self.window == step.phase % self.window

    def useful(self, name: str) -> slice:
        """The T steps of a block in which a core step works on it."""
        phase = self._step[name].phase
        return slice(phase, phase + self.schedule.steps)

    @cached_property
    def sources(self) -> dict[str, Entry | Step]:
        """Name -> what gives values to the core: its entries, then its steps in execution order."""
        sources: tuple[Entry | Step, ...] = (*self.entries, *self.core)
        return {source.name: source for source in sources}

    @cached_property
    def hoisted(self) -> dict[str, str]:
        """Connection -> the entry whose value it multiplies, where that is one for all T steps of an action: its
        product is taken once."""
        constant = {entry.name for entry in self.entries if entry.entering == "held"}
        return {s.name: s.taps[0].source for s in self.connections if len(s.taps) == 1 and s.taps[0].source in constant}

    @cached_property
    def stepwise(self) -> tuple[str, ...]:
        """What sends other values to connections at each step: for these an engine keeps what was sent."""
        sources = {tap.source for step in self.connections if step.name not in self.hoisted for tap in step.taps}
        sending = [unit.step.name for unit in self.units if unit.step.op.sending]
        return (*(entry.name for entry in self.entries if entry.name in sources), *sending)

    @cached_property
    def useful_steps(self) -> tuple[Step, ...]:
        """The core steps in an order to execute the k-th useful step of each in, one k after the other.

        Their lags are what the phases do not make up for: in a window that is cleared none is left.
        """
        if not any(step.phase for step in self.core):
            return self.core
        phase = {entry.name: 0 for entry in self.entries} | {step.name: step.phase for step in self.core}
        waiting = [
            replace(step, taps=tuple(Tap(t.source, t.lag + phase[t.source] - step.phase) for t in step.taps))
            for step in self.core
        ]
        order: list[Step] = []
        done = {entry.name for entry in self.entries}
        while waiting:
            ready = [step for step in waiting if all(tap.lag > 0 or tap.source in done for tap in step.taps)]
            assert ready  # a plan has no loop without a delay
            order += ready
            done |= {step.name for step in ready}
            waiting = [step for step in waiting if step.name not in done]
        return tuple(order)

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """The populations in execution order, each with what feeds it."""
        units = []
        for step in self.core:
            if type(step.op).ROLE != "population":
                continue
            feeding = [self._step.get(tap.source) for tap in step.taps]
            incoming = tuple(s for s in feeding if s is not None and type(s.op).ROLE == "connection")
            named = {s.name for s in incoming}
            others = tuple(tap.source for tap in step.taps if tap.source not in named)
            units.append(Unit(step, incoming, others))
        return tuple(units)

    @cached_property
    def connections(self) -> tuple[Step, ...]:
        """The weighted connections in execution order."""
        return tuple(step for step in self.core if type(step.op).ROLE == "connection")

    @cached_property
    def graded(self) -> dict[str, bool]:
        """Connection -> whether other values than binary spikes enter it."""
        several = self.graph.arithmetic is not None and self.graph.arithmetic.spikes_per_step > 1
        binary = {step.name: step.op.spikes and not several for step in self.core}
        binary |= {entry.name: not entry.graded for entry in self.entries}
        return {c.name: len(c.taps) > 1 or not all(binary[tap.source] for tap in c.taps) for c in self.connections}

    def read(self, source: str) -> Read:
        """The read of this core step.

        Raises:
            KeyError: nothing reads it.
        """
        for read in self.reads:
            if read.source == source:
                return read
        raise KeyError(source)


def plan(subject: Graph | Policy, schedule: Schedule | None = None) -> Plan:
    """The plan of an executable graph, verified here.

    Args:
        subject: DISCRETE or INTEGER. schedule: of a graph that is no policy; by default a stream, state carried.

    Raises:
        GraphError: it is not executable, or signals that belong together arrive at different steps.
    """
    graph, contract = parts(require(subject))
    if graph.level is Level.IMPORTED:
        raise GraphError(
            "a graph in continuous time cannot be executed",
            where="graph",
            hint="give its time step: --dt 1e-4, or read(path, dt=1e-4)",
        )
    if isinstance(subject, Policy):
        schedule = subject.schedule
    schedule = schedule or STREAM
    order, _ = graph.order()
    position = {name: k for k, name in enumerate(order)}
    behind = {name for name in order if is_core(graph.nodes[name])}
    after_core = _downstream(graph, behind)
    before = [n for n in order if n not in behind and n not in after_core]
    after = [n for n in order if n not in behind and n in after_core]
    phases = _phases(graph, order, behind, staggered=graph.level is Level.INTEGER and schedule.resets)
    keeps: dict[str, int] = {}
    for name in behind:
        for source in graph.sources(name):
            keeps[source] = max(keeps.get(source, 0), graph.nodes[name].lag)

    def step_of(name: str) -> Step:
        op = graph.nodes[name]
        sources = sorted(graph.sources(name), key=position.__getitem__)
        return Step(name, op, tuple(Tap(s, op.lag) for s in sources), phases.get(name, 0), keeps.get(name, 0))

    core = tuple(step_of(name) for name in order if name in behind)
    entering = [n for n in before if any(b in behind for b in graph.destinations(n))]
    entries = tuple(
        Entry(n, graph.nodes[n], _entering(graph.nodes[n], schedule), not graph.nodes[n].spikes, keeps.get(n, 0))
        for n in entering
    )
    after_steps = _joined([step_of(name) for name in after], graph)
    reads, latency = _reads(graph, after_steps, behind, phases, schedule)
    return Plan(
        graph=graph,
        schedule=schedule,
        contract=contract,
        before=tuple(step_of(name) for name in before),
        entries=entries,
        core=core,
        after=after_steps,
        reads=reads,
        latency=latency,
        _step={step.name: step for step in core},
    )


def _downstream(graph: Graph, core: set[str]) -> set[str]:
    """Nodes outside the core that depend on it."""
    names: set[str] = set()
    waiting = [b for name in sorted(core) for b in graph.destinations(name)]
    while waiting:
        name = waiting.pop()
        if name not in core and name not in names:
            names.add(name)
            waiting += graph.destinations(name)
    return names


def _joined(steps: list[Step], graph: Graph) -> tuple[Step, ...]:
    """Outputs last, in the graph's order."""
    named = {step.name: step for step in steps}
    inner = [step for step in steps if not isinstance(step.op, Output)]
    return (*inner, *(named[name] for name in graph.outputs if name in named))


def _entering(op: Op, schedule: Schedule) -> Entering:
    if isinstance(op, PopulationEncode):
        return "pulses"
    return "held" if schedule.held else "stream"


def _phases(graph: Graph, order: tuple[str, ...], core: set[str], *, staggered: bool) -> dict[str, int]:
    """First useful step of every core node.

    Raises:
        GraphError: paths of different length meet at a node, or lead back to it.
    """
    if not staggered:
        return {}
    # Delayed nodes come first in `order`, before what feeds them: walk along the edges instead.
    waiting = {name: sum(a in core for a in graph.sources(name)) for name in core}
    ready = [name for name in order if name in core and waiting[name] == 0]
    phases: dict[str, int] = {}
    findings: list[Finding] = []
    for name in ready:
        lag = graph.nodes[name].lag
        arriving = {phases.get(a, 0) + lag for a in graph.sources(name)}
        if len(arriving) > 1:
            findings.append(
                Finding(
                    "unbalanced-paths",
                    "error",
                    graph.nodes[name].label if graph.nodes[name].origin else name,
                    "is reached over paths of different length in a window that is cleared",
                    max(arriving),
                    min(arriving),
                    "delay the shorter path",
                )
            )
        phases[name] = max(arriving, default=0)
        for b in graph.destinations(name):
            if b in core:
                waiting[b] -= 1
                if waiting[b] == 0:
                    ready.append(b)
    unplaced = [name for name in order if name in core and name not in phases]
    if unplaced:
        findings.append(
            Finding(
                "recurrent-window",
                "error",
                unplaced[0],
                "is part of a loop, and state is cleared before each block: what the loop still holds would leak "
                "into the next one",
                fix="carry the state, or take the loop out",
            )
        )
    raise_on_errors(findings, GraphError)
    return phases


def _reads(
    graph: Graph, after: tuple[Step, ...], core: set[str], phases: dict[str, int], schedule: Schedule
) -> tuple[tuple[Read, ...], int]:
    """When what leaves the core is read, and the latency that follows."""
    reads: dict[str, Read] = {}
    for step in after:
        for tap in step.taps:
            if tap.source not in core:
                continue
            first = phases.get(tap.source, 0)
            last = first + schedule.steps - 1
            summed = isinstance(step.op, Decoder) and type(step.op).READS == "sum"
            if schedule.held and not summed:
                first = last
            read = Read(tap.source, first, last)
            if reads.setdefault(tap.source, read) != read:
                raise GraphError(
                    "is read as a membrane and counted as spikes at once", where=tap.source, hint="read it in one way"
                )
    latency = max((read.last + 1 - schedule.steps for read in reads.values()), default=0)
    return tuple(reads.values()), latency
