"""Collects the nodes of an ONNX graph: names them, keeps constants once, and makes no node twice.

The same operator on the same inputs with the same attributes is one node, so that what does not change over the steps
of an action is computed once. Only operators that are the same from opset 11 to 18 are made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nervecord.compiler.graph.names import Names
from nervecord.compiler.ops import Array
from nervecord.errors import MissingDependencyError, install_command

MOST_BYTES = (1 << 31) - (1 << 20)
"""A protobuf message has less than 2 GiB."""


def onnx_library(where: str = "target 'onnx'") -> Any:
    """The package onnx.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise MissingDependencyError("onnx is not installed", where=where, hint=install_command("onnx")) from None
    return onnx


@dataclass
class Builder:
    """An ONNX graph in the making. Values are names; every value of neurons or channels has shape [batch, n].

    Args:
        batch: rows of every value.
    """

    batch: int = 1
    nodes: list[Any] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)
    _constants: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)
    _made: dict[tuple[Any, ...], str] = field(default_factory=dict)
    _scope: str = ""
    _names: Names = field(default_factory=lambda: Names(sign="."))

    def within(self, scope: str) -> Builder:
        """This builder, whose nodes are called after a node of the policy from now on."""
        self._scope = scope
        return self

    def reserve(self, name: str) -> str:
        """A name for a value that is made elsewhere: an input or output of the graph."""
        self._names.take(name)
        return name

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """The value that an operator gives; `output` names it, where it leaves the graph."""
        key = (kind, inputs, tuple(sorted((name, repr(value)) for name, value in attributes.items())))
        if output is None and key in self._made:
            return self._made[key]
        name = output or self._fresh(kind)
        helper = onnx_library().helper
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"{name}:{kind}", **attributes))
        self._made.setdefault(key, name)
        return name

    def constant(self, values: Array) -> str:
        """An initializer; equal ones are one."""
        array = np.asarray(values, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = self._fresh("constant")
            self.tensors.append(onnx_library().numpy_helper.from_array(array, name))
            self._constants[key] = name
        return self._constants[key]

    def row(self, values: Array, dtype: type) -> str:
        """A constant [1, n] (or [1, 1] where all values are one), which meets [batch, n]."""
        array: Array = np.asarray(values, dtype=dtype).reshape(1, -1)
        return self.constant(array[:, :1] if array.size and (array == array[0, 0]).all() else array)

    def full(self, values: Array, dtype: type) -> str:
        """A constant that stands alone as a value: [batch, n]."""
        array: Array = np.asarray(values, dtype=dtype).reshape(1, -1)
        return self.constant(np.repeat(array, self.batch, axis=0))

    # ------------------------------------------------------------------------------------------ compositions

    def total(self, values: Sequence[str | None]) -> str | None:
        """The sum in this order; None stands for zeros."""
        result: str | None = None
        for value in values:
            if value is not None:
                result = value if result is None else self.op("Add", result, value)
        return result

    def cast(self, value: str, dtype: type | str) -> str:
        """As another type; "bool" too."""
        kinds = onnx_library().helper.np_dtype_to_tensor_dtype
        return self.op("Cast", value, to=int(kinds(np.dtype(dtype))))

    def clipped(self, value: str, low: Array | float, high: Array | float, dtype: type) -> str:
        """Within low..high. Clip takes no double before opset 12, and no limits per column."""
        raised = self.op("Max", value, self.row(np.asarray(low), dtype))
        return self.op("Min", raised, self.row(np.asarray(high), dtype))

    def reshaped(self, value: str, *shape: int) -> str:
        """Of another shape."""
        return self.op("Reshape", value, self.constant(np.array(shape, dtype=np.int64)))

    def columns(self, value: str, start: int, stop: int) -> str:
        """Columns start..stop - 1 of [batch, n]."""
        ends = (self.constant(np.array([end], dtype=np.int64)) for end in (start, stop, 1))
        return self.op("Slice", value, *ends)

    def joined(self, values: Sequence[str], axis: int = 1) -> str:
        """Side by side."""
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=axis)

    def _fresh(self, kind: str) -> str:
        return self._names.fresh(f"{self._scope}.{kind}" if self._scope else kind)
