"""A sweep of small trainings: it finishes what was asked, survives what happens to it, and reports what it has."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from studies import small_study, write_study
from training.test_resume import rows

from nervecord.cli.command import main
from nervecord.errors import EngineError, NervecordError
from nervecord.runtime.worker.child import marked
from nervecord.training import run as training
from nervecord.training.folder.records import result_of
from nervecord.training.run import TrainResult, train
from nervecord.training.settings.config import TrainConfig
from nervecord.training.sweeps import ray_tasks
from nervecord.training.sweeps.ray_tasks import run_sweep, train_one
from nervecord.training.sweeps.standing import State, standing_of
from nervecord.training.sweeps.study import Study, read_study

SWEEP = """
import os, sys
os.setsid()
from nervecord.cli.command import main
sys.exit(main(["sweep", *sys.argv[1:]]))
"""


def work_here(study: Study) -> None:
    """Train all of a study in this process, as Ray's processes would, one after the other."""
    study.folder.mkdir(parents=True, exist_ok=True)
    for run in study.runs:
        if standing_of(study).states[run.name] is not State.FAILED:
            train_one({"config": run.config.to_json(), "cpus": 1, "argv": sys.argv})


def wait_for(what: Callable[[], Any], seconds: float = 600) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := what():
            return value
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def trial_of(metrics: Path) -> int:
    """Process that has a run's metrics open; 0 where there is none."""
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(entry) == str(metrics):
                return int(entry.parts[2])
        except OSError:
            continue
    return 0


@pytest.mark.slow  # Ray starts three times
def test_a_killed_trial_and_a_killed_sweep_lose_nothing_and_train_nothing_twice(tmp_path: Path) -> None:
    """kill -9 of a trial: Ray takes it up again. kill -9 of the sweep: the same command goes on. Both resume."""
    series = "[grid]\nlayers = [[8]]\nseeds = [0, 1]"
    study = small_study(tmp_path, series, base="steps = 20_000\ncheckpoint_every = 1024\nexact_resume = true")
    first, second = study.runs
    command = [sys.executable, "-c", SWEEP, str(study.path), "--workers", "1"]

    def is_past_a_checkpoint(folder: Path) -> bool:
        metrics = folder / "metrics.jsonl"
        return metrics.exists() and metrics.read_bytes().count(b"\n") >= 20

    token = f"{os.getpid()}-{tmp_path.name}"
    environment = {**os.environ, "NERVECORD_TEST": token}
    sweep = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        wait_for(lambda: is_past_a_checkpoint(first.folder))
        metrics = first.folder / "metrics.jsonl"
        trial, inode = wait_for(lambda: trial_of(metrics)), metrics.stat().st_ino
        os.kill(trial, signal.SIGKILL)
        wait_for(lambda: metrics.stat().st_ino != inode)  # resumed: it has cut the file back to the checkpoint
        assert trial_of(metrics) != trial
        wait_for(lambda: result_of(first.folder) is not None)
        wait_for(lambda: is_past_a_checkpoint(second.folder))
    finally:
        os.killpg(sweep.pid, signal.SIGKILL)
        sweep.communicate()
    assert result_of(second.folder) is None
    assert standing_of(study).states == {first.name: State.DONE, second.name: State.BEGUN}
    # The guardian ends Ray's servers, agents and trials, and then itself.
    wait_for(lambda: not marked(token, "NERVECORD_TEST"), 30)
    assert trial_of(second.folder / "metrics.jsonl") == 0
    times = {p: p.stat().st_mtime_ns for p in first.folder.rglob("*")}
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert {p: p.stat().st_mtime_ns for p in first.folder.rglob("*")} == times
    for run in study.runs:
        whole = train(run.config.replace(out=str(tmp_path), name=f"whole-{run.config.run.seed}", threads=1))
        assert rows(run.folder) == rows(whole.folder)
        assert json.loads((run.folder / "result.json").read_text()) == json.loads(
            (whole.folder / "result.json").read_text()
        )


