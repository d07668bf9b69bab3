"""Rollouts: what is collected of a simulator's episodes, first lengths, ends of both kinds, saved states."""

from __future__ import annotations

import contextlib
import pkgutil
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nervecord.errors import NervecordError
from nervecord.training.learners.base import Setup
from nervecord.training.learners.collect import Collector
from nervecord.training.learners.ppo import PPOLearner
from nervecord.training.policy.actor import Act
from nervecord.training.settings.config import TrainConfig
from nervecord.training.simulators.base import Step
from nervecord.training.simulators.kinds import KINDS
from nervecord.training.simulators.make import make_simulator


class Script:
    """A simulator whose environment i ends every `lengths[i]` steps, in the manner `kinds[i]`; what it observes is its
    number, episode and progress; a step's reward is its progress."""

    observation_size, choices, device = 3, 0, torch.device("cpu")
    can_cut = True
    low, high = -np.ones(1), np.ones(1)

    def __init__(self, lengths: list[int], kinds: list[str], time_limit: int = 0) -> None:
        self.num_envs, self.time_limit = len(lengths), time_limit
        self.lengths, self.kinds = torch.tensor(lengths), kinds
        self.episode, self.progress = (torch.zeros(len(lengths), dtype=torch.int64) for _ in range(2))
        self.resets = torch.zeros(len(lengths), dtype=torch.bool)

    def _observations(self) -> Tensor:
        return torch.stack([torch.arange(self.num_envs), self.episode, self.progress], -1).double()

    def reset(self) -> Tensor:
        return self._observations()

    def step(self, actions: Tensor) -> Step:
        assert actions.abs().max() <= 1
        self.episode += self.resets
        self.progress = torch.where(self.resets, 0, self.progress + 1)
        ends = ~self.resets & (self.progress == self.lengths)
        rewards = self.progress.double()
        self.resets = ends
        falls = ends & torch.tensor(["fall" in kind for kind in self.kinds])
        timeouts = ends & torch.tensor(["time" in kind for kind in self.kinds])
        return Step(self._observations(), rewards, falls, timeouts)

    def cut(self, where: Tensor) -> None:
        self.resets = self.resets | where

    def state_dict(self) -> None:
        return None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


class Steady:
    """A learner that carries a count of its actions."""

    device, state_size = torch.device("cpu"), 1

    def act(self, observations: Tensor, state: Tensor | None) -> Act:
        assert state is not None
        count = len(observations)
        return Act(torch.full((count, 1), 5.0), torch.zeros(count, 1), state + 1)


def collect_rollout(
    script: Script, steps: int, *, stagger: int | None = None, restart: int = 0
) -> tuple[Any, list[Any], Any]:
    learner: Any = Steady()
    collector = Collector(script, learner, steps, stagger=stagger, restart=restart)
    rollout, episodes = collector.collect(learner)
    return rollout, episodes, collector


def test_episodes_ends_and_states() -> None:
    rollout, episodes, collector = collect_rollout(Script([3, 4, 4], ["fall", "time", "fall and time"]), 10)
    # A step follows each end that only resets.
    assert [(e.step, e.environment, e.value, e.length) for e in episodes] == [
        (2, 0, 6, 3),
        (3, 1, 10, 4),
        (3, 2, 10, 4),
        (6, 0, 6, 3),
        (8, 1, 10, 4),
        (8, 2, 10, 4),
    ]
    assert rollout.valid[:, 0].tolist() == [True, True, True, False] * 2 + [True, True]
    assert rollout.terminated[:, 1].any() == False  # noqa: E712 - a tensor
    assert (rollout.terminated & rollout.truncated)[:, 2].nonzero()[:, 0].tolist() == [3, 8]
    # What a step led to is the last observation of the old episode, where it ended one.
    assert rollout.observations[3, 0].tolist() == [0, 0, 3]
    assert rollout.observations[4, 0].tolist() == [0, 1, 0]
    # The carried state before each action: cleared with the episode.
    assert rollout.states[:, 0, 0].tolist() == [0, 1, 2, 0, 0, 1, 2, 0, 0, 1]
    assert rollout.actions.unique().tolist() == [5.0]
    again, more = collector.collect(Steady())
    assert again.observations[0].tolist() == [[0, 2, 2], [1, 2, 0], [2, 2, 0]]
    assert [(e.step, e.environment, e.value) for e in more[:1]] == [(0, 0, 6)]


def test_first_episodes_are_cut_at_drawn_lengths_and_not_counted() -> None:
    lengths = [30] * 40
    rollout, episodes, _ = collect_rollout(Script(lengths, ["time"] * 40, time_limit=30), 70, stagger=3)
    firsts = [int(rollout.done[:, env].nonzero()[0]) + 1 for env in range(40)]
    assert len(set(firsts)) > 15
    assert min(firsts) >= 1
    assert max(firsts) <= 30
    assert rollout.truncated[torch.tensor(firsts) - 1, torch.arange(40)].all()
    # Those cut short are not counted, all others are whole.
    assert {e.length for e in episodes} == {30}
    assert rollout.valid[firsts[0], 0] == False  # noqa: E712 - a tensor
    assert rollout.observations[firsts[0] + 1, 0].tolist() == [0, 1, 0]
    same = collect_rollout(Script(lengths, ["time"] * 40, time_limit=30), 70, stagger=3)[0]
    assert torch.equal(same.truncated, rollout.truncated)
    whole = collect_rollout(Script(lengths, ["time"] * 40, time_limit=30), 70)[0]
    assert whole.truncated.nonzero()[:, 0].unique().tolist() == [29, 60]


