"""When things arrive on a target each of whose connections costs steps, against what the graph says.

A graph without delays means that a spike acts in the step in which it is sent. On a chip it acts later, so a population
works `late` steps after the graph's: as late as the longest way to it. What comes over a shorter way must wait, so its
connection is delayed. A loop cannot wait: what comes back late acts on something else. So a loop must have, in the
graph already, all the steps that its connections cost.

    path   input -> fc -> lif -> out         one step per connection: lif works 1 step late, and out shows it
    skip   input -> fc1 -> lif1 -> fc2 -> lif2, and input -> around -> lif2: around takes 2 steps instead of 1
    loop   lif -> back -> lif                back needs a delay of 1, and lif is not late
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy, parts
from nervecord.compiler.graph.schedule import STREAM, Schedule
from nervecord.compiler.ops import Delay, DelayLine, Level, is_core
from nervecord.compiler.passes.discretise import closing, waiting_nodes
from nervecord.compiler.plan.topology import Topology, Wire, forward

NEVER = -math.inf


@dataclass(frozen=True, slots=True)
class Loop:
    """A cycle that is too short for the target. wires: names of its connections; delay: their steps; least: needed."""

    wires: tuple[str, ...]
    delay: int
    least: int

    def message(self, names: Sequence[str]) -> str:
        """What is wrong with it, with these names for its connections."""
        connections = "its connection costs" if len(self.wires) == 1 else f"its {len(self.wires)} connections cost"
        return f"the loop through {', '.join(names)} has fewer steps of delay than {connections} on the chip"

    @property
    def fix(self) -> str:
        """What to do about it."""
        return f"train with delays of {self.least} steps or more in all on this loop"


@dataclass(frozen=True, slots=True)
class Apart:
    """An Output that adds populations of which one leads to the other, so that they cannot be equally late.

    Args:
        early, latest: two of the populations. steps: by which each of them is late.
    """

    name: str
    early: str
    latest: str
    steps: tuple[int, int]
    fix = "give each an Output of its own, or a delay to every connection between them"

    def message(self, early: str, latest: str) -> str:
        """What is wrong with it, with these names for the populations."""
        return f"adds {early} and {latest}, and on the chip the latter is later"


@dataclass(frozen=True, slots=True)
class Wait:
    """What a connection must wait for.

    Args:
        wire: the connection.
        delay: longest delay it needs on the target, in all.
        waits: steps of it that are neither the graph's nor the target's own.
    """

    wire: Wire
    delay: int
    waits: int


@dataclass(frozen=True)
class Lateness:
    """See the module.

    Args:
        late: name -> steps by which a node works later on the target than the graph says.
        own: connection -> steps of delay that the graph gives it.
        loops: that are too short, one of each strongly connected component that has such.
        cost: steps that each connection costs on the target.
        apart: the Outputs that add populations that cannot be equally late.
    """

    late: dict[str, int]
    own: dict[str, int]
    loops: tuple[Loop, ...]
    cost: int
    apart: tuple[Apart, ...] = ()

    @classmethod
    def of(cls, graph: Graph, topology: Topology, cost: int, *, aligned: bool = False) -> Lateness:
        """Of a graph at a float level, on a target whose connections cost so many steps.

        Args:
            aligned: populations that are added up outside the core are read in the same step, and so must be equally
                late; in a window that is cleared each is read in its own.
        """
        own = {wire.name: wire.delay for wire in topology.wires}
        if graph.level is Level.IMPORTED:
            own |= dict.fromkeys(closing(graph, waiting_nodes(graph))[0], 1)
        shifts = {name: cost - steps for name, steps in own.items()}
        if graph.level is Level.IMPORTED and graph.dt:
            shifts |= {name: -_steps(op, graph.dt) for name, op in graph.of_type(Delay)}
        shifts |= {name: -op.lag for name, op in graph.of_type(DelayLine)}
        late, cycles = _latest(graph, topology, shifts)
        loops = []
        for cycle in cycles:
            wires = tuple(name for name in cycle if name in own)
            loops.append(Loop(wires, sum(own[name] for name in wires), cost * len(wires)))
        apart = _align(graph, topology, late) if aligned and not loops else ()
        return cls(late, own, tuple(loops), cost, apart)

    @classmethod
    def of_integers(cls, graph: Graph, topology: Topology) -> Lateness:
        """Of a graph whose delays are the target's already: how late each node works in a window that is cleared."""
        own = {wire.name: wire.delay for wire in topology.wires}
        late, _ = _latest(graph, topology, own)
        return cls(late, own, (), 0)

    def latency(self, topology: Topology) -> int:
        """Steps by which the last readout is late."""
        return max((self.late[name] for name in topology.readouts), default=0)

    def waiting(self, wires: Sequence[Wire]) -> Iterator[Wait]:
        """The connections that must wait for others."""
        for wire in wires:
            if not wire.sources or not wire.destinations:
                continue
            begins = min(self.late.get(name, 0) for name in wire.sources)
            acts = max(self.late.get(name, 0) for name in wire.destinations)
            delay = self.own[wire.name] + acts - begins
            yield Wait(wire, delay, delay - max(self.own[wire.name], self.cost))


def schedule_of(subject: Graph | Policy, schedule: Schedule | None = None) -> Schedule:
    """A policy's own; of another graph the one given, or a stream."""
    if isinstance(subject, Policy):
        return subject.schedule
    return schedule or STREAM


