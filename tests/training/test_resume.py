"""A run killed with SIGKILL and resumed is the run that was never killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import runs
from examples import some

from nervecord.errors import NervecordError
from nervecord.training.folder import checkpoint
from nervecord.training.folder.run_folder import DRAFT, LOCK, WALL_CLOCK, Metrics, create, hold, lock, mujoco_log
from nervecord.training.run import Progress, resume, train
from nervecord.training.settings.config import TrainConfig

CHILD = """
import sys
from nervecord.training.settings.config import TrainConfig
from nervecord.training.run import train
train(TrainConfig.from_json(sys.stdin.read()))
"""


small = partial(
    runs.small, steps=24 * 64, checkpoint_every=5 * 64, validate_from=0.4, test_episodes=2, record=64, exact_resume=True
)
"""24 updates, 5 from one checkpoint to the next."""


def rows(folder: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in WALL_CLOCK} for row in records]


def kill_while_training(config: TrainConfig, folder: Path, after_rows: int) -> int:
    """Start a training in a process of its own and SIGKILL it once it has written so many rows."""
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, start_new_session=True)
    assert child.stdin is not None
    child.stdin.write(config.to_json().encode())
    child.stdin.close()
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 300  # a busy machine takes a minute to import torch
    try:
        while time.monotonic() < deadline and child.poll() is None:
            if metrics.exists() and metrics.read_bytes().count(b"\n") >= after_rows:
                break
            time.sleep(0.002)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    return child.wait()


@pytest.mark.long
@pytest.mark.parametrize(
    ("changes", "after_rows"),
    # Rows 5, 10, 15 carry checkpoints: killed a few rows past one, the file has run ahead of it.
    [
        pytest.param({}, 12, marks=pytest.mark.slow),
        pytest.param({}, 2, marks=pytest.mark.slow),
        ({"state": "carried", "delays": True, "neuron": "synaptic", "layers": (12, 8)}, 7),
    ],
    ids=["reset", "before-the-first-checkpoint", "carried"],
)
def test_killed_and_resumed_is_bit_identical(tmp_path: Path, changes: dict[str, Any], after_rows: int) -> None:
    whole = train(small(tmp_path, "whole", **changes))
    folder = tmp_path / "killed"
    code = kill_while_training(small(tmp_path, "killed", **changes), folder, after_rows)
    assert code == -signal.SIGKILL, "the child ended before it could be killed"
    steps = checkpoint.steps_in(folder / "checkpoints")
    assert (steps == []) == (after_rows < 5)
    assert whole.config.total_steps not in steps
    again = resume(folder)
    assert rows(folder) == rows(tmp_path / "whole")
    assert again.test == whole.test
    assert again.step == whole.step
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


@pytest.mark.long
def test_resuming_a_finished_run_tests_it_again(tmp_path: Path) -> None:
    first = train(small(tmp_path, "done", steps=4 * 64))
    before = (first.folder / "metrics.jsonl").read_bytes()
    again = resume(first.folder)
    assert again.test == first.test
    assert (first.folder / "metrics.jsonl").read_bytes() == before


def test_resume_refuses_what_would_change_the_run(tmp_path: Path) -> None:
    result = train(small(tmp_path, "done", steps=64, test_episodes=0))
    with pytest.raises(NervecordError, match="seed"):
        resume(result.folder, overrides={"seed": 3})
    with pytest.raises(NervecordError, match="nothing"):
        resume(tmp_path / "nothing")
    result = train(small(tmp_path, "emptied", steps=6 * 64, test_episodes=0))
    for entry in (result.folder / "checkpoints").iterdir():
        entry.unlink()
    with pytest.raises(NervecordError, match="no checkpoint"):
        resume(result.folder)


def test_a_damaged_checkpoint_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    result = train(small(tmp_path, "done", steps=64, test_episodes=0))
    (file,) = (result.folder / "checkpoints").glob("*.pt")
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(NervecordError, match=file.name):
        resume(result.folder)


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    config = small(tmp_path, "once", steps=64, test_episodes=0)
    result = train(config)
    before = {path: path.read_bytes() for path in result.folder.rglob("*") if path.is_file()}
    with pytest.raises(NervecordError, match=r"exists already.*--resume"):
        train(config)
    assert before == {path: path.read_bytes() for path in result.folder.rglob("*") if path.is_file()}


class KilledError(BaseException):
    """Nobody answers it."""


@pytest.mark.long
def test_a_simulator_that_saves_its_state_goes_on_in_its_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gymnasium's, without exact_resume: no checkpoint ends an episode, and the resumed run is the same to the bit."""
    changes: dict[str, Any] = {"sim": "gymnasium", "exact_resume": False}
    whole = train(small(tmp_path, "whole", **changes))
    folder = tmp_path / "killed"
    write, number = Metrics.write, iter(range(100))

    def write_until_killed(metrics: Metrics, row: dict[str, Any]) -> None:
        write(metrics, row)
        if next(number) == 11:
            raise KilledError

    # In this process, without a last checkpoint: what SIGKILL leaves behind is held above.
    monkeypatch.setattr(Metrics, "write", write_until_killed)
    with pytest.raises(KilledError):
        train(small(tmp_path, "killed", **changes))
    monkeypatch.undo()
    assert whole.config.total_steps not in checkpoint.steps_in(folder / "checkpoints")
    assert resume(folder).test == whole.test
    assert rows(folder) == rows(tmp_path / "whole")


