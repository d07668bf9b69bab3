"""A graph as plain JSON types and named arrays, and back. Programs are written with it.

Only the node types of `compiler.nodes` exist in a file; a name that is none of them is refused, nothing is imported or
executed by name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.contract import Contract
from nervecord.compiler.graph import Graph, Level
from nervecord.compiler.node import Array, Node
from nervecord.errors import FileFormatError, NervecordError

NODE_TYPES: dict[str, type[Node]] = {
    kind.__name__: kind
    for kind in (
        n.Input,
        n.Output,
        n.Affine,
        n.Scale,
        n.Flatten,
        n.Threshold,
        *n.HOST_NODES,
        n.FixedDense,
        *n.DISCRETE_NEURONS,
        *n.FIXED_NEURONS,
    )
}
"""What a file may hold: the executable levels."""


def graph_to_data(graph: Graph) -> tuple[dict[str, Any], dict[str, Array]]:
    """(structure, arrays): JSON types, and arrays under "node/field"; `recorded` is left out."""
    arrays: dict[str, Array] = {}
    described = []
    for name, node in graph.nodes.items():
        fields: dict[str, Any] = {}
        for field in dataclasses.fields(node):
            value = getattr(node, field.name)
            if isinstance(value, np.ndarray):
                arrays[f"{name}/{field.name}"] = value
            elif value is not None:
                fields[field.name] = list(value) if isinstance(value, tuple) else value
        described.append({"name": name, "kind": node.kind, "fields": fields})
    structure = {
        "level": graph.level.value,
        "dt": graph.dt,
        "nodes": described,
        "edges": [list(edge) for edge in graph.edges],
        "contract": None if graph.contract is None else graph.contract.to_dict(),
    }
    return structure, arrays


def graph_from_data(structure: Mapping[str, Any], arrays: Mapping[str, Array], *, where: str) -> Graph:
    """The graph of `graph_to_data`.

    Raises:
        FileFormatError: something is missing, unknown or of the wrong type.
    """
    try:
        nodes = {str(item["name"]): _node(item, arrays, where) for item in structure["nodes"]}
        if len(nodes) != len(structure["nodes"]):
            raise FileFormatError("two of its nodes have the same name", where=where)
        contract = structure["contract"]
        return Graph(
            level=Level(structure["level"]),
            nodes=nodes,
            edges=tuple((str(a), str(b)) for a, b in structure["edges"]),
            dt=None if structure["dt"] is None else float(structure["dt"]),
            contract=None if contract is None else Contract.from_dict(contract),
        )
    except NervecordError as error:
        if error.where == where:
            raise
        raise FileFormatError(str(error), where=where) from None
    except KeyError as error:
        raise FileFormatError(f"{error.args[0]!r} is missing from the description of the graph", where=where) from None
    except (TypeError, ValueError) as error:
        raise FileFormatError(f"the description of the graph is malformed: {error}", where=where) from None


def _node(item: Mapping[str, Any], arrays: Mapping[str, Array], where: str) -> Node:
    kind = NODE_TYPES.get(item["kind"])
    if kind is None:
        raise FileFormatError(f"unknown node type {item['kind']!r}", where=where, hint="made by a newer version?")
    values: dict[str, Any] = {}
    given = dict(item["fields"])
    for field in dataclasses.fields(kind):
        if field.name in kind.ARRAYS:
            values[field.name] = arrays.get(f"{item['name']}/{field.name}")
            if values[field.name] is None and field.default is dataclasses.MISSING:
                raise FileFormatError(f"array {item['name']}/{field.name} is missing", where=where)
            _check_type(values[field.name], kind, f"{item['name']}/{field.name}", where)
        elif field.name in given:
            value = given.pop(field.name)
            values[field.name] = tuple(value) if isinstance(value, list) else _scalar(value, str(field.type), where)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise FileFormatError(f"field {field.name!r} of node {item['name']!r} is missing", where=where)
    unknown = sorted(set(given) - {field.name for field in dataclasses.fields(kind)})
    if unknown:
        raise FileFormatError(f"node {item['name']!r} has an unknown field {unknown[0]!r}", where=where)
    return kind(**values)


def _check_type(array: Array | None, kind: type[Node], name: str, where: str) -> None:
    # Nodes convert what they are given; in a file that would turn text into numbers and NaN into integers.
    if array is not None and array.dtype != kind.DTYPE:
        wanted = np.dtype(kind.DTYPE)
        raise FileFormatError(f"array {name} holds {array.dtype}, {wanted} is needed", where=where)


def _scalar(value: Any, annotation: str, where: str) -> Any:
    expected: dict[str, Any] = {"int": (int,), "float": (int, float), "bool": (bool,), "Reset": (str,)}
    types = expected.get(annotation)
    if types is None or not isinstance(value, types) or (isinstance(value, bool) and annotation != "bool"):
        raise FileFormatError(f"{value!r} stands where a value of type {annotation} belongs", where=where)
    return float(value) if annotation == "float" else value


def canonical(data: Any) -> bytes:
    """JSON with sorted keys and no spaces: the same data, the same bytes."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def structure_hash(structure: Mapping[str, Any]) -> str:
    """SHA-256 of the graph's description, weights apart."""
    return hashlib.sha256(canonical(structure)).hexdigest()


def arrays_hash(arrays: Mapping[str, Array]) -> str:
    """SHA-256 over names, types, shapes and bytes of all arrays, in order of their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(canonical([name, array.dtype.str, list(array.shape)]))
        digest.update(array.tobytes())
    return digest.hexdigest()
