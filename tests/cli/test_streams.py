"""Streams that are closed, full, or lack a letter; words that look like flags; numbers beyond all bounds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from examples import some
from policies import RECORDED

from nervecord.cli.streams import HANDLER, prepare

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")


def shell(line: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line for the shell that begins with `nervecord`."""
    line = f"{sys.executable} -m {line}"
    return subprocess.run(
        ["sh", "-c", line], cwd=cwd, capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )


@needs_full
@pytest.mark.parametrize("words", some(["targets", "--help", "targets --json", "train --help", "--version --json"], 2))
def test_a_disk_that_is_full(words: str, tmp_path: Path) -> None:
    process = shell(f"nervecord {words} > /dev/full", tmp_path)
    assert process.returncode == 2
    assert re.search(r"stdout: .* space .*\n$", process.stderr)
    assert process.stderr.count("\n") == 1


@needs_full
def test_a_table_for_a_disk_that_is_full(files: Path, tmp_path: Path) -> None:
    process = shell(f"nervecord inspect {files / 'ant.nir'} > /dev/full", tmp_path)
    assert (process.returncode, process.stderr.count("\n")) == (2, 1)
    assert re.search(r"stdout: .* space .*\n$", process.stderr)


@needs_full
def test_an_error_for_a_disk_that_is_full(tmp_path: Path) -> None:
    process = shell("nervecord targets fly --json > /dev/full", tmp_path)
    assert process.returncode == 2
    assert process.stderr.startswith("nervecord targets: unknown target 'fly'")
    assert process.stderr.count("\n") == 1


@needs_full
def test_a_stderr_that_is_full_changes_no_exit_code(tmp_path: Path) -> None:
    assert shell("nervecord inspect none.nir 2> /dev/full", tmp_path).returncode == 2


@needs_full
def test_a_result_file_that_is_a_device_is_refused(nervecord_cli: Any, files: Path) -> None:
    nervecord_cli("compile", files / "ant.nir", "-o", FULL).refused("--output: /dev/full is no ordinary file")


@pytest.mark.parametrize("closed", some([">&- 2>&-", ">&-", "2>&-"], 1))
def test_streams_that_are_closed(closed: str, tmp_path: Path) -> None:
    """A result that has nowhere to go is an error, as on a disk that is full."""
    process = shell(f"nervecord targets {closed}", tmp_path)
    assert process.returncode == (0 if closed == "2>&-" else 2)
    assert ("reference" in process.stdout) == (closed == "2>&-")
    assert process.stderr == ("nervecord targets: stdout: cannot be written: it is closed\n" if closed == ">&-" else "")
    quiet = shell(f"nervecord inspect none.nir {closed}", tmp_path)
    assert quiet.returncode == 2


@pytest.mark.long
def test_a_terminal_that_has_only_ascii(files: Path, tmp_path: Path) -> None:
    line = f"nervecord run {files / 'pendulum.nervecord'} --episodes 3 --quiet"
    process = shell(line, tmp_path, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (process.returncode, process.stderr) == (0, "")
    assert " +/- " in process.stdout
    assert process.stdout.isascii()


def test_letters_that_nobody_thought_of_are_written_by_number() -> None:
    prepare()
    assert "3 ± 1 µs, ж".encode("ascii", HANDLER) == b"3 +/- 1 us, \\u0436"


def test_a_file_that_begins_like_a_flag(nervecord_cli: Any, files: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "-x.nir").write_bytes((files / "ant.nir").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert nervecord_cli("compile", "--target", "lava", "--", "-x.nir").code == 0
    answer = nervecord_cli("compile", "--", "-x.nir", "--target", "lava")
    answer.refused("'--target' stands after --, ", "(put flags before --)")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("--episodes 1e400", ("--episodes: ", "'1e400'")),
        ("--episodes nan", ("--episodes: ", "'nan'")),
        ("--num-envs=-inf", ("--num-envs: ", "'-inf'")),
        ("--seed -1", ("seed: is -1, ",)),
    ],
)
def test_numbers_beyond_all_bounds(words: str, parts: tuple[str, ...], nervecord_cli: Any, files: Path) -> None:
    nervecord_cli("run", files / "pendulum.nervecord", *words.split()).refused(*parts)


# --------------------------------------------------------------------------------------------------------------------
# A run folder in the place of its policy


def test_a_run_folder_wherever_a_policy_is_taken(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "policy.nir").write_bytes((files / "ant.nir").read_bytes())
    program = tmp_path / "ant.nervecord"
    assert nervecord_cli("compile", run, "-o", program).code == 0
    assert program.read_bytes() == (files / "ant.nervecord").read_bytes()
    assert nervecord_cli("inspect", run, "--target", "lava").code == 0
    assert nervecord_cli("compare", run, program, "--json").json["observations"] == RECORDED
    assert nervecord_cli("run", run, "--episodes", 1, "--json").json["target"] == "reference"
    assert nervecord_cli("simulate", run, "--input", files / "rows.npz").code == 0


@pytest.mark.parametrize("verb", ["compile", "run", "inspect"])
def test_a_folder_without_a_policy(verb: str, nervecord_cli: Any, tmp_path: Path) -> None:
    nervecord_cli(verb, tmp_path).refused(f"{tmp_path}: ", "policy.nir")
