"""The control loop in the real environment: seeds, intervals, fail-safe, what does not match."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import some
from policies import random_policy

from nervecord.compiler.compile import compile_graph
from nervecord.compiler.graph.contract import Channels
from nervecord.compiler.graph.policy import Policy
from nervecord.errors import ContractError, EngineError, NervecordError
from nervecord.runtime.answer import DEAD
from nervecord.runtime.engines.emulator.session import EmulatorSession
from nervecord.runtime.loop import run_policy
from nervecord.runtime.result import interval95
from nervecord.runtime.session import MachineSession, Session
from nervecord.runtime.worker.environment import make_environment
from nervecord.runtime.worker.simulator_messages import mujoco_log, without_deprecations
from nervecord.targets.lava.target import LavaTarget

gymnasium = pytest.importorskip("gymnasium")
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
        (random_policy(), "Pendulum-v1", "Ant-v4"),
        (random_policy(environment="Pendulum-v1"), "Pendulum-v1", r"\(3,\)"),
        (pendulum(), "Pendulum-v1", "action limits"),
        (random_policy(control_period=0.01), "Ant-v4", "0.05"),
        (random_policy(environment="Nowhere-v0"), "Nowhere-v0", "Nowhere-v0"),
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

    def step(self, observation: np.ndarray, active: np.ndarray | None = None) -> np.ndarray:
        if self.counts.actions >= 50:
            raise EngineError("ended", where="engine")
        return super().step(observation, active)


def test_a_dead_engine_gives_fail_safe_actions_to_the_end_and_is_counted() -> None:
    graph = in_pendulum_limits(pendulum())
    result = run_policy(DyingSession(graph), "Pendulum-v1", 1, seed=0, record=True)
    assert result.fail_safe == {DEAD: 150}
    assert result.engine_error == result.to_dict()["engine_error"] == "engine: ended"
    assert result.recorded is not None
    assert (result.recorded.actions[50:] == 0).all()
    assert (result.recorded.actions[:50] != 0).any()


def test_of_several_environments_only_those_that_play_get_fail_safe_actions() -> None:
    graph = in_pendulum_limits(pendulum())
    # 50 / 3 rounded up: 17 steps; the second round has two of the three rows.
    result = run_policy(DyingSession(graph), "Pendulum-v1", 5, seed=0, environments=3)
    assert result.fail_safe == {DEAD: (200 - 17) * 3 + 200 * 2}
    assert math.isnan(result.latency_us["median"])


class DyingAtReset(MachineSession):
    """An engine that dies when the second episode begins."""

    def reset(self, batch: int | None = None, *, rows: np.ndarray | None = None) -> None:
        if rows is not None:
            raise EngineError("ended", where="engine")
        super().reset(batch)


def test_an_engine_may_die_between_two_episodes() -> None:
    result = run_policy(DyingAtReset(in_pendulum_limits(pendulum())), "Pendulum-v1", 3, seed=0)
    assert result.fail_safe == {DEAD: 400}
    assert result.engine_error == "engine: ended"


def test_an_engine_that_is_dead_from_the_start_is_an_error() -> None:
    class Dead(MachineSession):
        def reset(self, batch: int | None = None, *, rows: np.ndarray | None = None) -> None:
            raise EngineError("ended", where="engine")

    session = Dead(in_pendulum_limits(pendulum()))
    with pytest.raises(EngineError, match="engine: ended"):
        run_policy(session, "Pendulum-v1", 4, seed=0, environments=2)


# --------------------------------------------------------------------------------------------------------------------
# What is counted


def opened(graph: Policy, engine: str) -> Session:
    """A session on one of the two engines that step several robots."""
    return MachineSession(graph) if engine == "definition" else EmulatorSession(graph)


def lowered(state: str) -> Policy:
    return compile_graph(in_pendulum_limits(pendulum(state=state)), LavaTarget()).policy


class Uneven(gymnasium.Wrapper):  # type: ignore[type-arg]
    """Pendulum whose episodes have lengths of their own: 20 to 119 steps, by their seed."""

    def reset(self, *, seed: int | None = None, options: object = None) -> Any:
        self.left = 20 + (seed or 0) % 100
        return self.env.reset(seed=seed)

    def step(self, action: Any) -> Any:
        observation, reward, terminated, _, info = self.env.step(action)
        self.left -= 1
        return observation, reward, terminated, self.left == 0, info


@pytest.fixture
def uneven() -> Iterator[str]:
    gymnasium.register("UnevenPendulum-v0", lambda: Uneven(gymnasium.make("Pendulum-v1")))
    yield "UnevenPendulum-v0"
    del gymnasium.registry["UnevenPendulum-v0"]


@pytest.mark.parametrize("engine", some(["emulator", "float", "definition"], 1))
@pytest.mark.parametrize("state", ["reset", "carried"])
def test_figures_per_action_do_not_depend_on_how_many_run_side_by_side(state: str, engine: str, uneven: str) -> None:
    graph = in_pendulum_limits(pendulum(state=state)) if engine == "float" else lowered(state)
    results = [
        run_policy(
            opened(graph, "definition" if engine == "float" else engine),
            uneven,
            5,
            seed=2,
            environments=width,
            allow_other=True,
        )
        for width in (1, 2, 3, 5)
    ]
    alone = results[0]
    assert len(set(alone.lengths)) == 5  # rows are idle for long
    assert alone.per_action["spikes"] > 0
    for result in results:
        assert result.lengths.tolist() == alone.lengths.tolist()
        assert result.per_action == pytest.approx(alone.per_action, rel=1e-12)


def test_a_second_run_counts_itself_alone() -> None:
    graph = in_pendulum_limits(pendulum())
    session = MachineSession(graph)
    fresh = run_policy(MachineSession(graph), "Pendulum-v1", 1, seed=7)
    session.step(np.full(3, np.nan))  # a fail-safe action before any run
    first = run_policy(session, "Pendulum-v1", 2, seed=3)
    second = run_policy(session, "Pendulum-v1", 1, seed=7)
    assert first.per_action != second.per_action
    assert second.per_action == fresh.per_action
    assert first.fail_safe == second.fail_safe == {}


# --------------------------------------------------------------------------------------------------------------------
# Whose word is imported

MODULE = """
from pathlib import Path
Path({marker!r}).write_text("imported")
import gymnasium
gymnasium.register("Named-v0", lambda: gymnasium.make("Pendulum-v1"))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What a module that Gymnasium could import leaves behind where it was."""
    marker = tmp_path / "marker"
    (tmp_path / "named_environments.py").write_text(MODULE.format(marker=str(marker)))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield marker
    sys.modules.pop("named_environments", None)
    gymnasium.registry.pop("Named-v0", None)


@pytest.mark.parametrize("name", ["named_environments:Named-v0", "named_environments:Pendulum-v1", "Named-v0"])
def test_what_a_policy_names_is_never_imported(name: str, module: Path) -> None:
    graph = in_pendulum_limits(random_policy(sizes=(3, 8, 1), environment=name, control_period=0.05))
    with pytest.raises(NervecordError, match=r"registered, .* never") as caught:
        run_policy(MachineSession(graph), None, 1, seed=0)
    assert "--env" in str(caught.value)
    assert not module.exists()


def test_what_the_user_names_is(module: Path) -> None:
    name = "named_environments:Named-v0"
    graph = in_pendulum_limits(random_policy(sizes=(3, 8, 1), environment=name, control_period=0.05))
    assert run_policy(MachineSession(graph), name, 1, seed=0).lengths.tolist() == [200]
    assert module.exists()


def test_a_registered_environment_is_the_contracts() -> None:
    result = run_policy(MachineSession(in_pendulum_limits(pendulum())), None, 1, seed=0)
    assert result.environment == "Pendulum-v1"


class SlowSession(MachineSession):
    """Three actions take longer than the control period."""

    def step(self, observation: np.ndarray, active: np.ndarray | None = None) -> np.ndarray:
        if self.counts.actions in (10, 20, 30):
            time.sleep(0.06)
        return super().step(observation, active)


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


OLD = "<mujoco><compiler settotalmass='1'/><worldbody><body><freejoint/><geom size='1'/></body></worldbody></mujoco>"


def test_a_model_of_an_earlier_mujoco_is_no_news(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of HalfCheetah's, MuJoCo says so once for each environment; what else it says is printed, and kept, as before."""
    mujoco = pytest.importorskip("mujoco")
    monkeypatch.chdir(tmp_path)
    make_environment("HalfCheetah-v4").close()
    assert capfd.readouterr().err == ""
    kept: list[bytes] = []
    with mujoco_log(kept.append), without_deprecations("HalfCheetah-v4"):
        model = mujoco.MjModel.from_xml_string(OLD)
        assert capfd.readouterr().err == ""
        data = mujoco.MjData(model)
        data.qpos[:] = math.nan
        mujoco.mj_step(model, data)
    (text,) = kept
    assert b"WARNING: Nan, Inf or huge value in QPOS" in text
    assert capfd.readouterr().err == text.decode()
    assert mujoco.get_mju_user_warning() is None
    assert not list(tmp_path.iterdir())


def test_a_users_own_model_and_handler_hear_everything(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mujoco = pytest.importorskip("mujoco")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(
        gymnasium.registry, "OldModel-v0", gymnasium.envs.registration.EnvSpec("OldModel-v0", "own:Old")
    )
    with without_deprecations("OldModel-v0"):
        mujoco.MjModel.from_xml_string(OLD)
    assert "settotalmass" in capfd.readouterr().err
    heard: list[str] = []
    mujoco.set_mju_user_warning(heard.append)
    try:
        with without_deprecations("HalfCheetah-v4"):
            mujoco.MjModel.from_xml_string(OLD)
    finally:
        mujoco.set_mju_user_warning(None)
    assert "settotalmass" in heard[0]
    assert capfd.readouterr().err == ""
