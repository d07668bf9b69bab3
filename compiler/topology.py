"""How a graph's populations are connected: what placement, cost and the rules ask about its structure.

A population is a node that holds neurons (or a stateless spike); a connection is a weighted node. Scale, Flatten,
Pool2d and Delay only pass values on, so a connection is followed through them on both sides. Works on any graph,
legal or not, as long as its arrays have their shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.graph import Graph, Level
from nervecord.compiler.node import Array, Node

POPULATIONS: tuple[type[Node], ...] = (*n.NEURONS, n.Threshold)
WEIGHTED: tuple[type[Node], ...] = (n.Affine, n.FixedDense, n.Conv2d)
PASSING: tuple[type[Node], ...] = (n.Scale, n.Flatten, n.Pool2d, n.Delay)
CURRENT_BASED: tuple[type[Node], ...] = (
    n.ContinuousCubaLI,
    n.ContinuousCubaLIF,
    n.DiscreteCubaLI,
    n.DiscreteCubaLIF,
)


@dataclass(frozen=True, slots=True)
class Connection:
    """A weighted node between what feeds it and what it feeds.

    Args:
        name, node: of the graph.
        sources: populations, Inputs and host nodes that reach it, through passing nodes.
        destinations: populations (or Output, Decode, another connection) it reaches, through passing nodes.
        counts: (in,) synapses of each source value: its fan-out through non-zero weights.
        fan_in: most synapses into one output value.
        stored: synapses with the zeros of a dense matrix.
        recurrent: it lies on a cycle.
    """

    name: str
    node: Node
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    counts: Array
    fan_in: int
    stored: int
    recurrent: bool

    @property
    def synapses(self) -> int:
        """Synapses with a non-zero weight."""
        return int(self.counts.sum())

    @property
    def biased(self) -> bool:
        """Whether it adds a bias that is not zero."""
        bias = getattr(self.node, "bias", None)
        return bias is not None and bool((bias != 0).any())


@dataclass(frozen=True, slots=True)
class Topology:
    """A graph's structure.

    Args:
        populations: name -> node, in graph order.
        connections: in graph order.
        entries: names whose values enter the core: Inputs, or the last host node before it.
        readouts: populations whose values leave the core.
    """

    populations: dict[str, Node]
    connections: tuple[Connection, ...]
    entries: tuple[str, ...]
    readouts: tuple[str, ...]

    @classmethod
    def of(cls, graph: Graph) -> Topology:
        """Analyse a graph."""
        cyclic = _on_cycles(graph)
        found = tuple(
            _connection(graph, name, node, name in cyclic) for name, node in graph.nodes.items() if is_weighted(node)
        )
        fed = {source for name, node in graph.nodes.items() if is_core(node) for source in graph.sources(name)}
        entries = tuple(name for name in graph.nodes if name in fed and not is_core(graph.nodes[name]))
        populations = {name: node for name, node in graph.nodes.items() if isinstance(node, POPULATIONS)}
        readouts = tuple(
            name
            for name in populations
            if any(not is_core(graph.nodes[b]) for b in _reach(graph, name, graph.destinations))
        )
        return cls(populations, found, entries, readouts)

    def into(self, population: str) -> tuple[Connection, ...]:
        """Connections that feed a population."""
        return tuple(c for c in self.connections if population in c.destinations)

    def out_of(self, source: str) -> tuple[Connection, ...]:
        """Connections that a population or entry feeds."""
        return tuple(c for c in self.connections if source in c.sources)

    @property
    def depth(self) -> int:
        """Most weighted connections on a way from input to output, recurrent ones left out."""
        level: dict[str, int] = {}
        for _ in range(len(self.populations) + 1):
            before = dict(level)
            for connection in self.connections:
                if connection.recurrent:
                    continue
                start = max((level.get(source, 0) for source in connection.sources), default=0)
                for destination in (*connection.destinations, connection.name):
                    level[destination] = max(level.get(destination, 0), start + 1)
            if level == before:
                break
        return max(level.values(), default=0)


def is_core(node: Node) -> bool:
    """Whether a node runs on the target."""
    return not isinstance(node, (n.Input, n.Output, *n.HOST_NODES))


def is_weighted(node: Node) -> bool:
    """Whether a node is a connection."""
    return isinstance(node, WEIGHTED)


def size(node: Node) -> int:
    """Number of values a node gives: neurons of a population."""
    return int(np.prod(node.out_shape, dtype=np.int64))


def label(graph: Graph, name: str) -> str:
    """A node's name as its maker wrote it."""
    if name not in graph.nodes:
        return name
    return " + ".join(graph.nodes[name].origin) or name


