"""TD7: its replay against a plain one, its targets, its copies, and that it learns and goes on."""

from __future__ import annotations

import copy
import dataclasses
import shutil
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from nervecord.training.algorithms.td7 import TD7Settings
from nervecord.training.learners.replay import Batch, Replay, SumTree
from nervecord.training.learners.td7 import TD7Agent, lap_huber
from nervecord.training.learners.td7_networks import TD7Policy, pack, unpack

SMALL = TD7Settings(minibatch=32, hidden=16, embedding=8, capacity=500, target_every=5, random_steps=64)


def random_replay(count: int = 200, seed: int = 0, capacity: int = 500) -> Replay:
    """A replay of random transitions of 3 observations and 2 actions, one in ten of them terminal."""
    draw = np.random.default_rng(seed)
    replay = Replay(3, 2, capacity, seed)
    replay.add(
        draw.normal(size=(count, 3)),
        draw.uniform(-1, 1, (count, 2)),
        draw.normal(size=(count, 3)),
        draw.normal(size=count),
        draw.random(count) >= 0.1,
    )
    return replay


def targets(agent: TD7Agent, batch: Batch) -> Tensor:
    """The targets of the agent's next update, for a batch; draws the noise as it does."""
    noise = agent.settings.target_noise * torch.randn_like(batch.actions)
    return agent._targets(batch, noise, *map(torch.tensor, agent.clip))


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1000])
def test_the_tree_finds_what_a_running_sum_finds(size: int) -> None:
    draw = np.random.default_rng(size)
    tree = SumTree(size)
    weights = draw.integers(0, 5, size).astype(float)
    weights[draw.integers(size)] = 3.0
    tree.set(np.arange(size), weights)
    for _ in range(3):  # whole numbers, whose sums are exact, so that every boundary is met
        sums = np.arange(int(weights.sum())).astype(float)
        assert tree.total == weights.sum()
        assert np.array_equal(tree.find(sums), np.searchsorted(np.cumsum(weights), sums, side="right"))
        index = draw.integers(0, size, 5)
        tree.set(index, weights[index] + 1.0)
        weights[index] += 1.0


def test_transitions_are_drawn_in_proportion_to_their_priority() -> None:
    replay = random_replay(4)
    priorities = np.array([1.0, 2.0, 0.5, 4.0])
    replay.set_priorities(np.arange(4), priorities)
    counts = np.bincount(np.concatenate([replay.sample(500)[1] for _ in range(80)]), minlength=4)
    expected = 40_000 * priorities / priorities.sum()
    # Chi-squared with 3 degrees of freedom passes 16.3 once in a thousand.
    assert ((counts - expected) ** 2 / expected).sum() < 16.3


def test_what_is_drawn_is_what_was_stored_and_the_oldest_goes_first() -> None:
    replay = Replay(1, 1, 8, 0)
    for start in (0, 6):
        k = np.arange(start, start + 6.0)
        replay.add(k[:, None], -k[:, None] / 100, k[:, None] + 1, 10 * k, k % 2)
    batch, _ = replay.sample(400)
    numbers = batch.observations[:, 0]
    assert set(numbers.tolist()) == set(range(4, 12))
    assert torch.equal(batch.next_observations[:, 0], numbers + 1)
    assert torch.equal(batch.rewards[:, 0], 10 * numbers)
    assert torch.equal(batch.continues[:, 0], numbers % 2)
    assert torch.allclose(batch.actions[:, 0], -numbers / 100)


def test_new_transitions_have_the_greatest_priority_until_it_is_forgotten() -> None:
    replay = random_replay(4)
    one = np.zeros((1, 3)), np.zeros((1, 2)), np.zeros((1, 3)), np.zeros(1), np.ones(1)
    replay.set_priorities(np.array([0]), np.array([7.0]))
    replay.set_priorities(np.array([0]), np.array([2.0]))
    replay.add(*one)
    assert replay.tree.get(5).tolist() == [2, 1, 1, 1, 7]
    replay.set_priorities(np.array([4]), np.array([1.5]))
    replay.forget_max_priority()
    replay.add(*one)
    assert replay.tree.get(6).tolist() == [2, 1, 1, 1, 1.5, 2]


def test_the_loss_is_squared_below_the_least_priority_and_linear_above() -> None:
    errors = torch.tensor([[0.5, 3.0], [0.0, 1.0]])
    assert lap_huber(errors, 1.0).item() == pytest.approx((0.125 + 3.0 + 0.0 + 1.0) / 2)


