"""A rollout in tensors is the rollout in arrays: the same learning, returns, statistics and recorded observations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nervecord.training import checkpoint, run
from nervecord.training.config import TrainConfig
from nervecord.training.rewards import RewardNormaliser
from nervecord.training.run_folder import WALL_CLOCK
from nervecord.training.simulators.base import DeviceSimulator, Simulator, StepResult, TensorStep, make_simulator
from nervecord.training.tensor_rollout import TensorRewardNormaliser


class InTensors:
    """Any simulator, as one that gives tensors."""

    def __init__(self, inner: Simulator) -> None:
        self.inner = inner
        self.num_envs, self.observation_size = inner.num_envs, inner.observation_size
        self.low, self.high, self.choices = inner.low, inner.high, inner.choices

    def reset(self) -> np.ndarray:
        return self.inner.reset()

    def step(self, actions: np.ndarray) -> StepResult:
        return self.inner.step(actions)

    def close(self) -> None:
        self.inner.close()

    def reset_tensors(self) -> Tensor:
        return torch.from_numpy(self.inner.reset()).float()

    def step_tensors(self, actions: Tensor) -> TensorStep:
        result = self.inner.step(actions.numpy())
        return TensorStep(
            torch.from_numpy(result.observations).float(),
            torch.from_numpy(result.rewards).float(),
            torch.from_numpy(result.terminated),
            torch.from_numpy(result.truncated),
        )


def config(out: Path, name: str) -> TrainConfig:
    return TrainConfig(
        env="InvertedPendulum-v4", layers=(16,), critic=(8,), steps=512, num_envs=4, rollout=16, minibatch=32, epochs=2,
        steps_per_action=3, checkpoint_every=256, validation_episodes=2, test_episodes=2, record=48, tensorboard=False,
        out=str(out), name=name,
    )  # fmt: skip


def rows(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in WALL_CLOCK} for row in found]


def test_training_in_tensors_is_training_in_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = run.train(config(tmp_path, "arrays"))
    monkeypatch.setattr(run, "make_simulator", lambda *a, **k: InTensors(make_simulator(*a, **k)))
    tensors = run.train(config(tmp_path, "tensors"))
    first, second = rows(arrays.folder), rows(tensors.folder)
    assert first[-1]["episodes"] > 20
    assert [row.keys() for row in first] == [row.keys() for row in second]
    for one, other in zip(first, second, strict=True):
        for name, value in one.items():
            assert other[name] == (None if value is None else pytest.approx(value, rel=1e-4)), name
    contents = [checkpoint.load(result.folder / "checkpoints") for result in (arrays, tensors)]
    assert torch.allclose(contents[0]["recorded"], contents[1]["recorded"], rtol=1e-4, atol=1e-5)
    assert contents[1]["rewards"]["variance"] == pytest.approx(contents[0]["rewards"]["variance"])
    assert contents[0]["returns"] == contents[1]["returns"]


def test_which_rollout_is_taken() -> None:
    simulator = make_simulator("InvertedPendulum-v4", [0], kind="gymnasium")
    assert not isinstance(simulator, DeviceSimulator)
    assert isinstance(InTensors(simulator), DeviceSimulator)
    simulator.close()


def test_reward_normalisers_agree_and_take_each_others_state() -> None:
    draw = np.random.default_rng(0)
    numpy, torched = RewardNormaliser(5, 0.9, 2.0), TensorRewardNormaliser(5, 0.9, 2.0, torch.device("cpu"))
    for step in range(60):
        rewards = draw.normal(1.0, 3.0, 5)
        done, real = draw.random(5) < 0.2, draw.random(5) < 0.7
        if step == 0:
            real[:] = False
        expected = numpy(rewards, done, real)
        found = torched(*(torch.from_numpy(part) for part in (rewards, done, real)))
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)
        if step == 30:
            states = numpy.state_dict(), torched.state_dict()
            assert {name: type(value) for name, value in states[0].items()} == {
                name: type(value) for name, value in states[1].items()
            }
            numpy.load_state_dict(states[1])
            torched.load_state_dict(states[0])
    torched.restart()
    assert not torched.returns.any()
