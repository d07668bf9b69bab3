"""Connections: weighted ones, and those that only pass values on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.blas import einsum, matmul
from nervecord.compiler.body.trace import Tracer, Value
from nervecord.compiler.ops import fields
from nervecord.compiler.ops.fields import Array, Shape
from nervecord.compiler.ops.level import FLOAT_LEVELS, Level
from nervecord.compiler.ops.nirnode import Fields
from nervecord.compiler.ops.op import NirForm, Op, Role, State, Synapses
from nervecord.errors import GraphError, no_case

LONGEST_DELAY = 1 << 16
"""Steps: every step of a delay is kept in memory."""
WINDOWS = 1 << 24
"""Values that a convolution lays out for one product, unless a single row of its output takes more."""


class Matrix(Op):
    """What connections share that multiply by a matrix `weight` (out, in) and take `delay` steps."""

    __slots__ = ()

    weight: Array
    delay: int

    ROLE: ClassVar[Role] = "connection"

    @property
    def in_shape(self) -> Shape:
        return (int(self.weight.shape[1]),)

    @property
    def out_shape(self) -> Shape:
        return (int(self.weight.shape[0]),)

    @property
    def lag(self) -> int:
        return self.delay

    @property
    def stored(self) -> Array:
        """The weights that are stored, in any shape: all that are not zero are among them."""
        return self.weight

    def rows(self, first: int, last: int) -> Array:
        """Rows first..last - 1 of the matrix, zeros included."""
        return self.weight[first:last]

    def synapses(self) -> Synapses:
        nonzero = self.weight != 0
        return Synapses(nonzero.sum(axis=0), int(nonzero.sum(axis=1).max(initial=0)), int(self.weight.size))

    @property
    def operations(self) -> int:
        return int(self.stored.size)


@dataclass(frozen=True, slots=True, eq=False)
class Affine(Matrix):
    """y(t) = W x(t - delay) + b, with x = 0 before the first step.

    The bias is there from the first step on, as on a chip, where it belongs to the neuron. A cycle needs a delay.
    """

    weight: Array = fields.array("weights", "out", "in")
    bias: Array | None = fields.array("added to every output", "out", default=None)
    delay: int = fields.integer("whole steps", 0, LONGEST_DELAY, 0)

    LEVELS: ClassVar[frozenset[Level]] = FLOAT_LEVELS
    NIR: ClassVar[tuple[str, ...]] = ("Affine", "Linear")

    def step(self, state: State, x: Array, arithmetic: Arithmetic | None = None) -> Array:
        y = matmul(x, self.weight.T)
        return y if self.bias is None else y + self.bias

    @classmethod
    def from_nir(cls, nir_fields: Fields, fed: Shape | None) -> Op:
        bias = nir_fields.array("bias", axes=1) if nir_fields.type == "Affine" else None
        return cls(nir_fields.array("weight", axes=2), bias, origin=nir_fields.origin)

    def to_nir(self, dt: float, name: str) -> NirForm:
        if self.bias is None:
            return "Linear", {"weight": self.weight}
        return "Affine", {"weight": self.weight, "bias": self.bias}


@dataclass(frozen=True, slots=True, eq=False)
class Conv(Op):
    """Cross-correlation of (channels, *size) with a kernel, plus a bias per output channel; 1 or 2 spatial axes."""

    weight: Array = fields.array("(out channels, in channels / groups, *kernel)", "out", "in", "*")
    bias: Array | None = fields.array("(out channels,)", "out", default=None)
    stride: Shape = fields.pair("steps of the kernel", 1, (1, 1))
    padding: Shape = fields.pair("zeros at both ends of each axis", 0, (0, 0))
    dilation: Shape = fields.pair("distance of the kernel's taps", 1, (1, 1))
    groups: int = fields.integer("groups of channels that do not mix", 1, default=1)
    input_size: Shape = fields.shape("spatial size of the input", default=(1, 1))

    ROLE: ClassVar[Role] = "connection"
    LEVELS: ClassVar[frozenset[Level]] = FLOAT_LEVELS
    NIR: ClassVar[tuple[str, ...]] = ("Conv1d", "Conv2d")

    @classmethod
    def kinds(cls, level: Level) -> tuple[str, ...]:
        return cls.NIR if level in cls.LEVELS else ()

    @property
    def kind(self) -> str:
        return f"Conv{len(self.input_size)}d"

    @property
    def in_shape(self) -> Shape:
        return (int(self.weight.shape[1]) * self.groups, *self.input_size)

    @property
    def out_shape(self) -> Shape:
        spans = zip(self.input_size, self.padding, self.dilation, self.weight.shape[2:], self.stride, strict=True)
        sizes = ((size + 2 * pad - dil * (k - 1) - 1) // step + 1 for size, pad, dil, k, step in spans)
        return (int(self.weight.shape[0]), *sizes)

    def violations(self) -> Iterator[fields.Violation]:
        axes = self.weight.ndim - 2
        violations = [v for v in fields.violations(self) if not (v[0] == "shape" and v[1].startswith("weight has"))]
        yield from violations
        spatial = (self.stride, self.padding, self.dilation, self.input_size)
        if axes not in (1, 2) or any(len(values) != axes for values in spatial):
            yield "shape", f"weight has {self.weight.ndim} axes, and its settings are for other ones", None, None
        elif not violations and (self.weight.shape[0] % self.groups or min(self.out_shape) < 1):
            yield "shape", f"its kernel or groups do not fit its input {self.in_shape}", None, None

    def step(self, state: State, x: Array, arithmetic: Arithmetic | None = None) -> Array:
        axes = len(self.input_size)
        padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in self.padding)])
        # A product lays out what each place of the kernel meets: so many rows of the output as fit, at a time.
        row = len(x) * math.prod(self.in_shape[:1] + self.weight.shape[2:] + self.out_shape[2:])
        at_once = max(1, WINDOWS // row)
        rows = self.out_shape[1]
        parts = [self._products(padded, k, min(k + at_once, rows)) for k in range(0, rows, at_once)]
        y = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        return y if self.bias is None else y + self.bias.reshape(-1, *(1,) * axes)

    def _products(self, padded: Array, first: int, last: int) -> Array:
        """Rows first..last - 1 of the output, without the bias."""
        axes = len(self.input_size)
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.weight.shape[2:], strict=True)]
        padded = padded[:, :, first * self.stride[0] : (last - 1) * self.stride[0] + reach[0]]
        spatial = tuple(range(2, 2 + axes))
        windows: Array = sliding_window_view(padded, reach, axis=spatial)
        places = (slice(None), slice(None), *(slice(None, None, s) for s in self.stride))
        windows = windows[(*places, *(slice(None, None, d) for d in self.dilation))]
        batch, channels = windows.shape[:2]
        split = windows.reshape(batch, self.groups, channels // self.groups, *windows.shape[2:])
        kernel = self.weight.reshape(self.groups, -1, *self.weight.shape[1:])
        out, taps = "yz"[:axes], "vw"[:axes]
        y = einsum(f"bgc{out}{taps},goc{taps}->bgo{out}", split, kernel)
        return y.reshape(batch, self.out_shape[0], last - first, *self.out_shape[2:])

    @property
    def laid_out(self) -> int:
        return _padded(self.in_shape, self.padding)

    @property
    def operations(self) -> int:
        return self.size * math.prod(self.weight.shape[1:])

    def synapses(self) -> Synapses:
        """As if unrolled, zero weights of the kernel counted: per axis, how many outputs each input position feeds."""
        reach = []
        sizes = zip(
            self.input_size,
            self.out_shape[1:],
            self.weight.shape[2:],
            self.stride,
            self.padding,
            self.dilation,
            strict=True,
        )
        for size_in, size_out, kernel, step, pad, dilation in sizes:
            reach.append(_hits(size_in, size_out, kernel, step, pad, dilation))
        plane = reach[0]
        for hits in reach[1:]:
            plane = np.multiply.outer(plane, hits)
        plane = plane * (self.out_shape[0] // self.groups)
        counts = np.broadcast_to(plane, (self.in_shape[0], *plane.shape)).ravel()
        fan_in = int(np.prod(self.weight.shape[1:]))
        return Synapses(counts, fan_in, fan_in * self.size)

    @classmethod
    def from_nir(cls, nir_fields: Fields, fed: Shape | None) -> Op:
        axes = 1 if nir_fields.type == "Conv1d" else 2
        weight = nir_fields.array("weight", axes=2 + axes)
        dilation, stride = (nir_fields.sizes(field, axes, least=1) for field in ("dilation", "stride"))
        has_size = nir_fields.has("input_shape") and nir_fields.present("input_shape")
        size = nir_fields.sizes("input_shape", axes, least=1) if has_size else nir_fields.fed(fed, axes=1 + axes)[1:]
        padding = _padding(nir_fields, axes, weight.shape[2:], stride, dilation)
        groups = nir_fields.integer("groups", least=1)
        if weight.shape[0] % groups:
            raise nir_fields.error(f"{weight.shape[0]} output channels do not divide into {groups} groups")
        op = cls(
            weight, nir_fields.array("bias", axes=1), stride, padding, dilation, groups, size, origin=nir_fields.origin
        )
        if op.bias is not None and op.bias.shape != weight.shape[:1]:
            raise nir_fields.error(f"bias has shape {op.bias.shape}, the output {weight.shape[0]} channels")
        if min(op.out_shape) < 1:
            raise nir_fields.error(f"its kernel does not fit its input {op.in_shape}")
        return op

    def to_nir(self, dt: float, name: str) -> NirForm:
        def as_array(values: Shape) -> Array:
            return np.array(values if len(values) > 1 else values[0])

        bias = np.zeros(self.weight.shape[0]) if self.bias is None else self.bias  # NIR's always have one
        return self.kind, {
            "input_shape": as_array(self.input_size),
            "weight": self.weight,
            "stride": as_array(self.stride),
            "padding": as_array(self.padding),
            "dilation": as_array(self.dilation),
            "groups": np.array(self.groups),
            "bias": bias,
        }


def _padded(shape: Shape, padding: Shape) -> int:
    """Values of (channels, *size) with so many zeros at both ends of each axis."""
    return shape[0] * math.prod(size + 2 * pad for size, pad in zip(shape[1:], padding, strict=True))


def _hits(size_in: int, size_out: int, kernel: int, step: int, pad: int, dilation: int) -> Array:
    """(size_in,) how many places of the output each position feeds along one axis."""
    # A place of the kernel meets every step-th position from its first to its last: one more there, one less behind.
    first = np.arange(kernel, dtype=np.int64) * dilation - pad
    skipped = np.maximum(-(first // step), 0)
    met = np.minimum(size_out, -(-(size_in - first) // step))
    inside = met > skipped
    begins, every = (first + skipped * step)[inside], min(step, size_in)
    changes = np.zeros((size_in // every + 2) * every, dtype=np.int64)
    np.add.at(changes, begins, 1)
    np.add.at(changes, begins + every * (met - skipped)[inside], -1)
    return np.asarray(changes.reshape(-1, every).cumsum(axis=0).ravel()[:size_in])


def _padding(nir_fields: Fields, axes: int, kernel: Shape, stride: Shape, dilation: Shape) -> Shape:
    match nir_fields.text("padding"):
        case None:
            return nir_fields.sizes("padding", axes, least=0)
        case "valid":
            return (0,) * axes
        case "same":
            reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            if any(s != 1 for s in stride) or any(r % 2 for r in reach):
                raise nir_fields.error(f"padding 'same' with stride {stride} and kernel {kernel} is not symmetric")
            return tuple(r // 2 for r in reach)
        case other:
            raise nir_fields.error(f"padding is {other!r}, neither numbers nor 'same' or 'valid'")


# --------------------------------------------------------------------------------------------------------------------
# What passes values on


@dataclass(frozen=True, slots=True, eq=False)
class Scale(Op):
    """y = scale * x, elementwise."""

    scale: Array = fields.array("factors, of the op's shape", "...")

    ROLE: ClassVar[Role] = "passing"
    LEVELS: ClassVar[frozenset[Level]] = FLOAT_LEVELS
    NIR: ClassVar[tuple[str, ...]] = ("Scale",)

    @property
    def in_shape(self) -> Shape:
        return tuple(self.scale.shape)

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        return do.constant("scale", self.scale) * do.x

    @classmethod
    def from_nir(cls, nir_fields: Fields, fed: Shape | None) -> Op:
        return cls(**nir_fields.elementwise({"scale": "scale"}, fed), origin=nir_fields.origin)

    def to_nir(self, dt: float, name: str) -> NirForm:
        return "Scale", {"scale": self.scale}


AXES = -fields.MOST_AXES, fields.MOST_AXES - 1
"""Numbers of axes."""


@dataclass(frozen=True, slots=True, eq=False)
class Flatten(Op):
    """y = x with its axes start..end (of the shape without the batch) joined into one."""

    input_shape: Shape = fields.shape("shape of x")
    start: int = fields.integer("first axis joined; negative ones count from the end", *AXES)
    end: int = fields.integer("last axis joined", *AXES)

    ROLE: ClassVar[Role] = "passing"
    LEVELS: ClassVar[frozenset[Level]] = FLOAT_LEVELS
    NIR: ClassVar[tuple[str, ...]] = ("Flatten",)

    @property
    def in_shape(self) -> Shape:
        return self.input_shape

    @property
    def out_shape(self) -> Shape:
        end = self.end % len(self.input_shape)
        start = self.start % len(self.input_shape)
        joined = math.prod(self.input_shape[start : end + 1])
        return self.input_shape[:start] + (joined,) + self.input_shape[end + 1 :]

    def violations(self) -> Iterator[fields.Violation]:
        violations = list(fields.violations(self))
        yield from violations
        axes = len(self.input_shape)
        if not violations and not _are_axes(self.start, self.end, axes):
            yield "axes", f"axes {self.start}..{self.end} are none of {self.input_shape}, in this order", None, None

    def step(self, state: State, x: Array, arithmetic: Arithmetic | None = None) -> Array:
        return x.reshape(x.shape[0], *self.out_shape)

    @classmethod
    def from_nir(cls, nir_fields: Fields, fed: Shape | None) -> Op:
        shape = nir_fields.shape("input_type") if nir_fields.has("input_type") else nir_fields.fed(fed)
        start, end = nir_fields.integer("start_dim"), nir_fields.integer("end_dim")
        if not _are_axes(start, end, len(shape)):
            raise nir_fields.error(
                f"start_dim {start} and end_dim {end} are no axes of the shape {shape}, in this order"
            )
        return cls(shape, start, end, origin=nir_fields.origin)

    def to_nir(self, dt: float, name: str) -> NirForm:
        axes = len(self.input_shape)
        start, end = self.start % axes, self.end % axes
        # The released nir computes shapes right for -1 and for non-negative axes only.
        end = -1 if end == axes - 1 else end
        return "Flatten", {
            "input_type": np.array(self.input_shape),
            "start_dim": np.array(start),
            "end_dim": np.array(end),
        }


def _are_axes(start: int, end: int, axes: int) -> bool:
    return -axes <= start < axes and -axes <= end < axes and start % axes <= end % axes


Pooling: TypeAlias = Literal["sum", "average"]


@dataclass(frozen=True, slots=True, eq=False)
class Pool(Op):
    """Sum or average pooling of (channels, height, width); what is padded counts in an average."""

    mode: Pooling = fields.choice("what is made of a window", get_args(Pooling))
    kernel: Shape = fields.pair("size of a window", 1)
    stride: Shape = fields.pair("distance of windows", 1)
    padding: Shape = fields.pair("zeros at both ends of each axis", 0)
    input_shape: Shape = fields.shape("(channels, height, width)", 2)

    ROLE: ClassVar[Role] = "passing"
    LEVELS: ClassVar[frozenset[Level]] = FLOAT_LEVELS
    NIR: ClassVar[tuple[str, ...]] = ("SumPool2d", "AvgPool2d")

    @classmethod
    def kinds(cls, level: Level) -> tuple[str, ...]:
        return cls.NIR if level in cls.LEVELS else ()

    @property
    def kind(self) -> str:
        return "SumPool2d" if self.mode == "sum" else "AvgPool2d"

    @property
    def in_shape(self) -> Shape:
        return self.input_shape

    @property
    def out_shape(self) -> Shape:
        spans = zip(self.input_shape[1:], self.padding, self.kernel, self.stride, strict=True)
        return (self.input_shape[0], *((size + 2 * pad - k) // step + 1 for size, pad, k, step in spans))

    def violations(self) -> Iterator[fields.Violation]:
        violations = list(fields.violations(self))
        yield from violations
        axes = len(self.input_shape) - 1
        if any(len(values) != axes for values in (self.kernel, self.stride, self.padding)):
            yield "shape", f"its settings are not for {axes} spatial axes", None, None
        elif not violations and min(self.out_shape) < 1:
            yield "shape", f"its window does not fit its input {self.input_shape}", None, None

    def step(self, state: State, x: Array, arithmetic: Arithmetic | None = None) -> Array:
        axes = len(self.kernel)
        padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in self.padding)])
        windows: Array = sliding_window_view(padded, self.kernel, axis=tuple(range(2, 2 + axes)))
        windows = windows[(slice(None), slice(None), *(slice(None, None, s) for s in self.stride))]
        over = tuple(range(-axes, 0))
        match self.mode:
            case "sum":
                return windows.sum(axis=over)
            case "average":
                return windows.mean(axis=over)
            case other:
                raise no_case(other, "mode", "definition")

    @property
    def laid_out(self) -> int:
        return _padded(self.in_shape, self.padding)

    @property
    def operations(self) -> int:
        return self.size * math.prod(self.kernel)

    @classmethod
    def from_nir(cls, nir_fields: Fields, fed: Shape | None) -> Op:
        mode: Pooling = "sum" if nir_fields.type == "SumPool2d" else "average"
        kernel, stride = (nir_fields.sizes(field, 2, least=1) for field in ("kernel_size", "stride"))
        padding = nir_fields.sizes("padding", 2, least=0)
        op = cls(mode, kernel, stride, padding, nir_fields.fed(fed, axes=3), origin=nir_fields.origin)
        if min(op.out_shape) < 1:
            raise nir_fields.error(f"its kernel does not fit its input {op.in_shape}")
        return op

    def to_nir(self, dt: float, name: str) -> NirForm:
        if len(self.kernel) != 2:
            raise GraphError("NIR pools over two spatial axes only", where=name)
        fields = {"kernel_size": self.kernel, "stride": self.stride, "padding": self.padding}
        return self.kind, {field: np.array(value) for field, value in fields.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Delay(Op):
    """y(t) = x(t - delay) in continuous time; discretising makes whole steps of it, within a connection."""

    delay: Array = fields.array("seconds, of the op's shape", "...")

    ROLE: ClassVar[Role] = "passing"
    LEVELS: ClassVar[frozenset[Level]] = frozenset({Level.IMPORTED})
    NIR: ClassVar[tuple[str, ...]] = ("Delay",)

    @property
    def in_shape(self) -> Shape:
        return tuple(self.delay.shape)

    @classmethod
    def from_nir(cls, nir_fields: Fields, fed: Shape | None) -> Op:
        return cls(**nir_fields.elementwise({"delay": "delay"}, fed), origin=nir_fields.origin)


@dataclass(frozen=True, slots=True, eq=False)
class Threshold(Op):
    """y = 1 where x > threshold, else 0: a stateless spike."""

    threshold: Array = fields.array("of the op's shape", "...")

    ROLE: ClassVar[Role] = "population"
    LEVELS: ClassVar[frozenset[Level]] = FLOAT_LEVELS
    NIR: ClassVar[tuple[str, ...]] = ("Threshold",)

    @property
    def in_shape(self) -> Shape:
        return tuple(self.threshold.shape)

    @property
    def spikes(self) -> bool:
        return True

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        do.observe("before_spike", do.x)
        return do.as_kind(do.x > do.constant("threshold", self.threshold), "float")

    @classmethod
    def from_nir(cls, nir_fields: Fields, fed: Shape | None) -> Op:
        return cls(**nir_fields.elementwise({"threshold": "threshold"}, fed), origin=nir_fields.origin)

    def to_nir(self, dt: float, name: str) -> NirForm:
        return "Threshold", {"threshold": self.threshold}
