"""A process that waits for our end, whatever it is, and then ends what we started and removes what it wrote.

For what others start on our behalf, as Ray its servers and agents: we hold none of those processes, and after a SIGKILL
of ours they find out in their own time, or never. What is started inside `guarded` inherits a mark in its environment,
by which it is found. A `runtime.worker.parent` has a guardian of its own, which also speaks for it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from nervecord.runtime.worker.child import WATCH_PERIOD, end, marked

MARK = "NERVECORD_GUARDED"
"""Environment variable that whatever is started inside of `guarded` inherits."""
LONGEST = 10.0
"""Seconds the guardian takes at most, until what it has killed is gone."""
QUIET = 1.0
"""Seconds in which none is found any more, until it leaves."""


@contextlib.contextmanager
def guarded(folders: Sequence[Path] = ()) -> Iterator[None]:
    """What is started within, also by what is started within, has ended with the block, or with this process.

    Args:
        folders: removed then.

    On systems without /proc only the folders are seen to. A process that overwrites its environment is not found, as
    setproctitle does where SPT_NOENV is not set.
    """
    token = f"{os.getpid():x}-{secrets.token_hex(6)}"
    life_child, life = os.pipe()
    command = [sys.executable, "-P", "-m", "nervecord.runtime.worker.guard", str(life_child), str(os.getpid()), token]
    try:
        # A session of its own: what ends our process group, as Ctrl-C does, must leave it.
        guardian = subprocess.Popen(
            [*command, *(str(folder.absolute()) for folder in folders)],
            pass_fds=(life_child,),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
    except BaseException:
        os.close(life)
        raise
    finally:
        os.close(life_child)
    former = os.environ.get(MARK)
    os.environ[MARK] = token
    try:
        yield
    finally:
        if former is None:
            del os.environ[MARK]
        else:
            os.environ[MARK] = former
        with contextlib.suppress(BrokenPipeError):  # somebody has killed it
            # A byte, because forks of ours that hold the same pipe keep it from ending.
            os.write(life, b"q")
        os.close(life)
        # One that takes longer goes on without us: nothing here depends on it any more.
        with contextlib.suppress(subprocess.TimeoutExpired):
            guardian.wait(LONGEST + 2 * WATCH_PERIOD)


def main(arguments: list[str]) -> None:
    """The guardian. Arguments: descriptor of the pipe that ends with the parent, the parent, the mark, folders."""
    life, parent, token = int(arguments[0]), int(arguments[1]), arguments[2]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # it leaves with its parent, not before
        signal.signal(number, signal.SIG_IGN)
    # The parent's own forks may hold the other end open, so its process number is looked at as well.
    while os.getppid() == parent and not select.select([life], [], [], WATCH_PERIOD)[0]:
        pass
    deadline = time.monotonic() + LONGEST
    last = time.monotonic()
    # Not only once: what just becomes another program shows no environment at that moment.
    while time.monotonic() < min(last + QUIET, deadline):
        for pid in marked(token, MARK):
            end(os.kill, pid)
            last = time.monotonic()
        time.sleep(0.01)
    for folder in arguments[3:]:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
