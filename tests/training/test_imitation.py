"""A student in the states that it and its teacher come to: who acts, what is kept, what it is moved by."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nervecord
from nervecord.errors import NervecordError
from nervecord.training import checkpoint, run_folder
from nervecord.training.config import TrainConfig
from nervecord.training.learners.imitation import (
    Imitation,
    ImitationSettings,
    ValueFit,
    distances,
    lambda_returns,
)
from nervecord.training.learners.imitation_loop import Distillation, td7_teacher
from nervecord.training.learners.td7_networks import TD7Policy, pack_policy
from nervecord.training.mirror import mirror_of
from nervecord.training.run import Run

LOW, HIGH = torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 2.0])
BASE = ImitationSettings(batch=64, capacity=1000, teacher_steps=40, handover_steps=80, noise=0.0, margin=0.0)


def teacher(observations: Tensor) -> Tensor:
    return torch.stack([observations[:, 0] - observations[:, 1], 2 * observations[:, 2]], 1).clamp(LOW, HIGH)


def imitation(student: nn.Module | None = None, num_envs: int = 8, **changes: float) -> Imitation:
    torch.manual_seed(0)
    settings = dataclasses.replace(BASE, **changes)  # type: ignore[arg-type]
    return Imitation(student or nn.Linear(3, 2), teacher, 3, LOW, HIGH, num_envs, settings, seed=0)


def test_beyond_a_limit_that_is_wanted_every_action_is_right() -> None:
    wanted = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-0.97, 0.5], [-0.97, 0.5], [0.9, -2.0], [5.0, 0.0]])
    outputs = torch.tensor([[3.0, 0.5], [0.5, 0.0], [-4.0, 0.5], [-0.87, 0.5], [1.0, -2.5], [0.0, 0.0]])
    # The margin is 5 % of half the range: 0.05 and 0.1. A wanted action out of range is that of the limit.
    expected = [0.25, 0.25, 0.0, 0.01, 0.01, 1.0]
    assert distances(outputs, wanted, LOW, HIGH, 0.05).tolist() == pytest.approx(expected, abs=1e-6)
    assert distances(outputs, wanted, LOW, HIGH, 0.0)[2].item() == pytest.approx((4 - 0.97) ** 2)


def plain_return(rewards: list[float], values: list[float], ends: str, gamma: float, lam: float) -> float:
    """The lambda-return of the first step, by its definition: n-step returns weighted by lambda^(n - 1)."""
    steps: list[float] = []
    so_far = 0.0
    for n, end in enumerate(ends):
        so_far += gamma**n * rewards[n]
        steps.append(so_far + (0.0 if end == "T" else gamma ** (n + 1) * values[n]))
        if end != ".":
            break
    weights = [(1 - lam) * lam**n for n in range(len(steps) - 1)] + [lam ** (len(steps) - 1)]
    return float(np.dot(weights, steps))


@pytest.mark.parametrize("ends", ["....", "..T.", "..C.", "T...", "...T", "C..."])  # T terminated, C cut
@pytest.mark.parametrize("lam", [0.0, 0.9, 1.0])
def test_lambda_returns_are_those_of_the_definition(ends: str, lam: float) -> None:
    draw = np.random.default_rng(0)
    rewards, values = draw.normal(size=(2, 4))
    terminated, ended = (np.array([[end in kinds] for end in ends]) for kinds in ("T", "TC"))
    found = lambda_returns(rewards[:, None], values[:, None], terminated, ended, 0.95, lam)
    for t in range(4):
        wanted = plain_return(list(rewards[t:]), list(values[t:]), ends[t:], 0.95, lam)
        assert found[t, 0] == pytest.approx(wanted, rel=1e-5)


def test_the_teacher_acts_first_then_more_and_more_the_student() -> None:
    student = nn.Linear(3, 2)
    nn.init.zeros_(student.weight)
    nn.init.constant_(student.bias, 0.25)
    held = imitation(student, num_envs=8)
    everywhere = np.ones(8, bool)
    shares, by_teacher = [], []
    for _ in range(20):
        held.redraw(everywhere)
        observations = torch.randn(8, 3)
        shares.append(held.teacher_share())
        actions = held.act(observations, everywhere)
        own = (actions == 0.25).all(1)
        assert torch.equal(actions[~own], teacher(observations)[~own])
        by_teacher.append(float((~own).float().mean()))
    # Steps 0, 8, ... 40 are the teacher's; from there its share falls to 0 within 80.
    assert shares[:6] == [1.0] * 6
    assert shares[10] == pytest.approx(0.5)
    assert shares[15:] == [0.0] * 5
    assert by_teacher[:6] == [1.0] * 6
    assert by_teacher[15:] == [0.0] * 5
    assert 0 < np.mean(by_teacher[6:15]) < 1


def test_all_states_are_kept_with_what_the_teacher_would_do_but_resets() -> None:
    held = imitation(teacher_steps=0, handover_steps=0)
    held.redraw(np.ones(8, bool))
    seen = []
    for t in range(5):
        observations = torch.randn(8, 3)
        real = np.arange(8) != t
        held.act(observations, real)
        seen.append(observations[torch.from_numpy(real)])
    rows = torch.from_numpy(held.states.rows[: len(held.states)])
    assert torch.equal(rows[:, :3], torch.cat(seen))
    assert torch.allclose(rows[:, 3:], teacher(torch.cat(seen)))


def test_states_before_a_failure_are_drawn_more_often_and_no_others() -> None:
    held = imitation(num_envs=2, fall_steps=3, fall_weight=4.0)
    everywhere, nowhere = np.ones(2, bool), np.zeros(2, bool)
    for t in range(10):
        held.act(torch.randn(2, 3), everywhere)
        fell = np.array([t == 4, t == 0])
        held.end(fell, np.array([False, t == 8]) if t == 8 else nowhere)
    weights = held.states.tree.get(20).reshape(10, 2)
    assert weights[:, 0].tolist() == [1, 1, 4, 4, 4, 1, 1, 1, 1, 1]
    assert weights[:, 1].tolist() == [4, 1, 1, 1, 1, 1, 1, 1, 1, 1]


def test_a_student_comes_to_act_as_its_teacher() -> None:
    held = imitation(num_envs=64, batch=128, lr=0.02)
    for _ in range(10):
        held.act(torch.randn(64, 3), np.ones(64, bool))
    first = held.update()["distance"]
    for k in range(400):
        held.set_progress(k / 400)
        last = held.update()["distance"]
    assert first > 1
    assert last < 0.02  # no linear student has all: the teacher limits its actions, and the loss knows it


def test_the_critic_moves_a_student_where_the_teacher_is_as_near_as_its_weight_says() -> None:
    student = nn.Linear(3, 2)
    nn.init.zeros_(student.weight)
    settings = dataclasses.replace(BASE, critic_weight=0.5, lr=0.02)

    def still(observations: Tensor) -> Tensor:
        return torch.zeros(len(observations), 2)

    def critic(observations: Tensor, actions: Tensor) -> Tensor:
        return 10 + actions[:, :1]  # more of the first action is better

    torch.manual_seed(0)
    held = Imitation(student, still, 3, LOW, HIGH, 32, settings, seed=0, critic=critic)
    held.act(torch.zeros(32, 3), np.ones(32, bool))
    for k in range(500):
        held.set_progress(k / 500)
        held.update()
    # The least of a^2 - 0.5 (10 + a) / (10 + a0), at a0 = a: 2 a = 0.5 / (10 + a), so a = 0.025.
    assert student.bias.detach().tolist() == pytest.approx([0.02494, 0.0], abs=1e-3)


def test_mirror_images_have_mirrored_actions() -> None:
    mirror = mirror_of("Ant-v4")
    matrix = torch.randn(27, 8)

    class Ant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(27, 8))
            self.seen: list[Tensor] = []

        def forward(self, observations: Tensor) -> Tensor:
            self.seen.append(observations)
            return observations @ self.weight

    student = Ant()
    settings = dataclasses.replace(BASE, mirror=True, lr=0.0)
    low, high = -torch.ones(8), torch.ones(8)
    held = Imitation(
        student, lambda x: (x @ matrix).clamp(-1, 1), 27, low, high, 16, settings, seed=0, mirror=mirror
    )  # fmt: skip
    observations = torch.randn(16, 27)
    held.act(observations, np.ones(16, bool))
    loss = held.update()["distance"]
    batch = student.seen[-1]
    stored = {tuple(row.tolist()) for row in observations}
    assert all(tuple(row.tolist()) in stored for row in batch[:32])
    images = mirror.observations(batch[32:])  # an image's image is the original
    assert all(tuple(row.tolist()) in stored for row in images)
    wanted = torch.cat([(batch[:32] @ matrix).clamp(-1, 1), mirror.actions((images @ matrix).clamp(-1, 1))])
    assert loss == pytest.approx(distances(torch.zeros(64, 8), wanted, low, high, 0.0).mean().item(), rel=1e-5)


def test_values_are_fitted_to_what_the_policy_gets() -> None:
    torch.manual_seed(0)
    value = nn.Linear(1, 1)
    fit = ValueFit(value, lr=0.03, gamma=0.8, lam=0.9, batch=64, epochs=4)
    draw = np.random.default_rng(0)
    errors = []
    for _ in range(60):
        kind = np.broadcast_to(draw.integers(0, 2, (1, 16, 1)), (32, 16, 1)).astype(float)
        never = np.zeros((32, 16), bool)
        errors.append(fit.absorb(kind, kind, kind[..., 0], never, never, ~never))
    # A reward of 0 or 1 in every step: values 0 and 1 / (1 - 0.8).
    with torch.no_grad():
        assert value(torch.tensor([[0.0], [1.0]]))[:, 0].tolist() == pytest.approx([0.0, 5.0], abs=0.1)
    assert errors[-1] < 0.01 < errors[0]


def test_a_spiking_student_is_trained_exported_and_gone_on_with(tmp_path: Path) -> None:
    torch.manual_seed(0)
    policy = TD7Policy(3, 1, 16, 8)
    with torch.no_grad():
        policy.actor.rest[-1].weight.mul_(4)
    torch.save(pack_policy(policy), tmp_path / "best.pt")
    config = TrainConfig.for_task(
        "Pendulum-v1", layers=(64,), steps=6000, num_envs=16, rollout=32, name="student", out=str(tmp_path),
        test_episodes=4, record=64, tensorboard=False,
    )  # fmt: skip
    settings = ImitationSettings(batch=128, teacher_steps=1000, handover_steps=2000, capacity=10_000, lr=5e-3)
    folder = run_folder.create(config, sim=config.sim)
    distillation = Distillation(config, settings, tmp_path, 600, None)
    distillation.run(folder)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["updates"] == 600
    assert rows[-1]["teacher_share"] == 0
    content = checkpoint.load(folder / "checkpoints")
    # The student that was saved acts as its teacher does in states of its own, up to 2.
    states = content["recorded"]
    run = Run(dataclasses.replace(config, name="more", start=str(folder)), None)
    run.simulator.close()
    with torch.no_grad():
        own = run.learner.deterministic(states, None)[0]
    low, high = torch.tensor([-2.0]), torch.tensor([2.0])
    wanted = td7_teacher(tmp_path, low, high)(states)
    spread = float(wanted.std())
    assert spread > 0.2
    assert float(distances(own, wanted, low, high, 0.05).mean()) < (0.4 * spread) ** 2
    program = nervecord.compile(folder / "policy.nir", target="lava")
    assert program is not None

    with pytest.raises(NervecordError, match=r"holds no best\.pt"):
        td7_teacher(folder, low, high)
