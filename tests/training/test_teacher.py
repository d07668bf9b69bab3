"""Teachers that are functions, what a student may take of a teacher beside its actions, and PPO beside a teacher."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import small
from training.test_distill import student_config
from training.test_resume import flat

import nervecord
from nervecord.errors import NervecordError
from nervecord.training.folder import checkpoint
from nervecord.training.learners.base import Rollout, Setup
from nervecord.training.learners.distill import Student
from nervecord.training.learners.function_teacher import name_of
from nervecord.training.learners.ppo import PPOLearner
from nervecord.training.learners.sources import read_sources
from nervecord.training.learners.teacher import divergence, make_teacher
from nervecord.training.policy.mirror import mirror_of
from nervecord.training.run import Run, TrainResult, resolved, resume, train
from nervecord.training.settings.config import TrainConfig

HERE = f"{__name__}:balance"


def balance(observations: np.ndarray) -> np.ndarray:
    """Keeps InvertedPendulum-v4 upright."""
    return np.clip(observations @ np.array([[1.0], [8.0], [1.0], [2.0]], np.float32), -3, 3)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def learner_at(folder: Path, content: dict[str, Any] | None) -> Any:
    run = Run(TrainConfig.from_json((folder / "config.json").read_text()), content)
    run.simulator.close()
    return run.learner


@pytest.mark.slow
def test_a_function_teaches_and_a_critic_is_fitted_meanwhile(tmp_path: Path) -> None:
    fields = student_config(tmp_path, Path("."), steps=4096).fields
    options = {name: value for name, value in fields.items() if name not in ("teacher", "algorithm")}
    result = nervecord.distill(balance, **options)
    assert result.config.fields["teacher"] == HERE
    assert json.loads((result.folder / "versions.json").read_text())["teacher"] == {"function": HERE}
    content = checkpoint.load(result.folder / "checkpoints")
    after, before = (learner_at(result.folder, c) for c in (content, None))
    observations = content["recorded"]
    labels = torch.from_numpy(balance(observations.numpy()))
    errors = [float((one.mode(observations, None)[0] - labels).square().mean()) for one in (before, after)]
    assert errors[1] < 0.2 * errors[0]
    # Its critic foresees what its rollouts return, so that PPO can begin with it.
    losses = [row["value_loss"] for row in rows(result.folder)]
    assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:5])
    assert "explained_variance" in rows(result.folder)[-1]

    plain = train(student_config(tmp_path, HERE, "left", steps=256, value_epochs=0))  # type: ignore[arg-type]
    first, last = (learner_at(plain.folder, c) for c in (None, checkpoint.load(plain.folder / "checkpoints")))
    for a, b in zip(first.critic.parameters(), last.critic.parameters(), strict=True):
        assert torch.equal(a, b)
    resume(plain.folder, overrides={"steps": 512})
    assert rows(plain.folder)[-1]["step"] == 512


at_the_top = lambda x: x[:, :1]  # noqa: E731  # a notebook's


class Controller:
    """Its method is a function of no module."""

    def __init__(self, gain: float) -> None:
        self.gain = gain

    def act(self, x: np.ndarray) -> np.ndarray:
        """Changes what it is given, which must be its own."""
        x *= self.gain
        return x[:, :1]


def test_functions_that_no_module_has(tmp_path: Path) -> None:
    low, high = torch.tensor([-3.0]), torch.tensor([3.0])
    names = set()
    for function, gain in ((at_the_top, 1.0), (Controller(2.0).act, 2.0), (Controller(3.0).act, 3.0)):
        name = name_of(function)
        assert name not in names
        names.add(name)
        content = read_sources(student_config(tmp_path, name))[0].content  # type: ignore[arg-type]
        observations = torch.ones(2, 4)
        assert torch.equal(
            make_teacher(content, 4, low, high, 0, torch.device("cpu"))(observations), torch.full((2, 1), gain)
        )
        assert torch.equal(observations, torch.ones(2, 4))
    with pytest.raises(NervecordError, match="was given in Python and has no name there"):
        read_sources(student_config(tmp_path, "training.test_teacher:Controller.act.<9>"))  # type: ignore[arg-type]


def test_what_a_function_may_not_do(tmp_path: Path) -> None:
    def config(teacher: str) -> TrainConfig:
        return student_config(tmp_path, teacher)  # type: ignore[arg-type]

    with pytest.raises(NervecordError, match=f"{__name__} .* nothing"):
        read_sources(config(f"{__name__}:nothing"))
    with pytest.raises(NervecordError, match="'no_such_module'"):
        read_sources(config("no_such_module:act"))
    with pytest.raises(NervecordError, match="observations alone: missing"):
        read_sources(config(f"{__name__}:Controller.act"))
    low, high = torch.tensor([-3.0]), torch.tensor([3.0])
    for function, message in (
        (lambda x: {"actions": x}, "gave a dict, and an array of numbers is needed"),
        (lambda x: [[1.0], [1.0, 2.0]], "gave a list, and an array of numbers is needed"),
        (lambda x: x, r"shape \(5, 4\) for 5 observations, \(5, 1\) is needed"),
        (lambda x: x[:, :1] * np.nan, "not finite"),
    ):
        content = read_sources(config(name_of(function)))[0].content
        with pytest.raises(NervecordError, match=message):
            make_teacher(content, 4, low, high, 0, torch.device("cpu"))(torch.zeros(5, 4))


def test_mirror_images_are_learnt_too(tmp_path: Path) -> None:
    config = TrainConfig.of(
        algorithm="distill",
        teacher=name_of(lambda x: x[:, :8] + 0.25),
        mirror_states=True,
        kept_states=0,
        rollout=2,
        num_envs=3,
        minibatch=2,
        epochs=1,
        layers=(8,),
        out=str(tmp_path),
    )
    one = torch.ones(8)
    student = Student(Setup(27, -one, one, config, sources={"teacher": read_sources(config)[0].content}))
    no = torch.zeros(2, 3, dtype=torch.bool)
    rollout = Rollout(
        torch.randn(3, 3, 27), torch.zeros(2, 3, 8), torch.zeros(2, 3, 8), None, torch.zeros(2, 3), no, no, ~no
    )
    mirror, count = mirror_of("Ant-v4"), 0
    for observations, labels, _ in student._batches(rollout):
        half = len(observations) // 2
        assert torch.equal(labels[:half], observations[:half, :8] + 0.25)
        assert torch.equal(observations[half:], mirror.observations(observations[:half]))
        assert torch.equal(labels[half:], mirror.actions(labels[:half]))
        count += half
    assert count == 6
    for changes in ({"env": "InvertedPendulum-v4"}, {"state": "carried"}, {"mirror": True}):
        with pytest.raises(NervecordError) as refusal:
            config.replace(**changes)
        assert refusal.value.where == "--mirror-states"
    with pytest.raises(NervecordError, match="knows no mirror image"):
        student_of(config.replace(mirror=True, mirror_states=False), one)


def test_beginnings_and_what_came_before_a_fall_are_drawn_more_often(tmp_path: Path) -> None:
    config = TrainConfig.of(
        algorithm="distill",
        teacher=name_of(lambda x: x[:, :8]),
        rollout=8,
        num_envs=2,
        minibatch=16,
        layers=(8,),
        kept_states=100,
        initial_steps=3,
        initial_weight=2.0,
        fall_steps=4,
        fall_weight=5.0,
        out=str(tmp_path),
    )
    student = student_of(config, torch.ones(8))
    ends = torch.zeros(3, 8, 2, dtype=torch.bool)  # terminated, truncated, not valid
    ends[0, 5, 0] = ends[2, 6, 0] = True  # a fall in its sixth step, then a step that only resets
    ends[1, 3, 1] = ends[2, 4, 1] = ends[0, 6, 1] = True  # cut by time, a reset, a fall in its second step
    before = [[2, 2, 5, 5, 5, 5, 0, 2], [2, 2, 2, 1, 0, 5, 5, 2]]
    after = [[2, 2, 1, 1, 1, 1, 1, 1], [2, 2, 1, 1, 1, 1, 1, 1]]  # the second environment's reset shows no such step
    for k, rows in enumerate((before, after)):
        draw = torch.zeros(8, 2, 8)
        first = ends if k == 0 else torch.zeros_like(ends)
        observations = torch.randn(9, 2, 27)
        rollout = Rollout(observations, draw, draw, None, draw[:, :, 0].double(), first[0], first[1], ~first[2])
        valid = rollout.valid
        student._keep(student.states, rollout)
        content = student.states.content()
        count = int(valid.sum())
        assert np.array_equal(content["rows"][-count:, :27], observations[:-1][valid].numpy())
        assert content["weights"][-count:].tolist() == torch.tensor(rows).T[valid].tolist()
    student_of(config, torch.ones(8)).load_state_dict(student.state_dict())
    with pytest.raises(NervecordError, match=r"--fall-weight: .*--kept-states 0"):
        config.replace(kept_states=0)
    with pytest.raises(NervecordError, match=r"--initial-weight: .*--kept-states 0"):
        config.replace(kept_states=0, fall_weight=1.0, fall_steps=40)


@pytest.mark.parametrize("kept_states", [100, 12])
def test_what_came_before_a_fall_is_drawn_more_often_across_rollouts(tmp_path: Path, kept_states: int) -> None:
    """A fall early in a rollout weights the states of the rollouts before it too, as far as these are still kept."""
    config = TrainConfig.of(
        algorithm="distill",
        teacher=name_of(lambda x: x[:, :8]),
        rollout=4,
        num_envs=2,
        minibatch=8,
        layers=(8,),
        kept_states=kept_states,
        fall_steps=6,
        fall_weight=5.0,
        out=str(tmp_path),
    )
    student = student_of(config, torch.ones(8))
    draw = torch.zeros(4, 2, 8)
    weights: dict[float, float] = {}
    for k in range(4):
        ends = torch.zeros(2, 4, 2, dtype=torch.bool)  # terminated, not valid
        if k == 2:
            ends[0, 1, 0] = ends[1, 2, 0] = True  # the tenth step of the first environment, and its reset
            ends[0, 0, 1] = ends[1, 1, 1] = True
        if k == 3:
            ends[0, 0, 0] = True  # the second step of the next episode
        observations = torch.zeros(5, 2, 27)
        observations[:, :, 0] = (8 * k + 2 * torch.arange(5))[:, None] + torch.arange(2)  # a number for each state
        student._keep(
            student.states,
            Rollout(observations, draw, draw, None, draw[:, :, 0].double(), ends[0], ~ends[0] & False, ~ends[1]),
        )
        content = student.states.content()
        weights = dict(zip(content["rows"][:, 0].tolist(), content["weights"].tolist(), strict=True))
    falls = {*range(8, 19, 2), *range(7, 18, 2), 22, 24}
    assert len(weights) == min(kept_states, 30)
    assert weights == {row: 5.0 if row in falls else 1.0 for row in weights}

    student.restart_episodes()
    ends = torch.zeros(2, 4, 2, dtype=torch.bool)
    ends[0, 0] = True  # the first step of an episode that has no states before it
    observations = torch.full((5, 2, 27), 1000.0)
    student._keep(
        student.states, Rollout(observations, draw, draw, None, draw[:, :, 0].double(), ends[0], ends[1], ~ends[1])
    )
    content = student.states.content()
    after = dict(zip(content["rows"][:, 0].tolist(), content["weights"].tolist(), strict=True))
    assert {row: after[row] for row in weights if row in after} == {r: w for r, w in weights.items() if r in after}


def student_of(config: TrainConfig, one: torch.Tensor) -> Student:
    return Student(Setup(27, -one, one, config, sources={"teacher": read_sources(config)[0].content}))


@pytest.mark.long
def test_the_teachers_critic_moves_the_student(td7_run: TrainResult, ann_run: TrainResult, tmp_path: Path) -> None:
    teacher = make_teacher(checkpoint.load(td7_run.folder / "checkpoints"), 3, *limits(2.0), 0, torch.device("cpu"))
    ends = {}
    for weight in (0.0, 25.0):
        changes = {"env": "Pendulum-v1", "critic_weight": weight, "steps": 1024, "sim": "gymnasium"}
        result = train(student_config(tmp_path, td7_run.folder, f"weight{weight:g}", **changes))
        content = checkpoint.load(result.folder / "checkpoints")
        student = learner_at(result.folder, content)
        assert float(student.unit) == (2.0 if weight else 1.0)  # half of the range beside a critic's values
        observations = content["recorded"]
        actions = student.mode(observations, None)[0].clamp(-2, 2)
        loss = rows(result.folder)[-1]["policy_loss"] * float(student.unit) ** 2
        ends[weight] = float(teacher.value(observations, actions).mean()), loss
        assert "critic" in content["learner"]["teacher"]["learner"]
    assert ends[25.0][0] > ends[0.0][0]
    assert ends[25.0][1] > ends[0.0][1]
    with pytest.raises(NervecordError, match=r"ppo, .*critic"):
        train(student_config(tmp_path, ann_run.folder, "refused", critic_weight=1.0))
    with pytest.raises(NervecordError, match="is a file or a function, and has no critic of actions"):
        train(student_config(tmp_path, HERE, "refused", critic_weight=1.0))  # type: ignore[arg-type]
    assert not (tmp_path / "refused").exists()


def limits(size: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([-size]), torch.tensor([size])


def test_value_is_that_of_td7(td7_run: TrainResult) -> None:
    """The critic as a teacher has it, against the agent's own networks."""
    content = checkpoint.load(td7_run.folder / "checkpoints")
    teacher = make_teacher(content, 3, *limits(2.0), 0, torch.device("cpu"))
    agent = learner_at(td7_run.folder, content).agent
    observations, actions = torch.randn(20, 3), torch.rand(20, 1) * 4 - 2
    with torch.no_grad():
        zs = agent.fixed.state(observations)
        both = agent.critic(observations, actions / 2, agent.fixed.state_action(zs, actions / 2), zs)
        # Weights in float16.
        torch.testing.assert_close(teacher.value(observations, actions), both.amin(1), rtol=1e-2, atol=1e-2)


