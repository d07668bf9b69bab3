"""How a graph's populations are connected: what placement, cost and the rules ask about its structure.

A population holds neurons (or is a stateless spike); a weighted connection leads from what feeds it to what it feeds.
Ops that only pass values on are looked through on both sides. Works on any graph, legal or not, as long as its arrays
have their shapes, in time that grows with the number of nodes and edges.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from nervecord.compiler.graph.edges import components
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.ops import Array, Matrix, Op, is_core
from nervecord.errors import GraphError

MOST_PAIRS = 1 << 20
"""Ops that pass values on may multiply what is connected: no graph has more pairs of a connection and its ends."""


@dataclass(frozen=True, slots=True)
class Wire:
    """A weighted connection between what feeds it and what it feeds.

    Args:
        name, op: of the graph.
        sources: populations, Inputs and host ops that reach it, through ops that pass values on.
        destinations: populations (or Outputs, decoders, other connections) it reaches in the same way.
        fan_out: (in,) synapses with a non-zero weight of each source value.
        synapses: sum of them.
        fan_in: most synapses into one output value.
        stored: synapses with the zeros of a dense matrix.
        recurrent: it lies on a cycle.
    """

    name: str
    op: Op
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    fan_out: Array
    synapses: int
    fan_in: int
    stored: int
    recurrent: bool

    @property
    def delay(self) -> int:
        """Steps from what it takes to what it gives."""
        return self.op.lag

    @property
    def weight(self) -> Array | None:
        """The weights that it stores, in any shape; None for a connection of a kind that has none."""
        weight: Array | None = self.op.stored if isinstance(self.op, Matrix) else getattr(self.op, "weight", None)
        return weight

    @property
    def biased(self) -> bool:
        """Whether it adds a bias that is not zero."""
        bias: Array | None = getattr(self.op, "bias", None)
        return bias is not None and bool((bias != 0).any())


@dataclass(frozen=True)
class Topology:
    """A graph's structure.

    Args:
        populations: name -> op, in graph order.
        wires: the weighted connections, in graph order.
        entries: names whose values enter the core: Inputs, or the last host ops before it.
        readouts: populations whose values leave the core.
        component: name -> number of the strongly connected component it belongs to; components are numbered against
            the direction of the edges.
        cyclic: components that are cycles.
    """

    populations: dict[str, Op]
    wires: tuple[Wire, ...]
    entries: tuple[str, ...]
    readouts: tuple[str, ...]
    component: dict[str, int]
    cyclic: frozenset[int]
    depth: int
    """Most weighted connections on a way from input to output, recurrent ones left out."""
    _into: dict[str, tuple[Wire, ...]] = field(repr=False)
    _out_of: dict[str, tuple[Wire, ...]] = field(repr=False)

    @classmethod
    def of(cls, graph: Graph) -> Topology:
        """Analyse a graph.

        Raises:
            GraphError: ops that pass values on join more connections than can be looked at.
        """
        groups = components(graph.nodes, graph.destinations)
        component = {name: number for number, group in enumerate(groups) for name in group}
        cyclic = frozenset(
            number for number, group in enumerate(groups) if len(group) > 1 or group[0] in graph.destinations(group[0])
        )
        wires = tuple(_wires(graph, component, cyclic))
        fed = {source for name, op in graph.nodes.items() if is_core(op) for source in graph.sources(name)}
        populations = {name: op for name, op in graph.nodes.items() if type(op).ROLE == "population"}
        leaving = _before_the_end(graph)
        into: dict[str, list[Wire]] = {}
        out_of: dict[str, list[Wire]] = {}
        for wire in wires:
            for name in wire.destinations:
                into.setdefault(name, []).append(wire)
            for name in wire.sources:
                out_of.setdefault(name, []).append(wire)
        return cls(
            populations=populations,
            wires=wires,
            entries=tuple(name for name, op in graph.nodes.items() if name in fed and not is_core(op)),
            readouts=tuple(name for name in populations if name in leaving),
            component=component,
            cyclic=cyclic,
            depth=_depth(graph, component, cyclic),
            _into={name: tuple(joined) for name, joined in into.items()},
            _out_of={name: tuple(joined) for name, joined in out_of.items()},
        )

    def into(self, population: str) -> tuple[Wire, ...]:
        """Connections that feed a population."""
        return self._into.get(population, ())

    def out_of(self, source: str) -> tuple[Wire, ...]:
        """Connections that a population or entry feeds."""
        return self._out_of.get(source, ())


def label(graph: Graph, name: str) -> str:
    """A node's name as its maker wrote it."""
    if name not in graph.nodes:
        return name
    return " + ".join(graph.nodes[name].origin) or name


def passes_on(op: Op) -> bool:
    """Whether an op of the core only passes values on."""
    return type(op).ROLE == "passing"


def forward(graph: Graph, component: dict[str, int]) -> list[str]:
    """The nodes in an order in which each component comes before what it feeds."""
    return sorted(graph.nodes, key=lambda name: -component[name])


def _wires(graph: Graph, component: dict[str, int], cyclic: frozenset[int]) -> Iterator[Wire]:
    pairs = 0
    for name, op in graph.nodes.items():
        synapses = op.synapses()
        if synapses is None:
            continue
        sources, before = _reach(graph, name, graph.sources, MOST_PAIRS - pairs)
        destinations, behind = _reach(graph, name, graph.destinations, MOST_PAIRS - pairs)
        pairs += before + behind
        yield Wire(
            name=name,
            op=op,
            sources=sources,
            destinations=destinations,
            fan_out=synapses.fan_out,
            synapses=int(synapses.fan_out.sum()),
            fan_in=synapses.fan_in,
            stored=synapses.stored,
            recurrent=component[name] in cyclic,
        )


def _reach(graph: Graph, name: str, step: Callable[[str], tuple[str, ...]], most: int) -> tuple[tuple[str, ...], int]:
    """Nodes reached from `name` by `step`, through ops that pass values on, in order; and how many were looked at."""
    order: list[str] = []
    seen: set[str] = set()
    waiting = deque(step(name))
    while waiting:
        at = waiting.popleft()
        if at in seen:
            continue
        seen.add(at)
        if len(seen) > most:
            raise GraphError(
                f"ops that only pass values on join more than {MOST_PAIRS} connections and their ends",
                where=name,
                hint="fold them into the weights",
            )
        if passes_on(graph.nodes[at]):
            waiting += step(at)
        else:
            order.append(at)
    return tuple(order), len(seen)


def _before_the_end(graph: Graph) -> set[str]:
    """Names from which what is outside the core is reached, through ops that pass values on."""
    names: set[str] = set()
    waiting = [name for name, op in graph.nodes.items() if not is_core(op)]
    while waiting:
        for a in graph.sources(waiting.pop()):
            if a not in names:
                names.add(a)
                if passes_on(graph.nodes[a]):
                    waiting.append(a)
    return names


def _depth(graph: Graph, component: dict[str, int], cyclic: frozenset[int]) -> int:
    level: dict[int, int] = {}
    for name in forward(graph, component):
        at = component[name]
        if type(graph.nodes[name]).ROLE == "connection" and at not in cyclic:
            level[at] = level.get(at, 0) + 1
        for b in graph.destinations(name):
            level[component[b]] = max(level.get(component[b], 0), level.get(at, 0))
    return max(level.values(), default=0)
