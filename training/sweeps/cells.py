"""The cells of a study: one configuration over its seeds, as far as its runs are finished."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nervecord.runtime.result import interval95
from nervecord.training.folder.records import read_columns, result_of
from nervecord.training.settings.config import TrainConfig, marked
from nervecord.training.sweeps.standing import Standing, State
from nervecord.training.sweeps.study import PlannedRun, Study, differences

MOST_POINTS = 1 << 14
"""Rows that a curve is drawn through; of more every second, or third."""


@dataclass(frozen=True, slots=True)
class Finished:
    """One finished run."""

    seed: int
    test: float
    """Mean return of the deterministic episodes on the test seeds."""
    training: float | None
    """Mean return of the last 100 training episodes, with noise; None where none had ended."""
    curve: tuple[tuple[int, float], ...]
    """Training return at each update that had one: (step, return)."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One configuration of a study over its seeds."""

    name: str
    config: TrainConfig
    """Of its first seed."""
    seeds: tuple[int, ...]
    """Those planned."""
    finished: tuple[Finished, ...]
    failed: tuple[int, ...]
    """Seeds whose run failed, where the study's folder says so."""

    @property
    def tests(self) -> np.ndarray:
        """Tested return of each finished seed."""
        return np.array([run.test for run in self.finished])

    def to_dict(self, base: TrainConfig) -> dict[str, Any]:
        """As plain JSON types; what too few seeds leave unknown is None."""
        tests = self.tests
        training = [run.training for run in self.finished]
        known = [value for value in training if value is not None]
        config = self.config.fields
        several = len(tests) > 1
        return {
            "cell": self.name,
            "policy": self.config.actor[0],
            "layers": [] if self.config.algorithm.own_networks else list(config["layers"]),
            "fields": {name: config[name] for name in other_fields(self.config, base)},
            "steps": self.config.total_steps,
            "seeds": list(self.seeds),
            "finished": [run.seed for run in self.finished],
            "failed": list(self.failed),
            "test_return": {
                "each": tests.tolist(),
                "median": float(np.median(tests)) if len(tests) else None,
                "quartiles": [float(q) for q in np.quantile(tests, (0.25, 0.75))] if several else None,
                "mean": float(tests.mean()) if len(tests) else None,
                "ci95": interval95(tests) if several else None,
            },
            "training_return": {"each": training, "median": float(np.median(known)) if known else None},
        }


def other_fields(config: TrainConfig, base: TrainConfig) -> list[str]:
    """Fields besides policy, layers and seed in which a configuration is not the base."""
    return [name for name in differences(config, base) if name not in {"policy", "layers", *marked("naming")}]


def read_cells(study: Study, standing: Standing | None = None) -> dict[str, Cell]:
    """The cells of a study by name, in the order of its series; `standing` tells which runs failed."""
    states = {} if standing is None else standing.states
    cells = {}
    for name, runs in study.cells.items():
        finished = tuple(done for run in runs if (done := _finished(run)) is not None)
        have = {done.seed for done in finished}
        failed = tuple(
            run.config.run.seed
            for run in runs
            if states.get(run.name) is State.FAILED and run.config.run.seed not in have
        )
        cells[name] = Cell(name, runs[0].config, tuple(run.config.run.seed for run in runs), finished, failed)
    return cells


def _finished(run: PlannedRun) -> Finished | None:
    test = result_of(run.folder)
    if test is None:
        return None
    rows = read_columns(run.folder / "metrics.jsonl", "train_return")
    curve = tuple((step, value) for step, value in rows[:: -(-len(rows) // MOST_POINTS) or 1] if value is not None)
    return Finished(run.config.run.seed, test, rows[-1][1] if rows else None, curve)
