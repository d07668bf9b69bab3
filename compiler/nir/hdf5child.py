"""Reads one HDF5 file into plain values; run in a process of its own by `compiler.nir.hdf5guard`.

It imports the standard library, numpy and h5py only; see `compiler.files.readerchild`.

Everything that makes HDF5 reach outside its file or ask for more than the file holds is refused before a value is read:
links other than hard ones, external storage, virtual datasets, filters that are not HDF5's own, groups that contain
themselves, and declared sizes beyond the limit. Attributes are not read, but for the time step and the end of a
recording (NIRData, `ATTRIBUTES`): they come back as "/dt" and so on, names that no group can have.

What comes back: groups are dicts, strings are str, arrays of strings are nested lists of str, numbers are numpy arrays
in native byte order (0-d for scalars).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import h5py  # type: ignore[import-untyped]
import numpy as np

Tree: TypeAlias = dict[str, Any]
"""Name -> Tree, str, nested list of str, or array."""

MAX_DEPTH = 64
"""Groups in groups. A NIR graph takes two per nesting of subgraphs."""
MAX_OBJECTS = 200_000
"""Groups and datasets in one file."""
TEXT_BYTES = 64
"""What one string of variable length is counted as; its real length is known only when it has been read."""
# HDF5's own: deflate, shuffle, fletcher32, szip, nbit, scale-offset, and h5py's lzf. Others would load plug-ins.
FILTERS = frozenset({1, 2, 3, 4, 5, 6, 32000})


ATTRIBUTES = ("dt", "t_max", "n_neurons")
"""Of a recording's groups."""


class RefusedError(Exception):
    """The file is readable and asks for something it must not have; the text says what and where."""


class _Walk:
    """One pass over a file's objects: refuses what is not allowed, adds up what is declared."""

    def __init__(self, value_bytes: int) -> None:
        self.value_bytes = value_bytes
        self.declared = 0
        self.seen: set[Any] = set()

    def scan(self, group: Any, path: str, depth: int) -> None:
        """Check everything below `group` without reading a value."""
        self._enter(group, path)
        if depth > MAX_DEPTH:
            raise RefusedError(f"{path}: groups are nested deeper than {MAX_DEPTH} levels")
        for name in group:
            where = f"{path}/{_printable(name, path)}"
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise RefusedError(f"{where} is a link into another file")
            if not isinstance(link, h5py.HardLink):
                raise RefusedError(f"{where} is a symbolic link")
            item = group[name]
            if isinstance(item, h5py.Group):
                self.scan(item, where, depth + 1)
            elif isinstance(item, h5py.Dataset):
                self._enter(item, where)
                self._dataset(item, where)
            else:
                raise RefusedError(f"{where} is neither a group nor a dataset")

    def _enter(self, item: Any, path: str) -> None:
        info = h5py.h5o.get_info(item.id)
        key = (info.fileno, info.addr)
        if key in self.seen:
            raise RefusedError(f"{path} is reached by two links: a group inside itself, or a shared object")
        self.seen.add(key)
        if len(self.seen) > MAX_OBJECTS:
            raise RefusedError(f"{path}: more than {MAX_OBJECTS} groups and datasets")

    def _dataset(self, item: Any, path: str) -> None:
        plan = item.id.get_create_plist()
        if plan.get_layout() == h5py.h5d.VIRTUAL:
            raise RefusedError(f"{path} is a virtual dataset: its values lie in other files")
        if plan.get_external_count():
            raise RefusedError(f"{path} has external storage: its values lie in another file")
        for k in range(plan.get_nfilters()):
            code = plan.get_filter(k)[0]
            if code not in FILTERS:
                raise RefusedError(f"{path} is compressed with filter {code}, which is not one of HDF5's own")
        if item.shape is None:
            raise RefusedError(f"{path} is declared and holds no value")
        each = _value_bytes(item.dtype, path)
        self._add(each * int(np.prod([int(size) for size in item.shape], dtype=object)), path)
        # One chunk is expanded whole, even where the dataset is smaller.
        if item.chunks is not None:
            self._fits(each * int(np.prod([int(size) for size in item.chunks], dtype=object)), path)

    def _add(self, count: int, path: str) -> None:
        self.declared += count
        self._fits(self.declared, path)

    def _fits(self, count: int, path: str) -> None:
        if count > self.value_bytes:
            raise RefusedError(
                f"{path}: the file declares {count} bytes of values or more, the limit is {self.value_bytes}"
            )


def _value_bytes(dtype: np.dtype[Any], path: str) -> int:
    if h5py.check_string_dtype(dtype) is not None:
        return max(int(dtype.itemsize), TEXT_BYTES)
    if dtype.kind in "iub" or (dtype.kind == "f" and dtype.itemsize in (2, 4, 8)):
        return int(dtype.itemsize)
    raise RefusedError(f"{path} holds {_kind(dtype)}, neither numbers nor text")


def _kind(dtype: np.dtype[Any]) -> str:
    names = {"O": "objects", "V": "records", "c": "complex numbers", "f": f"{dtype.itemsize * 8}-bit floats"}
    return names.get(dtype.kind, str(dtype))


def _printable(name: str, path: str) -> str:
    if not name.isprintable() or name == ".":
        raise RefusedError(f"{path} contains {name!a}, a name that cannot be printed")
    return name


def _values(group: Any, path: str, attributes: Sequence[str] = ()) -> Tree:
    tree: Tree = {}
    for name in group:
        item = group[name]
        where = f"{path}/{name}"
        tree[name] = _values(item, where, attributes) if isinstance(item, h5py.Group) else _value(item, where)
    for name in attributes:
        if name in group.attrs:
            tree[f"/{name}"] = _attribute(group, name, path)
    return tree


def _attribute(group: Any, name: str, path: str) -> Any:
    attribute = h5py.h5a.open(group.id, name.encode())
    if attribute.shape != () or attribute.dtype.kind not in "iuf" or attribute.dtype.itemsize > 8:
        raise RefusedError(f"{path}: its attribute {name} is no single number")
    return np.asarray(group.attrs[name], dtype=attribute.dtype.newbyteorder("="))


def _value(item: Any, path: str) -> Any:
    if h5py.check_string_dtype(item.dtype) is not None:
        try:
            text = item.asstr()[()]
        except UnicodeDecodeError:
            raise RefusedError(f"{path} holds bytes that are no text") from None
        return text.tolist() if isinstance(text, np.ndarray) else str(text)
    array = np.asarray(item[()])
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).reshape(array.shape)


def load(path: str, value_bytes: int) -> Tree:
    """The file's content; with no protection of its own beyond the checks above.

    Args:
        path: the file.
        value_bytes: most bytes that all values together may take.

    Raises:
        RefusedError: see the module.
        Exception: whatever h5py says of a damaged file.
    """
    _forget_plugins()
    with h5py.File(path, "r", locking=False) as file:
        _Walk(value_bytes).scan(file["/"], "", 0)
        return _values(file, "", ATTRIBUTES if "nodes" in file and "node" not in file else ())


def _forget_plugins() -> None:
    """Empty the list of folders in which HDF5 looks for plug-ins, the one it was built with included."""
    for _ in range(h5py.h5pl.size()):
        h5py.h5pl.remove(0)
