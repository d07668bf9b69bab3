"""A sweep of small trainings: it finishes what was asked, survives what happens to it, and reports what it has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from studies import small_study, write_study

from nervecord.cli.command import main
from nervecord.errors import NervecordError
from nervecord.training import run as training
from nervecord.training.sweeps import sweep
from nervecord.training.config import TrainConfig
from nervecord.training.run import TrainResult, train
from nervecord.training.run_folder import WALL_CLOCK
from nervecord.training.sweeps.study import Study, read_study
from nervecord.training.sweeps.sweep import Watch, run_sweep
from nervecord.training.sweeps.queue import Queue, Standing, State
from nervecord.training.sweeps.worker import result_of, work

SWEEP = """
import os, sys
os.nice(15)  # the test must act while a worker trains
from nervecord.cli.command import main
sys.exit(main(["sweep", sys.argv[1]]))
"""


def work_here(study: Study) -> Queue:
    """Train all of a study in this process."""
    queue = Queue(study.folder, study.name)
    queue.fill(study)
    work(queue)
    return queue


def rows(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in WALL_CLOCK} for row in found]


def wait_for(what: Callable[[], Any], seconds: float = 600) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def test_killed_worker_and_interrupted_sweep_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """kill -9 of the worker: its sweep starts another, which resumes. An interrupt: the same command goes on."""
    study = small_study(tmp_path, "[grid]\nlayers = [[8]]\nseeds = [0]", base="steps = 20_000\ncheckpoint_every = 1024")
    (run,) = study.runs
    folder, metrics = run.folder, run.folder / "metrics.jsonl"
    command = [sys.executable, "-c", SWEEP, str(study.path)]
    sweeping = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    watching = Queue(study.folder, study.name)

    def worker() -> int:
        """Process id of the worker that has the run."""
        running = [trial for trial in watching._study.trials if trial.state.name == "RUNNING"]
        return int(running[0].user_attrs["worker"]["pid"]) if running and "worker" in running[0].user_attrs else 0

    def is_past_a_checkpoint() -> bool:
        return metrics.exists() and metrics.read_bytes().count(b"\n") >= 20

    try:
        wait_for(is_past_a_checkpoint)
        first, begun = worker(), metrics.stat().st_ino
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: metrics.stat().st_ino != begun)  # resumed: it has cut the file back to the checkpoint
        wait_for(is_past_a_checkpoint)
        second = worker()
        sweeping.send_signal(signal.SIGINT)
        assert sweeping.stderr is not None
        _, said = sweeping.communicate(timeout=300)
    finally:
        sweeping.kill()
    assert second not in (0, first)
    assert sweeping.returncode == 130
    assert "was killed by signal 9" in said
    assert "interrupted with 0 of 1 runs finished; the same command goes on" in said
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)
    standing = watching.standing(study)
    assert standing.states[run.name] is State.WAITING
    assert 0 < standing.steps[run.name] < 20_000
    assert result_of(folder) is None

    assert work_here(study).standing(study).states[run.name] is State.DONE
    whole = train(replace(run.config, out=str(tmp_path), name="whole"))
    assert rows(folder) == rows(whole.folder)
    assert json.loads((folder / "result.json").read_text()) == json.loads((whole.folder / "result.json").read_text())


def test_workers_of_this_machine_finish_a_study_and_find_nothing_to_do_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_study(tmp_path, '[grid]\npolicy = ["snn", "ann"]\nneurons = [8]\ndepth = [1, 2]\nseeds = [0, 1]')
    assert main(["sweep", str(path), "--plan"]) == 0
    assert "4 configurations, 8 runs, 4,096 environment steps" in capsys.readouterr().out
    assert not (tmp_path / "small").exists()
    assert main(["sweep", str(path), "--workers", "2", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "small: 4 configurations, 8 runs, 4,096 environment steps; finished: 0 runs" in err
    assert "8 of 8 runs" in err
    data = json.loads(out)
    assert (data["finished"], data["failed"]) == (8, {})
    study = read_study(path)
    for cell in data["cells"]:
        results = [result_of(run.folder) for run in study.cells[cell["cell"]]]
        assert cell["test_return"]["each"] == results
        assert cell["finished"] == [0, 1]
    assert len(list((tmp_path / "small" / "logs").iterdir())) == 2

    monkeypatch.setattr(sweep, "Crew", None)  # a second call starts no worker
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "small").glob("*-seed*/**/*")}
    assert main(["sweep", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == data
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "small").glob("*-seed*/**/*")}

    # The queue is lost, the runs are not.
    (tmp_path / "small" / "sweep.journal").unlink()
    assert work_here(study).standing(study).count(State.DONE) == 8
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "small").glob("*-seed*/**/*")}


def test_failures_do_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_study(tmp_path, '[grid]\npolicy = "ann"\nneurons = [8]\ndepth = [1, 2]\nseeds = [0, 1]')
    study = read_study(path)

    def some_train(config: TrainConfig, **how: Any) -> TrainResult:
        if config.name == "ann-8-seed1":
            raise NervecordError("cannot be trained", where="the simulator", hint="mend it")
        if config.name == "ann-8x8-seed0":
            raise ZeroDivisionError("a defect")
        return train(config, **how)

    monkeypatch.setattr(training, "train", some_train)
    standing = work_here(study).standing(study)
    sentences = {
        "ann-8-seed1": "the simulator: cannot be trained (mend it)",
        "ann-8x8-seed0": "ZeroDivisionError: a defect",
    }
    assert standing.errors == sentences
    assert (standing.count(State.DONE), standing.count(State.FAILED)) == (2, 2)

    capsys.readouterr()
    # Nothing is left to do, and the exit code says that not all is well.
    assert main(["sweep", str(path), "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["failed"] == sentences
    assert [(cell["finished"], cell["failed"]) for cell in data["cells"]] == [([0], [1]), ([1], [0])]
    assert data["cells"][0]["test_return"]["quartiles"] is None

    assert main(["sweep", str(path), "--report", str(tmp_path / "study.md")]) == 0
    text = (tmp_path / "study.md").read_text()
    assert "**Not complete:** 2 of 4 runs are finished, 2 failed." in text
    assert "| ANN | 8x8 | 1 of 2, 1 failed | " in text
    assert "- `ann-8x8-seed0`: ZeroDivisionError: a defect" in text
    for name in ("study-returns.png", "study-curves.png"):
        assert f"]({name})" in text
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")

    monkeypatch.undo()
    queue = Queue(study.folder, study.name)
    queue.fill(study, retry_failed=True)
    work(queue)
    assert queue.standing(study).count(State.DONE) == 4
    assert main(["sweep", str(path), "--report", str(tmp_path / "folder")]) == 0
    assert "4 of 4 runs finished" in capsys.readouterr().out
    assert "All runs are finished." in (tmp_path / "folder" / "report.md").read_text()

    # Kept elsewhere, the runs are found there, and the report says what the file's author found.
    (tmp_path / "kept").mkdir()
    study.folder.rename(tmp_path / "kept" / "small")
    path.write_text(path.read_text().replace('name = "small"', 'name = "small"\nnotes = "Depth does **not** help."'))
    command = ["sweep", str(path), "--report", str(tmp_path / "study.md")]
    for out, finished in (("kept", "All runs are finished."), ("none", "**Not complete:** 0 of 4 runs")):
        assert main([*command, "--out", str(tmp_path / out)]) == 0
        text = (tmp_path / "study.md").read_text()
        assert finished in text
        assert "\n\nDepth does **not** help.\n\n" in text


def test_a_report_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_study(tmp_path, "[grid]\nslope = [1, 2]\nseeds = [0, 1, 2]")
    assert main(["sweep", str(path), "--report", str(tmp_path / "study.md"), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["written"] == [str(tmp_path / "study.md")]
    text = (tmp_path / "study.md").read_text()
    assert "**Not complete:** 0 of 6 runs are finished. 2 configurations have no finished run" in text
    assert "| SNN | 256 | 1 | 0 of 3 | - | - | - | - |" in text
    assert not (tmp_path / "small").exists()
    assert main(["sweep", str(path), "--report", str(tmp_path / "none" / "study.md")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_refusals_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_study(tmp_path, "[grid]\nslope = [1]", base='env = "InvertedPendulum-v44"')
    assert main(["sweep", str(path)]) == 2
    assert "InvertedPendulum-v4" in capsys.readouterr().err
    path = write_study(tmp_path, '[grid]\npolicy = ["snn", "ann"]\nstate = ["carried"]')
    assert main(["sweep", str(path)]) == 2
    assert "policy = ann, state = carried" in capsys.readouterr().err
    path = write_study(tmp_path, "[grid]\nslope = [1]")
    assert main(["sweep", str(path), "--workers", "0"]) == 2
    assert "--workers" in capsys.readouterr().err
    assert not list((tmp_path / "small").glob("*-seed*"))


def test_workers_that_die_and_die_end_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = small_study(tmp_path, "[grid]\nslope = [1]")
    monkeypatch.setattr(sweep.sys, "executable", "/bin/false")
    monkeypatch.setattr(sweep, "POLL", 0.01)
    monkeypatch.setattr(sweep, "check_tasks", lambda study: None)
    with pytest.raises(NervecordError, match=r"worker 1 ended with code 1; its log is .*and no run ended"):
        run_sweep(study)


def test_time_left_is_from_the_steps_made_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = small_study(tmp_path, "[grid]\nslope = [1]")
    names = [run.name for run in study.runs]
    now = 100.0
    monkeypatch.setattr(sweep.time, "monotonic", lambda: now)
    watch = Watch(study)

    def seconds(*states_and_steps: tuple[State, int]) -> float | None:
        states, steps = zip(*states_and_steps, strict=True)
        standing = Standing(dict(zip(names, states, strict=True)), dict(zip(names, steps, strict=True)), {})
        return watch.progress(standing, "").seconds_left

    assert seconds((State.DONE, 512), (State.RUNNING, 0), (State.WAITING, 0)) is None
    now = 110.0
    assert seconds((State.DONE, 512), (State.RUNNING, 256), (State.WAITING, 0)) == pytest.approx(10 * 768 / 256)
    assert seconds((State.DONE, 512), (State.RUNNING, 256), (State.FAILED, 0)) == pytest.approx(10)
