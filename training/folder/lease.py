"""Exclusive holds that the operating system keeps: they end with the process, however it ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from nervecord.errors import NervecordError


class Lease:
    """A lock on a file.

    Args:
        path: of the file; it is made where it does not exist.
        wait: wait until the lease can be had; else `held` says whether it could.
        keep: leave the file when the lease ends.

    Raises:
        NervecordError: the file cannot be made, or its file system keeps no locks.
    """

    def __init__(self, path: Path, *, wait: bool, keep: bool = True) -> None:
        self.held = False
        self._path, self._keep = path, keep
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while not self._take(wait=wait):
                pass
        except OSError as error:
            raise NervecordError(f"cannot be made: {error.strerror}", where=str(path)) from None

    def _take(self, *, wait: bool) -> bool:
        """Try once; False where the file went away meanwhile, and a lock on it would keep nobody out."""
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            os.close(self._file)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return True
            raise NervecordError(
                f"cannot be locked: {error.strerror}",
                where=str(self._path),
                hint="the study's folder must lie on a file system that keeps locks",
            ) from None
        except BaseException:
            os.close(self._file)
            raise
        self.held = self._is_named()
        if not self.held:
            os.close(self._file)
        return self.held

    def _is_named(self) -> bool:
        """Whether the file that is open is the one that others find under the name."""
        try:
            named, ours = os.stat(self._path), os.fstat(self._file)
        except FileNotFoundError:
            return False
        return (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)

    def release(self) -> None:
        """End the hold; nothing happens where there is none."""
        if self.held:
            self.held = False
            if not self._keep and self._is_named():
                # While it is held: after that it may be another's.
                with contextlib.suppress(OSError):
                    self._path.unlink()
            os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
