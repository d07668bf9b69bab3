"""Folders for what nobody needs afterwards: gone with the block, and after a kill with the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nervecord.compiler.files.scratch import scratch_folder

KILLED = """
import os, signal, sys
from nervecord.compiler.files.scratch import scratch_folder
with scratch_folder(sys.argv[1], hidden=True) as folder:
    (folder / "file").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_goes_with_its_block(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "inner").mkdir()
    assert os.listdir(tmp_path) == []
    with pytest.raises(FileNotFoundError), scratch_folder(tmp_path / "none"):
        pass


def test_what_a_killed_process_left_goes_with_the_next_and_nothing_else(tmp_path: Path) -> None:
    process = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=60, check=False)
    assert process.returncode == -signal.SIGKILL
    (orphan,) = os.listdir(tmp_path)
    names = ["nvc-x", "nvc-0123456", "nvc-01234567.bak", "mine"]
    for name in names:
        (tmp_path / name).mkdir()
    # A name that somebody else may have: a date.
    (tmp_path / "nvc-20250131").mkdir()
    (tmp_path / "nvc-20250131" / "thesis.txt").touch()
    names.append("nvc-20250131")
    (tmp_path / "nvc-01234567").symlink_to("mine")
    with scratch_folder(tmp_path) as folder, scratch_folder(tmp_path) as other:
        assert folder.exists()
        assert orphan not in os.listdir(tmp_path)
        assert (tmp_path / "nvc-20250131" / "thesis.txt").exists()
        assert sorted(os.listdir(tmp_path)) == sorted([*names, "nvc-01234567", folder.name, other.name])
