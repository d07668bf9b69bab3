"""Writing files so that a crash leaves the old one or the new one, never half of one.

What is written first stands beside its place under a name of its own and is locked while its writer lives. Whoever
writes into the same folder later removes those that nobody holds: a process that is killed cannot clean up.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path

from nervecord.errors import NervecordError, escaped

_LEFTOVER = re.compile(r"\..{0,32}\.[0-9a-f]{16}\.nervecord-tmp", re.DOTALL)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to a temporary name beside `path`, sync it, and rename it.

    A link is followed, and a file that is there keeps its mode, as with cp.

    Raises:
        NervecordError: the folder does not exist or cannot be written, or it is something else than a file.
    """
    where = escaped(os.fspath(path))
    target = Path(path)
    try:
        target = Path(os.path.realpath(target)) if target.is_symlink() else target
        mode = _mode(target)
        if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise NervecordError("is no regular file", where=where, hint="name a file")
        if target.is_dir():
            raise NervecordError("is a folder, a file name is needed", where=where)
        remove_leftovers(target.parent)
        temporary, handle = _opened(target)
    except (OSError, ValueError) as error:
        if isinstance(error, NervecordError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise NervecordError(f"cannot be written: {reason}", where=where, hint="does the folder exist?") from None
    try:
        with os.fdopen(handle, "wb") as file:
            if mode is not None and hasattr(os, "fchmod"):
                with contextlib.suppress(OSError):
                    os.fchmod(file.fileno(), stat.S_IMODE(mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, target)
    except OSError as error:
        raise NervecordError(f"cannot be written: {error.strerror}", where=where) from None
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _mode(target: Path) -> int | None:
    """Of what is there; None where nothing is."""
    try:
        return os.stat(target).st_mode
    except FileNotFoundError:
        return None


def _opened(target: Path) -> tuple[Path, int]:
    """A new file beside `target`, open and locked."""
    while True:
        # Made with the rights that the user's umask leaves; asking for the umask would change it for all threads.
        temporary = target.parent / f".{target.name[:32]}.{secrets.token_hex(8)}.nervecord-tmp"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        lock(handle, wait=True)
        # Between the two calls another process may have taken it for one that nobody holds.
        if os.fstat(handle).st_nlink:
            return temporary, handle
        os.close(handle)


def lock(handle: int, *, wait: bool) -> bool:
    """Lock an open file for this process; whether that was possible. It ends with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # held, or the file system keeps no locks
        return False
    return True


def remove_leftovers(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder; what cannot be removed stays."""
    with contextlib.suppress(OSError, ValueError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.endswith(".nervecord-tmp") or not _LEFTOVER.fullmatch(entry.name):
                continue
            with contextlib.suppress(OSError):
                handle = os.open(entry.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
                try:
                    if lock(handle, wait=False):
                        os.unlink(entry.path)
                finally:
                    os.close(handle)


def made_folder(path: str | os.PathLike[str]) -> Path:
    """The folder, made if it does not exist.

    Raises:
        NervecordError: it is a file, or cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, RecursionError) as error:
        reason = "too many folders in folders" if isinstance(error, RecursionError) else error
        reason = getattr(error, "strerror", None) or reason
        raise NervecordError(f"cannot be made: {reason}", where=escaped(os.fspath(path))) from None
    return folder


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    # Not every file system syncs folders, and the file is there.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
