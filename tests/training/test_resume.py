"""A run killed with SIGKILL and resumed is the run that was never killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nervecord.errors import NervecordError
from nervecord.training import checkpoint
from nervecord.training.config import TrainConfig
from nervecord.training.run import resume, train
from nervecord.training.run_folder import WALL_CLOCK

CHILD = """
import sys
from nervecord.training.config import TrainConfig
from nervecord.training.run import train
train(TrainConfig.from_json(sys.stdin.read()))
"""


def small(out: Path, name: str, **changes: Any) -> TrainConfig:
    base: dict[str, Any] = {
        "env": "InvertedPendulum-v4",
        "layers": (16,),
        "critic": (8,),
        "steps": 24 * 64,
        "num_envs": 4,
        "rollout": 16,
        "minibatch": 32,
        "epochs": 2,
        "steps_per_action": 3,
        "checkpoint_every": 5 * 64,
        "validate_from": 0.4,
        "validation_episodes": 2,
        "test_episodes": 2,
        "record": 64,
        "tensorboard": False,
        "exact_resume": True,
        "out": str(out),
        "name": name,
    }
    return TrainConfig.of(**{**base, **changes})


def rows(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in WALL_CLOCK} for row in found]


def kill_while_training(config: TrainConfig, folder: Path, after_rows: int) -> int:
    """Start a training in a process of its own and SIGKILL it once it has written so many rows."""
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, start_new_session=True)
    assert child.stdin is not None
    child.stdin.write(config.to_json().encode())
    child.stdin.close()
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline and child.poll() is None:
            if metrics.exists() and metrics.read_bytes().count(b"\n") >= after_rows:
                break
            time.sleep(0.002)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    return child.wait()


@pytest.mark.parametrize(
    ("changes", "after_rows"),
    # Rows 5, 10, 15 carry checkpoints: killed a few rows past one, the file has run ahead of it.
    [({}, 12), ({}, 2), ({"state": "carried", "delays": True, "neuron": "synaptic", "layers": (12, 8)}, 7)],
    ids=["reset", "before-the-first-checkpoint", "carried"],
)
def test_killed_and_resumed_is_bit_identical(tmp_path: Path, changes: dict[str, Any], after_rows: int) -> None:
    whole = train(small(tmp_path, "whole", **changes))
    folder = tmp_path / "killed"
    code = kill_while_training(small(tmp_path, "killed", **changes), folder, after_rows)
    assert code == -signal.SIGKILL, "the child ended before it could be killed"
    stopped = checkpoint.steps_in(folder / "checkpoints")
    assert (stopped == []) == (after_rows < 5)
    assert whole.config.total_steps not in stopped
    resumed = resume(folder)
    assert rows(folder) == rows(tmp_path / "whole")
    assert resumed.test == whole.test
    assert resumed.step == whole.step
    last = whole.config.total_steps
    a = checkpoint.load(folder / "checkpoints", last)
    b = checkpoint.load(tmp_path / "whole" / "checkpoints", last)
    assert flat(a["learner"]) == flat(b["learner"])
    assert a["recorded"].equal(b["recorded"])


def flat(value: Any) -> Any:
    """Nested state with tensors as lists, so that == compares every bit."""
    if isinstance(value, dict):
        return {str(key): flat(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [flat(entry) for entry in value]
    return value.tolist() if hasattr(value, "tolist") else value


def test_resuming_a_finished_run_tests_it_again(tmp_path: Path) -> None:
    first = train(small(tmp_path, "done", steps=4 * 64))
    before = (first.folder / "metrics.jsonl").read_bytes()
    again = resume(first.folder)
    assert again.test == first.test
    assert (first.folder / "metrics.jsonl").read_bytes() == before


def test_resume_refuses_what_would_change_the_run(tmp_path: Path) -> None:
    done = train(small(tmp_path, "done", steps=64, test_episodes=0))
    with pytest.raises(NervecordError, match="seed"):
        resume(done.folder, overrides={"seed": 3})
    with pytest.raises(NervecordError, match="no run folder"):
        resume(tmp_path / "nothing")
    done = train(small(tmp_path, "emptied", steps=6 * 64, test_episodes=0))
    for entry in (done.folder / "checkpoints").iterdir():
        entry.unlink()
    with pytest.raises(NervecordError, match="no checkpoint"):
        resume(done.folder)


def test_a_damaged_checkpoint_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    done = train(small(tmp_path, "done", steps=64, test_episodes=0))
    (file,) = (done.folder / "checkpoints").glob("*.pt")
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(NervecordError, match=r"damaged.*delete it"):
        resume(done.folder)


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    config = small(tmp_path, "once", steps=64, test_episodes=0)
    done = train(config)
    before = {path: path.read_bytes() for path in done.folder.rglob("*") if path.is_file()}
    with pytest.raises(NervecordError, match=r"exists already.*--resume"):
        train(config)
    assert before == {path: path.read_bytes() for path in done.folder.rglob("*") if path.is_file()}