def test_targets_are_clipped_to_the_range_seen() -> None:
    torch.manual_seed(0)
    agent, replay = TD7Agent(3, 2, SMALL), random_replay()
    batch, _ = replay.sample(64)

    def target(clip: tuple[float, float]) -> Tensor:
        agent.clip = clip
        torch.manual_seed(1)  # the noise of the target's actions
        return targets(agent, batch)

    free = target((-1e9, 1e9))
    goes_on = batch.continues == 1
    assert torch.equal(free[~goes_on], batch.rewards[~goes_on])
    values = (free - batch.rewards)[goes_on] / SMALL.gamma
    low, high = values.quantile(0.3).item(), values.quantile(0.6).item()
    actual = target((low, high))
    expected = batch.rewards + SMALL.gamma * batch.continues * ((free - batch.rewards) / SMALL.gamma).clamp(low, high)
    assert torch.allclose(actual, expected, atol=1e-6)
    assert (actual != free).float().mean() > 0.5


def test_what_targets_were_seen_is_what_values_are_clipped_to_after_the_next_copy() -> None:
    torch.manual_seed(0)
    agent, replay = TD7Agent(3, 2, SMALL), random_replay()
    values = []
    for number in range(1, SMALL.target_every + 1):
        assert agent.clip == (0.0, 0.0)
        before = copy.deepcopy((agent, replay))
        torch.manual_seed(number)
        agent.update(replay)
        torch.manual_seed(number)
        values.append(targets(before[0], before[1].sample(SMALL.minibatch)[0]))
    assert agent.clip == agent.seen == (torch.cat(values).min().item(), torch.cat(values).max().item())


def flat(module: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().float().flatten() for p in module.parameters()])


def test_an_update_moves_each_network_by_its_own_loss_and_copies_follow_in_turn() -> None:
    torch.manual_seed(0)
    agent, replay = TD7Agent(3, 2, SMALL), random_replay()
    for number in range(1, 11):
        names = ("encoder", "critic", "actor", "fixed", "fixed_target", "critic_target", "actor_target")
        before = {name: flat(getattr(agent, name)) for name in names}
        agent.update(replay)
        after = {name: flat(getattr(agent, name)) for name in names}
        changes = {name for name in names if not torch.equal(before[name], after[name])}
        expected = {"encoder", "critic"} | ({"actor"} if number % 2 == 0 else set())
        if number % 5 == 0:
            assert torch.equal(after["fixed"], after["encoder"])
            assert torch.equal(after["fixed_target"], before["fixed"])
            assert torch.equal(after["critic_target"], after["critic"])
            assert torch.equal(after["actor_target"], after["actor"])
            assert agent.clip == agent.seen
            # The first copy of the fixed encoder is of the same weights as its target has.
            expected |= {"fixed", "critic_target", "actor_target"} | ({"fixed_target"} if number > 5 else set())
        assert changes == expected


def test_priorities_are_the_greater_error_of_the_two_critics() -> None:
    torch.manual_seed(0)
    agent, replay = TD7Agent(3, 2, SMALL), random_replay(40, capacity=40)
    replay.rows[:, -2] *= 20  # rewards, so that errors are above the least priority
    clone = copy.deepcopy(agent)
    # Every transition once, so that no later error of the same one stands in its place.
    batch, _ = replay.sample(32)
    index = np.arange(32)
    replay.sample = lambda count: (batch, index)  # type: ignore[method-assign]
    torch.manual_seed(5)
    agent.update(replay)
    torch.manual_seed(5)
    target = targets(clone, batch)
    with torch.no_grad():
        zs = clone.fixed.state(batch.observations)
        zsa = clone.fixed.state_action(zs, batch.actions)
        errors = (clone.critic(batch.observations, batch.actions, zsa, zs) - target).abs()
    expected = errors.max(1).values.clamp(min=1.0) ** 0.4
    assert (expected > 1).any()
    assert np.allclose(replay.tree.get(32), expected.numpy(), rtol=1e-6)


