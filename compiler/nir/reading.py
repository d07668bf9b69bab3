"""From the tree of a NIR file that knows nothing of Nervecord to an IMPORTED graph.

NIR 1.0.8's primitives, and what files of 0.1 and 0.2 leave out (v_reset, w_in). Subgraphs become nodes named
"outer.inner"; their own Input and Output dissolve. Where NIR says nothing, nothing is invented: dt stays open.

Scalars: a 0-d parameter takes the shape of its node's other parameters, and where all are 0-d the shape that feeds the
node. Whole numbers are read as floats; text, booleans and complex numbers are refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from nervecord.compiler.graph.edges import cycles, dissolve, reading_order
from nervecord.compiler.graph.graph import Edge, Graph
from nervecord.compiler.graph.verify import MOST_EDGES, MOST_NODES
from nervecord.compiler.nir.makers import notes
from nervecord.compiler.ops import NIR_READERS, Level, Op
from nervecord.compiler.ops.nirnode import Fields, Repeats
from nervecord.errors import FileFormatError, GraphError

Raw: TypeAlias = dict[str, Mapping[str, Any]]
"""Node name -> its group in the file."""

SEPARATOR = "."
STATEFUL = ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF", "Delay")
"""NIR types whose output depends on earlier input: a cycle needs one."""


def import_graph(root: Mapping[str, Any], *, where: str, dt: float | None) -> Graph:
    """The IMPORTED graph of a NIR file's root node.

    Args:
        root: the tree of the group "node".
        where: the file's name, for messages.
        dt: seconds per step, carried along; None leaves it open.

    Raises:
        FileFormatError: a node is unknown, incomplete or inconsistent.
        GraphError: an edge names no node, or a cycle holds no stateful node.
    """
    raw: Raw = {}
    edges: list[Edge] = []
    through: list[str] = []
    _flatten(root, "", where, raw, edges, through)
    inner: dict[str, tuple[Mapping[str, Any], list[str]]] = {name: (raw.pop(name), []) for name in through}
    for a, b in edges:
        if b in inner:
            inner[b][1].append(a)
    edges = dissolve(edges, through, where=where)
    for what, count, most in (("nodes", len(raw), MOST_NODES), ("edges", len(edges), MOST_EDGES)):
        if count > most:
            raise FileFormatError(f"has {count} {what}, at most {most} are read", where=where)
    for edge in edges:
        for end in edge:
            if not end.isprintable():
                raise GraphError(f"an edge names {end[:80]!r}, which cannot be printed", where=where)
            if end not in raw:
                raise GraphError(
                    f"edge {edge[0]} -> {edge[1]} names {end!r}, and no node has that name",
                    where=where,
                    hint=f"the nodes are: {', '.join(sorted(raw)[:20])}",
                )
    doubled = min((edge for edge, count in Counter(edges).items() if count > 1), default=None)
    if doubled is not None:
        raise GraphError(f"edge {doubled[0]} -> {doubled[1]} appears twice", where=where)
    _check_cycles(raw, edges, where)
    sources: dict[str, list[str]] = {name: [] for name in raw}
    for a, b in edges:
        sources[b].append(a)
    repeats = Repeats()
    nodes: dict[str, Op] = {}
    for name in reading_order(raw, edges):
        source = next((nodes[a] for a in sources[name] if a in nodes), None)
        fields = Fields(raw[name], name, where, repeats)
        nodes[name] = NIR_READERS[fields.type].from_nir(fields, None if source is None else source.out_shape)
        fields.done()
    _check_inner(inner, nodes, where)
    graph = Graph(level=Level.IMPORTED, nodes=nodes, edges=tuple(edges), dt=dt)
    return graph.replace(notes=tuple(notes(graph)))


def _flatten(
    group: Mapping[str, Any], prefix: str, where: str, raw: Raw, edges: list[Edge], through: list[str]
) -> None:
    """Collect the nodes and edges of a NIRGraph and its subgraphs; `through` gets the subgraphs' Inputs and Outputs."""
    at = f"{where}: graph {prefix[:-1]!r}" if prefix else where
    nodes = group.get("nodes")
    if not isinstance(nodes, dict) or not nodes:
        raise FileFormatError("has no nodes", where=at)
    entrance: dict[str, str] = {}
    exit_: dict[str, str] = {}
    for name, child in nodes.items():
        full = prefix + name
        kind = child.get("type") if isinstance(child, dict) else None
        if not isinstance(kind, str):
            raise FileFormatError("has no type", where=f"{where}: node {full!r}")
        if kind == "NIRGraph":
            _flatten(child, full + SEPARATOR, where, raw, edges, through)
            ends = {side: _only(child["nodes"], side, full, where) for side in ("Input", "Output")}
            entrance[full], exit_[full] = (f"{full}{SEPARATOR}{ends[side]}" for side in ("Input", "Output"))
            through += [entrance[full], exit_[full]]
            continue
        if kind not in NIR_READERS:
            raise _unknown(kind, f"{where}: node {full!r}")
        if full in raw:
            raise FileFormatError("two nodes have this name", where=f"{where}: node {full!r}", hint="rename one")
        raw[full] = child
    for a, b in pairs(group.get("edges"), at):
        a, b = prefix + a, prefix + b
        edges.append((exit_.get(a, a), entrance.get(b, b)))


def _check_inner(inner: Mapping[str, tuple[Mapping[str, Any], list[str]]], nodes: Mapping[str, Op], where: str) -> None:
    """Refuse subgraphs whose Input or Output says another shape than what feeds it has."""
    for name, (values, sources) in inner.items():
        fields = Fields(values, name, where)
        if not fields.has("shape") or not fields.present("shape"):
            continue
        shape = fields.shape("shape")
        for source in sources:
            if source in nodes and nodes[source].out_shape != shape:
                raise fields.error(
                    f"says shape {shape}, and {source} feeds it shape {nodes[source].out_shape}",
                    "the shape in the file is wrong: its maker wrote that of another node; export it again, or set it",
                )


def _unknown(kind: str, where: str) -> FileFormatError:
    types = ", ".join([*NIR_READERS, "NIRGraph"])
    return FileFormatError(f"type {kind!r} is unknown", where=where, hint=f"the types that are read: {types}")


def _only(nodes: Mapping[str, Any], kind: str, name: str, where: str) -> str:
    names = [key for key, node in nodes.items() if isinstance(node, dict) and node.get("type") == kind]
    if len(names) != 1:
        raise FileFormatError(
            f"the subgraph has {len(names)} {kind} nodes, so that edges to it do not say which",
            where=f"{where}: node {name!r}",
            hint=f"give it one {kind}, or write the graph flat",
        )
    return names[0]


def pairs(value: Any, where: str) -> list[Edge]:
    """The edges of a NIRGraph's group.

    Raises:
        FileFormatError: they are no list of pairs of names.
    """
    if isinstance(value, np.ndarray) and value.size == 0:
        return []
    if not isinstance(value, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(end, str) for end in pair) for pair in value
    ):
        raise FileFormatError("the edges are no list of pairs of names", where=where)
    return [(a, b) for a, b in value]


def _check_cycles(raw: Raw, edges: list[Edge], where: str) -> None:
    unbroken = cycles((name for name, fields in raw.items() if fields["type"] not in STATEFUL), edges)
    if unbroken:
        raise GraphError(
            f"a cycle without delay: {', '.join(sorted(unbroken)[:20])} feed one another and none of them keeps state",
            where=where,
            hint="put a Delay or a neuron into the cycle",
        )
