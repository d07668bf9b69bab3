"""Reads one ONNX file into plain values; run in a process of its own by `compiler.onnx.file`.

It imports the standard library, numpy and onnx only; see `compiler.files.readerchild`. Only the bytes are parsed, by
protobuf: nothing of the file is executed, and no other file is opened. What its messages are is counted in the bytes,
before protobuf makes an object of each.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx.numpy_helper

Tree: TypeAlias = dict[str, Any]
"""Name -> Tree, array, or anything else as JSON says it."""

MOST_NODES = 10_000
MOST_TENSORS = 10_000
MOST_AXES = 8
MOST_ENTRIES = 1000
"""Attributes, inputs or outputs of one node; inputs and outputs of the graph."""
MOST_FIELDS = 1 << 19
"""Of all messages: protobuf takes about a hundred bytes for an object, and a file two."""
MOST_DEEP = 32
"""Messages in messages."""
NEWEST_OPSET = 30
"""Of a later one nothing is known."""
NUMBERS = {"FLOAT", "DOUBLE", "INT32", "INT64", "BOOL"}
AGAIN = "export or copy it again"


class RefusedError(Exception):
    """The file is readable and holds what no network of numbers needs: what, and a hint."""


def load(path: str, value_bytes: int) -> Tree:
    """The file's content: "inputs", "outputs", "nodes" by number, "constants", "metadata".

    A constant whose values lie in another file is a text: its type, shape, and where they lie.

    Args:
        path: the file.
        value_bytes: most bytes that all constants together may take.

    Raises:
        RefusedError: see the module.
    """
    from google.protobuf.message import DecodeError

    with open(path, "rb") as file:
        content = file.read()
    model = onnx.ModelProto()
    try:
        _Count(content).message(model.DESCRIPTOR, 0, len(content), 0)
        model.ParseFromString(content)
    except (DecodeError, _NoMessageError, ValueError, RecursionError):
        raise RefusedError("is no ONNX file, or a damaged one", AGAIN) from None
    del content
    return _Reader(value_bytes).file(model)


class _NoMessageError(Exception):
    """The bytes are no message of protobuf's."""


