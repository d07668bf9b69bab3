"""PPO's update: advantages, masks, statistics; written against definitions."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from runs import small

from nervecord.errors import NervecordError
from nervecord.training.learners.advantages import explained_variance, generalised_advantages
from nervecord.training.learners.base import Rollout, Setup
from nervecord.training.learners.ppo import PPOLearner
from nervecord.training.policy.normaliser import EPSILON, ObservationNormaliser
from nervecord.training.processes.devices import check_device
from nervecord.training.run import train
from nervecord.training.settings.config import TrainConfig

ENVS, STEPS, SIZE, ACTIONS = 5, 12, 4, 2


def learner(**changes: Any) -> PPOLearner:
    base: dict[str, Any] = {
        "layers": (10,),
        "critic": (8,),
        "num_envs": ENVS,
        "rollout": STEPS,
        "minibatch": 16,
        "epochs": 2,
        "steps_per_action": 3,
        "gamma": 0.9,
        "lam": 0.8,
        "normalise_reward": False,
    }
    torch.manual_seed(3)
    return PPOLearner(Setup(SIZE, -torch.ones(ACTIONS), torch.ones(ACTIONS), TrainConfig.of(**{**base, **changes})))


def rollout(subject: PPOLearner, garbage: int = 0) -> Rollout:
    """A made-up one: terminations and truncations, also in the last step, and both at once; what a step that only
    resets holds is noise of the size `garbage`."""
    draw = torch.Generator().manual_seed(5)
    observations = torch.randn(STEPS + 1, ENVS, SIZE, generator=draw)
    rewards = torch.randn(STEPS, ENVS, generator=draw).double()
    terminated, truncated = torch.zeros(2, STEPS, ENVS, dtype=torch.bool)
    terminated[3, 0] = terminated[STEPS - 1, 1] = terminated[STEPS - 2, 2] = terminated[6, 4] = True
    truncated[5, 3] = truncated[7, 0] = truncated[STEPS - 1, 4] = truncated[6, 4] = True
    valid = torch.cat([torch.ones(1, ENVS, dtype=torch.bool), ~(terminated | truncated)[:-1]])
    torch.manual_seed(11)
    acts = [subject.act(row, None) for row in observations[:-1]]
    actions, outputs = torch.stack([a.actions for a in acts]), torch.stack([a.outputs for a in acts])
    noise = torch.Generator().manual_seed(garbage)
    for tensor in (rewards, actions, outputs):
        tensor[~valid] += garbage * torch.randn(tensor[~valid].shape, generator=noise).to(tensor)
    return Rollout(observations, actions, outputs, None, rewards, terminated, truncated, valid)


def expected_advantages(episode: Rollout, values: np.ndarray) -> np.ndarray:
    """GAE by its definition, environment by environment, over the valid steps alone."""
    advantages = np.full((STEPS, ENVS), np.nan)
    for env in range(ENVS):
        running = 0.0
        for t in reversed(range(STEPS)):
            if not episode.valid[t, env]:
                running = 0.0
                continue
            # A fall in the last step that time allows is a fall: nothing follows it.
            bootstrap = 0.0 if episode.terminated[t, env] else values[t + 1, env]
            if episode.done[t, env] or t == STEPS - 1:
                running = 0.0
            running = float(episode.rewards[t, env]) + 0.9 * bootstrap - values[t, env] + 0.9 * 0.8 * running
            advantages[t, env] = running
    return advantages


def test_advantages_bootstrap_truncations_and_never_a_fall() -> None:
    subject = learner()
    episode = rollout(subject)
    assert bool((episode.terminated & episode.truncated).any())
    with torch.no_grad():
        values = subject.critic(subject.obs_rms(episode.observations))[..., 0]
    advantages = generalised_advantages(
        episode.rewards.float(), values, episode.terminated, episode.truncated, 0.9, 0.8
    ).numpy()
    valid = episode.valid.numpy()
    np.testing.assert_allclose(advantages[valid], expected_advantages(episode, values.numpy())[valid], atol=1e-5)


def test_minibatches_hold_every_valid_step_once_and_no_other() -> None:
    subject = learner()
    episode = rollout(subject)
    parts = list(subject.minibatches(episode))
    assert len(parts) == 2 * 4
    indices = torch.cat(parts[:4])
    assert sorted(indices.tolist()) == episode.valid.flatten().nonzero()[:, 0].tolist()
    assert sorted(torch.cat(parts[4:]).tolist()) == sorted(indices.tolist()) != indices.tolist()


def test_what_a_step_that_only_resets_holds_changes_no_parameter() -> None:
    """Two updates, so that the statistics that the first one leaves are covered too; rewards are normalised."""
    results = []
    for garbage in (0, 7):
        subject = learner(normalise_reward=True)
        for _ in range(2):
            episode = rollout(subject, garbage)
            subject.update(episode)
            subject.absorb(episode)
        results.append([p.detach().clone() for p in subject.parameters()])
    assert any(not a.equal(b) for a, b in zip(results[0], learner().parameters(), strict=True))
    for a, b in zip(*results, strict=True):
        assert a.equal(b)


def test_statistics_stand_still_until_the_rollout_is_absorbed() -> None:
    subject = learner()
    subject.obs_rms.absorb(torch.randn(50, SIZE) * 3 + 1, torch.ones(50, dtype=torch.bool))
    episode = rollout(subject)
    moments = subject.obs_rms.moments
    count, mean = moments.count.item(), moments.mean.numpy().copy()
    subject.update(episode)
    assert np.array_equal(moments.mean.numpy(), mean)
    subject.absorb(episode)
    valid = episode.observations[:-1][episode.valid].double().numpy()
    expected = (mean * count + valid.sum(0)) / (count + len(valid))
    np.testing.assert_allclose(moments.mean.numpy(), expected, rtol=1e-12)


def test_the_first_update_begins_at_ratio_one() -> None:
    """In one pass over one minibatch nothing is clipped, and the policy's loss is the mean advantage: 0."""
    subject = learner(epochs=1, minibatch=ENVS * STEPS)
    losses = subject.update(rollout(subject))
    assert abs(losses["policy_loss"]) < 1e-6
    assert losses["clip_fraction"] == 0
    assert abs(losses["kl"]) < 1e-6
    assert losses["learning_rate"] == 3e-4