def test_a_held_actor_stands_still_while_the_critic_moves() -> None:
    torch.manual_seed(0)
    agent, replay = TD7Agent(3, 2, SMALL), random_replay()
    before = flat(agent.actor), flat(agent.critic)
    for _ in range(4):
        agent.update(replay, hold_actor=True)
    assert torch.equal(before[0], flat(agent.actor))
    assert not torch.equal(before[1], flat(agent.critic))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with a C++ compiler")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_updates_are_the_same(precision: str) -> None:
    from torch._dynamo.utils import counters

    agents, rows = [], []
    settings = dataclasses.replace(SMALL, precision=precision, smoothness=0.5)
    for is_compiled in (False, True):
        torch.manual_seed(0)
        replay = random_replay()
        counters.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of what it imports
            agent = TD7Agent(3, 2, dataclasses.replace(settings, torch_compile=is_compiled))
            before = flat(agent.critic)
            agent.compile()
            assert torch.equal(flat(agent.critic), before), "nothing is learnt meanwhile"
            rows.append([agent.update(replay) for _ in range(12)])
        agents.append(agent)
    assert counters["stats"]["unique_graphs"] == 4, "each loss is one graph"
    assert not counters["graph_break"]
    tolerance = 1e-4 if precision == "float32" else 2e-2
    for one, other in zip(*rows, strict=True):
        assert one == pytest.approx(other, rel=tolerance, abs=tolerance / 10)
    for name in ("encoder", "critic", "actor", "critic_target"):
        weights = [flat(getattr(agent, name)) for agent in agents]
        # A step of Adam is as long as its rate, whichever way.
        assert torch.allclose(*weights, atol=SMALL.lr / 10 if precision == "float32" else 12 * SMALL.lr), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_agent_that_is_taken_back_goes_on_the_same(precision: str) -> None:
    settings = TD7Settings(minibatch=32, hidden=16, embedding=8, target_every=5, precision=precision)
    torch.manual_seed(0)
    agent, replay = TD7Agent(3, 2, settings), random_replay()
    for _ in range(7):
        agent.update(replay)
    other = TD7Agent(3, 2, settings)
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    rows = []
    for one, buffer in ((agent, copy.deepcopy(replay)), (other, copy.deepcopy(replay))):
        torch.manual_seed(3)
        rows.append([one.update(buffer) for _ in range(6)])
    assert rows[0] == rows[1]
    assert torch.equal(flat(agent.actor), flat(other.actor))


def test_a_compact_state_is_small_and_near() -> None:
    torch.manual_seed(0)
    agent, replay = TD7Agent(3, 2, SMALL), random_replay()
    for _ in range(10):
        agent.update(replay)
    other = TD7Agent(3, 2, SMALL)
    other.load_state_dict(agent.compact_state_dict())
    for name in ("encoder", "critic", "actor", "fixed", "fixed_target", "critic_target", "actor_target"):
        # float16 has 11 bits, bfloat16 has 8.
        tolerance = 2**-8 if name == "fixed_target" else 2**-11
        assert torch.allclose(flat(getattr(agent, name)), flat(getattr(other, name)), rtol=tolerance, atol=1e-7), name
    assert (other.updates, other.seen, other.clip) == (10, agent.seen, agent.clip)
    before = flat(other.critic)
    other.update(replay)
    # Adam's second moments are there: a step is no longer than its rate.
    assert (flat(other.critic) - before).abs().max() < 1.1 * SMALL.lr


@pytest.mark.long
def test_smoothness_makes_actions_change_less_from_step_to_step() -> None:
    changes = []
    for smoothness in (0.0, 1.0):
        torch.manual_seed(0)
        agent, replay = TD7Agent(3, 2, dataclasses.replace(SMALL, smoothness=smoothness, lr=3e-3)), random_replay()
        # The best action depends on the state, and states follow each other at random.
        replay.rows[:200, -2] = (replay.rows[:200, 3:5] * np.sign(replay.rows[:200, :2])).sum(1)
        for _ in range(300):
            agent.update(replay)
        rows = torch.from_numpy(replay.rows[:200])
        change = agent.act(rows[:, 5:8], 0.0) - agent.act(rows[:, :3], 0.0)
        changes.append(float(change[rows[:, 9] == 1].square().sum(1).mean()))
    assert changes[0] > 1
    assert changes[1] < 0.3 * changes[0]


def test_a_packed_policy_acts_as_the_agent_does() -> None:
    torch.manual_seed(0)
    agent, replay = TD7Agent(3, 2, SMALL), random_replay()
    for _ in range(10):
        agent.update(replay)
    observations = torch.randn(20, 3)
    policy = unpack(TD7Policy, pack(agent.policy()))
    assert torch.allclose(policy(observations), agent.act(observations, 0.0), atol=2e-3)
