"""A training that begins with the networks of another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import small

from nervecord.errors import NervecordError
from nervecord.training.algorithms.ppo import PPO
from nervecord.training.folder import checkpoint
from nervecord.training.folder.start import shared_with
from nervecord.training.learners.sources import read_sources
from nervecord.training.run import Run, TrainResult, resolved, resume, train


def networks(content: dict[str, Any]) -> dict[str, torch.Tensor]:
    parts = ("actor", "critic", "obs_rms")
    return {f"{part}.{name}": value for part in parts for name, value in content["learner"][part].items()}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(small(tmp_path_factory.mktemp("first"), "first"))


def test_begins_with_the_best_checkpoint_and_a_new_schedule(first: TrainResult, tmp_path: Path) -> None:
    config = small(tmp_path, "second", start=str(first.folder), num_envs=8, lr=1e-5)
    content = checkpoint.load(first.folder / "checkpoints", first.step)
    run = Run(resolved(config), None)
    run.simulator.close()
    state = run.learner.state_dict()
    for name, value in networks({"learner": state}).items():
        assert torch.equal(value, networks(content)[name]), name
    assert not state["optimizer"]["state"]
    assert run.learner.reward_rms.moments.count == content["learner"]["reward_rms"]["count"]
    assert (run.step, run.episodes, run.best) == (0, 0, None)

    second = train(config)
    start = json.loads((second.folder / "versions.json").read_text())["start"]
    assert start == run.origins["start"]
    assert (start["folder"], start["step"]) == (str(first.folder), first.step)
    assert second.step > 0
    after = networks(checkpoint.load(second.folder / "checkpoints"))
    assert any(not torch.equal(value, after[name]) for name, value in networks(content).items())


def test_killed_before_its_first_checkpoint_it_begins_so_again(first: TrainResult, tmp_path: Path) -> None:
    config = small(tmp_path, "second", start=str(first.folder))
    whole = train(config)
    for name in ("checkpoints", "result.json", "policy.nir", "metrics.jsonl"):
        path = whole.folder / name
        path.rename(tmp_path / f"whole-{name}")
    again = resume(whole.folder)
    assert again.test == whole.test
    before, now = (
        networks(checkpoint.load(folder)) for folder in (tmp_path / "whole-checkpoints", whole.folder / "checkpoints")
    )
    assert all(torch.equal(value, now[name]) for name, value in before.items())


def test_a_fixed_noise_schedule_counts_more_than_the_noise_that_was_learnt(first: TrainResult, tmp_path: Path) -> None:
    run = Run(resolved(small(tmp_path, "second", start=str(first.folder), noise="linear", log_std=-1.0)), None)
    run.simulator.close()
    run.learner.schedule(0, 1)
    assert run.learner.actor.spread().tolist() == [-1.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": (17,)}, r"layers \(16,\).*\(17,\)"),
        ({"critic": (8, 8)}, r"critic \(8,\).*\(8, 8\)"),
        ({"env": "InvertedDoublePendulum-v4"}, "env InvertedPendulum-v4"),
        ({"start": "nowhere"}, "nowhere"),
    ],
)
def test_what_does_not_fit_is_refused(
    first: TrainResult, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    assert shared_with(first.folder, PPO.sources[1])["layers"] == (16,)
    config = small(tmp_path, "second", **{"start": str(first.folder), **changes})
    with pytest.raises(NervecordError, match=message):
        read_sources(config)
    with pytest.raises(NervecordError, match=message):
        train(config)
    assert not (tmp_path / "second").exists()
