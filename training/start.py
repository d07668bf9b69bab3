"""Beginning with what another training has learnt: its networks and running statistics, under a schedule of its own.

`--resume` goes on with a run as if it had never stopped. This begins a new one, with other settings: another learning
rate, more noise, another simulator of the same task.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from nervecord.errors import NervecordError
from nervecord.training import checkpoint, run_folder
from nervecord.training.config import TrainConfig
from nervecord.training.topology import FIELDS

SHAPE = ("env", *FIELDS, "mirror", "critic")
"""Fields of `TrainConfig` in which the two trainings must be equal, so that the networks fit."""

LEARNT = ("policy", "value", "observation_preprocessor")
"""What is taken of a checkpoint's learner; the optimiser begins anew."""


def fields_of(folder: str | Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Some fields of the configuration of a run.

    Raises:
        NervecordError: the folder holds no run.
    """
    config = run_folder.open_existing(Path(folder))
    return {name: getattr(config, name) for name in names}


def require_equal(before: TrainConfig, config: TrainConfig, names: tuple[str, ...], *, where: str) -> None:
    """Refuse a configuration that differs from another run's in a field both must share.

    Raises:
        NervecordError: it does; the error names the first such field.
    """
    for name in names:
        if getattr(before, name) != getattr(config, name):
            raise NervecordError(
                f"trained with {name.replace('_', ' ')} {getattr(before, name)}, not {getattr(config, name)}: its "
                "networks do not fit",
                where=where,
                hint=f"give no other --{name.replace('_', '-')}; it is taken from that run",
            )


def read_start(config: TrainConfig) -> dict[str, Any]:
    """The checkpoint a training begins with: the best one of a finished run, else the newest.

    Args:
        config: of the training that begins; its `start` names the run folder.

    Raises:
        NervecordError: the folder holds no run or no checkpoint, or its networks have another shape or task.
    """
    folder = Path(config.start)
    require_equal(run_folder.open_existing(folder), config, SHAPE, where=f"--start {folder}")
    return read_best(folder)


def read_best(folder: Path) -> dict[str, Any]:
    """The best checkpoint of a finished run, the newest of one that is not finished.

    Raises:
        NervecordError: it has none.
    """
    result = folder / "result.json"
    step = int(json.loads(result.read_text(encoding="utf-8"))["step"]) if result.is_file() else None
    return checkpoint.load(folder / "checkpoints", step)


def reward_statistics(rewards: dict[str, Any]) -> dict[str, Any]:
    """What the reward normaliser of a checkpoint has learnt."""
    return {name: rewards[name] for name in ("mean", "variance", "count")}


def digest(content: dict[str, Any]) -> str:
    """Hash of the networks and statistics of a checkpoint; of several processes the same in all."""
    found = hashlib.sha256()
    for part in LEARNT:
        for tensor in content["learner"][part].values():
            found.update(tensor.detach().cpu().numpy().tobytes())
    found.update(repr(tuple(reward_statistics(content["rewards"]).values())).encode())
    return found.hexdigest()[:16]
