"""What stdout and stderr can be: closed, full, or of an encoding that lacks a letter. No result is lost to a letter."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from typing import TextIO

from nervecord.errors import NervecordError

PLAIN = {
    "±": "+/-",
    "µ": "u",
    "…": "...",
    "·": "*",
    "×": "x",
    "–": "-",
    "—": "-",
    "≤": "<=",
    "≥": ">=",
    "→": "->",
    "━": "-",
    "╸": "-",
    "╺": "-",
    "─": "-",
    "’": "'",
    "“": '"',
    "”": '"',
}
"""Letters of ours -> what stands for them where there are only ASCII's."""
HANDLER = "nervecord-plain"


def prepare() -> None:
    """Make both streams take every letter; a stderr that was closed takes everything and keeps nothing."""
    codecs.register_error(HANDLER, _plain)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None and name == "stdout":
            sys.stdout = _Closed()  # type: ignore[assignment]
        elif stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 -- open as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=HANDLER)


class _Closed(io.TextIOBase):
    """A stdout that was closed: a result that cannot be given is no success, as on a disk that is full."""

    encoding = "utf-8"

    def write(self, text: str, /) -> int:
        if text:
            raise OSError(errno.EBADF, "it is closed")
        return 0


def _plain(error: UnicodeError) -> tuple[str, int]:
    """A letter that the stream's encoding lacks, in words of ASCII."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(PLAIN.get(letter) or ascii(letter)[1:-1] for letter in letters), error.end


def say(text: str) -> None:
    """Print a result, all of it, now.

    Raises:
        BrokenPipeError: its reader went away.
        NervecordError: it cannot be written, as to a disk that is full.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        discard(sys.stdout)
        raise NervecordError(f"cannot be written: {error.strerror}", where="stdout") from None


def complain(text: str) -> None:
    """Print what went wrong, where stderr takes it; the exit code says it in any case."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Send what is still to be written nowhere; Python would try it once more at exit, and complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
