"""The graph: named ops and the edges between them, at one level of meaning.

A graph is a value. Passes make new ones. Order is part of it: the same input gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TypeVar

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.findings import Finding
from nervecord.compiler.graph.notebook import table
from nervecord.compiler.ops import Level, Op, is_core
from nervecord.errors import GraphError, one_line

Edge = tuple[str, str]
T = TypeVar("T", bound=Op)


@dataclass(frozen=True, eq=False)
class Graph:
    """Ops by name in order, edges in order; several edges into one op add up.

    Args:
        level: the meaning of the ops.
        nodes: name -> op, insertion order kept.
        edges: (source, destination) names.
        dt: seconds per core step; None where the file did not say and nobody has chosen.
        arithmetic: of the integers, at the integer level; None at the others.
        notes: what its reader noticed of the file; no part of the value, and in no file.
    """

    level: Level
    nodes: Mapping[str, Op]
    edges: tuple[Edge, ...]
    dt: float | None = None
    arithmetic: Arithmetic | None = None
    notes: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", MappingProxyType(dict(self.nodes)))
        object.__setattr__(self, "edges", tuple((str(a), str(b)) for a, b in self.edges))
        for edge in self.edges:
            for end in edge:
                if end not in self.nodes:
                    text = one_line(f"edge {edge[0]} -> {edge[1]} names a node that does not exist")
                    raise GraphError(text, where=end)
        if len(set(self.edges)) != len(self.edges):
            raise GraphError("the same edge appears twice", where="edges", hint="merge its weights into one node")

    def __repr__(self) -> str:
        return f"<Graph {self.level.value}, {len(self.nodes)} nodes, {len(self.edges)} edges>"

    def _repr_html_(self) -> str:
        rows = [(name, op.kind, "x".join(map(str, op.out_shape))) for name, op in self.nodes.items()]
        return table(repr(self).strip("<>"), ("node", "kind", "shape"), rows)

    def replace(self, **changes: object) -> Graph:
        """A copy with these fields changed."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Graph(**{**values, **changes})  # type: ignore[arg-type]

    @cached_property
    def _neighbours(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        sources: dict[str, list[str]] = {name: [] for name in self.nodes}
        destinations: dict[str, list[str]] = {name: [] for name in self.nodes}
        for a, b in self.edges:
            sources[b].append(a)
            destinations[a].append(b)
        return sources, destinations

    def sources(self, name: str) -> tuple[str, ...]:
        """Names of the nodes that feed `name`, in edge order."""
        return tuple(self._neighbours[0][name])

    def destinations(self, name: str) -> tuple[str, ...]:
        """Names of the nodes that `name` feeds, in edge order."""
        return tuple(self._neighbours[1][name])

    def of_type(self, *types: type[T]) -> Iterator[tuple[str, T]]:
        """(name, op) of these types, in order."""
        return ((name, op) for name, op in self.nodes.items() if isinstance(op, types))

    def of_role(self, *roles: str) -> tuple[str, ...]:
        """Names of the ops of these roles, in order."""
        return tuple(name for name, op in self.nodes.items() if type(op).ROLE in roles)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the Input nodes."""
        return self.of_role("input")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the Output nodes."""
        return self.of_role("output")

    @property
    def core(self) -> tuple[str, ...]:
        """Names of the nodes that run on the target each step: neither ends nor host ops."""
        return tuple(name for name, op in self.nodes.items() if is_core(op))

    def order(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(names in execution order, names stuck in cycles without a delay).

        Topological over the nodes that answer in the step they are asked; ties by position.
        """
        names = list(self.nodes)
        position = {name: k for k, name in enumerate(names)}
        waiting = {name: 0 if self.nodes[name].lag else len(self.sources(name)) for name in names}
        ready = [position[name] for name in names if waiting[name] == 0]
        heapq.heapify(ready)
        done: list[str] = []
        while ready:
            name = names[heapq.heappop(ready)]
            done.append(name)
            for b in self.destinations(name):
                if self.nodes[b].lag:
                    continue
                waiting[b] -= 1
                if waiting[b] == 0:
                    heapq.heappush(ready, position[b])
        return tuple(done), tuple(name for name in self.nodes if waiting[name] > 0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Graph):
            return NotImplemented
        return (
            self.level is other.level
            and list(self.nodes) == list(other.nodes)
            and all(self.nodes[n] == other.nodes[n] for n in self.nodes)
            and self.edges == other.edges
            and self.dt == other.dt
            and self.arithmetic == other.arithmetic
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[object, ...]:
        return Graph, (self.level, dict(self.nodes), self.edges, self.dt, self.arithmetic, self.notes)


def chain(
    level: Level, nodes: Iterable[tuple[str, Op]], *, dt: float | None = None, arithmetic: Arithmetic | None = None
) -> Graph:
    """A graph whose nodes feed one another in order."""
    named = dict(nodes)
    return Graph(level, named, tuple(itertools.pairwise(named)), dt, arithmetic)
