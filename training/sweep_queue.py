"""The queue of a study's runs, in an Optuna study; the one module that imports Optuna.

A trial of the Optuna study is one attempt at a run: waiting, running, complete with the tested return as its value, or
failed. Several processes share it, on one machine or on many; Optuna's storage sees to it that a waiting trial is given
to one of them only. While a worker trains it holds a lock on the run, so that on its own machine everybody knows at
once whether it is alive. It also counts in the storage every `BEAT` seconds: one on another machine is given up when
that count has stood still for `SILENCE` seconds and the lock, where the file system carries it across, is free. Giving
up means that the trial fails and the run waits again, as a new trial, to be resumed from its checkpoint.

A trial that failed with a sentence (attribute `error`) is a run that failed; one without is an attempt that was cut
short. What was trained lies in the run folders alone: without the storage the study goes on all the same.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from nervecord.errors import EngineError, FileFormatError, MissingDependencyError, NervecordError, install_command
from nervecord.training.config import CHOICES, TrainConfig
from nervecord.training.lease import Lease, machine
from nervecord.training.study import PlannedRun, Study, differences

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

JOURNAL = "sweep.journal"
"""Optuna's journal in the study's folder, the storage where none is named."""
BEAT = 20.0
SILENCE = 300.0
DEATHS = 3
"""So many workers in a row die over one run without reaching another checkpoint: then it counts as failed."""


class State(Enum):
    """Where a run stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a study stands: for each planned run its state, the step it has reached, and why it failed."""

    states: Mapping[str, State]
    steps: Mapping[str, int]
    errors: Mapping[str, str]

    def count(self, state: State) -> int:
        """Runs in a state."""
        return sum(found is state for found in self.states.values())

    @property
    def is_over(self) -> bool:
        """Nothing is waiting or running."""
        return not self.count(State.WAITING) and not self.count(State.RUNNING)


class Queue:
    """The shared queue.

    Args:
        folder: the study's folder, which the run folders lie in.
        name: of the study.
        storage: URL of a database as SQLAlchemy writes it; None for a journal in the folder.

    Raises:
        MissingDependencyError: Optuna is not installed, or what the database needs.
        NervecordError: the storage cannot be opened.
    """

    def __init__(self, folder: Path, name: str, storage: str | None = None) -> None:
        self._optuna = _import_optuna()
        self.folder = folder
        self._seen: dict[int, tuple[Any, float]] = {}
        opened = _open_journal(folder / JOURNAL) if storage is None else _open_database(storage)
        # The pool of a database keeps its connections; Python 3.13 complains of those that are left to be collected.
        weakref.finalize(self, _disconnect, opened)
        try:
            with _storage_errors():
                self._study = self._optuna.create_study(
                    study_name=name,
                    storage=opened,
                    # Never asked: every trial is put in with its values.
                    sampler=self._optuna.samplers.RandomSampler(),
                    direction="maximize",
                    load_if_exists=True,
                )
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            # What reading a damaged journal gives, which happens here.
            raise FileFormatError(
                f"is damaged: {type(error).__name__}: {error}",
                where=str(folder / JOURNAL) if storage is None else "--storage",
                hint="remove it and call again: finished runs are recognised by their folders, others resumed",
            ) from error

    def fill(self, study: Study, *, retry_failed: bool = False) -> None:
        """Put in the runs that are not there yet; on request those that failed, once more.

        Raises:
            NervecordError: a run is done by the queue's word, and its folder holds no result.
        """
        with self._alone():
            standing = self._standing(study)
            lost = [
                run.name
                for run in study.runs
                if standing.get(run.name, (None,))[0] is State.DONE and not (run.folder / "result.json").is_file()
            ]
            if lost:
                raise NervecordError(
                    f"is done by the queue's word, and its folder holds no result.json ({len(lost)} such)",
                    where=str(self.folder / lost[0]),
                    hint=f"put it back, or give the study another name; without {JOURNAL} finished runs are "
                    "recognised by their folders",
                )
            for run in study.runs:
                state = standing.get(run.name, (None,))[0]
                if state is None or (retry_failed and state is State.FAILED):
                    self._put(run, study.base)

    def standing(self, study: Study) -> Standing:
        """Where the study's runs stand."""
        with _storage_errors():
            found = self._standing(study)
        states, steps, errors = {}, {}, {}
        for run in study.runs:
            state, trial = found.get(run.name, (State.WAITING, None))
            states[run.name] = state
            if state is State.DONE:
                steps[run.name] = run.config.total_steps
            elif trial is not None:
                steps[run.name] = _step(trial)
                if state is State.FAILED:
                    errors[run.name] = str(trial.user_attrs["error"])
        return Standing(states, steps, errors)

    def is_over(self) -> bool:
        """Nothing is waiting or running."""
        states = self._optuna.trial.TrialState
        with _storage_errors():
            return not self._study.get_trials(deepcopy=False, states=(states.WAITING, states.RUNNING))

    def take(self) -> Claim | None:
        """The next run that is to be trained, held for this process; None where none is waiting.

        Runs whose worker is dead wait again first.
        """
        fail = self._optuna.trial.TrialState.FAIL
        with self._alone():
            self._give_up_dead()
            while (trial := self._pop()) is not None:
                name = trial.user_attrs.get("run")
                lease = None if name is None else Lease(self._lock(name), wait=False)
                if lease is not None and lease.held and not self._is_elsewhere(str(name), trial.number):
                    return Claim(self, trial, lease)
                # Two processes filled the queue at once, on a file system that does not carry locks across machines.
                if lease is not None:
                    lease.release()
                self._study.tell(trial, state=fail)
        return None

    def tell(self, trial: Trial, *, value: float | None) -> None:
        """A trial's end: its value, or None where it failed. Nothing happens where it was given up before."""
        states = self._optuna.trial.TrialState
        with _storage_errors():
            self._study.tell(
                trial, value, state=states.FAIL if value is None else states.COMPLETE, skip_if_finished=True
            )

    def put_back(self, claim: Claim) -> None:
        """Let a run wait again that this process holds and was told to leave."""
        with self._alone():
            self._put_again(self._study.trials[claim.number], died=False)
            claim.release()

    # ----------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with Lease(self._lock("queue"), wait=True), _storage_errors():
            yield

    def _lock(self, name: str) -> Path:
        return self.folder / ".locks" / name

    def _standing(self, study: Study) -> dict[str, tuple[State, FrozenTrial]]:
        """State of each run that has a trial which says one; the last of its kind says it."""
        planned = {run.name for run in study.runs}
        rank = {State.FAILED: 0, State.WAITING: 1, State.RUNNING: 2, State.DONE: 3}
        found: dict[str, tuple[State, FrozenTrial]] = {}
        for trial in self._study.get_trials(deepcopy=False):
            name, state = trial.user_attrs.get("run"), self._state(trial)
            if name in planned and state is not None and (name not in found or rank[state] >= rank[found[name][0]]):
                found[name] = (state, trial)
        return found

    def _state(self, trial: FrozenTrial) -> State | None:
        states = self._optuna.trial.TrialState
        if trial.state == states.FAIL:
            return State.FAILED if "error" in trial.user_attrs else None
        return {states.WAITING: State.WAITING, states.RUNNING: State.RUNNING, states.COMPLETE: State.DONE}.get(
            trial.state
        )

    def _put(self, run: PlannedRun, base: TrainConfig) -> None:
        values = run.config.to_dict()
        del values["out"]  # each machine may know the shared folder by another path
        self._add({"run": run.name, "config": values}, *_parameters(run.config, base))

    def _add(
        self, attributes: dict[str, Any], params: dict[str, Any], distributions: dict[str, BaseDistribution]
    ) -> None:
        states = self._optuna.trial.TrialState
        self._study.add_trial(
            self._optuna.trial.create_trial(
                state=states.FAIL if "error" in attributes else states.WAITING,
                params=params,
                distributions=distributions,
                user_attrs=attributes,
            )
        )

    def _pop(self) -> Trial | None:
        waiting = self._optuna.trial.TrialState.WAITING
        if not self._study.get_trials(deepcopy=False, states=(waiting,)):
            return None
        return self._study.ask()

    def _is_elsewhere(self, name: str, number: int) -> bool:
        """Whether another trial of the run is running or complete."""
        states = self._optuna.trial.TrialState
        others = self._study.get_trials(deepcopy=False, states=(states.RUNNING, states.COMPLETE))
        return any(other.user_attrs.get("run") == name and other.number != number for other in others)

    def _give_up_dead(self) -> None:
        running = self._optuna.trial.TrialState.RUNNING
        for trial in self._study.get_trials(deepcopy=False, states=(running,)):
            if "run" in trial.user_attrs and self._is_dead(trial):
                self._put_again(trial, died=True)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        """Whether the worker of a running trial is gone."""
        with Lease(self._lock(trial.user_attrs["run"]), wait=False) as lease:
            if not lease.held:
                return False
        if trial.user_attrs.get("worker", {}).get("machine") == machine():
            return True
        # Another machine, whose locks may not be seen here: has it counted on since this process first looked?
        beat, now = trial.user_attrs.get("beat"), time.monotonic()
        before = self._seen.get(trial.number)
        if before is None or before[0] != beat:
            self._seen[trial.number] = (beat, now)
            return False
        return now - before[1] > SILENCE

    def _put_again(self, trial: FrozenTrial, *, died: bool) -> None:
        """End an attempt that was cut short, and let the run wait again."""
        attributes: dict[str, Any] = {key: trial.user_attrs[key] for key in ("run", "config")}
        try:
            self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)
        except (ValueError, RuntimeError):
            return  # another process was quicker
        newest = _newest_checkpoint(self.folder / attributes["run"])
        attributes |= {"step": _step(trial), "newest": newest, "deaths": 0}
        if died:
            got_on = trial.user_attrs.get("newest", "") != newest
            attributes["deaths"] = 0 if got_on else 1 + trial.user_attrs.get("deaths", 0)
            if attributes["deaths"] >= DEATHS:
                where = trial.user_attrs.get("worker", {}).get("host", "?")
                attributes["error"] = (
                    f"its worker died {DEATHS} times without reaching another checkpoint, at last on {where}; "
                    "see the folder logs"
                )
        self._add(attributes, dict(trial.params), dict(trial.distributions))


