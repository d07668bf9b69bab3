"""Makes the malformed programs that tests read (`tests/malformed.py`).

Each differs from a sound program (3 observations -> lif1, 2 neurons -> 2 actions, for lava) in one thing, which its
name says. Where the hashes are not what is wrong, they are made anew, so that the reader has to look further than them.
"""

from __future__ import annotations

import functools
import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nervecord.compiler import ops as n
from nervecord.compiler.compile import compile_graph
from nervecord.compiler.files.arrays import ENTRY, pack, unpack
from nervecord.compiler.files.program import Program, described_hashes
from nervecord.compiler.graph.contract import Channels, Contract
from nervecord.compiler.graph.graph import chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.schema import canonical, checked, row
from nervecord.compiler.target.protocol import Target
from nervecord.targets.lava.target import LavaTarget
from nervecord.targets.reference.target import ReferenceTarget

Members = dict[str, bytes]
Arrays = dict[str, Any]
Manifest = dict[str, Any]


def policy() -> Policy:
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
    nodes = [
        ("observation", n.Input((3,))),
        ("normalise", n.Normalise(np.zeros(3), np.ones(3), 1e-8, 10.0)),
        ("fc1", n.Affine(draw.normal(size=(2, 3)), zero)),
        ("lif1", n.Neuron(n.Membrane(0.84 * one, one, zero), None, n.Spike(one, zero))),
        ("fc2", n.Affine(0.1 * draw.normal(size=(2, 2)), zero)),
        ("readout", n.Neuron(n.Membrane(0.9 * one, one, zero))),
        ("decode", n.Decode(one, zero, -one, one)),
        ("action", n.Output((2,))),
    ]
    return Policy(chain(n.Level.DISCRETE, nodes, dt=1e-3), contract, draw.normal(size=(16, 3)))


@functools.cache
def sound(target: Target[object] | None = None) -> Program:
    """The program all files start from."""
    program = compile_graph(policy(), target or LavaTarget())
    # Neither the report nor the tools' versions matter to a reader.
    return Program(program.target, program.graph, program.contract, versions={"nervecord": "0.1.0"})


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


# --------------------------------------------------------------------------------------------------------------------
# Ways to change a file


def content(change: Callable[[bytes], bytes]) -> Callable[[], bytes]:
    """A file made from the bytes of the sound one."""
    return lambda: change(sound().to_bytes())


def members(change: Callable[[Members], object], **how: int) -> Callable[[], bytes]:
    """A file with other members."""

    def make() -> bytes:
        contents = opened()
        change(contents)
        return packed(list(contents.items()), **how)

    return make


def added(*more: tuple[str, bytes]) -> Callable[[], bytes]:
    """A file with more members."""
    return lambda: packed([*opened().items(), *more])


def manifest(change: Callable[[Manifest], object], target: Target[object] | None = None) -> Callable[[], bytes]:
    """A file with another manifest, its hashes as they were."""

    def make() -> bytes:
        contents = opened(target)
        data = json.loads(contents["manifest.json"])
        change(data)
        contents["manifest.json"] = json.dumps(data).encode()
        return packed(list(contents.items()))

    return make


def rehashed(change: Callable[[Manifest, Arrays], object], target: Target[Any] | None = None) -> Callable[[], bytes]:
    """A file with another graph or other arrays, under hashes that are right."""

    def make() -> bytes:
        contents = opened(target)
        data = json.loads(contents["manifest.json"])
        arrays = unpack(checked(data["arrays"], row(ENTRY, 1000), "index"), contents["arrays.bin"], where="sound")
        change(data, arrays)
        data["arrays"], contents["arrays.bin"] = pack(arrays)
        return resealed(contents, data)

    return make


def resealed(contents: Members, data: Manifest) -> bytes:
    """A file of this manifest under the right hashes."""
    data["hashes"] = described_hashes(data, contents["arrays.bin"])
    contents["manifest.json"] = canonical(data)
    return packed(list(contents.items()))


def sealed(change: Callable[[Manifest], object]) -> Callable[[], bytes]:
    """A file with another manifest, under hashes that are right."""

    def make() -> bytes:
        contents = opened()
        data = json.loads(contents["manifest.json"])
        change(data)
        return resealed(contents, data)

    return make


def graph(change: Callable[[dict[str, Any]], object]) -> Callable[[], bytes]:
    """A file with another graph."""
    return sealed(lambda data: change(data["graph"]))


def contract(change: Callable[[dict[str, Any]], object]) -> Callable[[], bytes]:
    """A file with another contract."""
    return sealed(lambda data: change(data["contract"]))