@pytest.mark.parametrize("stagger", [None, 3])
def test_half_of_the_environments_are_cut_again_and_again(stagger: int | None) -> None:
    script = Script([30, 30, 30, 3, 30, 30], ["time", "fall"] * 3, time_limit=30)
    rollout, episodes, collector = collect_rollout(script, 64, stagger=stagger, restart=5)
    again, _ = collector.collect(Steady())
    ends = torch.cat([rollout.done, again.done])
    first = int(ends[:, 2].nonzero()[0])
    assert first == 4 if stagger is None else first < 5
    # Five steps, one that only resets.
    assert ends[:, 2].nonzero()[:, 0].tolist() == list(range(first, 128, 6))
    assert not rollout.terminated[:, 2].any()
    # One that falls by itself sooner is not cut too.
    assert (ends[:, 3].nonzero()[:, 0].diff() == 4)[1:].all()
    assert rollout.terminated[:, 3].sum() >= 15
    assert {episode.environment for episode in episodes} == {0, 1, 4, 5}
    assert {episode.length for episode in episodes} == {30}


def test_what_cannot_cut_episodes_is_not_told_to() -> None:
    script = Script([30] * 4, ["time"] * 4)
    script.can_cut = False
    with pytest.raises(NervecordError, match="--restart-steps: ") as refusal:
        collect_rollout(script, 10, restart=5)
    names = str(refusal.value.hint).partition("--sim ")[2].split(" or ")
    assert {"envpool", "gymnasium"} <= set(names)
    for kind in KINDS.values():
        with contextlib.suppress(ModuleNotFoundError):  # a simulator that is not installed
            assert pkgutil.resolve_name(kind.simulator).can_cut == (kind.name in names)


@pytest.mark.parametrize("kind", ["envpool", "gymnasium"])
def test_an_episode_that_is_cut_begins_anew_alone(kind: str) -> None:
    """HalfCheetah, which never falls: after the cut only that environment is at a first observation."""
    simulator = make_simulator("HalfCheetah-v4", [1, 2, 3], kind=kind)
    simulator.reset()
    push = torch.ones(3, 6)
    for _ in range(5):
        before = simulator.step(push).observations.clone()
    simulator.cut(torch.tensor([False, True, False]))
    after = simulator.step(push)
    assert after.rewards[1] == 0
    assert not (after.terminated | after.truncated).any()
    observations = after.observations.clone()
    assert observations[1].abs().max() < 0.5 < before[1].abs().max()
    assert (observations[[0, 2]].abs().amax(1) > 0.5).all()
    later = simulator.step(push)
    assert later.rewards[1] != 0
    # And its time limit is counted anew: 1000 steps from there.
    ends = [simulator.step(torch.zeros(3, 6)).truncated.tolist() for _ in range(1000)]
    simulator.close()
    assert [row.index(True) for row in zip(*ends, strict=True) if True in row] == [992, 998, 992]


@pytest.mark.parametrize(
    "env", ["InvertedPendulum-v4", "Ant-v4", "HalfCheetah-v4", "Humanoid-v4", "CartPole-v1", "Pendulum-v1"]
)
def test_a_saved_simulator_goes_on_the_same(env: str) -> None:
    """Through a file, as a checkpoint does it; past ends and resets, which draw from the random generator."""
    import io

    one, other = (make_simulator(env, seeds, kind="gymnasium") for seeds in ([1, 2], [8, 9]))
    draw = torch.Generator().manual_seed(0)
    one.reset()

    def actions() -> Tensor:
        if one.choices:
            return torch.randint(0, one.choices, (2, 1), generator=draw).float()
        return torch.rand(2, len(one.low), generator=draw) * 2 - 1

    for _ in range(30):
        one.step(actions())
    one.cut(torch.tensor([True, False]))
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    ends = 0
    for _ in range(250):
        a = actions()
        results = [simulator.step(a) for simulator in (one, other)]
        for name in ("observations", "rewards", "terminated", "truncated"):
            first, second = (getattr(result, name) for result in results)
            assert torch.equal(first, second), name
        ends += int((results[0].terminated | results[0].truncated).sum())
    one.close()
    other.close()
    assert ends or env in ("HalfCheetah-v4", "Ant-v4")


def test_a_collector_goes_on_where_it_was_saved() -> None:
    config = TrainConfig.of(layers=(8,), critic=(8,), state="carried", num_envs=3, rollout=12, minibatch=12)
    torch.manual_seed(0)
    learner = PPOLearner(Setup(4, -torch.ones(1), torch.ones(1), config))

    def collector(seeds: list[int], **how: Any) -> Collector:
        simulator = make_simulator("InvertedPendulum-v4", seeds, kind="gymnasium")
        return Collector(simulator, learner, 12, stagger=4, **how)

    one = collector([1, 2, 3])
    for _ in range(3):
        one.collect(learner)
    state = one.state_dict()
    assert state is not None
    other = collector([7, 8, 9], begin=False)
    other.load_state_dict(state)
    rollouts = []
    for each in (one, other):
        torch.manual_seed(5)
        results = [each.collect(learner) for _ in range(4)]
        rollouts.append([(r.observations.clone(), r.rewards, r.valid.clone(), r.states, e) for r, e in results[-1:]])
    for a, b in zip(rollouts[0][0], rollouts[1][0], strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b
