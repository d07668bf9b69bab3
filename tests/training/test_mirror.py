"""The mirror image of a step is a step of the simulator."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from nervecord.errors import NervecordError
from nervecord.training.learners.base import Rollout, Setup
from nervecord.training.learners.ppo import PPOLearner
from nervecord.training.policy.mirror import mirror_of
from nervecord.training.settings.config import TrainConfig

# The two trajectories are computed from other numbers, and MuJoCo's solver stops at a tolerance of 1e-8; contacts
# let the difference grow over the 50 steps.
TOLERANCE = 1e-6

ROOT = 15
"""Coordinates of the free joint: 7 positions, then 8 joints, in qpos; the observation leaves out x and y."""


def _place(env: gymnasium.Env, observation: np.ndarray) -> None:
    state = np.concatenate([[0.0, 0.0], observation])
    env.unwrapped.set_state(state[:ROOT], state[ROOT:])  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ant_moves_as_its_mirror_image() -> None:
    mirror = mirror_of("Ant-v4")
    left, right = (gymnasium.make("Ant-v4") for _ in range(2))
    draw = np.random.default_rng(0)
    for episode in range(5):
        first, _ = left.reset(seed=episode)
        right.reset(seed=episode)
        _place(left, first)
        _place(right, mirror.observations(torch.from_numpy(first)).numpy())
        for _ in range(50):
            action = draw.uniform(-1, 1, 8)
            a, reward_a, end_a, *_ = left.step(action)
            b, reward_b, end_b, *_ = right.step(mirror.actions(torch.from_numpy(action)).numpy())
            np.testing.assert_allclose(mirror.observations(torch.from_numpy(a)).numpy(), b, atol=TOLERANCE)
            assert abs(float(reward_a) - float(reward_b)) < TOLERANCE
            assert end_a == end_b
            # Both begin anew from the same state: else rounding errors grow, and Ant's reward reads the torso's place
            # in the last stage of the integrator, which setting a state does not set.
            _place(left, a)
            _place(right, mirror.observations(torch.from_numpy(a)).numpy())
            if end_a:
                break


def test_twice_is_the_original() -> None:
    mirror = mirror_of("Ant-v4")
    for reflection, size in ((mirror.observations, 27), (mirror.actions, 8)):
        x = torch.randn(3, size)
        assert torch.equal(reflection(reflection(x)), x)
        assert not torch.equal(reflection(x), x)


POLICIES: list[dict[str, object]] = [
    {},
    {"policy": "ann", "layers": (16, 12)},
    {"layers": (16, 9)},
    {"neuron": "synaptic"},
    {"encoder": "population", "decoder": "count", "population": 5},
    {"operator": "snntorch"},
    {"state": "carried"},
    {"state": "carried", "delays": True, "recurrent": True},
]


def _learner(**changes: object) -> PPOLearner:
    torch.manual_seed(0)
    values: dict[str, object] = {"layers": (16,), "num_envs": 4, "rollout": 8, "minibatch": 8, "mirror": True}
    return PPOLearner(Setup(27, -torch.ones(8), torch.ones(8), TrainConfig.of(**{**values, **changes})))  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", POLICIES, ids=str)
def test_policy_and_critic_keep_the_mirror_while_they_learn(changes: dict[str, object]) -> None:
    learner = _learner(**changes)
    optimiser = torch.optim.Adam(learner.parameters(), lr=0.05)
    mirror = mirror_of("Ant-v4")
    for _ in range(3):
        x, actions = torch.randn(64, 27), torch.randn(64, 8)
        mean, _ = learner.actor.mode(x)
        image, _ = learner.actor.mode(mirror.observations(x))
        # float32, in another order of summation: a membrane at its threshold may then spike on one side only.
        close = torch.isclose(mirror.actions(mean), image, atol=1e-5).all(dim=1)
        assert close.float().mean() > 0.95
        assert not torch.allclose(mean, image, atol=1e-2)
        values = [learner.critic(o) for o in (x, mirror.observations(x))]
        assert torch.allclose(*values, atol=1e-5)
        log_prob = learner.actor.log_prob(mean, actions)
        optimiser.zero_grad()
        (log_prob.mean() + values[0].square().mean()).backward()
        optimiser.step()
    spread = learner.actor.spread()
    assert torch.equal(spread, spread[mirror.actions.order])
    assert (spread != -0.5).all()


def test_without_it_nothing_is_tied() -> None:
    learner, mirror = _learner(mirror=False), mirror_of("Ant-v4")
    x = torch.randn(64, 27)
    mean, image = (learner.actor.mode(o)[0] for o in (x, mirror.observations(x)))
    assert not torch.isclose(mirror.actions(mean), image, atol=1e-5).all(dim=1).any()


def test_the_normaliser_becomes_symmetric() -> None:
    learner = _learner()
    assert learner.mirror is not None
    none, ends = torch.zeros(8, 4), torch.zeros(8, 4, dtype=torch.bool)
    learner.absorb(Rollout(torch.randn(9, 4, 27) + 1, torch.zeros(8, 4, 8), none, None, none, ends, ends, ~ends))
    mean = learner.obs_rms.moments.mean.float()
    assert torch.allclose(learner.mirror.observations(mean), mean, atol=1e-6)
    assert not torch.allclose(mean, torch.zeros(27), atol=1e-2)


def test_unknown_symmetry() -> None:
    with pytest.raises(NervecordError, match="Hopper-v4"):
        mirror_of("Hopper-v4")
