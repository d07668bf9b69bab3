"""Training as the Python API offers it: distillation and sweeps. What they need is imported when they are called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nervecord

if TYPE_CHECKING:
    from nervecord.training.run import ProgressCallback, TrainResult
    from nervecord.training.sweep_queue import Standing


def distill(teacher: str | os.PathLike[str], *, progress: ProgressCallback | None = None, **fields: Any) -> TrainResult:
    """Train a policy to act as another run's does, and write it to a new run folder. Needs the extra `train`.

    Args:
        teacher: run folder of the policy to learn from.
        progress: as of `train`.
        fields: of `TrainConfig`, for the student; what the teacher sets (environment, critic) comes from it.

    Raises:
        NervecordError: the folder holds no run, or this student cannot learn from it.
    """
    run = nervecord._training()
    from nervecord.training.config import TrainConfig
    from nervecord.training.distill import GIVEN
    from nervecord.training.start import fields_of

    config = TrainConfig.for_task(**{**fields_of(str(teacher), GIVEN), **fields, "teacher": str(teacher)})
    result: TrainResult = run.train(config, progress=progress)
    return result


def sweep(
    study: str | os.PathLike[str],
    *,
    workers: int = 1,
    out: str | os.PathLike[str] | None = None,
    retry_failed: bool = False,
) -> Standing:
    """Train all runs of a study, as `nervecord sweep` does. Needs the extras `train` and `sweep`.

    Args:
        study: TOML file (docs/sweep.md).
        workers: processes on this machine.
        out: folder for the study's folder, in place of the file's own.
        retry_failed: try runs that failed once more.

    Returns:
        What is finished and what failed.

    Raises:
        NervecordError: the study is malformed, or does not fit what its folder holds.
    """
    nervecord._training()
    from nervecord.training.study import read_study
    from nervecord.training.sweep import run_sweep

    found = read_study(Path(study), out=None if out is None else str(out))
    return run_sweep(found, workers=workers, retry_failed=retry_failed)
