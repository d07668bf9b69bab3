"""Training the runs of a study as tasks of Ray: on this machine, or on a cluster by its address. The door to Ray.

Ray places the tasks, retries those whose process dies, and reports their ends. What is finished is decided by the run
folders alone: a task looks into its folder, gives the result that is there, resumes what is not finished, or begins. So
a sweep that is killed at any moment, and called again, loses no finished run and trains none twice; and a run folder
that is held by one process is refused to another.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nervecord.compiler.files.atomic import write_atomically
from nervecord.compiler.files.scratch import remove_abandoned, scratch_folder
from nervecord.errors import EngineError, MissingDependencyError, NervecordError, escaped, install_command
from nervecord.runtime.worker.guard import guarded
from nervecord.training.folder.records import result_of
from nervecord.training.settings.config import TrainConfig, marked
from nervecord.training.sweeps.standing import Standing, State, error_file, standing_of
from nervecord.training.sweeps.study import PlannedRun, Study

POLL = 1.0
"""Seconds between two looks at the run folders, for the progress."""
LONGEST_PLACE = 26
"""Bytes of the name of the folder in which a session of Ray lies, so that its sockets can have names."""
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Numbers of the errors of a disk that takes no more."""
RETRIES = 3
"""How often a run is taken up again whose process died."""


@dataclass(frozen=True, slots=True)
class SweepProgress:
    """Where a sweep stands, given to the callback about once a second."""

    standing: Standing
    steps: int
    """Environment steps of all runs together so far."""
    total_steps: int
    seconds_left: float | None
    """At the rate since this process began; None before there is one."""


ProgressCallback = Callable[[SweepProgress], None]


def run_sweep(
    study: Study,
    *,
    workers: int = 1,
    cpus: int = 1,
    gpus: float = 0.0,
    address: str | None = None,
    retry_failed: bool = False,
    progress: ProgressCallback | None = None,
) -> Standing:
    """Train what is missing of a study; returns when every run is done or has failed.

    Args:
        study: from `read_study`; on a cluster its folder lies on a file system that all machines share.
        workers: runs at once.
        cpus, gpus: what each of them takes, cores and GPUs; a part of a GPU too.
        address: of a Ray cluster, or "auto"; None starts Ray on this machine, for as long as this takes.
        retry_failed: try runs that failed once more.
        progress: called while it continues.

    Raises:
        MissingDependencyError: Ray is not installed.
        NervecordError: a run folder holds another training, the task is unknown, or there is no cluster.
        KeyboardInterrupt: interrupted; the runs have stopped.
    """
    for name, value, least in (("--workers", workers, 1), ("--cpus", cpus, 1), ("--gpus", gpus, 0)):
        if value < least:
            raise NervecordError(f"is {value}, at least {least} is needed", where=name)
    study.check_folders()
    standing = standing_of(study)
    if retry_failed:
        for run in study.runs:
            error_file(run).unlink(missing_ok=True)
        standing = standing_of(study)
    if standing.is_over:
        # One that was killed when all was done has left what it would have removed.
        remove_abandoned(_place_of_sessions())
        return standing
    check_tasks(study)
    _require_ray()
    missing = [run for run in study.runs if standing.states[run.name] in (State.WAITING, State.BEGUN)]
    with _ray(workers * cpus, gpus * workers, address), _watched(study, progress):
        _train_all(study, missing, workers=workers, cpus=cpus, gpus=gpus)
    return standing_of(study)


def check_tasks(study: Study) -> None:
    """Refuse tasks that are unknown, and those whose choices an algorithm does not learn.

    Raises:
        MissingDependencyError: Gymnasium is not installed.
        NervecordError: a task is unknown, or a run's algorithm does not learn it.
    """
    from nervecord.runtime.worker.environment import spaces_of
    from nervecord.training.simulators.base import control_period
    from nervecord.training.simulators.kinds import kind_named

    # The tasks of the others are known to their simulators alone.
    runs = [run for run in study.runs if kind_named(run.config.run.sim).knows_gymnasium]
    for env in dict.fromkeys(run.config.task.env for run in runs):
        control_period(env)
    choices = {task: spaces_of(*task).choices for task in dict.fromkeys(_task(run) for run in runs)}
    for run in runs:
        if count := choices[_task(run)]:
            try:
                run.config.algorithm.check_choices(run.config.task.env, count)
            except NervecordError as error:
                error.add_note(f"in {run.name}")
                raise


def _task(run: PlannedRun) -> tuple[str, tuple[str, ...]]:
    return run.config.task.env, run.config.task.wrappers


def _require_ray() -> None:
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"Ray is not installed ({error})", where="nervecord sweep", hint=install_command("sweep")
        ) from error


@contextlib.contextmanager
def _ray(cpus: int, gpus: float, address: str | None) -> Iterator[None]:
    """Ray on this machine, with as many places as are asked for, or a cluster's."""
    import ray

    # Where their titles overwrite their environments, the guardian finds Ray's processes no more.
    os.environ["SPT_NOENV"] = "1"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    with contextlib.ExitStack() as stack:
        try:
            if address is None:
                # Ray never removes what it writes of a session.
                session = stack.enter_context(scratch_folder(_place_of_sessions()))
                # Its agents may outlive a driver that is killed by a minute and more.
                stack.enter_context(guarded([session]))
                ray.init(
                    num_cpus=cpus, num_gpus=math.ceil(gpus), include_dashboard=False, _temp_dir=str(session), **quiet
                )
            else:
                ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            text = str(error).strip().splitlines() or [type(error).__name__]
            raise NervecordError(f"Ray cannot be reached: {text[0]}", where=f"--address {address}") from error
        except OSError as error:
            raise NervecordError(
                f"Ray cannot be started: {error.strerror or error}",
                where=str(_place_of_sessions()),
                hint="the variable RAY_TMPDIR names another folder for what it writes",
            ) from error
        except Exception as error:  # Ray has no type for a node that does not come up in its time
            text = str(error).strip().splitlines() or [type(error).__name__]
            raise EngineError(
                f"Ray did not start: {text[0]}",
                where="nervecord sweep",
                hint="on a busy machine it takes longer than it allows itself: call the same command again",
            ) from error
        stack.callback(ray.shutdown)
        yield


