"""Metadata of format 1, as Nervecord wrote it until its neurons were composed of parts, in the words of format 2.

Each kind of neuron was an op of its own, its arrays "node/decay"; the contract stood in the graph, and said the latency
that now follows from the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nervecord.compiler import schema
from nervecord.compiler.files.arrays import MOST_ARRAYS
from nervecord.compiler.files.serialise import NAME
from nervecord.compiler.graph.verify import MOST_EDGES, MOST_NODES
from nervecord.compiler.nir.form import nir_name
from nervecord.errors import FileFormatError, GraphError

_MEMBRANE = {"decay": "membrane.decay", "gain": "membrane.gain", "leak": "membrane.leak"}
_SPIKE = {"threshold": "spike.threshold", "reset_value": "spike.reset_value"}
_SYNAPSE = {"current_decay": "synapse.decay", "current_gain": "synapse.gain"}
NEURONS: dict[str, dict[str, str]] = {
    "DiscreteLI": _MEMBRANE,
    "DiscreteLIF": _MEMBRANE | _SPIKE,
    "DiscreteCubaLI": _SYNAPSE | _MEMBRANE,
    "DiscreteCubaLIF": _SYNAPSE | _MEMBRANE | _SPIKE,
}
"""Kind -> its arrays -> those of the composition."""
FROM_NIR: dict[str, dict[str, str]] = {
    "Affine": {"weight": "weight", "bias": "bias"},
    "Scale": {"scale": "scale"},
    "Threshold": {"threshold": "threshold"},
    "DiscreteLIF": {"threshold": "v_threshold", "reset_value": "v_reset"},
    "DiscreteCubaLIF": {"threshold": "v_threshold", "reset_value": "v_reset"},
}
"""Kind -> its arrays that stand in the NIR nodes only -> NIR's fields."""
RENAMED: dict[str, dict[str, str]] = {"ArgmaxDecode": {"size": "width"}}
"""Kind -> fields that have other names now."""

_NODE = schema.record("node", [("name", NAME), ("kind", schema.text(64)), ("fields", dict[str, Any])])
_METADATA = schema.record("metadata", [
    ("format", int),
    ("graph", schema.record("graph", [
        ("level", Any),
        ("dt", Any),
        ("nodes", schema.row(_NODE, MOST_NODES)),
        ("edges", schema.row(Any, MOST_EDGES)),
        ("contract", dict[str, Any] | None),
    ])),
    ("arrays", schema.row(schema.text(1 << 13), MOST_ARRAYS)),
])  # fmt: skip


def translated(plain: Any, nir_nodes: Mapping[str, Mapping[str, Any]], where: str) -> dict[str, Any]:
    """The metadata in format 2, as plain data; its values are for the reader of that format to check.

    Args:
        plain: the file's metadata. nir_nodes: the file's nodes. where: the file's name, for messages.

    Raises:
        FileFormatError: it is malformed.
    """
    said = schema.checked(plain, _METADATA, where)
    kinds: dict[str, str] = {}
    nodes, nir = [], {}
    for node in said.graph.nodes:
        kinds[node.name] = node.kind
        nodes.append(_node(node))
        for ours, theirs in FROM_NIR.get(node.kind, {}).items():
            if ours != "bias" or theirs in nir_nodes.get(_nir_name(node.name, where), {}):
                nir[f"{node.name}/{NEURONS.get(node.kind, {}).get(ours, ours)}"] = theirs
    contract = said.graph.contract
    if contract is not None:
        contract = {key: value for key, value in contract.items() if key != "latency"}
    return {
        "format": 2,
        "graph": {"level": said.graph.level, "dt": said.graph.dt, "nodes": nodes, "edges": list(said.graph.edges)},
        "contract": contract,
        "arrays": [_renamed(key, kinds) for key in said.arrays],
        "nir": nir,
    }


def _node(node: Any) -> dict[str, Any]:
    fields = dict(node.fields)
    if node.kind not in NEURONS:
        names = RENAMED.get(node.kind, {})
        fields = {names.get(field, field): value for field, value in fields.items()}
        return {**fields, "name": node.name, "kind": node.kind}
    arrays = NEURONS[node.kind].values()
    made: dict[str, Any] = {"name": node.name, "kind": "Neuron"}
    if "origin" in fields:
        made["origin"] = fields.pop("origin")
    spike = {"reset": fields.pop("reset")} if "spike.threshold" in arrays and "reset" in fields else {}
    for part, kind in (("membrane", "Membrane"), ("synapse", "Synapse"), ("spike", "Spike")):
        if any(name.startswith(f"{part}.") for name in arrays):
            made[part] = {"kind": kind, **(spike if part == "spike" else {})}
    return {**fields, **made}


def _renamed(key: str, kinds: Mapping[str, str]) -> str:
    name, _, field = key.rpartition("/")
    return f"{name}/{NEURONS.get(kinds.get(name, ''), {}).get(field, field)}"


def _nir_name(name: str, where: str) -> str:
    try:
        return nir_name(name)
    except GraphError as error:
        raise FileFormatError(error.message, where=f"{where}: node {name!r}") from None