class _Count:
    """Counts the fields of all messages in a file's bytes."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.fields = 0

    def message(self, kind: Any, at: int, end: int, depth: int) -> None:
        """Those of one message of a kind, which lies at..end."""
        if depth > MOST_DEEP:
            raise RefusedError(f"is nested more than {MOST_DEEP} deep", AGAIN)
        fields = kind.fields_by_number
        while at < end:
            self.fields += 1
            if self.fields > MOST_FIELDS:
                raise RefusedError(f"has more than {MOST_FIELDS} fields in its messages", "export a smaller network")
            key, at = self.varint(at, end)
            wire = key & 7
            if wire == 0:
                _, at = self.varint(at, end)
            elif wire in (1, 5):
                at += 8 if wire == 1 else 4
            elif wire == 2:
                length, at = self.varint(at, end)
                field = fields.get(key >> 3)
                if field is not None and field.message_type is not None and at + length <= end:
                    self.message(field.message_type, at, at + length, depth + 1)
                at += length
            else:
                raise _NoMessageError
            if at > end:
                raise _NoMessageError

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """(number, where it ends)."""
        value = shift = 0
        while at < end and shift < 70:
            byte = self.content[at]
            value |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                return value, at
        raise _NoMessageError


class _Reader:
    """Turns one ModelProto into plain values, and refuses what goes beyond them."""

    def __init__(self, value_bytes: int) -> None:
        self.value_bytes = self.bytes_left = value_bytes

    def file(self, model: Any) -> Tree:
        graph = model.graph
        if not model.HasField("graph") or not graph.node:
            raise RefusedError("is no ONNX file, or one without a graph", AGAIN)
        _counted("nodes", graph.node, MOST_NODES)
        _counted("constants", graph.initializer, MOST_TENSORS)
        for what, entries in (("inputs", graph.input), ("outputs", graph.output), ("metadata", model.metadata_props)):
            _counted(what, entries, MOST_ENTRIES)
        if model.functions:
            raise RefusedError("has functions of its own", "export it without them")
        if graph.sparse_initializer:
            raise RefusedError("has sparse constants", "export dense ones")
        for opset in model.opset_import:
            if opset.domain in ("", "ai.onnx") and not 7 <= opset.version <= NEWEST_OPSET:
                raise RefusedError(f"is of opset {opset.version}, 7 to {NEWEST_OPSET} are read", "export opset 18")
        constants = {_text(tensor.name): self._tensor(tensor, _text(tensor.name)) for tensor in graph.initializer}
        inputs = {_text(value.name): value for value in graph.input}
        return {
            "inputs": {name: _shape(value) for name, value in inputs.items() if name not in constants},
            "outputs": [_text(value.name) for value in graph.output],
            "nodes": {str(k): self._node(node) for k, node in enumerate(graph.node)},
            "constants": constants,
            "metadata": {_text(entry.key): _text(entry.value) for entry in model.metadata_props},
        }

    def _node(self, node: Any) -> Tree:
        name = _text(node.name or next(iter(node.output), "") or node.op_type)
        for what, entries in (("inputs", node.input), ("outputs", node.output), ("attributes", node.attribute)):
            if len(entries) > MOST_ENTRIES:
                raise RefusedError(f"the node {shown(name)} has {len(entries)} {what}, the limit is {MOST_ENTRIES}")
        domain, kind = _text(node.domain), _text(node.op_type)
        return {
            "kind": kind if domain in ("", "ai.onnx") else f"{domain}.{kind}",
            "name": name,
            "inputs": [_text(value) for value in node.input],
            "outputs": [_text(value) for value in node.output],
            "attributes": {_text(attribute.name): self._attribute(attribute, name) for attribute in node.attribute},
        }

    def _attribute(self, attribute: Any, node: str) -> Any:
        kinds = onnx.AttributeProto
        match attribute.type:
            case kinds.INT:
                return int(attribute.i)
            case kinds.FLOAT:
                return float(attribute.f)
            case kinds.STRING:
                return bytes(attribute.s).decode("utf-8", "replace")
            case kinds.INTS:
                return [int(k) for k in attribute.ints[:MOST_ENTRIES]]
            case kinds.FLOATS:
                return [float(x) for x in attribute.floats[:MOST_ENTRIES]]
            case kinds.TENSOR:
                return self._tensor(attribute.t, node)
        return None

    def _tensor(self, tensor: Any, name: str) -> Any:
        kinds = onnx.TensorProto
        label = f"the constant {shown(name)}"
        shape = tuple(int(axis) for axis in tensor.dims)
        kind = kinds.DataType.Name(tensor.data_type) if tensor.data_type in kinds.DataType.values() else "?"
        if kind not in NUMBERS:
            raise RefusedError(f"{label} is of type {kind}, and these are read: {', '.join(sorted(NUMBERS))}")
        if len(shape) > MOST_AXES or any(axis < 0 for axis in shape):
            raise RefusedError(f"{label} has the shape {shape[: MOST_AXES + 1]}")
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        size = math.prod(shape) * dtype.itemsize
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise RefusedError(f"its constants take more than {self.value_bytes} bytes")
        if tensor.data_location == kinds.EXTERNAL:
            reference = {_text(entry.key): _text(entry.value) for entry in tensor.external_data[:16]}
            return {"external": reference, "dtype": dtype.str, "shape": list(shape)}
        try:
            array = np.asarray(onnx.numpy_helper.to_array(tensor))
        except (ValueError, TypeError) as error:
            raise RefusedError(f"{label} is damaged: {error}", AGAIN) from None
        if array.shape != shape:
            raise RefusedError(f"{label} is damaged: it has {array.size} values for the shape {shape}")
        return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).reshape(shape)


def _counted(what: str, entries: Any, most: int) -> None:
    if len(entries) > most:
        raise RefusedError(f"has {len(entries)} {what}, the limit is {most}")


def _shape(value: Any) -> list[int | None]:
    if not value.type.HasField("tensor_type"):
        raise RefusedError(f"the input {shown(_text(value.name))} is no tensor")
    axes = value.type.tensor_type.shape.dim
    if len(axes) > MOST_AXES:
        raise RefusedError(f"the input {shown(_text(value.name))} has {len(axes)} axes, the limit is {MOST_AXES}")
    return [int(axis.dim_value) if axis.dim_value > 0 else None for axis in axes]


def _text(value: str | bytes) -> str:
    """A text of the file: what is no UTF-8 comes as bytes."""
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")


def shown(name: str) -> str:
    """A name of the file, cut, for messages."""
    return repr(name if len(name) <= 80 else name[:77] + "...")
