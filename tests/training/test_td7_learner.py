"""TD7 in the loop of a training, and a spiking student of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nervecord.errors import NervecordError
from nervecord.training import checkpoint
from nervecord.training.config import TrainConfig
from nervecord.training.learners.distill import Student
from nervecord.training.learners.off_policy import TD7Learner
from nervecord.training.run import Run, resolved, resume, train


def small(out: Path, **changes: Any) -> TrainConfig:
    base: dict[str, Any] = {
        "env": "Pendulum-v1", "algorithm": "td7", "steps": 1024, "num_envs": 4, "random_steps": 256, "minibatch": 16,
        "steps_per_update": 16.0, "hidden": 16, "embedding": 16, "capacity": 2048, "validation_episodes": 2,
        "test_episodes": 2, "checkpoint_every": 512, "tensorboard": False, "out": str(out), "name": "td7",
    }  # fmt: skip
    return TrainConfig.of(**{**base, **changes})


def test_it_learns_from_its_replay_and_refills_it_when_it_goes_on(tmp_path: Path) -> None:
    result = train(small(tmp_path))
    assert result.policy is None
    assert result.test is not None
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert "critic_loss" not in rows[1]  # random actions, no updates
    # Of the steps, those of the random rollouts and a few that only reset an environment bring none.
    assert (1024 - 384) / 16 - 2 <= rows[-1]["updates"] <= (1024 - 256) / 16
    content = checkpoint.load(result.folder / "checkpoints")
    run = Run(result.config.replace(steps=2048), content)
    assert isinstance(run.learner, TD7Learner)
    assert run.learner.stored <= len(run.learner.replay) <= run.learner.stored + 128
    assert run.step == 1024
    run.simulator.close()
    again = resume(result.folder, overrides={"steps": 1152})
    assert again.config.total_steps == 1152


def test_its_actions_are_within_the_limits_and_noise_is_added() -> None:
    config = small(Path("."), random_steps=1)
    learner = TD7Learner(3, torch.tensor([-2.0]), torch.tensor([2.0]), config, group_of_one())
    x = torch.randn(200, 3)
    uniform = learner.act(x, None).actions
    assert uniform.abs().max() > 1.5
    learner.stored = 1
    taken, _ = learner.mode(x, None)
    noisy = learner.act(x, None).actions
    assert taken.abs().max() <= 2
    assert 0.1 < (noisy - taken).std() < 0.3  # a tenth of half the range


def group_of_one() -> Any:
    from nervecord.training.distributed import SOLO

    return SOLO


def test_what_it_cannot_learn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NervecordError, match="--algorithm td7: has values for actions, and CartPole-v1 lets choose"):
        train(small(tmp_path, env="CartPole-v1"))
    with pytest.raises(NervecordError, match=r"--layers: has no meaning with --algorithm td7"):
        small(tmp_path, layers=(8,))


def test_a_spiking_student_comes_to_act_as_td7_does(tmp_path: Path) -> None:
    teacher = train(small(tmp_path))
    student: dict[str, Any] = {
        "algorithm": "distill", "teacher": str(teacher.folder), "env": "Pendulum-v1", "layers": (32,), "critic": (8,),
        "steps": 2048, "num_envs": 4, "rollout": 32, "minibatch": 64, "epochs": 8, "lr": 3e-3, "teacher_steps": 512,
        "handover_steps": 512, "fall_weight": 2.0, "validation_episodes": 0, "test_episodes": 2,
        "checkpoint_every": 1024, "record": 128, "tensorboard": False, "out": str(tmp_path), "name": "student",
    }  # fmt: skip
    result = train(TrainConfig.of(**student))
    assert result.policy is not None
    content = checkpoint.load(result.folder / "checkpoints")
    run = Run(resolved(result.config), content)
    run.simulator.close()
    learner = run.learner
    assert isinstance(learner, Student)
    assert learner.kept is not None
    assert len(learner.kept) >= min(learner.seen, 2000)
    seen = content["recorded"]
    wanted, own = learner.teacher(seen), learner.mode(seen, None)[0].clamp(-2, 2)
    assert wanted.abs().max() <= 2
    assert (own - wanted).square().mean() < 0.3 * wanted.std() ** 2 + 0.05


@pytest.mark.parametrize("algorithm", ["sac", "td3"])
def test_skrls_agents_learn_and_go_on(tmp_path: Path, algorithm: str) -> None:
    base = {name: value for name, value in small(tmp_path).fields.items() if name in SHARED}
    config = TrainConfig.of(**{**base, "algorithm": algorithm})
    result = train(config)
    assert result.policy is None
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert "value_loss" not in rows[1]  # random actions, no updates
    assert rows[-1]["value_loss"] > 0
    first, last = (checkpoint.load(result.folder / "checkpoints", step)["learner"] for step in (512, 1024))
    weight = "net.0.weight"
    assert not torch.equal(first["agent"]["policy"][weight], last["agent"]["policy"][weight])
    again = resume(result.folder, overrides={"steps": 1152})
    assert again.config.total_steps == 1152
    with pytest.raises(NervecordError, match=f"was trained with {algorithm}, whose policies teach nothing yet"):
        train(TrainConfig.of(algorithm="distill", teacher=str(result.folder), env="Pendulum-v1", out=str(tmp_path)))


SHARED = {
    "env", "steps", "num_envs", "random_steps", "minibatch", "steps_per_update", "hidden", "capacity",
    "validation_episodes", "test_episodes", "checkpoint_every", "tensorboard", "out", "name",
}  # fmt: skip
