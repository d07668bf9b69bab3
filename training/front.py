"""The Python interface of training: `train`, `distill`, `sweep`, and `contract` for tasks.

Importing this loads no torch: each function imports what it needs when it is called.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nervecord.errors import MissingDependencyError, install_command

if TYPE_CHECKING:
    from nervecord.training.run import ProgressCallback, TrainResult
    from nervecord.training.settings.config import TrainConfig
    from nervecord.training.sweeps.standing import Standing

StrPath: TypeAlias = str | os.PathLike[str]


def train(config: TrainConfig, *, progress: ProgressCallback | None = None) -> TrainResult:
    """Train a policy and write it to a new run folder. Needs the extra `train`.

    Args:
        config: everything that decides the run; `TrainConfig()` is Ant-v4 with 256 neurons for a million steps.
        progress: called after each update with step, total, rate, eta and mean return.

    Returns:
        The run folder, the policy's path, and its return on held-out test seeds.

    Raises:
        NervecordError: the run folder exists, or the configuration cannot run here.
        MissingDependencyError: the extra `train` is not installed.

    Example:
        >>> result = nervecord.train(nervecord.TrainConfig.of(steps=1_000_000, seed=1))  # doctest: +SKIP
        >>> result.policy  # doctest: +SKIP
        PosixPath('runs/Ant-v4-snn-256-seed1/policy.nir')
    """
    from nervecord.training.settings.config import TrainConfig

    if not isinstance(config, TrainConfig):
        raise TypeError(f"config is of type {type(config).__name__}, a nervecord.TrainConfig is needed")
    result: TrainResult = training().train(config, progress=progress)
    return result


def distill(
    teacher: StrPath | Callable[[Any], Any], *, progress: ProgressCallback | None = None, **fields: Any
) -> TrainResult:
    """Train a policy to act as another run's does, and write it to a new run folder. Needs the extra `train`.

    Args:
        teacher: run folder of the policy to learn from; or an ONNX file, of a network without spikes and state; or a
            function (or "module:function"), which is given raw observations (B, observations), a float32 array, and
            gives actions (B, actions), or preferences (B, choices).
        progress: as of `train`.
        fields: of `TrainConfig`, for the student; what the teacher sets (the task, the critic) comes from it. A file or
            a function says nothing of its task: `env` does.

    Raises:
        NervecordError: the folder holds no run, or this student cannot learn from it.
    """
    run = training()
    from nervecord.training.algorithms.distill import Distill
    from nervecord.training.folder.start import shared_with
    from nervecord.training.settings.config import TrainConfig

    if callable(teacher):
        from nervecord.training.learners.function_teacher import name_of

        name = name_of(teacher)
    else:
        name = str(teacher)
    shared = shared_with(name, Distill.sources[0])
    config = TrainConfig.for_task(**{**shared, **fields, "teacher": name, "algorithm": Distill.name})
    result: TrainResult = run.train(config, progress=progress)
    return result


def sweep(study: StrPath, *, workers: int = 1, out: StrPath | None = None, retry_failed: bool = False) -> Standing:
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
    training()
    from nervecord.training.sweeps.ray_tasks import run_sweep
    from nervecord.training.sweeps.study import read_study

    parsed = read_study(Path(study), out=None if out is None else str(out))
    return run_sweep(parsed, workers=workers, retry_failed=retry_failed)


def contract(env: str, path: StrPath | None = None, *, wrappers: Sequence[str] = ()) -> str:
    """A commented contract file for an environment, to start from.

    Args:
        env: Gymnasium id, or "module:id" to import a module that registers it.
        path: where to write it; None: nowhere.
        wrappers: around the environment, the innermost first: names of gymnasium.wrappers, or module:Class.

    Returns:
        Its text.

    Raises:
        ContractError: the environment's spaces are not flat and bounded.
    """
    from nervecord.compiler.files.atomic import write_atomically
    from nervecord.compiler.files.contracttemplate import Surroundings, contract_template
    from nervecord.runtime.worker.environment import spaces_of
    from nervecord.training.settings.tasks import channels, choice_names

    spaces = spaces_of(env, wrappers)
    low, high = spaces.low, spaces.high
    observation, action = channels(env, spaces.observations, low or (0.0,), high or (0.0,))
    text = contract_template(
        Surroundings(
            env,
            observation.names,
            observation.units,
            () if spaces.choices else action.names,
            () if spaces.choices else action.units,
            low,
            high,
            choice_names(env, spaces.choices),
            spaces.period,
            wrappers,
        )
    )
    if path is not None:
        write_atomically(path, text.encode())
    return text


def training() -> Any:
    """The module that trains; a core installation lacks what it imports."""
    try:
        return importlib.import_module("nervecord.training.run")
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] == "nervecord":
            raise
        raise MissingDependencyError(
            f"{error.name} is not installed", where="train", hint=install_command("train")
        ) from None