def test_what_is_measured_is_what_it_says() -> None:
    subject = learner(epochs=8, lr=1e-2)
    losses = subject.update(rollout(subject))
    assert losses["kl"] > 0
    assert 0 < losses["clip_fraction"] < 1
    assert losses["gradient_norm"] > 0
    assert 0 <= losses["silent_1"] <= 1
    assert 0 < losses["rate_1"] < 1
    values, returns = torch.randn(STEPS, ENVS), torch.randn(STEPS, ENVS)
    valid = torch.rand(STEPS, ENVS) < 0.7
    expected = 1 - (returns - values)[valid].var(correction=0) / returns[valid].var(correction=0)
    torch.testing.assert_close(explained_variance(values, returns, valid), expected)


def test_log_probability_and_entropy_are_those_of_a_normal() -> None:
    subject = learner()
    x = torch.randn(6, SIZE)
    act = subject.actor(x)
    mean, _ = subject.actor.mode(x)
    normal = torch.distributions.Normal(mean, subject.actor.log_std.exp())  # type: ignore[operator]
    torch.testing.assert_close(subject.actor.log_prob(act.outputs, act.actions), normal.log_prob(act.actions).sum(-1))
    torch.testing.assert_close(subject.actor.entropy(act.outputs), normal.entropy().sum(-1).mean())


