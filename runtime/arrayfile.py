"""Recorded arrays in .npz and .npy files, read without executing anything and without trusting sizes.

numpy's reader evaluates the header of an array as Python, and makes what it says before it looks for the bytes. Here a
header is matched against the one form that numpy writes, and must fit the bytes behind it.
"""

from __future__ import annotations

import io
import math
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nervecord.compiler import schema
from nervecord.compiler.files.archive import unpacked
from nervecord.compiler.files.arrays import most_expanded
from nervecord.compiler.files.atomic import write_atomically
from nervecord.compiler.files.regular import open_regular
from nervecord.compiler.ops import Array
from nervecord.errors import FileFormatError, NervecordError

MAXIMUM_BYTES = 1 << 30
"""A larger file is refused unread, and one whose values take more as float64, or more than `most_expanded`."""
MOST_ARRAYS = 1 << 12
_FLAT = ("observations", "observation", "input", "inputs")
"""Names under which a file may hold the one array that is wanted."""
_KIND = ".npz or .npy file of numbers"
_HINT = "numpy.savez writes one"
_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 4096
_MOST_AXES = 8
_MOST_DIGITS = 16
# Python 2 wrote whole numbers with an L.
_FIELD = r"'(descr|fortran_order|shape)'\s*:\s*('[^'\\]*'|True|False|\([0-9L,\s]*\))"
_HEADER = re.compile(rf"\{{\s*{_FIELD}\s*,\s*{_FIELD}\s*,\s*{_FIELD}\s*,?\s*\}}\s*")
_TYPE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248])")


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Array]:
    """All arrays of an .npz by name; the array of an .npy under "".

    Raises:
        FileFormatError: the file is missing, damaged, too large, or holds something else than numbers.
    """
    where = schema.printable(os.fspath(path))
    with open_regular(path, where, MAXIMUM_BYTES, _KIND) as file:
        budget = _Budget(min(MAXIMUM_BYTES, most_expanded(os.fstat(file.fileno()).st_size)), where)
        try:
            start = file.read(len(_MAGIC))
            if start == _MAGIC:
                # Without a buffer, which would hold it a second time.
                with open(file.fileno(), "rb", buffering=0, closefd=False) as raw:
                    raw.seek(0)
                    content = raw.readall()
                budget.look("", content, len(content))
                return {"": _array(content, "", where)}
        except OSError as error:
            raise FileFormatError(f"cannot be read: {error.strerror or error}", where=where) from None
        if not start.startswith(b"PK"):
            raise FileFormatError(f"is no {_KIND}", where=where, hint=_HINT)
        arrays: dict[str, Array] = {}
        for member, content in unpacked(
            file, where, most_entries=MOST_ARRAYS, most_bytes=budget.allowed, kind=_KIND, hint=_HINT, look=budget.look
        ):
            name = member.removesuffix(".npy")
            if not name.isprintable():
                raise FileFormatError(f"the name {schema.printable(repr(name))} cannot be printed", where=where)
            if name in arrays:
                raise FileFormatError(f"holds two arrays called {name!r}", where=where)
            arrays[name] = _array(content, name, where)
        return arrays


@dataclass(slots=True)
class _Budget:
    """What the arrays of a file may take as float64, in which everything computes: bytes, of all of them."""

    allowed: int
    where: str
    taken: int = 0

    def look(self, member: str, start: bytes, size: int) -> None:
        """Count an array by its header, before its values are unpacked.

        Raises:
            FileFormatError: it is none, or too much.
        """
        described = _described(start, size, member.removesuffix(".npy"), self.where)
        self.taken += math.prod(described.axes) * np.dtype(np.float64).itemsize
        if self.taken > self.allowed:
            raise FileFormatError(
                f"its values take {self.taken} bytes as float64, at most {self.allowed} are read of a file of its size",
                where=self.where,
                hint="give fewer rows, or store them without compression",
            )


@dataclass(frozen=True, slots=True)
class _Described:
    """What the header of an .npy says of its array, and where its values start."""

    dtype: np.dtype[Any]
    axes: tuple[int, ...]
    fortran: bool
    start: int


def _described(data: bytes, size: int, name: str, where: str) -> _Described:
    """Of the first bytes of an .npy of `size` bytes; `name` is for messages."""
    named = f" under {schema.printable(repr(name))}"
    header, start = _header(data, where)
    fields = dict(re.findall(_FIELD, header)) if _HEADER.fullmatch(header) else {}
    if len(fields) < 3 or fields["fortran_order"] not in ("True", "False"):
        raise FileFormatError(
            f"holds something else than numbers{named}, or a header that numpy does not write", where=where, hint=_HINT
        )
    descr, shape = fields["descr"].strip("'"), fields["shape"]
    if not _TYPE.fullmatch(descr):
        raise FileFormatError(
            f"holds something else than numbers{named}: type {schema.printable(repr(descr))}", where=where, hint=_HINT
        )
    sizes = re.findall(r"[0-9]+", shape)
    if not shape.startswith("(") or len(sizes) > _MOST_AXES or any(len(size) > _MOST_DIGITS for size in sizes):
        raise FileFormatError(f"has shape {schema.printable(shape)}{named}, which is none", where=where, hint=_HINT)
    dtype, axes = np.dtype(descr), tuple(map(int, sizes))
    declared, there = math.prod(axes) * dtype.itemsize, size - start
    if declared != there or max(axes, default=0) > MAXIMUM_BYTES:
        raise FileFormatError(
            f"declares {declared} bytes of values in shape {axes}{named}, and {there} are there",
            where=where,
            hint=_HINT,
        )
    return _Described(dtype, axes, fields["fortran_order"] == "True", start)


def _array(data: bytes, name: str, where: str) -> Array:
    """The array of an .npy's bytes; `name` is for messages."""
    described = _described(data, len(data), name, where)
    array: Array = np.frombuffer(data, described.dtype, offset=described.start).reshape(
        described.axes, order="F" if described.fortran else "C"
    )
    return np.ascontiguousarray(array, described.dtype.newbyteorder("=")).reshape(described.axes)


def _header(data: bytes, where: str) -> tuple[str, int]:
    """An .npy's header, and where its values start."""
    version, wide = data[6:8], 2 if data[6:7] == b"\1" else 4
    length = int.from_bytes(data[8 : 8 + wide], "little")
    start = 8 + wide + length
    if not data.startswith(_MAGIC) or version not in (b"\1\0", b"\2\0", b"\3\0") or start > len(data):
        raise FileFormatError(f"is no {_KIND}", where=where, hint=_HINT)
    if length > _LONGEST_HEADER:
        raise FileFormatError(
            f"has a header of {length} bytes, at most {_LONGEST_HEADER} are read", where=where, hint=_HINT
        )
    return data[8 + wide : start].decode("latin-1"), start


def read_rows(path: str | os.PathLike[str]) -> Array:
    """The one array of a file, or the one called "observations" or "input".

    Raises:
        FileFormatError: see `read_arrays`; or it holds several arrays and none of these names.
    """
    return only_array(read_arrays(path), where=schema.printable(os.fspath(path)))


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
