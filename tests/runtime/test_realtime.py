"""What a session says of its actions, and what one in real time replaces: late, not finite, dead, at another rate."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import LAVA
from policies import random_policy

import nervecord
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.errors import ContractError, EngineError
from nervecord.runtime.answer import ACTION_NOT_FINITE, DEAD, LATE, NOT_FINITE, OTHER_RATE
from nervecord.runtime.engines.emulator.session import EmulatorSession
from nervecord.runtime.realtime import INTERVALS, RealTime, RealTimeSession
from nervecord.runtime.session import MachineSession, Session

PERIOD = 0.05


def policy(**size: Any) -> Policy:
    """In Lava's integers, with a fail-safe action that no policy takes by chance; 20 Hz."""
    policy = random_policy(state="carried", control_period=PERIOD, **size)
    lowered, _ = lower(policy, LAVA, calibrate(policy))
    assert isinstance(lowered, Policy)
    contract = lowered.contract
    changed = nervecord.Contract(
        **{**{name: getattr(contract, name) for name in contract.__slots__}, "fail_safe": (0.125,) * 8}
    )
    return Policy(lowered.graph, changed, policy.recorded)


POLICY = policy()
QUICK = policy(sizes=(27, 4, 8), steps=1)
"""For thousands of steps of which only the time counts."""
ROWS = np.random.default_rng(0).normal(size=(400, 27))


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Slow(MachineSession):
    """Takes `takes` seconds of a clock for a step, gives `wrong` where set, and dies where told to."""

    clock: Clock
    takes = 0.001
    dies = False
    wrong: Any = None

    def step(self, observation: Any, active: Any = None) -> Any:
        self.clock.now += self.takes
        if self.dies:
            raise EngineError("ended", where="engine")
        action = super().step(observation, active)
        return action if self.wrong is None else np.full_like(action, self.wrong)


def driven(*, batch: int = 1, subject: Policy = POLICY, **settings: Any) -> tuple[RealTimeSession, Slow, Clock]:
    inner = Slow(subject, batch=batch)
    inner.clock = clock = Clock()
    return RealTimeSession(inner, RealTime(**settings), clock=clock), inner, clock


# --------------------------------------------------------------------------------------------------------------------
# Every session


def sessions() -> list[Callable[[], Session]]:
    makers: list[Callable[[], Session]] = [
        lambda: MachineSession(POLICY),
        lambda: EmulatorSession(POLICY),
        lambda: EmulatorSession(POLICY, fuse=False),
        lambda: RealTimeSession(EmulatorSession(POLICY), RealTime(deadline=60.0, rate=None)),
    ]
    return makers


@pytest.mark.parametrize("make", sessions(), ids=["definition", "emulator", "emulator-general", "real-time"])
def test_a_session_says_whether_the_policy_acted(make: Callable[[], Session]) -> None:
    with make() as session:
        assert isinstance(session, Session)
        assert session.last is None
        session.step(ROWS[0])
        assert session.last is not None
        assert session.last.trusted
        assert session.last.reasons == (None,)
        bad = ROWS[1].copy()
        bad[3] = np.nan
        assert (session.step(bad) == 0.125).all()
        assert session.last.reasons == (NOT_FINITE,)
        assert not session.last.trusted
        session.step(ROWS[2])
        assert session.last.trusted
        session.reset(3)
        assert session.last is None
        rows = ROWS[:3].copy()
        rows[1, 0] = -np.inf
        # Robots that are not counted get the fail-safe action as well, and are spoken of.
        session.step(rows, np.array([True, False, True]))
        assert session.last.reasons == (None, NOT_FINITE, None)
        assert session.last.fail_safe.tolist() == [False, True, False]
        assert session.counts.fail_safe == {NOT_FINITE: 1}


@pytest.mark.parametrize("engine", [EmulatorSession, MachineSession])
def test_a_step_that_fails_leaves_no_answer_of_another(engine: Any) -> None:
    session = engine(POLICY)
    session.step(ROWS[0])
    with pytest.raises(ContractError, match="observation"):
        session.step(np.zeros(3))
    assert session.last is None


# --------------------------------------------------------------------------------------------------------------------
# In real time


def test_in_time_it_is_the_session() -> None:
    session, _, clock = driven()
    plain = MachineSession(POLICY)
    for k, row in enumerate(ROWS[:30]):
        assert np.array_equal(session.step(row), plain.step(row))
        assert session.last is not None
        assert session.last.trusted
        assert session.last.seconds == pytest.approx(0.001)
        assert session.last.interval == (None if k == 0 else pytest.approx(PERIOD))
        clock.now += PERIOD - 0.001
    assert session.rate_seconds == pytest.approx(PERIOD)
    assert session.counts == plain.counts
    for name, values in plain.trace().items():
        assert np.array_equal(session.trace()[name], values)


