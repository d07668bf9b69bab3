"""The run folder, the callback, validation, both simulators, and that something is learnt."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import runs
import torch

from nervecord.errors import MissingDependencyError, NervecordError
from nervecord.training.algorithms import ALGORITHMS
from nervecord.training.evaluate import Evaluation
from nervecord.training.folder import checkpoint
from nervecord.training.folder.run_folder import Metrics, git_state
from nervecord.training.policy.normaliser import RewardNormaliser
from nervecord.training.run import Progress, Run, resume, train
from nervecord.training.settings.config import TrainConfig

small = partial(runs.small, steps=512, checkpoint_every=128)


def test_folder_holds_what_it_promises(tmp_path: Path) -> None:
    reports: list[Progress] = []
    result = train(small(tmp_path, tensorboard=True, keep_checkpoints=2), progress=reports.append)
    folder = tmp_path / "run"
    assert result.folder == folder
    assert TrainConfig.from_json((folder / "config.json").read_text()) == result.config
    assert result.config.run.sim == "envpool"
    versions = json.loads((folder / "versions.json").read_text())
    assert versions["packages"]["skrl"].startswith("2.1")
    assert versions["simulator"] == "envpool"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(64, 513, 64)) == [p.step for p in reports]
    assert [row["validation_return"] is not None for row in rows] == [False] * 3 + [True, False] * 2 + [True]
    assert list(folder.glob("events.out.tfevents.*"))
    assert (folder / "learning.png").read_bytes().startswith(b"\x89PNG")
    assert not list(folder.rglob("*.tmp"))
    best = json.loads((folder / "checkpoints" / "best.json").read_text())
    assert best["step"] == result.step
    scores = {row["step"]: row["validation_return"] for row in rows if row["validation_return"] is not None}
    assert best["score"] == max(scores.values()) == result.validation
    assert set(checkpoint.steps_in(folder / "checkpoints")) == {384, 512, result.step}
    assert result.test is not None
    assert len(result.test.returns) == 3
    last = reports[-1]
    assert (last.total, last.eta) == (512, 0)
    assert last.rate > 0
    assert last.mean_return is not None


def test_the_last_checkpoint_where_it_is_asked_for(tmp_path: Path) -> None:
    """Seed 3 is validated best before its end."""
    best = train(small(tmp_path, seed=3))
    assert best.step < 512
    last = train(small(tmp_path, seed=3, export="last", name="last"))
    scores = [
        json.loads(line)["validation_return"] for line in (last.folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert (last.step, last.validation) == (512, scores[-1])
    assert last.validation < best.validation
    # The best one is still known, and a finished run is resumed for the other one.
    assert json.loads((last.folder / "checkpoints" / "best.json").read_text())["step"] == best.step
    assert resume(last.folder, overrides={"export": "best"}).step == best.step
    again = resume(best.folder, overrides={"export": "last"})
    assert (again.step, again.validation) == (512, scores[-1])
    assert TrainConfig.from_json((best.folder / "config.json").read_text()).run.export == "last"


def test_recorded_observations_come_from_the_last_rollouts(tmp_path: Path) -> None:
    result = train(small(tmp_path, record=48))
    observations = checkpoint.load(result.folder / "checkpoints")["recorded"]
    # One for each rollout, as 48 // 64 is 0: all eight.
    assert observations.shape == (8, 4)
    assert len(observations.unique(dim=0)) == 8
    more = train(small(tmp_path, record=128, name="more"))
    assert checkpoint.load(more.folder / "checkpoints")["recorded"].shape == (16, 4)


def test_gymnasium_in_place_of_envpool(tmp_path: Path) -> None:
    result = train(small(tmp_path, sim="gymnasium"))
    assert json.loads((result.folder / "versions.json").read_text())["simulator"] == "gymnasium"
    assert result.test is not None
    assert result.test.mean > 0


@pytest.mark.long
def test_same_seed_same_run_other_seed_other_run(tmp_path: Path) -> None:
    runs = [train(small(tmp_path, seed=seed, name=name)) for seed, name in ((1, "a"), (1, "b"), (2, "c"))]
    tests = [run.test for run in runs]
    assert tests[0] == tests[1] != tests[2]


@pytest.mark.slow  # tests/training/test_categorical.py has a quicker one
@pytest.mark.parametrize("changes", [{}, {"state": "carried", "delays": True}], ids=["reset", "carried"])
def test_a_spiking_policy_learns_to_balance(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Untrained it falls within about 10 to 40 steps of 1000."""
    config = small(
        tmp_path,
        steps=40_000,
        num_envs=16,
        rollout=32,
        minibatch=128,
        epochs=8,
        layers=(32,),
        critic=(32,),
        lr=2e-3,
        steps_per_action=4,
        checkpoint_every=5_000,
        validate_from=0.4,
        validation_episodes=5,
        test_episodes=10,
        **changes,
    )
    result = train(config)
    assert result.test is not None
    assert result.test.mean > 300


def test_a_training_that_diverges_says_so(tmp_path: Path) -> None:
    with pytest.raises(NervecordError, match=r"diverged: .* loss .*\bnan\b") as refusal:
        train(small(tmp_path, lr=1e30, grad_norm=0.0))
    assert "lower --lr" in str(refusal.value.hint)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_the_hint_of_a_divergence_names_flags_that_the_algorithm_has(name: str) -> None:
    sources = {source.field: "runs/a" for source in ALGORITHMS[name].sources if source.required}
    config = TrainConfig.of(algorithm=name, **sources)
    flags = re.findall(r"--([\w-]+) ", Run._calmer(SimpleNamespace(config=config)))  # type: ignore[arg-type]
    assert "lr" in flags
    assert {flag.replace("-", "_") for flag in flags} <= config.fields.keys()
    assert ("clip" in flags) == (name in ("ppo", "skrl-ppo"))


