"""What skrl leaves open, and how the learner closes it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from nervecord.errors import NervecordError
from nervecord.training.config import TrainConfig
from nervecord.training.learners.ppo import Learner, StillScaler, check_device

ENVS, STEPS, SIZE, ACTIONS = 5, 12, 4, 2


def learner(**changes: Any) -> Learner:
    base: dict[str, Any] = {
        "layers": (10,), "critic": (8,), "num_envs": ENVS, "rollout": STEPS, "minibatch": 16, "epochs": 2,
        "steps_per_action": 3, "gamma": 0.9, "lam": 0.8,
    }  # fmt: skip
    torch.manual_seed(3)
    return Learner(SIZE, ACTIONS, TrainConfig(**{**base, **changes}))


@dataclass
class Episode:
    """A made-up rollout with NEXT_STEP autoreset: each entry (STEPS, ENVS, ...)."""

    observations: torch.Tensor
    following: torch.Tensor
    rewards: torch.Tensor
    terminated: torch.Tensor
    truncated: torch.Tensor
    real: torch.Tensor


def rollout(garbage: int = 0) -> Episode:
    """Terminations and truncations, also in the last step and in the last but one; `garbage` changes dummies alone."""
    draw = torch.Generator().manual_seed(5)
    observations = torch.randn(STEPS + 1, ENVS, SIZE, generator=draw)
    rewards = torch.randn(STEPS, ENVS, generator=draw)
    terminated = torch.zeros(STEPS, ENVS, dtype=torch.bool)
    truncated = torch.zeros(STEPS, ENVS, dtype=torch.bool)
    terminated[3, 0] = terminated[STEPS - 1, 1] = terminated[STEPS - 2, 2] = True
    truncated[5, 3] = truncated[2, 0] = truncated[STEPS - 1, 4] = False
    truncated[5, 3] = truncated[7, 0] = truncated[STEPS - 1, 4] = True
    done = terminated | truncated
    real = torch.cat([torch.ones(1, ENVS, dtype=torch.bool), ~done[:-1]])
    following = observations[1:].clone()
    noise = torch.Generator().manual_seed(garbage)
    # A dummy step sees the last observation of the old episode, and whatever action and reward come with it.
    observations = observations[:-1].clone()
    observations[~real] += garbage * torch.randn(int((~real).sum()), SIZE, generator=noise)
    rewards[~real] += garbage
    return Episode(observations, following, rewards, terminated, truncated, real)


def play(subject: Learner, episode: Episode, *, stop: int = STEPS) -> None:
    torch.manual_seed(11)
    for t in range(stop):
        actions = subject.act(episode.observations[t])
        subject.record(
            episode.observations[t],
            actions,
            episode.rewards[t],
            episode.following[t],
            episode.terminated[t],
            episode.truncated[t],
            episode.real[t],
        )


def expected_advantages(episode: Episode, values: np.ndarray, following: np.ndarray) -> np.ndarray:
    """GAE by its definition, environment by environment, over the real steps alone."""
    advantages = np.full((STEPS, ENVS), np.nan)
    for env in range(ENVS):
        running = 0.0
        for t in reversed(range(STEPS)):
            if not episode.real[t, env]:
                running = 0.0
                continue
            ended, cut = bool(episode.terminated[t, env]), bool(episode.truncated[t, env])
            bootstrap = 0.0 if ended else following[t, env]
            if ended or cut or t == STEPS - 1:
                running = 0.0
            delta = float(episode.rewards[t, env]) + 0.9 * bootstrap - values[t, env]
            running = delta + 0.9 * 0.8 * running
            advantages[t, env] = running
    return advantages


def test_advantages_bootstrap_truncations_and_leave_dummies_out() -> None:
    subject, episode = learner(), rollout()
    with torch.no_grad():
        values = subject.critic.net(episode.observations)[..., 0].numpy()
        following = subject.critic.net(episode.following)[..., 0].numpy()
    expected = expected_advantages(episode, values, following)
    play(subject, episode)
    real = episode.real.numpy()
    returns = subject.memory.get_tensor_by_name("returns")[..., 0].numpy()
    np.testing.assert_allclose(returns[real], (expected + values)[real], atol=1e-5)
    kept = expected[real]
    advantages = subject.memory.get_tensor_by_name("advantages")[..., 0].numpy()
    np.testing.assert_allclose(advantages[real], (kept - kept.mean()) / kept.std(ddof=1), atol=1e-4)


def test_minibatches_hold_every_real_step_once_and_no_dummy() -> None:
    subject, episode = learner(), rollout()
    play(subject, episode)
    batches = subject.memory.sample(["observations"], batch_size=len(subject.memory), mini_batches=4)
    seen = torch.cat([batch[0] for batch in batches])
    wanted = episode.observations[episode.real]
    assert len(seen) == len(wanted) == STEPS * ENVS - 4
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, wanted.tolist()))


def test_what_a_dummy_step_holds_changes_no_parameter() -> None:
    """Two updates, so that the statistics that the first one leaves are covered too."""
    results = []
    for garbage in (0, 7):
        subject = learner()
        for _ in range(2):
            play(subject, rollout(garbage))
            subject.absorb_observations()
        results.append([p.detach().clone() for p in subject.parameters()])
    untrained = learner().parameters()
    assert any(not a.equal(b) for a, b in zip(results[0], untrained, strict=True))
    for a, b in zip(*results, strict=True):
        assert a.equal(b)


def test_statistics_stand_still_until_the_rollout_is_absorbed() -> None:
    subject, episode = learner(), rollout()
    subject.scaler.absorb(torch.randn(50, SIZE) * 3 + 1)
    before = subject.scaler.running_mean.clone()
    play(subject, episode)
    assert subject.scaler.running_mean.equal(before)
    count, mean = subject.scaler.current_count.item(), before.numpy()
    subject.absorb_observations()
    real = episode.observations[episode.real].double().numpy()
    expected = (mean * count + real.sum(0)) / (count + len(real))
    np.testing.assert_allclose(subject.scaler.running_mean.numpy(), expected, rtol=1e-12)


def test_first_probability_ratio_is_one() -> None:
    """The log probability that skrl recomputes in the first minibatch is the recorded one, to the bit."""
    subject, episode = learner(), rollout()
    subject.scaler.absorb(torch.randn(50, SIZE) * 3 + 1)
    play(subject, episode, stop=STEPS - 1)
    memory = subject.memory
    steps = slice(0, STEPS - 1)
    scaled = subject.scaler(memory.tensors["observations"][steps].reshape(-1, SIZE), train=True)
    inputs = {"observations": scaled, "taken_actions": memory.tensors["actions"][steps].reshape(-1, ACTIONS)}
    _, outputs = subject.actor.act(inputs)
    torch.testing.assert_close(outputs["log_prob"], memory.tensors["log_prob"][steps].reshape(-1, 1), rtol=0, atol=1e-5)


def test_log_probability_and_entropy_are_those_of_a_normal() -> None:
    subject = learner()
    x = torch.randn(6, SIZE)
    actions, outputs = subject.actor.act({"observations": x})
    normal = torch.distributions.Normal(outputs["mean_actions"], subject.actor.log_std.exp())
    torch.testing.assert_close(outputs["log_prob"], normal.log_prob(actions).sum(-1, keepdim=True))
    torch.testing.assert_close(subject.actor.get_entropy(), normal.entropy().sum(-1, keepdim=True))


def test_carried_state_is_stored_and_cleared_with_the_episode() -> None:
    subject, episode = learner(state="carried", delays=True), rollout()
    play(subject, episode, stop=STEPS - 1)
    stored = subject.memory.get_tensor_by_name("states")
    real = episode.real
    assert (stored[0] == 0).all()
    for t in range(1, STEPS - 1):
        for env in range(ENVS):
            is_first = not real[t - 1, env]
            assert bool((stored[t, env] == 0).all()) == is_first, (t, env)


def test_scaler_is_skrls_with_our_clip() -> None:
    scaler = StillScaler(3, clip_threshold=10.0, device="cpu")
    assert scaler.epsilon == 1e-8
    scaler.absorb(torch.randn(100, 3) * 2)
    x = torch.randn(7, 3) * 30
    mean, variance = scaler.running_mean.float(), scaler.running_variance.float()
    expected = ((x - mean) / (variance.sqrt() + 1e-8)).clamp(-10, 10)
    assert scaler(x).equal(expected)
    assert scaler(x).abs().max() == 10


@pytest.mark.parametrize("name", ["cuda:99", "nonsense", "cpu:3x"])
def test_unusable_device_is_refused(name: str) -> None:
    with pytest.raises(NervecordError, match="choose from: cpu"):
        check_device(name)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, env={**os.environ, **environment}, timeout=120
    )


def test_importing_skrl_leaves_the_process_as_it_was() -> None:
    done = run_python(
        "import logging, torch\n"
        "before = torch.distributions.Distribution._validate_args\n"
        "import nervecord.training.learners.ppo\n"
        "assert before is torch.distributions.Distribution._validate_args is True\n"
        "assert not logging.getLogger('skrl').handlers\n"
        "assert logging.getLogger('skrl').level == logging.WARNING\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_several_processes_without_torchrun_are_refused() -> None:
    done = run_python("import nervecord.training.learners.ppo", WORLD_SIZE="2")
    assert done.returncode == 1
    assert b"WORLD_SIZE is 2" in done.stderr


def test_training_prints_nothing(tmp_path: Any) -> None:
    done = run_python(
        "from nervecord.training.config import TrainConfig\n"
        "from nervecord.training.run import train\n"
        "train(TrainConfig(env='InvertedPendulum-v4', layers=(8,), critic=(8,), steps=128, num_envs=4, rollout=16,\n"
        f"    minibatch=32, epochs=1, validation_episodes=1, test_episodes=1, out={str(tmp_path)!r}))\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
