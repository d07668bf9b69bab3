"""Makes the malformed programs of this folder: `python tests/data/malformed/programs.py`.

Each differs from a sound program (3 observations -> lif1, 2 neurons -> 2 actions, for lava) in one thing, which its
name says. Where the hashes are not what is wrong, they are made anew, so that the reader has to look further than them.
"""

from __future__ import annotations

import functools
import io
import json
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.compile import compile_policy
from nervecord.compiler.contract import Channels, Contract
from nervecord.compiler.graph import Graph, Level, chain
from nervecord.compiler.program import Program
from nervecord.compiler.serialise import arrays_hash, canonical, structure_hash
from nervecord.compiler.target import Target
from nervecord.targets.lava.target import LavaTarget
from nervecord.targets.reference.target import ReferenceTarget

Members = dict[str, bytes]
Arrays = dict[str, Any]
Manifest = dict[str, Any]


def policy() -> Graph:
    """The policy all programs come from."""
    draw = np.random.default_rng(0)
    one, zero = np.ones(2), np.zeros(2)
    contract = Contract(
        environment="Ant-v4",
        observation=Channels(("x", "y", "z"), ("m",) * 3),
        action=Channels(("left", "right"), ("N m",) * 2, (-1.0, -1.0), (1.0, 1.0)),
        steps=2,
        state="reset",
        control_period=0.05,
        fail_safe=(0.0, 0.0),
    )
    named = [
        ("observation", n.Input((3,))),
        ("normalise", n.Normalise(np.zeros(3), np.ones(3), 1e-8, 10.0)),
        ("fc1", n.Affine(draw.normal(size=(2, 3)), zero)),
        ("lif1", n.DiscreteLIF(0.84 * one, one, zero, one, zero)),
        ("fc2", n.Affine(0.1 * draw.normal(size=(2, 2)), zero)),
        ("readout", n.DiscreteLI(0.9 * one, one, zero)),
        ("decode", n.Decode(one, zero, -one, one)),
        ("action", n.Output((2,))),
    ]
    return chain(Level.DISCRETE, named, dt=1e-3, contract=contract, recorded=draw.normal(size=(16, 3)))


@functools.cache
def sound(target: Target[object] | None = None) -> Program:
    """The program all files start from."""
    program = compile_policy(policy(), target or LavaTarget())
    # Neither the report nor the tools' versions matter to a reader.
    return Program(program.target, program.graph, {}, {"nervecord": "0.1.0"})


