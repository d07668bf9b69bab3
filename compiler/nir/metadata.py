"""What NIR cannot say, in the metadata of a NIR file's root: one canonical JSON text, and arrays beside it.

    node/metadata/nervecord          {"format": 1, "graph": ..., "arrays": ["lif1/decay", ...]}
    node/metadata/nervecord_arrays/  a0, a1, ... in that list's order; "recorded" for recorded observations

The graph's description is that of `compiler.serialise`. Weights, biases, scales, thresholds and reset values stand in
the NIR nodes only: another tool may change them. Decays, gains and leaks stand in both, exact here and as time
constants there, and must agree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.graph import Edge, Graph, Level
from nervecord.compiler.nirfields import Fields
from nervecord.compiler.nirform import Form, layout, nir_name
from nervecord.compiler.nirimport import pairs
from nervecord.compiler.node import Array
from nervecord.compiler.serialise import canonical, graph_from_data, graph_to_data
from nervecord.compiler.verify import LEGAL, require
from nervecord.errors import FileFormatError, GraphError

FORMAT = 1
"""Of the metadata; a reader refuses newer ones."""
KEY, ARRAYS, RECORDED = "nervecord", "nervecord_arrays", "recorded"
FROM_NIR: dict[str, dict[str, str]] = {
    "Affine": {"weight": "weight", "bias": "bias"},
    "Scale": {"scale": "scale"},
    "Threshold": {"threshold": "threshold"},
    "DiscreteLIF": {"threshold": "v_threshold", "reset_value": "v_reset"},
    "DiscreteCubaLIF": {"threshold": "v_threshold", "reset_value": "v_reset"},
}
"""Kind -> our field -> the NIR field that is the truth for it."""
_AGREE = 8
"""Time constants may differ by this many units of rounding of the file's type: a tool may have saved float32."""
_LISTS = ("origin", "shape", "input_shape")
"""Fields of nodes that are lists; all others are single values."""
_FRESH = f"export it again, or delete the metadata {KEY!r} to read it as plain NIR"


def metadata(graph: Graph) -> dict[str, Any]:
    """What `restore` needs beside the NIR nodes, as nir.write takes it.

    Raises:
        GraphError: the contract or the recorded observations hold values that are not finite.
    """
    structure, arrays = graph_to_data(graph)
    kept = sorted(
        f"{name}/{field}"
        for name, node in graph.nodes.items()
        for field in type(node).ARRAYS
        if field not in FROM_NIR.get(node.kind, {})
    )
    beside = {f"a{k}": arrays[key] for k, key in enumerate(kept)}
    if graph.recorded is not None:
        _check_recorded(graph.recorded, "graph")
        beside[RECORDED] = graph.recorded
    try:
        text = canonical({"format": FORMAT, "graph": structure, "arrays": kept}).decode()
    except ValueError as error:
        raise GraphError(
            f"a number of its description is not finite: {error}", where="contract", hint="use None for no limit"
        ) from None
    # nir skips no empty group, and cannot read one back as anything but an empty dict; there is nothing to say then.
    return {KEY: text, ARRAYS: beside} if beside else {KEY: text}


def restore(root: Mapping[str, Any], *, where: str) -> Graph:
    """The graph as it was written.

    Args:
        root: the tree of the group "node", with Nervecord's metadata.
        where: the file's name.

    Raises:
        FileFormatError: the metadata is newer, malformed, or says something else than the NIR nodes.
        GraphError: the graph is not legal.
    """
    data = _parse(root["metadata"][KEY], where)
    structure, keys = data.get("graph"), data.get("arrays")
    beside = root["metadata"].get(ARRAYS, {})
    if not isinstance(structure, dict) or not isinstance(keys, list) or not isinstance(beside, dict):
        raise FileFormatError("Nervecord's metadata is malformed: graph or arrays are missing", where=where)
    if not isinstance(structure.get("contract"), (dict, type(None))):
        raise FileFormatError("the contract in Nervecord's metadata is no object", where=where, hint=_FRESH)
    arrays = {str(key): _array(beside, f"a{k}", where) for k, key in enumerate(keys)}
    nir_nodes = _nir_nodes(root, where)
    for item in _described(structure, where):
        arrays |= _from_nir(item["name"], item["kind"], nir_nodes, where)
    graph = graph_from_data(structure, arrays, where=where)
    _check_values(graph, where)
    if RECORDED in beside:
        graph = graph.replace(recorded=_check_recorded(_array(beside, RECORDED, where), where))
    require(graph, Level.DISCRETE, where=where)
    _check_agreement(graph, nir_nodes, pairs(root.get("edges"), where), where)
    return graph


