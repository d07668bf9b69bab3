"""TD7 in the loop of a training, and a spiking student of it."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import torch
from torch import Tensor

from nervecord.errors import NervecordError
from nervecord.training.folder import checkpoint
from nervecord.training.folder.start import digest
from nervecord.training.learners import off_policy
from nervecord.training.learners.base import Rollout, Setup
from nervecord.training.learners.distill import Student
from nervecord.training.learners.off_policy import TD7Learner
from nervecord.training.learners.td7 import TD7Agent
from nervecord.training.learners.td7_networks import TD7Policy, unpack
from nervecord.training.run import Run, TrainResult, resolved, resume, train
from nervecord.training.settings.config import TrainConfig

small = partial(runs.small, name="td7", algorithm="td7")


def learner_of(config: TrainConfig) -> TD7Learner:
    """Of Pendulum-v1."""
    return TD7Learner(Setup(3, torch.tensor([-2.0]), torch.tensor([2.0]), config, group_of_one()))


def test_it_learns_from_its_replay_and_refills_it_when_it_goes_on(td7_run: TrainResult, tmp_path: Path) -> None:
    result = td7_run
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
    again = resume(shutil.copytree(result.folder, tmp_path / "td7"), overrides={"steps": 1152})
    assert again.config.total_steps == 1152


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method")  # torch's own, of what it imports
def test_what_torch_cannot_compile_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(agent: TD7Agent) -> None:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found")

    monkeypatch.setattr(TD7Agent, "compile", fail)
    with pytest.raises(NervecordError, match=r"--torch-compile: .*No working"):
        train(small(tmp_path, torch_compile=True))
    assert not (tmp_path / "td7").exists()


def pendulum(out: Path, **changes: Any) -> TrainConfig:
    """A training of 4,000 updates, one for each step after 1,000 random ones."""
    base: dict[str, Any] = {
        "env": "Pendulum-v1",
        "algorithm": "td7",
        "steps": 5120,
        "num_envs": 4,
        "random_steps": 1000,
        "steps_per_update": 1.0,
        "hidden": 64,
        "embedding": 32,
        "capacity": 20_000,
        "lr": 1e-3,
        "freeze_updates": 100,
        "validation_episodes": 10,
        "validate_from": 0.0,
        "test_episodes": 20,
        "checkpoint_every": 512,
        "record": 0,
        "tensorboard": False,
        "out": str(out),
        "name": "pendulum",
    }
    return TrainConfig.of(**{**base, **changes})


@pytest.mark.slow
def test_it_learns_pendulum_also_when_it_is_cut_off_and_kept_compact(tmp_path: Path) -> None:
    first = train(pendulum(tmp_path, steps=2560))
    (first.folder / "result.json").unlink()
    result = resume(first.folder, overrides={"steps": 5120})
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["validation_return"] is not None] == list(range(512, 5121, 512))
    # The steps that only reset an environment bring no update, and there are some in every rollout.
    assert 3900 < rows[-1]["updates"] <= 4120
    assert result.test is not None
    # A policy that does nothing has about -1,200; the best there is about -150.
    assert result.test.mean > -250

    archive = tmp_path / "packed"
    keep = Path(__file__).parents[2] / "zoo/keep.py"
    subprocess.run([sys.executable, keep, result.folder, archive, "--checkpoint"], check=True)
    (file,) = (archive / "checkpoints").iterdir()
    assert file.stat().st_size < 0.45 * (result.folder / "checkpoints" / file.name).stat().st_size
    (archive / "result.json").unlink()
    step = checkpoint.load(archive / "checkpoints")["step"]
    # Not the next validation: in such a training, with a replay that was never lost too, single ones fall to -460 and
    # below and are back at the next.
    resume(archive, overrides={"steps": step + 1024, "test_episodes": 0})
    row = json.loads((archive / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["step"] == step + 1024
    assert row["validation_return"] > -350


def test_a_refilled_replay_has_more_noise_and_the_actor_then_stands_still(tmp_path: Path) -> None:
    config = small(tmp_path, random_steps=1)
    learner = learner_of(config)
    learner.stored, learner.agent.updates = 300, 50
    x = torch.zeros(2000, 3)
    spreads: list[Tensor] = []

    def collect() -> Rollout:
        noise = learner.act(x, None).actions - learner.mode(x, None)[0]
        spreads.append(torch.stack([noise[:200].std(), noise[-200:].std()]))
        return rollout_of(160)

    learner.prepare(collect)
    assert len(learner.replay) == 320
    assert len(spreads) == 2
    # A tenth of half the range at first; at last six times that, cut by the limits.
    assert 0.1 < spreads[0][0] < 0.4 < spreads[0][1]
    assert learner.act(x, None).actions[-200:].std() < 0.3
    assert learner.hold_until == 50 + config.fields["freeze_updates"]
    before = learner.agent.actor.first.weight.clone()
    learner.update(rollout_of(160))
    assert learner.agent.updates > 52
    assert torch.equal(before, learner.agent.actor.first.weight)
    learner.hold_until = 0
    learner.update(rollout_of(160))
    assert not torch.equal(before, learner.agent.actor.first.weight)


def test_past_policies_are_kept_thinner_and_thinner_and_refill_the_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(off_policy, "PAST_EVERY", 10)
    config = small(tmp_path, random_steps=1, steps_per_update=1.0, exploration=0.0)
    learner = learner_of(config)
    history = []
    for _ in range(30):
        learner.update(rollout_of(8))
        history.append([entry["updates"] for entry in learner.past_policies])
    assert history[2] == [16]  # looked at after each rollout
    assert max(len(row) for row in history) == off_policy.MOST_PAST
    gaps = np.diff(history[-1])
    assert gaps.max() <= 2 * 16 + 8
    assert learner.past_policies[-1]["updates"] > 240 - 40
    other = learner_of(config)
    buffer = io.BytesIO()
    torch.save(learner.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    x = torch.zeros(2 * (len(learner.past_policies) + 1), 3)
    actions: list[Tensor] = []

    def collect() -> Rollout:
        actions.append(other.act(x, None).actions)
        return rollout_of(160)

    other.prepare(collect)
    # One environment in so many acts as each of them did; the last share as the policy does now.
    row = actions[0][: len(learner.past_policies) + 1]
    assert torch.allclose(actions[0], torch.cat([row, row]), atol=1e-6)
    for k, entry in enumerate(learner.past_policies):
        assert torch.allclose(row[k], 2 * unpack(TD7Policy, entry)(x[:1])[0], atol=1e-6)
    assert torch.allclose(row[-1], other.mode(x, None)[0][-1], atol=1e-6)
    assert len(row.unique()) > 2


def rollout_of(count: int) -> Rollout:
    """Random steps of one environment."""
    draw = torch.Generator().manual_seed(count)
    never = torch.zeros(count, 1, dtype=torch.bool)
    actions = torch.rand(count, 1, 1, generator=draw)
    observations = torch.randn(count + 1, 1, 3, generator=draw)
    return Rollout(observations, actions, actions, None, torch.ones(count, 1).double(), never, never, ~never)


def test_a_kept_replay_comes_back_as_it_was_and_nothing_is_filled_again(tmp_path: Path) -> None:
    config = small(tmp_path, random_steps=1, keep_replay=True, capacity=200)
    first, second = (learner_of(config) for _ in range(2))
    for _ in range(3):
        first.update(rollout_of(160))
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    second.prepare(lambda: pytest.fail("it collects"))
    assert second.hold_until == 0
    losses = []
    for learner in (first, second):
        torch.manual_seed(5)
        losses.append(learner.update(rollout_of(160)))
    assert losses[0] == losses[1]
    assert np.array_equal(first.replay.rows, second.replay.rows)
    plain = learner_of(config.replace(keep_replay=False))
    assert plain.state_dict()["replay"] is None


def test_the_rate_falls_to_zero_in_the_cooldown_also_of_a_training_that_goes_on(tmp_path: Path) -> None:
    config = small(tmp_path, random_steps=1, cooldown=0.25)
    first, second = (learner_of(config) for _ in range(2))
    first.update(rollout_of(160))  # stored alone, as the random steps end with it
    rates = []
    for step in (0, 749, 750, 875, 1000):
        first.schedule(step, 1000)
        rates.append(first.update(rollout_of(160))["learning_rate"])
    np.testing.assert_allclose(rates, 3e-4 * np.array([1, 1, 1, 0.5, 0]))
    second.load_state_dict(first.state_dict())  # whose optimisers stand still
    second.schedule(1000, 1600)  # before the new end's cooldown
    before = second.agent.actor.first.weight.clone()
    assert second.update(rollout_of(160))["learning_rate"] == 3e-4
    assert not torch.equal(second.agent.actor.first.weight, before)


def test_a_teacher_is_named_by_a_hash_of_its_networks(tmp_path: Path) -> None:
    config = small(tmp_path, random_steps=1, keep_replay=True)
    learner = learner_of(config)
    before = digest(learner.state_dict())
    learner.replay.add(*(np.ones(shape) for shape in ((1, 3), (1, 1), (1, 3), 1, 1)))
    assert digest(learner.state_dict()) == before
    with torch.no_grad():
        learner.agent.actor.first.bias[0] += 1e-6
    assert digest(learner.state_dict()) != before


def test_its_actions_are_within_the_limits_and_noise_is_added() -> None:
    config = small(Path("."), random_steps=1)
    learner = learner_of(config)
    x = torch.randn(200, 3)
    uniform = learner.act(x, None).actions
    assert uniform.abs().max() > 1.5
    learner.stored = 1
    actions, _ = learner.mode(x, None)
    noisy = learner.act(x, None).actions
    assert actions.abs().max() <= 2
    assert 0.1 < (noisy - actions).std() < 0.3  # a tenth of half the range


def group_of_one() -> Any:
    from nervecord.training.processes.distributed import SOLO

    return SOLO


def test_what_it_cannot_learn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NervecordError, match=r"--algorithm td7: .*CartPole-v1") as refusal:
        train(small(tmp_path, env="CartPole-v1"))
    assert refusal.value.hint == "train it with ppo or distill"
    with pytest.raises(NervecordError, match=r"--layers: .*--algorithm td7"):
        small(tmp_path, layers=(8,))


@pytest.mark.long
def test_a_spiking_student_comes_to_act_as_td7_does(td7_run: TrainResult, tmp_path: Path) -> None:
    student: dict[str, Any] = {
        "algorithm": "distill",
        "teacher": str(td7_run.folder),
        "env": "Pendulum-v1",
        "layers": (32,),
        "critic": (8,),
        "steps": 2048,
        "num_envs": 4,
        "rollout": 32,
        "minibatch": 64,
        "epochs": 8,
        "lr": 3e-3,
        "teacher_steps": 512,
        "handover_steps": 512,
        "fall_weight": 2.0,
        "validation_episodes": 0,
        "test_episodes": 2,
        "checkpoint_every": 1024,
        "record": 128,
        "tensorboard": False,
        "out": str(tmp_path),
        "name": "student",
    }
    result = train(TrainConfig.of(**student))
    assert result.policy is not None
    content = checkpoint.load(result.folder / "checkpoints")
    run = Run(resolved(result.config), content)
    run.simulator.close()
    learner = run.learner
    assert isinstance(learner, Student)
    assert learner.states is not None
    assert len(learner.states) >= min(learner.seen, 2000)
    observations = content["recorded"]
    labels, own = learner.teacher(observations), learner.mode(observations, None)[0].clamp(-2, 2)
    assert labels.abs().max() <= 2
    assert (own - labels).square().mean() < 0.3 * labels.std() ** 2 + 0.05


@pytest.mark.long
@pytest.mark.parametrize("algorithm", ["sac", "td3"])
def test_skrls_agents_learn_and_go_on(tmp_path: Path, algorithm: str) -> None:
    base = {name: value for name, value in small(tmp_path).fields.items() if name in SHARED}
    config = TrainConfig.of(**{**base, "algorithm": algorithm, "steps": 512, "checkpoint_every": 256})
    result = train(config)
    assert result.policy is None
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert "value_loss" not in rows[1]  # random actions, no updates
    assert rows[-1]["value_loss"] > 0
    first, last = (checkpoint.load(result.folder / "checkpoints", step)["learner"] for step in (256, 512))
    weight = "net.0.weight"
    assert not torch.equal(first["agent"]["policy"][weight], last["agent"]["policy"][weight])
    again = resume(result.folder, overrides={"steps": 640})
    assert again.config.total_steps == 640
    with pytest.raises(NervecordError, match=f"{algorithm}, "):
        train(TrainConfig.of(algorithm="distill", teacher=str(result.folder), env="Pendulum-v1", out=str(tmp_path)))


SHARED = {
    "env",
    "steps",
    "num_envs",
    "random_steps",
    "minibatch",
    "steps_per_update",
    "hidden",
    "capacity",
    "validation_episodes",
    "test_episodes",
    "checkpoint_every",
    "tensorboard",
    "out",
    "name",
}
