"""Weighted connections that store what is not zero of their matrix: for floats, and in a target's integers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nervecord.compiler.arithmetic import LARGEST_DELAY, Arithmetic
from nervecord.compiler.ops import fields
from nervecord.compiler.ops.connections import LONGEST_DELAY, Matrix
from nervecord.compiler.ops.csr import MOST_WEIGHTS, Csr
from nervecord.compiler.ops.fields import Array, Shape
from nervecord.compiler.ops.integer import Mantissas
from nervecord.compiler.ops.level import FLOAT_LEVELS, Level
from nervecord.compiler.ops.op import NirForm, Part, State, Synapses
from nervecord.errors import GraphError

MOST_DENSE = 1 << 24
"""Weights, zeros included, that such a matrix is laid out with for an engine that has no other form: 128 MiB in 64
bits."""


FAR_PADDED = 16
"""Places of a kernel, all positions together, for each that lies inside the input: beyond that a matrix is not looked
at as a convolution."""


@dataclass(frozen=True, slots=True, eq=False)
class Convolution(Part):
    """The convolution that a sparse matrix unrolls: how its weights repeat, without the weights.

    The matrix takes (channels, *size) flat, in C order, and gives (features, *out) so; a target that convolves may
    store the kernel once.
    """

    features: int = fields.integer("output channels", 1)
    input_shape: Shape = fields.shape("(channels, *size) of what enters", 2)
    kernel: Shape = fields.pair("size of the kernel", 1)
    stride: Shape = fields.pair("steps of the kernel", 1)
    padding: Shape = fields.pair("zeros at both ends of each axis", 0)
    dilation: Shape = fields.pair("distance of the kernel's taps", 1)
    groups: int = fields.integer("groups of channels that do not mix", 1, default=1)

    LEVEL: ClassVar[Level] = Level.DISCRETE
    """It holds no weights, so that it is the same at every level."""

    @property
    def out_size(self) -> Shape:
        """Spatial size of what leaves."""
        spans = zip(self.input_shape[1:], self.padding, self.dilation, self.kernel, self.stride, strict=True)
        return tuple((size + 2 * pad - dil * (k - 1) - 1) // step + 1 for size, pad, dil, k, step in spans)

    def violations(self) -> Iterator[fields.Violation]:
        """What of its settings does not fit together."""
        axes = len(self.input_shape) - 1
        channels = self.input_shape[0]
        if any(len(values) != axes for values in (self.kernel, self.stride, self.padding, self.dilation)):
            yield "convolution", f"its settings are not for {axes} spatial axes", None, None
        elif channels % self.groups or self.features % self.groups or min(self.out_size) < 1:
            yield "convolution", "its kernel or groups do not fit its input", None, None

    def places(self) -> tuple[Array, Array, Array]:
        """(starts, columns, weights) of the matrix: of each stored value its column, and its place in the kernel.

        The kernel is (features, channels / groups, *kernel), flat in C order.
        """
        channels, *size = self.input_shape
        each, positions, taps = channels // self.groups, math.prod(self.out_size), math.prod(self.kernel)
        plane, inside = np.zeros((positions, taps), np.int64), np.ones((positions, taps), bool)
        out = np.unravel_index(np.arange(positions), self.out_size)
        tap = np.unravel_index(np.arange(taps), self.kernel)
        for axis, length in enumerate(size):
            at = out[axis][:, None] * self.stride[axis] - self.padding[axis] + tap[axis][None] * self.dilation[axis]
            inside &= (at >= 0) & (at < length)
            plane = plane * length + at
        # (features, positions, channels of the group, taps), as the rows and their columns stand.
        feature = np.arange(self.features)[:, None, None, None]
        channel = np.arange(each)[None, None, :, None]
        group = feature // (self.features // self.groups)
        shape = (self.features, positions, each, taps)
        mask = np.broadcast_to(inside[None, :, None, :], shape)
        columns = np.broadcast_to((group * each + channel) * math.prod(size) + plane[None, :, None, :], shape)[mask]
        weights = np.broadcast_to((feature * each + channel) * taps + np.arange(taps), shape)[mask]
        counts = np.tile(inside.sum(axis=1) * each, self.features)
        return np.concatenate([[0], np.cumsum(counts)]), columns, weights

    def unrolled(self, kernel: Array) -> Csr:
        """The matrix of a kernel (features, channels / groups, *kernel), its zeros stored."""
        starts, columns, weights = self.places()
        return Csr(kernel.ravel()[weights], columns, starts, math.prod(self.input_shape))

    def kernel_of(self, matrix: Csr) -> Array | None:
        """The kernel that a matrix unrolls, None where it is no such matrix; weights that are never used are zero."""
        rows, taps = self.features * math.prod(self.out_size), math.prod(self.kernel)
        reach = rows * (self.input_shape[0] // self.groups) * taps
        # What stands in a file must not ask for more memory than its weights take.
        if matrix.shape != (rows, math.prod(self.input_shape)) or reach > min(
            MOST_WEIGHTS, FAR_PADDED * (len(matrix.values) + rows)
        ):
            return None
        starts, columns, weights = self.places()
        if not (np.array_equal(matrix.starts, starts) and np.array_equal(matrix.columns, columns)):
            return None
        kernel = np.zeros((self.features, self.input_shape[0] // self.groups, *self.kernel), dtype=matrix.values.dtype)
        flat = kernel.reshape(-1)
        flat[weights] = matrix.values
        return kernel if np.array_equal(flat[weights], matrix.values) else None


class Rows(Matrix):
    """What sparse connections share: a matrix in compressed rows."""

    __slots__ = ()

    values: Array
    columns: Array
    starts: Array
    inputs: int
    convolution: Convolution | None

    @property
    def csr(self) -> Csr:
        """The matrix."""
        return Csr(self.values, self.columns, self.starts, self.inputs)

    @property
    def weight(self) -> Array:  # type: ignore[override]
        """The matrix with its zeros, for what has no other form of it.

        Raises:
            GraphError: it has more than `MOST_DENSE` places.
        """
        places = self.in_shape[0] * self.out_shape[0]
        if places > MOST_DENSE:
            raise GraphError(
                f"has {places} weights with its zeros, and at most {MOST_DENSE} can be laid out",
                where=self.label,
                hint="the engines emulator and definition run it as it is stored",
            )
        return self.csr.dense()

    @property
    def stored(self) -> Array:
        return self.values

    def rows(self, first: int, last: int) -> Array:
        return self.csr.rows(first, last)

    @property
    def in_shape(self) -> Shape:
        return (int(self.inputs),)

    @property
    def out_shape(self) -> Shape:
        return (len(self.starts) - 1,)

    def synapses(self) -> Synapses:
        nonzero = self.values != 0
        fan_out = np.bincount(self.columns[nonzero], minlength=self.inputs)
        fan_in = np.bincount(self.csr.row_of[nonzero], minlength=1)
        return Synapses(fan_out, int(fan_in.max(initial=0)), len(self.values))

    @property
    def operations(self) -> int:
        # Each is looked up, multiplied and added by itself.
        return 8 * len(self.values)

    def violations(self) -> Iterator[fields.Violation]:
        violations = list(fields.violations(self))
        yield from violations
        if violations:
            return
        wrong = [*self.csr.violations(), *(self.convolution.violations() if self.convolution else ())]
        yield from wrong
        if self.convolution is not None and not wrong and self.convolution.kernel_of(self.csr) is None:
            yield "convolution", "its weights are not those of its convolution", None, None


@dataclass(frozen=True, slots=True, eq=False)
class SparseAffine(Rows):
    """An Affine that stores its matrix in compressed rows: y(t) = W x(t - delay) + b.

    What a convolution or a pooling is between flat populations. It means what the Affine of the same matrix means, is
    named as one in findings and specs, and is written to NIR as one.
    """

    values: Array = fields.array("weights that are stored, row by row", "stored")
    columns: Array = fields.array("column of each", "stored", dtype=np.int32)
    starts: Array = fields.array("where each row begins, and the end", "out + 1", dtype=np.int32)
    inputs: int = fields.integer("columns", 1)
    bias: Array | None = fields.array("added to every output", "out", default=None)
    delay: int = fields.integer("whole steps", 0, LONGEST_DELAY, 0)
    convolution: Convolution | None = fields.part("the convolution that it unrolls", optional=True, default=None)

    LEVELS: ClassVar[frozenset[Level]] = FLOAT_LEVELS

    @classmethod
    def kinds(cls, level: Level) -> tuple[str, ...]:
        return ()  # its kind is Affine's

    @property
    def kind(self) -> str:
        return "Affine"

    @classmethod
    def of(cls, matrix: Csr, bias: Array | None = None, delay: int = 0, **more: object) -> SparseAffine:
        """Of a matrix; of one that stores nothing, such as a convolution that reaches padding alone, one zero."""
        matrix = matrix if len(matrix.values) else Csr.zeros(matrix.shape)
        return cls(matrix.values, matrix.columns, matrix.starts, matrix.inputs, bias, delay, **more)  # type: ignore[arg-type]

    def violations(self) -> Iterator[fields.Violation]:
        yield from Rows.violations(self)
        if self.bias is not None and self.bias.shape != self.out_shape:
            yield "shape", f"bias has shape {self.bias.shape}, the output {self.out_shape}", None, None

    def step(self, state: State, x: Array, arithmetic: Arithmetic | None = None) -> Array:
        y = self.csr.products(x)
        return y if self.bias is None else y + self.bias

    def to_nir(self, dt: float, name: str) -> NirForm:
        if self.bias is None:
            return "Linear", {"weight": self.weight}
        return "Affine", {"weight": self.weight, "bias": self.bias}


@dataclass(frozen=True, slots=True, eq=False)
class Sparse(Rows, Mantissas):
    """A Dense that stores its matrix in compressed rows: y(t) = (W x(t - delay)) * 2^weight_exp, rounded down.

    It means what the Dense of the same matrix means, and is named as one in findings and specs.
    """

    values: Array = fields.array("mantissas that are stored, row by row", "stored", dtype=np.int32)
    columns: Array = fields.array("column of each", "stored", dtype=np.int32)
    starts: Array = fields.array("where each row begins, and the end", "out + 1", dtype=np.int32)
    inputs: int = fields.integer("columns", 1)
    weight_exp: int = fields.integer("exponent of the sum", -24, 24, 0)
    weight_bits: int = fields.integer("bits of a mantissa", 1, 16, 8)
    delay: int = fields.integer("steps, those that the target's connections cost included", 0, LARGEST_DELAY, 1)
    convolution: Convolution | None = fields.part("the convolution that it unrolls", optional=True, default=None)

    LEVELS: ClassVar[frozenset[Level]] = frozenset({Level.INTEGER})

    @classmethod
    def kinds(cls, level: Level) -> tuple[str, ...]:
        return ()  # its kind is Dense's

    @property
    def kind(self) -> str:
        return "Dense"

    def by_source(self) -> Csr:
        return self.csr.nonzero().transposed()

    def stepper(self, arithmetic: Arithmetic | None) -> Callable[[State, Array], Array]:
        assert arithmetic is not None
        matrix = self.csr.with_values(self.values.astype(np.int64))
        exponent, shifted = self.weight_exp, arithmetic.shifted
        if arithmetic.shifts_each and exponent < 0:
            return lambda state, x: matrix.products(x.astype(np.int64), -exponent)
        return lambda state, x: shifted(matrix.products(x.astype(np.int64)), exponent)
