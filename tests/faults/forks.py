"""Processes that can be killed cheaply: forks of this one, which has imported everything, that run a command line.

Each has a session, a working folder and a folder for temporary files of its own, so that whatever it leaves is found,
and a mark in its environment, by which everything that it starts is known.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MARK = "NERVECORD_FAULTS"
"""The environment variable; its value is the process's number and the campaign's."""
SETTLE = 60.0
"""Seconds until what a killed process has started must be gone. Ray's processes ask now and then whether it lives."""


@dataclass
class Fork:
    """A process that runs something.

    Args:
        pid: of the process. token: its mark. start_time: seconds on the monotonic clock. log: what it says.
    """

    pid: int
    token: str
    start_time: float
    log: Path
    code: int | None = None
    seconds: float = 0.0
    """From its beginning to its end, once it has ended."""
    hung: bool = False
    """Whether it was killed because it took longer than it may."""

    def ended(self) -> bool:
        """Whether it has ended; its exit code is in `code` then, negative for a signal."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                self.seconds = time.monotonic() - self.start_time
        return self.code is not None

    def wait(self, seconds: float) -> int:
        """Its exit code; killed where it takes longer, which is -9."""
        deadline = time.monotonic() + seconds
        while not self.ended() and time.monotonic() < deadline:
            time.sleep(0.005)
        self.hung = not self.ended()
        return self.kill()

    def kill(self) -> int:
        """SIGKILL it, and nothing that it has started; its exit code."""
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
            self.code = os.waitstatus_to_exitcode(status)
        assert self.code is not None
        return self.code

    def started(self) -> list[int]:
        """Living processes that it has started, itself not among them, oldest first."""
        return [pid for pid in marked(self.token) if pid != self.pid]

    def survivors(self, seconds: float = SETTLE) -> list[str]:
        """Command lines of what still runs after so many seconds; it is ended here, so that the next case is alone."""
        deadline = time.monotonic() + seconds
        while (pids := self.started()) and time.monotonic() < deadline:
            time.sleep(0.02)
        commands = []
        for pid in pids:
            try:
                commands.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:120])
                os.kill(pid, signal.SIGKILL)
            except (OSError, ProcessLookupError):
                continue
        return commands


def start(work: Callable[[], int], folder: Path) -> Fork:
    """A fork that runs `work`, whose value is its exit code.

    Args:
        work: in the fork.
        folder: `cwd`, its working folder, and `tmp`, that of its temporary files, are made there where they are not.
    """
    for name in ("cwd", "tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    log, token = folder / "log", f"{os.getpid():x}-{os.urandom(6).hex()}"
    log.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    start_time = time.monotonic()
    pid = os.fork()
    if pid:
        return Fork(pid, token, start_time, log)
    code = 70
    try:
        os.setsid()
        log_file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log_file, 1)
        os.dup2(log_file, 2)
        os.chdir(folder / "cwd")
        tempfile.tempdir = None
        os.environ |= {MARK: token, "TMPDIR": str(folder / "tmp"), "RAY_TMPDIR": str(folder / "tmp")}
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = work()
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # nothing of the campaign's own may run twice


def output(work: Callable[[], int], folder: Path) -> tuple[int, str]:
    """(exit code, what it said on both streams) of a fork that runs `work` to its end, in `folder`."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            text = stream.read().decode(errors="replace")
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text
    code = 70
    try:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        # Those of the campaign remember what kind of file they wrote to.
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        os.chdir(folder)
        code = work()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def marked(token: str) -> list[int]:
    """Living processes whose environment began with this mark.

    The environment in /proc is that at the start of a program: a fork that has not become another program shows its
    parent's, so the fork itself is not found, and what it has started is.
    """
    mark = f"{MARK}={token}".encode()
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    pids.append(int(entry.name))
            except OSError:  # gone meanwhile
                continue
    return sorted(pids)
