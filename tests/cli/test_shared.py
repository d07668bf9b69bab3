"""A robot without a compiler, and one whose disk cannot be written: what was compiled elsewhere is opened there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nervecord

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler: apt-get install gcc"
)
ROBOT = """
import sys, time
began = time.perf_counter()
sys.modules["numba"] = None  # not installed
import nervecord, json
with nervecord.open("ant.nervecord", library="policy.so", trace=False, realtime=True) as session:
    actions = [session.step(row).tolist() for row in json.loads(sys.argv[1])]
    print(json.dumps([session.engine, actions, time.perf_counter() - began]))
"""


@needs_compiler
def test_a_library_is_opened_without_a_compiler_and_without_numba(
    nervecord_cli: Any, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("compile", files / "ant.nir", "--target", "c", "--shared", "policy.so", "-o", "ant.nervecord", "--json")
    assert nervecord_cli(*words).json["shared"] == "policy.so"
    rows = np.random.default_rng(0).normal(size=(8, 27)).astype(np.float32).astype(np.float64)
    with nervecord.open("ant.nervecord", engine="emulator") as session:
        expected = np.array([session.step(row) for row in rows])
    (tmp_path / "empty").mkdir()
    process = subprocess.run(
        [sys.executable, "-c", ROBOT, json.dumps(rows.tolist())],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PATH": str(tmp_path / "empty")},
    )
    assert process.returncode == 0, process.stderr
    engine, actions, _ = json.loads(process.stdout)
    assert engine == "c"
    # The engine c takes and gives float32.
    np.testing.assert_array_equal(np.float32(actions), np.float32(expected))


@needs_compiler
def test_the_library_of_another_program_is_refused(
    nervecord_cli: Any, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, bits in (("a", 8), ("b", 4)):
        words = ("compile", files / "pendulum.nir", "--target", "c", "--weight-bits", bits, "-o", f"{name}.nervecord")
        assert nervecord_cli(*words, "--shared", f"{name}.so").code == 0
    run = ("run", "a.nervecord", "--episodes", 1)
    assert nervecord_cli(*run, "--library", "a.so", "--json").json["engine"] == "c"
    nervecord_cli(*run, "--library", "b.so").refused("b.so: is no library of this program", "--shared FILE")
    (tmp_path / "c.so").write_bytes(b"no library")
    nervecord_cli(*run, "--library", "c.so").refused("c.so: ", "opened")
    nervecord_cli(*run, "--library", "none.so").refused("none.so: ")
    os.mkfifo(tmp_path / "pipe.so")
    nervecord_cli(*run, "--library", "pipe.so").refused("pipe.so: ")
    nervecord_cli(*run, "--library", "a.so", "--engine", "emulator").refused("library: ", "engine c")
    nervecord_cli("compile", files / "ant.nir", "--shared", "x/y.so").refused("--shared: ", " x ")


@pytest.mark.slow
def test_a_cache_is_made_to_be_shipped(tmp_path: Path) -> None:
    """In a folder that is read-only where it is used, beside a home that is none."""
    folder = tmp_path / "cache"
    words = [sys.executable, "-m", "nervecord", "warmup", "--to", str(folder), "--json"]
    process = subprocess.run(words, capture_output=True, text=True, timeout=600, check=True)
    counts = json.loads(process.stdout)
    assert counts["compiled"] > 0
    assert Path(counts["folder"]).is_relative_to(folder)
    code = "from nervecord.targets.warmup import warmup; found = warmup(); print(found.compiled, found.found)"
    words = [sys.executable, "-W", "error", "-c", code]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write anywhere, and setpriv is not here to take that away")
        capabilities = "-dac_override,-dac_read_search"
        words = ["setpriv", f"--bounding-set={capabilities}", f"--inh-caps={capabilities}", *words]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    for each in (Path(counts["folder"]), folder):
        each.chmod(0o555)
    try:
        again = subprocess.run(words, capture_output=True, text=True, timeout=600, env=environment)
    finally:
        for each in (folder, Path(counts["folder"])):
            each.chmod(0o755)
    assert again.returncode == 0, again.stderr
    assert again.stdout.split()[0] == "0"
