"""ONNX files that nobody vouches for, as plain values: the one door to `onnx` for reading.

`compiler.onnx.onnxchild` parses their bytes in a process of its own. Nothing of a file is executed, and no other file
is opened but one of weights (external data) that lies beside it, is named without any folder, and is an ordinary file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from nervecord.compiler.files.readerguard import Limits, Reader, read_guarded
from nervecord.compiler.files.regular import open_regular
from nervecord.compiler.ops import Array
from nervecord.errors import FileFormatError

SUFFIX = ".onnx"
LIMITS = Limits(file_bytes=256 << 20, value_bytes=256 << 20, expansion=1)
READER = Reader(
    Path(__file__).with_name("onnxchild.py"),
    ("onnx", "google.protobuf", "ml_dtypes", "typing_extensions"),
    "onnx",
    "export it again, in float32 and as one file",
)

Attribute: TypeAlias = int | float | str | tuple[int, ...] | tuple[float, ...] | Array | None
"""None: of a kind that no operator here has."""


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """One operator.

    Args:
        kind: such as "Gemm"; of another domain with that in front.
        name: its own, or what it gives.
        inputs, outputs: names of values; an empty name is an input left out.
        attributes: by name.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """What a file holds.

    Args:
        inputs: name -> its shape; None for an axis of any size.
        outputs: names.
        nodes: in the file's order.
        constants: name -> values.
        metadata: texts.
    """

    inputs: Mapping[str, tuple[int | None, ...]]
    outputs: tuple[str, ...]
    nodes: tuple[OnnxNode, ...]
    constants: Mapping[str, Array]
    metadata: Mapping[str, str]


def is_onnx(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one, by its name: the format has no mark of its own."""
    return os.fspath(path).lower().endswith(SUFFIX)


def load_onnx(path: str | os.PathLike[str], limits: Limits = LIMITS) -> OnnxFile:
    """The content of a file.

    Raises:
        FileFormatError: it is missing, damaged, too large, holds what no network of numbers needs, or keeps its weights
            somewhere else.
        MissingDependencyError: onnx is not installed.
    """
    where = os.fspath(path)
    with open_regular(where, where, limits.file_bytes, "ONNX file") as file:
        size = os.fstat(file.fileno()).st_size
    if not size:
        raise FileFormatError("is empty, an ONNX file is needed", where=where)
    tree = read_guarded(READER, where, size, limits)
    beside = _Beside(where, limits.file_bytes)
    nodes = (
        OnnxNode(
            kind=node["kind"],
            name=node["name"],
            inputs=tuple(node["inputs"]),
            outputs=tuple(node["outputs"]),
            attributes={name: beside.value(content, node["name"]) for name, content in node["attributes"].items()},
        )
        for node in tree["nodes"].values()
    )
    return OnnxFile(
        inputs={name: tuple(shape) for name, shape in tree["inputs"].items()},
        outputs=tuple(tree["outputs"]),
        nodes=tuple(nodes),
        constants={name: beside.value(content, name) for name, content in tree["constants"].items()},
        metadata=tree["metadata"],
    )


class _Beside:
    """The files of weights that lie beside a file.

    Args:
        where: the file. most: bytes of one of them, and of the weights that are taken of all.
    """

    def __init__(self, where: str, most: int) -> None:
        self.where, self.most, self.bytes_left = where, most, most
        self._content: dict[str, bytes] = {}

    def wrong(self, message: str, hint: str | None = None) -> FileFormatError:
        return FileFormatError(message, where=self.where, hint=hint)

    def value(self, content: Any, name: str) -> Any:
        """What a constant or attribute holds; lists are tuples, and weights of other files arrays."""
        if isinstance(content, list):
            return tuple(content)
        if not isinstance(content, dict):
            return content
        dtype, label = np.dtype(content["dtype"]), f"the constant {_shown(name)}"
        size = math.prod(content["shape"]) * dtype.itemsize
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise self.wrong(f"its constants take more than {self.most} bytes")
        raw = self._bytes(content["external"], size, label)
        return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype).reshape(content["shape"])

    def _bytes(self, reference: Mapping[str, str], size: int, label: str) -> bytes:
        location = reference.get("location", "")
        plain = location not in ("", ".", "..") and location.isprintable() and not set(location) & {"/", "\\", ":"}
        if not plain:
            raise self.wrong(
                f"{label} lies in {_shown(location)}, which is no plain name of a file beside it",
                "save the model as one file",
            )
        if location not in self._content:
            path = Path(self.where).parent / location
            if path.is_symlink():
                raise self.wrong(
                    f"{label} lies in {_shown(location)}, a link to another file", "save the model as one file"
                )
            with open_regular(path, f"{self.where}: {_shown(location)}", self.most, "file of weights") as file:
                self._content[location] = file.read()
        try:
            offset, length = int(reference.get("offset", "0")), int(reference.get("length", str(size)))
        except ValueError:
            raise self.wrong(f"{label} is damaged: its place in {_shown(location)} is no number") from None
        content = self._content[location]
        if offset < 0 or length != size or offset + length > len(content):
            raise self.wrong(f"{label} is damaged: bytes {offset}.. of {_shown(location)} do not hold its {size}")
        return content[offset : offset + length]


def _shown(name: str) -> str:
    """A name of the file, cut, for messages."""
    return repr(name if len(name) <= 80 else name[:77] + "...")
