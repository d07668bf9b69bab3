"""Writing files so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from nervecord.errors import NervecordError, escaped


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to a temporary name beside `path`, sync it, and rename it.

    Raises:
        NervecordError: the folder does not exist or cannot be written.
    """
    where = escaped(os.fspath(path))
    target = Path(path)
    # Made with the rights that the user's umask leaves; asking for the umask would change it for all threads.
    temporary = target.parent / f".{target.name[:32]}.{secrets.token_hex(8)}.tmp"
    try:
        if target.is_dir():
            raise NervecordError("is a folder, a file name is needed", where=where)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NervecordError(f"cannot be written: {reason}", where=where, hint="does the folder exist?") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise NervecordError(f"cannot be written: {error.strerror}", where=where) from None
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def made_folder(path: str | os.PathLike[str]) -> Path:
    """The folder, made if it does not exist.

    Raises:
        NervecordError: it is a file, or cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NervecordError(f"cannot be made: {reason}", where=escaped(os.fspath(path))) from None
    return folder


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
