"""Ops that run on the host: from the observation to what enters the core, and back to the action.

They are computed in float64, each operation rounded on its own and none fused with another, so that every engine and
language gives the same bits. They step once per action; an encoder of spikes makes the T steps of an action at once.
`compiler.ops.hostop` says of which stages an op consists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.body.trace import Tracer, Value
from nervecord.compiler.ops import fields
from nervecord.compiler.ops.fields import Array, Shape
from nervecord.compiler.ops.hostop import HostOp, HostStep
from nervecord.compiler.ops.level import EXECUTABLE, Level
from nervecord.compiler.ops.op import Role
from nervecord.compiler.ops.population import ONE, activation, pulse

LARGEST_VALUE = 1 << 24
"""Graded integers stay below it: no arithmetic takes more, and float32 holds them."""


@dataclass(frozen=True, slots=True, eq=False)
class Normalise(HostOp):
    """y = clip((x - mean) / sqrt(variance + epsilon), -clip, clip), each operation rounded on its own.

    With `epsilon_outside` (skrl's scaler) the divisor is sqrt(variance) + epsilon.
    """

    mean: Array = fields.array("of the observations seen while training", "...")
    variance: Array = fields.array("of the same", "...", low=0)
    epsilon: float = fields.number("keeps the divisor from zero", low=0)
    clip: float = fields.number("largest magnitude of y", above=0, high=float(LARGEST_VALUE))
    epsilon_outside: bool = fields.flag("epsilon is added to the root")

    ROLE: ClassVar[Role] = "before"
    LEVELS: ClassVar[frozenset[Level]] = EXECUTABLE

    @property
    def in_shape(self) -> Shape:
        return tuple(self.mean.shape)

    @property
    def bound(self) -> float | None:
        return self.clip

    @property
    def divisor(self) -> Array:
        """What is divided by."""
        if self.epsilon_outside:
            return np.sqrt(self.variance) + self.epsilon
        return np.sqrt(self.variance + self.epsilon)

    def violations(self) -> Iterator[fields.Violation]:
        violations = list(fields.violations(self))
        yield from violations
        if not violations and self.epsilon == 0 and (self.variance == 0).any():
            yield "epsilon", "the divisor can be zero", self.epsilon, 0

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        y = (do.x - do.constant("mean", self.mean)) / do.constant("divisor", self.divisor)
        return do.clip(y, do.constant("low", -self.clip), do.constant("high", self.clip))


@dataclass(frozen=True, slots=True, eq=False)
class Quantise(HostOp):
    """y = int(clip(round_half_even(x * scale), -limit, limit)): floats become the chip's graded integers.

    `constant` appends that integer as one more channel, on whenever the input is: a bias source. 0 appends nothing.
    """

    width: int = fields.integer("number of values", 1, fields.LARGEST_AXIS)
    scale: float = fields.number("integers per unit", above=0)
    limit: int = fields.integer("largest magnitude", 1, LARGEST_VALUE)
    constant: int = fields.integer("of the bias channel; 0: none", 0, LARGEST_VALUE, 0)

    ROLE: ClassVar[Role] = "before"
    LEVELS: ClassVar[frozenset[Level]] = frozenset({Level.INTEGER})

    @property
    def in_shape(self) -> Shape:
        return (self.width,)

    @property
    def out_shape(self) -> Shape:
        return (self.width + (1 if self.constant else 0),)

    @property
    def bound(self) -> float | None:
        return float(max(self.limit, self.constant))

    @property
    def sends(self) -> tuple[Array, Array] | None:
        high = np.full(self.width, self.limit, dtype=np.int64)
        low = -high
        if self.constant:
            low, high = np.append(low, 0), np.append(high, self.constant)
        return low, high

    @property
    def appended(self) -> int:
        return self.constant

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        whole = do.rint(do.x * do.constant("scale", self.scale))
        limited = do.clip(whole, do.constant("low", -float(self.limit)), do.constant("high", float(self.limit)))
        return do.as_kind(limited, "integer")


@dataclass(frozen=True, slots=True, eq=False)
class BiasChannel(HostOp):
    """y = x and one more channel that spikes in each of the T steps: a bias source for neurons that spikes feed."""

    width: int = fields.integer("number of values of x", 1, fields.LARGEST_AXIS)

    ROLE: ClassVar[Role] = "before"
    LEVELS: ClassVar[frozenset[Level]] = frozenset({Level.INTEGER})

    @property
    def in_shape(self) -> Shape:
        return (self.width,)

    @property
    def out_shape(self) -> Shape:
        return (self.width + 1,)

    @property
    def spikes(self) -> bool:
        return True

    @property
    def appended(self) -> int:
        return 1


@dataclass(frozen=True, slots=True, eq=False)
class PopulationEncode(HostOp):
    """Each channel as the spikes of a population of neurons with Gaussian receptive fields. Binary, step by step.

        a = exp(-(x - mean)^2 / (2 sigma^2)), as an integer of 2^-20; x first clipped to its outermost means
        each of the T steps: v = v + a; y = 1 where v >= 1; v = v - 1 where y

    `compiler.ops.population` gives a bit-exactly. v is zero before the first step of each action, or continues from the
    action before where the contract carries state. In the steps after T nothing is sent, and v stands still.
    y has the order of the means, flattened.
    """

    mean: Array = fields.array("centres, ascending along a channel's neurons", "channels", "neurons")
    sigma: float = fields.number("width of all fields, in units of x", above=0)
    always: bool = fields.flag("one more channel that spikes in each of the T steps: a bias source")

    PULSES: ClassVar[bool] = True
    ROLE: ClassVar[Role] = "before"
    LEVELS: ClassVar[frozenset[Level]] = EXECUTABLE

    @property
    def in_shape(self) -> Shape:
        return self.mean.shape[:1]

    @property
    def out_shape(self) -> Shape:
        return (int(self.mean.size) + int(self.always),)

    @property
    def spikes(self) -> bool:
        return True

    def violations(self) -> Iterator[fields.Violation]:
        violations = list(fields.violations(self))
        yield from violations
        if violations:
            return
        if self.mean.shape[1] < 2:
            yield "shape", "a channel has fewer than two neurons", self.mean.shape[1], 2
        elif not (np.diff(self.mean, axis=1) > 0).all():
            yield "means", "the means of a channel do not ascend", None, None

    @property
    def spread(self) -> int:
        return int(self.mean.shape[1])

    @property
    def appended(self) -> int:
        return int(self.always)

    @property
    def drive(self) -> tuple[int, int]:
        return 0, ONE

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        return activation(do, self.mean, self.sigma)

    def pulse(self, do: Tracer) -> Value:
        return pulse(do)


# --------------------------------------------------------------------------------------------------------------------
# After the core


@dataclass(frozen=True, slots=True, eq=False)
class Decoder(HostOp):
    """What decoders share. `READS`: the membrane in the population's last useful step, or the spikes of all T."""

    ROLE: ClassVar[Role] = "after"
    LEVELS: ClassVar[frozenset[Level]] = EXECUTABLE
    READS: ClassVar[Literal["last", "sum"]]

    @property
    def choices(self) -> int:
        """Number of actions it chooses among; 0 where its action is values."""
        return 0

    @property
    def limits(self) -> tuple[Array, Array] | None:
        """Smallest and largest y; None where it has none."""
        return None

    def violations(self) -> Iterator[fields.Violation]:
        yield from fields.violations(self)
        if self.limits is None:
            return
        low, high = self.limits
        if low.shape == high.shape and (low > high).any():
            yield "limits", "low exceeds high", None, None

    def preferences(self, x: Array) -> Array:
        """What it holds of each action it chooses among, (batch, choices), in units of the float policy."""
        raise TypeError(f"{self.kind} does not choose")


@dataclass(frozen=True, slots=True, eq=False)
class Decode(Decoder):
    """y = clip(x * scale + offset, low, high), from the readout to the action, in the action's units."""

    scale: Array = fields.array("action units per unit of x", "...")
    offset: Array = fields.array("of the action", "...")
    low: Array = fields.array("smallest action", "...")
    high: Array = fields.array("largest action", "...")

    READS: ClassVar[Literal["last", "sum"]] = "last"

    @property
    def in_shape(self) -> Shape:
        return tuple(self.scale.shape)

    @property
    def limits(self) -> tuple[Array, Array] | None:
        return self.low, self.high

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        y = do.x * do.constant("scale", self.scale) + do.constant("offset", self.offset)
        return do.clip(y, do.constant("low", self.low), do.constant("high", self.high))


@dataclass(frozen=True, slots=True, eq=False)
class Rescale(Decoder):
    """y = x * scale: integers that leave a stream as the values they stand for."""

    scale: Array = fields.array("per unit of x", "...")

    READS: ClassVar[Literal["last", "sum"]] = "last"

    @property
    def in_shape(self) -> Shape:
        return tuple(self.scale.shape)

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        return do.x * do.constant("scale", self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class CountDecode(Decoder):
    """From spike counts to the action: each action is a weighted sum over a population of its own.

        c = number of spikes of each neuron in its layer's T steps of this action
        y = clip(weight[:, 0] * c[:, 0] + weight[:, 1] * c[:, 1] + ... + offset, low, high), summed in this order

    c is taken as (actions, neurons): a population's neurons stand side by side.
    """

    weight: Array = fields.array("action units per spike", "actions", "neurons")
    offset: Array = fields.array("of the action", "actions")
    low: Array = fields.array("smallest action", "actions")
    high: Array = fields.array("largest action", "actions")

    READS: ClassVar[Literal["last", "sum"]] = "sum"

    @property
    def in_shape(self) -> Shape:
        return (int(self.weight.size),)

    @property
    def out_shape(self) -> Shape:
        return self.weight.shape[:1]

    @property
    def limits(self) -> tuple[Array, Array] | None:
        return self.low, self.high

    @property
    def weights(self) -> Array | None:
        return self.weight

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        y = do.x + do.constant("offset", self.offset)
        return do.clip(y, do.constant("low", self.low), do.constant("high", self.high))


@dataclass(frozen=True, slots=True, eq=False)
class ArgmaxDecode(Decoder):
    """y = the index of the largest x, of several equally large ones the first: a choice among `width` actions.

    Only the order of x decides. So it is as exact on integers as on floats, and needs no scale there; `scale` is what
    one unit of x is as a preference, and serves reports and comparisons. y is NaN where an x is not finite.
    """

    width: int = fields.integer("number of actions", 1, fields.LARGEST_AXIS)
    scale: float = fields.number("preference (a logit) per unit of x", 1.0, above=0)

    CHOOSES: ClassVar[bool] = True
    READS: ClassVar[Literal["last", "sum"]] = "last"

    @property
    def in_shape(self) -> Shape:
        return (self.width,)

    @property
    def out_shape(self) -> Shape:
        return (1,)

    @property
    def choices(self) -> int:
        return self.width

    def preferences(self, x: Array) -> Array:
        return x * self.scale


@dataclass(frozen=True, slots=True, eq=False)
class CountArgmaxDecode(Decoder):
    """From spike counts to a choice: as `CountDecode`, up to the offset, then as `ArgmaxDecode`."""

    weight: Array = fields.array("preference per spike", "actions", "neurons")
    offset: Array = fields.array("of the preference", "actions")

    CHOOSES: ClassVar[bool] = True
    READS: ClassVar[Literal["last", "sum"]] = "sum"

    @property
    def in_shape(self) -> Shape:
        return (int(self.weight.size),)

    @property
    def out_shape(self) -> Shape:
        return (1,)

    @property
    def choices(self) -> int:
        return int(self.weight.shape[0])

    @property
    def weights(self) -> Array | None:
        return self.weight

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        return do.x + do.constant("offset", self.offset)

    def preferences(self, x: Array) -> Array:
        return HostStep(self).values(x)
