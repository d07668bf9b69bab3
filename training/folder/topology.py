"""What a policy looks like, taken over from another training: never its weights.

Weights belong to a task's observations; the layers found in one task can be trained in another. Importing this module
loads neither torch nor a simulator.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nervecord.errors import NervecordError
from nervecord.training.folder.records import read_record, result_of
from nervecord.training.settings.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Topology:
    """A policy's shape and where it comes from."""

    fields: dict[str, Any]
    """The `network` of its configuration, as `TrainConfig.of` takes it."""
    source: Path
    """The run folder; of several that have it, one."""
    env: str
    """The task it was trained in."""
    test_return: float | None
    """Its mean tested return there, over `runs` runs; None where a single run has not ended."""
    runs: int

    def __str__(self) -> str:
        shape = ", ".join(f"{name} {_word(value)}" for name, value in self.fields.items())
        tested = "" if self.test_return is None else f", return {self.test_return:,.1f} over {self.runs} runs"
        return f"{shape} (of {self.source}, {self.env}{tested})"


def read_topology(folder: str | Path, *, policy: str = "snn") -> Topology:
    """The topology of a run, or the best of a study.

    Args:
        folder: a run folder, or one that holds run folders, as a study's does: then the shape with the highest tested
            return, the mean over the finished runs that have it.
        policy: which of a study's policies count.

    Raises:
        NervecordError: the folder holds no run, or a study's no finished one with such a policy.
    """
    place = Path(folder)
    if (place / "config.json").is_file():
        value = result_of(place)
        return _topology(place, [] if value is None else [value])
    candidates: dict[str, list[tuple[Path, float]]] = {}
    envs = set()
    for path in sorted(place.glob("*/config.json")):
        config, value = _config(path.parent), result_of(path.parent)
        if config.network.policy == policy and value is not None:
            candidates.setdefault(json.dumps(_fields(config)), []).append((path.parent, value))
            envs.add(config.task.env)
    if not candidates:
        raise NervecordError(
            f"holds neither a run nor a study with finished runs of policy {policy}",
            where=str(place),
            hint="name a folder that nervecord train or nervecord sweep made",
        )
    if len(envs) > 1:
        raise NervecordError(
            f"holds runs of several tasks ({', '.join(sorted(envs))}), whose returns do not compare",
            where=str(place),
            hint="name one run folder",
        )
    best = max(candidates.values(), key=lambda runs: sum(value for _, value in runs) / len(runs))
    return _topology(best[0][0], [value for _, value in best])


def _topology(run: Path, values: list[float]) -> Topology:
    config = _config(run)
    mean = sum(values) / len(values) if values else None
    return Topology(_fields(config), run, config.task.env, mean, max(1, len(values)))


def _fields(config: TrainConfig) -> dict[str, Any]:
    return {f.name: getattr(config.network, f.name) for f in dataclasses.fields(config.network)}


def _config(run: Path) -> TrainConfig:
    path = run / "config.json"
    return TrainConfig.from_dict(read_record(path), where=str(path))


def _word(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
