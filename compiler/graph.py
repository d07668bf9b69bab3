"""The graph: named nodes and the edges between them, at one level of meaning.

    IMPORTED  what NIR said, in continuous time
    DISCRETE  dt fixed, executable float64 semantics, host nodes in place
    INTEGER   a target's arithmetic

A graph is a value. Passes make new ones. Order is part of it: the same input gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from nervecord.compiler.contract import Contract
from nervecord.compiler.node import Array, Node
from nervecord.compiler.nodes import HOST_NODES, Affine, FixedDense, Input, Output
from nervecord.compiler.notebook import table
from nervecord.errors import GraphError

Edge = tuple[str, str]


class Level(enum.Enum):
    """What a graph's nodes mean; see the module."""

    IMPORTED = "imported"
    DISCRETE = "discrete"
    INTEGER = "integer"


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Nodes by name in order, edges in order; several edges into one node add up.

    Args:
        level: the meaning of the nodes.
        nodes: name -> node, insertion order kept.
        edges: (source, destination) names.
        dt: seconds per core step; None where the file did not say and nobody has chosen.
        contract: how to drive it as a policy; None for a graph that is no policy.
        recorded: (k, observations) raw observations from training, for calibration; None where there are none.
    """

    level: Level
    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    dt: float | None = None
    contract: Contract | None = None
    recorded: Array | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", MappingProxyType(dict(self.nodes)))
        object.__setattr__(self, "edges", tuple((str(a), str(b)) for a, b in self.edges))
        for edge in self.edges:
            for end in edge:
                if end not in self.nodes:
                    raise GraphError(f"edge {edge[0]} -> {edge[1]} names a node that does not exist", where=end)
        if len(set(self.edges)) != len(self.edges):
            raise GraphError("the same edge appears twice", where="edges", hint="merge its weights into one node")
        if self.recorded is not None:
            array = np.array(self.recorded, dtype=np.float64)
            array.setflags(write=False)
            object.__setattr__(self, "recorded", array)

    def __repr__(self) -> str:
        policy = "" if self.contract is None else f", policy for {self.contract.environment}"
        return f"<Graph {self.level.value}, {len(self.nodes)} nodes, {len(self.edges)} edges{policy}>"

    def _repr_html_(self) -> str:
        rows = [(name, node.kind, "x".join(map(str, node.out_shape))) for name, node in self.nodes.items()]
        return table(repr(self).strip("<>"), ("node", "kind", "shape"), rows)

    def replace(self, **changes: object) -> Graph:
        """A copy with these fields changed."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
        return Graph(**{**values, **changes})  # type: ignore[arg-type]

    def sources(self, name: str) -> tuple[str, ...]:
        """Names of the nodes that feed `name`, in edge order."""
        return tuple(a for a, b in self.edges if b == name)

    def destinations(self, name: str) -> tuple[str, ...]:
        """Names of the nodes that `name` feeds, in edge order."""
        return tuple(b for a, b in self.edges if a == name)

    def of_type(self, *types: type[Node]) -> Iterator[tuple[str, Node]]:
        """(name, node) of these types, in order."""
        return ((name, node) for name, node in self.nodes.items() if isinstance(node, types))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the Input nodes."""
        return tuple(name for name, _ in self.of_type(Input))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the Output nodes."""
        return tuple(name for name, _ in self.of_type(Output))

    @property
    def core(self) -> tuple[str, ...]:
        """Names of the nodes that run on the target each step: neither ends nor host nodes."""
        return tuple(n for n, node in self.nodes.items() if not isinstance(node, (Input, Output, *HOST_NODES)))

    def order(self) -> tuple[str, ...]:
        """Names in execution order: topological, delayed nodes' inputs cut, ties by position.

        Raises:
            GraphError: a cycle passes through no delayed node.
        """
        order, left = self.partial_order()
        if left:
            raise GraphError(
                "a cycle passes through no delay: " + " -> ".join(left),
                where=left[0],
                hint="a recurrent connection needs a delay of at least one step",
            )
        return order

    def partial_order(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(names in execution order, names stuck in cycles without a delay)."""
        waiting = {
            name: sum(1 for _, b in self.edges if b == name) if not delays(self.nodes[name]) else 0
            for name in self.nodes
        }
        out: dict[str, list[str]] = {name: [] for name in self.nodes}
        for a, b in self.edges:
            if not delays(self.nodes[b]):
                out[a].append(b)
        done: list[str] = []
        ready = [name for name in self.nodes if waiting[name] == 0]
        position = {name: k for k, name in enumerate(self.nodes)}
        while ready:
            name = min(ready, key=position.__getitem__)
            ready.remove(name)
            done.append(name)
            for b in out[name]:
                waiting[b] -= 1
                if waiting[b] == 0:
                    ready.append(b)
        return tuple(done), tuple(name for name in self.nodes if waiting[name] > 0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Graph):
            return NotImplemented
        same_recorded = (self.recorded is None) == (other.recorded is None) and (
            self.recorded is None or np.array_equal(self.recorded, other.recorded)  # type: ignore[arg-type]
        )
        return (
            self.level is other.level
            and list(self.nodes) == list(other.nodes)
            and all(self.nodes[n] == other.nodes[n] for n in self.nodes)
            and self.edges == other.edges
            and self.dt == other.dt
            and self.contract == other.contract
            and same_recorded
        )

    __hash__ = None  # type: ignore[assignment]


def delays(node: Node) -> bool:
    """Whether a node's output at a step depends on earlier inputs only."""
    return isinstance(node, FixedDense) or (isinstance(node, Affine) and node.delay > 0)


def chain(
    level: Level,
    nodes: Iterable[tuple[str, Node]],
    *,
    dt: float | None = None,
    contract: Contract | None = None,
    recorded: Array | None = None,
) -> Graph:
    """A graph whose nodes feed one another in order."""
    named = dict(nodes)
    names = list(named)
    return Graph(
        level=level,
        nodes=named,
        edges=tuple(itertools.pairwise(names)),
        dt=dt,
        contract=contract,
        recorded=recorded,
    )
