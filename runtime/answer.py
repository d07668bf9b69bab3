"""What a session did with an observation: acted by the policy, or took the fail-safe action, and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervecord.compiler.ops import Array

NOT_FINITE = "observation not finite"
ACTION_NOT_FINITE = "action not finite"
LATE = "deadline missed"
DEAD = "engine failed"
OTHER_RATE = "driven at another rate"
"""Why an action was replaced by the contract's fail-safe one, as `Answer.reasons` and `Counts.fail_safe` name it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the last action of a session is.

    Args:
        reasons: for each robot why it got the fail-safe action; None where the policy acted.
        seconds: that the step took; None where nobody measured (`runtime.realtime` does).
        interval: seconds from the beginning of the step before to that of this one; None where nobody measured, and
            of the first.
    """

    reasons: tuple[str | None, ...]
    seconds: float | None = None
    interval: float | None = None

    @property
    def trusted(self) -> bool:
        """Whether the policy acted, for every robot."""
        return not any(self.reasons)

    @property
    def fail_safe(self) -> Array:
        """(batch,) bool, which robots got the fail-safe action."""
        return np.array([reason is not None for reason in self.reasons])


def answered(distrusted: Array | None, batch: int) -> Answer:
    """The answer of a session that replaces nothing but what it does for observations that are not finite.

    Args:
        distrusted: (batch,) bool; None: none was.
    """
    if distrusted is None:
        return Answer((None,) * batch)
    return Answer(tuple(NOT_FINITE if bad else None for bad in distrusted))
