"""What others start on our behalf ends with us, whatever ends us."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nervecord.runtime.worker.child import runs
from nervecord.runtime.worker.guard import MARK, guarded

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")
STARTS = """
import subprocess, sys
from pathlib import Path
from nervecord.runtime.worker.guard import guarded
with guarded([Path(sys.argv[1])]):
    # A daemon: of another session, and its parent has gone.
    subprocess.run(["sh", "-c", "setsid sleep 60 & echo $!"], stdin=subprocess.DEVNULL)
    sys.stdin.readline()
"""


def awaited_end(pid: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not runs(pid)


def guardian_of(token: str) -> int | None:
    for entry in Path("/proc").iterdir():
        # Whoever ends just now has no command line any more.
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and token.encode() in (entry / "cmdline").read_bytes():
                return int(entry.name)
    return None


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
def test_what_was_started_ends_with_us(number: int | None, tmp_path: Path) -> None:
    folder = tmp_path / "session"
    folder.mkdir()
    (folder / "log").touch()
    own = subprocess.Popen(
        [sys.executable, "-c", STARTS, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    with own:
        assert own.stdout is not None
        daemon = int(own.stdout.readline())
        assert runs(daemon)
        if number is None:
            own.communicate("end\n")
        else:
            os.killpg(own.pid, number)
            own.wait()
    assert awaited_end(daemon)
    deadline = time.monotonic() + 10
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not folder.exists()


def test_a_dead_guardian_does_no_harm(tmp_path: Path) -> None:
    before = os.environ.get(MARK)
    with guarded([tmp_path]):
        assert os.environ[MARK] != before
        deadline = time.monotonic() + 10
        # Until it has become another program, it has another's command line.
        while (guardian := guardian_of(os.environ[MARK])) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert guardian is not None
        os.kill(guardian, signal.SIGKILL)
    assert os.environ.get(MARK) == before
    assert tmp_path.exists()


def test_what_was_started_before_and_beside_stays() -> None:
    with subprocess.Popen(["sleep", "60"]) as beside:
        with guarded():
            pass
        assert beside.poll() is None
        beside.kill()
