"""What can be computed of an ONNX file before anything enters it: shapes and the arithmetic of constants."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nervecord.compiler.onnx.file import OnnxNode
from nervecord.compiler.ops import Array

MOST_VALUES = 1 << 20
"""Of a result that broadcasting makes."""
TYPES: dict[int, type] = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 11: np.float64}
"""ONNX's number of a type -> the type."""

_ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Neg": np.negative,
    "Reciprocal": np.reciprocal,
    "Pow": np.power,
    "Max": np.maximum,
    "Min": np.minimum,
    "Equal": np.equal,
    "Where": np.where,
    "Log": np.log,
    "Abs": np.abs,
}
ELEMENTWISE = frozenset((*_ELEMENTWISE, "Clip", "Cast", "Identity", "Sigmoid", "Softplus", "Tanh", "Relu", "Elu"))
"""Operators whose result has the shape that their inputs have together."""


def fold(node: OnnxNode, inputs: list[Array | None]) -> Array | None:
    """What a node gives of constants; None where that is not known here.

    Raises:
        ValueError: the constants do not fit together.
    """
    kind, attributes = node.kind, node.attributes
    arrays = [x for x in inputs if x is not None]
    if kind == "Constant":
        return _constant(node)
    if not arrays or len(arrays) != len([name for name in node.inputs if name]):
        return None
    x = arrays[0]
    if kind in _ELEMENTWISE:
        if np.broadcast(*arrays).size > MOST_VALUES:
            return None
        with np.errstate(all="ignore"):
            result = _ELEMENTWISE[kind](*arrays)
        return result if kind in ("Equal", "Where") else result.astype(x.dtype)
    axis = attributes.get("axis")
    match kind:
        case "Identity":
            return x
        case "Cast":
            to = attributes.get("to")
            return x.astype(TYPES[to]) if isinstance(to, int) and to in TYPES else None
        case "Concat" if isinstance(axis, int):
            return np.concatenate(arrays, axis=axis)
        case "Gather" if len(arrays) == 2:
            return np.take(x, arrays[1], axis=axis if isinstance(axis, int) else 0)
        case "Reshape" if len(arrays) == 2:
            return x.reshape(target_shape(x.shape, arrays[1]))
        case "ConstantOfShape":
            shape, value = tuple(int(k) for k in x.ravel()), attributes.get("value")
            if len(shape) > 8 or min(shape, default=0) < 0 or math.prod(shape) > MOST_VALUES:
                return None
            fill = value.ravel()[:1] if isinstance(value, np.ndarray) else np.zeros(1, dtype=np.float32)
            return np.broadcast_to(fill, (1,)).repeat(math.prod(shape)).reshape(shape)
        case "Transpose":
            return x.transpose(_whole(attributes.get("perm")))
        case "Unsqueeze" | "Squeeze":
            axes = _whole(tuple(arrays[1].ravel()) if len(arrays) > 1 else attributes.get("axes"))
            if kind == "Squeeze":
                return np.squeeze(x, axes)
            return None if axes is None else np.expand_dims(x, axes)
    return None


def _whole(value: object) -> tuple[int, ...] | None:
    """Axes; None where there are none."""
    return tuple(int(k) for k in value) if isinstance(value, tuple) else None


def _constant(node: OnnxNode) -> Array | None:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        value = node.attributes.get(name)
        if isinstance(value, np.ndarray):
            return value
        if value is not None:
            return np.array(value, dtype=np.float32 if "float" in name else np.int64)
    return None


def target_shape(shape: tuple[int, ...], requested: Array) -> tuple[int, ...]:
    """What Reshape makes of a shape: 0 keeps an axis, -1 takes what is left.

    Raises:
        ValueError: it cannot be.
    """
    sizes = [int(k) for k in requested.ravel()]
    sizes = [shape[k] if size == 0 and k < len(shape) else size for k, size in enumerate(sizes)]
    if len(sizes) > 8 or any(size < -1 for size in sizes) or sizes.count(-1) > 1:
        raise ValueError(f"no shape: {sizes}")
    total, product = int(np.prod(shape)), int(np.prod([size for size in sizes if size != -1]))
    if -1 in sizes and product:
        sizes[sizes.index(-1)] = total // product
    if int(np.prod(sizes)) != total:
        raise ValueError(f"{total} values do not have the shape {sizes}")
    return tuple(sizes)