@pytest.mark.parametrize(("deadline", "takes", "late"), [(None, 0.049, False), (None, 0.051, True), (0.01, 0.02, True)])
def test_a_late_action_is_the_fail_safe_one(deadline: float | None, takes: float, late: bool) -> None:
    session, inner, _ = driven(deadline=deadline, rate=None)
    inner.takes = takes
    action = session.step(ROWS[0])
    assert session.last is not None
    assert session.last.reasons == (LATE if late else None,)
    assert (action == 0.125).all() == late
    assert session.counts.fail_safe == ({LATE: 1} if late else {})
    # The one after it is the policy's again, and it saw all that was before.
    inner.takes = 0.001
    plain = MachineSession(POLICY)
    plain.step(ROWS[0])
    assert np.array_equal(session.step(ROWS[1]), plain.step(ROWS[1]))


def test_the_deadline_is_kept_in_real_seconds() -> None:
    class Sleepy(MachineSession):
        def step(self, observation: Any, active: Any = None) -> Any:
            time.sleep(0.03)
            return super().step(observation, active)

    session = RealTimeSession(Sleepy(POLICY), RealTime(deadline=0.02, rate=None))
    assert (session.step(ROWS[0]) == 0.125).all()
    assert session.last is not None
    assert session.last.seconds is not None
    assert 0.03 <= session.last.seconds < 5


def test_an_engine_that_dies_stays_dead_and_the_robot_safe() -> None:
    session, inner, clock = driven()
    session.step(ROWS[0])
    inner.dies = True
    for _ in range(3):
        clock.now += PERIOD
        assert (session.step(ROWS[1]) == 0.125).all()
        assert session.last is not None
        assert session.last.reasons == (DEAD,)
    assert str(session.engine_error) == "engine: ended"
    inner.dies = False
    session.reset()
    assert session.last is None
    assert (session.step(ROWS[1]) == 0.125).all()
    assert session.counts.fail_safe == {DEAD: 4}
    # A defect of the loop is one still.
    with pytest.raises(ContractError, match="observation: "):
        session.step(np.zeros(5))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_an_action_that_is_not_finite_never_leaves(wrong: float) -> None:
    session, inner, _ = driven(batch=2)
    inner.wrong = wrong
    assert (session.step(ROWS[:2], np.array([True, False])) == 0.125).all()
    assert session.last is not None
    assert session.last.reasons == (ACTION_NOT_FINITE,) * 2
    assert session.counts.fail_safe == {ACTION_NOT_FINITE: 1}


@pytest.mark.parametrize(
    ("interval", "rate", "other"),
    [
        (0.02, 0.1, True),
        (0.046, 0.1, False),
        (0.054, 0.1, False),
        (0.056, 0.1, True),
        (0.02, 0.7, False),
        (0.02, None, False),
    ],
)
def test_another_rate_than_the_contracts_is_found(interval: float, rate: float | None, other: bool) -> None:
    """After so many intervals; until then nothing is known."""
    session, _, clock = driven(rate=rate)
    reasons = []
    for row in ROWS[: INTERVALS + 3]:
        session.step(row)
        assert session.last is not None
        reasons += session.last.reasons
        clock.now += interval - 0.001
    assert reasons == [None] * INTERVALS + [OTHER_RATE if other else None] * 3
    assert session.counts.fail_safe == ({OTHER_RATE: 3} if other else {})


def test_one_late_call_is_no_other_rate_and_the_right_one_is_trusted_again() -> None:
    session, _, clock = driven()

    def drive(interval: float, times: int) -> list[str | None]:
        reasons = []
        for row in ROWS[:times]:
            clock.now += interval - 0.001
            session.step(row)
            assert session.last is not None
            reasons += session.last.reasons
        return reasons

    assert drive(PERIOD, 20) == [None] * 20
    assert drive(0.5, 1) == [None]
    assert drive(PERIOD, 20) == [None] * 20
    wrong = drive(0.02, 20)
    assert wrong[-1] == OTHER_RATE
    assert drive(PERIOD, 20)[-1] is None
    session.reset()
    # After a pause in which nothing was driven, the clock starts anew.
    clock.now += 1000
    assert drive(PERIOD, 20) == [None] * 20


