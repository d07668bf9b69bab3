"""Writing files so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from nervecord.errors import NervecordError


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to a temporary name beside `path`, sync it, and rename it.

    Raises:
        NervecordError: the folder does not exist or cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise NervecordError("is a folder, a file name is needed", where=str(path))
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    except OSError as error:
        raise NervecordError(
            f"cannot be written: {error.strerror}", where=str(path), hint="does the folder exist?"
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; a result is as readable as the user's umask says.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except OSError as error:
        raise NervecordError(f"cannot be written: {error.strerror}", where=str(path)) from None
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    _sync_folder(target.parent)


def made_folder(path: str | os.PathLike[str]) -> Path:
    """The folder, made if it does not exist.

    Raises:
        NervecordError: it is a file, or cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NervecordError(f"cannot be made: {error.strerror}", where=str(path)) from None
    return folder


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