def test_observations_are_normalised_and_clipped() -> None:
    subject = ObservationNormaliser(3, 10.0, torch.device("cpu"))
    rows, valid = torch.randn(100, 3) * 2 + 5, torch.rand(100) < 0.5
    subject.absorb(rows, valid)
    # It begins as if one row of mean 0 and variance 1 had been seen.
    mean = rows[valid].double().sum(0) / (1 + valid.sum())
    torch.testing.assert_close(subject.moments.mean, mean)
    squares = ((rows[valid].double() - mean) ** 2).sum(0) + 1 + mean**2
    torch.testing.assert_close(subject.moments.variance, squares / (1 + valid.sum()))
    x = torch.randn(7, 3) * 100
    deviation = subject.moments.variance.float().sqrt() + EPSILON
    torch.testing.assert_close(subject(x), ((x - mean.float()) / deviation).clamp(-10, 10))
    assert subject(x).abs().max() == 10
    before = subject.moments.state_dict()
    subject.absorb(rows, torch.zeros(100, dtype=torch.bool))
    assert all(torch.equal(value, before[name]) for name, value in subject.moments.state_dict().items())


def test_schedules() -> None:
    subject = learner(noise="linear", log_std=-1.0, log_std_final=-2.0)
    subject.schedule(1, 4)
    assert subject.optimizer.param_groups[0]["lr"] == pytest.approx(3e-4 * 0.75)
    assert subject.actor.log_std.tolist() == [-1.25] * ACTIONS  # type: ignore[union-attr,operator]
    constant = learner(schedule="constant")
    constant.schedule(3, 4)
    assert constant.optimizer.param_groups[0]["lr"] == 3e-4


def test_a_carried_state_is_given_back_as_it_was() -> None:
    """The probability of an action in the update is that in which it was drawn, also behind a state."""
    subject = learner(state="carried", delays=True, epochs=1, minibatch=ENVS * STEPS)
    episode = rollout(learner())
    states = torch.randn(STEPS, ENVS, subject.state_size)
    acts = [subject.act(o, s) for o, s in zip(episode.observations[:-1], states, strict=True)]
    rollout_with_states = replace(
        episode,
        states=states,
        actions=torch.stack([a.actions for a in acts]),
        outputs=torch.stack([a.outputs for a in acts]),
    )
    assert abs(subject.update(rollout_with_states)["kl"]) < 1e-6


@pytest.mark.parametrize("name", ["cuda:99", "nonsense", "cpu:3x"])
def test_unusable_device_is_refused(name: str) -> None:
    with pytest.raises(NervecordError, match="choose from: cpu"):
        check_device(name)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, env={**os.environ, **environment}, timeout=120
    )


@pytest.mark.long
def test_importing_skrl_joins_no_processes_and_prints_nothing() -> None:
    """It would make a group with NCCL while it is imported."""
    process = run_python(
        "import os, torch\n"
        "from nervecord.training.processes.quiet_skrl import import_skrl\n"
        "import_skrl()\n"
        "assert os.environ['WORLD_SIZE'] == '2'\n"
        "assert not torch.distributed.is_initialized()\n",
        WORLD_SIZE="2",
        RANK="0",
        LOCAL_RANK="0",
        LOCAL_WORLD_SIZE="2",
        MASTER_ADDR="localhost",
        MASTER_PORT="1",
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, b"", b"")


def test_several_processes_without_torchrun_are_refused() -> None:
    process = run_python(
        "from nervecord.training.processes.quiet_skrl import import_skrl\nimport_skrl()", WORLD_SIZE="2"
    )
    assert process.returncode == 1
    assert b"WORLD_SIZE is 2" in process.stderr


def test_training_prints_nothing(tmp_path: Any, capfd: pytest.CaptureFixture[str]) -> None:
    train(small(tmp_path, steps=128))
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_process_that_trains_prints_nothing(tmp_path: Any) -> None:
    """Not while it imports either."""
    process = run_python(
        "from nervecord.training.settings.config import TrainConfig\n"
        "from nervecord.training.run import train\n"
        "train(TrainConfig.of(env='InvertedPendulum-v4', layers=(8,), critic=(8,), steps=128, num_envs=4, rollout=16,\n"
        f"    minibatch=32, epochs=1, validation_episodes=1, test_episodes=1, out={str(tmp_path)!r}))\n"
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, b"", b"")
