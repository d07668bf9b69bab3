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


def answered(trusted: Array, sound: Array | None = None) -> Answer:
    """The answer of a session that replaces actions for what is not finite, and for nothing else.

    Args:
        trusted: (batch,) bool, whose observation was finite. sound: (batch,) bool, whose action was; None: all.
    """
    fine = np.ones_like(trusted) if sound is None else sound
    return Answer(
        tuple(
            None if seen and acted else ACTION_NOT_FINITE if seen else NOT_FINITE
            for seen, acted in zip(trusted, fine, strict=True)
        )
    )
