"""Checkpoints: written whole or not at all, a few kept, read without executing anything.

    checkpoints/step-000000250000.pt     the newest `keep`, and the best one
    checkpoints/best.json                {"step": ..., "score": ...}, for the reader; the checkpoints hold it too

A file is written under a temporary name in the same folder, synced and renamed, so that a process killed at any moment
leaves the old state or the new one.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import torch

from nervecord.compiler.files.atomic import remove_leftovers, write_atomically
from nervecord.compiler.schema import printable
from nervecord.errors import FileFormatError, NervecordError
from nervecord.training.algorithms import starts_from
from nervecord.training.algorithms.base import Asset
from nervecord.training.folder.damage import check_checkpoint, read_checkpoint

FORMAT = 2
"""Version of what `save` writes and `load` reads."""

NETWORKS = ("actor", "critic", "obs_rms", "reward_rms")
"""Parts of a learner that other trainings take."""

_NAME = re.compile(r"step-(\d{12})\.pt")


def checkpoint_path(folder: Path, step: int) -> Path:
    """File of the checkpoint taken at `step`."""
    return folder / f"step-{step:012d}.pt"


def steps_in(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, ascending."""
    if not folder.is_dir():
        return []
    return sorted(int(match[1]) for entry in folder.iterdir() if (match := _NAME.fullmatch(entry.name)))


def save(folder: Path, step: int, content: dict[str, Any], *, best: dict[str, float] | None, keep: int) -> None:
    """Write the checkpoint of `step`, then delete those beyond the newest `keep` and the best.

    `best` is {"step", "score"} of the best checkpoint so far, this one included, or None.

    Raises:
        NervecordError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "step": step, **content}, buffer)
    try:
        write_atomically(checkpoint_path(folder, step), buffer.getvalue())
        if best is not None:
            write_atomically(folder / "best.json", (json.dumps(best) + "\n").encode())
    except OSError as error:
        raise NervecordError(
            f"the checkpoint of step {step:,} cannot be written: {error.strerror}",
            where=str(folder),
            hint="fix that, then --resume continues from the checkpoint before",
        ) from error
    _prune(folder, best=best, keep=keep)


def settle(folder: Path, *, best: dict[str, float] | None, keep: int) -> None:
    """Finish what a process that was killed while it saved has left half done; a whole folder stays as it is.

    Args:
        folder: of the checkpoints; nobody else may write there. best, keep: of `save`, as the newest checkpoint has it.

    Raises:
        NervecordError: it cannot be written.
    """
    remove_leftovers(folder)
    record = (json.dumps(best) + "\n").encode()
    path = folder / "best.json"
    if best is not None and not (path.is_file() and path.read_bytes() == record):
        write_atomically(path, record)
    _prune(folder, best=best, keep=keep)


def _prune(folder: Path, *, best: dict[str, float] | None, keep: int) -> None:
    """Delete the checkpoints beyond the newest `keep` and the best."""
    for old in steps_in(folder)[:-keep]:
        if best is None or old != best["step"]:
            checkpoint_path(folder, old).unlink(missing_ok=True)


def load(folder: Path, step: int | None = None) -> dict[str, Any]:
    """Read a checkpoint, the newest where no step is given.

    Raises:
        NervecordError: there is none.
        FileFormatError: the file is damaged or newer than this version reads.
    """
    steps = steps_in(folder)
    if not steps or (step is not None and step not in steps):
        raise NervecordError(
            "holds no checkpoint" if step is None else f"holds no checkpoint of step {step}",
            where=str(folder),
            hint="the run was stopped before its first checkpoint: start it anew under another name",
        )
    path = checkpoint_path(folder, steps[-1] if step is None else step)
    content = read_checkpoint(path)
    if (form := content.get("format")) != FORMAT:
        newer = isinstance(form, int) and form > FORMAT
        raise FileFormatError(
            f"has format {printable(repr(form))}, this version reads {FORMAT}",
            where=str(path),
            hint="update nervecord" if newer else "train anew, or use the version of nervecord that wrote it",
        )
    return check_checkpoint(content, path, steps[-1] if step is None else step)


def networks_only(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint that other trainings begin with or learn from, and that its own cannot continue from: networks and
    statistics alone."""
    parts = {name: part for name, part in content["learner"].items() if name in NETWORKS}
    return {**content, "learner": parts, "collector": None, "networks_only": True}


def load_whole(folder: Path, assets: frozenset[Asset]) -> dict[str, Any]:
    """As `load` of the newest, to continue from; `assets` are what the run holds.

    Raises:
        NervecordError: there is none, or it holds networks alone.
        FileFormatError: as of `load`.
    """
    content = load(folder)
    if content.get("networks_only"):
        raise NervecordError(
            "keeps the networks of its training alone, which cannot continue from them",
            where=str(folder.parent),
            hint=f"begin another training with it: {', '.join(starts_from(assets))}",
        )
    return content