def test_unknown_task_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(NervecordError, match="InvertedPendulum"):
        train(small(tmp_path, env="InvertedPendulum-v44"))
    assert not (tmp_path / "run").exists()


def test_git_state_in_and_outside_a_repository(tmp_path: Path) -> None:
    assert git_state(tmp_path) == (None, b"") or shutil.which("git") is None
    assert git_state(tmp_path / "nowhere") == (None, b"")


def test_without_tensorboard_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError, match=r"TensorBoard .*--no-tensorboard"):
        Metrics(tmp_path, step=0, tensorboard=True)
    assert list(tmp_path.iterdir()) == []


def test_events_that_cannot_be_written_are_an_error_of_the_disk(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")

    def write_without_folder() -> None:
        folder = tmp_path / "run"
        folder.mkdir()
        with Metrics(folder, step=0, tensorboard=True) as metrics:
            shutil.rmtree(folder)
            for step in range(100):  # TensorBoard writes in a thread, and tells of it at a later call
                metrics.write({"step": step, "loss": 1.0})
                metrics.sync()

    hook = threading.excepthook
    with pytest.raises(NervecordError, match="run: TensorBoard's events: cannot be written") as refusal:
        write_without_folder()
    assert threading.excepthook == hook
    assert "--no-tensorboard" in str(refusal.value.hint)


def test_events_that_cannot_begin_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "run").mkdir()
    hook, descriptors = threading.excepthook, len(os.listdir("/proc/self/fd"))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", full)
    with pytest.raises(NervecordError) as refusal:
        Metrics(tmp_path / "run", step=0, tensorboard=True)
    assert refusal.value.where == f"{tmp_path / 'run'}: TensorBoard's events"
    assert threading.excepthook == hook
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_metrics_that_ran_ahead_are_cut_back(tmp_path: Path) -> None:
    with Metrics(tmp_path, step=0, tensorboard=False) as metrics:
        for step in (1, 2, 3):
            metrics.write({"step": step, "x": step / 2})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 4, "x"')
    with Metrics(tmp_path, step=2, tensorboard=False) as metrics:
        metrics.write({"step": 3, "x": 9})
    assert [json.loads(line)["x"] for line in path.read_text().splitlines()] == [0.5, 1.0, 9]


def test_reward_normaliser_by_its_definition() -> None:
    """Two rollouts: the returns of each are taken in before its rewards are divided; running returns go on."""
    draw = np.random.default_rng(0)
    subject = RewardNormaliser(3, 0.9, 2.0, torch.device("cpu"))
    returns, history = np.zeros(3), []
    for _ in range(2):
        rewards, ends = draw.normal(5, 3, (40, 3)), draw.random((40, 3)) < 0.1
        valid = np.concatenate([np.ones((1, 3), bool), ~ends[:-1]])
        ends &= valid
        outputs = subject(*(torch.from_numpy(part) for part in (rewards, ends, valid))).numpy()
        for t in range(40):
            returns = np.where(valid[t], 0.9 * returns + rewards[t], returns)
            history += returns[valid[t]].tolist()
            returns[ends[t]] = 0
        # The first value of the running variance, 1, weighs 1e-4.
        expected = np.where(valid, np.clip(rewards / np.std(history), -2, 2), 0)
        np.testing.assert_allclose(outputs, expected, rtol=1e-4)
    # Beside a variance of 0 stands Gymnasium's epsilon, inside the root.
    still = RewardNormaliser(1, 0.9, 2.0, torch.device("cpu"))
    still.moments.load_state_dict(
        {"mean": torch.tensor([1e-5]), "variance": torch.zeros(1), "count": torch.tensor(1e12)}
    )
    one = torch.full((1, 1), 1e-5, dtype=torch.float64)
    assert still(one, one > 0, one > 0).item() == pytest.approx(1e-5 / 1e-4, rel=1e-3)
    again = RewardNormaliser(3, 0.9, 2.0, torch.device("cpu"))
    again.load_state_dict(subject.state_dict())
    ones = torch.ones(1, 3)
    assert torch.equal(again(ones, ones < 0, ones > 0), subject(ones, ones < 0, ones > 0))


def test_evaluation_reports_its_uncertainty() -> None:
    evaluation = Evaluation((1.0, 2.0, 3.0, 6.0), (10, 10, 10, 30))
    assert evaluation.mean == 3.0
    assert evaluation.standard_error == pytest.approx(np.std([1, 2, 3, 6], ddof=1) / 2)
    report = evaluation.as_dict()
    alone = Evaluation((4.0,), (9,)).as_dict()
    assert (alone["mean_return"], alone["interval95"], alone["standard_error"]) == (4.0, None, None)
    # Student's t with 3 degrees of freedom.
    assert report["interval95"][0] == pytest.approx(3 - 3.18245 * evaluation.standard_error, rel=1e-3)
    assert report["mean_length"] == 15


def test_checkpoint_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 99}, tmp_path / "step-000000000001.pt")
    with pytest.raises(NervecordError, match=r"\b99, .* 2\b"):
        checkpoint.load(tmp_path)