def _place_of_sessions() -> Path:
    """Where Ray's folder for a session is made: its sockets lie in it, whose names are at most 107 bytes long."""
    named = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    return named if len(os.fsencode(named)) <= LONGEST_PLACE else Path("/tmp")


def _train_all(study: Study, runs: list[PlannedRun], *, workers: int, cpus: int, gpus: float) -> None:
    """Train runs as tasks of Ray, so many at once; each in a process of its own, begun again where that dies."""
    import ray

    # A list of exceptions, which Ray takes and its types do not know.
    options: Any = {"retry_exceptions": [EngineError]}
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_calls=1, max_retries=RETRIES, **options)(train_one)
    waiting = list(reversed(runs))
    running: dict[Any, PlannedRun] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                run = waiting.pop()
                config = run.config.replace(out=str(study.folder.resolve()))
                running[task.remote({"config": config.to_json(), "cpus": cpus, "argv": sys.argv})] = run
            (ended, *_), _ = ray.wait(list(running))
            _take_result(ended, running.pop(ended), study.folder)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _take_result(reference: Any, run: PlannedRun, folder: Path) -> None:
    """Look how a run ended; where its process died again and again, write that down.

    Raises:
        NervecordError: the disk takes no more.
    """
    import ray

    try:
        result = ray.get(reference)
    except ray.exceptions.RayError as error:
        if result_of(run.folder) is None and not error_file(run).is_file():
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            _fail(run.config, f"its process died {RETRIES + 1} times: {reason[:200]}", folder)
        return
    if result.get("stopped"):
        raise NervecordError(result["stopped"], hint="the same command continues where it ended")


def train_one(order: dict[str, Any]) -> dict[str, Any]:
    """A task, in a process of Ray: train, resume, or just read the run of an order.

    What is wrong with the run itself is written down and not tried again; where the process dies, Ray tries again; what
    is wrong with the disk ends the sweep, and is nobody's fault that has to be written down.
    """
    config = TrainConfig.from_json(order["config"], where="the study")
    sys.argv = list(order["argv"])  # a run folder says what was typed, not how Ray calls its workers
    if not config.run.threads:
        config = config.replace(threads=int(order["cpus"]))
    logs = Path(config.run.out) / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        with open(logs / f"{config.run.name}.log", "a", buffering=1) as log, contextlib.redirect_stderr(log):
            return _train(config)
    except (NervecordError, OSError) as error:
        sentence = _of_the_disk(error, config.run.out)
        if sentence is None:
            raise
        return {"stopped": sentence}


def _train(config: TrainConfig) -> dict[str, Any]:
    from nervecord.training.run import resume, train

    folder = Path(config.run.out) / config.run.name
    try:
        value = result_of(folder)
        if value is None:
            if (folder / "config.json").is_file():
                # What a run may take from the study file whatever it began with.
                names = marked("free") & marked("resumable")
                result = resume(folder, overrides={name: v for name, v in config.fields.items() if name in names})
            else:
                result = train(config)
            value = result.test.mean if result.test else math.nan
        if not math.isfinite(value):
            raise NervecordError(f"its tested return is {value}", where=config.run.name)
    except EngineError:
        traceback.print_exc(file=sys.stderr)
        raise  # another process died; Ray tries again
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        if _of_the_disk(error, config.run.out) is not None:
            raise
        is_ours = not isinstance(error, (NervecordError, OSError))
        _fail(config, f"{type(error).__name__}: {error}" if is_ours else str(error), Path(config.run.out))
        return {"failed": True}
    return {"test_return": value}


def _of_the_disk(error: BaseException, folder: str) -> str | None:
    """What to say of an error because the disk of a folder takes no more; None of another."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in DISK:
            if isinstance(error, NervecordError):
                return str(error)
            return f"{escaped(str(cause.filename or folder))}: cannot be written: {cause.strerror}"
        cause = cause.__cause__ or cause.__context__
    return None


def _fail(config: TrainConfig, sentence: str, folder: Path) -> None:
    (folder / "errors").mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "errors" / f"{config.run.name}.txt", f"{sentence}\n".encode())


@contextlib.contextmanager
def _watched(study: Study, progress: ProgressCallback | None) -> Iterator[None]:
    """Tell the progress meanwhile, from the run folders."""
    if progress is None:
        yield
        return
    over = threading.Event()
    began, first = time.monotonic(), sum(standing_of(study).steps.values())

    def look() -> None:
        standing = standing_of(study)
        steps, total = sum(standing.steps.values()), study.total_steps
        failed = {name for name, state in standing.states.items() if state is State.FAILED}
        remaining = sum(
            run.config.total_steps - standing.steps[run.name] for run in study.runs if run.name not in failed
        )
        gained = steps - first
        seconds = remaining * (time.monotonic() - began) / gained if gained > 0 else None
        progress(SweepProgress(standing, steps, total, seconds))

    def watch() -> None:
        while not over.wait(POLL):
            look()

    watcher = threading.Thread(target=watch, name="progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        look()
