"""Reads HDF5 files that nobody vouches for, by `compiler.nir.hdf5child` in a process of its own."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from nervecord.compiler.files.readerguard import Limits, Reader, read_guarded
from nervecord.errors import FileFormatError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
LIMITS = Limits()
READER = Reader(
    Path(__file__).with_name("hdf5child.py"), ("h5py",), "", "write it with nir.write, everything in this one file"
)


def read_hdf5(path: str | os.PathLike[str], limits: Limits = LIMITS) -> dict[str, Any]:
    """The content of an HDF5 file as a tree.

    Groups are dicts by name, strings str, arrays of strings nested lists of str, numbers read-only arrays (0-d for
    scalars). Attributes are left out, but for a recording's numbers "/dt", "/t_max", "/n_neurons" in its groups.

    Raises:
        FileFormatError: it is missing, no HDF5, damaged, refused, or too large or slow to read; one sentence.
    """
    name = os.fspath(path)
    return read_guarded(READER, name, _checked_size(name, limits), limits)


def _checked_size(name: str, limits: Limits) -> int:
    try:
        info = os.stat(name)
        start = b""
        if stat.S_ISREG(info.st_mode):
            with open(name, "rb") as file:
                start = file.read(len(SIGNATURE))
    except FileNotFoundError:
        raise FileFormatError("no such file", where=name) from None
    except OSError as error:
        raise FileFormatError(f"cannot be opened: {error.strerror or error}", where=name) from None
    except ValueError as error:  # a path with a NUL in it
        raise FileFormatError(f"cannot be opened: {error}", where=ascii(name)) from None
    if stat.S_ISDIR(info.st_mode):
        raise FileFormatError("is a directory, an HDF5 file is needed", where=name)
    if not stat.S_ISREG(info.st_mode):
        raise FileFormatError("is no regular file", where=name, hint="save it to a file first")
    if not start:
        raise FileFormatError("is empty, an HDF5 file is needed", where=name)
    if start != SIGNATURE:
        raise FileFormatError("is not an HDF5 file: its first bytes are not HDF5's signature", where=name)
    if info.st_size > limits.file_bytes:
        raise FileFormatError(f"has {info.st_size} bytes, the limit is {limits.file_bytes}", where=name)
    return info.st_size
