"""Every kind of node, each final type one meaning.

A node is a frozen value: scalars and read-only arrays. What it computes stands in its docstring as equations in update
order, and is executed by `compiler.semantics`, the definition every engine is tested against. Nothing is implied:
decay, gain, threshold, reset rule and delay are fields.

Notation: x is the summed input of a node at this step, y its output, v membrane potential, i synaptic current. Shapes
leave out the batch. A spike is 1.0 (float levels) or 1 (integer level). Host nodes stand in `compiler.hostnodes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import numpy as np

from nervecord.compiler.hostnodes import AFTER_CORE as AFTER_CORE
from nervecord.compiler.hostnodes import BEFORE_CORE as BEFORE_CORE
from nervecord.compiler.hostnodes import CHOOSING as CHOOSING
from nervecord.compiler.hostnodes import COUNTING as COUNTING
from nervecord.compiler.hostnodes import HOST_NODES as HOST_NODES
from nervecord.compiler.hostnodes import ArgmaxDecode as ArgmaxDecode
from nervecord.compiler.hostnodes import CountArgmaxDecode as CountArgmaxDecode
from nervecord.compiler.hostnodes import CountDecode as CountDecode
from nervecord.compiler.hostnodes import Decode as Decode
from nervecord.compiler.hostnodes import Normalise as Normalise
from nervecord.compiler.hostnodes import PopulationEncode as PopulationEncode
from nervecord.compiler.hostnodes import Quantise as Quantise
from nervecord.compiler.node import Array, Node, Population, Shape

Reset: TypeAlias = Literal["value", "subtract", "none"]
"""What a spike does to the membrane, in the same step: set it to `reset_value`, subtract the threshold, or nothing."""


# --------------------------------------------------------------------------------------------------------------------
# Ends and stateless nodes, shared by the float levels


@dataclass(frozen=True, slots=True, eq=False)
class Input(Node):
    """Where values enter. y = x."""

    shape: Shape

    @property
    def in_shape(self) -> Shape:
        return self.shape


@dataclass(frozen=True, slots=True, eq=False)
class Output(Node):
    """Where values leave. y = x."""

    shape: Shape

    @property
    def in_shape(self) -> Shape:
        return self.shape


@dataclass(frozen=True, slots=True, eq=False)
class Affine(Node):
    """y(t) = W x(t - delay) + b, with x = 0 before the first step.

    Args:
        weight: (out, in).
        bias: (out,) or None.
        delay: whole steps, 0 at IMPORTED. With a delay the products under way are state, zero at first; the bias is
            there from the first step on, as on a chip, where it belongs to the neuron. A cycle needs a delay.
    """

    weight: Array
    bias: Array | None = None
    delay: int = 0

    ARRAYS: ClassVar[tuple[str, ...]] = ("weight", "bias")

    @property
    def in_shape(self) -> Shape:
        return (int(self.weight.shape[1]),)

    @property
    def out_shape(self) -> Shape:
        return (int(self.weight.shape[0]),)


@dataclass(frozen=True, slots=True, eq=False)
class Scale(Population):
    """y = scale * x, elementwise. scale has the node's shape."""

    scale: Array

    ARRAYS: ClassVar[tuple[str, ...]] = ("scale",)


@dataclass(frozen=True, slots=True, eq=False)
class Flatten(Node):
    """y = x with its axes start..end (of the shape without the batch) joined into one."""

    input_shape: Shape
    start: int
    end: int

    @property
    def in_shape(self) -> Shape:
        return self.input_shape

    @property
    def out_shape(self) -> Shape:
        end = self.end % len(self.input_shape)
        start = self.start % len(self.input_shape)
        joined = int(np.prod(self.input_shape[start : end + 1]))
        return self.input_shape[:start] + (joined,) + self.input_shape[end + 1 :]


@dataclass(frozen=True, slots=True, eq=False)
class Conv2d(Node):
    """Cross-correlation of (C, H, W) with weight (O, C / groups, KH, KW) plus bias (O,). IMPORTED only: inspect."""

    weight: Array
    bias: Array | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    input_hw: tuple[int, int]

    ARRAYS: ClassVar[tuple[str, ...]] = ("weight", "bias")

    @property
    def in_shape(self) -> Shape:
        return (int(self.weight.shape[1]) * self.groups, *self.input_hw)

    @property
    def out_shape(self) -> Shape:
        kernel = self.weight.shape[2:]
        hw = tuple(
            (size + 2 * pad - dil * (k - 1) - 1) // step + 1
            for size, pad, dil, k, step in zip(
                self.input_hw, self.padding, self.dilation, kernel, self.stride, strict=True
            )
        )
        return (int(self.weight.shape[0]), *hw)


