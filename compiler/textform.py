"""A graph as text, for `--dump`, goldens and reading; and what changed between two graphs, in words.

    graph discrete dt=0.0001
    policy Ant-v4: observation 105, action 8, steps 4, latency 0, state reset, period 0.05 s
    input   Input            (105,) -> (105,)
    fc1     Affine           (105,) -> (64,)  delay=0 weight=f8(64,105)[-0.31, 0.29]#5d1e90aa bias=-
    ...
    input -> fc1

The same graph gives the same text, one line per node and per edge, so that a difference of texts is a difference of
graphs: an array's hash covers its bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from nervecord.compiler.contract import Contract
from nervecord.compiler.graph import Graph
from nervecord.compiler.node import Array, Node


def to_text(graph: Graph) -> str:
    """The canonical text of a graph; ends in a newline."""
    head = f"graph {graph.level.value} dt={_scalar(graph.dt)}"
    lines = [head]
    if graph.contract is not None:
        lines.append(_policy(graph.contract))
    if graph.recorded is not None:
        lines.append(f"recorded {_array(graph.recorded)}")
    widths = [max((len(_name(name)) for name in graph.nodes), default=0)]
    widths.append(max((len(node.kind) for node in graph.nodes.values()), default=0))
    lines.append("")
    for name, node in graph.nodes.items():
        shapes = f"{_shape(node.in_shape)} -> {_shape(node.out_shape)}"
        fields = " ".join(f"{field}={text}" for field, text in _fields(name, node).items())
        lines.append(f"{_name(name):{widths[0]}}  {node.kind:{widths[1]}}  {shapes}  {fields}".rstrip())
    lines.append("")
    lines += [f"{_name(a)} -> {_name(b)}" for a, b in graph.edges]
    return "\n".join(lines) + "\n"


def explain(before: Graph, after: Graph) -> list[str]:
    """What a pass did, one sentence per change; empty where it did nothing."""
    said: list[str] = []
    if before.level is not after.level:
        said.append(f"the graph went from {before.level.value} to {after.level.value}")
    if before.dt != after.dt:
        said.append(f"dt: {_scalar(before.dt)} -> {_scalar(after.dt)} s")
    heir = {origin: name for name, node in after.nodes.items() for origin in node.origin}
    for name, node in before.nodes.items():
        if name not in after.nodes:
            into = next((heir[origin] for origin in (*node.origin, name) if origin in heir), None)
            said.append(f"{_name(name)} ({node.kind}) " + (f"went into {_name(into)}" if into else "is gone"))
    for name, node in after.nodes.items():
        if name not in before.nodes:
            said.append(f"{_name(name)} ({node.kind}) is new")
        elif before.nodes[name] != node:
            said.append(_change(name, before.nodes[name], node))
    for label, one, other in (("gone", before, after), ("new", after, before)):
        lost = [f"{_name(a)} -> {_name(b)}" for a, b in one.edges if (a, b) not in other.edges]
        if lost:
            said.append(f"edges {label}: {', '.join(lost)}")
    if list(before.nodes) != list(after.nodes) and sorted(before.nodes) == sorted(after.nodes):
        said.append("the order of the nodes changed")
    if before.edges != after.edges and sorted(before.edges) == sorted(after.edges):
        said.append("the order of the edges changed")
    if before.contract != after.contract:
        said.append("the contract changed")
    if (before.recorded is None) != (after.recorded is None) or (
        before.recorded is not None and after.recorded is not None and not _equal(before.recorded, after.recorded)
    ):
        said.append("the recorded observations changed")
    return said


def _change(name: str, before: Node, after: Node) -> str:
    old, new = _fields(name, before), _fields(name, after)
    fields = ", ".join(
        f"{field}: {old.get(field, 'none')} -> {new.get(field, 'none')}"
        for field in dict.fromkeys([*old, *new])
        if old.get(field) != new.get(field)
    )
    if type(before) is type(after):
        return f"{_name(name)} ({after.kind}) has another {fields}"
    values = ", ".join(f"{field} {_range(value)}" for field, value in _arrays(after).items() if field not in old)
    return f"{_name(name)}: {before.kind} became {after.kind}" + (f" with {values}" if values else "")


def _fields(name: str, node: Node) -> dict[str, str]:
    """Field -> text, in the order of the type's definition; the origin where it is not the name."""
    texts: dict[str, str] = {}
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if field.name == "origin":
            continue
        texts[field.name] = _array(value) if isinstance(value, np.ndarray) else _scalar(value)
    if node.origin not in ((), (name,)):
        texts["origin"] = "+".join(_name(text) for text in node.origin)
    return texts


def _arrays(node: Node) -> dict[str, Array]:
    found = {field: getattr(node, field) for field in type(node).ARRAYS}
    return {field: value for field, value in found.items() if value is not None}


def _policy(contract: Contract) -> str:
    return (
        f"policy {_name(contract.environment)}: observation {contract.observation.size}, action {contract.action.size},"
        f" steps {contract.steps}, latency {contract.latency}, state {contract.state},"
        f" period {contract.control_period!r} s, contract #{_hash(contract.to_json().encode())}"
    )


def _array(value: Array) -> str:
    text = f"{value.dtype.kind}{value.dtype.itemsize}{_shape(value.shape)}"
    return f"{text}{_range(value)}#{_hash(np.ascontiguousarray(value).tobytes())}"


def _range(value: Array) -> str:
    if value.size == 0:
        return "[]"
    low, high = value.min().item(), value.max().item()
    return f"[{low!r}]" if low == high else f"[{low!r}, {high!r}]"


def _scalar(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return _shape(value)
    return str(value) if isinstance(value, str) else repr(value)


def _shape(shape: tuple[object, ...]) -> str:
    return "(" + ",".join(str(size) for size in shape) + ")"


def _name(name: str) -> str:
    """The name, quoted where it holds blanks or what cannot be printed, so that a line stays one."""
    return name if name.isprintable() and " " not in name and name else ascii(name)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]


def _equal(a: Array, b: Array) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()
