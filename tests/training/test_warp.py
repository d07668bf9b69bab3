"""Ant-v4 in MuJoCo Warp is Gymnasium's Ant-v4, step for step, but for single precision.

Tolerances: MuJoCo computes in float64, MuJoCo Warp in float32. Contacts are stiff, so one rounding grows within the 20
evaluations of a step: over 1,800 states of walks and falls observations were off by 2.3e-5 at most (99 % within 6e-6)
and rewards by 5.1e-6. The tolerances are twice that.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulating import FIELDS, make_simulator

import nervecord
from nervecord.errors import MissingDependencyError, NervecordError

OBSERVATIONS, REWARDS = 5e-5, 1e-5
ANT = Path(__file__).parent.parent.parent / "zoo" / "ant-small" / "ant-small.nervecord"

try:
    VERSION = metadata.version("mujoco-warp")
except metadata.PackageNotFoundError:
    VERSION = ""
needs_warp = pytest.mark.skipif(not VERSION, reason="MuJoCo Warp is not installed; make test-warp")


@dataclasses.dataclass
class Walk:
    """States, actions, and what Gymnasium makes of them; arrays with one row for each step."""

    qpos: np.ndarray
    qvel: np.ndarray
    torso_x: np.ndarray
    actions: np.ndarray
    observations: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray


def record(steps: int, noises: list[float]) -> Walk:
    """An episode for each noise: the shipped policy walks, pushed off its way by that much on every action."""
    import gymnasium

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        environment: Any = gymnasium.make("Ant-v4")
    data = environment.unwrapped.data
    draw = np.random.default_rng(0)
    rows: list[tuple[Any, ...]] = []
    with nervecord.open(nervecord.load(ANT)) as session:
        for episode, noise in enumerate(noises):
            observation, _ = environment.reset(seed=episode)
            session.reset()
            for _ in range(steps):
                action = session.step(observation[None])[0]
                action = np.clip(action + draw.normal(0, noise, 8), -1, 1).astype(np.float32)
                before = (data.qpos.copy(), data.qvel.copy(), data.body("torso").xpos[0], action)
                observation, reward, terminated, truncated, _ = environment.step(action)
                rows.append((*before, observation, reward, terminated))
                if terminated or truncated:
                    break
    environment.close()
    return Walk(*(np.array(column) for column in zip(*rows, strict=True)))


@pytest.fixture(scope="module")
def walk() -> Walk:
    return record(80, [0.0, 0.3, 0.8, 0.8])


def make(seeds: list[int]) -> Any:
    return make_simulator("Ant-v4", seeds, kind="warp")


def assert_agrees(walk: Walk) -> None:
    simulator = make(list(range(len(walk.rewards))))
    simulator.reset()
    simulator.set_state(walk.qpos, walk.qvel, walk.torso_x)
    result = simulator.step(walk.actions)
    np.testing.assert_allclose(result.observations, walk.observations, rtol=0, atol=OBSERVATIONS)
    np.testing.assert_allclose(result.rewards, walk.rewards, rtol=0, atol=REWARDS)
    assert (result.terminated == walk.terminated).all()
    assert not result.truncated.any()
    assert simulator.diverged() == 0


@needs_warp
def test_a_step_is_gymnasiums(walk: Walk) -> None:
    assert walk.terminated.any()
    assert (walk.rewards > 4).any()
    assert_agrees(walk)


@needs_warp
@pytest.mark.slow
def test_thousands_of_steps_are_gymnasiums() -> None:
    walk = record(1000, [0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.8, 0.8])
    assert len(walk.rewards) > 3000
    # Far away a difference of two places would be worth nothing in single precision.
    assert walk.qpos[:, 0].max() > 100
    assert_agrees(walk)


@needs_warp
def test_contact_frames_are_mujocos_for_steep_legs() -> None:
    """Ants on tiptoe: MuJoCo Warp's own frames differ where a leg is within 30 degrees of upright."""
    import mujoco
    import mujoco_warp

    from nervecord.training.simulators.warp_ant import model_file

    model = mujoco.MjModel.from_xml_path(str(model_file()))
    data = mujoco.MjData(model)
    draw = np.random.default_rng(0)
    place = np.tile(model.qpos0, (16, 1))
    place[:, 2] = 0.58
    place[:, 3:7] += draw.normal(0, 0.02, (16, 4))
    place[:, 3:7] /= np.linalg.norm(place[:, 3:7], axis=1, keepdims=True)
    place[:, 7::2] = draw.uniform(-0.5, 0.5, (16, 4))
    place[:, 8::2] = np.deg2rad(draw.uniform(50, 70, (16, 4))) * (1, -1, -1, 1)
    simulator = make(list(range(16)))
    simulator.set_state(place, np.zeros((16, 14)))
    mujoco_warp.forward(simulator._model, simulator._data)
    contact, count = simulator._data.contact, int(simulator._data.nacon.numpy()[0])
    worlds, geoms, frames, ends = (
        getattr(contact, name).numpy()[:count] for name in ("worldid", "geom", "frame", "pos")
    )
    steep = contacts = 0
    for world in range(len(place)):
        data.qpos[:] = place[world]
        mujoco.mj_forward(model, data)
        for each in data.contact:
            near = np.abs(ends - each.pos).max(1) < 1e-4
            matching = np.flatnonzero((worlds == world) & (geoms == each.geom).all(1) & near)
            assert len(matching) == 1
            # Tangents are divided by what is left of the axis, so they are less exact the steeper the leg.
            np.testing.assert_allclose(frames[matching[0]].ravel(), each.frame, rtol=0, atol=1e-4)
            contacts += 1
            is_capsule = model.geom_type[each.geom[1]] == mujoco.mjtGeom.mjGEOM_CAPSULE
            axis = data.geom_xmat[each.geom[1]].reshape(3, 3)[:, 2]
            steep += int(is_capsule and np.hypot(axis[0], axis[1]) < 0.5)
    assert contacts > steep > 30