def _parse(text: Any, where: str) -> dict[str, Any]:
    if not isinstance(text, str):
        raise FileFormatError("Nervecord's metadata is no text", where=where, hint=_FRESH)
    try:
        data = json.loads(text, parse_constant=_refuse_constant, parse_int=_small_integer)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"Nervecord's metadata is no valid JSON: {error}", where=where, hint=_FRESH) from None
    version = data.get("format") if isinstance(data, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise FileFormatError("Nervecord's metadata names no format", where=where, hint=_FRESH)
    if version > FORMAT:
        raise FileFormatError(
            f"its metadata has the newer format {version}, this version reads up to {FORMAT}", where=where,
            hint="upgrade nervecord",
        )  # fmt: skip
    assert isinstance(data, dict)  # else there was no format
    return data


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _small_integer(text: str) -> int:
    if len(text) > 19:
        raise ValueError(f"the number {text[:19]}... is too large")
    return int(text)


def _described(structure: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    items = structure.get("nodes")
    if not isinstance(items, list) or not all(
        isinstance(item, dict) and isinstance(item.get("name"), str) and isinstance(item.get("kind"), str)
        for item in items
    ):
        raise FileFormatError("Nervecord's metadata is malformed: nodes without name or kind", where=where)
    known = {kind.__name__ for kind in LEGAL[Level.DISCRETE]}
    for item in items:
        if item["kind"] not in known:
            raise FileFormatError(
                f"its kind {item['kind']!r} is unknown", where=f"{where}: node {item['name']!r}", hint=_FRESH
            )
        fields = item.get("fields")
        for field, value in fields.items() if isinstance(fields, dict) else [("fields", [])]:
            if isinstance(value, dict) or (isinstance(value, list) and field not in _LISTS):
                raise FileFormatError(f"its {field} is malformed", where=f"{where}: node {item['name']!r}", hint=_FRESH)
    return items


def _array(group: Mapping[str, Any], name: str, where: str) -> Array:
    value = group.get(name)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
        raise FileFormatError(f"the array {name!r} of Nervecord's metadata is missing or no numbers", where=where)
    return value.astype(np.float64)


def _check_recorded(recorded: Array, where: str) -> Array:
    if recorded.ndim != 2 or not np.isfinite(recorded).all():
        raise FileFormatError(
            f"the recorded observations have shape {recorded.shape} or values that are not finite, (k, n) is needed",
            where=where,
        )
    return recorded


def _nir_nodes(root: Mapping[str, Any], where: str) -> dict[str, Mapping[str, Any]]:
    nodes = root.get("nodes")
    if not isinstance(nodes, dict):
        raise FileFormatError("has no nodes", where=where)
    for name, node in nodes.items():
        if not isinstance(node, dict) or not isinstance(node.get("type"), str):
            raise FileFormatError("has no type", where=f"{where}: node {name!r}")
    return nodes


def _from_nir(name: str, kind: str, nodes: Mapping[str, Mapping[str, Any]], where: str) -> dict[str, Array]:
    """The arrays of one node that stand in the file's NIR nodes, as "name/field"."""
    taken = FROM_NIR.get(kind)
    if taken is None:
        return {}
    nir = nir_name(name)
    if nir not in nodes:
        raise FileFormatError(
            "stands in the metadata and not among the NIR nodes", where=f"{where}: node {name!r}", hint=_FRESH
        )
    fields = Fields(nodes[nir], nir, where)
    axes = {"weight": 2, "bias": 1}
    return {
        f"{name}/{ours}": fields.array(theirs, axes.get(ours))
        for ours, theirs in taken.items()
        if ours != "bias" or fields.has(theirs)
    }


def _check_values(graph: Graph, where: str) -> None:
    """What node types promise of their scalars and a file can break."""
    for name, node in graph.nodes.items():
        at = f"{where}: node {name!r}"
        if not all(isinstance(text, str) for text in node.origin):
            raise FileFormatError("its origin holds more than names", where=at)
        if isinstance(node, (n.DiscreteLIF, n.DiscreteCubaLIF)) and node.reset not in get_args(n.Reset):
            raise FileFormatError(f"its reset rule {node.reset!r} is unknown", where=at)
        for shape in (getattr(node, field, (1,)) for field in ("shape", "input_shape")):
            if not shape or not all(isinstance(k, int) and not isinstance(k, bool) and k > 0 for k in shape):
                raise FileFormatError(f"its shape {shape!r} is no list of positive whole numbers", where=at)
        if isinstance(node, n.Flatten):
            axes = len(node.input_shape)
            if not (-axes <= node.start < axes and -axes <= node.end < axes and node.start % axes <= node.end % axes):
                raise FileFormatError(f"axes {node.start}..{node.end} are none of {node.input_shape}", where=at)


def _check_agreement(graph: Graph, nodes: Mapping[str, Mapping[str, Any]], edges: list[Edge], where: str) -> None:
    """Refuse a file whose NIR nodes are not those its metadata describes."""
    said = layout(graph)
    for name in [*(k for k in said.nodes if k not in nodes), *(k for k in sorted(nodes) if k not in said.nodes)]:
        missing, place = ("NIR nodes", "metadata") if name in said.nodes else ("metadata", "NIR nodes")
        raise FileFormatError(
            f"stands in the {place} and not in the {missing}", where=f"{where}: node {name!r}", hint=_FRESH
        )
    for name, form in said.nodes.items():
        _check_form(form, Fields(nodes[name], name, where), graph.dt)
    for a, b in [*(e for e in said.edges if e not in edges), *(e for e in edges if e not in said.edges)]:
        raise FileFormatError(
            f"edge {a} -> {b} stands only in the {'metadata' if (a, b) in said.edges else 'NIR edges'}", where=where,
            hint=_FRESH,
        )  # fmt: skip


def _check_form(form: Form, fields: Fields, dt: float | None) -> None:
    kind, wanted = form
    if fields.type != kind:
        raise fields.error(f"the metadata describes a {kind}", _FRESH)
    for field, value in wanted.items():
        found = fields.array(field)
        if found.shape != value.shape:
            raise fields.error(f"{field} has shape {found.shape}, the metadata says {value.shape}", _FRESH)
        tolerance = _AGREE * fields.rounding(field) * np.abs(value)
        apart = ~(np.abs(found - value) <= tolerance)
        if apart.any():
            first = int(np.flatnonzero(apart)[0])
            raise fields.error(
                f"{field} and the metadata disagree: {found.flat[first]:.9g} against {value.flat[first]:.9g}"
                f" at dt = {dt} s (element {first}); one of them was edited", _FRESH,
            )  # fmt: skip
    fields.done()