def arithmetic(**values: Any) -> Callable[[], bytes]:
    """A file with other numbers in its arithmetic."""
    return sealed(lambda data: data["arithmetic"].update(values))


def entry(name: str, **values: Any) -> Callable[[], bytes]:
    """A file whose index says something else of an array."""

    def change(data: Manifest) -> None:
        (record,) = [item for item in data["arrays"] if item["name"] == name]
        record.update(values)

    return sealed(change)


def node(name: str, part: str = "", **values: Any) -> Callable[[], bytes]:
    """A file whose node, or a part of it, has another kind, name or fields."""

    def change(data: dict[str, Any]) -> None:
        (record,) = [item for item in data["nodes"] if item["name"] == name]
        (record[part] if part else record).update(values)

    return graph(change)


def array(name: str, change: Callable[[Any], Any], target: Target[Any] | None = None) -> Callable[[], bytes]:
    """A file with one other array; None leaves it out."""

    def make(data: Manifest, arrays: Arrays) -> None:
        arrays[name] = change(arrays[name])
        if arrays[name] is None:
            del arrays[name]

    return rehashed(make, target)


# --------------------------------------------------------------------------------------------------------------------
# What is wrong


def flipped(contents: Members) -> None:
    data = bytearray(contents["arrays.bin"])
    data[-1] ^= 1
    contents["arrays.bin"] = bytes(data)


def encrypted(data: bytes) -> bytes:
    """The directory says that the manifest is encrypted."""
    at = data.index(b"PK\1\2")
    return data[: at + 8] + b"\1\0" + data[at + 10 :]


def sparse(**values: Any) -> Callable[[], bytes]:
    """A file with a matrix of 64 x 64 in compressed rows, whose index or bytes are changed by name."""

    def make() -> bytes:
        contents = opened()
        data = json.loads(contents["manifest.json"])
        weight = np.zeros((64, 64), dtype="<i4")
        weight[3, [2, 5]] = 1, 2
        index, content = pack({"fc1/weight": weight})
        for key, value in values.items():
            if key in index[0]:
                index[0][key] = value
            else:  # the third of (values, columns, starts), in numbers of four bytes
                numbers = np.frombuffer(content, "<u4").copy()
                first = {"columns": 2, "starts": 4}[key]
                numbers[first : first + len(value)] = value
                content = numbers.tobytes()
        data["arrays"] = index
        contents["arrays.bin"] = content
        return resealed(contents, data)

    return make