@needs_warp
def test_the_step_after_an_end_only_resets(walk: Walk) -> None:
    simulator = make([3, 4, 5])
    first = simulator.reset()
    # World 1 stands above the greatest height; world 2's state is no number.
    qpos, qvel = walk.qpos[:3].copy(), np.zeros((3, 14))
    qpos[1, 2], qvel[2, 3] = 1.5, np.nan
    simulator.set_state(qpos, qvel)
    last = simulator.step(np.full((3, 8), 0.5))
    assert last.terminated.tolist() == [False, True, True]
    assert not last.truncated.any()
    assert last.observations[1, 0] > 1.0
    assert simulator.diverged() == 1
    assert np.array_equal(last.observations[2], first[2])
    assert last.rewards[2] == 0.0  # 1 for its health, as Gymnasium gives it, less 0.5 * 8 * 0.25
    after = simulator.step(np.ones((3, 8)))
    assert after.rewards[1:].tolist() == [0.0, 0.0]
    assert after.rewards[0] != 0.0
    assert not (after.terminated | after.truncated).any()
    assert (np.abs(after.observations[1:, 5:13]) <= 0.1).all()
    assert (after.observations[1:] != first[1:]).all(), "another episode begins elsewhere"
    again = simulator.step(np.zeros((3, 8)))
    assert np.isfinite(again.observations).all()
    assert (np.abs(again.rewards[1:] - 1.0) < 1.0).all(), "a forward reward from the new place, not the old one"


@needs_warp
def test_truncation_after_a_thousand_steps() -> None:
    simulator = make([0, 1])
    simulator.reset()
    simulator._elapsed.fill_(998)
    results = [simulator.step(np.zeros((2, 8))) for _ in range(4)]
    assert [result.truncated.tolist() for result in results] == [[False] * 2, [True] * 2, [False] * 2, [False] * 2]
    assert not any(result.terminated.any() for result in results)
    assert (results[1].rewards != 0).all()
    assert (results[2].rewards == 0).all()


@needs_warp
def test_seeds_belong_to_worlds() -> None:
    together, reverse, alone = make([11, 12, 13]), make([13, 12, 11]), make([12])
    firsts = [simulator.reset() for simulator in (together, reverse, alone)]
    assert np.array_equal(firsts[0], firsts[1][::-1])
    assert np.array_equal(firsts[0][1:2], firsts[2])
    assert len(np.unique(firsts[0], axis=0)) == 3


@needs_warp
def test_first_states_have_gymnasiums_distribution() -> None:
    """Positions uniform within 0.1 of the model's, velocities normal with 0.1; 4000 worlds, four standard errors."""
    first = make(list(range(4000))).reset()
    offsets, velocities = first[:, :13].copy(), first[:, 13:]
    offsets[:, :2] -= (0.75, 1.0)
    assert np.abs(offsets).max() <= 0.1 + 1e-6
    assert np.abs(offsets.mean(0)).max() < 4 * 0.0577 / 4000**0.5
    np.testing.assert_allclose(offsets.std(0), 0.2 / 12**0.5, rtol=0.04)
    assert np.abs(velocities.mean(0)).max() < 4 * 0.1 / 4000**0.5
    np.testing.assert_allclose(velocities.std(0), 0.1, rtol=0.05)
    between = np.corrcoef(first.T) - np.eye(27)
    assert np.abs(between).max() < 5 / 4000**0.5


