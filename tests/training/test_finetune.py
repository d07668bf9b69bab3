"""Fine-tuning: TD7 that goes on with a student's network in the place of its actor."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nervecord.compiler.nir.file import read_nir
from nervecord.errors import NervecordError
from nervecord.training.algorithms.finetune import Finetune
from nervecord.training.folder import checkpoint
from nervecord.training.folder.start import digest, shared_with
from nervecord.training.learners.base import Setup
from nervecord.training.learners.finetune import FinetuneLearner
from nervecord.training.learners.replay import Batch
from nervecord.training.learners.td7_networks import TD7Policy, pack, unpack
from nervecord.training.processes.distributed import SOLO
from nervecord.training.run import Run, resume, train
from nervecord.training.settings.config import TrainConfig

pytestmark = pytest.mark.long

COMMON: dict[str, Any] = {
    "env": "Pendulum-v1",
    "num_envs": 4,
    "tensorboard": False,
    "record": 0,
    "validation_episodes": 10,
    "test_episodes": 20,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher of TD7, "teacher", and a student that has hardly begun to learn from it, "student"."""
    return train_pair(tmp_path_factory.mktemp("runs"), steps=1536)


@pytest.fixture(scope="module")
def good_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a teacher that has learnt its task."""
    return train_pair(tmp_path_factory.mktemp("runs"), steps=4096)


def train_pair(out: Path, *, steps: int) -> Path:
    """Train both; returns `out`."""
    td7 = {
        "algorithm": "td7",
        "steps": steps,
        "random_steps": 1000,
        "steps_per_update": 1.0,
        "hidden": 64,
        "embedding": 32,
        "capacity": 20_000,
        "lr": 1e-3,
        "validate_from": 0.5,
        "checkpoint_every": 1024,
    }
    train(TrainConfig.of(**COMMON, **td7, out=str(out), name="teacher"))
    distill = {
        "algorithm": "distill",
        "teacher": str(out / "teacher"),
        "steps": 1024,
        "rollout": 64,
        "minibatch": 64,
        "layers": (32,),
        "steps_per_action": 4,
        "lr": 3e-3,
        "grad_norm": 10.0,
        "critic": (8,),
        "value_epochs": 0,
    }
    train(TrainConfig.of(**COMMON, **distill, out=str(out), name="student"))
    return out


def finetune_config(runs: Path, out: Path, **changes: Any) -> TrainConfig:
    """2,600 updates after 1,500 steps that fill the replay."""
    base = {
        "algorithm": "finetune",
        "critic_run": str(runs / "teacher"),
        "start": str(runs / "student"),
        "steps": 4096,
        "fill_steps": 1500,
        "freeze_updates": 100,
        "steps_per_update": 1.0,
        "lr": 4e-3,
        "critic_lr": 1e-3,
        "cooldown": 0.5,
        "restart_steps": 50,
        "capacity": 20_000,
        "checkpoint_every": 1024,
        "validate_from": 0.6,
        "out": str(out),
        "name": "finer",
    }
    student = shared_with(runs / "student", Finetune.sources[0])
    return TrainConfig.of(**{**student, **COMMON, **base, **changes})


def mean_return(folder: Path) -> float:
    return float(json.loads((folder / "result.json").read_text())["test"]["mean_return"])


@pytest.mark.slow
def test_a_student_becomes_better_and_is_exported(good_runs: Path, tmp_path: Path) -> None:
    result = train(finetune_config(good_runs, tmp_path))
    assert result.test is not None
    assert result.policy is not None
    # A policy that does nothing has about -1,200; the best there is about -150.
    assert mean_return(good_runs / "student") < -400
    assert result.test.mean > -300
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert "critic_loss" not in rows[0]  # the replay is being filled
    assert rows[-1]["teacher_distance"] > 0
    origins = json.loads((result.folder / "versions.json").read_text())
    assert origins["start"]["folder"] == str(good_runs / "student")
    assert origins["critic_run"]["folder"] == str(good_runs / "teacher")
    policy = read_nir(result.policy)
    assert policy.contract is not None  # type: ignore[union-attr]

    # It can teach, and has no critic for PPO.
    student = finetune_config(good_runs, tmp_path).replace(
        algorithm="distill", teacher=str(result.folder), steps=64, rollout=16, minibatch=16, num_envs=4, name="taught"
    )
    student_result = train(student)
    assert json.loads((student_result.folder / "versions.json").read_text())["teacher"]["folder"] == str(result.folder)
    with pytest.raises(NervecordError, match="finetune, "):
        train(student.replace(algorithm="ppo", start=str(result.folder), name="ppo"))


def test_it_begins_as_its_student_and_with_its_teachers_critic(runs: Path, tmp_path: Path) -> None:
    run = Run(finetune_config(runs, tmp_path, seed=1), None)
    learner = run.learner
    assert isinstance(learner, FinetuneLearner)
    student, teacher = (
        checkpoint.load(runs / name / "checkpoints", best_of(runs / name)) for name in ("student", "teacher")
    )
    for name, value in learner.state_dict()["actor"].items():
        torch.testing.assert_close(value, student["learner"]["actor"][name], rtol=0, atol=0)
    for part in ("encoder", "critic", "fixed", "fixed_target", "critic_target"):
        for name, value in getattr(learner.agent, part).state_dict().items():
            torch.testing.assert_close(value, teacher["learner"]["td7"]["modules"][part][name], rtol=0, atol=0)
    observations = torch.randn(5, 3)
    torch.testing.assert_close(learner.agent.actor_target(observations, None), learner.agent.actor(observations, None))
    # While the replay is filled it acts with noise in every second environment; who acts in the others: see below.
    x = torch.randn(400, 3)
    own, noisy = learner.mode(x, None)[0], learner.act(x, None).actions
    assert 0.05 < (noisy - own)[::2].abs().mean() < 0.5
    run.simulator.close()


def best_of(folder: Path) -> int:
    return int(json.loads((folder / "result.json").read_text())["step"])


def test_the_actor_stands_still_until_the_critic_knows_the_student(runs: Path, tmp_path: Path) -> None:
    run = Run(finetune_config(runs, tmp_path, fill_steps=300, freeze_updates=50, steps_per_update=4.0), None)
    learner = run.learner
    assert isinstance(learner, FinetuneLearner)
    before = {name: value.clone() for name, value in learner.state_dict()["actor"].items()}
    moves = []
    for _ in range(6):
        learner.schedule(0, 4096)
        run.rollout()
        now = learner.state_dict()["actor"]
        moves.append((learner.agent.updates, any(not torch.equal(now[name], before[name]) for name in before)))
    run.simulator.close()
    assert any(0 < updates <= 50 for updates, _ in moves)
    assert any(updates > 50 for updates, _ in moves)
    for updates, has_moved in moves:
        assert has_moved == (updates > 50)


def test_the_teacher_acts_first_where_there_are_few_environments(runs: Path, tmp_path: Path) -> None:
    run = Run(finetune_config(runs, tmp_path, exploration=0.0), None)
    run.simulator.close()
    learner = run.learner
    assert isinstance(learner, FinetuneLearner)
    content = checkpoint.load(runs / "teacher" / "checkpoints", best_of(runs / "teacher"))
    # As if the teacher had been three policies before that always gave 1, 2 and 3 tenths, the last the newest.
    for tenths in (1, 2, 3):
        before = unpack(TD7Policy, learner.teacher_record["policies"][-1])
        for parameter in before.actor.rest[-1].parameters():
            parameter.data.fill_(0)
        before.actor.rest[-1].bias.data.fill_(math.atanh(tenths / 10))
        content["learner"]["past"].append({"updates": 0, "every": 1, **pack(before)})
    sources = {
        "critic_run": content,
        "start": checkpoint.load(runs / "student" / "checkpoints", best_of(runs / "student")),
    }
    limit = torch.tensor([2.0])
    learner = FinetuneLearner(Setup(3, -limit, limit, run.config, SOLO, sources=sources))
    observations = torch.randn(6, 3)
    actions, own = learner.act(observations, None).actions, learner.mode(observations, None)[0]
    torch.testing.assert_close(actions[::2], own[::2])
    torch.testing.assert_close(actions[1], 2 * learner.agent.teacher(observations)[1])
    torch.testing.assert_close(actions[3::2, 0], torch.tensor([0.6, 0.4]), rtol=1e-3, atol=0)


def test_the_network_moves_to_greater_values_and_back_between_the_limits(runs: Path, tmp_path: Path) -> None:
    """The gradient of the actor's loss at its outputs, term by term."""
    run = Run(finetune_config(runs, tmp_path, critic_weight=50.0), None)
    run.simulator.close()
    learner = run.learner
    assert isinstance(learner, FinetuneLearner)
    agent = learner.agent
    observations = torch.randn(64, 3)
    means = torch.cat([torch.linspace(-0.9, 0.9, 48), torch.linspace(-1.5, -1.1, 8), torch.linspace(1.1, 1.5, 8)])[
        :, None
    ]
    means.requires_grad_()
    agent.actor.means = lambda x: means  # type: ignore[method-assign]
    rest = torch.zeros(64, 1)
    batch, zs = Batch(observations, rest, observations, rest, rest, observations), agent.fixed.state(observations)
    (gradient,) = torch.autograd.grad(agent._actor_loss(batch, zs), means)
    actions = means.detach().clamp(-1, 1).requires_grad_()
    values = agent.critic(observations, actions, agent.fixed.state_action(zs, actions), zs)
    (slope,) = torch.autograd.grad(values.mean() / values.detach().abs().mean(), actions)
    teacher_actions = agent.teacher(observations)
    apart = torch.where(teacher_actions >= 1, (means - teacher_actions).clamp(max=0), means - teacher_actions)
    apart = torch.where(teacher_actions <= -1, (means - teacher_actions).clamp(min=0), apart)
    inside = (means.abs() < 1).float()
    expected = 2 * apart / 64 + 2 * (means - actions) / 64 - 50 * slope * inside
    torch.testing.assert_close(gradient, expected.detach(), rtol=1e-4, atol=1e-6)
    assert (50 * slope * inside).abs().max() > 1e-3


