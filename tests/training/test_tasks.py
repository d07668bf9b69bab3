"""Every task of `training.tasks`: names against the model, EnvPool against Gymnasium, and the way to an episode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from examples import some
from simulating import make_simulator

import nervecord
from nervecord.errors import MissingDependencyError, NervecordError
from nervecord.runtime.worker.environment import make_environment
from nervecord.training.run import train
from nervecord.training.settings.config import TrainConfig
from nervecord.training.settings.presets import PRESETS
from nervecord.training.settings.tasks import TASKS, channels, choice_names
from nervecord.training.simulators.base import control_period

MUJOCO = ["Hopper-v4", "HalfCheetah-v4", "Walker2d-v4", "Humanoid-v4"]
GYMNASIUM = [env for env in TASKS if not env.startswith("IsaacGym/")]
PERIODS = {
    "Ant-v4": 0.05,
    "CartPole-v1": 0.02,
    "HalfCheetah-v4": 0.05,
    "Hopper-v4": 0.008,
    "Humanoid-v4": 0.015,
    "Pendulum-v1": 0.05,
    "Walker2d-v4": 0.008,
}


def names_of(env: str) -> tuple[list[str], list[str], list[str]]:
    """Names of observation and action, and names of joints in the model's order."""
    import mujoco

    environment = make_environment(env)
    model = environment.unwrapped.model
    joints = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, k) for k in range(model.njnt)]
    space = environment.action_space
    size = environment.observation_space.shape[0]
    observation, action = channels(env, size, tuple(space.low.tolist()), tuple(space.high.tolist()))
    assert observation.size == size
    assert list(action.names) == [joints[model.actuator_trnid[k, 0]] for k in range(model.nu)], (
        "actuators move other joints"
    )
    environment.close()
    return list(observation.names), list(action.names), joints


@pytest.mark.parametrize("env", MUJOCO[:3])
def test_planar_robots_follow_their_model(env: str) -> None:
    """x, z and pitch come first in qpos and qvel; x is left out of the observation."""
    names, _, joints = names_of(env)
    assert joints[:3] == ["rootx", "rootz", "rooty"]
    own = joints[3:]
    assert names[:2] == ["torso.z", "torso.pitch"]
    assert names[2 : 2 + len(own)] == [f"{joint}.angle" for joint in own]
    assert names[2 + len(own) : 5 + len(own)] == ["torso.vx", "torso.vz", "torso.wy"]
    assert names[5 + len(own) :] == [f"{joint}.velocity" for joint in own]


def test_humanoid_follows_its_model() -> None:
    """qpos without x and y, qvel, then what MuJoCo calls cinert, cvel, qfrc_actuator and cfrc_ext."""
    import mujoco

    names, _, joints = names_of("Humanoid-v4")
    model = make_environment("Humanoid-v4").unwrapped.model
    bodies = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, k) for k in range(model.nbody)]
    assert len(names) == len(set(names)) == 22 + 23 + 14 * 10 + 14 * 6 + 23 + 14 * 6
    assert names[5:22] == [f"{joint}.angle" for joint in joints[1:]]
    assert names[28:45] == [f"{joint}.velocity" for joint in joints[1:]]
    assert [name.partition(".")[0] for name in names[45:185:10]] == bodies
    assert [name.partition(".")[0] for name in names[185:269:6]] == bodies
    assert names[275:292] == [f"{joint}.torque" for joint in joints[1:]]
    assert [name.partition(".")[0] for name in names[292::6]] == bodies