@needs_warp
def test_a_later_step_does_not_change_what_an_earlier_one_gave() -> None:
    import torch

    simulator = make([1, 2]).inner
    assert (simulator.observation_size, simulator.low.tolist(), simulator.high.tolist()) == (27, [-1.0] * 8, [1.0] * 8)
    first = simulator.reset()
    step = simulator.step(torch.zeros(2, 8))
    copies = [first.clone(), *(getattr(step, name).clone() for name in FIELDS)]
    for _ in range(3):
        simulator.step(torch.rand(2, 8))
    for tensor, copy in zip([first, *(getattr(step, name) for name in FIELDS)], copies, strict=True):
        assert torch.equal(tensor, copy)


@needs_warp
def test_a_saved_state_goes_on_the_same() -> None:
    import torch

    one, other = make([1, 2]), make([7, 8])
    one.reset()
    actions = np.random.default_rng(0).uniform(-1, 1, (8, 2, 8))
    for row in actions[:4]:
        one.step(row)
    one.cut(torch.tensor([True, False]))
    other.load_state_dict(one.state_dict())
    for row in actions[4:]:
        a, b = one.step(row), other.step(row)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@needs_warp
@pytest.mark.slow
def test_training_and_resuming(tmp_path: Path) -> None:
    from nervecord.training.folder.run_folder import WALL_CLOCK
    from nervecord.training.run import resume, train
    from nervecord.training.settings.config import TrainConfig

    config = TrainConfig.of(
        sim="warp",
        layers=(16,),
        critic=(8,),
        steps=2048,
        num_envs=32,
        rollout=16,
        minibatch=64,
        epochs=2,
        checkpoint_every=1024,
        validation_episodes=0,
        test_episodes=0,
        record=64,
        tensorboard=False,
        out=str(tmp_path),
        name="whole",
    )
    train(config)
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    (tmp_path / "again" / "checkpoints" / "step-000000002048.pt").unlink()
    resume(tmp_path / "again")
    logs = [
        [
            {key: value for key, value in json.loads(line).items() if key not in WALL_CLOCK}
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "again")
    ]
    assert len(logs[0]) == 4
    assert logs[0] == logs[1]
    assert json.loads((tmp_path / "whole" / "versions.json").read_text())["packages"]["mujoco-warp"] == VERSION
    assert (tmp_path / "whole" / "policy.nir").exists()


def test_other_tasks_are_refused() -> None:
    with pytest.raises(NervecordError, match=r"Ant-v5 .*warp, .*Ant-v4"):
        make_simulator("Ant-v5", [0], kind="warp")


@pytest.mark.parametrize("absent", ["mujoco", "mujoco-warp", "warp-lang"])
def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    def version(name: str) -> str:
        if name == absent:
            raise metadata.PackageNotFoundError(name)
        return "3.17.0"

    monkeypatch.setattr("nervecord.training.simulators.warp_versions.metadata.version", version)
    with pytest.raises(MissingDependencyError, match=rf"--sim warp: {absent} ") as refusal:
        make_simulator("Ant-v4", [0], kind="warp")
    assert "[train,warp]" in (refusal.value.hint or "")


def test_mujoco_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"mujoco": "3.17.0", "mujoco-warp": "3.16.0", "warp-lang": "1.19.0"}
    monkeypatch.setattr("nervecord.training.simulators.warp_versions.metadata.version", versions.__getitem__)
    with pytest.raises(NervecordError, match=r"MuJoCo Warp 3\.16\.0 .*MuJoCo, 3\.17\.0") as refusal:
        make_simulator("Ant-v4", [0], kind="warp")
    assert refusal.value.hint == "pip install mujoco-warp==3.17.0"


@needs_warp
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(NervecordError, match=r"--device: .*'cuda:77'") as refusal:
        make_simulator("Ant-v4", [0], kind="warp", device="cuda:77")
    assert "cpu" in (refusal.value.hint or "")


@needs_warp
def test_an_unknown_contact_function_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    contact = importlib.import_module("nervecord.training.simulators.warp_contact")
    contact.use_mujoco_frame()
    contact.use_mujoco_frame()
    assert contact.collision_primitive.plane_capsule is contact.plane_capsule
    monkeypatch.setattr(contact.collision_primitive, "plane_capsule", contact.plane_sphere)
    with pytest.raises(NervecordError, match=r"version 3\.17\.0"):
        contact.use_mujoco_frame()