@pytest.mark.slow
def test_it_goes_on_without_its_sources(runs: Path, tmp_path: Path) -> None:
    first = train(
        finetune_config(runs, tmp_path, steps=2048, checkpoint_every=2048, validation_episodes=0, test_episodes=0)
    )
    (first.folder / "result.json").unlink()
    for name in ("start", "critic_run"):
        config = json.loads((first.folder / "config.json").read_text())
        config["algorithm"][name] = str(tmp_path / "gone")
        (first.folder / "config.json").write_text(json.dumps(config))
    result = resume(first.folder, overrides={"steps": 2560})
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(128, 2561, 128))
    assert rows[-1]["updates"] > rows[15]["updates"]

    keep, archive = Path(__file__).parents[2] / "zoo/keep.py", tmp_path / "packed"
    subprocess.run([sys.executable, keep, result.folder, archive, "--checkpoint"], check=True)
    (file,) = (archive / "checkpoints").iterdir()
    assert file.stat().st_size < 0.6 * (result.folder / "checkpoints" / file.name).stat().st_size
    (archive / "result.json").unlink()
    before, after = (checkpoint.load(f / "checkpoints") for f in (result.folder, archive))
    again = Run(result.config, after)
    for name, value in again.learner.state_dict()["actor"].items():
        torch.testing.assert_close(value, before["learner"]["actor"][name], rtol=0, atol=0)
    again.simulator.close()
    resume(archive, overrides={"steps": 2688, "test_episodes": 0})

    run = Run(result.config, checkpoint.load(result.folder / "checkpoints"))
    assert isinstance(run.learner, FinetuneLearner)
    agent, observations = run.learner.agent, torch.randn(5, 3)
    assert not torch.equal(agent.actor.obs_rms(observations), observations)
    assert torch.equal(agent.actor_target.obs_rms(observations), agent.actor.obs_rms(observations))
    run.simulator.close()


