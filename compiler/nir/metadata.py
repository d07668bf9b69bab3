"""What NIR cannot say, in the metadata of a NIR file's root: one canonical JSON text, and arrays beside it.

    node/metadata/nervecord          {"format": 2, "graph": ..., "contract": ...,
                                      "arrays": ["lif1/membrane.decay", ...], "nir": {"fc1/weight": "weight", ...}}
    node/metadata/nervecord_arrays/  a0, a1, ... in that list's order; "recorded" for recorded observations

The graph's description is that of `compiler.files.serialise`. What an op hands over to NIR unchanged (weights, biases,
scales, thresholds, reset values) stands in the NIR nodes only, and "nir" names the field: another tool may change it.
All else stands in both, exact here and as time constants there, and must agree. Format 1 is read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nervecord.compiler import schema
from nervecord.compiler.files.arrays import MOST_ARRAYS
from nervecord.compiler.files.serialise import graph_from_data, graph_to_data
from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.graph.graph import Edge, Graph
from nervecord.compiler.graph.policy import Policy, parts
from nervecord.compiler.graph.verify import require
from nervecord.compiler.nir.form import layout, nir_name
from nervecord.compiler.nir.reading import pairs
from nervecord.compiler.ops import Array, Level, NirForm
from nervecord.compiler.ops.nirnode import Fields
from nervecord.errors import ContractError, FileFormatError, GraphError

FORMAT = 2
"""Of the metadata; a reader refuses newer ones."""
KEY, ARRAYS, RECORDED = "nervecord", "nervecord_arrays", "recorded"
_AGREE = 8
"""Time constants may differ by this many units of rounding of the file's type: a tool may have saved float32."""
_FRESH = f"export it again, or delete the metadata {KEY!r} to read it as plain NIR"
_NAME = schema.text(1 << 13, least=1)
_METADATA = schema.record(
    "metadata",
    [
        ("format", int),
        ("graph", dict[str, Any]),
        ("contract", dict[str, Any] | None, None),
        ("arrays", schema.row(_NAME, MOST_ARRAYS)),
        ("nir", dict[str, str]),
    ],
)


def metadata(subject: Graph | Policy) -> dict[str, Any]:
    """What `restore` needs beside the NIR nodes, as nir.write takes it.

    Raises:
        GraphError: the recorded observations hold values that are not finite.
    """
    graph, contract = parts(subject)
    structure, arrays = graph_to_data(graph)
    forms = layout(graph).nodes
    unchanged: dict[str, str] = {}
    for key, value in arrays.items():
        _, fields = forms.get(nir_name(key.rpartition("/")[0]), ("", {}))
        unchanged.update((key, field) for field, given in fields.items() if given is value)
    own_arrays = sorted(set(arrays) - set(unchanged))
    beside = {f"a{k}": arrays[key] for k, key in enumerate(own_arrays)}
    recorded = subject.recorded if isinstance(subject, Policy) else None
    if recorded is not None:
        wrong = _wrong_recorded(recorded)
        if wrong:
            raise GraphError(wrong, where="graph")
        beside[RECORDED] = recorded
    content = {"format": FORMAT, "graph": structure, "arrays": own_arrays, "nir": unchanged}
    if contract is not None:
        content["contract"] = contract.to_dict()
    text = schema.canonical(content).decode()
    # nir skips no empty group, and cannot read one back as anything but an empty dict; there is nothing to say then.
    return {KEY: text, ARRAYS: beside} if beside else {KEY: text}


def restore(root: Mapping[str, Any], *, where: str) -> Graph | Policy:
    """What was written: a policy where there is a contract, else a graph.

    Args:
        root: the tree of the group "node", with Nervecord's metadata.
        where: the file's name.

    Raises:
        FileFormatError: the metadata is newer, malformed, or says something else than the NIR nodes.
        ContractError: the contract is malformed.
        GraphError: the graph is not legal.
    """
    try:
        return _restored(root, where)
    except (FileFormatError, ContractError) as error:
        error.hint = error.hint or _FRESH
        raise


def _restored(root: Mapping[str, Any], where: str) -> Graph | Policy:
    nir_nodes = _nir_nodes(root, where)
    content = _parse(root["metadata"][KEY], where)
    beside = root["metadata"].get(ARRAYS, {})
    if not isinstance(beside, dict):
        raise FileFormatError("the arrays of Nervecord's metadata are no group", where=where)
    arrays = {key: _array(beside, f"a{k}", where) for k, key in enumerate(content.arrays)}
    arrays |= _from_nir(content.nir, arrays, nir_nodes, where)
    graph = graph_from_data(content.graph, arrays, where=where)
    subject: Graph | Policy = graph
    if content.contract is not None:
        contract = Contract.from_dict(content.contract, where=f"{where}: contract")
        subject = Policy(graph, contract, _recorded(beside, where))
    elif RECORDED in beside:
        raise FileFormatError("holds recorded observations and no contract", where=where)
    require(subject, Level.DISCRETE, where=where)
    _check_agreement(graph, nir_nodes, pairs(root.get("edges"), where), where)
    return subject


