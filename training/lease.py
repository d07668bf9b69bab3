"""Exclusive holds that the operating system keeps: they end with the process, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from nervecord.errors import NervecordError


class Lease:
    """A lock on a file. The file stays when the lease ends, as another process may be waiting for it.

    Args:
        path: of the file; it is made where it does not exist.
        wait: wait until the lease can be had; else `held` says whether it could.

    Raises:
        NervecordError: the file cannot be made, or its file system keeps no locks.
    """

    def __init__(self, path: Path, *, wait: bool) -> None:
        self.held = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise NervecordError(f"cannot be made: {error.strerror}", where=str(path)) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            self.held = True
        except OSError as error:
            os.close(self._file)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return
            raise NervecordError(
                f"cannot be locked: {error.strerror}",
                where=str(path),
                hint="the study's folder must lie on a file system that keeps locks",
            ) from None
        except BaseException:
            os.close(self._file)
            raise

    def release(self) -> None:
        """End the hold; nothing happens where there is none."""
        if self.held:
            self.held = False
            os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
