"""The control loop in the real environment: seeds, intervals, fail-safe, what does not match."""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import pytest
from policies import random_policy

from nervecord.compiler.contract import Channels
from nervecord.errors import ContractError, EngineError, NervecordError
from nervecord.runtime.loop import run_policy
from nervecord.runtime.result import interval95
from nervecord.runtime.session import MachineSession

pytest.importorskip("gymnasium")
pytest.importorskip("mujoco")


def pendulum(**options: object):
    return random_policy(sizes=(3, 8, 1), environment="Pendulum-v1", control_period=0.05, **options)  # type: ignore[arg-type]


def in_pendulum_limits(graph):
    """The same policy with Pendulum's torque limits."""
    assert graph.contract is not None
    action = Channels(("torque",), ("N m",), (-2.0,), (2.0,))
    return graph.replace(contract=dataclasses.replace(graph.contract, action=action))


def test_the_same_seed_gives_the_same_episodes_however_many_run_side_by_side() -> None:
    graph = in_pendulum_limits(pendulum(state="carried"))
    one = run_policy(MachineSession(graph), "Pendulum-v1", 5, seed=3)
    many = run_policy(MachineSession(graph), "Pendulum-v1", 5, seed=3, environments=3)
    other = run_policy(MachineSession(graph), "Pendulum-v1", 5, seed=4)
    assert np.allclose(one.returns, many.returns, rtol=1e-9)
    assert not np.allclose(one.returns, other.returns)
    assert one.lengths.tolist() == [200] * 5
    assert one.deadline_us == pytest.approx(50_000)
    assert len(set(one.returns)) == 5


def test_ant_runs_and_reports_what_the_table_needs() -> None:
    result = run_policy(MachineSession(random_policy()), "Ant-v4", 1, seed=0, record=True)
    data = result.to_dict()
    assert data["episodes"] == 1
    assert data["return_ci95"] is None
    assert 0 < data["latency_us"]["median"] <= data["latency_us"]["p99"]
    assert data["spikes_per_action"] > 0
    assert data["synaptic_events_per_action"] > data["spikes_per_action"]
    assert result.recorded is not None
    assert result.recorded.positions is not None
    assert result.recorded.positions.shape == (result.lengths[0] + 1, 15)
    assert result.recorded.rewards.sum() == pytest.approx(result.returns[0])


@pytest.mark.parametrize(
    ("graph", "environment", "words"),
    [
        (random_policy(), "Pendulum-v1", "trained in Ant-v4"),
        (random_policy(environment="Pendulum-v1"), "Pendulum-v1", r"observations have shape \(3,\)"),
        (pendulum(), "Pendulum-v1", "action limits"),
        (random_policy(control_period=0.01), "Ant-v4", "acts every 0.05 s"),
        (random_policy(environment="Nowhere-v0"), "Nowhere-v0", "no such environment"),
    ],
)
def test_policy_and_environment_must_match(graph, environment: str, words: str) -> None:
    with pytest.raises(NervecordError, match=words):
        run_policy(MachineSession(graph), environment, 1, seed=0)


def test_another_name_is_allowed_only_when_said() -> None:
    graph = in_pendulum_limits(random_policy(sizes=(3, 8, 1), environment="MyPendulum-v0"))
    with pytest.raises(ContractError, match="--allow-other-env"):
        run_policy(MachineSession(graph), "Pendulum-v1", 1, seed=0)
    assert run_policy(MachineSession(graph), "Pendulum-v1", 1, seed=0, allow_other=True).lengths[0] == 200


class DyingSession(MachineSession):
    """An engine that dies after some actions."""

    def step(self, observation: np.ndarray) -> np.ndarray:
        if self.counts.actions >= 50:
            raise EngineError("the process ended", where="engine")
        return super().step(observation)


def test_a_dead_engine_gives_fail_safe_actions_to_the_end_and_is_counted() -> None:
    graph = in_pendulum_limits(pendulum())
    result = run_policy(DyingSession(graph), "Pendulum-v1", 1, seed=0, record=True)
    assert result.fail_safe == {"engine failed": 150}
    assert result.recorded is not None
    assert (result.recorded.actions[50:] == 0).all()
    assert (result.recorded.actions[:50] != 0).any()


class SlowSession(MachineSession):
    """Three actions take longer than the control period."""

    def step(self, observation: np.ndarray) -> np.ndarray:
        if self.counts.actions in (10, 20, 30):
            time.sleep(0.06)
        return super().step(observation)


def test_missed_deadlines_are_counted_and_replaced_on_request() -> None:
    graph = in_pendulum_limits(pendulum())
    counted = run_policy(SlowSession(graph), "Pendulum-v1", 1, seed=0, record=True)
    assert counted.deadline_missed >= 3
    assert counted.fail_safe == {}
    enforced = run_policy(SlowSession(graph), "Pendulum-v1", 1, seed=0, record=True, enforce_deadline=True)
    assert enforced.fail_safe == {"deadline missed": enforced.deadline_missed}
    assert counted.recorded is not None
    assert enforced.recorded is not None
    assert (enforced.recorded.actions[[10, 20, 30]] == 0).all()
    assert (counted.recorded.actions[[10, 20, 30]] != 0).all()


def test_interval_is_students() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0])
    # t(0.975, 3) = 3.18245 from the tables; s = 1.29099
    assert interval95(values) == pytest.approx(3.18245 * 1.2909944 / 2)
    hundred = np.arange(100.0)
    assert interval95(hundred) == pytest.approx(1.984217 * hundred.std(ddof=1) / 10, rel=1e-4)
    assert math.isnan(interval95(values[:1]))


@pytest.mark.parametrize("option", [{"episodes": 0}, {"environments": 0}])
def test_counts_below_one_are_refused(option: dict[str, int]) -> None:
    arguments = {"episodes": 1, "environments": 1, **option}
    with pytest.raises(NervecordError, match="at least 1"):
        run_policy(
            MachineSession(random_policy()), "Ant-v4", arguments["episodes"], 0, environments=arguments["environments"]
        )