def test_what_the_zoo_keeps_of_a_student_is_begun_with_and_not_gone_on_with(runs: Path, tmp_path: Path) -> None:
    keep = Path(__file__).parents[2] / "zoo/keep.py"
    subprocess.run([sys.executable, keep, runs / "student", tmp_path / "kept", "--networks"], check=True)
    (before,), (file,) = ((f / "checkpoints").glob("*.pt") for f in (runs / "student", tmp_path / "kept"))
    assert file.stat().st_size < before.stat().st_size / 3
    run = Run(finetune_config(runs, tmp_path, start=str(tmp_path / "kept")), None)
    run.simulator.close()
    assert run.origins["start"]["networks"] == digest(checkpoint.load(runs / "student" / "checkpoints")["learner"])
    with pytest.raises(
        NervecordError, match=r"kept: keeps the networks of its training alone.*another training with it: .*--start RUN"
    ):
        resume(tmp_path / "kept")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": ""}, "--start:"),
        ({"critic_run": ""}, "--critic-run: is empty"),
        ({"num_envs": 3, "restart_steps": 50}, "--restart-steps: .*--num-envs 3"),
        ({"start": "{runs}/teacher"}, "td7, .*network"),
        ({"critic_run": "{runs}/student"}, "was trained with distill, and holds no critic of actions"),
        ({"critic_run": "policy.onnx"}, "--critic-run policy.onnx:"),
        ({"critic_run": "{runs}/none"}, "none"),
        ({"gamma": 0.9}, r"trained with gamma 0.99, not 0.9: .*give no other --gamma"),
        ({"fill_steps": 4096}, "--fill-steps: is 4,096, and the whole training has 4,096 steps"),
        ({"layers": (16,)}, r"layers \(32,\).*\(16,\)"),
        ({"obs_clip": 5.0}, "trained with obs clip 10.0, not 5.0"),
    ],
)
def test_what_it_cannot_begin_with_is_said(changes: dict[str, Any], message: str, runs: Path, tmp_path: Path) -> None:
    options = {name: v.format(runs=runs) if isinstance(v, str) else v for name, v in changes.items()}
    with pytest.raises(NervecordError, match=message):
        train(finetune_config(runs, tmp_path, **options))
    assert not (tmp_path / "finer").exists()