@pytest.mark.slow
def test_ray_finishes_a_study_and_finds_nothing_to_do_again(tmp_path: Path) -> None:
    path = write_study(tmp_path, '[grid]\npolicy = ["snn", "ann"]\nneurons = [8]\ndepth = [1]\nseeds = [0, 1]')
    command = [sys.executable, "-m", "nervecord", "sweep", str(path), "--workers", "2", "--json"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert process.returncode == 0, process.stderr
    assert "small: 2 configurations, 4 runs, 2,048 " in process.stderr
    assert "4 of 4 runs" in process.stderr
    data = json.loads(process.stdout)
    assert (data["finished"], data["failed"]) == (4, {})
    study = read_study(path)
    for cell in data["cells"]:
        assert cell["test_return"]["each"] == [result_of(run.folder) for run in study.cells[cell["cell"]]]
        assert cell["finished"] == [0, 1]
    assert {p.name for p in (tmp_path / "small" / "logs").iterdir()} == {f"{run.name}.log" for run in study.runs}
    assert all(TrainConfig.from_json((run.folder / "config.json").read_text()).run.threads == 1 for run in study.runs)
    for run in study.runs:  # what was typed, not how Ray calls its workers
        argv = json.loads((run.folder / "versions.json").read_text())["argv"]
        assert argv[1:] == ["sweep", str(path), "--workers", "2", "--json"]


@pytest.mark.long
def test_nothing_is_trained_again(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    path = write_study(tmp_path, '[grid]\npolicy = "ann"\nlayers = [[8]]\nseeds = [0, 1]')
    assert main(["sweep", str(path), "--plan"]) == 0
    assert "1 configurations, 2 runs, 1,024 " in capsys.readouterr().out
    assert not (tmp_path / "small").exists()
    study = read_study(path)
    work_here(study)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "small").glob("*-seed*/**/*")}
    work_here(study)  # as where a process was killed after its result was written
    monkeypatch.setattr(ray_tasks, "_train_all", None)  # a second call does not start Ray
    # It removes what one that was killed when all was trained has left.
    (tmp_path / "nvc-0123abcd").mkdir()
    (tmp_path / "nvc-0123abcd" / ".nervecord-scratch").touch()
    monkeypatch.setattr(ray_tasks, "_place_of_sessions", lambda: tmp_path)
    assert main(["sweep", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["finished"] == 2
    assert not [*tmp_path.glob("nvc-*")]
    files = {p for p in before if p.is_file()}
    assert set(before) == {*(tmp_path / "small").glob("*-seed*/**/*")}
    assert all(p.stat().st_mtime_ns == before[p] for p in files)


@pytest.mark.long
def test_failures_do_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_study(tmp_path, '[grid]\npolicy = "ann"\nneurons = [8]\ndepth = [1, 2]\nseeds = [0, 1]')
    study = read_study(path)

    def some_train(config: TrainConfig, **how: Any) -> TrainResult:
        if config.run.name == "ann-8-seed1":
            raise NervecordError("cannot be trained", where="the simulator", hint="mend it")
        if config.run.name == "ann-8x8-seed0":
            raise ZeroDivisionError("a defect")
        return train(config, **how)

    monkeypatch.setattr(training, "train", some_train)
    work_here(study)
    standing = standing_of(study)
    sentences = {
        "ann-8-seed1": "the simulator: cannot be trained (mend it)",
        "ann-8x8-seed0": "ZeroDivisionError: a defect",
    }
    assert standing.errors == sentences
    assert (standing.count(State.DONE), standing.count(State.FAILED)) == (2, 2)
    assert "ZeroDivisionError: a defect" in (study.folder / "logs" / "ann-8x8-seed0.log").read_text()

    capsys.readouterr()
    # Nothing is left to do, and the exit code says that not all is well.
    assert main(["sweep", str(path), "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["failed"] == sentences
    assert [(cell["finished"], cell["failed"]) for cell in data["cells"]] == [([0], [1]), ([1], [0])]
    assert data["cells"][0]["test_return"]["quartiles"] is None

    assert main(["sweep", str(path), "--report", str(tmp_path / "study.md")]) == 0
    text = (tmp_path / "study.md").read_text()
    assert "2 of 4 runs are finished, 2 failed." in text
    assert "| ANN | 8x8 | 1 of 2, 1 failed | " in text
    assert "- `ann-8x8-seed0`: ZeroDivisionError: a defect" in text
    for name in ("study-returns.png", "study-curves.png"):
        assert f"]({name})" in text
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")

    monkeypatch.undo()
    # --retry-failed takes the sentences away and trains what is missing; Ray is not what is tested here.
    monkeypatch.setattr(ray_tasks, "_ray", lambda *_: training.contextlib.nullcontext())
    monkeypatch.setattr(ray_tasks, "_train_all", lambda study, runs, **how: work_here(study))
    assert run_sweep(study, retry_failed=True).count(State.DONE) == 4
    assert main(["sweep", str(path), "--report", str(tmp_path / "folder")]) == 0
    assert "4 of 4 runs" in capsys.readouterr().out
    assert "All runs are finished." in (tmp_path / "folder" / "report.md").read_text()

    # Kept elsewhere, the runs are found there, and the report says what the file's author found.
    (tmp_path / "kept").mkdir()
    study.folder.rename(tmp_path / "kept" / "small")
    path.write_text(path.read_text().replace('name = "small"', 'name = "small"\nnotes = "Depth **misleads**."'))
    command = ["sweep", str(path), "--report", str(tmp_path / "study.md")]
    for out, sentence in (("kept", "All runs are finished."), ("none", "**Not complete:** 0 of 4 runs")):
        assert main([*command, "--out", str(tmp_path / out)]) == 0
        text = (tmp_path / "study.md").read_text()
        assert sentence in text
        assert "\n\nDepth **misleads**.\n\n" in text


def test_a_dead_engine_is_left_to_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process's death is no fault of the run: nothing is written down, and Ray tries again."""
    study = small_study(tmp_path, "[grid]\nslope = [1]\nseeds = [0]")

    def dead(config: TrainConfig, **how: Any) -> TrainResult:
        raise EngineError("its simulator died", where="here")

    monkeypatch.setattr(training, "train", dead)
    with pytest.raises(EngineError, match="simulator died"):
        work_here(study)
    assert standing_of(study).states == {study.runs[0].name: State.WAITING}


@pytest.mark.long
def test_a_ray_that_does_not_start_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")

    def slow(**how: Any) -> None:
        raise Exception("The current node timed out during startup. This could happen ...")  # as Ray does

    monkeypatch.setattr(ray, "init", slow)
    study = small_study(tmp_path, "[grid]\nslope = [1]\nseeds = [0]")
    with pytest.raises(EngineError, match=r"nervecord sweep: Ray did not start: The current node timed out .*again"):
        run_sweep(study)


class Tasks:
    """In place of Ray: each task ends at once, as `ends` says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ends: Callable[[dict[str, Any]], Any]) -> None:
        ray = pytest.importorskip("ray")
        self.orders: list[dict[str, Any]] = []
        self.cancelled: list[int] = []
        monkeypatch.setattr(ray, "remote", lambda **options: lambda function: self)
        monkeypatch.setattr(ray, "wait", lambda references: (references[:1], references[1:]))
        monkeypatch.setattr(ray, "get", lambda number: ends(self.orders[number]))
        monkeypatch.setattr(ray, "cancel", lambda reference, force: self.cancelled.append(reference))

    def remote(self, order: dict[str, Any]) -> int:
        self.orders.append(order)
        return len(self.orders) - 1


def test_a_run_whose_process_died_again_and_again_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")

    def end(order: dict[str, Any]) -> dict[str, Any]:
        if TrainConfig.from_json(order["config"]).run.seed == 0:
            raise ray.exceptions.WorkerCrashedError
        return {"test_return": 1.0}

    tasks = Tasks(monkeypatch, end)
    study = small_study(tmp_path, "[grid]\nslope = [1]\nseeds = [0, 1]")
    ray_tasks._train_all(study, list(study.runs), workers=1, cpus=1, gpus=0)
    assert [TrainConfig.from_json(order["config"]).run.seed for order in tasks.orders] == [0, 1]
    assert list(standing_of(study).errors) == [study.runs[0].name]
    assert "died 4 times" in standing_of(study).errors[study.runs[0].name]
    assert not tasks.cancelled


TRIAL = """
import resource, sys
from pathlib import Path
from nervecord.training.sweeps.ray_tasks import train_one
from nervecord.training.sweeps.study import read_study
study = read_study(Path(sys.argv[1]))
study.folder.mkdir(exist_ok=True)
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
print(train_one({"config": study.runs[0].config.to_json(), "cpus": 1, "argv": sys.argv}).get("stopped"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 1000, 6000])
def test_a_full_disk_ends_a_sweep_and_fails_no_run(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit on the size of files stands for the disk."""
    study = small_study(tmp_path, "[grid]\nslope = [1]\nseeds = [0]", base="steps = 256")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", TRIAL, str(tmp_path / "study.toml"), str(limit)]
    process = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=True)
    message = process.stdout.strip()
    assert message.startswith(str(study.folder))
    assert message.endswith(" large")
    assert not (study.folder / "errors").exists()

    tasks = Tasks(monkeypatch, lambda order: {"stopped": message})
    with pytest.raises(NervecordError, match=r"written: .*\(the same command "):
        ray_tasks._train_all(study, list(study.runs) * 3, workers=2, cpus=1, gpus=0)
    assert (len(tasks.orders), tasks.cancelled) == (2, [1])  # no further run begins, and the other one is stopped
    monkeypatch.undo()
    work_here(study)
    assert standing_of(study).count(State.DONE) == 1


def test_a_report_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_study(tmp_path, "[grid]\nslope = [1, 2]\nseeds = [0, 1, 2]")
    assert main(["sweep", str(path), "--report", str(tmp_path / "study.md"), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["written"] == [str(tmp_path / "study.md")]
    text = (tmp_path / "study.md").read_text()
    assert re.search("0 of 6 runs .* 2 configurations", text)
    assert "| SNN | 256 | 1 | 0 of 3 | - | - | - | - |" in text
    assert not (tmp_path / "small").exists()
    assert main(["sweep", str(path), "--report", str(tmp_path / "none" / "study.md")]) == 2
    assert f"{tmp_path}/none" in capsys.readouterr().err


def test_refusals_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_study(tmp_path, "[grid]\nslope = [1]", base='env = "InvertedPendulum-v44"')
    assert main(["sweep", str(path)]) == 2
    assert "InvertedPendulum-v4" in capsys.readouterr().err
    path = write_study(tmp_path, '[grid]\npolicy = ["snn", "ann"]\nstate = ["carried"]')
    assert main(["sweep", str(path)]) == 2
    assert "policy = ann, state = carried" in capsys.readouterr().err
    path = write_study(tmp_path, "[grid]\nslope = [1]")
    for flag in ("--workers", "--cpus"):
        assert main(["sweep", str(path), flag, "0"]) == 2
        assert flag in capsys.readouterr().err
    base = f'[study]\nname = "small"\nout = "{tmp_path}"\n[base]\nenv = "CartPole-v1"\n[grid]\n'
    for series, flag in (
        ('algorithm = ["ppo", "td7"]', "--algorithm td7"),
        ('log_std_final = [-3.0]\nnoise = ["linear"]', "--noise"),
    ):
        path.write_text(base + series)
        for verb in (["--plan"], []):
            assert main(["sweep", str(path), *verb]) == 2
            assert f"{flag}: " in capsys.readouterr().err
    assert not list((tmp_path / "small").glob("*-seed*"))


@pytest.mark.long
def test_progress_is_read_from_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = small_study(tmp_path, "[grid]\nslope = [1]\nseeds = [0, 1]")
    monkeypatch.setattr(ray_tasks, "POLL", 0.01)
    reports: list[ray_tasks.SweepProgress] = []
    with ray_tasks._watched(study, reports.append):
        work_here(study)
    assert reports[-1].steps == reports[-1].total_steps == 1024
    assert [p.standing.count(State.DONE) for p in reports] == sorted(p.standing.count(State.DONE) for p in reports)
    assert any(p.standing.count(State.BEGUN) for p in reports)
    assert reports[-1].seconds_left == 0
