"""A line on stderr while numba compiles the emulator: half a minute in which nothing else would be seen."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

SECONDS = 1.5
"""Between two looks; what compiles in less is not worth a line."""


@contextlib.contextmanager
def announced(*, quiet: bool, seconds: float | None = None) -> Iterator[None]:
    """Says once on stderr that numba compiles, if it is seen to do so twice running; `quiet` never.

    Args:
        seconds: between two looks, in place of `SECONDS`.
    """
    if quiet:
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_watch, args=(done, SECONDS if seconds is None else seconds), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _watch(done: threading.Event, seconds: float) -> None:
    seen = 0
    while seen < 2:
        if done.wait(seconds):
            return
        seen = seen + 1 if _compiles() else 0
    print(
        "compiling the emulator, which takes half a minute, once (nervecord warmup does it beforehand)",
        file=sys.stderr,
        flush=True,
    )


def _compiles() -> bool:
    """Whether another thread has numba compile now. Its lock does not say so; it can be tried."""
    module: Any = sys.modules.get("numba.core.compiler_lock")
    lock = getattr(getattr(module, "global_compiler_lock", None), "_lock", None)
    if lock is None:
        return False
    if lock.acquire(blocking=False):
        lock.release()
        return False
    return True