@pytest.mark.long
def test_checkpoints_do_not_end_episodes(tmp_path: Path) -> None:
    """HalfCheetah, which never falls: a checkpoint every 40 steps of an environment, and whole episodes of 1000."""
    config = small(
        tmp_path,
        "cheetah",
        env="HalfCheetah-v4",
        steps=4 * 2048,
        rollout=64,
        minibatch=256,
        epochs=1,
        layers=(4,),
        checkpoint_every=4 * 64,
        exact_resume=False,
        keep_checkpoints=1,
        validation_episodes=0,
        test_episodes=0,
    )
    train(config)
    last = rows(tmp_path / "cheetah")[-1]
    # The first episodes are cut, the second ones are whole.
    assert last["episodes"] >= 4
    assert last["episode_length"] == 1000


def test_exact_resume_that_sees_no_whole_episode_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(small(tmp_path, "short", test_episodes=0, validation_episodes=0, steps=640))
    assert re.search(" 80 steps .* 1000", caplog.text)


def test_an_interrupt_keeps_what_there_is(tmp_path: Path) -> None:
    config = small(tmp_path, "told", steps=200 * 64, exact_resume=False, checkpoint_every=10**6)

    def look(progress: Progress) -> None:
        if progress.step == 3 * 64:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="nervecord train --resume") as interrupt:
        train(config, progress=look)
    (step,) = checkpoint.steps_in(tmp_path / "told" / "checkpoints")
    assert rows(tmp_path / "told")[-1]["step"] == step < config.total_steps
    assert f"step {step:,}" in str(interrupt.value)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_there_is_and_says_the_step(tmp_path: Path, number: int) -> None:
    config = small(tmp_path, "told", steps=200 * 64, exact_resume=False, checkpoint_every=10**6)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert child.stdin is not None
    child.stdin.write(config.to_json().encode())
    child.stdin.close()
    child.stdin = None
    metrics = tmp_path / "told" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (metrics.exists() and metrics.read_bytes().count(b"\n") >= 3):
        time.sleep(0.002)
    child.send_signal(number)
    _, log = child.communicate(timeout=120)
    (step,) = checkpoint.steps_in(tmp_path / "told" / "checkpoints")
    assert rows(tmp_path / "told")[-1]["step"] == step < config.total_steps
    assert f"interrupted at step {step:,}; nervecord train --resume".encode() in log
    assert f"continues from step {step:,}".encode() in log