def overlapping() -> bytes:
    """More bytes than the file has: 50 entries of the directory name the same ones."""
    data = packed([*opened().items(), ("bomb", b"\0" * 10_000)])
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
    "compressed": members(lambda files: None, compression=zipfile.ZIP_DEFLATED),
    "compressed_bomb": members(
        lambda files: files.update({"report.json": b" " * 3_000_000 + b"{}"}), compression=zipfile.ZIP_LZMA
    ),
    "declares_gigabytes": content(declared(0xFFFF_0000)),
    "overlapping_entries": overlapping,
    "traversal": added(("../../escaped", b"x")),
    "absolute_name": added(("/tmp/escaped", b"x")),
    "surplus_member": added(("arrays/readme.txt", b"hello")),
    "duplicate_manifest": added(("manifest.json", b"{}")),
    "missing_member": members(lambda files: files.pop("arrays.bin")),
    "encrypted": content(encrypted),
    "zip64": content(lambda data: data[:-22] + b"PK\6\7" + bytes(16) + data[-22:]),
    "comment": content(lambda data: data[:-2] + b"\5\0hello"),
    # The manifest.
    "no_manifest": members(lambda files: files.update({"manifest.txt": files.pop("manifest.json")})),
    "manifest_no_json": members(lambda files: files.update({"manifest.json": b"{'format': 1}"})),
    "manifest_no_text": members(lambda files: files.update({"manifest.json": b"\xff\xfe\xfd"})),
    "manifest_a_list": members(lambda files: files.update({"manifest.json": b"[]"})),
    "manifest_nested": members(lambda files: files.update({"manifest.json": NESTED[:4000] + NESTED[-4000:]})),
    "manifest_huge_number": members(lambda files: files.update({"manifest.json": b'{"format": ' + b"9" * 5000 + b"}"})),
    "manifest_nan": manifest(lambda data: data["graph"].update(dt=float("nan"))),
    "manifest_surrogate": members(lambda files: files.update({"manifest.json": b'{"format":2,"target":"\\ud800"}'})),
    "old_format": manifest(lambda data: data.update(format=1)),
    "newer_format": manifest(lambda data: data.update(format=3)),
    "no_format": manifest(lambda data: data.pop("format")),
    "format_is_text": manifest(lambda data: data.update(format="1")),
    "no_target": manifest(lambda data: data.pop("target")),
    "target_is_a_list": manifest(lambda data: data.update(target=["lava"])),
    # Of floats: integers say their arithmetic, and are run by it whatever their target is called.
    "unknown_target": manifest(lambda data: data.update(target="lavva"), ReferenceTarget()),
    "inspected_target": manifest(lambda data: data.update(target="xylo"), ReferenceTarget()),
    "target_a_path": manifest(lambda data: data.update(target="../../etc")),
    "no_graph": manifest(lambda data: data.pop("graph")),
    "no_hashes": manifest(lambda data: data.pop("hashes")),
    "hashes_are_text": manifest(lambda data: data.update(hashes="sha256")),
    "arrays_are_a_number": manifest(lambda data: data.update(arrays=3)),
    "versions_are_a_list": manifest(lambda data: data.update(versions=["0.1.0"])),
    "allowances_are_a_number": manifest(lambda data: data.update(allowances=1)),
    "report_a_list": members(lambda files: files.update({"report.json": b"[]"})),
    "report_escape": members(lambda files: files.update({"report.json": b'{"lowering":"\\u001b[2J"}'})),
    "report_lowering_a_number": members(lambda files: files.update({"report.json": b'{"lowering":5}'})),
    "report_lowering_nothing": members(lambda files: files.update({"report.json": b'{"lowering":null}'})),
    "report_population_empty": members(
        lambda files: files.update({"report.json": b'{"lowering":{"populations":[{}]}}'})
    ),
    "report_error_alone": members(lambda files: files.update({"report.json": b'{"lowering":{"action_error_rms":1}}'})),
    "report_certificate_a_list": members(lambda files: files.update({"report.json": b'{"certificate":[]}'})),
    "report_certificate_empty": members(lambda files: files.update({"report.json": b'{"certificate":{}}'})),
    "report_nested": members(lambda files: files.update({"report.json": b'{"a":' + NESTED + b"}"})),
    # Hashes.
    "structure_hash": manifest(lambda data: data["graph"].update(dt=0.5)),
    "arrays_hash": members(flipped),
    # Arrays.
    "array_gone": array("fc1/weight", lambda weight: None),
    "array_surplus": rehashed(lambda data, arrays: arrays.update({"fc1/mood": np.zeros(2)})),
    "array_twice": sealed(lambda data: data["arrays"].append(data["arrays"][0])),
    "array_terabytes": entry("fc1/weight", shape=[1 << 20, 1 << 20]),
    "array_sparse_terabytes": entry("fc1/weight", shape=[1 << 26, 1 << 26], nonzero=1),
    "array_negative": entry("fc1/weight", shape=[-1, -1]),
    "array_pickled": entry("fc1/weight", dtype="|O"),
    "array_records": entry("fc1/weight", dtype="[('a', '<i4')]"),
    "array_complex": entry("fc1/weight", dtype="<c16"),
    "array_float": array("fc1/weight", lambda weight: weight.astype(np.float64)),
    "array_short": members(lambda files: files.update({"arrays.bin": files["arrays.bin"][:-8]})),
    "array_left_over": rehashed(lambda data, arrays: arrays.pop("fc1/weight")),
    "array_shape": array("fc1/weight", lambda weight: weight[:, :2].copy()),
    "array_scalar": array("fc1/weight", lambda weight: weight[0, 0]),
    "sparse_columns": sparse(columns=[5, 2]),
    "sparse_far_column": sparse(columns=[2, 64]),
    "sparse_rows": sparse(starts=[0, 2, 1]),
    "sparse_start": sparse(starts=[1]),
    "sparse_of_three_axes": sparse(shape=[4, 16, 64]),
    "sparse_count": sparse(nonzero=3),
    "weights_nan": array("fc1/weight", lambda weight: weight * np.nan, ReferenceTarget()),
    "weights_infinite": array("fc1/weight", lambda weight: weight * np.inf, ReferenceTarget()),
    "weights_scalar": array("fc1/weight", lambda weight: weight[0, 0], ReferenceTarget()),
    "weights_too_wide": array("fc1/weight", lambda weight: weight + np.int32(2**20)),
    "mean_nan": array("normalise/mean", lambda mean: mean * np.nan),
    # The graph.
    "graph_a_list": manifest(lambda data: data.update(graph=[1, 2])),
    "nodes_a_number": graph(lambda data: data.update(nodes=7)),
    "no_nodes": graph(lambda data: data.update(nodes=[], edges=[])),
    "node_without_kind": graph(lambda data: data["nodes"][2].pop("kind")),
    "kind_is_a_list": node("lif1", kind=["Neuron"]),
    "unknown_kind": node("lif1", kind="Izhikevich"),
    "part_of_a_kind": node("lif1", "membrane", kind="Spike"),
    "part_of_another_level": node("lif1", membrane={"kind": "Membrane"}),
    "part_gone": graph(lambda data: next(item for item in data["nodes"] if item["name"] == "lif1").pop("membrane")),
    "unknown_field": node("lif1", refractory=3),
    "field_of_another_type": node("lif1", "spike", threshold=7.5),
    "field_a_list": node("lif1", "spike", threshold=[1]),
    "field_a_flag": node("lif1", "spike", threshold=True),
    "field_too_large": node("lif1", "membrane", decay=1 << 31),
    "weight_bits_64": node("fc1", weight_bits=64),
    "delay_too_long": node("fc1", delay=1 << 31),
    "quantise_limit": node("quantise", limit=1 << 60),
    "clip_a_list": node("normalise", clip=[1.0]),
    "clip_too_large": node("normalise", clip=1e300),
    "shape_empty": node("observation", shape=[]),
    "shape_of_words": node("observation", shape=["a"]),
    "shape_of_nothing": node("observation", shape=[None]),
    "shape_too_large": node("observation", shape=[1 << 27]),
    "origin_a_number": node("lif1", origin=[5]),
    "duplicate_node": graph(lambda data: data["nodes"].append(data["nodes"][2])),
    "name_with_newline": graph(lambda data: data["nodes"].append({**data["nodes"][0], "name": "a\nb"})),
    "name_with_escape": graph(lambda data: data["nodes"].append({**data["nodes"][0], "name": "\x1b[2J"})),
    "edge_of_three": graph(lambda data: data["edges"].append(["fc1", "lif1", "fc2"])),
    "edge_gone": graph(lambda data: data["edges"].pop()),
    "edge_twice": graph(lambda data: data["edges"].append(data["edges"][0])),
    "dangling_edge": graph(lambda data: data["edges"].append(["fc1", "nobody"])),
    "unknown_level": graph(lambda data: data.update(level="quantum")),
    "imported_level": graph(lambda data: data.update(level="imported")),
    "dt_is_text": graph(lambda data: data.update(dt="soon")),
    "dt_is_negative": graph(lambda data: data.update(dt=-1.0)),
    # Arithmetic, schedule, contract.
    "no_arithmetic": sealed(lambda data: data.update(arithmetic=None)),
    "arithmetic_a_list": sealed(lambda data: data.update(arithmetic=[1])),
    "arithmetic_field_gone": sealed(lambda data: data["arithmetic"].pop("membrane_bits")),
    "arithmetic_unknown_field": arithmetic(mood=1),
    "arithmetic_too_wide": arithmetic(membrane_bits=64),
    "arithmetic_unknown_rounding": arithmetic(decay_rounding="up"),
    "arithmetic_contradiction": arithmetic(decay_rounding="at-least-one"),
    "no_schedule": sealed(lambda data: data.update(contract=None)),
    "schedule_twice": sealed(lambda data: data.update(schedule={"steps": 1, "state": "reset", "held": True})),
    "schedule_of_an_age": sealed(
        lambda data: data.update(contract=None, schedule={"steps": 1 << 31, "state": "reset", "held": True})
    ),
    "contract_a_list": sealed(lambda data: data.update(contract=[1])),
    "contract_field_gone": contract(lambda data: data.pop("steps")),
    "contract_unknown_field": contract(lambda data: data.update(mood="calm")),
    "contract_of_another_size": contract(lambda data: data["observation"].update(names=["a"], units=["m"])),
    "contract_of_an_age": contract(lambda data: data.update(steps=1 << 60)),
    "contract_fail_safe_outside": contract(lambda data: data.update(fail_safe=[0.0, 1.5])),
    "contract_fail_safe_text": contract(lambda data: data.update(fail_safe=["off", "off"])),
    "contract_limits_narrower": contract(lambda data: data["action"].update(high=[1.0, 0.5])),
    "contract_escape": contract(lambda data: data["action"].update(names=["left", "\x1b[2J"])),
    "contract_period_400_digits": contract(lambda data: data.update(control_period=10**400)),
}


def write_file(path: Path) -> None:
    """Write the file that the path names."""
    path.write_bytes(FILES[path.stem]())
