"""Recorded arrays in .npz and .npy files, read without executing anything and without trusting sizes."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nervecord.compiler.files.atomic import write_atomically
from nervecord.compiler.ops import Array
from nervecord.errors import FileFormatError, NervecordError

MAXIMUM_BYTES = 1 << 30
"""Unpacked content beyond this is refused unread."""
_FLAT = ("observations", "observation", "input", "inputs")
"""Names under which a file may hold the one array that is wanted."""


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Array]:
    """All arrays of an .npz by name; the array of an .npy under "".

    Raises:
        FileFormatError: the file is missing, damaged, too large, or holds something else than numbers.
    """
    where, file = str(path), Path(path)
    if not file.is_file():
        raise FileFormatError("is a folder" if file.is_dir() else "does not exist", where=where)
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                size = sum(info.file_size for info in archive.infolist())
        else:
            size = file.stat().st_size
            with file.open("rb") as start:
                np.lib.format.read_magic(start)  # else numpy takes it for a pickle, and says how to trust it
        if size > MAXIMUM_BYTES:
            raise FileFormatError(f"unpacks to {size} bytes, at most {MAXIMUM_BYTES} are read", where=where)
        loaded = np.load(file, allow_pickle=False)
        arrays = {"": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except FileFormatError:
        raise
    except (ValueError, EOFError, OSError, KeyError, MemoryError, SyntaxError, zipfile.BadZipFile) as error:
        raise FileFormatError(
            f"is no .npz or .npy file of numbers ({error})", where=where, hint="numpy.savez writes one"
        ) from None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            raise FileFormatError(f"holds something else than numbers under {name!r}", where=where)
    return arrays


def read_rows(path: str | os.PathLike[str]) -> Array:
    """The one array of a file, or the one called "observations" or "input".

    Raises:
        FileFormatError: see `read_arrays`; or it holds several arrays and none of these names.
    """
    return only_array(read_arrays(path), where=str(path))


def only_array(arrays: Mapping[str, Array], *, where: str) -> Array:
    """The one array of `read_arrays`, or the one called "observations" or "input".

    Raises:
        FileFormatError: there are several and none of these names.
    """
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    for name in _FLAT:
        if name in arrays:
            return arrays[name]
    names = ", ".join(sorted(arrays)) or "nothing"
    raise FileFormatError(
        f"holds {names}, and which array is meant is not clear", where=where, hint='call it "observations"'
    )


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Write an .npz; a crash leaves the old file or the new one.

    Raises:
        NervecordError: it cannot be written, or a name cannot stand in an .npz.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            if not name or name.startswith(("/", ".")):
                raise NervecordError(f"{name!r} cannot be the name of an array in a file", where=str(path))
            # Fixed dates: the same arrays give the same bytes.
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), member.getvalue())
    write_atomically(path, buffer.getvalue())
