"""How a chip computes, as data: widths, rounding, overflow, order. Ops, quantisation, proofs and engines use it.

A target states it in the section [arithmetic] of its spec, a user in a file of her own; it is a closed schema, and
every program of integers carries it. What a chip does that cannot be said here is code, not data.

Values are whole numbers. A connection sums weights, scaled by 2^exponent; the sum enters the neuron shifted up by
`input_shift`, as the threshold is by `threshold_shift`. What neurons compute is traced (`compiler.body`).
"""

# ruff: noqa: RUF009 -- `key` is dataclasses.field with a declaration
from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nervecord.compiler.body.bounds import UNBOUNDED, Bounds, End
from nervecord.compiler.body.evaluate import sign
from nervecord.compiler.body.trace import Value
from nervecord.compiler.keys import Key, key, keys_of, table_problems
from nervecord.errors import FileFormatError, GraphError, no_case

Array: TypeAlias = NDArray[Any]
Overflow: TypeAlias = Literal["saturate", "saturate-symmetric", "wrap", "wrap-once"]
"""saturate: at -2^(b-1) and 2^(b-1) - 1; saturate-symmetric: at +-(2^(b-1) - 1); wrap: modulo 2^b; wrap-once: one
correction by 2^b into -2^(b-1) + 1 .. 2^(b-1), as Lava does: what is beyond twice the range stays outside."""

PRODUCT_BITS = 53
"""Sums of products below 2^53 are exact in float64, in any order; no arithmetic here has larger ones."""