class Claim:
    """A run that this process trains, and nobody else. Use it as a context manager: inside, it counts in the storage.

    End it with `done`, `failed` or `put_back`; a claim that is left without is taken for its worker's death.
    """

    def __init__(self, queue: Queue, trial: Trial, lease: Lease) -> None:
        self._queue, self._trial, self._lease = queue, trial, lease
        attributes = trial.user_attrs
        self.number = trial.number
        self.config = TrainConfig.from_dict({**attributes["config"], "out": str(queue.folder)})
        self.step = int(attributes.get("step", 0))
        """The step the training has reached, for those who watch."""
        self.is_lost = False
        """Another process has given this one up and may train the run."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._count, name="beat", daemon=True)
        trial.set_user_attr("worker", {"machine": machine(), "host": socket.gethostname(), "pid": os.getpid()})

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.config.out) / self.config.name

    def done(self, value: float) -> None:
        """The run is finished; `value` is its tested return."""
        self._end()
        self._queue.tell(self._trial, value=value)
        self.release()

    def failed(self, sentence: str) -> None:
        """The run cannot be trained."""
        self._end()
        with suppress(RuntimeError):  # given up before: then it is another's to fail
            self._trial.set_user_attr("error", sentence)
        self._queue.tell(self._trial, value=None)
        self.release()

    def put_back(self) -> None:
        """Leave the run to whoever comes next."""
        self._end()
        self._beat(-1)
        self._queue.put_back(self)

    def release(self) -> None:
        """Let go of the run's lock."""
        self._lease.release()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self.release()

    def _end(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _count(self) -> None:
        beat = 0
        while not self.is_lost:
            self._beat(beat)
            beat += 1
            if self._stop.wait(BEAT):
                return

    def _beat(self, beat: int) -> None:
        try:
            self._trial.set_user_attr("beat", [beat, self.step])
        except RuntimeError:
            self.is_lost = True  # the trial is finished, and not by us
        except Exception as error:
            # A storage that does not answer for a while: silence, until it does.
            print(f"beat: {type(error).__name__}: {error}", flush=True)


def _step(trial: FrozenTrial) -> int:
    beat = trial.user_attrs.get("beat")
    return int(beat[1]) if beat else int(trial.user_attrs.get("step", 0))


def _newest_checkpoint(folder: Path) -> str:
    return max((entry.name for entry in (folder / "checkpoints").glob("step-*.pt")), default="")


def _parameters(config: TrainConfig, base: TrainConfig) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """What distinguishes a run, as Optuna's parameters: for its dashboard, and whoever reads the storage.

    Their ranges are those a field may ever have, as Optuna wants them the same in all trials of a study.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    params: dict[str, Any] = {"policy": config.policy, "seed": config.seed, "depth": len(config.layers)}
    params["neurons"] = max(config.layers)
    for name in differences(config, base):
        value = getattr(config, name)
        known = name in CHOICES or isinstance(value, (bool, int, float))
        if known and name not in ("policy", "seed"):
            params[name] = value
    distributions: dict[str, BaseDistribution] = {}
    for name, value in params.items():
        if name in CHOICES:
            distributions[name] = CategoricalDistribution(CHOICES[name])
        elif isinstance(value, bool):
            distributions[name] = CategoricalDistribution((False, True))
        elif isinstance(value, int):
            distributions[name] = IntDistribution(0, 2**53)
        else:
            distributions[name] = FloatDistribution(-1e12, 1e12)
    return params, distributions


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise MissingDependencyError(
            "Optuna is not installed", where="nervecord sweep", hint=install_command("sweep")
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _disconnect(storage: BaseStorage) -> None:
    """Close the connections to a database; a journal has none."""
    engine = getattr(storage, "engine", None)
    if engine is not None:
        engine.dispose()


def _open_journal(path: Path) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path)))
    except OSError as error:
        raise NervecordError(f"cannot be written: {error.strerror}", where=str(path)) from None


def _open_database(url: str) -> BaseStorage:
    from optuna.exceptions import OptunaError
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return RDBStorage(url)
    except ImportError as error:
        raise MissingDependencyError(str(error).splitlines()[0], where="--storage") from None
    except (SQLAlchemyError, OptunaError) as error:
        raise NervecordError(
            f"cannot be opened: {str(error).splitlines()[0]}",
            where="--storage",
            hint="a URL as SQLAlchemy takes it, for example postgresql://user@host/database",
        ) from None


@contextmanager
def _storage_errors() -> Iterator[None]:
    """Errors of the database as ours."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        raise EngineError(f"does not answer: {str(error).splitlines()[0]}", where="the study's storage") from error