@dataclass(frozen=True, slots=True, eq=False)
class Pool2d(Node):
    """Sum or average pooling of (C, H, W). IMPORTED only: inspect."""

    mode: Literal["sum", "average"]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    input_shape: Shape

    @property
    def in_shape(self) -> Shape:
        return self.input_shape

    @property
    def out_shape(self) -> Shape:
        hw = tuple(
            (size + 2 * pad - k) // step + 1
            for size, pad, k, step in zip(self.input_shape[1:], self.padding, self.kernel, self.stride, strict=True)
        )
        return (self.input_shape[0], *hw)


@dataclass(frozen=True, slots=True, eq=False)
class Delay(Population):
    """y(t) = x(t - delay), delay (s) of the node's shape. IMPORTED only; discretising makes whole steps of it."""

    delay: Array

    ARRAYS: ClassVar[tuple[str, ...]] = ("delay",)


@dataclass(frozen=True, slots=True, eq=False)
class Threshold(Population):
    """y = 1 where x > threshold, else 0: a stateless spike. threshold has the node's shape."""

    threshold: Array

    ARRAYS: ClassVar[tuple[str, ...]] = ("threshold",)


# --------------------------------------------------------------------------------------------------------------------
# IMPORTED: what NIR said, in continuous time. All parameters have the population's shape; times in seconds.


@dataclass(frozen=True, slots=True, eq=False)
class ContinuousIntegrator(Population):
    """dv/dt = r x; y = v. NIR's I."""

    r: Array

    ARRAYS: ClassVar[tuple[str, ...]] = ("r",)


@dataclass(frozen=True, slots=True, eq=False)
class ContinuousIF(Population):
    """dv/dt = r x; spike where v > threshold, then v = reset_value. NIR's IF."""

    r: Array
    threshold: Array
    reset_value: Array

    ARRAYS: ClassVar[tuple[str, ...]] = ("r", "threshold", "reset_value")


@dataclass(frozen=True, slots=True, eq=False)
class ContinuousLI(Population):
    """tau dv/dt = (leak - v) + r x; y = v. NIR's LI: non-spiking."""

    tau: Array
    r: Array
    leak: Array

    ARRAYS: ClassVar[tuple[str, ...]] = ("tau", "r", "leak")


@dataclass(frozen=True, slots=True, eq=False)
class ContinuousLIF(Population):
    """tau dv/dt = (leak - v) + r x; spike where v > threshold, then v = reset_value. NIR's LIF."""

    tau: Array
    r: Array
    leak: Array
    threshold: Array
    reset_value: Array

    ARRAYS: ClassVar[tuple[str, ...]] = ("tau", "r", "leak", "threshold", "reset_value")


@dataclass(frozen=True, slots=True, eq=False)
class ContinuousCubaLI(Population):
    """tau_syn di/dt = -i + w_in x; tau dv/dt = (leak - v) + r i; y = v. NIR's CubaLI: non-spiking."""

    tau_syn: Array
    tau: Array
    r: Array
    leak: Array
    w_in: Array

    ARRAYS: ClassVar[tuple[str, ...]] = ("tau_syn", "tau", "r", "leak", "w_in")


@dataclass(frozen=True, slots=True, eq=False)
class ContinuousCubaLIF(Population):
    """tau_syn di/dt = -i + w_in x; tau dv/dt = (leak - v) + r i; spike where v > threshold, then v = reset_value."""

    tau_syn: Array
    tau: Array
    r: Array
    leak: Array
    threshold: Array
    reset_value: Array
    w_in: Array

    ARRAYS: ClassVar[tuple[str, ...]] = ("tau_syn", "tau", "r", "leak", "threshold", "reset_value", "w_in")


# --------------------------------------------------------------------------------------------------------------------
# DISCRETE: executable float64. One step is one core time step of dt seconds.


@dataclass(frozen=True, slots=True, eq=False)
class DiscreteLI(Population):
    """v = decay * v + gain * x + leak; y = v. All of shape (n,): a leaky readout (decay 1: an integrator)."""

    decay: Array
    gain: Array
    leak: Array

    ARRAYS: ClassVar[tuple[str, ...]] = ("decay", "gain", "leak")


@dataclass(frozen=True, slots=True, eq=False)
class DiscreteLIF(Population):
    """v = decay * v + gain * x + leak; y = 1 where v > threshold; reset where y; all in this order within the step.

    Reset "value": v = reset_value; "subtract": v = v - threshold; "none": v stays.
    """

    decay: Array
    gain: Array
    leak: Array
    threshold: Array
    reset_value: Array
    reset: Reset = "value"

    ARRAYS: ClassVar[tuple[str, ...]] = ("decay", "gain", "leak", "threshold", "reset_value")


@dataclass(frozen=True, slots=True, eq=False)
class DiscreteCubaLI(Population):
    """i = current_decay * i + current_gain * x; v = decay * v + gain * i + leak; y = v."""

    current_decay: Array
    current_gain: Array
    decay: Array
    gain: Array
    leak: Array

    ARRAYS: ClassVar[tuple[str, ...]] = ("current_decay", "current_gain", "decay", "gain", "leak")


