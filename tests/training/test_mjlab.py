"""mjlab itself, on Warp's CPU device, where it is installed; `test_lab_interface` holds the adapter to the protocol."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from simulating import make_simulator

from nervecord.compiler.nir.file import read_nir
from nervecord.errors import NervecordError
from nervecord.training import run
from nervecord.training.settings.config import TrainConfig

STEPS = 10
"""Of an episode."""

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("mjlab") is None, reason="mjlab is not installed; make test-mjlab"),
    # Of torch, at mjlab's import.
    pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def cartpole() -> str:
    """mjlab's own cart-pole, with short episodes."""
    from mjlab.tasks.cartpole.cartpole_env_cfg import cartpole_balance_env_cfg, cartpole_ppo_runner_cfg
    from mjlab.tasks.registry import register_mjlab_task

    configuration = cartpole_balance_env_cfg()
    configuration.episode_length_s = STEPS * 0.05
    register_mjlab_task("Short-Cartpole", configuration, configuration, cartpole_ppo_runner_cfg())
    return "Short-Cartpole"


def make(env: str, seeds: list[int]) -> Any:
    return make_simulator(env, seeds, kind="mjlab")


def test_episodes_end_and_begin_as_the_protocol_says(cartpole: str, capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(7)
    simulator = make(cartpole, [1, 2, 3])
    assert (simulator.observation_size, simulator.time_limit, simulator.control_period) == (5, STEPS, 0.05)
    assert (simulator.low.tolist(), simulator.high.tolist()) == ([-1.0], [1.0])
    first = simulator.reset()
    # The cart begins within 0.1 m of the middle, with the pole upright.
    assert (np.abs(first[:, 0]) <= 0.1).all()
    assert (first[:, 1] > 0.99).all()
    push = np.ones((3, 1))
    simulator.step(push)
    simulator.inner.cut(torch.tensor([False, True, False]))
    results = [simulator.step(push) for _ in range(STEPS + 1)]
    # The one that was cut began anew in that step, with a step without action, which is its first.
    assert results[0].rewards.tolist()[1] == 0.0
    assert np.abs(results[0].observations[1, 0]) < 0.15
    assert [r.truncated.tolist() for r in results[-3:]] == [[True, False, True], [False, True, False], [False] * 3]
    assert not any(r.terminated.any() for r in results)
    # A last observation is that of the cart far off, and the next one that of a cart which has begun again.
    last, initial = results[-3], results[-2]
    assert (last.observations[[0, 2], 0] > 0.3).all()
    assert (last.rewards > 0).all()
    assert (np.abs(initial.observations[[0, 2], 0]) < 0.15).all()
    assert initial.rewards[[0, 2]].tolist() == [0.0, 0.0]
    assert capfd.readouterr().out == ""
    # The learner's generator is where it was.
    expected = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), expected)


def test_the_seeds_decide_what_happens(cartpole: str) -> None:
    def observations(seeds: list[int], noise: int) -> np.ndarray:
        torch.manual_seed(noise)
        simulator = make(cartpole, seeds)
        first = simulator.reset()
        later = [simulator.step(np.full((2, 1), 0.1 * k)).observations for k in range(STEPS + 3)]
        simulator.close()
        return np.array([first, *later])

    one, again, other = observations([1, 2], 5), observations([1, 2], 6), observations([1, 3], 5)
    assert np.array_equal(one, again)
    assert (one != other).any(axis=(1, 2)).all()


def test_tasks_that_cannot_be_trained_are_refused() -> None:
    with pytest.raises(NervecordError, match="'Mjlab-Cartpole-Balanse'"):
        make("Mjlab-Cartpole-Balanse", [0])
    with pytest.raises(NervecordError, match=r"Yam-Rgb: .*2 groups.*actor, camera"):
        make("Mjlab-Lift-Cube-Yam-Rgb", [0])


def test_a_training_of_a_few_updates_exports_a_policy_and_resumes_to_the_bit(cartpole: str, tmp_path: Path) -> None:
    config = TrainConfig.of(
        env=cartpole,
        sim="mjlab",
        layers=(16,),
        critic=(8,),
        steps=768,
        num_envs=16,
        rollout=16,
        minibatch=128,
        epochs=2,
        steps_per_action=3,
        checkpoint_every=256,
        exact_resume=True,
        validation_episodes=4,
        test_episodes=4,
        keep_checkpoints=9,
        tensorboard=False,
        out=str(tmp_path),
        name="whole",
    )
    whole = run.train(config)
    assert whole.policy is not None
    policy = read_nir(whole.policy)
    contract = policy.contract
    assert contract is not None
    assert (contract.environment, contract.observation.size, contract.action.size) == (cartpole, 5, 1)
    assert contract.control_period == pytest.approx(0.05)
    assert "mjlab_version" in contract.provenance
    assert whole.test is not None
    assert whole.test.lengths == (STEPS,) * 4
    # A pole that has only begun to fall is upright nearly all the time, which is worth 0.05 a step.
    assert 0.2 < whole.test.mean < STEPS * 0.05

    copy = tmp_path / "stopped"
    shutil.copytree(whole.folder, copy)
    for checkpoint in (copy / "checkpoints").iterdir():
        if "256" not in checkpoint.name:
            checkpoint.unlink()
    again = run.resume(copy)
    rows = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (whole.folder, copy)
    ]
    for row in (*rows[0], *rows[1]):
        del row["seconds"], row["steps_per_second"]
    assert len(rows[0]) == 3
    assert rows[0] == rows[1]
    assert again.test == whole.test
