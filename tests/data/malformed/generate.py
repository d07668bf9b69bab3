"""Makes the malformed NIR files that tests read (`tests/malformed.py`).

Each differs from a sound graph (input 3 -> fc -> lif 2 -> output) in one thing, which its name says.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nervecord.compiler import ops as n
from nervecord.compiler.graph.contract import Channels, Contract
from nervecord.compiler.graph.graph import chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.nir.file import nir_bytes

EDGES = [("input", "fc"), ("fc", "lif"), ("lif", "output")]
MORE_EDGES = [("input", "fc%delay"), ("fc%delay", "fc"), ("fc", "lif"), ("lif", "output"), ("input", "output")]
Nodes = dict[str, dict[str, Any]]


def sound() -> Nodes:
    """The nodes all files start from."""
    ones = np.ones(2)
    return {
        "input": {"type": "Input", "shape": np.array([3])},
        "fc": {"type": "Affine", "weight": np.arange(6.0).reshape(2, 3), "bias": np.zeros(2)},
        "lif": {
            "type": "LIF",
            "tau": ones / 100,
            "r": ones,
            "v_leak": 0 * ones,
            "v_threshold": ones,
            "v_reset": 0 * ones,
        },
        "output": {"type": "Output", "shape": np.array([2])},
    }


def _fill(group: h5py.Group, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            _fill(group.create_group(name), value)
        elif isinstance(value, str):
            group.create_dataset(name, data=value, dtype=h5py.string_dtype())
        else:
            group.create_dataset(name, data=value)


def write(path: Path, nodes: Nodes, edges: Any = EDGES) -> None:
    """A foreign NIR file."""
    with h5py.File(path, "w", libver="latest") as file:
        file["version"] = "1.0.8"
        _fill(file.create_group("node"), {"type": "NIRGraph", "nodes": nodes, "edges": edges})


def changed(node: str, *, edges: Any = EDGES, drop: str | None = None, **fields: Any) -> Callable[[Path], None]:
    """A file whose `node` has other fields."""

    def make(path: Path) -> None:
        nodes = sound()
        nodes[node] = {**nodes[node], **fields}
        if drop:
            del nodes[node][drop]
        write(path, nodes, edges)

    return make


def edges(pairs: Any) -> Callable[[Path], None]:
    """A file with other edges."""
    return lambda path: write(path, sound(), pairs)


def content(data: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """A file made from the bytes of a sound one."""

    def make(path: Path) -> None:
        write(path, sound())
        path.write_bytes(data(path.read_bytes()))

    return make


def edited(edit: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    """A sound foreign file after `edit`."""

    def make(path: Path) -> None:
        write(path, sound())
        with h5py.File(path, "a", libver="latest") as file:
            edit(file)

    return make


def ours(edit: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    """A policy Nervecord wrote, after `edit`."""

    def make(path: Path) -> None:
        # Copied into the newer layout of HDF5, which takes a third of the space.
        with h5py.File(io.BytesIO(nir_bytes(policy())), "r") as original, h5py.File(path, "w", libver="latest") as file:
            for name in original:
                original.copy(name, file)
            edit(file)

    return make


def policy() -> Policy:
    """A small policy with everything in it that stands in metadata."""
    ones = np.ones(2)
    contract = Contract(
        environment="Toy-v0",
        observation=Channels(("a", "b", "c"), ("m", "m", "m")),
        action=Channels(("u", "w"), ("Nm", "Nm"), (-1.0, -1.0), (1.0, 1.0)),
        steps=4,
        state="reset",
        control_period=0.05,
        fail_safe=(0.0, 0.0),
    )
    nodes = [
        ("input", n.Input((3,))),
        ("normalise", n.Normalise(np.zeros(3), np.ones(3), 1e-8, 5.0)),
        ("fc", n.Affine(np.arange(6.0).reshape(2, 3) / 8, delay=2)),
        ("lif", n.Neuron(n.Membrane(0.9 * ones, 0.5 * ones, 0 * ones), None, n.Spike(ones, 0 * ones, "subtract"))),
        ("decode", n.Decode(ones, 0 * ones, -ones, ones)),
        ("output", n.Output((2,))),
    ]
    return Policy(chain(n.Level.DISCRETE, nodes, dt=1e-3), contract, np.zeros((2, 3)))


def meta(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """A policy whose metadata text is another."""

    def edit(file: h5py.File) -> None:
        data = json.loads(file["node/metadata/nervecord"].asstr()[()])
        text = change(data)
        del file["node/metadata/nervecord"]
        file["node/metadata/nervecord"] = text if isinstance(text, str) else json.dumps(data)

    return ours(edit)


def described(name: str, **fields: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one node's description."""

    def change(data: dict[str, Any]) -> None:
        (item,) = [item for item in data["graph"]["nodes"] if item["name"] == name]
        item.update(fields)

    return change


