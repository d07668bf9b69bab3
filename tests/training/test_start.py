"""A training that begins with the networks of another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nervecord.errors import NervecordError
from nervecord.training.algorithms.ppo import PPO
from nervecord.training.folder import checkpoint
from nervecord.training.folder.start import shared_with
from nervecord.training.learners.sources import read_sources
from nervecord.training.run import Run, resolved, resume, train
from nervecord.training.settings.config import TrainConfig


def small(out: Path, name: str, **changes: Any) -> TrainConfig:
    base: dict[str, Any] = {
        "env": "InvertedPendulum-v4", "layers": (16,), "critic": (8,), "steps": 256, "num_envs": 4, "rollout": 16,
        "minibatch": 32, "epochs": 2, "steps_per_action": 3, "checkpoint_every": 64, "validate_from": 0.5,
        "validation_episodes": 2, "test_episodes": 3, "record": 48, "tensorboard": False, "out": str(out),
        "name": name, "sim": "envpool",
    }  # fmt: skip
    if changes.get("policy") == "ann":
        del base["steps_per_action"]
    return TrainConfig.of(**{**base, **changes})


def networks(content: dict[str, Any]) -> dict[str, torch.Tensor]:
    parts = ("actor", "critic", "obs_rms")
    return {f"{part}.{name}": value for part in parts for name, value in content["learner"][part].items()}


def test_begins_with_the_best_checkpoint_and_a_new_schedule(tmp_path: Path) -> None:
    first = train(small(tmp_path, "first"))
    config = small(tmp_path, "second", start=str(first.folder), num_envs=8, lr=1e-5)
    wanted = checkpoint.load(first.folder / "checkpoints", first.step)
    run = Run(resolved(config), None)
    run.simulator.close()
    state = run.learner.state_dict()
    for name, value in networks({"learner": state}).items():
        assert torch.equal(value, networks(wanted)[name]), name
    assert not state["optimizer"]["state"]
    assert run.learner.reward_rms.moments.count == wanted["learner"]["reward_rms"]["count"]
    assert (run.step, run.episodes, run.best) == (0, 0, None)

    second = train(config)
    start = json.loads((second.folder / "versions.json").read_text())["start"]
    assert start == run.origins["start"]
    assert (start["folder"], start["step"]) == (str(first.folder), first.step)
    assert second.step > 0
    moved = networks(checkpoint.load(second.folder / "checkpoints"))
    assert any(not torch.equal(value, moved[name]) for name, value in networks(wanted).items())


def test_killed_before_its_first_checkpoint_it_begins_so_again(tmp_path: Path) -> None:
    first = train(small(tmp_path, "first"))
    config = small(tmp_path, "second", start=str(first.folder))
    whole = train(config)
    for name in ("checkpoints", "result.json", "policy.nir", "metrics.jsonl"):
        path = whole.folder / name
        path.rename(tmp_path / f"whole-{name}")
    again = resume(whole.folder)
    assert again.test == whole.test
    kept, now = (
        networks(checkpoint.load(folder)) for folder in (tmp_path / "whole-checkpoints", whole.folder / "checkpoints")
    )
    assert all(torch.equal(value, now[name]) for name, value in kept.items())


def test_a_fixed_noise_schedule_counts_more_than_the_noise_that_was_learnt(tmp_path: Path) -> None:
    first = train(small(tmp_path, "first"))
    run = Run(resolved(small(tmp_path, "second", start=str(first.folder), noise="linear", log_std=-1.0)), None)
    run.simulator.close()
    run.learner.schedule(0, 1)
    assert run.learner.actor.spread().tolist() == [-1.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": (17,)}, r"trained with layers \(16,\), not \(17,\)"),
        ({"critic": (8, 8)}, r"trained with critic \(8,\), not \(8, 8\)"),
        ({"env": "InvertedDoublePendulum-v4"}, "trained with env InvertedPendulum-v4"),
        ({"start": "nowhere"}, "is no run folder"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    first = train(small(tmp_path, "first"))
    assert shared_with(first.folder, PPO.sources[1])["layers"] == (16,)
    config = small(tmp_path, "second", **{"start": str(first.folder), **changes})
    with pytest.raises(NervecordError, match=message):
        read_sources(config)
    with pytest.raises(NervecordError, match=message):
        train(config)
    assert not (tmp_path / "second").exists()