def test_humanoid_units_are_those_of_its_numbers() -> None:
    """Mass, weight on the floor: what stands in a channel can be told from the model."""
    environment = make_environment("Humanoid-v4")
    model = environment.unwrapped.model
    observation, _ = channels("Humanoid-v4", 376, (-0.4,) * 17, (0.4,) * 17)
    place = {name: k for k, name in enumerate(observation.names)}
    numbers, _ = environment.reset(seed=0)
    assert observation.units[place["torso.inertia.m"]] == "kg"
    assert numbers[place["torso.inertia.m"]] == pytest.approx(model.body_mass[1])
    rest = [environment.step(np.zeros(17))[0] for _ in range(120)][-1]
    force = sum(rest[k] for name, k in place.items() if name.endswith(".contact.fz"))
    assert observation.units[place["torso.contact.fz"]] == "N"
    assert force == pytest.approx(model.body_mass.sum() * 9.81, rel=0.2)
    environment.close()


@pytest.mark.parametrize("env", GYMNASIUM)
def test_periods_names_and_units(env: str) -> None:
    task = TASKS[env]
    assert control_period(env) == pytest.approx(PERIODS[env])
    assert len(task.observation_names) == len(task.observation_units) == len(set(task.observation_names))
    assert len(task.action_names) == len(task.action_units)
    assert choice_names(env, 2) == task.choices


def test_pendulum_and_cartpole_channels() -> None:
    pendulum = make_environment("Pendulum-v1")
    observation, _ = pendulum.reset(seed=1)
    angle, velocity = pendulum.unwrapped.state
    assert TASKS["Pendulum-v1"].observation_names == ("pole.cos", "pole.sin", "pole.velocity")
    np.testing.assert_allclose(observation, [np.cos(angle), np.sin(angle), velocity], rtol=1e-6)
    cartpole = make_environment("CartPole-v1")
    first, _ = cartpole.reset(seed=1)
    right, *_ = cartpole.step(TASKS["CartPole-v1"].choices.index("push right"))
    velocity_of_cart = TASKS["CartPole-v1"].observation_names.index("cart.velocity")
    assert right[velocity_of_cart] > first[velocity_of_cart]


def test_other_choices_are_numbered() -> None:
    assert choice_names("Acrobot-v1", 3) == ("action 0", "action 1", "action 2")
    assert choice_names("Swimmer-v4", 0) == ()


# --------------------------------------------------------------------------------------------------------------------
# EnvPool trains what Gymnasium runs


def put(env: str, environment: Any, observation: np.ndarray) -> None:
    """Bring Gymnasium's environment into the state that an observation shows; the place along the floor is 0."""
    task = environment.unwrapped
    environment.reset(seed=0)
    if env == "CartPole-v1":
        task.state = observation.copy()
    elif env == "Pendulum-v1":
        task.state = np.array([np.arctan2(observation[1], observation[0]), observation[2]])
    else:
        hidden = 2 if env in ("Ant-v4", "Humanoid-v4") else 1
        positions = np.concatenate([np.zeros(hidden), observation[: task.model.nq - hidden]])
        task.set_state(positions, observation[task.model.nq - hidden :][: task.model.nv])


# Chaos: a difference in the last bit grows, so cheetahs, which never fall, are put in step again now and then.
TOLERANCE = {"Humanoid-v4": {"rtol": 1e-3, "atol": 2e-3}, "Ant-v4": {"rtol": 0, "atol": 1e-4}}
AGAIN = {"HalfCheetah-v4": 15, "Ant-v4": 15}


