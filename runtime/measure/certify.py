"""The certificate: what compiling cost, on recorded observations and in the control loop, with its interval.

In the loop both policies play the same episodes, pair by pair, until the 95 % interval of the mean loss is as narrow as
was asked for. The loss is the float policy's return less the compiled one's, in parts of the size of the float policy's
mean return.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from nervecord.compiler.ops import Array
from nervecord.errors import EngineError, NervecordError
from nervecord.runtime.loop import run_policy
from nervecord.runtime.result import interval95
from nervecord.runtime.session import Session

ROUND = 50
"""Pairs of episodes between two looks at the interval."""
LEAST = 50
"""Pairs before the interval is trusted: a few returns say little of how they spread."""

Verdict: TypeAlias = Literal["holds", "fails", "open"]
"""The whole interval is at most the tolerance; the whole interval is above it; neither."""
Seen: TypeAlias = Callable[[int, int, float], None]
"""(pairs played, at most, half width of the interval so far)."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was measured.

    Args:
        tolerance: that was asked for, a part of the return.
        error: "median", "p99", "max" of the distance of actions, over all values of the recorded observations; of a
            policy that chooses, "different": the part of observations on which it chose otherwise.
        observations: recorded observations.
        environment, seed: of the episodes; every `ROUND` of them have a seed of their own, from this one on.
        floating, compiled: returns, pair by pair.
    """

    tolerance: float
    error: dict[str, float]
    observations: int
    environment: str
    seed: int
    floating: Array
    compiled: Array

    @property
    def loss(self) -> float:
        """Mean loss, in parts of the size of the float policy's mean return."""
        return float((self.floating - self.compiled).mean() / self._size)

    @property
    def half(self) -> float:
        """Half width of its 95 % interval (Student's t over the pairs)."""
        return interval95(self.floating - self.compiled) / self._size

    @property
    def _size(self) -> float:
        return max(abs(float(self.floating.mean())), 1e-12)

    @property
    def verdict(self) -> Verdict:
        """See `Verdict`."""
        if self.loss + self.half <= self.tolerance:
            return "holds"
        return "fails" if self.loss - self.half > self.tolerance else "open"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "tolerance": self.tolerance,
            "verdict": self.verdict,
            "loss": self.loss,
            "loss_ci95": self.half,
            "pairs": len(self.floating),
            "environment": self.environment,
            "seed": self.seed,
            "return_float": float(self.floating.mean()),
            "return_float_ci95": interval95(self.floating),
            "return_compiled": float(self.compiled.mean()),
            "return_compiled_ci95": interval95(self.compiled),
            "action_error": dict(self.error),
            "observations": self.observations,
        }


def certify(
    floating: Session,
    compiled: Session,
    observations: Array,
    environment: Any,
    tolerance: float,
    *,
    wrappers: Sequence[str] | None = None,
    most: int = 1000,
    seed: int = 0,
    environments: int = 10,
    progress: Seen | None = None,
) -> Certificate:
    """Measure what compiling cost.

    Args:
        floating, compiled: open sessions of the two.
        observations: recorded, (k, observations).
        environment, wrappers: as of `run_policy`.
        tolerance: of the loss, above 0; the interval's half width is brought to it.
        most: pairs of episodes, at most. seed: of the first `ROUND` of them.
        environments: side by side.
        progress: called after each round.

    Raises:
        NervecordError: the tolerance or the numbers are out of range.
        EngineError: an engine died.
        ContractError: policy and environment do not match.
    """
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise NervecordError(f"is {tolerance:g}, a number above 0 is needed", where="tolerance", hint="1% or 0.01")
    if most < LEAST:
        raise NervecordError(f"is {most}, at least {LEAST} pairs are needed", where="most")
    error = action_error(floating, compiled, observations)
    pairs: list[tuple[Array, Array]] = []
    name = ""
    while True:
        count = min(ROUND, most - sum(len(a) for a, _ in pairs))
        played = []
        for session in (floating, compiled):
            result = run_policy(
                session, environment, count, seed + len(pairs), wrappers=wrappers, environments=min(environments, count)
            )
            if result.engine_error is not None:
                raise EngineError(f"died: {result.engine_error}", where=session.engine)
            played.append(result.returns)
            name = result.environment
        pairs.append((played[0], played[1]))
        a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
        certificate = Certificate(tolerance, error, len(observations), name, seed, a, b)
        if progress is not None:
            progress(len(a), most, certificate.half)
        if len(a) >= most or (len(a) >= LEAST and certificate.half <= tolerance):
            return certificate


def action_error(floating: Session, compiled: Session, observations: Array) -> dict[str, float]:
    """How far the actions of two policies are apart on recorded observations, given one after another.

    Raises:
        NervecordError: there are none.
    """
    if not len(observations):
        raise NervecordError("the policy carries none to compare on", where="observations", hint="give --calibration")
    actions = []
    for session in (floating, compiled):
        session.reset(1)
        actions.append(np.array([session.step(row) for row in observations]))
    if floating.contract.choices:
        return {"different": float((actions[0] != actions[1]).mean())}
    apart = np.abs(actions[0] - actions[1])
    return {"median": float(np.median(apart)), "p99": float(np.quantile(apart, 0.99)), "max": float(apart.max())}
