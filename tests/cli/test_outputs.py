"""What is written and said: drawings of many loops, messages that a file makes long, files that are links."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from nervecord.compiler.files.atomic import made_folder, write_atomically
from nervecord.errors import EngineError, NervecordError
from nervecord.runtime.engines.c.library import build


def recurrent(count: int) -> dict[str, object]:
    """As `GraphFacts.to_dict`: a chain of populations, each of which feeds itself through a connection."""
    ids = ["in", *(f"{kind}{k}" for k in range(count) for kind in ("n", "r")), "out"]
    edges = [["in", "n0"], *([f"n{k}", f"r{k}"] for k in range(count)), *([f"r{k}", f"n{k}"] for k in range(count))]
    edges += [*([f"n{k}", f"n{k + 1}"] for k in range(count - 1)), [f"n{count - 1}", "out"]]
    nodes = [{"id": name, "name": name, "kind": "Affine", "side": "core", "shape": [1]} for name in ids]
    return {"nodes": nodes, "edges": edges}


def test_loops_are_cut_where_they_return_and_in_linear_time() -> None:
    pytest.importorskip("networkx")
    from nervecord.runtime.report.html.layout import lay_out

    small = lay_out(recurrent(3))
    assert small.back == {(f"r{k}", f"n{k}") for k in range(3)}
    began = time.process_time()
    large = lay_out(recurrent(1500))
    assert time.process_time() - began < 10
    assert len(large.back) == 1500
    itself = {"nodes": [{"id": "a"}, {"id": "b"}], "edges": [["a", "b"], ["b", "a"], ["a", "a"]]}
    assert lay_out(itself).back == {("b", "a"), ("a", "a")}


def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    for mode in (0o600, 0o640, 0o664):
        path.chmod(mode)
        write_atomically(path, b"new")
        assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", mode)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed(there: bool, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real", tmp_path / "link"
    if there:
        real.write_bytes(b"old")
    link.symlink_to(real)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert [path.name for path in tmp_path.rglob("*.nervecord-tmp")] == []


def test_what_is_no_file_stays_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "link"):
        with pytest.raises(NervecordError, match=name):
            write_atomically(tmp_path / name, b"x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_folder_that_lies_too_deep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NervecordError, match="cannot be made"):
        made_folder(tmp_path / ("a/" * 2000))
    assert list(tmp_path.iterdir()) == []


def test_a_files_own_words_do_not_fill_the_screen() -> None:
    message = str(NervecordError("a type " + "x" * 90_000, where="n" * 90_000 + "\nnext line", hint="h" * 90_000))
    assert len(message) < 10_000
    assert "(90000 characters)" in message
    assert "\n" not in message
    many = str(NervecordError("; ".join(f"node{k}: is wrong" for k in range(200))))
    assert many.endswith("node199: is wrong")
    assert "characters" not in many


@pytest.mark.parametrize("reason", ["No space left on device", "Disk quota exceeded", "File too large"])
def test_a_compiler_that_finds_the_disk_full(reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nervecord.runtime.engines.c import library as c_library

    compiler = tmp_path / "cc"
    compiler.write_text(f"#!/bin/sh\necho 'Assembler messages:' >&2\necho 'cc: error: {reason}' >&2\nexit 1\n")
    compiler.chmod(0o755)
    with pytest.raises(OSError, match=reason):
        build({"a.c": ""}, "a", tmp_path, (str(compiler),), ())
    with pytest.raises(EngineError, match=reason) as caught:
        c_library._loaded((("a.c", ""),), "a", (str(compiler),), ())
    assert "TMPDIR" in (caught.value.hint or "")
