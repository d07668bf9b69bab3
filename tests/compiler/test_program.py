"""The program file: exact, reproducible, and deaf to damage."""

from __future__ import annotations

import json
import os
import time
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import random_policy

from nervecord.compiler.compile import compile_policy
from nervecord.compiler.program import _depth, load
from nervecord.errors import ContractError, FileFormatError, InfeasibleError, NervecordError
from nervecord.targets.lava.target import LavaTarget
from nervecord.targets.reference.target import ReferenceTarget


@pytest.fixture(scope="module")
def program():
    return compile_policy(random_policy(sizes=(27, 12, 8)), LavaTarget())


def test_round_trip_is_exact_and_bytes_are_reproducible(program, tmp_path) -> None:
    path = tmp_path / "ant.nervecord"
    program.save(path)
    again = load(path)
    assert again.graph == program.graph
    assert again.to_bytes() == program.to_bytes() == path.read_bytes()
    assert again.target == "lava"
    assert again.contract.latency == 2
    assert again.versions["nervecord"]
    other = compile_policy(random_policy(sizes=(27, 12, 8)), LavaTarget())
    assert other.to_bytes() == program.to_bytes()


def test_reference_programs_keep_floats_to_the_bit(tmp_path) -> None:
    policy = random_policy()
    program = compile_policy(policy, ReferenceTarget())
    program.save(tmp_path / "p")
    assert load(tmp_path / "p").graph == policy.replace(recorded=None)


def test_report_holds_what_a_table_shows(program) -> None:
    report = program.report
    assert report["lowering"]["layers"][0]["layer"] == "lif1"
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
    data = bytearray(members["arrays/0.npy"])
    data[-1] ^= 1
    members["arrays/0.npy"] = bytes(data)


CHANGES = {
    "newer format": (lambda m, f: m.update(format=2), "format 2.*upgrade"),
    "no format": (lambda m, f: m.pop("format"), "format None"),
    "format of another type": (lambda m, f: m.update(format="1"), "format '1'"),
    "changed weight": (flip_weight, "hash of its weights"),
    "changed structure": (lambda m, f: m["graph"].update(dt=0.5), "hash of its structure"),
    "no hashes": (lambda m, f: m.pop("hashes"), "'hashes' is missing"),
    "missing array": (lambda m, f: f.update({"arrays/1.npy": None}), "has no arrays/1.npy"),
    "array of text": (lambda m, f: f.update({"arrays/1.npy": b"hello"}), "arrays/1.npy is no array"),
    "no report": (lambda m, f: f.update({"report.json": None}), "has no report.json"),
    "report is a list": (lambda m, f: f.update({"report.json": b"[]"}), "report.json is no JSON object"),
    "arrays are a number": (lambda m, f: m.update(arrays=3), "malformed"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_files_are_refused_in_a_sentence(name: str, program, tmp_path) -> None:
    change, words = CHANGES[name]
    path = rewritten(program.to_bytes(), tmp_path, change)
    with pytest.raises(FileFormatError, match=words) as caught:
        load(path)
    assert str(caught.value).startswith(path)
    assert "\n" not in str(caught.value)


def test_pickled_arrays_are_never_loaded(program, tmp_path) -> None:
    import io

    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
    path = rewritten(program.to_bytes(), tmp_path, lambda m, f: f.update({"arrays/0.npy": buffer.getvalue()}))
    with pytest.raises(FileFormatError, match="no array"):
        load(path)
    assert not (tmp_path / "executed").exists()


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
    with pytest.raises(FileFormatError, match="does not exist"):
        load(tmp_path / "none")
    with pytest.raises(FileFormatError, match="is a folder"):
        load(tmp_path)


@settings(max_examples=60, deadline=None)
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


def test_writing_where_nothing_can_be_written_is_a_sentence(program, tmp_path) -> None:
    with pytest.raises(NervecordError, match="does the folder exist"):
        program.save(tmp_path / "none" / "p")
    with pytest.raises(NervecordError, match="is a folder"):
        program.save(tmp_path)


def test_compile_refuses_what_it_cannot_do() -> None:
    import dataclasses

    policy = random_policy()
    with pytest.raises(ContractError, match="no contract"):
        compile_policy(policy.replace(contract=None), LavaTarget())
    nodes = dict(policy.nodes)
    nodes["lif1"] = dataclasses.replace(nodes["lif1"], reset="subtract")
    nodes["readout"] = dataclasses.replace(nodes["readout"], decay=np.linspace(0.5, 0.9, 8))
    with pytest.raises(InfeasibleError) as caught:
        compile_policy(policy.replace(nodes=nodes), LavaTarget())
    assert "lif1" in str(caught.value)
    assert "readout" in str(caught.value)  # every reason at once


def test_dump_and_explain_show_every_step(tmp_path) -> None:
    lines: list[str] = []
    compile_policy(random_policy(), LavaTarget(), dump=tmp_path / "d", explain=lines.append)
    assert sorted(os.listdir(tmp_path / "d")) == ["00-read.txt", "01-discrete.txt", "02-lowered.txt"]
    assert any("DiscreteLIF became FixedLIF" in line for line in lines)


@pytest.mark.parametrize(
    ("content", "depth"),
    [
        (b"", 0),
        (b'{"a": [[], {}]}', 3),
        (b'["[[[", "\\"[[", "\\\\", []]', 2),
        (b'["no end [[[', 1),
        (b'["a lone backslash [[\\', 1),
        (b"]][[", 0),
        (b'[\n"a\n[",\n[\n]]', 2),
    ],
)
def test_how_deep_json_is_nested(content: bytes, depth: int) -> None:
    assert _depth(content) == depth


def test_what_looks_like_texts_is_read_in_one_go() -> None:
    began = time.perf_counter()
    for piece in (b'\\"', b'"', b"\\", b'"\\'):
        _depth(b'"' + piece * 500_000)
    assert time.perf_counter() - began < 20  # a second look at every quote would take hours