def is_chain(graph: Graph) -> bool:
    """Whether there is one path from one input to one output."""
    return all(len(graph.sources(name)) <= 1 and len(graph.destinations(name)) <= 1 for name in graph.nodes)


def lag(connection: Connection, spec_delay: float, level: Level) -> int:
    """Steps by which a target that delays each connection by `spec_delay` is later than the graph says.

    A recurrent connection in continuous time is taken as one step, as discretising does.
    """
    if isinstance(connection.node, n.FixedDense):
        own = 1
    else:
        own = int(getattr(connection.node, "delay", 0))
        if connection.recurrent and level is Level.IMPORTED:
            own = max(own, 1)
    return max(int(spec_delay) - own, 0)


def _connection(graph: Graph, name: str, node: Node, recurrent: bool) -> Connection:
    counts, fan_in, stored = _synapses(node)
    return Connection(
        name=name,
        node=node,
        sources=_reach(graph, name, graph.sources),
        destinations=_reach(graph, name, graph.destinations),
        counts=counts,
        fan_in=fan_in,
        stored=stored,
        recurrent=recurrent,
    )


def _synapses(node: Node) -> tuple[Array, int, int]:
    """(fan-out of each input value, largest fan-in, stored synapses)."""
    if isinstance(node, n.Conv2d):
        return _convolution_synapses(node)
    assert isinstance(node, (n.Affine, n.FixedDense))
    nonzero = node.weight != 0
    return nonzero.sum(axis=0), int(nonzero.sum(axis=1).max(initial=0)), int(node.weight.size)


def _convolution_synapses(node: n.Conv2d) -> tuple[Array, int, int]:
    """As if unrolled, zero weights of the kernel counted: per axis, how many outputs each input position feeds."""
    reach = []
    for size_in, size_out, kernel, step, pad, dilation in zip(
        node.input_hw, node.out_shape[1:], node.weight.shape[2:], node.stride, node.padding, node.dilation, strict=True
    ):
        hits = np.zeros(size_in, dtype=np.int64)
        for k in range(kernel):
            position = np.arange(size_out) * step - pad + k * dilation
            np.add.at(hits, position[(position >= 0) & (position < size_in)], 1)
        reach.append(hits)
    channels_in, channels_out = node.in_shape[0], node.out_shape[0]
    plane = np.outer(reach[0], reach[1]) * (channels_out // node.groups)
    counts = np.broadcast_to(plane, (channels_in, *plane.shape)).ravel()
    fan_in = int(np.prod(node.weight.shape[1:]))
    return counts, fan_in, fan_in * size(node)


def _reach(graph: Graph, name: str, step: Callable[[str], tuple[str, ...]]) -> tuple[str, ...]:
    """Nodes reached from `name` by `step`, through passing nodes, in order."""
    found: list[str] = []
    seen: set[str] = set()
    waiting = list(step(name))
    while waiting:
        at = waiting.pop(0)
        if at in seen:
            continue
        seen.add(at)
        if isinstance(graph.nodes[at], PASSING):
            waiting += step(at)
        else:
            found.append(at)
    return tuple(found)


def _on_cycles(graph: Graph) -> set[str]:
    """Names of nodes that can reach themselves. Membership only is asked of it, so its order does not matter."""
    following = {name: graph.destinations(name) for name in graph.nodes}
    found = set()
    for start in graph.nodes:
        seen: set[str] = set()
        waiting = list(following[start])
        while waiting:
            at = waiting.pop()
            if at == start:
                found.add(start)
                break
            if at not in seen:
                seen.add(at)
                waiting += following[at]
    return found
