"""The limits of an action, and actions on the scale from -1 to 1 that off-policy networks use."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class ActionLimits:
    """Least and greatest action, each (actions,)."""

    low: Tensor
    high: Tensor

    @property
    def half_range(self) -> Tensor:
        """Half of the way from the least to the greatest action, (actions,)."""
        return (self.high - self.low) / 2

    def scaled(self, unit: Tensor) -> Tensor:
        """Actions (B, actions) of values between -1 and 1, which stand for the limits."""
        return self.low + (unit + 1) / 2 * (self.high - self.low)

    def unit(self, actions: Tensor) -> Tensor:
        """The inverse of `scaled`: beyond -1 and 1 where an action is beyond its limits."""
        return 2 * (actions - self.low) / (self.high - self.low) - 1