def lateness_of(graph: Graph, topology: Topology, cost: int, schedule: Schedule) -> Lateness:
    """Of a graph at any level, on a target whose connections cost so many steps."""
    if graph.level is not Level.INTEGER:
        return Lateness.of(graph, topology, cost, aligned=not schedule.resets)
    if schedule.resets:
        return Lateness.of_integers(graph, topology)
    # Its delays are the target's already, and nothing is cleared that would have to be cleared later.
    return Lateness(dict.fromkeys(graph.nodes, 0), {wire.name: wire.delay for wire in topology.wires}, (), 0)


def steps_per_block(
    subject: Graph | Policy, topology: Topology, cost: int, schedule: Schedule | None = None
) -> tuple[int, int]:
    """(steps of a block on a target whose connections cost so many steps, steps T in which input comes)."""
    graph, _ = parts(subject)
    when = schedule_of(subject, schedule)
    if not when.resets:
        return when.steps, when.steps
    return when.steps + lateness_of(graph, topology, cost, when).latency(topology), when.steps


def _steps(op: Delay, dt: float) -> int:
    longest = float(op.delay.max(initial=0.0)) / dt
    return round(longest) if math.isfinite(longest) else 0


def read_by(graph: Graph, topology: Topology, output: str) -> tuple[str, ...]:
    """Populations whose values leave by this Output, by themselves or through decoders."""
    names: dict[str, None] = {}
    for a in graph.sources(output):
        names |= dict.fromkeys((a,) if is_core(graph.nodes[a]) else graph.sources(a))
    return tuple(name for name in names if name in topology.populations)


def _align(graph: Graph, topology: Topology, late: dict[str, int]) -> tuple[Apart, ...]:
    """Let readouts wait for those that they are added to; the Outputs where one cannot, since others depend on it."""
    added = {name: sources for name in graph.outputs if len(sources := read_by(graph, topology, name)) > 1}
    changed = True
    while changed:
        changed = False
        for name, sources in added.items():
            latest = max(late[a] for a in sources)
            for a in sources:
                if late[a] < latest and not topology.out_of(a):
                    late[a], changed = latest, True
            late |= dict.fromkeys([name, *(a for a in graph.sources(name) if a not in topology.populations)], latest)
    ends = ((name, min(a, key=late.__getitem__), max(a, key=late.__getitem__)) for name, a in added.items())
    return tuple(Apart(name, a, b, (late[a], late[b])) for name, a, b in ends if late[a] != late[b])


def _latest(graph: Graph, topology: Topology, shifts: dict[str, int]) -> tuple[dict[str, int], list[list[str]]]:
    """(name -> steps it is late, one cycle that grows later in each round for each component that has one).

    Args:
        shifts: name -> steps by which a node is later than the latest of its sources; 0 where it is not named.
    """
    late: dict[str, float] = {}
    cycles: list[list[str]] = []
    members: dict[int, list[str]] = {}
    for name in forward(graph, topology.component):
        members.setdefault(topology.component[name], []).append(name)

    def least(name: str) -> float:
        # Nothing works earlier than the graph says: there is no input yet.
        op = graph.nodes[name]
        return NEVER if is_core(op) and type(op).ROLE in ("connection", "passing") else 0.0

    for number, names in members.items():
        if number not in topology.cyclic:
            (name,) = names
            latest = max((late[a] for a in graph.sources(name)), default=0.0)
            late[name] = max(latest + shifts.get(name, 0), least(name))
            continue
        cycle = _settle(graph, names, late, shifts, {name: least(name) for name in names})
        if cycle:
            cycles.append(cycle)
    return {name: 0 if value == NEVER else int(value) for name, value in late.items()}, cycles


def _settle(
    graph: Graph, names: list[str], late: dict[str, float], shifts: dict[str, int], least: dict[str, float]
) -> list[str]:
    """Fill in `late` for one cyclic component; a cycle that never settles, or none (Bellman and Ford)."""
    inside = set(names)
    before: dict[str, str] = {}
    for name in names:
        outside = [late[a] for a in graph.sources(name) if a not in inside]
        late[name] = max([least[name], *(value + shifts.get(name, 0) for value in outside)])
    if all(late[name] == NEVER for name in names):
        late[names[0]] = 0.0
    order = _walk(graph, names, inside)
    changed = True
    while changed:
        changed = False
        for a in order:
            if late[a] == NEVER:
                continue
            for b in graph.destinations(a):
                if b in inside and late[a] + shifts.get(b, 0) > late[b]:
                    late[b] = late[a] + shifts.get(b, 0)
                    before[b] = a
                    changed = True
        cycle = _cycle(before) if changed else []
        if cycle:
            late |= {name: max(least[name], 0.0) for name in names}
            return cycle
    return []


def _walk(graph: Graph, names: list[str], inside: set[str]) -> list[str]:
    """The component in reverse postorder, in which most edges lead forward."""
    seen: set[str] = set()
    order: list[str] = []
    walk: list[tuple[str, Iterator[str]]] = []
    for root in names:
        if root in seen:
            continue
        seen.add(root)
        walk.append((root, iter(graph.destinations(root))))
        while walk:
            at, following = walk[-1]
            for b in following:
                if b in inside and b not in seen:
                    seen.add(b)
                    walk.append((b, iter(graph.destinations(b))))
                    break
            else:
                order.append(at)
                walk.pop()
    return order[::-1]


def _cycle(before: dict[str, str]) -> list[str]:
    """A cycle of predecessors, in the direction of the edges; empty where there is none."""
    done: set[str] = set()
    for start in before:
        path: dict[str, None] = {}
        at = start
        while at in before and at not in done and at not in path:
            path[at] = None
            at = before[at]
        if at in path:
            ring = list(path)[list(path).index(at) :]
            return ring[::-1]
        done |= path.keys()
    return []
