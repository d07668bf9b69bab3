"""Rewards of several steps: windows against a plain loop, what the replay holds, resuming with another number."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from training.test_td7_learner import small

from nervecord.errors import NervecordError
from nervecord.training.algorithms.td7 import TD7Settings
from nervecord.training.folder import checkpoint
from nervecord.training.learners.base import Rollout, Setup
from nervecord.training.learners.n_step import windows
from nervecord.training.learners.off_policy import TD7Learner
from nervecord.training.learners.replay import Replay
from nervecord.training.learners.td7 import TD7Agent
from nervecord.training.processes.distributed import Group
from nervecord.training.run import Run, TrainResult, resume, train


def rollout(steps: int = 12, environments: int = 40, seed: int = 0) -> Rollout:
    """Random rewards; observations that say step and environment; ends of both kinds, after which a step resets."""
    draw = torch.Generator().manual_seed(seed)
    terminated = torch.rand((steps, environments), generator=draw) < 0.12
    truncated = torch.rand((steps, environments), generator=draw) < 0.12
    valid = torch.ones((steps, environments), dtype=torch.bool)
    for t in range(steps - 1):
        ends = valid[t] & (terminated[t] | truncated[t])
        valid[t + 1] = ~ends
        terminated[t + 1] &= ~ends
        truncated[t + 1] &= ~ends
    place = torch.stack(
        torch.meshgrid(torch.arange(steps + 1.0), torch.arange(float(environments)), indexing="ij"), dim=-1
    )
    rewards = torch.randn((steps, environments), generator=draw, dtype=torch.float64)
    actions = torch.rand((steps, environments, 1), generator=draw) * 2 - 1
    return Rollout(place, actions, actions, None, rewards, terminated, truncated, valid)


@pytest.mark.parametrize("steps", [1, 2, 3, 12, 20])
def test_windows_are_those_of_a_plain_loop(steps: int) -> None:
    gamma, of = 0.9, rollout()
    window = windows(of, gamma, steps)
    lengths = set()
    for t, n in of.valid.nonzero().tolist():
        total, k = 0.0, 0
        while True:
            total += gamma**k * of.rewards[t + k, n].item()
            k += 1
            if of.done[t + k - 1, n] or k == steps or t + k == len(of.valid):
                break
        lengths.add(k)
        assert window.rewards[t, n].item() == pytest.approx(total)
        assert window.after[t, n].item() == t + k
        assert window.discount[t, n].item() == (0.0 if of.terminated[t + k - 1, n] else gamma ** (k - 1))
    assert lengths >= set(range(1, min(steps, 3) + 1))


def test_of_one_step_they_are_what_the_rollout_holds() -> None:
    of = rollout()
    window = windows(of, 0.5, 1)
    assert torch.equal(window.rewards, of.rewards)
    assert torch.equal(window.discount, (~of.terminated).double())
    assert (window.after == torch.arange(1, len(of.valid) + 1)[:, None]).all()


def test_a_target_sums_the_window_and_goes_on_from_where_it_led(tmp_path: Path) -> None:
    """Held against values of one step, of the network that judges the later observation."""
    torch.manual_seed(0)
    of, limit = rollout(), torch.ones(1)
    config = small(tmp_path, n_step=3, gamma=0.8, minibatch=400)
    learner = TD7Learner(Setup(2, -limit, limit, config, Group()))
    assert learner._store(of) == len(learner.replay) == int(of.valid.sum())
    batch, _ = learner.replay.sample(400)
    window = windows(of, 0.8, 3)
    t, n = batch.observations.long().T
    assert torch.equal(batch.next_observations, torch.stack([t + 1, n], 1).float())
    assert torch.equal(batch.later_observations, torch.stack([window.after[t, n], n], 1).float())
    assert (batch.later_observations != batch.next_observations).any(1).float().mean() > 0.4

    def values(agent: TD7Agent) -> torch.Tensor:
        with torch.no_grad():
            zs = agent.fixed_target.state(batch.later_observations)
            actions = agent.actor_target(batch.later_observations, zs)
            zsa = agent.fixed_target.state_action(zs, actions)
            value: torch.Tensor = agent.critic_target(batch.later_observations, actions, zsa, zs).amin(1)
        return value

    agent = learner.agent
    agent.clip = (-1e9, 1e9)
    target = agent._targets(batch, torch.zeros(400, 1), *map(torch.tensor, agent.clip))
    expected = window.rewards[t, n] + 0.8 * window.discount[t, n] * values(agent).double()
    assert torch.allclose(target[:, 0].double(), expected, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_termination_penalty_is_of_the_steps_in_which_the_task_ends(steps: int, tmp_path: Path) -> None:
    of, limit = rollout(), torch.ones(1)
    config = small(tmp_path, n_step=steps, gamma=0.8, minibatch=400, termination_penalty=7.0)
    learner = TD7Learner(Setup(2, -limit, limit, config, Group()))
    before = of.rewards.clone()
    learner._store(of)
    assert torch.equal(of.rewards, before)  # which the training's returns are summed of
    batch, _ = learner.replay.sample(400)
    t, n = batch.observations.long().T
    lowered = windows(of, 0.8, steps).rewards[t, n] - batch.rewards[:, 0].double()
    ends = torch.tensor([7 * 0.8**k for k in range(steps)] + [0.0])
    assert (lowered[:, None] - ends).abs().amin(1).max() < 1e-5
    assert torch.equal(lowered.abs() > 1e-3, batch.continues[:, 0] == 0)
    assert 0 < (batch.continues == 0).float().mean() < 1


@pytest.mark.long
def test_a_replay_of_other_steps_is_refused_and_refilled_where_none_was_kept(
    td7_run: TrainResult, tmp_path: Path
) -> None:
    result = train(small(tmp_path, n_step=3, keep_replay=True))
    before = (result.folder / "config.json").read_bytes()
    with pytest.raises(NervecordError, match=r"--n-step: is 1, .* 3\b"):
        resume(result.folder, overrides={"steps": 2048, "n_step": 1})
    with pytest.raises(NervecordError, match=r"--priority-exponent: .*0.*0.4"):
        resume(result.folder, overrides={"steps": 2048, "priority_exponent": 0.0})
    assert (result.folder / "config.json").read_bytes() == before
    resume(result.folder, overrides={"steps": 1152})
    again = resume(shutil.copytree(td7_run.folder, tmp_path / "plain"), overrides={"steps": 1152, "n_step": 3})
    assert again.config.algorithm.n_step == 3  # type: ignore[attr-defined]


def test_greatest_priorities_of_another_exponent_are_forgotten(td7_run: TrainResult) -> None:
    result = td7_run
    content = checkpoint.load(result.folder / "checkpoints")
    content["learner"]["max_priority"] = 3.0
    for exponent, weight in ((0.4, 3.0), (0.0, 1.0)):
        run = Run(result.config.replace(steps=2048, priority_exponent=exponent), content)
        run.simulator.close()
        assert isinstance(run.learner, TD7Learner)
        assert set(run.learner.replay.tree.get(len(run.learner.replay)).tolist()) == {weight}


def test_smoothness_is_of_one_step(tmp_path: Path) -> None:
    with pytest.raises(NervecordError, match=r"--smoothness: .*--n-step 3"):
        small(tmp_path, n_step=3, smoothness=0.1)


def test_an_exponent_of_0_draws_all_alike(tmp_path: Path) -> None:
    run = Run(small(tmp_path, priority_exponent=0.0), None)
    assert isinstance(run.learner, TD7Learner)
    assert run.learner.agent.settings.priority_exponent == 0.0
    run.simulator.close()
    agent = TD7Agent(2, 1, TD7Settings(minibatch=8, hidden=8, embedding=8, priority_exponent=0.0))
    of = rollout()
    replay = Replay(2, 1, 500, 0)
    parts = of.observations[:-1], of.actions, of.observations[1:]
    replay.add(*(part[of.valid].numpy() for part in parts), of.rewards[of.valid].numpy(), np.ones(int(of.valid.sum())))
    for _ in range(5):
        agent.update(replay)
    assert (replay.tree.get(len(replay)) == 1.0).all()
