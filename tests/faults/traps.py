"""Chosen moments: a process kills itself between a write and its rename, or between a metrics row and its checkpoint.

What is caught are calls of the standard library and of the package, counted; at the chosen one the process gets a
SIGKILL, which nothing of it can notice.
"""

from __future__ import annotations

import os
import pathlib
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

from nervecord.compiler.files import atomic

TRAPS = ("half written", "before its rename", "after its rename", "before a folder's rename", "after a folder's rename")
TRAINING = ("before its row", "behind its row", "before its checkpoint", "after its checkpoint")


def die() -> NoReturn:
    """SIGKILL this process."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a process outlived its SIGKILL")


def set_traps(moment: tuple[str, int] | None) -> Counter[str]:
    """Catch what can be caught in this process, for as long as it lives.

    Args:
        moment: (trap, number of the call) at which it dies; None only counts.

    Returns:
        Calls by trap so far.
    """
    calls: Counter[str] = Counter()

    def passing(trap: str) -> bool:
        calls[trap] += 1
        return moment == (trap, calls[trap])

    def around(owner: Any, name: str, before: str, after: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if passing(before):
                die()
            value = real(*args, **kwargs)
            if passing(after):
                die()
            return value

        setattr(owner, name, call)

    around(os, "replace", "before its rename", "after its rename")
    around(pathlib.Path, "rename", "before a folder's rename", "after a folder's rename")
    _halve(passing)
    try:
        from nervecord.training.folder import checkpoint, run_folder
    except ImportError:  # a compiler needs no torch
        return calls
    around(run_folder.Metrics, "write", "before its row", "behind its row")
    around(checkpoint, "save", "before its checkpoint", "after its checkpoint")
    return calls


def _halve(passing: Callable[[str], bool]) -> None:
    """Die when half of a file's bytes have been written."""
    real = os.fdopen

    class Halved:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> Halved:
            return self

        def __exit__(self, *args: Any) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            if passing("half written"):
                self.file.write(data[: len(data) // 2])
                self.file.flush()
                die()
            return int(self.file.write(data))

    class Os:
        """The module os, whose fdopen opens files that can die."""

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def fdopen(self, handle: int, mode: str) -> Halved:
            return Halved(real(handle, mode))

    atomic.os = Os()  # type: ignore[assignment]
