"""The kinds of node that run on the host: from the observation to what enters the core, and back to the action.

They are computed in float64, each operation rounded on its own and none fused with another, so that every engine and
language gives the same bits. `compiler.host` runs them; `compiler.nodes` names them beside the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nervecord.compiler.node import Array, Node, Population, Shape


@dataclass(frozen=True, slots=True, eq=False)
class Normalise(Population):
    """y = clip((x - mean) / sqrt(variance + epsilon), -clip, clip), each operation rounded on its own.

    With `epsilon_outside` (skrl's scaler) the divisor is sqrt(variance) + epsilon.
    """

    mean: Array
    variance: Array
    epsilon: float
    clip: float
    epsilon_outside: bool = False

    ARRAYS: ClassVar[tuple[str, ...]] = ("mean", "variance")


@dataclass(frozen=True, slots=True, eq=False)
class Quantise(Node):
    """y = int(clip(round_half_even(x * scale), -limit, limit)): floats become the chip's graded integers.

    `constant` appends that integer as one more channel, on whenever the input is: a bias source. 0 appends nothing.
    """

    size: int
    scale: float
    limit: int
    constant: int = 0

    @property
    def in_shape(self) -> Shape:
        return (self.size,)

    @property
    def out_shape(self) -> Shape:
        return (self.size + (1 if self.constant else 0),)


@dataclass(frozen=True, slots=True, eq=False)
class PopulationEncode(Node):
    """Each channel as the spikes of a population of neurons with Gaussian receptive fields. Binary, step by step.

        a = exp(-(x - mean)^2 / (2 sigma^2)), as a whole number of 2^-20; x first clipped to its outermost means
        each of the T steps: v = v + a; y = 1 where v >= 1; v = v - 1 where y

    `compiler.population` gives a to the bit. v is zero before the first step of each action, or goes on from the action
    before where the contract carries state. In the steps after T nothing is sent, and v stands still.

    Args:
        mean: (channels, neurons), ascending along the neurons, at least two of them. y has their order, flattened.
        sigma: width of all fields, in units of x.
        always: one more channel that spikes in each of the T steps: a bias source.
    """

    mean: Array
    sigma: float
    always: bool = False

    ARRAYS: ClassVar[tuple[str, ...]] = ("mean",)

    @property
    def in_shape(self) -> Shape:
        return self.mean.shape[:1]

    @property
    def out_shape(self) -> Shape:
        return (int(self.mean.size) + int(self.always),)


@dataclass(frozen=True, slots=True, eq=False)
class Decode(Population):
    """y = clip(x * scale + offset, low, high), from the readout to the action, in the action's units. All (n,)."""

    scale: Array
    offset: Array
    low: Array
    high: Array

    ARRAYS: ClassVar[tuple[str, ...]] = ("scale", "offset", "low", "high")


@dataclass(frozen=True, slots=True, eq=False)
class CountDecode(Node):
    """From spike counts to the action: each action is a weighted sum over a population of its own.

        c = number of spikes of each neuron in its layer's T steps of this action
        y = clip(weight[:, 0] * c[:, 0] + weight[:, 1] * c[:, 1] + ... + offset, low, high), summed in this order

    c is taken as (actions, neurons): a population's neurons stand side by side.

    Args:
        weight: (actions, neurons of a population), action units per spike. offset, low, high: (actions,).
    """

    weight: Array
    offset: Array
    low: Array
    high: Array

    ARRAYS: ClassVar[tuple[str, ...]] = ("weight", "offset", "low", "high")

    @property
    def in_shape(self) -> Shape:
        return (int(self.weight.size),)

    @property
    def out_shape(self) -> Shape:
        return self.weight.shape[:1]


@dataclass(frozen=True, slots=True, eq=False)
class ArgmaxDecode(Node):
    """y = the index of the largest x, of several equally large ones the first: a choice among `size` actions.

    Only the order of x decides. So it is as exact on integers as on floats, and needs no scale there. y is NaN where an
    x is not finite.

    Args:
        size: number of actions; y has one value, a whole number in 0..size - 1.
        scale: what one unit of x is as a preference (a logit), positive. y does not depend on it; reports and
            comparisons of a float policy with its integers do.
    """

    size: int
    scale: float = 1.0

    @property
    def in_shape(self) -> Shape:
        return (self.size,)

    @property
    def out_shape(self) -> Shape:
        return (1,)


@dataclass(frozen=True, slots=True, eq=False)
class CountArgmaxDecode(Node):
    """From spike counts to a choice: as `CountDecode`, up to the offset, then as `ArgmaxDecode`.

        p = weight[:, 0] * c[:, 0] + weight[:, 1] * c[:, 1] + ... + offset, summed in this order
        y = the index of the largest p, of several equally large ones the first

    Args:
        weight: (actions, neurons of a population), preference per spike. offset: (actions,).
    """

    weight: Array
    offset: Array

    ARRAYS: ClassVar[tuple[str, ...]] = ("weight", "offset")

    @property
    def in_shape(self) -> Shape:
        return (int(self.weight.size),)

    @property
    def out_shape(self) -> Shape:
        return (1,)


BEFORE_CORE: tuple[type[Node], ...] = (Normalise, Quantise, PopulationEncode)
AFTER_CORE: tuple[type[Node], ...] = (Decode, CountDecode, ArgmaxDecode, CountArgmaxDecode)
COUNTING: tuple[type[Node], ...] = (CountDecode, CountArgmaxDecode)
"""Decoders of spike counts; the others read membranes."""
CHOOSING: tuple[type[Node], ...] = (ArgmaxDecode, CountArgmaxDecode)
"""Decoders whose action is the number of one of several; the others give values."""
HOST_NODES: tuple[type[Node], ...] = (*BEFORE_CORE, *AFTER_CORE)