LARGEST_DELAY = 4096
"""Steps of the longest delay that any arithmetic may state."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """One chip's arithmetic; what each field means, its bounds and its default in a target's file is declared here.

    Within the bounds int64 holds every intermediate value.
    """

    weight_bits: int = key("bits of the widest weight", low=1, high=16)
    weight_signs: Literal["twos-complement", "mode"] = key(
        '"mode": a matrix of one sign has its magnitude in all bits, one of mixed signs spends a bit on them, so that '
        "its mantissas are even",
        default="twos-complement",
    )
    weight_exponent_low: int = key(
        "smallest exponent of a connection: a negative one shifts sums right, rounding down", low=-24, high=0, default=0
    )
    weight_exponent_high: int = key("largest exponent: it shifts sums left", low=0, high=24, default=0)
    accumulate: Literal["sum-then-shift", "shift-each"] = key(
        "whether the exponent shifts the sum of products, or every product before it is added", default="sum-then-shift"
    )
    product_bits: int = key("bits of the sum before the shift; proved, never exceeded", low=8, high=53, default=32)
    input_shift: int = key("bits by which a sum is shifted up as it enters the neuron", low=0, high=16, default=0)
    current_bits: int = key("bits of the synaptic current", low=8, high=32, like="membrane_bits")
    current_overflow: Overflow = key(
        "what a synaptic current does beyond its bits, as `membrane_overflow`", like="membrane_overflow"
    )
    membrane_bits: int = key("bits of the membrane", low=8, high=32)
    membrane_overflow: Overflow = key(
        "what a membrane does beyond its b bits: saturate at -2^(b-1) and 2^(b-1) - 1; saturate-symmetric at "
        "+-(2^(b-1) - 1); wrap modulo 2^b; wrap-once: one correction by 2^b, as Lava does",
        default="saturate",
    )
    decay: Literal["factor", "shift"] = key(
        '"factor": x keeps (2^decay_bits - code) / 2^decay_bits of itself in each step; "shift": x loses x >> code',
        default="factor",
    )
    decay_bits: int = key("bits of the factor; of the shift, bits of its code, 5 at most", low=1, high=16)
    decay_rounding: Literal["zero", "floor", "half-up", "at-least-one"] = key(
        'of what a factor keeps: "zero", "floor" or "half-up", to the nearest one and halves up; of what a shift '
        'takes: "floor", or "at-least-one", which takes one at least off what is not zero',
        default="floor",
    )
    current_decay_low: int = key("smallest code of a synaptic current's decay", low=0, high=1 << 16, default=0)
    order: Literal["current-first", "membrane-first"] = key(
        "whether the membrane receives this step's synaptic current, or that of the step before",
        default="current-first",
    )
    threshold_bits: int = key("bits of a threshold's mantissa", low=1, high=32)
    threshold_shift: int = key("bits by which it is shifted up to the membrane's unit", low=0, high=16, default=0)
    compare: Literal[">", ">="] = key("a spike where v > threshold, or where v >= threshold", default=">")
    reset: Literal["zero", "subtract"] = key(
        "of the membrane after a spike: to zero, or by subtraction of the threshold", default="zero"
    )
    spikes_per_step: int = key(
        "most spikes of a neuron in one step; more than one need reset by subtraction", low=1, high=255, default=1
    )
    bias_bits: int = key("bits of a bias' mantissa, sign included; 0: there is no bias", low=0, high=24, default=0)
    bias_exponent_high: int = key("largest exponent of a bias, from 0", low=0, high=16, default=0)
    bias_enters: Literal["membrane", "current"] = key("what a bias is added to", default="membrane")
    readout: Literal["membrane", "largest-threshold", "none"] = key(
        'how a membrane is read: "membrane": as it is; "largest-threshold": of a neuron with the largest threshold '
        'there is, which it must not reach; "none": it cannot be',
        default="membrane",
    )
    graded_bits: int = key(
        "bits of values that the host sends, sign included; 0: binary spikes only", low=0, high=24, default=0
    )
    connection_delay: int = key("steps that a weighted connection costs", low=0, high=LARGEST_DELAY, default=0)
    delay_max: int = key(
        "longest delay of a connection in steps, that included", low=0, high=LARGEST_DELAY, like="connection_delay"
    )

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
        factor, bits = do.constant(f"{name}_kept", self.decay_codes - code), do.constant("decay_bits", self.decay_bits)
        match self.decay_rounding:
            case "zero" | "floor" as rounding:
                return do.scaled(x, factor, bits, rounding)
            case "half-up":
                return (x * factor + do.constant("half", self.decay_codes // 2)) >> bits
            case "at-least-one":
                raise GraphError("at-least-one rounds shifts, no factors", where="decay_rounding")
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
            bound: End = sign(exact) * ((abs(exact) + 1) << min(code, 63))
        elif code == 0:
            bound = sign(exact) * UNBOUNDED
        else:
            bound = sign(exact) * -(-abs(exact) * self.decay_codes // code)
        return bound

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


KEYS: Mapping[str, Key] = keys_of(Arithmetic)
BOUNDS = {name: (int(one.low), int(one.high)) for name, one in KEYS.items() if one.kind is int}


def arithmetic_from(data: Any, where: str) -> Arithmetic:
    """The arithmetic that a program states, every field of it.

    Args:
        data: field -> value, as JSON gives them. where: file and place, for messages.

    Raises:
        FileFormatError: a field is missing, unknown, of another type, out of its bounds, or contradicts another one.
    """
    wrong = table_problems("", data, tuple(KEYS), tuple(KEYS)) or value_problems(data)
    if wrong:
        raise FileFormatError("; ".join(wrong), where=where)
    return Arithmetic(**data)


def value_problems(data: Mapping[str, Any]) -> list[str]:
    """What is wrong with the values of an arithmetic; and of one with all its fields, where two contradict another."""
    wrong = [
        f"{name}: {problem}"
        for name, one in KEYS.items()
        if name in data and (problem := one.problem(data[name])) is not None
    ]
    if wrong or len(data) < len(KEYS):
        return wrong
    return [message for contradicts, message in _contradictions(Arithmetic(**data)) if contradicts]


def with_defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a target's file states, and the defaults of those that it leaves out; needed ones stay away."""
    full = {name: data.get(name, one.default) for name, one in KEYS.items()}
    full |= {name: full[one.like] for name, one in KEYS.items() if one.like and name not in data}
    return {name: value for name, value in full.items() if value is not None or name in data}


def _contradictions(arithmetic: Arithmetic) -> tuple[tuple[bool, str], ...]:
    shifts = arithmetic.decay == "shift"
    return (
        (arithmetic.decay_rounding == "at-least-one" and not shifts, "at-least-one rounds shifts, no factors"),
        (
            arithmetic.decay_rounding in ("zero", "half-up") and shifts,
            "a decay that shifts rounds down, or at-least-one",
        ),
        (shifts and arithmetic.decay_bits > 5, "a decay that shifts has at most 5 bits: no shift is longer"),
        (arithmetic.current_decay_low > arithmetic.decay_codes - shifts, "current_decay_low is no code of decay_bits"),
        (arithmetic.input_shift >= arithmetic.current_bits, "input_shift leaves no bit of current_bits"),
        (arithmetic.input_shift >= arithmetic.membrane_bits, "input_shift leaves no bit of membrane_bits"),
        (arithmetic.graded_bits == 1, "graded_bits of 1 hold a sign and no value; 0 says that there are none"),
        (
            arithmetic.spikes_per_step > 1 and arithmetic.reset != "subtract",
            "several spikes in a step need reset by subtraction",
        ),
        (arithmetic.connection_delay > arithmetic.delay_max, "connection_delay is longer than delay_max"),
    )
