"""From an ONNX file to a float graph: the multilayer perceptrons that reinforcement learning libraries export.

    obs -> (x - mean) / divisor, clipped -> W x + b -> tanh, relu or elu -> ... -> W x + b -> actions

One input, read for one observation, [1, n]. The output "actions" is read, or the first; what does not lead to it, such
as a critic, is left out. Operators that only shape a value vanish, constants are computed, sums, differences, products
and quotients with constants become part of the connection beside them, at the front a `Normalise`. Anything else is
refused by the operator's name and node.

The graph is DISCRETE: it has no time in it, and takes one step per action.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from nervecord.compiler.blas import matmul
from nervecord.compiler.graph.graph import Edge, Graph
from nervecord.compiler.graph.verify import require, unprintable
from nervecord.compiler.onnx.file import OnnxFile, OnnxNode, is_onnx, load_onnx
from nervecord.compiler.onnx.folding import ELEMENTWISE, fold, target_shape
from nervecord.compiler.ops import Activation, Affine, ArgmaxDecode, Array, Decode, Input, Level, Normalise, Op, Output
from nervecord.compiler.ops.activations import Function
from nervecord.compiler.ops.host import LARGEST_VALUE
from nervecord.compiler.schema import printable
from nervecord.errors import FileFormatError

ACTIONS = "actions"
"""The output that is read where a file has several."""
SECONDS = 1.0
"""dt of a network without time, where nobody says another; a contract's control period takes its place."""
OURS = "nervecord_form"
"""In the metadata of files that Nervecord wrote."""
MOST_DIAGONAL = 4096
"""Values of a product that becomes a connection of its own."""

__all__ = ["is_onnx", "read_onnx"]


def read_onnx(path: str | os.PathLike[str], *, dt: float | None = None) -> Graph:
    """The float graph of a file.

    Args:
        path: the file. dt: seconds per step.

    Raises:
        FileFormatError: it is missing, damaged, too large; it is a policy that Nervecord compiled; or an operator is
            none that can be read: the message names it and its node.
        GraphError: what it describes is no legal graph.
        MissingDependencyError: onnx is not installed.
    """
    where = os.fspath(path)
    model = load_onnx(path)
    if OURS in model.metadata:
        raise FileFormatError(
            "was written by nervecord, of a program, and says less than that",
            where=where,
            hint="give the program instead: nervecord run policy.nervecord --engine onnxruntime",
        )
    with np.errstate(all="ignore"):  # what is not finite is refused by name below
        graph = _Reader(model, where).graph(SECONDS if dt is None else dt)
    name = unprintable(graph)
    if name is not None:
        raise FileFormatError(f"the name {name!r} cannot be printed", where=where)
    return require(graph, Level.DISCRETE, where=where)


@dataclass(frozen=True, slots=True)
class _Signal:
    """A row of values that depends on the observation.

    Args:
        source: the graph's node that gives x.
        shape: as the file has it, [1, n] and the like.
        weight, bias: of a connection that is not in the graph yet: weight x + bias; None, None: x itself.
        scale, shift: then x * scale + shift; None where there is none.
        clip: then within low..high.
        normal: (mean, divisor) of (x - mean) / divisor, where x is what enters and nothing else was done to it.
        origin: the file's names for what makes it.
        ordered: what the file has is another row in the same order, such as its softmax. chosen: the index of its
            largest value.
    """

    source: str
    shape: tuple[int, ...]
    weight: Array | None = None
    bias: Array | None = None
    scale: Array | None = None
    shift: Array | None = None
    clip: tuple[Array, Array] | None = None
    normal: tuple[Array, Array | None] | None = None
    origin: tuple[str, ...] = ()
    ordered: bool = False
    chosen: bool = False

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def plain(self) -> bool:
        """Whether it is what its source gives."""
        return (
            self.weight is None
            and self.scale is None
            and self.shift is None
            and self.clip is None
            and (self.normal is None)
        )


