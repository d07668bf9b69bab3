"""The program file: exact, reproducible, and deaf to damage."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import random
import time
import zipfile
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import random_policy

from nervecord.compiler.compile import compile_graph
from nervecord.compiler.files import program as files_program
from nervecord.compiler.files.arrays import ENTRY, pack, unpack
from nervecord.compiler.files.program import Program, load
from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.schedule import STREAM, Schedule
from nervecord.compiler.graph.verify import verify
from nervecord.compiler.ops import Affine, Input, IntegerMembrane, Level, Membrane, Neuron, Op, Output, Spike
from nervecord.compiler.plan.plan import plan
from nervecord.compiler.schema import brackets, checked, nesting, row
from nervecord.errors import ContractError, FileFormatError, GraphError, InfeasibleError, NervecordError
from nervecord.targets.lava.target import LavaTarget
from nervecord.targets.reference.target import ReferenceTarget


@pytest.fixture(scope="module")
def program():
    return compile_graph(random_policy(sizes=(27, 12, 8)), LavaTarget())


def test_round_trip_is_exact_and_bytes_are_reproducible(program, tmp_path) -> None:
    path = tmp_path / "ant.nervecord"
    program.save(path)
    again = load(path)
    assert again.graph == program.graph
    assert again.to_bytes() == program.to_bytes() == path.read_bytes()
    assert again.target == "lava"
    assert again.contract == program.contract
    assert again.schedule == program.schedule == Schedule(5, "reset", held=True)
    assert again.policy == program.policy == program.subject
    assert again.versions["nervecord"]
    other = compile_graph(random_policy(sizes=(27, 12, 8)), LavaTarget())
    assert other.to_bytes() == program.to_bytes()


def test_reference_programs_keep_floats_to_the_bit(tmp_path) -> None:
    policy = random_policy()
    program = compile_graph(policy, ReferenceTarget())
    program.save(tmp_path / "p")
    assert load(tmp_path / "p").policy == policy.replace(recorded=None)


def test_report_holds_what_a_table_shows(program) -> None:
    report = program.report
    assert report["lowering"]["populations"][0]["population"] == "lif1"
    assert report["placement"]["cores"] >= 1
    json.dumps(report, allow_nan=False)


def rewritten(data: bytes, tmp_path, change) -> str:
    """The archive with its manifest and members changed."""
    source = tmp_path / "source"
    source.write_bytes(data)
    target = tmp_path / "changed.nervecord"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        members = {name: old.read(name) for name in old.namelist()}
        manifest = json.loads(members["manifest.json"])
        change(manifest, members)
        members["manifest.json"] = members["manifest.json"] if manifest is None else json.dumps(manifest).encode()
        for name, content in members.items():
            if content is not None:
                new.writestr(name, content)
    return str(target)


def flip_weight(manifest, members) -> None:
    data = bytearray(members["arrays.bin"])
    data[-1] ^= 1
    members["arrays.bin"] = bytes(data)


CHANGES = {
    "old format": (lambda m, f: m.update(format=1), "old format 1, .*compile its policy again"),
    "newer format": (lambda m, f: m.update(format=3), "format 3.*upgrade"),
    "no format": (lambda m, f: m.pop("format"), "format None"),
    "format of another type": (lambda m, f: m.update(format="1"), "format '1'"),
    "changed weight": (flip_weight, "hash of its arrays"),
    "changed structure": (lambda m, f: m["graph"].update(dt=0.5), "hash of its structure"),
    "no hashes": (lambda m, f: m.pop("hashes"), "field 'hashes' is missing"),
    "no arrays": (lambda m, f: f.update({"arrays.bin": None}), "holds 2 entries"),
    "arrays of text": (lambda m, f: f.update({"arrays.bin": b"hello"}), "hash of its arrays"),
    "no report": (lambda m, f: f.update({"report.json": None}), "holds 2 entries"),
    "report is a list": (lambda m, f: f.update({"report.json": b"[]"}), "report.json: expected object, got array"),
    "arrays are a number": (lambda m, f: m.update(arrays=3), "arrays: expected array, got int"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_files_are_refused_in_a_sentence(name: str, program, tmp_path) -> None:
    change, words = CHANGES[name]
    path = rewritten(program.to_bytes(), tmp_path, change)
    with pytest.raises(FileFormatError, match=words) as caught:
        load(path)
    assert str(caught.value).startswith(path)
    assert "\n" not in str(caught.value)


def test_nothing_of_a_file_is_executed(program, tmp_path) -> None:
    """Arrays are bytes under a closed list of types: there is no pickle to load, and no name to import."""

    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
    path = rewritten(program.to_bytes(), tmp_path, lambda m, f: f.update({"arrays.bin": buffer.getvalue()}))
    with pytest.raises(FileFormatError, match="hash of its arrays"):
        load(path)

    def objects(manifest, members) -> None:
        members["arrays.bin"] = buffer.getvalue()
        manifest["arrays"][0]["dtype"] = "|O"
        manifest["hashes"] = files_program.described_hashes(manifest, members["arrays.bin"])

    with pytest.raises(FileFormatError, match=r"dtype: '\|O'"):
        load(rewritten(program.to_bytes(), tmp_path, objects))
    assert not (tmp_path / "executed").exists()


def stream_graph() -> Graph:
    one = np.ones(3)
    nodes: list[tuple[str, Op]] = [
        ("in", Input((2,), "values", 4.0)),
        ("fc", Affine(np.eye(3, 2))),
        ("lif", Neuron(Membrane(0.5 * one, one, -0.0 * one), None, Spike(one, 0 * one, "subtract", 2))),
        ("out", Output((3,))),
    ]
    return chain(Level.DISCRETE, nodes, dt=1e-3)


def test_graphs_without_a_contract_keep_their_schedule(tmp_path) -> None:
    for schedule in (STREAM, Schedule(7, "reset", held=False)):
        program = Program("reference", stream_graph(), schedule=schedule)
        program.save(tmp_path / "p")
        again = load(tmp_path / "p")
        assert (again.graph, again.schedule, again.contract) == (stream_graph(), schedule, None)
        assert again.subject == stream_graph()
        with pytest.raises(ContractError, match=r"reference: .*contract"):
            _ = again.policy


def test_a_policys_schedule_is_its_contracts(program) -> None:
    assert isinstance(program.contract, Contract)
    stream = Program("lava", program.graph, program.contract, schedule=STREAM)
    assert stream.schedule == Schedule(program.contract.steps, program.contract.state, held=True)


def test_every_field_of_every_op_comes_back(tmp_path, program) -> None:
    """Integers with their arithmetic; the least used fields of floats stand in `stream_graph`."""
    assert program.graph.arithmetic is not None
    assert any(isinstance(op.membrane, IntegerMembrane) for _, op in program.graph.of_type(Neuron))
    program.save(tmp_path / "p")
    assert load(tmp_path / "p").graph.arithmetic == program.graph.arithmetic


def test_numbers_that_no_file_can_hold_are_refused_on_save(tmp_path) -> None:
    program = Program("reference", stream_graph(), report={"error": float("nan")})
    with pytest.raises(GraphError, match=r"reference: .*number"):
        program.save(tmp_path / "p")
    assert os.listdir(tmp_path) == []


def unpacked(index: list[dict[str, object]], data: bytes) -> dict[str, np.ndarray]:
    return unpack(checked(index, row(ENTRY, 100), "index"), data, where="file")


@settings(max_examples=examples(100), deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_matrices_without_their_zeros_come_back_to_the_bit(seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 40, 2)
    for weight in (rng.normal(size=shape), rng.integers(-9, 9, shape).astype(np.int32)):
        weight[rng.random(shape) > density] = 0
        if weight.dtype == np.float64 and density > 0.5:
            weight[0, 0] = -0.0
        index, data = pack({"a": weight})
        again = unpacked(index, data)["a"]
        assert again.dtype == weight.dtype
        assert again.tobytes() == weight.tobytes()
        assert len(data) <= weight.nbytes
        dense = np.count_nonzero(weight) * (weight.itemsize + 4) + 4 * (len(weight) + 1) >= weight.nbytes
        if density < 0.1 and not dense:
            assert "nonzero" in index[0]


def test_a_sparse_matrix_takes_little(tmp_path) -> None:
    weight = np.zeros((2000, 2000))
    weight[np.arange(2000), np.arange(2000)[::-1]] = np.random.default_rng(0).normal(size=2000)
    one = np.ones(2000)
    nodes: list[tuple[str, Op]] = [
        ("in", Input((2000,))),
        ("fc", Affine(weight)),
        ("lif", Neuron(Membrane(one, one, one), None, Spike(one, one))),
        ("out", Output((2000,))),
    ]
    program = Program("reference", chain(Level.DISCRETE, nodes, dt=1e-3))
    program.save(tmp_path / "p")
    assert (tmp_path / "p").stat().st_size < 130_000  # 32 MB dense
    assert load(tmp_path / "p").graph == program.graph


def test_json_texts_are_bounded_together(program, tmp_path, monkeypatch) -> None:
    """Before one of them is read: of 57 MB a parser makes objects of gigabytes."""

    def change(manifest: dict[str, Any], files: dict[str, bytes]) -> None:
        files["report.json"] = b"{" + b" " * files_program.MOST_TEXT + b"}"

    path = rewritten(program.to_bytes(), tmp_path, change)
    with pytest.raises(FileFormatError, match=r"\d+ bytes .* 25165824 "):
        load(path)
    monkeypatch.setattr(files_program, "MOST_TEXT", 1000)
    with pytest.raises(GraphError, match=r"\d+ bytes .* 1000 "):
        program.to_bytes()


def test_compressed_members_are_refused(program, tmp_path) -> None:
    path = tmp_path / "bomb"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b"0" * 1_000_000)
    with pytest.raises(FileFormatError, match="compressed"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + b"\0" * 50])
def test_other_files_are_refused(content: bytes, tmp_path) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="no program"):
        load(path)
    with pytest.raises(FileFormatError, match="none"):
        load(tmp_path / "none")
    with pytest.raises(FileFormatError, match=tmp_path.name):
        load(tmp_path)


@settings(max_examples=examples(60), deadline=None)
@given(data=st.data())
def test_damaged_bytes_never_do_anything_but_refuse(program, tmp_path_factory, data) -> None:
    content = bytearray(program.to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) // 2, len(content)))]
    path = tmp_path_factory.mktemp("fuzz") / "p"
    path.write_bytes(bytes(content))
    outcome: object
    try:
        outcome = load(path).graph == program.graph
    except NervecordError as error:
        outcome = str(path) in str(error)
    assert outcome is True


def test_a_crash_while_writing_leaves_the_old_file(program, tmp_path, monkeypatch) -> None:
    path = tmp_path / "p"
    path.write_bytes(b"old")

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(NervecordError, match="No space left"):
        program.save(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["p"]


def test_a_file_is_as_readable_as_the_umask_says_and_the_umask_stays(program, tmp_path, monkeypatch) -> None:
    def refused(mask: int) -> int:
        raise AssertionError("asking for the umask changes it for all threads")

    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", refused)
        program.save(tmp_path / "p")
        monkeypatch.undo()
    finally:
        os.umask(before)
    assert (tmp_path / "p").stat().st_mode & 0o777 == 0o640
    program.save(tmp_path / ("x" * 255))  # the longest name there is
    with pytest.raises(NervecordError, match=r"embedded null (byte|character)"):
        program.save("a\0b")


def test_writing_where_nothing_can_be_written_is_a_sentence(program, tmp_path) -> None:
    with pytest.raises(NervecordError, match="does the folder exist"):
        program.save(tmp_path / "none" / "p")
    with pytest.raises(NervecordError, match=tmp_path.name):
        program.save(tmp_path)


def test_compile_refuses_what_it_cannot_do() -> None:
    policy = random_policy()
    nodes = dict(policy.graph.nodes)
    lif1, readout = nodes["lif1"], nodes["readout"]
    nodes["lif1"] = lif1.replace(spike=replace(lif1.spike, reset="subtract"))
    nodes["readout"] = readout.replace(spike=Spike(np.ones(8), np.zeros(8)))  # and a membrane is read
    with pytest.raises(InfeasibleError) as caught:
        compile_graph(policy.replace(graph=policy.graph.replace(nodes=nodes)), LavaTarget())
    assert "lif1" in str(caught.value)
    assert "readout" in str(caught.value)  # every reason at once


def test_dump_and_explain_show_every_step(tmp_path) -> None:
    lines: list[str] = []
    compile_graph(random_policy(), LavaTarget(), dump=tmp_path / "d", explain=lines.append)
    assert sorted(os.listdir(tmp_path / "d")) == ["00-read.txt", "01-discrete.txt", "02-lowered.txt"]
    assert any("lif1: LIF became LIF (integer)" in line for line in lines)


@pytest.mark.parametrize(
    ("content", "depth"),
    [
        (b"", 0),
        (b'{"a": [[], {}]}', 3),
        (b'["[[[", "\\"[[", "\\\\", []]', 2),
        (b'["no end [[[', 1),
        (b'["a lone backslash [[\\', 1),
        (b"]][[", 2),
        (b'[\n"a\n[",\n[\n]]', 2),
        (b"[[], [[], [[]]]]", 4),
        (b"[{]}", 2),
    ],
)
def test_how_deep_json_is_nested(content: bytes, depth: int) -> None:
    assert nesting(brackets(content)) == depth


def test_what_looks_like_texts_is_read_in_one_go() -> None:
    began = time.perf_counter()
    for piece in (b'\\"', b'"', b"\\", b'"\\'):
        nesting(brackets(b'"' + piece * 500_000))
    assert time.perf_counter() - began < 20  # a second look at every quote would take hours


# --------------------------------------------------------------------------------------------------------------------
# Mutated content under hashes that are right: the reader has to look further than them. Seeded.

JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1 << 31,
    1 << 60,
    1.5,
    -1e308,
    "",
    "x",
    "\x1b[2J",
    "lif1",
    "Neuron",
    "Dense",
    "reset",
    [],
    [1],
    ["a", "b"],
    [[]],
    [None],
    {},
    {"kind": "Spike"},
    {"name": "x", "kind": "Input", "shape": [1]},
)


def mutate(tree: Any, rng: random.Random) -> None:
    """Replace, remove, double or add one thing somewhere in nested dicts and lists."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(tree)
    parent, key = rng.choice(places)
    chance = rng.random()
    if chance < 0.15:
        del parent[key]
    elif chance < 0.3 and isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(parent[key]))
    elif chance < 0.4:
        other, at = rng.choice(places)
        parent[key] = copy.deepcopy(other[at])
    else:
        parent[key] = copy.deepcopy(rng.choice(JUNK))