@pytest.mark.slow
def test_ppo_stays_near_its_teacher(tmp_path: Path) -> None:
    student = train(student_config(tmp_path, HERE, steps=2048))  # type: ignore[arg-type]
    far: dict[str, float] = {}
    for name, weight in (("near", 100.0), ("free", 1e-6)):
        config = small(
            tmp_path,
            name,
            layers=(32,),
            start=str(student.folder),
            reference=HERE,
            reference_weight=weight,
            steps=1024,
            lr=3e-3,
            schedule="constant",
        )
        result = train(config)
        far[name] = rows(result.folder)[-1]["reference_kl"]
        origins = json.loads((result.folder / "versions.json").read_text())
        assert {"start", "reference"} <= origins.keys()
    assert far["near"] < 0.5 * far["free"]
    again = resume(result.folder, overrides={"steps": 1280})
    assert rows(again.folder)[-1]["reference_kl"] > 0
    assert "reference_kl" not in rows(train(small(tmp_path, "plain")).folder)[-1]
    with pytest.raises(NervecordError, match=r"--reference-weight: .*--reference"):
        small(tmp_path, "none", reference_weight=2.0)


def test_ppo_takes_its_teacher_from_the_checkpoint(ann_run: TrainResult, tmp_path: Path) -> None:
    shutil.copytree(ann_run.folder, tmp_path / "teacher")
    result = train(small(tmp_path, "pupil", reference=str(tmp_path / "teacher")))
    (tmp_path / "teacher").rename(tmp_path / "elsewhere")
    resume(result.folder, overrides={"steps": 320})
    assert rows(result.folder)[-1]["step"] == 320
    assert rows(result.folder)[-1]["reference_kl"] > 0


