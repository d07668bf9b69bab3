"""The mirror image of a step is a step of the simulator."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from nervecord.errors import NervecordError
from nervecord.training.config import TrainConfig
from nervecord.training.mirror import mirror_of
from nervecord.training.ppo import Learner

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


def _learner(**changes: object) -> Learner:
    torch.manual_seed(0)
    config = TrainConfig(layers=(16,), num_envs=4, rollout=8, minibatch=8, mirror=True, **changes)  # type: ignore[arg-type]
    return Learner(27, 8, config)


def test_minibatches_hold_steps_and_images_of_steps() -> None:
    learner = _learner()
    memory, mirror = learner.memory, learner.mirror
    assert mirror is not None
    for name, tensor in memory.tensors.items():
        if name == "real":
            tensor.copy_(torch.rand(tensor.shape) < 0.8)
        elif tensor.dtype == torch.float32:
            tensor.copy_(torch.randn(tensor.shape))
    memory.set_tensor_by_name("advantages", torch.zeros_like(memory.tensors["advantages"]))
    names = ["observations", "states", "actions", "log_prob", "returns"]
    columns = _columns(memory.sample(names, batch_size=32, mini_batches=4))
    observations, actions, log_prob, returns = columns
    real = memory.tensors_view["real"][:, 0]
    assert len(returns) == int(real.sum())
    assert {float(x) for x in returns[:, 0]} == {float(x) for x in memory.tensors_view["returns"][real][:, 0]}
    inputs = {"observations": learner.scaler(observations), "taken_actions": actions}
    expected = learner.actor.act(inputs)[1]["log_prob"]
    images = 0
    for k in range(len(returns)):
        where = int((memory.tensors_view["returns"] == returns[k]).nonzero()[0, 0])
        original, action = memory.tensors_view["observations"][where], memory.tensors_view["actions"][where]
        if torch.equal(observations[k], original):
            assert torch.equal(actions[k], action)
            assert torch.equal(log_prob[k], memory.tensors_view["log_prob"][where])
        else:
            images += 1
            assert torch.equal(observations[k], mirror.observations(original))
            assert torch.equal(actions[k], mirror.actions(action))
            # Computed in another batch shape.
            assert torch.allclose(log_prob[k], expected[k], atol=1e-4)
    assert 0 < images < len(returns)


def _columns(parts: list[list[torch.Tensor | None]]) -> list[torch.Tensor]:
    columns = zip(*parts, strict=True)
    return [torch.cat([x for x in column if x is not None]) for column in columns if column[0] is not None]


def test_the_normaliser_becomes_symmetric() -> None:
    learner = _learner()
    assert learner.mirror is not None
    learner.memory.tensors["observations"].copy_(torch.randn(8, 4, 27) + 1)
    learner.memory.tensors["real"].fill_(True)
    learner.absorb_observations()
    mean = learner.scaler.running_mean.float()
    assert torch.allclose(learner.mirror.observations(mean), mean, atol=1e-6)


def test_refusals() -> None:
    with pytest.raises(NervecordError, match="no symmetry of Hopper-v4 is known"):
        mirror_of("Hopper-v4")
    with pytest.raises(NervecordError, match="carried state has no mirror image"):
        TrainConfig(mirror=True, state="carried")