def _parse(text: Any, where: str) -> Any:
    if not isinstance(text, str):
        raise FileFormatError("Nervecord's metadata is no text", where=where)
    at = f"{where}: Nervecord's metadata"
    plain = schema.from_json(text, dict[str, Any], at)
    version = plain.get("format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise FileFormatError("names no format", where=at)
    if version > FORMAT:
        raise FileFormatError(
            f"has the newer format {schema.printable(repr(version))}, this version reads up to {FORMAT}",
            where=at,
            hint="upgrade nervecord",
        )
    if version < FORMAT:
        raise FileFormatError(
            f"has the old format {version}, this version reads {FORMAT}",
            where=at,
            hint="export it again from its training: nervecord train --resume RUN",
        )
    return schema.checked(plain, _METADATA, at)


def _array(group: Mapping[str, Any], name: str, where: str) -> Array:
    value = group.get(name)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
        raise FileFormatError(f"the array {name!r} of Nervecord's metadata is missing or no numbers", where=where)
    return value if value.dtype == np.int64 else value.astype(np.float64)  # whole numbers: steps of delays


def _recorded(beside: Mapping[str, Any], where: str) -> Array | None:
    if RECORDED not in beside:
        return None
    recorded = _array(beside, RECORDED, where).astype(np.float64)
    wrong = _wrong_recorded(recorded)
    if wrong:
        raise FileFormatError(wrong, where=where)
    return recorded


def _wrong_recorded(recorded: Array) -> str:
    if recorded.ndim == 2 and np.isfinite(recorded).all():
        return ""
    return f"the recorded observations have shape {recorded.shape} or values that are not finite, (k, n) is needed"


def _nir_nodes(root: Mapping[str, Any], where: str) -> dict[str, Mapping[str, Any]]:
    nodes = root.get("nodes")
    if not isinstance(nodes, dict):
        raise FileFormatError("has no nodes", where=where)
    for name, node in nodes.items():
        if not isinstance(node, dict) or not isinstance(node.get("type"), str):
            raise FileFormatError("has no type", where=f"{where}: node {name!r}")
    return nodes


def _from_nir(
    named: Mapping[str, str], stored: Mapping[str, Array], nodes: Mapping[str, Mapping[str, Any]], where: str
) -> dict[str, Array]:
    """The arrays that stand in the file's NIR nodes: "node/field" -> values, of "node/field" -> NIR's field."""
    arrays: dict[str, Array] = {}
    for key, field in named.items():
        name = key.rpartition("/")[0]
        at = f"{where}: node {name!r}"
        try:
            nir = nir_name(name)
        except GraphError as error:
            raise FileFormatError(error.message, where=at) from None
        if nir not in nodes:
            raise FileFormatError("stands in the metadata and not among the NIR nodes", where=at)
        if key in stored:
            raise FileFormatError(f"the array {key!r} stands in the metadata and in the NIR nodes", where=at)
        arrays[key] = Fields(nodes[nir], nir, where).array(field)
    return arrays


def _check_agreement(graph: Graph, nodes: Mapping[str, Mapping[str, Any]], edges: list[Edge], where: str) -> None:
    """Refuse a file whose NIR nodes are not those its metadata describes."""
    try:
        nir_layout = layout(graph)
    except GraphError as error:  # it names the node
        error.add_note(f"in {where}")
        raise
    for name in [
        *(k for k in nir_layout.nodes if k not in nodes),
        *(k for k in sorted(nodes) if k not in nir_layout.nodes),
    ]:
        missing, place = ("NIR nodes", "metadata") if name in nir_layout.nodes else ("metadata", "NIR nodes")
        raise FileFormatError(f"stands in the {place} and not in the {missing}", where=f"{where}: node {name!r}")
    for name, form in nir_layout.nodes.items():
        _check_form(form, Fields(nodes[name], name, where), graph.dt)
    here, there = set(nir_layout.edges), set(edges)
    for a, b in [*(e for e in nir_layout.edges if e not in there), *(e for e in edges if e not in here)]:
        raise FileFormatError(
            f"edge {a} -> {b} stands only in the {'metadata' if (a, b) in here else 'NIR edges'}", where=where
        )


def _check_form(form: NirForm, fields: Fields, dt: float | None) -> None:
    kind, expected = form
    if fields.type != kind:
        raise fields.error(f"the metadata describes a {kind}")
    for field, value in expected.items():
        array = fields.array(field)
        if array.shape != value.shape:
            raise fields.error(f"{field} has shape {array.shape}, the metadata says {value.shape}")
        tolerance = _AGREE * fields.rounding(field) * np.abs(value)
        apart = ~(np.abs(array - value) <= tolerance)
        if apart.any():
            first = int(np.flatnonzero(apart)[0])
            raise fields.error(
                f"{field} and the metadata disagree: {array.flat[first]:.9g} against {value.flat[first]:.9g}"
                f" at dt = {dt} s (element {first}); one of them was edited"
            )
    fields.done()