def test_divergence() -> None:
    config = TrainConfig.of(layers=(4,))
    actor = PPOLearner(Setup(3, *limits(1.0), config)).actor
    means, teacher_means = torch.tensor([[0.5], [2.0]]), torch.tensor([[0.1], [3.0]])
    sigma = float(np.exp(config.fields["log_std"]))
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(means[0], sigma), torch.distributions.Normal(teacher_means[0], sigma)
    )
    # The second pair lies beyond the limit, where every mean is the same action.
    assert float(divergence(actor, means, teacher_means, limits(1.0))) == pytest.approx(float(expected) / 2, rel=1e-5)
    # One of them beyond counts from the limit that the teacher means, and from where the learner is.
    assert float(divergence(actor, torch.tensor([[0.5]]), torch.tensor([[3.0]]), limits(1.0))) == pytest.approx(
        0.5 * (0.5 / sigma) ** 2
    )
    assert float(divergence(actor, torch.tensor([[2.0]]), torch.tensor([[0.5]]), limits(1.0))) == pytest.approx(
        0.5 * (1.5 / sigma) ** 2
    )
    logits, others = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.5, 0.0]]), torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]])
    kl = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=others), torch.distributions.Categorical(logits=logits)
    )
    assert float(divergence(actor, logits, others, None)) == pytest.approx(float(kl.mean()), rel=1e-5)


@pytest.mark.long
def test_a_student_with_a_critic_of_its_own_goes_on_the_same(tmp_path: Path) -> None:
    changes = {"steps": 512, "checkpoint_every": 128, "kept_states": 0, "exact_resume": True}
    whole = train(student_config(tmp_path, HERE, "whole", **changes))  # type: ignore[arg-type]
    folder = whole.folder
    last = flat(checkpoint.load(folder / "checkpoints")["learner"])
    for step in checkpoint.steps_in(folder / "checkpoints"):
        if step > 256:
            checkpoint.checkpoint_path(folder / "checkpoints", step).unlink()
    assert resume(folder).test == whole.test
    assert flat(checkpoint.load(folder / "checkpoints")["learner"]) == last


def test_resolved_keeps_a_teacher(tmp_path: Path) -> None:
    config = resolved(small(tmp_path, "kept", reference=HERE))
    assert TrainConfig.from_json(config.to_json()) == config