@pytest.mark.parametrize("target", [LavaTarget(), ReferenceTarget()], ids=["lava", "reference"])
def test_mutated_manifests(target: Any, tmp_path) -> None:
    content = compile_graph(random_policy(sizes=(3, 4, 2)), target).to_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    sound = json.loads(members["manifest.json"])
    count = 0
    for seed in range(1000):
        rng = random.Random(seed)
        manifest = copy.deepcopy(sound)
        for _ in range(rng.choice((1, 1, 2, 4))):
            mutate(manifest, rng)
        if set(sound) <= set(manifest):
            manifest["hashes"] = files_program.described_hashes(manifest, members["arrays.bin"])
        path = tmp_path / "p"
        with zipfile.ZipFile(path, "w") as archive:
            for name in members:
                archive.writestr(name, json.dumps(manifest) if name == "manifest.json" else members[name])
        try:
            program = load(path)
        except NervecordError as error:
            text = str(error)
            assert text.startswith(f"{path}: "), f"seed {seed}"
            assert text.isprintable(), f"seed {seed}"
        else:
            assert verify(program.subject) == [], f"seed {seed}"
            plan_or_refusal(program)
            count += 1
    assert 0 < count < 500


def plan_or_refusal(program: Program) -> None:
    """What is read can be planned, or is refused in a sentence."""
    with contextlib.suppress(NervecordError):
        plan(program.subject, None if program.contract else program.schedule)
