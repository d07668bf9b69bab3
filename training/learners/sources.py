"""What a training starts from: other runs, ONNX files, functions; read by what its algorithm declares (`Source`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nervecord.compiler.onnx.file import is_onnx
from nervecord.errors import NervecordError
from nervecord.training.algorithms import holders
from nervecord.training.algorithms.base import Source
from nervecord.training.folder import run_folder
from nervecord.training.folder.start import digest, is_function, read_exported, require_equal
from nervecord.training.learners import function_teacher
from nervecord.training.learners.function_teacher import read_function_teacher
from nervecord.training.learners.network_teacher import read_network_teacher
from nervecord.training.settings.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Origin:
    """A checkpoint that a training starts from."""

    field: str
    """Of the algorithm, which names it."""
    folder: str
    """Of the run; else the file or the name of a function."""
    content: dict[str, Any]
    """The checkpoint."""

    @property
    def record(self) -> dict[str, Any]:
        """What the run folder says of it."""
        if function_teacher.PART in self.content["learner"]:
            return {"function": self.folder}
        step = int(self.content["step"])
        return {"folder": self.folder, "step": step, "networks": digest(self.content["learner"])}


def read_sources(config: TrainConfig) -> list[Origin]:
    """What a new training starts from beside its seed.

    Raises:
        NervecordError: there is no such run, or it does not fit.
    """
    named = [(source, getattr(config.algorithm, source.field)) for source in config.algorithm.sources]
    return [Origin(source.field, name, read_source(config, source)) for source, name in named if name]


def read_source(config: TrainConfig, source: Source) -> dict[str, Any]:
    """The checkpoint that a field of the algorithm names: the one that a finished run exported, else the newest.

    Args:
        config: of the training that begins. source: which field, and what it needs.

    Raises:
        NervecordError: the folder holds no run or no checkpoint, or this training cannot start from it.
    """
    algorithm, name = config.algorithm, str(getattr(config.algorithm, source.field))
    where = f"{algorithm.spelled(source.field)} {name}"
    if is_onnx(name) or is_function(name):
        if not source.takes_files:
            raise NervecordError("is a file or a function, a run is needed", where=where, hint=_hint(source))
        algorithm.check_source(source, None, config)
        return read_function_teacher(name, config) if is_function(name) else read_network_teacher(Path(name), config)
    before = run_folder.open_existing(Path(name))
    missing = source.assets - before.algorithm.assets
    if missing:
        words = " and no ".join(sorted(asset.value for asset in missing))
        raise NervecordError(
            f"was trained with {before.algorithm.name}, and holds no {words}", where=where, hint=_hint(source)
        )
    require_equal(before, config, source, where=where)
    if source.is_memoryless and before.network.state != "reset":
        raise NervecordError(
            "carries state from action to action, so its action does not follow from an observation alone",
            where=where,
            hint="take a run with --state reset",
        )
    algorithm.check_source(source, before, config)
    return read_exported(Path(name))


def _hint(source: Source) -> str:
    """The algorithms whose runs hold what is needed."""
    return f"take a run of {' or '.join(holders(source.assets))}"
