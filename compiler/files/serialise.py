"""A graph as plain JSON types and named arrays, and back: in programs, and in the metadata of NIR files.

    {"level": "discrete", "dt": 0.001, "nodes": [NODE, ...], "edges": [["fc1", "lif1"], ...]}
    NODE   {"name": "lif1", "kind": "Neuron", "membrane": {"kind": "Membrane"}, "spike": {"kind": "Spike", ...}}

Arrays stand apart, as "node/field", of a part as "node/part.field". All of it follows the declarations of the ops: a
new op needs no line here. Only these ops exist in a file; a name that is none of them is refused, and nothing is
imported or executed by name.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np

from nervecord.compiler import schema
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.verify import MOST_EDGES, MOST_NODES
from nervecord.compiler.ops import EXECUTABLE, OPS, Array, Level, Op, Part
from nervecord.compiler.ops.fields import KEY, Declared, declarations
from nervecord.compiler.schema import Field, checked
from nervecord.errors import FileFormatError, GraphError

NAME = schema.text(4096, least=1)
MOST_ORIGINS = 1 << 12
"""Names that a node may have had."""
MOST_AXES = 64


def graph_to_data(graph: Graph) -> tuple[dict[str, Any], dict[str, Array]]:
    """(structure, arrays): JSON types, and arrays by name. The arithmetic is left to the caller."""
    arrays: dict[str, Array] = {}
    nodes = []
    for name, op in graph.nodes.items():
        record: dict[str, Any] = {"name": name}
        if op.origin:
            record["origin"] = list(op.origin)
        nodes.append(record | _said(op, f"{name}/", arrays))
    structure = {
        "level": graph.level.value,
        "dt": graph.dt,
        "nodes": nodes,
        "edges": [list(edge) for edge in graph.edges],
    }
    return structure, arrays


def _said(value: Op | Part, prefix: str, arrays: dict[str, Array]) -> dict[str, Any]:
    data: dict[str, Any] = {"kind": type(value).__name__}
    for name, declared in declarations(type(value)):
        field_value = getattr(value, name)
        if field_value is None:
            continue
        match declared.kind:
            case "array":
                arrays[prefix + name] = field_value
            case "part":
                data[name] = _said(field_value, f"{prefix}{name}.", arrays)
            case "shape":
                data[name] = [int(k) for k in field_value]
            case "integer":
                data[name] = int(field_value)
            case "number":
                data[name] = float(field_value)
            case _:
                data[name] = field_value
    return data


# --------------------------------------------------------------------------------------------------------------------
# Reading


def graph_from_data(structure: Any, arrays: Mapping[str, Array], *, where: str) -> Graph:
    """The graph of `graph_to_data`, its fields within their declarations; how they fit together is for `verify`.

    Args:
        structure: of JSON. arrays: by name. where: the file's name.

    Raises:
        FileFormatError: something is missing, unknown or of the wrong type; it names the node.
    """
    frame = checked(structure, _frame(), f"{where}: the graph")
    left = dict(arrays)
    nodes: dict[str, Op] = {}
    for item in frame.nodes:
        name = item.get("name")
        at = where if not isinstance(name, str) else f"{where}: node {name!r}"
        record = checked(item, _node(), at)
        if record.name in nodes:
            raise FileFormatError("two nodes have this name", where=at)
        kind = OPS[item["kind"]]
        nodes[record.name] = kind(**_values(kind, record, f"{record.name}/", left, at), origin=tuple(record.origin))
    if left:
        raise FileFormatError(f"the array {min(left)!r} belongs to no node", where=where)
    try:
        return Graph(Level(frame.level), nodes, frame.edges, frame.dt)
    except GraphError as error:
        raise FileFormatError(error.message, where=f"{where}: {error.where}", hint=error.hint) from None


def _values(kind: type, record: Any, prefix: str, left: dict[str, Array], where: str) -> dict[str, Any]:
    """The fields of an op or a part; its arrays are taken out of `left`."""
    values: dict[str, Any] = {}
    for name, declared in declarations(kind):
        if declared.kind == "array":
            values[name] = _array(prefix + name, declared, left, where)
        elif declared.kind == "part":
            part = getattr(record, name)
            of = None if part is None else _parts(kind, name)[schema.kind_of(part)]
            values[name] = None if of is None else of(**_values(of, part, f"{prefix}{name}.", left, where))
        else:
            values[name] = getattr(record, name)
    return values


def _array(name: str, declared: Declared, left: dict[str, Array], where: str) -> Array | None:
    array = left.pop(name, None)
    if array is None:
        if declared.optional:
            return None
        raise FileFormatError(f"the array {name!r} is missing", where=where)
    # Ops convert what they are given; in a file that would turn text into numbers and NaN into integers.
    if array.dtype != declared.dtype:
        raise FileFormatError(
            f"the array {name!r} holds {array.dtype}, {np.dtype(declared.dtype)} is needed", where=where
        )
    return array


@functools.cache
def _frame() -> Any:
    """A graph whose nodes are not looked at."""
    levels = tuple(level.value for level in Level if level in EXECUTABLE)
    return schema.record(
        "graph",
        [
            ("level", schema.one_of(levels)),
            ("dt", schema.real(above=0)),
            ("nodes", schema.row(dict[str, Any], MOST_NODES, least=1)),
            ("edges", schema.row(schema.pair(NAME), MOST_EDGES)),
        ],
    )


@functools.cache
def _node() -> Any:
    """Any op, told apart by its kind."""
    first: list[Field] = [("name", NAME), ("origin", schema.row(NAME, MOST_ORIGINS), ())]
    return schema.any_of(_record(kind, first) for kind in OPS.values() if kind.LEVELS & EXECUTABLE)


@functools.cache
def _parts(kind: type, field: str) -> dict[str, type[Part]]:
    """Name -> part that may stand in this field of a composed op."""
    allowed = typing.get_args(typing.get_type_hints(kind)[field])
    return {part.__name__: part for part in allowed if isinstance(part, type) and issubclass(part, Part)}


def _record(kind: type[Op] | type[Part], first: list[Field]) -> Any:
    fields = first
    for declared_field in kind.__dataclass_fields__.values():
        declared: Declared | None = declared_field.metadata.get(KEY)
        if declared is None or declared.kind == "array":
            continue
        of = _type(kind, declared_field.name, declared)
        default = declared_field.default
        if declared.optional:
            fields = [*fields, (declared_field.name, schema.any_of((of, None)), None)]
        elif isinstance(default, (int, float, str, tuple)):
            fields = [*fields, (declared_field.name, of, default)]
        else:
            fields = [*fields, (declared_field.name, of)]
    return schema.record(kind.__name__, fields, kind=kind.__name__)


def _type(kind: type, name: str, declared: Declared) -> Any:
    match declared.kind:
        case "integer":
            return schema.whole(int(declared.low), int(declared.high))
        case "number":
            return schema.real(declared.low, declared.high, declared.above)
        case "flag":
            return bool
        case "choice":
            return schema.one_of(declared.options)
        case "shape":
            return schema.row(schema.whole(int(declared.low), int(declared.high)), MOST_AXES, declared.least)
        case "part":
            return schema.any_of(_record(part, []) for part in _parts(kind, name).values())
    raise TypeError(f"{kind.__name__}.{name} is declared as {declared.kind}, which no file can hold")
