"""A session in real time: a robot is attached, and whatever goes wrong it gets the fail-safe action, at once.

`RealTimeSession` stands around a session of any engine. A step that took longer than the deadline, an action that is
not finite, an engine that died and a loop that runs at another rate than the policy was trained for all give the
contract's fail-safe action; `last` says which, `counts` how often. A step is not interrupted: one that hangs must be
noticed by whatever watches this process.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nervecord.compiler.ops import Array
from nervecord.errors import ContractError, EngineError
from nervecord.runtime.answer import ACTION_NOT_FINITE, DEAD, LATE, OTHER_RATE, Answer
from nervecord.runtime.checks import checked_active, checked_observation
from nervecord.runtime.histogram import Histogram
from nervecord.runtime.session import Acting, Counts, Session

INTERVALS = 8
"""Between so many calls and one more the rate is first judged."""
WINDOW = 32
"""Intervals that are judged together. The longest and shortest tenth (one at least) are left out: a late call is no
other rate."""
SURE = 4.0
"""Standard errors of their mean that lie between it and the limit: jitter around the right rate is no other one."""
RETURN = 16
"""The last so many intervals must be within half the tolerance before the policy acts again."""


@dataclass(frozen=True, slots=True)
class RealTime:
    """What is enforced.

    Args:
        deadline: seconds that a step may take; None: the contract's control period.
        rate: by how much of itself the mean interval between steps may differ from the contract's control period,
            beyond what its jitter explains; None: it is not looked at, as in a simulator that does not wait.
    """

    deadline: float | None = None
    rate: float | None = 0.1

    def __post_init__(self) -> None:
        for name, value in (("deadline", self.deadline), ("rate", self.rate)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ContractError(f"is {value}, a finite number above 0 is needed", where=name)


@dataclass(slots=True)
class Stats:
    """What a session in real time measured since it was opened.

    Args:
        latency: seconds of each step. interval: from the beginning of a step to that of the next.
        rate_changes: how often it began or ceased to take the loop's rate for another one.
    """

    latency: Histogram = field(default_factory=Histogram)
    interval: Histogram = field(default_factory=Histogram)
    rate_changes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "latency": self.latency.to_dict(),
            "interval": self.interval.to_dict(),
            "rate_changes": self.rate_changes,
        }


class RealTimeSession(Acting):
    """A session in real time; see the module.

    Args:
        session: of any engine; it is closed with this one.
        settings: what is enforced.
        clock: seconds, never going back.
    """

    def __init__(
        self, session: Session, settings: RealTime | None = None, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        super().__init__()
        self.session, self.settings = session, settings or RealTime()
        self.plan, self.graph, self.contract = session.plan, session.graph, session.contract
        self.engine = session.engine
        self.deadline = self.settings.deadline or self.contract.control_period
        self.engine_error: EngineError | None = None
        """Why the engine is dead; from then on every action is the fail-safe one."""
        self._clock = clock
        self._fail_safe = np.array(self.contract.fail_safe)
        self._failed = Counts()
        self._answer: Answer | None = None
        self.stats = Stats()
        """Latency and jitter so far."""
        self._restart_clock()

    def _restart_clock(self) -> None:
        self._called: float | None = None
        self._intervals: deque[float] = deque(maxlen=WINDOW)
        self._is_other_rate = False

    @property
    def batch(self) -> int:
        """Number of robots."""
        return self.session.batch

    @property
    def counts(self) -> Counts:
        """What it did since it was opened: a copy."""
        with self._lock:
            counts = self.session.counts
            for reason, times in self._failed.fail_safe.items():
                counts.fail(reason, times)
            return counts

    @property
    def last(self) -> Answer | None:
        """What the last action is; None before the first, and after a reset of all robots."""
        with self._lock:
            return self._answer

    def reset(self, batch: int | None = None, *, rows: Array | None = None) -> None:
        """Clear the state of all robots (setting their number), or of some rows. Of all, the clock starts anew too.

        An engine that died stays dead.
        """
        with self._lock:
            self._alive()
            if rows is None:
                self._restart_clock()
                self._answer = None
            if self.engine_error is None:
                try:
                    self.session.reset(batch, rows=rows)
                except EngineError as error:
                    self.engine_error = error

    def step(self, observation: Array, active: Array | None = None) -> Array:
        """(batch, observations) -> (batch, actions); (observations,) -> (actions,) for one robot.

        Raises:
            ContractError: the observation's shape or type is wrong: a defect of the loop, not of a flight.
            GraphError: an Input that carries spikes is given something else.
        """
        with self._lock:
            self._alive()
            began = self._clock()
            interval = None if self._called is None else began - self._called
            self._called = began
            action, reasons = self._act(observation, active)
            seconds = self._clock() - began
            self.stats.latency.add(seconds)
            # Judged whatever else is wrong, so that no interval is missing. Of several reasons the first is told.
            other_rate = self._other_rate(interval)
            if self.engine_error is None:
                if seconds > self.deadline:
                    reasons = [reason or LATE for reason in reasons]
                elif other_rate:
                    reasons = [reason or OTHER_RATE for reason in reasons]
            self._answer = Answer(tuple(reasons), seconds, interval)
            if not self._answer.trusted:
                action = self._replaced(action, self._answer.fail_safe, checked_active(active, self.batch))
            return action if np.ndim(observation) == 2 else action[0]

    def _act(self, observation: Array, active: Array | None) -> tuple[Array, list[str | None]]:
        """(batch, actions) of the session, and what speaks against each."""
        checked_observation(self.contract, observation, self.batch)
        checked_active(active, self.batch)
        self._said: tuple[str | None, ...] = (None,) * self.batch
        if self.engine_error is None:
            try:
                action = np.atleast_2d(self.session.step(observation, active))
            except EngineError as error:
                self.engine_error = error
        if self.engine_error is not None:
            return np.tile(self._fail_safe, (self.batch, 1)), [DEAD] * self.batch
        last = self.session.last
        reasons: list[str | None] = [None] * self.batch if last is None else list(last.reasons)
        self._said = tuple(reasons)
        for row in np.flatnonzero(~np.isfinite(action).all(axis=1)):
            reasons[row] = reasons[row] or ACTION_NOT_FINITE
        return action, reasons

    def _replaced(self, action: Array, rows: Array, active: Array) -> Array:
        """The action with the fail-safe one in these rows, counted but for what the session has counted itself."""
        assert self._answer is not None
        for reason, reported, counted in zip(self._answer.reasons, self._said, active, strict=True):
            if counted and reason is not None and reported is None:
                self._failed.fail(reason)
        return np.where(rows[:, None], self._fail_safe, action)

    def _other_rate(self, interval: float | None) -> bool:
        """Whether the loop runs at another rate than the policy was trained for.

        It begins to do so where the mean interval is beyond the tolerance by more than jitter explains, and ceases
        where the last intervals are well within it: a loop that jitters does not go back and forth.
        """
        if interval is None:
            return False
        self.stats.interval.add(interval)
        self._intervals.append(interval)
        if self.settings.rate is None or len(self._intervals) < INTERVALS:
            return False
        period = self.contract.control_period
        tolerance = self.settings.rate * period
        if self._is_other_rate:
            mean, _ = _trimmed(list(self._intervals)[-RETURN:])
            changes = abs(mean - period) <= tolerance / 2
        else:
            mean, error = _trimmed(self._intervals)
            changes = abs(mean - period) - SURE * error > tolerance
        if changes:
            self._is_other_rate = not self._is_other_rate
            self.stats.rate_changes += 1
            recent = list(self._intervals)[-RETURN:]
            self._intervals.clear()
            self._intervals.extend(recent)
        return self._is_other_rate

    @property
    def rate_seconds(self) -> float:
        """Mean of the last intervals between two steps without the outliers, in seconds; nan before there are any."""
        return _trimmed(self._intervals)[0] if self._intervals else math.nan

    def trace(self) -> dict[str, Array]:
        """What every core node gave in the last action; see `Session.trace`."""
        return self.session.trace()

    def close(self) -> None:
        """Close the session; further calls are errors."""
        super().close()
        self.session.close()


def _trimmed(intervals: Collection[float]) -> tuple[float, float]:
    """(mean, its standard error) without the longest and shortest tenth, one of each at least where there are three."""
    ordered = sorted(intervals)
    tenth = max(1, len(ordered) // 10) if len(ordered) > 2 else 0
    middle = ordered[tenth : len(ordered) - tenth]
    mean = math.fsum(middle) / len(middle)
    variance = math.fsum((x - mean) ** 2 for x in middle) / max(len(middle) - 1, 1)
    return mean, math.sqrt(variance / len(middle))
