"""Writers that are killed: what they leave is removed by who writes into the folder next, and nothing else is."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nervecord.compiler.files.atomic import remove_leftovers, write_atomically
from nervecord.errors import NervecordError

KILLED_BETWEEN_WRITE_AND_RENAME = """
import os, signal
from nervecord.compiler.files import atomic
atomic.os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
atomic.write_atomically("file", b"new")
"""


def test_a_writer_that_is_killed_leaves_the_old_file_and_its_draft_goes_at_the_next_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    process = subprocess.run([sys.executable, "-c", KILLED_BETWEEN_WRITE_AND_RENAME], cwd=tmp_path, timeout=60)
    assert process.returncode == -signal.SIGKILL
    names = sorted(os.listdir(tmp_path))
    assert len(names) == 2, names
    assert (tmp_path / "file").read_bytes() == b"old"
    write_atomically(tmp_path / "another", b"x")
    assert sorted(os.listdir(tmp_path)) == ["another", "file"]


def test_what_others_write_or_have_named_stays(tmp_path: Path) -> None:
    names = [".x.0123456789abcdef.tmp", "x.0123456789abcdef.nervecord-tmp", ".x.0123.nervecord-tmp", ".x.nervecord-tmp"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / ".folder.0123456789abcdef.nervecord-tmp").mkdir()
    (tmp_path / ".link.0123456789abcdef.nervecord-tmp").symlink_to(tmp_path / names[0])
    (tmp_path / ".dead.0123456789abcdef.nervecord-tmp").touch()
    code = "import sys, time\nfrom nervecord.compiler.files.atomic import _opened\nfrom pathlib import Path\n"
    code += "print(_opened(Path('held'))[0].name, flush=True)\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        line = writer.stdout.readline().strip()
        remove_leftovers(tmp_path)
        assert line in os.listdir(tmp_path)
        assert set(names) < set(os.listdir(tmp_path))
        assert ".dead.0123456789abcdef.nervecord-tmp" not in os.listdir(tmp_path)
        assert ".folder.0123456789abcdef.nervecord-tmp" in os.listdir(tmp_path)
        assert ".link.0123456789abcdef.nervecord-tmp" in os.listdir(tmp_path)
        writer.kill()
        writer.wait()
    remove_leftovers(tmp_path)
    assert line not in os.listdir(tmp_path)


def test_writers_of_one_file_do_not_take_each_others_drafts(tmp_path: Path) -> None:
    """Each removes what nobody holds before it writes: none may find its own gone."""
    failures: list[BaseException] = []

    def write(value: bytes) -> None:
        try:
            for _ in range(100):
                write_atomically(tmp_path / "file", value * 1000)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(bytes([65 + k]),)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert os.listdir(tmp_path) == ["file"]
    assert len(set((tmp_path / "file").read_bytes())) == 1


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "x" * 300, "/dev/null/x", "none/x"])
def test_names_that_no_file_can_have(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NervecordError, match="cannot be written"):
        write_atomically(path, b"")
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """By the limit on the size of files, which the kernel tells as it tells a full disk: the write fails half way."""
    (tmp_path / "file").write_bytes(b"old")
    code = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from nervecord.compiler.files.atomic import write_atomically\n"
        "write_atomically('file', b'new' * 1000)\n"
    )
    process = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert re.search("NervecordError: file: .*File too large", process.stderr)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_listed_is_written_into_all_the_same(tmp_path: Path) -> None:
    with contextlib.suppress(PermissionError):
        remove_leftovers(tmp_path / "none")
    write_atomically(tmp_path / "file", b"x")
    assert os.listdir(tmp_path) == ["file"]