@dataclass(frozen=True, slots=True, eq=False)
class DiscreteCubaLIF(Population):
    """i = current_decay * i + current_gain * x; v = decay * v + gain * i + leak; y = 1 where v > threshold, reset.

    The current i is not reset. Reset rules as in `DiscreteLIF`.
    """

    current_decay: Array
    current_gain: Array
    decay: Array
    gain: Array
    leak: Array
    threshold: Array
    reset_value: Array
    reset: Reset = "value"

    ARRAYS: ClassVar[tuple[str, ...]] = (
        "current_decay",
        "current_gain",
        "decay",
        "gain",
        "leak",
        "threshold",
        "reset_value",
    )


# --------------------------------------------------------------------------------------------------------------------
# INTEGER: the arithmetic of Loihi 2 as the fixed-point models of lava-nc 0.10.0 define it. All values are integers.


@dataclass(frozen=True, slots=True, eq=False)
class FixedDense(Node):
    """y(t) = shift(W x(t - 1)): shift(a) = a << weight_exp, or a >> -weight_exp (rounding down) where it is negative.

    The product is delivered one step later, as Lava's Dense does; the buffer is never cleared by a neuron's reset.

    Args:
        weight: (out, in), integers as the chip stores them: even numbers in [-256, 254] for mixed signs.
        weight_exp: -8..7.
        weight_bits: 1..8, of the mantissa.
        graded: x are graded integers (True) or binary spikes.
    """

    weight: Array
    weight_exp: int
    weight_bits: int
    graded: bool

    ARRAYS: ClassVar[tuple[str, ...]] = ("weight",)
    DTYPE: ClassVar[type] = np.int32

    @property
    def in_shape(self) -> Shape:
        return (int(self.weight.shape[1]),)

    @property
    def out_shape(self) -> Shape:
        return (int(self.weight.shape[0]),)


@dataclass(frozen=True, slots=True, eq=False)
class FixedLIF(Population):
    """Lava's current-based LIF in fixed point; `compiler.semantics` gives the update to the bit.

    In order: clear u and v when t mod reset_interval == reset_offset; u = decay(u, 4096 - (du + 1)) + (x << 6), wrapped
    once to 24 bit; v = decay(v, 4096 - dv) + u + (bias_mant << bias_exp), clipped to +-(2^23 - 1); spike where
    v > threshold << 6; v = 0 where it spiked. decay(a, k) = sign(a) * ((|a| * k) >> 12).

    Args:
        du, dv: 0..4095, one of each per population; du = 4095 is a LIF without synaptic current.
        bias_mant: (n,), 13 bit signed. bias_exp: 0..7.
        threshold: mantissa, 0..131071; v spikes above threshold << 6, strictly.
        reset_interval: steps between two clearings of u and v, 0 for never (state carried).
        reset_offset: the step in the interval, counted from 0, before which they are cleared.
    """

    du: int
    dv: int
    bias_mant: Array
    bias_exp: int
    threshold: int
    reset_interval: int = 0
    reset_offset: int = 0

    ARRAYS: ClassVar[tuple[str, ...]] = ("bias_mant",)
    DTYPE: ClassVar[type] = np.int32


@dataclass(frozen=True, slots=True, eq=False)
class FixedReadout(Population):
    """A FixedLIF that never spikes and whose v is read: y = v (24 bit, the mantissa times 64).

    On the chip its threshold is 131071; compiling proves that it cannot be reached.
    """

    du: int
    dv: int
    bias_mant: Array
    bias_exp: int
    reset_interval: int = 0
    reset_offset: int = 0

    ARRAYS: ClassVar[tuple[str, ...]] = ("bias_mant",)
    DTYPE: ClassVar[type] = np.int32


CONTINUOUS_NEURONS: tuple[type[Node], ...] = (
    ContinuousIntegrator,
    ContinuousIF,
    ContinuousLI,
    ContinuousLIF,
    ContinuousCubaLI,
    ContinuousCubaLIF,
)
DISCRETE_NEURONS: tuple[type[Node], ...] = (DiscreteLI, DiscreteLIF, DiscreteCubaLI, DiscreteCubaLIF)
FIXED_NEURONS: tuple[type[Node], ...] = (FixedLIF, FixedReadout)
NEURONS: tuple[type[Node], ...] = CONTINUOUS_NEURONS + DISCRETE_NEURONS + FIXED_NEURONS
SPIKING: tuple[type[Node], ...] = (
    ContinuousIF,
    ContinuousLIF,
    ContinuousCubaLIF,
    DiscreteLIF,
    DiscreteCubaLIF,
    FixedLIF,
    Threshold,
)
