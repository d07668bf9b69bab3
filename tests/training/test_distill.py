"""A student learns to act as its teacher does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from training.test_resume import flat
from training.test_start import networks, small

from nervecord.errors import NervecordError
from nervecord.training.folder import checkpoint
from nervecord.training.learners.distill import Student, distance
from nervecord.training.learners.sources import read_sources
from nervecord.training.learners.teacher import make_teacher
from nervecord.training.run import Run, TrainResult, resolved, resume, train
from nervecord.training.settings.config import TrainConfig


def student_config(out: Path, teacher: Path, /, name: str = "student", **changes: Any) -> TrainConfig:
    base = {"policy": "snn", "layers": (32,), "steps": 4096, "epochs": 8, "lr": 3e-3, "checkpoint_every": 1024}
    return small(out, name, **{"algorithm": "distill", "teacher": str(teacher), **base, **changes})


@pytest.mark.long
def test_a_student_comes_to_act_as_its_teacher_does(tmp_path: Path) -> None:
    teacher = train(small(tmp_path, "teacher", policy="ann", lr=3e-3, steps=1024))
    config = student_config(tmp_path, teacher.folder, steps=2048)
    content = checkpoint.load(teacher.folder / "checkpoints", teacher.step)
    result = train(config)
    assert result.policy is not None  # the teacher's own kind is not written as NIR
    expected, after = networks(content), networks(checkpoint.load(result.folder / "checkpoints"))
    for name, value in expected.items():
        if not name.startswith("actor."):
            assert torch.equal(value, after[name]), name
    assert torch.equal(expected["actor.log_std"], after["actor.log_std"])
    assert json.loads((result.folder / "versions.json").read_text())["teacher"]["step"] == teacher.step

    end = checkpoint.load(result.folder / "checkpoints")
    before, learner = (run_of(c, result.folder) for c in (None, end))
    observations = end["recorded"]
    assert isinstance(learner, Student)
    labels = learner.teacher(observations).clamp(-3, 3)
    spread = labels.std()
    errors = [(s.mode(observations, None)[0] - labels).square().mean().sqrt() for s in (before, learner)]
    assert errors[0] > 0.5 * spread
    assert errors[1] < 0.25 * spread


def run_of(content: dict[str, Any] | None, folder: Path) -> Any:
    """The learner of a run folder, at a checkpoint or before its first step."""
    run = Run(TrainConfig.from_json((folder / "config.json").read_text()), content)
    run.simulator.close()
    return run.learner


@pytest.mark.long
def test_a_distillation_that_goes_on_is_the_same_without_its_teachers_folder(
    ann_run: TrainResult, tmp_path: Path
) -> None:
    shutil.copytree(ann_run.folder, tmp_path / "teacher")
    changes = {"steps": 512, "checkpoint_every": 128, "kept_states": 0, "exact_resume": True}
    whole = train(student_config(tmp_path, tmp_path / "teacher", "whole", **changes))
    # As if killed half way: the newer checkpoints are gone.
    folder = whole.folder
    last = flat(checkpoint.load(folder / "checkpoints")["learner"])
    for step in checkpoint.steps_in(folder / "checkpoints"):
        if step > 256:
            checkpoint.checkpoint_path(folder / "checkpoints", step).unlink()
    (tmp_path / "teacher").rename(tmp_path / "elsewhere")
    again = resume(folder)
    assert again.test == whole.test
    assert flat(checkpoint.load(folder / "checkpoints")["learner"]) == last
    with pytest.raises(NervecordError, match="teacher"):
        train(whole.config.replace(name="new"))


@pytest.fixture(scope="module")
def student(ann_run: TrainResult, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(student_config(tmp_path_factory.mktemp("student"), ann_run.folder, steps=256))


def test_ppo_begins_with_a_student(student: TrainResult, tmp_path: Path) -> None:
    run = Run(resolved(small(tmp_path, "more", layers=(32,), start=str(student.folder))), None)
    run.simulator.close()
    expected = networks(checkpoint.load(student.folder / "checkpoints", student.step))
    assert all(
        torch.equal(value, expected[name]) for name, value in networks({"learner": run.learner.state_dict()}).items()
    )


def test_a_student_can_teach(student: TrainResult, tmp_path: Path) -> None:
    """It is asked itself, not the teacher that its checkpoints hold."""
    content = checkpoint.load(student.folder / "checkpoints", student.step)
    second = run_of(None, train(student_config(tmp_path, student.folder, "second", steps=64)).folder)
    observations = content["recorded"]
    expected = run_of(content, student.folder).mode(observations, None)[0]
    assert torch.equal(second.teacher(observations), expected)


@pytest.mark.long
def test_a_choice_is_learnt_as_a_distribution(tmp_path: Path) -> None:
    teacher = train(small(tmp_path, "teacher", env="CartPole-v1", policy="ann"))
    content = checkpoint.load(teacher.folder / "checkpoints", teacher.step)
    teacher_policy = make_teacher(content, 4, torch.zeros(1), torch.ones(1), 2, torch.device("cpu"))
    assert teacher_policy(torch.zeros(3, 4)).shape == (3, 2)
    result = train(student_config(tmp_path, teacher.folder, env="CartPole-v1", steps=1024))
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["policy_loss"] <= rows[0]["policy_loss"]


def test_distance_beyond_a_limit_is_none() -> None:
    limits = torch.tensor([-1.0, -1.0]), torch.tensor([1.0, 1.0])
    labels = torch.tensor([[3.0, 0.5], [-2.0, 0.5]])
    assert distance(torch.tensor([[1.5, 0.5], [-1.0, 0.5]]), labels, limits) == 0
    means = torch.tensor([[0.5, 1.5], [0.0, 0.5]], requires_grad=True)
    loss = distance(means, labels, limits)
    assert loss.item() == pytest.approx((0.25 + 1 + 1) / 2)
    loss.backward()  # type: ignore[no-untyped-call]
    assert means.grad is not None
    assert means.grad.tolist() == [[-0.5, 1.0], [1.0, 0.0]]
    # In halves of the range it is the same whatever the limits are, and between -1 and 1 bit for bit.
    assert torch.equal(distance(means, labels, limits, unit=torch.ones(2)), loss)
    narrow = tuple(0.5 * limit for limit in limits)
    assert distance(0.5 * means, 0.5 * labels, narrow, unit=torch.full((2,), 0.5)).item() == loss.item()
    # Of choices the distance is least where both prefer alike, whatever is added to all preferences.
    logits = torch.tensor([[1.0, 2.0]])
    assert distance(logits + 3, logits, None) < distance(logits * 2, logits, None)


@pytest.mark.parametrize(
    ("teacher", "changes", "message"),
    [
        ({}, {"critic": (8, 8)}, r"critic \(8,\).*\(8, 8\)"),
        ({}, {"env": "InvertedDoublePendulum-v4"}, "env InvertedPendulum-v4"),
        ({}, {"teacher": "nowhere"}, "nowhere"),
        ({"policy": "snn", "state": "carried"}, {}, "carries state from action to action"),
    ],
)
def test_what_cannot_teach_is_refused(
    ann_run: TrainResult, tmp_path: Path, teacher: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    folder = train(small(tmp_path, "teacher", **teacher, steps=64)).folder if teacher else ann_run.folder
    config = student_config(tmp_path, folder, **changes)
    with pytest.raises(NervecordError, match=message):
        read_sources(config)
    with pytest.raises(NervecordError, match=message):
        train(config)
    assert not (tmp_path / "student").exists()


def test_a_student_begins_with_no_other_run() -> None:
    with pytest.raises(NervecordError, match=r"--start: .*--algorithm distill"):
        TrainConfig.of(algorithm="distill", start="a", teacher="b")