def spike(**fields: Any) -> Callable[[dict[str, Any]], None]:
    """A change of the neurons' spike."""

    def change(data: dict[str, Any]) -> None:
        (item,) = [item for item in data["graph"]["nodes"] if item["name"] == "lif"]
        item["spike"].update(fields)

    return change


def contract(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """A policy with another contract in its metadata."""
    return meta(lambda data: change(data["contract"]))


def replaced(path: str, value: Any) -> Callable[[h5py.File], None]:
    """A change of one dataset."""

    def edit(file: h5py.File) -> None:
        del file[path]
        if value is not None:
            file[path] = value

    return edit


def _external(file: h5py.File) -> None:
    del file["node/nodes/fc/bias"]
    file["node/nodes/fc"].create_dataset("bias", (2,), "f8", external=[("secret.bin", 0, 16)])


def _virtual(file: h5py.File) -> None:
    del file["node/nodes/fc/bias"]
    layout = h5py.VirtualLayout((2,), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", (2,))
    file["node/nodes/fc"].create_virtual_dataset("bias", layout)


def _declared(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file["node/nodes/fc/weight"]
        file["node/nodes/fc"].create_dataset(
            "weight", shape, "f8", maxshape=(None, None), chunks=chunks, compression="gzip"
        )

    return edit


def _plugin(file: h5py.File) -> None:
    del file["node/nodes/fc/bias"]
    file["node/nodes/fc"].create_dataset("bias", (2,), "f8", compression=32015, allow_unknown_filter=True, chunks=(2,))


def _deep(file: h5py.File) -> None:
    group = file["node"]
    for _ in range(70):
        group = group.create_group("g")


def _objects(file: h5py.File) -> None:
    del file["node/nodes/fc/bias"]
    bias = file["node/nodes/fc"].create_dataset("bias", (2,), h5py.vlen_dtype(np.int32))
    bias[0], bias[1] = [1, 2], [3]


def _latin(file: h5py.File) -> None:
    del file["node/nodes/fc/type"]
    file["node/nodes/fc"].create_dataset("type", data=np.bytes_(b"Affin\xe9"), dtype=h5py.string_dtype("utf-8", 6))


def _loop(path: Path) -> None:
    nodes = sound()
    nodes["a"] = nodes["b"] = {"type": "Linear", "weight": np.eye(2)}
    write(path, nodes, [*EDGES, ("fc", "a"), ("a", "b"), ("b", "a"), ("b", "lif")])


def _subgraph(path: Path) -> None:
    inner = {"type": "Input", "shape": np.array([2])}
    nodes = sound()
    nodes["lif"] = {
        "type": "NIRGraph",
        "nodes": {"a": inner, "b": inner, "output": nodes["output"]},
        "edges": [("a", "output"), ("b", "output")],
    }
    write(path, nodes)


def _pool(**fields: Any) -> Callable[[Path], None]:
    pool = {"type": "SumPool2d", **{name: np.array(value) for name, value in fields.items()}}

    def make(path: Path) -> None:
        shape = np.array([1, 4, 4])
        nodes = {"input": {"type": "Input", "shape": shape}, "pool": pool, "output": {"type": "Output", "shape": shape}}
        write(path, nodes, [("input", "pool"), ("pool", "output")])

    return make


def _integer_op(data: dict[str, Any]) -> None:
    (at,) = [k for k, item in enumerate(data["graph"]["nodes"]) if item["name"] == "lif"]
    data["graph"]["nodes"][at] = {"name": "lif", "kind": "Quantise", "width": 2, "scale": 1.0, "limit": 7}
    data["arrays"] = [key for key in data["arrays"] if not key.startswith("lif/")]
    data["nir"] = {key: field for key, field in data["nir"].items() if not key.startswith("lif/")}


FILES: dict[str, Callable[[Path], object]] = {
    "not_hdf5": lambda path: path.write_text("weights: [1, 2, 3]\n"),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": content(lambda data: data[: len(data) // 2]),
    "signature_only": content(lambda data: data[:8]),
    "damaged_superblock": content(lambda data: data[:9] + b"\xff" * 16 + data[25:]),
    "no_node_group": edited(replaced("node", None)),
    "root_is_a_neuron": edited(replaced("node/type", "LIF")),
    "no_nodes": edited(replaced("node/nodes", None)),
    "no_type": changed("lif", drop="type"),
    "type_is_a_number": changed("lif", type=np.array(3)),
    "type_is_no_text": edited(_latin),
    "unknown_type": changed("lif", type="Izhikevich"),
    "conv1d": changed("fc", type="Conv1d"),
    "unknown_field": changed("lif", refractory=np.ones(2)),
    "missing_field": changed("lif", drop="tau"),
    "nan_weights": changed("fc", weight=np.full((2, 3), np.nan)),
    "infinite_r": changed("lif", tau=np.full(2, np.inf), r=np.full(2, np.inf)),
    "negative_tau": changed("lif", tau=np.array([0.01, -0.01])),
    "zero_tau": changed("lif", tau=np.zeros(2)),
    "shape_mismatch": changed("fc", weight=np.ones((4, 3)), bias=np.zeros(4)),
    "bias_mismatch": changed("fc", bias=np.zeros(5)),
    "parameters_differ": changed("lif", tau=np.full(3, 0.01)),
    "weight_one_axis": changed("fc", weight=np.ones(6)),
    "negative_shape": changed("input", shape=np.array([-3])),
    "fractional_shape": changed("input", shape=np.array([2.5])),
    "empty_shape": changed("input", shape=np.array([], dtype=np.int64)),
    "dangling_edge": edges([*EDGES, ("fc", "lif2")]),
    "duplicate_edge": edges([*EDGES, ("fc", "lif")]),
    "edges_of_three": edges([("input", "fc", "lif")]),
    "edges_are_numbers": edges(np.ones((3, 2))),
    "disconnected": edges(EDGES[:2]),
    "no_input": changed("input", type="Output"),
    "text_weights": changed("fc", weight=[["1", "2", "3"], ["4", "5", "6"]]),
    "boolean_weights": changed("fc", weight=np.ones((2, 3), dtype=bool)),
    "complex_weights": changed("fc", weight=np.ones((2, 3), dtype=complex)),
    "record_weights": changed("fc", weight=np.zeros((2, 3), dtype=[("a", "f8"), ("b", "i4")])),
    "object_array": edited(_objects),
    "group_for_weights": changed("fc", weight={"a": np.ones(3)}),
    "null_dataset": edited(replaced("node/nodes/fc/bias", h5py.Empty("f8"))),
    "cycle_without_delay": _loop,
    "subgraph_two_inputs": _subgraph,
    "zero_stride": _pool(kernel_size=[2, 2], stride=[0, 0], padding=[0, 0]),
    "kernel_too_large": _pool(kernel_size=[9, 9], stride=[1, 1], padding=[0, 0]),
    "external_storage": edited(_external),
    "external_link": edited(replaced("node/nodes/fc/bias", h5py.ExternalLink("other.h5", "/x"))),
    "soft_link": edited(replaced("node/nodes/fc/bias", h5py.SoftLink("/node/nodes/lif/tau"))),
    "virtual_dataset": edited(_virtual),
    "shared_object": edited(lambda file: file["node/nodes"].__setitem__("again", file["node/nodes/lif"])),
    "cyclic_groups": edited(lambda file: file["node/nodes/fc"].__setitem__("self", file["node"])),
    "deep_groups": edited(_deep),
    "huge_dataset": edited(_declared((1 << 20, 1 << 20), (64, 64))),
    "huge_chunk": edited(_declared((2, 3), (1 << 13, 1 << 13))),
    "plugin_filter": edited(_plugin),
    "unprintable_name": edited(lambda file: file["node/nodes"].move("lif", "li\nf")),
    "newer_format": meta(lambda data: data.update(format=3)),
    "old_format": meta(lambda data: data.update(format=1)),
    "no_format": meta(lambda data: data.pop("format")),
    "metadata_no_json": meta(lambda data: "{format: 1}"),
    "metadata_no_text": ours(replaced("node/metadata/nervecord", np.ones(3))),
    "metadata_nan": meta(lambda data: data["graph"].update(dt=float("nan"))),
    "metadata_nested": meta(lambda data: "[" * 20000),
    "metadata_huge_number": meta(lambda data: data["graph"].update(dt=10**400)),
    "metadata_level": meta(lambda data: data["graph"].update(level="integer")),
    "metadata_negative_dt": meta(lambda data: data["graph"].update(dt=-1e-3)),
    "metadata_other_dt": meta(lambda data: data["graph"].update(dt=2e-3)),
    "metadata_edge_gone": meta(lambda data: data["graph"]["edges"].pop(2)),
    "metadata_edge_added": ours(replaced("node/edges", MORE_EDGES)),
    "metadata_node_gone": ours(replaced("node/nodes/lif", None)),
    "metadata_node_added": ours(lambda file: file.copy("node/nodes/lif", "node/nodes/lif2")),
    "metadata_type_edited": ours(replaced("node/nodes/lif/type", "LI")),
    "metadata_unknown_kind": meta(described("lif", kind="Izhikevich")),
    "metadata_integer_kind": meta(_integer_op),
    "metadata_reset_rule": meta(spike(reset="hard")),
    "metadata_old_kind": meta(described("lif", kind="DiscreteLIF")),
    "metadata_part": meta(described("lif", synapse={"kind": "Membrane"})),
    "metadata_refractory": meta(spike(refractory=1 << 31)),
    "metadata_delay": meta(described("fc", delay=1 << 31)),
    "metadata_bad_shape": meta(described("input", shape=["three"])),
    "metadata_bad_clip": meta(described("normalise", clip=0.0)),
    "metadata_array_gone": ours(replaced("node/metadata/nervecord_arrays/a3", None)),
    "metadata_array_text": ours(replaced("node/metadata/nervecord_arrays/a3", "high")),
    "decay_edited": ours(lambda file: file["node/metadata/nervecord_arrays/a4"].__setitem__(0, 0.8)),
    "tau_edited": ours(lambda file: file["node/nodes/lif/tau"].__setitem__(1, 0.02)),
    "delay_edited": ours(lambda file: file["node/nodes/fc%delay/delay"].__setitem__(1, 0.003)),
    "recorded_shape": ours(replaced("node/metadata/nervecord_arrays/recorded", np.zeros(4))),
    "contract_no_object": meta(lambda data: data.update(contract=[1, 2])),
    "contract_field_gone": contract(lambda data: data.pop("steps")),
    "contract_unknown_field": contract(lambda data: data.update(mood="calm")),
    "contract_wrong_type": contract(lambda data: data.update(steps="four")),
    "contract_other_size": contract(lambda data: data["observation"].update(names=["a"], units=["m"])),
    "contract_steps": contract(lambda data: data.update(steps=1 << 31)),
    "contract_fail_safe": contract(lambda data: data.update(fail_safe=[0.0, 5.0])),
    "contract_limits": contract(lambda data: data["action"].update(high=[1.0, 0.5])),
    "contract_infinite": contract(lambda data: data.update(control_period=10**400)),
    "contract_escape": contract(lambda data: data["action"].update(names=["u", "\x1b[2J"])),
}


def write_file(path: Path) -> None:
    """Write the file that the path names."""
    FILES[path.stem](path)
