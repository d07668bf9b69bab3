"""The arrays of a program: their bytes one after the other, in the order of an index that says name, type and shape.

A matrix that is smaller without its zeros is kept in compressed rows (CSR): its values, the column of each, and where
every row starts, one after the other. What is read back is equal to the bit, negative zeros included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nervecord.compiler import schema
from nervecord.compiler.ops.fields import LARGEST_AXIS, Array
from nervecord.errors import FileFormatError

LEAST_EXPANDED = 256 << 20
"""Bytes that the values of a small file may take once expanded; larger files may take `EXPANSION` times
their size."""
EXPANSION = 16
INDEX = np.dtype("<u4")
MOST_ARRAYS = 1 << 20

ENTRY = schema.record(
    "array",
    [
        ("name", schema.text(1 << 13, least=1)),
        ("dtype", schema.one_of(("<f8", "<i4"))),
        ("shape", schema.row(schema.whole(0, LARGEST_AXIS), 8)),
        ("nonzero", schema.whole(0, (1 << 32) - 1) | None, None),
    ],
)
"""An array in the index; `nonzero` is how many values are kept of a matrix in compressed rows."""


def most_expanded(size: int) -> int:
    """Bytes of values that a file of `size` bytes may expand to."""
    return max(LEAST_EXPANDED, EXPANSION * size)


def pack(arrays: Mapping[str, Array]) -> tuple[list[dict[str, Any]], bytes]:
    """(index, bytes) of arrays, sorted by name."""
    index: list[dict[str, Any]] = []
    pieces: list[bytes] = []
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        dtype = array.dtype.newbyteorder("<")
        array = array.astype(dtype, copy=False)
        entry: dict[str, Any] = {"name": name, "dtype": dtype.str, "shape": list(array.shape)}
        sparse = _compressed(array)
        if sparse is None:
            pieces.append(array.tobytes())
        else:
            entry["nonzero"] = len(sparse[0])
            pieces += [part.tobytes() for part in sparse]
        index.append(entry)
    return index, b"".join(pieces)


def _compressed(array: Array) -> tuple[Array, Array, Array] | None:
    """(values, columns, starts) of a matrix, None where they are no smaller."""
    if array.ndim != 2:
        return None
    bits = array.view(f"<u{array.itemsize}")  # a negative zero is a value
    count = int(np.count_nonzero(bits))
    if count * (array.itemsize + INDEX.itemsize) + (len(array) + 1) * INDEX.itemsize >= array.nbytes:
        return None
    rows, columns = np.nonzero(bits)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(array)))])
    return array[rows, columns], columns.astype(INDEX), starts.astype(INDEX)


def unpack(index: Any, data: bytes, *, where: str) -> dict[str, Array]:
    """The arrays of `pack`.

    Args:
        index: records of `ENTRY`. data: the bytes. where: the file's name.

    Raises:
        FileFormatError: index and bytes do not fit, or the arrays would be far larger than the file.
    """
    arrays: dict[str, Array] = {}
    allowed = most_expanded(len(data))
    at = 0

    def take(dtype: np.dtype[Any], count: int, name: str) -> Array:
        nonlocal at
        size = count * dtype.itemsize
        if size > len(data) - at:
            raise FileFormatError(
                f"the array {name!r} takes {size} bytes, and {len(data) - at} are left in arrays.bin", where=where
            )
        values: Array = np.frombuffer(data, dtype, count, at)
        at += size
        return values

    for entry in index:
        name, dtype = entry.name, np.dtype(entry.dtype)
        if name in arrays:
            raise FileFormatError(f"the array {name!r} stands twice in its index", where=where)
        size = math.prod(entry.shape)
        if entry.nonzero is None:
            arrays[name] = take(dtype, size, name).reshape(entry.shape)
            continue
        allowed -= size * dtype.itemsize
        if len(entry.shape) != 2 or allowed < 0:
            raise FileFormatError(
                f"the array {name!r} in compressed rows has shape {tuple(entry.shape)}: a matrix is needed, and "
                f"at most {most_expanded(len(data))} bytes for all of them",
                where=where,
            )
        values = take(dtype, entry.nonzero, name)
        columns = take(INDEX, entry.nonzero, name)
        starts = take(INDEX, entry.shape[0] + 1, name)
        arrays[name] = _expanded(values, columns, starts, entry.shape, f"{where}: array {name!r}")
    if at != len(data):
        raise FileFormatError(f"its arrays.bin has {len(data) - at} bytes that belong to no array", where=where)
    return arrays


def _expanded(values: Array, columns: Array, starts: Array, shape: tuple[int, int], where: str) -> Array:
    ends = starts.astype(np.int64)
    counts = np.diff(ends)
    if ends[0] != 0 or ends[-1] != len(values) or (counts < 0).any():
        raise FileFormatError("its rows do not start where its values do", where=where)
    rows = np.repeat(np.arange(shape[0]), counts)
    places = rows * shape[1] + columns
    if (columns >= shape[1]).any() or (np.diff(places) <= 0).any():
        raise FileFormatError("its columns are out of order or out of range", where=where)
    dense = np.zeros(shape, dtype=values.dtype)
    dense.reshape(-1)[places] = values
    return dense
