"""From the tree of a NIR file that knows nothing of Nervecord to an IMPORTED graph.

NIR 1.0.8's primitives, and what files of 0.1 and 0.2 leave out (v_reset, w_in). Subgraphs become nodes named
"outer.inner"; their own Input and Output dissolve. Where NIR says nothing, nothing is invented: dt stays open.

Scalars: a 0-d parameter takes the shape of its node's other parameters, and where all are 0-d the shape that feeds the
node. Whole numbers are read as floats; text, booleans and complex numbers are refused.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.graph import Edge, Graph, Level
from nervecord.compiler.nirfields import Fields
from nervecord.compiler.node import Array, Node, Shape
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
    for name in through:
        edges = dissolve(edges, name)
        del raw[name]
    for edge in edges:
        for end in edge:
            if end not in raw:
                raise GraphError(
                    f"edge {edge[0]} -> {edge[1]} names {end!r}, and no node has that name", where=where,
                    hint=f"the nodes are: {', '.join(sorted(raw)[:20])}",
                )  # fmt: skip
    doubled = sorted({edge for edge in edges if edges.count(edge) > 1})
    if doubled:
        raise GraphError(f"edge {doubled[0][0]} -> {doubled[0][1]} appears twice", where=where)
    _check_cycles(raw, edges, where)
    nodes: dict[str, Node] = {}
    for name in reading_order(raw, edges):
        sources = [nodes[a] for a, b in edges if b == name and a in nodes]
        fed = sources[0].out_shape if sources else None
        fields = Fields(raw[name], name, where)
        nodes[name] = _READERS[fields.type](fields, fed)
        fields.done()
    return Graph(level=Level.IMPORTED, nodes=nodes, edges=tuple(edges), dt=dt)


def reading_order(names: Iterable[str], edges: Iterable[Edge]) -> list[str]:
    """Topological, ties by name; in a cycle, first the smallest name that something already placed feeds."""
    waiting = dict.fromkeys(sorted(names), 0)
    out: dict[str, list[str]] = {name: [] for name in waiting}
    for a, b in edges:
        waiting[b] += 1
        out[a].append(b)
    ready = [name for name, count in waiting.items() if count == 0]
    reached: set[str] = set()
    order: list[str] = []
    while waiting:
        if ready:
            name = heapq.heappop(ready)
        else:
            # Sorted already: `waiting` keeps its first order.
            name = next((k for k in waiting if k in reached), next(iter(waiting)))
        del waiting[name]
        order.append(name)
        for b in out[name]:
            if b in waiting:
                reached.add(b)
                waiting[b] -= 1
                if waiting[b] == 0:
                    heapq.heappush(ready, b)
    return order


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
        if kind not in _READERS:
            raise _unknown(kind, f"{where}: node {full!r}")
        if full in raw:
            raise FileFormatError("two nodes have this name", where=f"{where}: node {full!r}", hint="rename one")
        raw[full] = child
    for a, b in pairs(group.get("edges"), at):
        a, b = prefix + a, prefix + b
        edges.append((exit_.get(a, a), entrance.get(b, b)))


def _unknown(kind: str, where: str) -> FileFormatError:
    if kind == "Conv1d":
        return FileFormatError(
            "a Conv1d is not read", where=where, hint="write it as a Conv2d of height 1, or unrolled as an Affine"
        )
    known = ", ".join([*_READERS, "NIRGraph"])
    return FileFormatError(f"type {kind!r} is unknown", where=where, hint=f"the types that are read: {known}")


def _only(nodes: Mapping[str, Any], kind: str, name: str, where: str) -> str:
    found = [key for key, node in nodes.items() if isinstance(node, dict) and node.get("type") == kind]
    if len(found) != 1:
        raise FileFormatError(
            f"the subgraph has {len(found)} {kind} nodes, so that edges to it do not say which",
            where=f"{where}: node {name!r}", hint=f"give it one {kind}, or write the graph flat",
        )  # fmt: skip
    return found[0]


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


def dissolve(edges: list[Edge], name: str) -> list[Edge]:
    """The edges with `name` taken out: what fed it feeds what it fed, at the place of the edges that led to it."""
    following = [b for a, b in edges if a == name]
    kept: list[Edge] = []
    for a, b in edges:
        if b == name:
            kept += [(a, c) for c in following]
        elif a != name:
            kept.append((a, b))
    return kept


def _check_cycles(raw: Raw, edges: list[Edge], where: str) -> None:
    left = {name for name, fields in raw.items() if fields["type"] not in STATEFUL}
    while True:
        fed = {b for a, b in edges if a in left and b in left}
        feeding = {a for a, b in edges if a in left and b in left}
        if left == fed & feeding:
            break
        left = fed & feeding
    if left:
        raise GraphError(
            f"a cycle without delay: {', '.join(sorted(left))} feed one another and none of them keeps state",
            where=where, hint="put a Delay or a neuron into the cycle",
        )  # fmt: skip


# --------------------------------------------------------------------------------------------------------------------
# One reader per type: (fields, shape that feeds the node or None) -> node


def _input(f: Fields, fed: Shape | None) -> Node:
    return n.Input(f.shape("shape"), origin=f.origin)


def _output(f: Fields, fed: Shape | None) -> Node:
    return n.Output(f.shape("shape"), origin=f.origin)


def _affine(f: Fields, fed: Shape | None) -> Node:
    return n.Affine(f.array("weight", axes=2), f.array("bias", axes=1), origin=f.origin)


def _linear(f: Fields, fed: Shape | None) -> Node:
    return n.Affine(f.array("weight", axes=2), origin=f.origin)


def _flat(f: Fields, fed: Shape | None) -> Node:
    shape = f.shape("input_type") if f.has("input_type") else f.fed(fed)
    start, end = f.integer("start_dim"), f.integer("end_dim")
    axes = len(shape)
    if not (-axes <= start < axes and -axes <= end < axes and start % axes <= end % axes):
        raise f.error(f"start_dim {start} and end_dim {end} are no axes of the shape {shape}, in this order")
    return n.Flatten(shape, start, end, origin=f.origin)


def _conv2d(f: Fields, fed: Shape | None) -> Node:
    weight = f.array("weight", axes=4)
    dilation, stride = f.pair("dilation", least=1), f.pair("stride", least=1)
    size = f.pair("input_shape", least=1) if f.has("input_shape") else f.fed(fed, axes=3)[1:]
    padding: Any
    match f.text("padding"):
        case None:
            padding = f.pair("padding", least=0)
        case "valid":
            padding = (0, 0)
        case "same":
            reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
            if stride != (1, 1) or any(r % 2 for r in reach):
                raise f.error(f"padding 'same' with stride {stride} and kernel {weight.shape[2:]} is not symmetric")
            padding = (reach[0] // 2, reach[1] // 2)
        case other:
            raise f.error(f"padding is {other!r}, neither numbers nor 'same' or 'valid'")
    groups = f.integer("groups", least=1)
    if weight.shape[0] % groups:
        raise f.error(f"{weight.shape[0]} output channels do not divide into {groups} groups")
    node = n.Conv2d(
        weight, f.array("bias", axes=1), stride, padding, dilation, groups, (size[0], size[1]), origin=f.origin
    )
    if node.bias is not None and node.bias.shape != weight.shape[:1]:
        raise f.error(f"bias has shape {node.bias.shape}, the output {weight.shape[0]} channels")
    return _sized(f, node)


def _pool(mode: Any) -> Callable[[Fields, Shape | None], Node]:
    def read(f: Fields, fed: Shape | None) -> Node:
        kernel, stride, padding = f.pair("kernel_size", least=1), f.pair("stride", least=1), f.pair("padding", least=0)
        return _sized(f, n.Pool2d(mode, kernel, stride, padding, f.fed(fed, axes=3), origin=f.origin))

    return read


def _sized(f: Fields, node: Node) -> Node:
    if min(node.out_shape) < 1:
        raise f.error(f"its kernel does not fit its input {node.in_shape}")
    return node


def _population(
    kind: Callable[..., Node], names: Mapping[str, str], defaults: Mapping[str, float] | None = None
) -> Callable[[Fields, Shape | None], Node]:
    """A reader for nodes of elementwise parameters: our field -> the file's, and values of those it may leave out."""

    def read(f: Fields, fed: Shape | None) -> Node:
        given: dict[str, Array] = {}
        for ours, theirs in names.items():
            default = (defaults or {}).get(theirs)
            given[ours] = f.array(theirs) if default is None or f.has(theirs) else np.array(default)
        shapes = {value.shape: names[ours] for ours, value in reversed(given.items()) if value.ndim}
        if len(shapes) > 1:
            text = ", ".join(f"{field} {shape}" for shape, field in reversed(shapes.items()))
            raise f.error(f"parameters differ in shape: {text}")
        shape = next(iter(shapes)) if shapes else f.fed(fed)
        return kind(**{ours: np.broadcast_to(value, shape) for ours, value in given.items()}, origin=f.origin)

    return read


