"""Where the runs of a study stand: what is finished is decided by the run folders alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from nervecord.compiler.files.regular import read_text
from nervecord.compiler.schema import printable
from nervecord.training.folder import run_folder
from nervecord.training.folder.records import MAXIMUM_BYTES, result_of
from nervecord.training.sweeps.study import PlannedRun, Study


class State(Enum):
    """Of a run."""

    WAITING = "waiting"
    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the runs of a study stand, by their names."""

    states: dict[str, State]
    steps: dict[str, int]
    errors: dict[str, str]
    """Why runs failed."""

    def count(self, state: State) -> int:
        """Runs in a state."""
        return sum(each is state for each in self.states.values())

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train."""
        return self.count(State.DONE) + self.count(State.FAILED) == len(self.states)


def standing_of(study: Study) -> Standing:
    """Where a study stands, by its folder alone."""
    states, steps, errors = {}, {}, {}
    for run in study.runs:
        failed = error_file(run)
        if result_of(run.folder) is not None:
            states[run.name], steps[run.name] = State.DONE, run.config.total_steps
            continue
        steps[run.name] = run_folder.last_step(run.folder)
        states[run.name] = State.BEGUN if run.folder.exists() else State.WAITING
        if failed.is_file():
            states[run.name], errors[run.name] = State.FAILED, _reason(failed)
    return Standing(states, steps, errors)


def _reason(path: Path) -> str:
    """Why a run failed, as its file says it."""
    return read_text(path, printable(str(path)), MAXIMUM_BYTES, "file").strip()


def error_file(run: PlannedRun) -> Path:
    """Where it is written why a run failed."""
    return Path(run.config.run.out) / "errors" / f"{run.name}.txt"