@pytest.mark.parametrize("env", GYMNASIUM)
def test_envpool_is_gymnasium(env: str) -> None:
    pool, environment = make_simulator(env, [3], kind="envpool"), make_environment(env)
    rng = np.random.default_rng(0)
    observation = pool.reset()[0]
    put(env, environment, observation)
    ends, largest, moved = 0, np.zeros_like(observation), False
    for step in range(1, 401):
        action = rng.integers(0, pool.choices, size=1) if pool.choices else rng.uniform(pool.low, pool.high)
        result = pool.step(action[None].astype(float))
        expected, reward, terminated, truncated, _ = environment.step(int(action[0]) if pool.choices else action)
        observation = result.observations[0]
        tolerance = TOLERANCE.get(env, {"rtol": 0, "atol": 2e-6})
        np.testing.assert_allclose(observation, expected, **tolerance, err_msg=f"step {step}")
        # Ant's reward reads where the torso was in the last stage of the step before, which no observation shows.
        if not moved or env != "Ant-v4":
            assert result.rewards[0] == pytest.approx(reward, abs=1e-4)
        moved = step % AGAIN.get(env, 500) == 0 and not (terminated or truncated)
        assert (bool(result.terminated[0]), bool(result.truncated[0])) == (terminated, truncated)
        largest = np.maximum(largest, np.abs(observation))
        if terminated or truncated:
            ends += 1
            observation = pool.step(np.zeros((1, len(pool.low)))).observations[0]
            put(env, environment, observation)
        elif moved:
            put(env, environment, observation)
    pool.close()
    environment.close()
    assert ends >= (0 if env in AGAIN else 2)
    if env == "Humanoid-v4":
        # The forces of the floor on the body, which EnvPool leaves out unless it is told.
        assert largest[292:].max() > 100


# --------------------------------------------------------------------------------------------------------------------
# From settings to an episode


@pytest.mark.long
@pytest.mark.parametrize("env", some(sorted(GYMNASIUM), 2))
def test_a_task_trains_compiles_and_runs(env: str, tmp_path: Path) -> None:
    config = TrainConfig.for_task(
        env,
        steps=512,
        num_envs=8,
        rollout=32,
        minibatch=128,
        epochs=1,
        layers=(16,),
        critic=(16,),
        validation_episodes=0,
        test_episodes=0,
        tensorboard=False,
        out=str(tmp_path),
        name="run",
    )
    result = train(config)
    assert result.policy is not None
    policy = nervecord.read(result.policy)
    assert policy.contract is not None
    assert policy.contract.environment == env
    assert policy.contract.observation.names == TASKS[env].observation_names
    assert policy.contract.choices == TASKS[env].choices
    program = nervecord.compile(policy, "lava")
    assert [target.verdict for target in nervecord.inspect(policy, ["lava"]).targets] == ["feasible"]
    with nervecord.open(program) as session:
        evaluation = nervecord.run(session, episodes=1, seed=3)
        assert evaluation.fail_safe == {}
        assert 5 <= evaluation.lengths[0] <= 1000
    with nervecord.open(program, engine="definition") as slow, nervecord.open(program) as fast:
        assert policy.recorded is not None
        assert nervecord.compare(slow, fast, policy.recorded[:20]).identical


@pytest.mark.parametrize("env", PRESETS)
def test_presets_are_settings_that_flags_replace(env: str) -> None:
    config = TrainConfig.for_task(env)
    for name, value in PRESETS[env].items():
        assert config.fields[name] == value != TrainConfig().fields[name]
    assert TrainConfig.for_task(env, steps=77, layers=[9]).algorithm.steps == 77
    assert TrainConfig.for_task(env, layers=[9]).network.layers == (9,)


def test_without_a_preset_the_defaults_hold() -> None:
    assert TrainConfig.for_task() == TrainConfig()
    assert TrainConfig.for_task("Swimmer-v4") == TrainConfig.of(env="Swimmer-v4")
    assert set(PRESETS) <= set(TASKS)
    with pytest.raises(NervecordError, match="'leyers'"):
        TrainConfig.for_task("CartPole-v1", leyers=(3,))


def test_a_simulator_that_is_missing_is_no_defect_of_ours(tmp_path: Path) -> None:
    """As Box2D for LunarLander-v3, which Gymnasium knows all the same."""

    def fail() -> Any:
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed, run pip install gymnasium[box2d]")

    gymnasium.register("NeedsBox2D-v0", entry_point=fail)
    try:
        with pytest.raises(MissingDependencyError, match=r"NeedsBox2D-v0: .*box2d"):
            train(TrainConfig.of(env="NeedsBox2D-v0", steps=64, out=str(tmp_path), name="lander"))
    finally:
        del gymnasium.registry["NeedsBox2D-v0"]
    assert not (tmp_path / "lander").exists()
