"""A network of another maker teaches: what it answers is its definition, and a student learns from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import exporters
import numpy as np
import pytest
import torch
from policies import random_policy

from nervecord.compiler.onnx.reading import read_onnx
from nervecord.compiler.plan.interpret import simulate
from nervecord.errors import NervecordError
from nervecord.training.folder import checkpoint
from nervecord.training.front import distill
from nervecord.training.learners.network_teacher import PART, NetworkTeacher, read_network_teacher
from nervecord.training.learners.sources import read_sources
from nervecord.training.run import resume
from nervecord.training.settings.config import TrainConfig
from nervecord.training.settings.foreign_network import network_policy, task_contract

pytest.importorskip("onnx")
pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")

SMALL: dict[str, Any] = {
    "layers": (16,),
    "num_envs": 4,
    "rollout": 32,
    "minibatch": 64,
    "epochs": 2,
    "steps": 2048,
    "kept_states": 4096,
    "test_episodes": 1,
    "validation_episodes": 1,
    "sim": "gymnasium",
    "steps_per_action": 2,
}


def config(path: Path, **fields: Any) -> TrainConfig:
    return TrainConfig.for_task(**{"teacher": str(path), "algorithm": "distill", **SMALL, **fields})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "env"),
    [
        (exporters.rsl_rl, "Ant-v4"),
        (exporters.skrl, "Ant-v4"),
        (lambda path: exporters.stable_baselines3("SAC", "Pendulum-v1", path, dynamo=False), "Pendulum-v1"),
    ],
    ids=["rsl_rl", "skrl", "sb3"],
)
def test_the_teacher_answers_as_the_graph_is_defined(make: Any, env: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"
    answer = make(path)
    graph = read_onnx(path)
    content = read_network_teacher(path, config(path, env=env))
    teacher = NetworkTeacher(content["learner"][PART])
    rows = (np.random.default_rng(0).normal(size=(40, teacher.sizes[0])) * 3).astype(np.float32)
    actions = teacher(torch.from_numpy(rows)).numpy()
    expected = simulate(graph, rows.astype(np.float64)).left["action"][:, 0]
    np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(actions, answer(rows), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_choice_gives_its_preferences(tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"
    answer = exporters.stable_baselines3("PPO", "CartPole-v1", path, dynamo=False)
    teacher = NetworkTeacher(read_network_teacher(path, config(path, env="CartPole-v1"))["learner"][PART])
    rows = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    preferences = teacher(torch.from_numpy(rows)).numpy()
    assert preferences.shape == (40, 2)
    np.testing.assert_array_equal(preferences.argmax(1), answer(rows)[:, 0])


@pytest.mark.filterwarnings("ignore")
def test_a_student_learns_from_a_file_and_goes_on_without_it(tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"
    exporters.rsl_rl(path, observations=3, actions=1, normalised=True)
    fields = {**SMALL, "env": "Pendulum-v1", "out": str(tmp_path), "checkpoint_every": 256}
    result = distill(path, name="student", **fields)
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["policy_loss"] < 0.7 * rows[0]["policy_loss"]
    assert result.policy is not None
    assert result.policy.is_file()
    assert str(path) in (result.folder / "config.json").read_text()
    path.unlink()
    (tmp_path / "policy.onnx.data").unlink(missing_ok=True)
    *_, before, last = checkpoint.steps_in(result.folder / "checkpoints")
    # As if killed before its end.
    checkpoint.checkpoint_path(result.folder / "checkpoints", last).unlink()
    again = [json.loads(line) for line in (resume(result.folder).folder / "metrics.jsonl").read_text().splitlines()]
    assert again[-1]["step"] == rows[-1]["step"] == last > before
    with pytest.raises(NervecordError, match=r"policy\.onnx"):
        distill(path, name="again", **fields)


@pytest.mark.filterwarnings("ignore")
def test_it_answers_where_it_was_moved_to(tmp_path: Path) -> None:
    """In another type, for want of another device."""
    path = tmp_path / "policy.onnx"
    exporters.rsl_rl(path)
    teacher = NetworkTeacher(read_network_teacher(path, config(path, env="Ant-v4"))["learner"][PART])
    observations = torch.randn(5, 27)
    expected = teacher(observations)
    actions = teacher.to(torch.float64)(observations.double())
    assert actions.dtype == torch.float64
    torch.testing.assert_close(actions, expected.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_teacher_of_another_task_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"
    exporters.rsl_rl(path)
    with pytest.raises(NervecordError, match=r"27 values, .* 3"):
        distill(path, name="student", **{**SMALL, "env": "Pendulum-v1", "out": str(tmp_path)})
    with pytest.raises(NervecordError, match="no mirror"):
        read_sources(config(path, env="Ant-v4", mirror=True))


@pytest.mark.filterwarnings("ignore")
def test_a_network_becomes_a_policy_of_a_task(tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"
    answer = exporters.rsl_rl(path)
    policy = network_policy(path, "Ant-v4")
    assert policy.contract.environment == "Ant-v4"
    assert policy.contract.control_period == policy.graph.dt == 0.05
    assert policy.contract.action.names[0] == random_policy_names()
    rows = (np.random.default_rng(0).normal(size=(20, 27)) * 3).astype(np.float32)
    trace = simulate(policy, rows.astype(np.float64))
    assert trace.actions is not None
    np.testing.assert_allclose(trace.actions[:, 0], answer(rows).clip(-1, 1), atol=1e-5)
    with pytest.raises(NervecordError, match="takes 27 observations, and CartPole-v1 gives 4"):
        network_policy(path, "CartPole-v1")
    assert task_contract("CartPole-v1").choices


def random_policy_names() -> str:
    """The first of Ant's actions, as the tasks here name it."""
    from nervecord.training.settings.tasks import TASKS

    assert random_policy().contract.action.size == len(TASKS["Ant-v4"].action_names)
    return TASKS["Ant-v4"].action_names[0]