RECORDED = np.loadtxt(Path(__file__).parent.parent / "data" / "jitter.csv")
"""Microseconds between the ticks of a loop that slept to a 20 ms grid on a machine that was busy with other things."""


def with_intervals(intervals: np.ndarray) -> tuple[list[str | None], RealTimeSession]:
    session, _, clock = driven(subject=QUICK)
    reasons: list[str | None] = []
    for k, interval in enumerate(intervals):
        session.step(ROWS[k % len(ROWS)])
        assert session.last is not None
        reasons += session.last.reasons
        clock.now += interval - 0.001
    return reasons, session


@pytest.mark.parametrize("seed", range(20))
def test_jitter_around_the_right_rate_is_no_other_rate(seed: int) -> None:
    # 15 to 25 ms around 20 ms, at this policy's period.
    jitter = np.random.default_rng(seed).uniform(0.75, 1.25, 500) * PERIOD
    reasons, session = with_intervals(jitter)
    assert reasons == [None] * 500
    assert session.stats.rate_changes == 0


def test_recorded_jitter_is_no_other_rate_and_another_rate_with_it_is() -> None:
    recorded = RECORDED / 20_000 * PERIOD
    reasons, session = with_intervals(recorded)
    assert reasons == [None] * len(recorded)
    assert session.counts.fail_safe == {}
    for factor in (0.5, 0.8, 1.25, 2.0):
        reasons, session = with_intervals(np.concatenate([recorded[:100], factor * recorded[100:300], recorded[300:]]))
        assert reasons[:100] == [None] * 100
        indices = [k for k, reason in enumerate(reasons) if reason is not None]
        # Found within a second, held without a gap, and trusted again within a second of the right rate.
        assert indices[0] <= 100 + 24
        assert indices == list(range(indices[0], indices[-1] + 1))
        assert 300 <= indices[-1] <= 300 + 24
        assert session.stats.rate_changes == 2
        assert session.counts.fail_safe == {OTHER_RATE: len(indices)}


def test_latency_and_jitter_are_counted_in_bins() -> None:
    session, inner, clock = driven(rate=None)
    assert np.isnan(session.stats.latency.quantile(0.5))
    for takes in [0.001] * 90 + [0.004] * 9 + [20.0]:
        inner.takes = takes
        session.step(ROWS[0])
        clock.now += 0.05
    stats = session.stats.to_dict()
    assert (stats["latency"]["total"], stats["interval"]["total"]) == (100, 99)
    assert stats["latency"]["median"] == pytest.approx(0.001, rel=0.26)
    assert session.stats.latency.quantile(0.95) == pytest.approx(0.004, rel=0.26)
    assert stats["latency"]["largest"] == pytest.approx(20.0)
    assert stats["latency"]["bins"][-1] == [None, 1]
    assert sum(count for _, count in stats["latency"]["bins"]) == 100


def test_what_is_enforced_is_a_number() -> None:
    for name in ("deadline", "rate"):
        for value in (0.0, -1.0, np.nan, np.inf):
            with pytest.raises(ContractError, match=f"{name}: is {value}"):
                RealTime(**{name: value})


def test_the_front_opens_it() -> None:
    policy = random_policy(control_period=PERIOD)
    with nervecord.open(nervecord.compile(policy), realtime=True) as session:
        assert isinstance(session, RealTimeSession)
        assert session.deadline == PERIOD
        session.step(ROWS[0])
    with pytest.raises(ContractError, match="closed"):
        session.step(ROWS[0])
    with pytest.raises(ContractError, match="closed"):
        session.session.step(ROWS[0])
    with nervecord.open(policy, realtime=nervecord.RealTime(deadline=0.5, rate=None)) as session:
        assert isinstance(session, RealTimeSession)
        assert (session.deadline, session.settings.rate) == (0.5, None)


FIRST_STEP = """
import sys, numpy as np, nervecord
with nervecord.open(sys.argv[1], engine=sys.argv[2], trace=False, realtime=True) as session:
    session.reset(1)
    before = set(sys.modules)
    session.step(np.zeros(session.contract.observation.size))
    print(sorted(set(sys.modules) - before))
"""


@pytest.mark.long
@pytest.mark.parametrize("engine", ["definition", "emulator"])
def test_the_first_step_imports_nothing(engine: str) -> None:
    """On a robot it would miss its deadline. In a process of its own, where nothing else has imported it."""
    program = Path(__file__).parents[2] / "zoo" / "ant-small" / "ant-small.nervecord"
    words = [sys.executable, "-c", FIRST_STEP, str(program), engine]
    process = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
    assert process.stdout == "[]\n"
