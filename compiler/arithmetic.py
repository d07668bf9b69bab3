"""How a chip computes, as data: widths, rounding, overflow, order. Ops, quantisation, proofs and engines use it.

A target states it in the section [arithmetic] of its spec, a user in a file of her own; it is a closed schema, and
every program of integers carries it. What a chip does that cannot be said here is code, not data.

Values are whole numbers. A connection sums weights, scaled by 2^exponent; the sum enters the neuron shifted up by
`input_shift`, as the threshold is by `threshold_shift`. What neurons compute is traced (`compiler.body`).
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nervecord.compiler import schema
from nervecord.compiler.body.bounds import UNBOUNDED, Bounds, End
from nervecord.compiler.body.evaluate import sign
from nervecord.compiler.body.trace import Value
from nervecord.errors import FileFormatError, no_case

Array: TypeAlias = NDArray[Any]
Overflow: TypeAlias = Literal["saturate", "saturate-symmetric", "wrap", "wrap-once"]
"""saturate: at -2^(b-1) and 2^(b-1) - 1; saturate-symmetric: at +-(2^(b-1) - 1); wrap: modulo 2^b; wrap-once: one
correction by 2^b into -2^(b-1) + 1 .. 2^(b-1), as Lava does: what is beyond twice the range stays outside."""

PRODUCT_BITS = 53
"""Sums of products below 2^53 are exact in float64, in any order; no arithmetic here has larger ones."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """One chip's arithmetic.

    Args:
        weight_bits: of the widest weight.
        weight_signs: "twos-complement"; or "mode": a matrix of one sign has its magnitude in all bits, one of mixed
            signs spends a bit on them, so that its mantissas are even.
        weight_exponent_low, weight_exponent_high: sums are shifted left by a positive exponent, right (rounding down)
            by a negative one.
        accumulate: "sum-then-shift", or "shift-each": every product is shifted before it is added.
        product_bits: width of the sum before the shift; proved, never exceeded.
        input_shift: bits by which a sum is shifted up as it enters the neuron.
        current_bits, current_overflow: of the synaptic current.
        membrane_bits, membrane_overflow: of the membrane.
        decay: "factor": x keeps (2^decay_bits - code) / 2^decay_bits of itself; "shift": x loses x >> code.
        decay_bits: of the factor; of the shift, the number of bits of the code.
        decay_rounding: of what is kept (factor): "zero", "floor" or "half-up", to the nearest one and halves up; of what
            is lost (shift): "floor", or "at-least-one", which always takes one off what is not zero.
        current_decay_low: smallest code of a current's decay (Lava's always loses something).
        order: "current-first": the membrane receives this step's current; "membrane-first": the one of the step before.
        threshold_bits, threshold_shift: of the threshold's mantissa, and its shift up to the membrane's unit.
        compare: a spike where v > threshold, or v >= threshold.
        reset: of the membrane after a spike: to "zero", or "subtract" the threshold.
        spikes_per_step: most spikes of a neuron in one step; more than one need reset by subtraction.
        bias_bits: signed, of the mantissa; 0: there is no bias. bias_exponent_high: largest exponent, from 0.
        bias_enters: "membrane" or "current".
        readout: how a membrane is read: "membrane"; "largest-threshold": of a neuron with the largest threshold there
            is, which must not reach it; "none": it cannot be.
        graded_bits: signed, of values that a host may send; 0: binary spikes only.
        connection_delay: steps a weighted connection costs. delay_max: longest delay, that included.
    """

    weight_bits: int
    weight_signs: Literal["twos-complement", "mode"]
    weight_exponent_low: int
    weight_exponent_high: int
    accumulate: Literal["sum-then-shift", "shift-each"]
    product_bits: int
    input_shift: int
    current_bits: int
    current_overflow: Overflow
    membrane_bits: int
    membrane_overflow: Overflow
    decay: Literal["factor", "shift"]
    decay_bits: int
    decay_rounding: Literal["zero", "floor", "half-up", "at-least-one"]
    current_decay_low: int
    order: Literal["current-first", "membrane-first"]
    threshold_bits: int
    threshold_shift: int
    compare: Literal[">", ">="]
    reset: Literal["zero", "subtract"]
    spikes_per_step: int
    bias_bits: int
    bias_exponent_high: int
    bias_enters: Literal["membrane", "current"]
    readout: Literal["membrane", "largest-threshold", "none"]
    graded_bits: int
    connection_delay: int
    delay_max: int

    # ------------------------------------------------------------------------------------------------ choices
    #
    # Whoever reads a choice of two does it by these, so that a third value is refused by its name, and by all of them.

    @property
    def shifts_each(self) -> bool:
        """Whether products are shifted one by one before they are added, not their sum."""
        return self._is("accumulate", "shift-each", "sum-then-shift")

    @property
    def current_is_late(self) -> bool:
        """Whether the membrane receives the current of the step before."""
        return self._is("order", "membrane-first", "current-first")

    @property
    def bias_in_current(self) -> bool:
        """Whether the bias enters the current, and not the membrane."""
        return self._is("bias_enters", "current", "membrane")

    @property
    def fires_at_level(self) -> bool:
        """Whether a membrane at its threshold spikes."""
        return self._is("compare", ">=", ">")

    @property
    def subtracts(self) -> bool:
        """Whether a spike subtracts the threshold, and does not set the membrane to zero."""
        return self._is("reset", "subtract", "zero")

    @property
    def decays_by_shift(self) -> bool:
        """Whether decays are shifts, and not factors."""
        return self._is("decay", "shift", "factor")

    @property
    def loses_at_least_one(self) -> bool:
        """Whether a shift takes one at least off what is not zero, and not what is rounded down alone."""
        return self._is("decay_rounding", "at-least-one", "floor")

    @property
    def reads_through_threshold(self) -> bool:
        """Whether a membrane that is read has a threshold, which it must not reach."""
        return self._is("readout", "largest-threshold", "membrane", "none")

    @property
    def has_sign_modes(self) -> bool:
        """Whether a matrix of one sign has a bit more."""
        return self._is("weight_signs", "mode", "twos-complement")

    def _is(self, choice: str, case: str, *others: str) -> bool:
        """Whether a choice is this case and not one of the others."""
        value = getattr(self, choice)
        if value != case and value not in others:
            raise no_case(value, choice, "arithmetic")
        return bool(value == case)

    # ------------------------------------------------------------------------------------------------ ranges

    def weight_step(self, bits: int, *, mixed: bool) -> int:
        """Distance of neighbouring mantissas of `bits` bits."""
        return 1 << (self.weight_bits - bits + (1 if mixed and self.has_sign_modes else 0))

    def weight_range(self, *, mixed: bool, positive: bool = True) -> tuple[int, int]:
        """Smallest and largest mantissa; of one sign where not mixed."""
        if not self.has_sign_modes:
            return -(1 << (self.weight_bits - 1)), (1 << (self.weight_bits - 1)) - 1
        most = 1 << self.weight_bits
        if mixed:
            return -most, most - 2
        return (0, most - 1) if positive else (1 - most, 0)

    @property
    def weight_largest(self) -> int:
        """Largest magnitude that both signs have, of a matrix of mixed signs."""
        return self.weight_range(mixed=True)[1]

    @property
    def accumulator_limit(self) -> int:
        """A sum below this in magnitude enters the neuron without overflow of its own."""
        return 1 << (min(self.current_bits, self.membrane_bits) - 1 - self.input_shift)

    @property
    def product_limit(self) -> int:
        """Sums before the shift stay below this in magnitude."""
        return 1 << (self.product_bits - 1)

    @property
    def threshold_largest(self) -> int:
        """Largest mantissa of a threshold."""
        return (1 << self.threshold_bits) - 1

    @property
    def bias_range(self) -> tuple[int, int]:
        """Smallest and largest mantissa of a bias."""
        return (-(1 << (self.bias_bits - 1)), (1 << (self.bias_bits - 1)) - 1) if self.bias_bits else (0, 0)

    @property
    def membrane_range(self) -> tuple[int, int]:
        """Smallest and largest value of a membrane."""
        return _limits(self.membrane_bits, self.membrane_overflow)

    @property
    def readout_limit(self) -> int:
        """Largest value of a membrane that is read."""
        if self.reads_through_threshold:
            return self.threshold_largest << self.threshold_shift
        return self.membrane_range[1]

    @property
    def current_range(self) -> tuple[int, int]:
        """Smallest and largest value of a synaptic current."""
        return _limits(self.current_bits, self.current_overflow)

    @property
    def current_limit(self) -> int:
        """Largest magnitude that a synaptic current has without overflow, whatever its sign."""
        low, high = self.current_range
        return min(high, -low)

    @property
    def graded_limit(self) -> int:
        """Largest magnitude of a graded value; 0 where there are none."""
        return (1 << (self.graded_bits - 1)) - 1 if self.graded_bits else 0

    @property
    def decay_codes(self) -> int:
        """Number of codes of a decay."""
        return 1 << self.decay_bits

    def factor(self, code: int) -> float:
        """What a decay code keeps, as a real factor."""
        if self.decays_by_shift:
            return 1.0 - 2.0**-code
        return (self.decay_codes - code) / self.decay_codes

    def decay_code(self, keep: float, *, current: bool = False) -> int:
        """The code whose factor is nearest to `keep`."""
        low = self.current_decay_low if current else 0
        if self.decays_by_shift:
            codes = np.arange(max(low, 0), self.decay_codes)
            return int(codes[np.abs(1.0 - 2.0**-codes - keep).argmin()])
        high = self.decay_codes if current else self.decay_codes - 1
        return int(np.clip(np.rint(self.decay_codes * (1.0 - keep)), low, high))

    # ------------------------------------------------------------------------------------------------ operations

    def shifted(self, total: Array, exponent: int) -> Array:
        """total * 2^exponent, rounded down."""
        return total << exponent if exponent > 0 else total >> -exponent

    def decayed(self, x: Value, code: int, name: str) -> Value:
        """What is left of x after one step; `name` of what decays."""
        do = x.do
        if self.decays_by_shift:
            # No value has more than 63 bits.
            shift = do.constant(f"{name}_decay", min(code, 63))
            return do.lose(x, shift, at_least_one=self.loses_at_least_one)
        kept, bits = do.constant(f"{name}_kept", self.decay_codes - code), do.constant("decay_bits", self.decay_bits)
        match self.decay_rounding:
            case "zero" | "floor" as rounding:
                return do.scaled(x, kept, bits, rounding)
            case "half-up":
                return (x * kept + do.constant("half", self.decay_codes // 2)) >> bits
            case other:
                raise no_case(other, "decay_rounding", "arithmetic")

    def settled(self, entering: Bounds, code: int, room: int) -> Bounds:
        """What x = decayed(x) + c cannot pass, rounded away from zero; no bound where nothing decays.

        Args:
            entering: of c, zero among it. room: what rounding may add to their magnitude at each step.
        """
        up = room if self.decay_rounding == "half-up" else 0  # else nothing is rounded up
        return Bounds.of(self._settled(entering.low - room, code), self._settled(entering.high + up, code))

    def _settled(self, end: End, code: int) -> End:
        exact: Any = end if isinstance(end, int) else end.astype(object)
        if self.decays_by_shift:
            # What is lost is at least x / 2^code - 1, so x stays within (|c| + 1) * 2^code.
            found: End = sign(exact) * ((abs(exact) + 1) << min(code, 63))
        elif code == 0:
            found = sign(exact) * UNBOUNDED
        else:
            found = sign(exact) * -(-abs(exact) * self.decay_codes // code)
        return found

    def current(self, x: Value) -> Value:
        """x as a synaptic current holds it."""
        return _overflown(x, self.current_bits, self.current_overflow, "current")

    def membrane(self, x: Value) -> Value:
        """x as a membrane holds it."""
        return _overflown(x, self.membrane_bits, self.membrane_overflow, "membrane")

    def fire(self, v: Value, threshold: int) -> tuple[Value, Value]:
        """(spikes, v after the reset) of membranes; threshold as its mantissa."""
        do, reached = v.do, self.fires_at_level
        level = do.constant("level", threshold << self.threshold_shift)
        if self.subtracts and self.spikes_per_step > 1 and threshold > 0:
            most = do.constant("spikes_per_step", self.spikes_per_step)
            return (
                do.count_levels(v, level, most, reached=reached),
                do.left_of_levels(v, level, most, reached=reached),
            )
        spiked = v >= level if reached else v > level
        return do.as_kind(spiked, "integer"), do.where(spiked, v - level if self.subtracts else 0, v)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return dataclasses.asdict(self)


def _limits(bits: int, overflow: Overflow) -> tuple[int, int]:
    half = 1 << (bits - 1)
    match overflow:
        case "saturate" | "wrap":
            return -half, half - 1
        case "saturate-symmetric":
            return 1 - half, half - 1
        case "wrap-once":
            return 1 - half, half
        case other:
            raise no_case(other, "overflow", "arithmetic")


def _overflown(x: Value, bits: int, overflow: Overflow, name: str) -> Value:
    do, (low, high) = x.do, _limits(bits, overflow)
    match overflow:
        case "saturate" | "saturate-symmetric":
            return do.clip(x, do.constant(f"{name}_low", low), do.constant(f"{name}_high", high))
        case "wrap":
            return do.wrap(x, bits)
        case "wrap-once":
            return do.wrap_once(x, low, high)
        case other:
            raise no_case(other, "overflow", "arithmetic")


LARGEST_DELAY = 4096
"""Steps of the longest delay that any arithmetic may state."""

BOUNDS: dict[str, tuple[int, int]] = {
    "weight_bits": (1, 16),
    "weight_exponent_low": (-24, 0),
    "weight_exponent_high": (0, 24),
    "product_bits": (8, 53),
    "input_shift": (0, 16),
    "current_bits": (8, 32),
    "membrane_bits": (8, 32),
    "decay_bits": (1, 16),
    "current_decay_low": (0, 1 << 16),
    "threshold_bits": (1, 32),
    "threshold_shift": (0, 16),
    "spikes_per_step": (1, 255),
    "bias_bits": (0, 24),
    "bias_exponent_high": (0, 16),
    "graded_bits": (0, 24),
    "connection_delay": (0, LARGEST_DELAY),
    "delay_max": (0, LARGEST_DELAY),
}
"""What the numbers of an arithmetic may be: within these, int64 holds every intermediate value."""


def arithmetic_from(data: Any, where: str) -> Arithmetic:
    """The arithmetic that a file states: a program's, or the table [arithmetic] of a target's spec.

    Args:
        data: field -> value, as JSON or TOML give them. where: file and place, for messages.

    Raises:
        FileFormatError: a field is missing, unknown, of another type, out of `BOUNDS`, or contradicts another one.
    """
    said = schema.checked(data, _form(), where)
    made = Arithmetic(**{f.name: getattr(said, f.name) for f in dataclasses.fields(Arithmetic)})
    for wrong, message in (
        (made.decay_rounding == "at-least-one" and made.decay == "factor", "at-least-one rounds shifts, no factors"),
        (
            made.decay_rounding in ("zero", "half-up") and made.decay == "shift",
            "a decay that shifts rounds down, or at-least-one",
        ),
        (made.decay == "shift" and made.decay_bits > 5, "a decay that shifts has at most 5 bits: no shift is longer"),
        (
            made.current_decay_low > made.decay_codes - (made.decay == "shift"),
            "current_decay_low is no code of decay_bits",
        ),
        (made.input_shift >= made.current_bits, "input_shift leaves no bit of current_bits"),
        (made.input_shift >= made.membrane_bits, "input_shift leaves no bit of membrane_bits"),
        (made.graded_bits == 1, "graded_bits of 1 hold a sign and no value; 0 says that there are none"),
        (made.spikes_per_step > 1 and made.reset != "subtract", "several spikes in a step need reset by subtraction"),
        (made.connection_delay > made.delay_max, "connection_delay is longer than delay_max"),
    ):
        if wrong:
            raise FileFormatError(message, where=where)
    return made


@functools.cache
def _form() -> Any:
    """An arithmetic as a file holds it."""
    hints = typing.get_type_hints(Arithmetic)
    return schema.record("arithmetic", [
        (f.name, schema.whole(*BOUNDS[f.name]) if f.name in BOUNDS else hints[f.name])
        for f in dataclasses.fields(Arithmetic)
    ])  # fmt: skip