@pytest.mark.long
def test_a_run_killed_between_its_first_row_and_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    config = small(tmp_path, "gap", steps=4 * 64, checkpoint_every=64)
    whole = train(config)
    before = rows(whole.folder)
    for path in [*(whole.folder / "checkpoints").iterdir(), whole.folder / "result.json"]:
        path.unlink()
    lines = (whole.folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (whole.folder / "metrics.jsonl").write_bytes(lines[0])
    assert resume(whole.folder).test == whole.test
    assert rows(whole.folder) == before


def test_two_processes_cannot_train_one_run(tmp_path: Path) -> None:
    result = train(small(tmp_path, "run", steps=64, test_episodes=0))
    with hold(result.folder), pytest.raises(NervecordError, match="run: "):
        resume(result.folder)
    assert resume(result.folder).step == 64


@pytest.mark.slow
def test_of_two_processes_that_resume_a_run_the_second_is_refused(tmp_path: Path) -> None:
    config = small(tmp_path, "run", steps=4000 * 64, validation_episodes=0)
    assert kill_while_training(config, tmp_path / "run", 7) == -signal.SIGKILL
    metrics = tmp_path / "run" / "metrics.jsonl"
    command = [sys.executable, "-m", "nervecord", "train", "--resume", str(tmp_path / "run")]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        before, deadline = metrics.stat().st_ino, time.monotonic() + 300
        # It has cut the file back to the checkpoint, and writes.
        while metrics.stat().st_ino == before or metrics.read_bytes().count(b"\n") < 7:
            assert time.monotonic() < deadline
            assert first.poll() is None
            time.sleep(0.01)
        second = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    assert second.returncode == 2
    assert f"{tmp_path / 'run'}: is being trained" in second.stderr
    steps = [json.loads(line)["step"] for line in metrics.read_bytes().split(b"\n")[:-1]]
    assert steps == list(range(64, 64 * len(steps) + 1, 64))


@pytest.mark.long
def test_what_was_killed_while_it_kept_a_checkpoint_is_finished_by_the_next(tmp_path: Path) -> None:
    result = train(small(tmp_path, "run", steps=10 * 64, checkpoint_every=64, keep_checkpoints=2, test_episodes=0))
    folder = result.folder / "checkpoints"
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    best = json.loads(whole["best.json"])
    # Killed between the rename of the last checkpoint and what comes after it.
    (folder / ".best.json.0123456789abcdef.nervecord-tmp").write_bytes(b"{")
    (folder / "best.json").write_text(json.dumps(best | {"score": -1.0}))
    (folder / "step-000000000064.pt").write_bytes(b"an old one")
    assert resume(result.folder).step == result.step
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_a_run_is_held_before_anything_of_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that was read before the other process wrote its last ones would take their rows away."""
    result = train(small(tmp_path, "run", steps=64, test_episodes=0))
    monkeypatch.setattr(checkpoint, "load", lambda *arguments: pytest.fail("read before it was held"))
    with hold(result.folder), pytest.raises(NervecordError, match="run: "):
        resume(result.folder)
    with pytest.raises(NervecordError, match="none"):
        resume(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_one_process_holds_a_run_folder_and_the_lock_ends_with_it(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom nervecord.training.folder.run_folder import lock\n"
        "with lock(Path(sys.argv[1])) as is_ours:\n    print(is_ours, flush=True)\n    time.sleep(600)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "True\n"
            with lock(tmp_path) as is_ours:
                assert not is_ours
        finally:
            other.kill()
    with lock(tmp_path) as is_ours, lock(tmp_path) as again:
        assert (is_ours, again) == (True, False)
    assert (tmp_path / LOCK).exists()  # one that is removed could be held twice


@pytest.mark.parametrize("place", ["a file", "a link"])
def test_a_lock_that_cannot_be_made_is_refused(place: str, tmp_path: Path) -> None:
    if place == "a file":
        (tmp_path / place).touch()
    else:
        (tmp_path / place).mkdir()
        (tmp_path / place / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NervecordError, match=r"\.lock: .* keeps locks"), lock(tmp_path / place):
        pass
    assert not (tmp_path / "elsewhere").exists()


KILLED_WHILE_IT_IS_MADE = """
import os, signal, sys
from functools import partial
from pathlib import Path
from nervecord.training.folder import run_folder
from nervecord.training.settings.config import TrainConfig
run_folder.git_state = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
run_folder.create(TrainConfig.from_json(sys.stdin.read()), sim="envpool")
"""


def test_a_folder_whose_maker_was_killed_goes_when_the_next_is_made(tmp_path: Path) -> None:
    config = small(tmp_path, "run", steps=64)
    code = [sys.executable, "-c", KILLED_WHILE_IT_IS_MADE]
    process = subprocess.run(code, input=config.to_json(), text=True, timeout=300)
    assert process.returncode == -signal.SIGKILL
    (name,) = os.listdir(tmp_path)
    assert name.endswith(DRAFT)
    draft = tmp_path / f".other.{'0' * 16}{DRAFT}"
    draft.mkdir()
    with lock(draft):
        create(config, sim="envpool")
        assert sorted(os.listdir(tmp_path)) == [draft.name, "run"]
    create(config.replace(name="next"), sim="envpool")
    assert sorted(os.listdir(tmp_path)) == ["next", "run"]


def test_a_failed_start_does_not_block_the_next_try(tmp_path: Path) -> None:
    config = small(tmp_path, "run", steps=64, test_episodes=0)
    create(config, sim="envpool")
    (tmp_path / "run" / "metrics.jsonl").write_bytes(b"")
    assert train(config).step == 64
    with pytest.raises(NervecordError, match="--resume"):
        train(config)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "versions.json").write_text("{}")
    (tmp_path / "other" / "thesis.md").write_text("mine")
    with pytest.raises(NervecordError, match="other"):
        train(small(tmp_path, "other"))
    assert (tmp_path / "other" / "thesis.md").exists()


def test_mujocos_log_goes_to_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    with mujoco_log() as folders:
        folders.append(tmp_path / "run")
        Path("MUJOCO_LOG.TXT").write_text("WARNING: Nan in QACC")
    assert not Path("MUJOCO_LOG.TXT").exists()
    assert (tmp_path / "run" / "mujoco.log").read_text() == "WARNING: Nan in QACC"
    Path("MUJOCO_LOG.TXT").write_text("mine")
    with mujoco_log() as folders:
        folders.append(tmp_path / "run")
    assert Path("MUJOCO_LOG.TXT").read_text() == "mine"


@pytest.mark.long
@pytest.mark.parametrize("sim", some(["envpool", "gymnasium"], 1))
def test_what_mujoco_says_when_it_loads_a_model_litters_no_folder(
    sim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-Cheetah's model is one of those at which it warns, of their age alone, which is no news."""
    for name in ("mujoco", sim):
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    config = small(tmp_path / "runs", "cheetah").replace(env="HalfCheetah-v4", sim=sim, steps=64, test_episodes=0)
    result = train(config)
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}
    log = result.folder / "mujoco.log"
    assert not log.exists()
    log.touch()
    for path in result.folder.iterdir():
        if path.name not in ("config.json", "versions.json", "mujoco.log"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert train(config).step  # what is left of a failed start does not block the next try


def test_a_disk_that_is_full_is_said_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/full takes nothing, as a full disk does."""
    with (
        Metrics(tmp_path, step=0, tensorboard=False) as metrics,
        open("/dev/full", "wb", buffering=0) as full,
        monkeypatch.context() as patch,
    ):
        patch.setattr(metrics, "_file", full)
        with pytest.raises(NervecordError, match=r"metrics\.jsonl: .*space left"):
            metrics.write({"step": 1})