class _Reader:
    """Reads one file."""

    def __init__(self, file: OnnxFile, where: str) -> None:
        self.file, self.where = file, where
        self.nodes: dict[str, Op] = {}
        self.edges: list[Edge] = []
        self.constants: dict[str, Array] = dict(file.constants)
        self.signals: dict[str, _Signal] = {}
        self.unread: dict[str, tuple[OnnxNode, tuple[int, ...] | None]] = {}
        self.sums: dict[str, _Signal] = {}

    def wrong(self, message: str, node: OnnxNode | None = None, hint: str | None = None) -> FileFormatError:
        at = f"{self.where}: node {node.name[:80]!r}" if node is not None else self.where
        # The file chooses the names of operators and inputs.
        return FileFormatError(printable(message), where=at, hint=hint)

    def graph(self, dt: float) -> Graph:
        output = self._wanted()
        self._enter()
        for node in self._needed(output):
            self._read(node)
        if output in self.unread:
            raise self._unknown(self.unread[output][0])
        if output not in self.signals:
            raise self.wrong(f"its output {output[:80]!r} does not depend on its input")
        self._leave(self.signals[output])
        return Graph(Level.DISCRETE, self.nodes, tuple(self.edges), dt)

    def _wanted(self) -> str:
        if not self.file.outputs:
            raise self.wrong("has no output")
        return ACTIONS if ACTIONS in self.file.outputs else self.file.outputs[0]

    def _enter(self) -> None:
        inputs = self.file.inputs
        if len(inputs) != 1:
            names = ", ".join(name[:40] for name in list(inputs)[:8]) or "none"
            raise self.wrong(
                f"has {len(inputs)} inputs ({names}), and one is read: the observation",
                hint="a network that carries state cannot be read" if len(inputs) > 1 else None,
            )
        ((name, shape),) = inputs.items()
        sizes = [axis for axis in shape if axis is not None and axis != 1]
        if not shape or shape[-1] is None or len(sizes) > 1 or (sizes and sizes[0] != shape[-1]):
            raise self.wrong(
                f"its input {name[:80]!r} has the shape {['?' if k is None else k for k in shape]}, a row [1, n] of "
                "known length is needed"
            )
        self.nodes["observation"] = Input((shape[-1],), origin=(name,))
        self.signals[name] = _Signal("observation", tuple(1 if axis is None else axis for axis in shape))

    def _needed(self, last: str) -> list[OnnxNode]:
        """The nodes that lead to a value, in the file's order, which must be one of execution."""
        makers: dict[str, int] = {}
        for k, node in enumerate(self.file.nodes):
            for output in node.outputs:
                if output and (output in makers or output in self.file.inputs or output in self.constants):
                    raise self.wrong(f"the value {output[:80]!r} is made twice", node)
                makers[output] = k
        needed: set[int] = set()
        waiting = [last]
        while waiting:
            k = makers.get(waiting.pop(), -1)
            if k >= 0 and k not in needed:
                needed.add(k)
                waiting += [name for name in self.file.nodes[k].inputs if name]
        return [self.file.nodes[k] for k in sorted(needed)]

    # ------------------------------------------------------------------------------------------ operators

    def _read(self, node: OnnxNode) -> None:
        for name in node.inputs:
            if name and not any(name in names for names in (self.constants, self.signals, self.unread, self.sums)):
                raise self.wrong(f"takes {name[:80]!r}, which nothing before it gives", node)
        try:
            if not self._known(node):
                # A critic's or a noise's part may only lend its shape: what matters is whether its values are needed.
                culprits = [self.unread[name] for name in node.inputs if name in self.unread]
                self.unread[node.outputs[0]] = (culprits[0][0] if culprits else node), self._shape_of(node)
        except (ValueError, IndexError, TypeError, OverflowError, KeyError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise self.wrong(f"{node.kind[:80]}: {' '.join(str(error).split())[:200]}", node) from None

    def _known(self, node: OnnxNode) -> bool:
        """Read a node; False where nothing is known of what it gives but perhaps its shape."""
        inputs = [name for name in node.inputs if name]
        if node.kind == "Shape" and len(inputs) == 1:
            shape = self._shape(inputs[0])
            if shape is not None:
                self.constants[node.outputs[0]] = np.array(shape, dtype=np.int64)
            return shape is not None
        if any(name in self.unread for name in inputs):
            return False
        signals = [name for name in inputs if name in self.signals]
        if node.kind == "Sub" and len(inputs) == 2 and inputs[1] in self.sums:
            if self.signals.get(inputs[0]) is self.sums[inputs[1]]:
                self.signals[node.outputs[0]] = replace(self.signals[inputs[0]], ordered=True)
                return True
            return False
        if any(name in self.sums for name in inputs):
            return False
        if not signals:
            value = fold(node, [self.constants.get(name) for name in node.inputs])
            if value is not None:
                self.constants[node.outputs[0]] = value
            return value is not None
        if node.kind == "ReduceLogSumExp":
            self.sums[node.outputs[0]] = self.signals[signals[0]]
            return True
        signal = self._made(node, signals)
        if signal is not None:
            self.signals[node.outputs[0]] = signal
        return signal is not None

    def _shape(self, name: str) -> tuple[int, ...] | None:
        if name in self.signals and not self.signals[name].chosen:
            return self.signals[name].shape
        if name in self.constants:
            return self.constants[name].shape
        return self.unread[name][1] if name in self.unread else None

    def _shape_of(self, node: OnnxNode) -> tuple[int, ...] | None:
        """The shape of what a node gives, where its inputs say it."""
        shapes = [self._shape(name) for name in node.inputs if name]
        if node.kind not in ELEMENTWISE or any(shape is None for shape in shapes):
            return None
        return np.broadcast_shapes(*(shape for shape in shapes if shape is not None))

    def _unknown(self, node: OnnxNode) -> FileFormatError:
        return self.wrong(
            f"the operator {node.kind[:80]} cannot be read",
            node,
            hint="multilayer perceptrons are: Gemm, MatMul, Add, Sub, Mul, Div, Tanh, Relu, Elu, Clip, and what "
            "shapes a row",
        )

    def _made(self, node: OnnxNode, names: list[str]) -> _Signal | None:
        """What an operator makes of a signal; None where that is not known here."""
        x, kind = self.signals[names[0]], node.kind
        if len(names) > 1 or (node.inputs[0] != names[0] and kind not in ("Add", "Mul", "Sub", "Max", "Min")):
            return None
        if kind in ("Identity", "Dropout"):
            return x
        if x.chosen:
            return x if kind in ("Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten") else None
        if kind == "ArgMax":
            return self._chosen(node, x)
        if kind in ("Softmax", "LogSoftmax"):
            return replace(x, ordered=True)
        if x.ordered:
            return None
        match kind:
            case "Cast":
                return x if node.attributes.get("to") in (1, 11) else None
            case "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" | "Expand":
                return self._shaped(node, x)
            case "Gemm" | "MatMul":
                return self._connected(node, x)
            case "Add" | "Sub" | "Mul" | "Div":
                return self._moved(node, x)
            case "Clip" | "Max" | "Min":
                return self._clipped(node, x)
            case "Tanh" | "Relu" | "Elu":
                return self._activated(node, x)
        return None

    def _shaped(self, node: OnnxNode, x: _Signal) -> _Signal | None:
        shape: tuple[int, ...]
        match node.kind:
            case "Flatten":
                axis = node.attributes.get("axis", 1)
                if not isinstance(axis, int) or not -len(x.shape) <= axis <= len(x.shape):
                    return None
                axis %= max(len(x.shape), 1) if axis < 0 else len(x.shape) + 1
                shape = (int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:])))
            case "Reshape":
                if len(node.inputs) != 2:
                    return None
                shape = target_shape(x.shape, self.constants[node.inputs[1]])
            case "Expand":
                shape = np.broadcast_shapes(x.shape, tuple(int(k) for k in self.constants[node.inputs[1]].ravel()))
            case _:
                requested = self.constants[node.inputs[1]] if len(node.inputs) > 1 else node.attributes.get("axes", ())
                axes = tuple(int(k) for k in np.ravel(np.asarray(requested)))
                shadow = np.empty(x.shape, dtype=np.int8)
                if node.kind == "Squeeze":
                    shape = np.squeeze(shadow, axes or None).shape
                else:
                    shape = np.expand_dims(shadow, axes).shape
        if not shape or shape[-1] != x.size or math.prod(shape) != x.size:
            raise self.wrong(f"{node.kind} makes the shape {shape} of a row of {x.size}, which is no row", node)
        return replace(x, shape=shape)

    def _connected(self, node: OnnxNode, x: _Signal) -> _Signal | None:
        attributes = node.attributes
        weight = np.asarray(self.constants[node.inputs[1]], dtype=np.float64)
        bias = np.zeros(1)
        if node.kind == "Gemm":
            if attributes.get("transA", 0):
                return None
            weight = weight if attributes.get("transB", 0) else weight.T
            weight = weight * _number(attributes.get("alpha", 1.0))
            if len(node.inputs) > 2 and node.inputs[2]:
                bias = np.asarray(self.constants[node.inputs[2]], np.float64) * _number(attributes.get("beta", 1.0))
        else:
            weight = weight.T
        if weight.ndim != 2 or weight.shape[1] != x.size:
            raise self.wrong(f"{node.kind} takes {weight.shape[1:]} values of a row of {x.size}", node)
        size = weight.shape[0]
        bias = np.broadcast_to(bias.reshape(-1), (size,))
        at, scale, shift = self._for_connection(x)
        if shift is not None:
            bias = bias + matmul(weight, shift)
        if scale is not None:
            weight = weight * scale
        return _Signal(at, (*x.shape[:-1], size), weight, bias, origin=(node.name,))

    def _for_connection(self, x: _Signal) -> tuple[str, Array | None, Array | None]:
        """A node of the graph, and what is left to do to its values, which the next connection takes in."""
        if x.weight is not None or x.clip is not None or x.normal is not None:
            return self._settled(x), None, None
        return x.source, x.scale, x.shift

    def _moved(self, node: OnnxNode, x: _Signal) -> _Signal:
        """x + c, x - c, c - x, x * c, x / c."""
        first = node.inputs[0] in self.signals
        c = np.asarray(self.constants[node.inputs[1 if first else 0]], dtype=np.float64)
        if c.size not in (1, x.size):
            raise self.wrong(f"{node.kind} has {c.size} constants for a row of {x.size}", node)
        c = np.broadcast_to(c.reshape(-1), (x.size,))
        kind = node.kind
        if kind == "Div" and (c == 0).any():
            raise self.wrong("Div divides by zero", node)
        if x.clip is not None:
            x = _Signal(self._settled(x), x.shape)
        if self._enters(x) and first and kind in ("Sub", "Add") and x.normal is None:
            return replace(x, normal=(c if kind == "Sub" else -c, None))
        if self._enters(x) and first and kind == "Div":
            mean, divisor = x.normal or (np.zeros(x.size), None)
            if divisor is None and (c > 0).all():
                return replace(x, normal=(mean, c))
        if x.normal is not None:
            x = _Signal(self._settled(x), x.shape)
        one, zero = np.ones(x.size), np.zeros(x.size)
        match kind:
            case "Add":
                times, plus = one, c
            case "Sub":
                times, plus = (one, -c) if first else (-one, c)
            case "Mul":
                times, plus = c, zero
            case _:
                times, plus = 1.0 / c, zero
        if x.weight is not None and x.bias is not None:
            return replace(x, weight=x.weight * times[:, None], bias=x.bias * times + plus)
        scale, shift = (one if x.scale is None else x.scale), (zero if x.shift is None else x.shift)
        return replace(x, scale=scale * times, shift=shift * times + plus)

    def _enters(self, x: _Signal) -> bool:
        """Whether nothing has been done to the observation but what a normaliser does."""
        return isinstance(self.nodes[x.source], Input) and x.weight is None and x.scale is None and x.clip is None

    def _clipped(self, node: OnnxNode, x: _Signal) -> _Signal:
        low, high = (np.full(x.size, end) for end in (-np.inf, np.inf))
        if node.kind == "Clip":
            limits = [self.constants[name] if name else None for name in node.inputs[1:3]]
            limits += [None] * (2 - len(limits))
            ends = [
                value if value is not None else node.attributes.get(name)
                for value, name in zip(limits, ("min", "max"), strict=True)
            ]
            low = low if ends[0] is None else np.broadcast_to(np.asarray(ends[0], np.float64).reshape(-1), (x.size,))
            high = high if ends[1] is None else np.broadcast_to(np.asarray(ends[1], np.float64).reshape(-1), (x.size,))
        else:
            others = [self.constants[name] for name in node.inputs if name not in self.signals]
            for c in others:
                c = np.broadcast_to(np.asarray(c, np.float64).reshape(-1), (x.size,))
                low, high = (np.maximum(low, c), high) if node.kind == "Max" else (low, np.minimum(high, c))
        if self._enters(x) and x.normal is None:
            x = replace(x, normal=(np.zeros(x.size), None))
        if x.clip is not None:
            low, high = np.clip(x.clip[0], low, high), np.clip(x.clip[1], low, high)
        if (low > high).any() or np.isnan(low).any() or np.isnan(high).any():
            raise self.wrong(f"{node.kind} has no value between its limits", node)
        return replace(x, clip=(low, high), origin=(*x.origin, node.name) if not x.origin else x.origin)

    def _activated(self, node: OnnxNode, x: _Signal) -> _Signal:
        source = self._settled(x)
        alpha = _number(node.attributes.get("alpha", 1.0))
        if node.kind == "Elu" and not alpha > 0:
            raise self.wrong(f"Elu has the alpha {alpha:g}, more than 0 is needed", node)
        function = cast(Function, node.kind.lower())
        op = Activation(function, (x.size,), alpha if node.kind == "Elu" else 1.0, origin=(node.name,))
        return _Signal(self._put(function, op, source), x.shape)

    def _chosen(self, node: OnnxNode, x: _Signal) -> _Signal | None:
        if node.attributes.get("axis", 0) not in (-1, len(x.shape) - 1) or node.attributes.get("select_last_index", 0):
            return None
        return replace(x, chosen=True)

    # ------------------------------------------------------------------------------------------ the graph

    def _put(self, label: str, op: Op, source: str) -> str:
        """A node of the graph behind another one."""
        number = 1 + sum(name.startswith(label) for name in self.nodes)
        name = f"{label}{number}"
        self.nodes[name] = op
        self.edges.append((source, name))
        return name

    def _settled(self, x: _Signal) -> str:
        """The node of the graph that gives a signal, made here where it is not there yet."""
        if x.plain:
            return x.source
        if x.normal is not None:
            return self._normalised(x)
        if x.clip is not None:
            raise self.wrong(
                "limits a value inside the network, and can only do so to the observation or the action",
                next(node for node in self.file.nodes if node.kind in ("Clip", "Max", "Min")),
            )
        if x.weight is None:
            scale = np.ones(x.size) if x.scale is None else x.scale
            if x.size > MOST_DIAGONAL:
                raise self.wrong(f"multiplies a row of {x.size}, the limit is {MOST_DIAGONAL}")
            return self._put("fc", Affine(np.diag(scale), x.shift, origin=x.origin), x.source)
        bias = x.bias if x.bias is not None and x.bias.any() else None
        return self._put("fc", Affine(x.weight, bias, origin=x.origin), x.source)

    def _normalised(self, x: _Signal) -> str:
        assert x.normal is not None
        mean, divisor = x.normal
        divisor = np.ones(x.size) if divisor is None else divisor
        clip = float(LARGEST_VALUE)
        if x.clip is not None:
            low, high = x.clip
            if not (high == high[0]).all() or not (low == -high).all() or not 0 < high[0] <= LARGEST_VALUE:
                raise self.wrong("its observation is limited, not to -c..c of one c for all channels")
            clip = float(high[0])
        # The square of a float32 is exact in float64, and its root is that float32 again.
        return self._put("normalise", Normalise(mean, divisor * divisor, 0.0, clip), x.source)

    def _leave(self, x: _Signal) -> None:
        decode: Op | None = None
        if x.ordered and not x.chosen:
            raise self.wrong("its output is a softmax: how likely actions are, not which one is taken")
        if x.chosen:
            x = replace(x, chosen=False)
            if x.clip is not None:
                raise self.wrong("limits what it then chooses by")
            decode = ArgmaxDecode(x.size)
        elif x.clip is not None and x.normal is None:
            low, high = x.clip
            most = float(np.finfo(np.float32).max)
            one = np.ones(x.size)
            decode = Decode(one, 0 * one, np.maximum(low, -most), np.minimum(high, most), origin=x.origin[-1:])
            x = replace(x, clip=None)
        source = self._settled(x)
        if not any(isinstance(op, Affine | Activation) for op in self.nodes.values()):
            raise self.wrong("holds no network: its output is its input, shaped or moved")
        if decode is not None:
            source = self._put("decode", decode, source)
        self.nodes["action"] = Output((1 if isinstance(decode, ArgmaxDecode) else x.size,))
        self.edges.append((source, "action"))


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number")
    return float(value)
