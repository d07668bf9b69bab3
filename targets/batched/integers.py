"""A chip's arithmetic on float64 tensors of whole numbers: `compiler.arithmetic` in torch.

Every value in it is a whole number, and every product and sum is below 2^53 in magnitude: the widest product of a state
and a decay factor is 2^33 * 2^16, sums before the exponent are bounded by `PRODUCT_BITS`, and the engine proves a
plan's ranges before it runs it. So float64 holds all of them, in any order of adding, and what must be rounded is
rounded by floor and trunc of an exact quotient by a power of two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nervecord.compiler.arithmetic import Arithmetic, Overflow
from nervecord.errors import no_case


class Whole:
    """The operations of an arithmetic.

    Args:
        arithmetic: of the graph. device: of its tensors.
    """

    def __init__(self, arithmetic: Arithmetic, device: torch.device) -> None:
        self.arithmetic = arithmetic
        self._zero = torch.zeros((), dtype=torch.float64, device=device)
        self._current = arithmetic.current_range
        self._membrane = arithmetic.membrane_range

    def shifted(self, total: Tensor, exponent: int) -> Tensor:
        """total * 2^exponent, rounded down."""
        if exponent == 0:
            return total
        moved = total * 2.0**exponent
        return moved if exponent > 0 else torch.floor(moved)

    def decayed(self, x: Tensor, code: int) -> Tensor:
        """What is left of x after one step."""
        a = self.arithmetic
        if a.decays_by_shift:
            lost = torch.floor(x * 2.0**-code)
            if a.loses_at_least_one:
                lost = torch.where(lost == 0, torch.sign(x), lost)
            return x - lost
        keep = a.decay_codes - code
        if keep == a.decay_codes:
            return x
        if keep == 0:
            return torch.zeros_like(x)
        kept = x * (keep / a.decay_codes)
        return torch.floor(kept) if a.rounds_down else torch.trunc(kept)

    def current(self, x: Tensor) -> Tensor:
        """x as a synaptic current holds it."""
        return _overflown(x, *self._current, self.arithmetic.current_bits, self.arithmetic.current_overflow)

    def membrane(self, x: Tensor) -> Tensor:
        """x as a membrane holds it."""
        return _overflown(x, *self._membrane, self.arithmetic.membrane_bits, self.arithmetic.membrane_overflow)

    def fire(self, v: Tensor, threshold: int) -> tuple[Tensor, Tensor]:
        """(spikes, v after the reset) of membranes; threshold as its mantissa."""
        a = self.arithmetic
        level = float(threshold << a.threshold_shift)
        spiked = v > level if not a.fires_at_level else v >= level
        if not a.subtracts:
            return spiked.to(v.dtype), torch.where(spiked, self._zero, v)
        if a.spikes_per_step == 1 or level <= 0:
            spikes = spiked.to(v.dtype)
            return spikes, v - spikes * level
        # The quotient of whole numbers below 2^33 is no nearer to a whole number than 2^-33, unless it is one: floor
        # and ceil of its rounding to 53 bits are those of itself.
        counts = torch.floor(v / level) if a.fires_at_level else torch.ceil(v / level) - 1
        counts = counts.clamp(0, a.spikes_per_step)
        return counts, v - counts * level


def _overflown(x: Tensor, low: int, high: int, bits: int, overflow: Overflow) -> Tensor:
    span = float(1 << bits)
    match overflow:
        case "saturate" | "saturate-symmetric":
            return x.clamp(low, high)
        case "wrap":
            return x - span * torch.floor((x - low) / span)
        case "wrap-once":
            return torch.where(x > high, x - span, torch.where(x < low, x + span, x))
        case other:
            raise no_case(other, "overflow", "engine torch")