_MEMBRANE = {"r": "r", "leak": "v_leak"}
_SPIKE = {"threshold": "v_threshold", "reset_value": "v_reset"}
_CURRENT = {"tau_syn": "tau_syn", "tau": "tau_mem", **_MEMBRANE, "w_in": "w_in"}
# What files of nir 0.1 and 0.2 leave out, with the value their makers meant.
_OLD = {"v_reset": 0.0, "w_in": 1.0}

_READERS: dict[str, Callable[[Fields, Shape | None], Node]] = {
    "Input": _input,
    "Output": _output,
    "Affine": _affine,
    "Linear": _linear,
    "Scale": _population(n.Scale, {"scale": "scale"}),
    "Flatten": _flat,
    "Conv2d": _conv2d,
    "SumPool2d": _pool("sum"),
    "AvgPool2d": _pool("average"),
    "Delay": _population(n.Delay, {"delay": "delay"}),
    "Threshold": _population(n.Threshold, {"threshold": "threshold"}),
    "I": _population(n.ContinuousIntegrator, {"r": "r"}),
    "IF": _population(n.ContinuousIF, {"r": "r", **_SPIKE}, _OLD),
    "LI": _population(n.ContinuousLI, {"tau": "tau", **_MEMBRANE}),
    "LIF": _population(n.ContinuousLIF, {"tau": "tau", **_MEMBRANE, **_SPIKE}, _OLD),
    "CubaLI": _population(n.ContinuousCubaLI, _CURRENT, _OLD),
    "CubaLIF": _population(n.ContinuousCubaLIF, {**_CURRENT, **_SPIKE}, _OLD),
}
