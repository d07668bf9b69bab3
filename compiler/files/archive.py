"""The entries of a zip archive that nobody vouches for: few, not encrypted, no larger than allowed, each read once.

Python's own reader believes the directory: how long it is, how large entries become, which methods they need. Here the
end of the archive is looked at first, and nothing is unpacked beyond what was allowed.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from nervecord.compiler import schema
from nervecord.errors import FileFormatError, NervecordError

_END = struct.Struct("<4s4H2LH")
"""The end of an archive without a comment: signature, disks, entries (twice), size and place of its directory."""
_END64 = 20
"""Bytes in front of it, where an archive of the larger form says so."""
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_CHUNK = 1 << 20


def ending(file: BinaryIO) -> tuple[int, int] | None:
    """(entries, bytes of the directory) as the archive's end says; None where there is no such end.

    An archive with a comment has none, nor one of the larger form (zip64), which would be read in place of it.
    """
    file.seek(max(os.fstat(file.fileno()).st_size - _END.size - _END64, 0))
    tail = file.read()
    if not tail[-_END.size :].startswith(b"PK\5\6") or len(tail) < _END.size or b"PK\6\7" in tail:
        return None
    *_, entries, directory, _, _ = _END.unpack(tail[-_END.size :])
    return entries, directory


def unpacked(
    file: BinaryIO,
    where: str,
    *,
    most_entries: int,
    most_bytes: int,
    kind: str,
    hint: str,
    look: Callable[[str, bytes, int], None],
) -> Iterator[tuple[str, bytes]]:
    """(name, content) of an archive's entries, in its order.

    Args:
        file: open for reading. where: its name in messages.
        most_entries: and `most_bytes` of all of them unpacked; one with more is refused.
        kind: what the file should be, for messages. hint: how to get one.
        look: (name, first bytes, at most 1 MiB, and size of an entry), before more of it is unpacked; may refuse it.

    Raises:
        FileFormatError: it is no archive, damaged, encrypted, packed by another method than deflate, or too large.
    """
    end = ending(file)
    if end is None:
        raise FileFormatError(f"is no {kind}, or a damaged one", where=where, hint=hint)
    entries, directory = end
    # 46 bytes and a name of at most 64 KiB each; Python makes an object of every one before it can be asked.
    if entries > most_entries or directory > most_entries * 512:
        raise FileFormatError(
            f"holds {entries} entries in a directory of {directory} bytes, at most {most_entries} are read",
            where=where,
            hint=hint,
        )
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            if any(info.flag_bits & 0x61 or info.compress_type not in METHODS for info in infos):
                raise FileFormatError(
                    "has entries that are encrypted, or packed by other methods than deflate", where=where, hint=hint
                )
            size = sum(info.file_size for info in infos)
            if size > most_bytes:
                raise FileFormatError(f"unpacks to {size} bytes, at most {most_bytes} are read", where=where)
            for info in infos:
                with archive.open(info) as entry:
                    start = entry.read(min(_CHUNK, info.file_size))
                    look(info.filename, start, info.file_size)
                    yield info.filename, _content(entry, start, info.file_size, where)
    except NervecordError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        OSError,
        RuntimeError,
        ValueError,
        OverflowError,
    ) as error:
        raise FileFormatError(
            f"is no {kind}, or a damaged one ({schema.printable(str(error))})", where=where, hint=hint
        ) from None


def _content(entry: object, start: bytes, size: int, where: str) -> bytes:
    """The bytes of an entry behind `start`, and that; its directory says they are `size`, and no more are unpacked."""
    pieces = [start]
    left = size - len(start)
    while left >= 0:
        piece: bytes = entry.read(min(_CHUNK, left + 1))  # type: ignore[attr-defined]
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    if left:
        raise FileFormatError("has an entry of another size than its directory says", where=where)
    return b"".join(pieces)
