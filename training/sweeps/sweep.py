"""A sweep: the runs of a study, trained by worker processes of this machine, and of others that share its folder.

`run_sweep` fills the queue (`nervecord.training.sweeps.queue`), starts the workers (`nervecord.training.sweeps.worker`)
and watches them: one that dies is started again, and its run is resumed. Killed itself at any moment, or interrupted,
it goes on where it was when it is called again.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from nervecord.errors import EngineError, NervecordError
from nervecord.training.sweeps.study import Study
from nervecord.training.sweeps.queue import Queue, Standing, State
from nervecord.training.sweeps.worker import result_of

POLL = 1.0
PATIENCE = 30.0
"""Seconds a worker has to stop when it is told to; then it is killed."""


@dataclass(frozen=True, slots=True)
class SweepProgress:
    """Where a sweep stands, given to the callback about once a second."""

    standing: Standing
    steps: int
    """Environment steps of all runs together so far."""
    total_steps: int
    seconds_left: float | None
    """At the rate since this process began; None before there is one."""
    event: str = ""
    """What has just happened, where something has that needs to be said."""


ProgressCallback = Callable[[SweepProgress], None]


def run_sweep(
    study: Study,
    *,
    workers: int = 1,
    storage: str | None = None,
    retry_failed: bool = False,
    progress: ProgressCallback | None = None,
) -> Standing:
    """Train what is missing of a study; returns when every run is done or has failed, here or elsewhere.

    Args:
        study: from `read_study`.
        workers: processes on this machine.
        storage: URL of the database that holds the queue; None for a journal in the study's folder.
        retry_failed: try runs that failed once more.
        progress: called while it goes on.

    Raises:
        NervecordError: a run folder holds another training, the task is unknown, or the storage cannot be opened.
        EngineError: workers die again and again.
        KeyboardInterrupt: interrupted; the workers have stopped.
    """
    if workers < 1:
        raise NervecordError(f"is {workers}, at least 1 is needed", where="--workers")
    study.check_folders()
    queue = Queue(study.folder, study.name, storage)
    queue.fill(study, retry_failed=retry_failed)
    if queue.standing(study).is_over:
        return queue.standing(study)
    check_tasks(study)
    order = {"folder": str(study.folder.resolve()), "study": study.name, "storage": storage}
    crew = Crew(json.dumps(order) + "\n", study.folder / "logs", workers)
    watch = Watch(study)
    try:
        while True:
            standing = queue.standing(study)
            event = crew.look_after(standing)
            if progress is not None:
                progress(watch.progress(standing, event))
            if standing.is_over:
                return standing
            if crew.is_home:  # all left, and a run is open: it lost its place in the queue between two steps
                queue.fill(study)
                crew.start()
            time.sleep(POLL)
    finally:
        crew.stop()


def check_tasks(study: Study) -> None:
    """Refuse tasks that are unknown.

    Raises:
        MissingDependencyError: Gymnasium is not installed.
        NervecordError: a task is unknown.
    """
    from nervecord.training.simulators.base import control_period

    # Tasks of Isaac Gym and Isaac Lab are known to their simulators alone.
    ours = [run.config.env for run in study.runs if run.config.sim not in ("isaacgym", "isaaclab")]
    for env in dict.fromkeys(ours):
        control_period(env)


def finished_runs(study: Study) -> dict[str, float]:
    """Tested return of every finished run, by name; from the run folders alone."""
    values = {run.name: result_of(run.folder) for run in study.runs}
    return {name: value for name, value in values.items() if value is not None}


class Watch:
    """Time left, from the steps since it was made."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._began: float | None = None
        self._first = 0

    def progress(self, standing: Standing, event: str) -> SweepProgress:
        """Where the sweep stands now."""
        now, steps, total = time.monotonic(), sum(standing.steps.values()), self._study.total_steps
        if self._began is None:
            self._began, self._first = now, steps
        failed = {name for name, state in standing.states.items() if state is State.FAILED}
        left = sum(
            run.config.total_steps - standing.steps.get(run.name, 0)
            for run in self._study.runs
            if run.name not in failed
        )
        gained = steps - self._first
        seconds = left * (now - self._began) / gained if gained > 0 else None
        return SweepProgress(standing, steps, total, seconds, event)


class Crew:
    """The worker processes of this machine.

    Each is the leader of a session of its own, so that an interrupt from the keyboard reaches this process only; it
    stops when its input ends, which is also what happens when this process dies.
    """

    def __init__(self, order: str, logs: Path, count: int) -> None:
        self._order, self._logs, self._count = order, logs, count
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._deaths = 0
        self._ended = -1
        logs.mkdir(parents=True, exist_ok=True)
        self.start()

    @property
    def is_home(self) -> bool:
        """No worker is left."""
        return not self._processes

    def start(self) -> None:
        """Start all workers that are not there."""
        for place in range(self._count):
            if place not in self._processes:
                self._processes[place] = self._start(place)

    def _start(self, place: int) -> subprocess.Popen[bytes]:
        with open(self._log(place), "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "nervecord.training.sweeps.worker"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        with contextlib.suppress(BrokenPipeError):  # it died at once; look_after will say so
            _input(process).write(self._order.encode())
            _input(process).flush()
        return process

    def _log(self, place: int) -> Path:
        return self._logs / f"{socket.gethostname()}-{place + 1}.log"

    def look_after(self, standing: Standing) -> str:
        """Start workers that died again; returns what to say about it.

        Raises:
            EngineError: they die and die, and no run ends.
        """
        ended = standing.count(State.DONE) + standing.count(State.FAILED)
        if ended != self._ended:
            self._ended, self._deaths = ended, 0
        said = []
        for place, process in list(self._processes.items()):
            code = process.poll()
            if code is None:
                continue
            _close(process)
            del self._processes[place]
            if code == 0:
                continue
            self._deaths += 1
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            text = f"worker {place + 1} {how}; its log is {self._log(place)}"
            if self._deaths > 3 * self._count:
                raise EngineError(text, where="sweep", hint=f"so did {self._deaths - 1} before it, and no run ended")
            said.append(f"{text}; it is started again")
            self._processes[place] = self._start(place)
        return "; ".join(said)

    def stop(self) -> None:
        """Tell all workers to stop, and wait; an interrupt meanwhile kills them, which costs no more than steps."""
        try:
            for process in self._processes.values():
                _close(process)
            deadline = time.monotonic() + PATIENCE
            for process in self._processes.values():
                try:
                    process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
        finally:
            for process in self._processes.values():
                if process.poll() is None:
                    process.kill()
                process.wait()
            self._processes.clear()


def _close(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):  # it died before it had read its order
        _input(process).close()


def _input(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None
    return process.stdin
