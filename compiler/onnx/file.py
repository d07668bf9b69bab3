"""ONNX files that nobody vouches for, as plain values: the one door to `onnx` for reading.

Only the bytes are parsed, by protobuf; nothing of the file is executed, and no other file is opened but one of weights
(external data) that lies beside it, is named without any folder, and is an ordinary file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from nervecord.compiler.files.regular import open_regular
from nervecord.compiler.ops import Array
from nervecord.errors import FileFormatError, MissingDependencyError, install_command

SUFFIX = ".onnx"
MOST_BYTES = 512 << 20
"""Of the file, and of the weights beside it; a larger one is refused."""
MOST_NODES = 10_000
MOST_TENSORS = 10_000
MOST_AXES = 8
MOST_ENTRIES = 1000
"""Attributes, inputs or outputs of one node; inputs and outputs of the graph."""
NEWEST_OPSET = 30
"""Of a later one nothing is known."""

Attribute: TypeAlias = int | float | str | tuple[int, ...] | tuple[float, ...] | Array | None
"""None: of a kind that no operator here has."""

_NUMBERS = {"FLOAT", "DOUBLE", "INT32", "INT64", "BOOL"}


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


def load_onnx(path: str | os.PathLike[str]) -> OnnxFile:
    """The content of a file.

    Raises:
        FileFormatError: it is missing, damaged, too large, holds what no network of numbers needs, or keeps its weights
            somewhere else.
        MissingDependencyError: onnx is not installed.
    """
    where = os.fspath(path)
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        raise MissingDependencyError("onnx is not installed", where=where, hint=install_command("onnx")) from None
    content = _content(where, where)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, ValueError, RecursionError):
        raise FileFormatError(
            "is no ONNX file, or a damaged one", where=where, hint="export or copy it again"
        ) from None
    return _Reader(onnx, where).file(model)


def _content(path: str, where: str) -> bytes:
    with open_regular(path, where, MOST_BYTES, "ONNX file") as file:
        content = file.read(MOST_BYTES + 1)
    if not content:
        raise FileFormatError("is empty, an ONNX file is needed", where=where)
    return content


class _Reader:
    """Turns one ModelProto into plain values, and refuses what goes beyond them."""

    def __init__(self, onnx: Any, where: str) -> None:
        self.onnx, self.where = onnx, where
        self.bytes_left = MOST_BYTES
        self._beside: dict[str, bytes] = {}

    def wrong(self, message: str, hint: str | None = None) -> FileFormatError:
        return FileFormatError(message, where=self.where, hint=hint)

    def file(self, model: Any) -> OnnxFile:
        graph = model.graph
        if not model.HasField("graph") or not graph.node:
            raise self.wrong("is no ONNX file, or one without a graph", "export or copy it again")
        self._counted("nodes", graph.node, MOST_NODES)
        self._counted("constants", graph.initializer, MOST_TENSORS)
        for what, found in (("inputs", graph.input), ("outputs", graph.output), ("metadata", model.metadata_props)):
            self._counted(what, found, MOST_ENTRIES)
        if model.functions:
            raise self.wrong("has functions of its own", "export it without them")
        if graph.sparse_initializer:
            raise self.wrong("has sparse constants", "export dense ones")
        for said in model.opset_import:
            if said.domain in ("", "ai.onnx") and not 7 <= said.version <= NEWEST_OPSET:
                raise self.wrong(f"is of opset {said.version}, 7 to {NEWEST_OPSET} are read", "export opset 18")
        constants = {_text(tensor.name): self._tensor(tensor, _text(tensor.name)) for tensor in graph.initializer}
        inputs = {_text(value.name): value for value in graph.input}
        return OnnxFile(
            inputs={name: self._shape(value) for name, value in inputs.items() if name not in constants},
            outputs=tuple(_text(value.name) for value in graph.output),
            nodes=tuple(self._node(node) for node in graph.node),
            constants=constants,
            metadata={_text(entry.key): _text(entry.value) for entry in model.metadata_props},
        )

    def _counted(self, what: str, found: Iterable[Any], most: int) -> None:
        count = len(list(found))
        if count > most:
            raise self.wrong(f"has {count} {what}, the limit is {most}")

    def _shape(self, value: Any) -> tuple[int | None, ...]:
        if not value.type.HasField("tensor_type"):
            raise self.wrong(f"the input {_shown(_text(value.name))} is no tensor")
        axes = value.type.tensor_type.shape.dim
        if len(axes) > MOST_AXES:
            raise self.wrong(f"the input {_shown(_text(value.name))} has {len(axes)} axes, the limit is {MOST_AXES}")
        return tuple(int(axis.dim_value) if axis.dim_value > 0 else None for axis in axes)

    def _node(self, node: Any) -> OnnxNode:
        name = _text(node.name or next(iter(node.output), "") or node.op_type)
        for what, found in (("inputs", node.input), ("outputs", node.output), ("attributes", node.attribute)):
            if len(found) > MOST_ENTRIES:
                raise self.wrong(f"the node {_shown(name)} has {len(found)} {what}, the limit is {MOST_ENTRIES}")
        domain, kind = _text(node.domain), _text(node.op_type)
        return OnnxNode(
            kind=kind if domain in ("", "ai.onnx") else f"{domain}.{kind}",
            name=name,
            inputs=tuple(_text(value) for value in node.input),
            outputs=tuple(_text(value) for value in node.output),
            attributes={_text(said.name): self._attribute(said, name) for said in node.attribute},
        )

    def _attribute(self, said: Any, node: str) -> Attribute:
        kinds = self.onnx.AttributeProto
        match said.type:
            case kinds.INT:
                return int(said.i)
            case kinds.FLOAT:
                return float(said.f)
            case kinds.STRING:
                return bytes(said.s).decode("utf-8", "replace")
            case kinds.INTS:
                return tuple(int(k) for k in said.ints[:MOST_ENTRIES])
            case kinds.FLOATS:
                return tuple(float(x) for x in said.floats[:MOST_ENTRIES])
            case kinds.TENSOR:
                return self._tensor(said.t, node)
        return None

    # ------------------------------------------------------------------------------------------ tensors

    def _tensor(self, tensor: Any, name: str) -> Array:
        kinds = self.onnx.TensorProto
        label = f"the constant {_shown(name)}"
        shape = tuple(int(axis) for axis in tensor.dims)
        kind = kinds.DataType.Name(tensor.data_type) if tensor.data_type in kinds.DataType.values() else "?"
        if kind not in _NUMBERS:
            raise self.wrong(f"{label} is of type {kind}, and these are read: {', '.join(sorted(_NUMBERS))}")
        if len(shape) > MOST_AXES or any(axis < 0 for axis in shape):
            raise self.wrong(f"{label} has the shape {shape}")
        dtype = np.dtype(self.onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        size = math.prod(shape) * dtype.itemsize
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise self.wrong(f"its constants take more than {MOST_BYTES} bytes")
        if tensor.data_location == kinds.EXTERNAL:
            raw = self._external(tensor, size, label)
            return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
        try:
            found: Array = np.asarray(self.onnx.numpy_helper.to_array(tensor))
        except (ValueError, TypeError) as error:
            raise self.wrong(f"{label} is damaged: {error}", "export or copy it again") from None
        if found.shape != shape:
            raise self.wrong(f"{label} is damaged: it has {found.size} values for the shape {shape}")
        return found

    def _external(self, tensor: Any, size: int, label: str) -> bytes:
        """Weights that stand in a file of their own."""
        said = {_text(entry.key): _text(entry.value) for entry in tensor.external_data[:16]}
        location = said.get("location", "")
        plain = location not in ("", ".", "..") and location.isprintable() and not set(location) & {"/", "\\", ":"}
        if not plain:
            raise self.wrong(f"{label} lies in {_shown(location)}, which is no plain name of a file beside it",
                             "save the model as one file")  # fmt: skip
        if location not in self._beside:
            path = Path(self.where).parent / location
            if path.is_symlink():
                raise self.wrong(f"{label} lies in {_shown(location)}, a link to another file",
                                 "save the model as one file")  # fmt: skip
            self._beside[location] = _content(str(path), f"{self.where}: {_shown(location)}")
        try:
            offset, length = int(said.get("offset", "0")), int(said.get("length", str(size)))
        except ValueError:
            raise self.wrong(f"{label} is damaged: its place in {_shown(location)} is no number") from None
        content = self._beside[location]
        if offset < 0 or length != size or offset + length > len(content):
            raise self.wrong(f"{label} is damaged: bytes {offset}.. of {_shown(location)} do not hold its {size}")
        return content[offset : offset + length]


def _text(value: str | bytes) -> str:
    """A text of the file: what is no UTF-8 comes as bytes."""
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")


def _shown(name: str) -> str:
    """A name of the file, cut, for messages."""
    return repr(name if len(name) <= 80 else name[:77] + "...")