def opened(target: Target[object] | None = None) -> Members:
    """The sound program's members by name."""
    with zipfile.ZipFile(io.BytesIO(sound(target).to_bytes())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members: list[tuple[str, bytes]], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of these members, in this order and with fixed dates; a name may come twice."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of duplicate names
        for name, data in members:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = compression
            archive.writestr(info, data)
    return out.getvalue()


def npy(array: Any) -> bytes:
    """An array as the content of an .npy file."""
    out = io.BytesIO()
    np.lib.format.write_array(out, np.asarray(array), allow_pickle=True)
    return out.getvalue()


# --------------------------------------------------------------------------------------------------------------------
# Ways to change a file


def content(change: Callable[[bytes], bytes]) -> Callable[[], bytes]:
    """A file made from the bytes of the sound one."""
    return lambda: change(sound().to_bytes())


def members(change: Callable[[Members], object], **how: int) -> Callable[[], bytes]:
    """A file with other members."""

    def make() -> bytes:
        held = opened()
        change(held)
        return packed(list(held.items()), **how)

    return make


def added(*more: tuple[str, bytes]) -> Callable[[], bytes]:
    """A file with more members."""
    return lambda: packed([*opened().items(), *more])


def manifest(change: Callable[[Manifest], object]) -> Callable[[], bytes]:
    """A file with another manifest, its hashes as they were."""

    def make() -> bytes:
        held = opened()
        data = json.loads(held["manifest.json"])
        change(data)
        held["manifest.json"] = json.dumps(data).encode()
        return packed(list(held.items()))

    return make


def rehashed(change: Callable[[Manifest, Arrays], object], target: Target[object] | None = None) -> Callable[[], bytes]:
    """A file with another graph or other arrays, under hashes that are right."""

    def make() -> bytes:
        held = opened(target)
        data = json.loads(held.pop("manifest.json"))
        arrays = {name: np.load(io.BytesIO(held.pop(f"arrays/{k}.npy"))) for k, name in enumerate(data["arrays"])}
        change(data, arrays)
        names = sorted(arrays)
        data["arrays"] = names
        data["hashes"] = {"structure": structure_hash(data["graph"]), "weights": arrays_hash(arrays)}
        files = [(f"arrays/{k}.npy", npy(arrays[name])) for k, name in enumerate(names)]
        return packed([("manifest.json", canonical(data)), *held.items(), *files])

    return make


def graph(change: Callable[[dict[str, Any]], object]) -> Callable[[], bytes]:
    """A file with another graph."""
    return rehashed(lambda data, arrays: change(data["graph"]))


def node(name: str, **values: Any) -> Callable[[], bytes]:
    """A file whose node has another kind, name or fields."""

    def change(data: dict[str, Any]) -> None:
        (found,) = [item for item in data["nodes"] if item["name"] == name]
        for key, value in values.items():
            if key in ("kind", "name"):
                found[key] = value
            else:
                found["fields"][key] = value

    return graph(change)


def array(name: str, change: Callable[[Any], Any], target: Target[object] | None = None) -> Callable[[], bytes]:
    """A file with one other array; None leaves it out."""

    def make(data: Manifest, arrays: Arrays) -> None:
        arrays[name] = change(arrays[name])
        if arrays[name] is None:
            del arrays[name]

    return rehashed(make, target)


# --------------------------------------------------------------------------------------------------------------------
# What is wrong


def flipped(held: Members) -> None:
    data = bytearray(held["arrays/0.npy"])
    data[-1] ^= 1
    held["arrays/0.npy"] = bytes(data)


def terabytes(held: Members) -> None:
    """An array of 8 TB, as far as its header goes."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    held["arrays/0.npy"] = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def overlapping() -> bytes:
    """More bytes than the file has: 50 entries of the directory name the same ones."""
    data = packed([*opened().items(), ("arrays/bomb.npy", b"\0" * 10_000)])
    end = data.rindex(b"PK\5\6")
    start = int.from_bytes(data[end + 16 : end + 20], "little")
    entry = data[data.rindex(b"PK\1\2") : end]
    count = int.from_bytes(data[end + 10 : end + 12], "little") + 50
    counted = count.to_bytes(2, "little") * 2
    size = (end - start + 50 * len(entry)).to_bytes(4, "little")
    return data[:end] + entry * 50 + data[end : end + 8] + counted + size + data[end + 16 :]


def declared(size: int) -> Callable[[bytes], bytes]:
    """The manifest's size in the directory is another."""

    def change(data: bytes) -> bytes:
        at = data.index(b"PK\1\2")
        sizes = size.to_bytes(4, "little") * 2
        return data[: at + 20] + sizes + data[at + 28 :]

    return change


NESTED = b"[" * 100_000 + b"]" * 100_000

FILES: dict[str, Callable[[], bytes]] = {
    # The archive.
    "empty": lambda: b"",
    "not_a_zip": lambda: b"this is no program\n",
    "another_zip": lambda: packed([("readme.txt", b"hello")]),
    "truncated": content(lambda data: data[: len(data) // 2]),
    "cut_directory": content(lambda data: data[:-30]),
    "damaged_member": content(lambda data: data.replace(b'"Ant-v4"', b'"Bee-v4"')),
    "compressed": members(lambda held: None, compression=zipfile.ZIP_DEFLATED),
    "compressed_bomb": members(
        lambda held: held.update({"report.json": b" " * 3_000_000 + b"{}"}), compression=zipfile.ZIP_LZMA
    ),
    "declares_gigabytes": content(declared(0xFFFF_0000)),
    "overlapping_entries": overlapping,
    "traversal": added(("../../escaped", b"x")),
    "absolute_name": added(("/tmp/escaped", b"x")),
    "surplus_member": added(("arrays/readme.txt", b"hello")),
    "duplicate_manifest": added(("manifest.json", b"{}")),
    "duplicate_array": added(("arrays/0.npy", npy(np.zeros(2)))),
    # The manifest.
    "no_manifest": members(lambda held: held.pop("manifest.json")),
    "manifest_no_json": members(lambda held: held.update({"manifest.json": b"{'format': 1}"})),
    "manifest_no_text": members(lambda held: held.update({"manifest.json": b"\xff\xfe\xfd"})),
    "manifest_a_list": members(lambda held: held.update({"manifest.json": b"[]"})),
    "manifest_nested": members(lambda held: held.update({"manifest.json": NESTED[:4000] + NESTED[-4000:]})),
    "manifest_huge_number": members(lambda held: held.update({"manifest.json": b'{"format": ' + b"9" * 5000 + b"}"})),
    "manifest_nan": manifest(lambda data: data["graph"].update(dt=float("nan"))),
    "newer_format": manifest(lambda data: data.update(format=2)),
    "no_format": manifest(lambda data: data.pop("format")),
    "format_is_text": manifest(lambda data: data.update(format="1")),
    "no_target": manifest(lambda data: data.pop("target")),
    "target_is_a_list": manifest(lambda data: data.update(target=["lava"])),
    "unknown_target": manifest(lambda data: data.update(target="lavva")),
    "inspected_target": manifest(lambda data: data.update(target="xylo")),
    "no_graph": manifest(lambda data: data.pop("graph")),
    "no_hashes": manifest(lambda data: data.pop("hashes")),
    "hashes_are_text": manifest(lambda data: data.update(hashes="sha256")),
    "arrays_are_a_number": manifest(lambda data: data.update(arrays=3)),
    "versions_are_a_list": manifest(lambda data: data.update(versions=["0.1.0"])),
    "allowances_are_a_number": manifest(lambda data: data.update(allowances=1)),
    "no_report": members(lambda held: held.pop("report.json")),
    "report_a_list": members(lambda held: held.update({"report.json": b"[]"})),
    # Hashes.
    "structure_hash": manifest(lambda data: data["graph"].update(dt=0.5)),
    "weights_hash": members(flipped),
    # Arrays.
    "array_member_gone": members(lambda held: held.pop("arrays/1.npy")),
    "array_gone": array("fc1/weight", lambda weight: None),
    "array_no_array": members(lambda held: held.update({"arrays/0.npy": b"hello"})),
    "array_terabytes": members(terabytes),
    "array_a_zip": members(lambda held: held.update({"arrays/0.npy": packed([("a.npy", held["arrays/0.npy"])])})),
    "array_pickled": members(lambda held: held.update({"arrays/0.npy": npy(np.array([{}, 1], dtype=object))})),
    "array_text": array("fc1/weight", lambda weight: weight.astype(str)),
    "array_complex": array("fc1/weight", lambda weight: weight * 1j),
    "array_records": array("fc1/weight", lambda weight: np.zeros(weight.shape, dtype=[("a", "<i4")])),
    "array_shape": array("fc1/weight", lambda weight: weight[:, :2]),
    "array_scalar": array("fc1/weight", lambda weight: weight[0, 0]),
    "weights_nan": array("fc1/weight", lambda weight: weight * np.nan, ReferenceTarget()),
    "weights_infinite": array("fc1/weight", lambda weight: weight * np.inf, ReferenceTarget()),
    "weights_scalar": array("fc1/weight", lambda weight: weight[0, 0], ReferenceTarget()),
    "weights_float": array("fc1/weight", lambda weight: weight + 0.5),
    "weights_too_wide": array("fc1/weight", lambda weight: weight + 2**20),
    "mean_nan": array("normalise/mean", lambda mean: mean * np.nan),
    # The graph.
    "graph_a_list": rehashed(lambda data, arrays: data.update(graph=[1, 2])),
    "nodes_a_number": graph(lambda data: data.update(nodes=7)),
    "no_nodes": graph(lambda data: data.update(nodes=[], edges=[])),
    "node_without_kind": graph(lambda data: data["nodes"][2].pop("kind")),
    "kind_is_a_list": node("lif1", kind=["FixedLIF"]),
    "unknown_kind": node("lif1", kind="Izhikevich"),
    "unknown_field": node("lif1", refractory=3),
    "field_of_another_type": node("lif1", threshold=7.5),
    "duplicate_node": graph(lambda data: data["nodes"].append(data["nodes"][2])),
    "name_with_newline": graph(lambda data: data["nodes"].append({**data["nodes"][0], "name": "a\nb"})),
    "edge_of_three": graph(lambda data: data["edges"].append(["fc1", "lif1", "fc2"])),
    "edge_gone": graph(lambda data: data["edges"].pop()),
    "dangling_edge": graph(lambda data: data["edges"].append(["fc1", "nobody"])),
    "unknown_level": graph(lambda data: data.update(level="quantum")),
    "imported_level": graph(lambda data: data.update(level="imported")),
    "dt_is_text": graph(lambda data: data.update(dt="soon")),
    "dt_is_negative": graph(lambda data: data.update(dt=-1.0)),
    "contract_a_list": graph(lambda data: data.update(contract=[1])),
    "contract_field_gone": graph(lambda data: data["contract"].pop("steps")),
    "contract_unknown_field": graph(lambda data: data["contract"].update(mood="calm")),
    "contract_of_another_size": graph(lambda data: data["contract"]["observation"].update(names=["a"], units=["m"])),
}


def generate(folder: Path) -> None:
    """Write every file into `folder`."""
    for name, make in FILES.items():
        (folder / f"{name}.nervecord").write_bytes(make())


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
