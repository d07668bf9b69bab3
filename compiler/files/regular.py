"""Opening a file that somebody named: a regular one, no larger than allowed, and nothing that could be waited for."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from nervecord.errors import FileFormatError


def open_regular(path: str | os.PathLike[str], where: str, most: int, kind: str) -> BinaryIO:
    """The file, opened for reading in binary.

    Args:
        path: of the file. where: its name in messages. most: bytes. kind: what it should be, for messages.

    Raises:
        FileFormatError: it is missing, unreadable, a folder, a pipe, a device, or larger.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise FileFormatError("does not exist", where=where) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileFormatError(f"cannot be read: {reason}", where=where) from None
    status = os.fstat(descriptor)
    wrong = ""
    if stat.S_ISDIR(status.st_mode):
        wrong = f"is a folder, not a {kind}"
    elif not stat.S_ISREG(status.st_mode):
        wrong = "is no regular file"
    elif status.st_size > most:
        wrong = f"has {status.st_size} bytes, at most {most} are read"
    if wrong:
        os.close(descriptor)
        raise FileFormatError(wrong, where=where)
    return os.fdopen(descriptor, "rb")


def read_text(path: str | os.PathLike[str], where: str, most: int, kind: str) -> str:
    """The text of such a file, UTF-8.

    Raises:
        FileFormatError: see `open_regular`; or it is no text.
    """
    with open_regular(path, where, most, kind) as file:
        try:
            return file.read().decode()
        except UnicodeDecodeError as error:
            raise FileFormatError(f"is no text: {error.reason} at byte {error.start}", where=where) from None
        except OSError as error:
            raise FileFormatError(f"cannot be read: {error.strerror or error}", where=where) from None
