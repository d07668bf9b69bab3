"""What a graph is, whatever the target, as plain data: what `inspect` says of it, and what a report draws."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nervecord.compiler.files.program import describe, described_hashes
from nervecord.compiler.graph.contract import Channels, Contract
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.schedule import STREAM, Schedule
from nervecord.compiler.ops import Array, Level, fields, is_core
from nervecord.compiler.plan.timing import Lateness
from nervecord.compiler.plan.topology import Topology, label

LARGEST_WHOLE = 2.0**53
"""Larger floats are all whole numbers, and say nothing of a grid."""
LARGE = 2.0**400
"""Weights of which some is larger are scaled before they are measured: their squares and sums go beyond float64."""
BINS = 48
"""Of a histogram of weights, at most: few weights get fewer."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How the weights of a connection are spread.

    Args:
        count, zeros: stored weights, and those that are zero.
        low, high, mean, std: over all of them.
        edges, counts: a histogram of those that are not zero, `len(counts) + 1` edges; empty where there are none.
    """

    count: int
    zeros: int
    low: float
    high: float
    mean: float
    std: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, weights: Array) -> Spread:
        """Of an array of any shape that holds at least one value, all finite."""
        values = np.asarray(weights, dtype=np.float64).ravel()
        zeros = int(np.count_nonzero(values == 0))
        largest = float(np.abs(values).max())
        unit = 2.0 ** (math.frexp(largest)[1] - 1) if largest > LARGE else 1.0
        values = values / unit
        nonzero = values[values != 0]
        counts: Array = np.zeros(0, dtype=np.int64)
        edges: Array = np.zeros(0)
        if nonzero.size:
            counts, edges = np.histogram(nonzero, bins=_edges(weights, nonzero))
        return cls(
            count=values.size,
            zeros=zeros,
            low=float(values.min()) * unit,
            high=float(values.max()) * unit,
            mean=float(values.mean()) * unit,
            std=float(values.std()) * unit,
            edges=tuple(float(edge) * unit for edge in edges),
            counts=tuple(int(count) for count in counts),
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**dataclasses.asdict(self), "edges": list(self.edges), "counts": list(self.counts)}


def _edges(weights: Array, nonzero: Array) -> Array | int:
    """Bins as wide as a whole number of steps where the weights are whole numbers, so that none stays empty by chance.

    Integers on a grid coarser than 1 (few bits) have that grid for a step.
    """
    low, high = float(nonzero.min()), float(nonzero.max())
    whole = weights.dtype.kind in "iu" or bool((nonzero == np.rint(nonzero)).all())
    if not whole or max(-low, high) > LARGEST_WHOLE:
        count = min(BINS, max(8, round(2 * nonzero.size**0.5)))
        # float64 has no numbers for the edges of bins between values that are hardly apart.
        apart = float(np.spacing(max(-low, high)))
        return count if (high - low or 1.0) > 4 * count * apart else np.array([low - apart, high + apart])
    step = max(1, int(np.gcd.reduce(np.abs(nonzero).astype(np.int64))))
    width = step * max(1, -(-int((high - low) / step + 1) // BINS))
    return np.arange(low - step / 2, high + width, width)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node.

    Args:
        id: its name in the graph. name: as its maker wrote it. kind: of node.
        shape: of what it gives. parameters: their number.
        side: "host" or "core". recurrent: it is a connection on a loop.
        weights: of a connection; None for any other node.
    """

    id: str
    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    side: str
    recurrent: bool
    weights: Spread | None

    @property
    def size(self) -> str:
        """The shape in words: "12x12x4"."""
        return "x".join(map(str, self.shape))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        weights = None if self.weights is None else self.weights.to_dict()
        return {**data, "shape": list(self.shape), "weights": weights}


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What a graph is, whatever the target.

    Args:
        level: "imported", "discrete" or "integer". dt: seconds per step, None where nobody said.
        nodes: in order. edges: (from, to), by the nodes' ids.
        neurons, synapses: numbers; synapses with a weight that is not zero. parameters: of connections and neurons.
        depth: connections from input to output. recurrent: names of connections on loops.
        policy: environment, observation and action with their channels in order, steps, state, control period; None for
            a graph that is none.
        contract: all of it, as `Contract.to_dict` gives it; None as well.
        hashes: "structure", "arrays": the same as a program's file carries, so that two graphs can be told apart.
    """

    level: str
    dt: float | None
    nodes: tuple[NodeFacts, ...]
    edges: tuple[tuple[str, str], ...]
    neurons: int
    synapses: int
    parameters: int
    depth: int
    recurrent: tuple[str, ...]
    policy: dict[str, Any] | None
    contract: dict[str, Any] | None
    hashes: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        data["nodes"] = [node.to_dict() for node in self.nodes]
        data["edges"] = [list(edge) for edge in self.edges]
        data["recurrent"] = list(self.recurrent)
        return data


def graph_facts(
    graph: Graph, contract: Contract | None = None, schedule: Schedule | None = None, topology: Topology | None = None
) -> GraphFacts:
    """Describe a graph of any level whose arrays have their ops' shapes.

    Args:
        contract: of a policy. schedule: of a graph that is none; by default a stream.
        topology: of the graph, if it is known already.
    """
    topology = topology or Topology.of(graph)
    wires = {wire.name: wire for wire in topology.wires}
    nodes = tuple(
        NodeFacts(
            id=name,
            name=label(graph, name),
            kind=op.kind,
            shape=op.out_shape,
            parameters=_parameters(op),
            side="core" if is_core(op) else "host",
            recurrent=name in wires and wires[name].recurrent,
            weights=_spread(wires[name].weight) if name in wires else None,
        )
        for name, op in graph.nodes.items()
    )
    return GraphFacts(
        level=graph.level.value,
        # Nothing in a network without neurons takes time: its step is a placeholder.
        dt=graph.dt if topology.populations else None,
        nodes=nodes,
        edges=graph.edges,
        neurons=sum(op.size for op in topology.populations.values()),
        synapses=sum(wire.synapses for wire in topology.wires),
        parameters=sum(node.parameters for node in nodes),
        depth=topology.depth,
        recurrent=tuple(node.name for node in nodes if node.recurrent),
        policy=None if contract is None else _policy(graph, contract, topology),
        contract=None if contract is None else json.loads(contract.to_json()),
        hashes=_hashes(graph, contract, schedule),
    )


def _hashes(graph: Graph, contract: Contract | None, schedule: Schedule | None) -> dict[str, str]:
    """As a program of this graph carries them; none for a graph that no file can hold, as verification says."""
    described, data = describe(graph, contract, schedule or STREAM)
    try:
        return described_hashes(described, data)
    except ValueError:  # a number that is not finite
        return {}


def _spread(weights: Array | None) -> Spread | None:
    return None if weights is None or not np.size(weights) else Spread.of(np.asarray(weights))


def _parameters(value: object) -> int:
    """Numbers in the arrays of an op and its parts."""
    total = 0
    for name, declared in fields.declarations(type(value)):
        part = getattr(value, name)
        if part is not None and declared.kind in ("array", "part"):
            total += _parameters(part) if declared.kind == "part" else int(np.size(part))
    return total


def _policy(graph: Graph, contract: Contract, topology: Topology) -> dict[str, Any]:
    staggered = graph.level is Level.INTEGER and contract.state == "reset"
    return {
        "environment": contract.environment,
        "wrappers": list(contract.wrappers),
        "observations": contract.observation.size,
        "actions": contract.action.size,
        "observation": _channels(contract.observation),
        "action": _channels(contract.action),
        "choices": list(contract.choices),
        "steps": contract.steps,
        "latency": Lateness.of_integers(graph, topology).latency(topology) if staggered else 0,
        "state": contract.state,
        "control_period": contract.control_period,
    }


def _channels(channels: Channels) -> list[dict[str, Any]]:
    """The channels in order, with limits where they are known."""
    count = channels.size
    low, high = channels.low or (None,) * count, channels.high or (None,) * count
    rows = zip(channels.names, channels.units, low, high, strict=True)
    return [{"name": name, "unit": unit, "low": least, "high": most} for name, unit, least, most in rows]
