"""Beginning with what another training has learnt: its networks and running statistics, under a schedule of its own.

`--resume` continues with a run as if it had never stopped. This begins a new one, with other settings: another learning
rate, more noise, another simulator of the same task.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nervecord.compiler.onnx.file import is_onnx
from nervecord.errors import NervecordError
from nervecord.training.algorithms.base import Source
from nervecord.training.fields import flag_name
from nervecord.training.folder import run_folder
from nervecord.training.folder.records import number_of, read_record
from nervecord.training.settings.config import TrainConfig

if TYPE_CHECKING:
    import torch

LEARNT = ("actor", "critic", "obs_rms")
"""What is taken of a checkpoint's learner, and the statistics of its rewards; the optimiser begins anew."""


_FUNCTION = re.compile(r"[^\W\d][\w.]*:[\w<][\w.<>]*")


def is_function(teacher: str | Path) -> bool:
    """Whether a teacher's name is that of a function, `module:name`, and of no file."""
    return _FUNCTION.fullmatch(str(teacher)) is not None and not Path(teacher).exists()


def shared_with(folder: str | Path, source: Source) -> dict[str, Any]:
    """The fields, by their names alone, that a training takes from the run that it starts from.

    Args:
        folder: of that run; an ONNX file or a function says nothing of its task.
        source: says which.

    Raises:
        NervecordError: the folder holds no run.
    """
    if is_onnx(folder) or is_function(folder):
        return {}
    return shared_fields(run_folder.open_existing(Path(folder)), source)


def shared_fields(before: TrainConfig, source: Source) -> dict[str, Any]:
    """As `shared_with`, of a run with the configuration `before`."""
    return {name: before.fields[name] for name in _shared(before, source)}


def require_equal(before: TrainConfig, config: TrainConfig, source: Source, *, where: str) -> None:
    """Refuse a configuration that differs from another run's in what both must share.

    Raises:
        NervecordError: it does; the error names the first such field.
    """
    was, now = before.fields, config.fields
    for name in _shared(before, source):
        if name in now and was[name] != now[name]:
            raise NervecordError(
                f"trained with {name.replace('_', ' ')} {was[name]}, not {now[name]}: its networks do not fit",
                where=where,
                hint=f"give no other {flag_name(name)}; it is taken from that run",
            )


def _shared(before: TrainConfig, source: Source) -> list[str]:
    """Names of the fields of a run that a training shares with it; of one of raw observations their limit is none."""
    parts = {"task": before.task.to_dict(), "network": before.network.to_dict()}
    names = [field for name in source.shared for field in parts.get(name, (name,))]
    idle = {"obs_clip"} if before.algorithm.own_networks else set()
    return [name for name in names if name in before.fields and name not in idle]


def read_exported(folder: Path) -> dict[str, Any]:
    """The checkpoint that a finished run exported (`--export`), the newest of one that is not finished.

    Raises:
        NervecordError: it has none.
    """
    from nervecord.training.folder import checkpoint  # it imports torch, and a run folder can be looked at without

    result = folder / "result.json"
    step = int(number_of(read_record(result), "step", where=str(result))) if result.is_file() else None
    return checkpoint.load(folder / "checkpoints", step)


def statistics(reward_rms: dict[str, Any]) -> dict[str, Any]:
    """What the reward normaliser of a checkpoint has learnt, without its running episodes."""
    return {name: reward_rms[name] for name in ("mean", "variance", "count")}


def _tensors(content: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested containers, in order."""
    import torch

    if isinstance(content, torch.Tensor):
        yield content.reshape(-1)
    elif isinstance(content, dict):
        for value in content.values():
            yield from _tensors(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _tensors(value)


def digest(learner: dict[str, Any]) -> str:
    """Hash of a learner's networks and statistics; of one that keeps them otherwise (TD7, skrl's agents) of all its
    tensors but the replay's. Of several processes it is the same in all."""
    import torch

    checksum = hashlib.sha256()
    parts = [learner[part] for part in LEARNT if part in learner]
    for tensor in _tensors(parts or [part for name, part in learner.items() if name != "replay"]):
        checksum.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    if "reward_rms" in learner:
        checksum.update(repr(tuple(float(value) for value in statistics(learner["reward_rms"]).values())).encode())
    return checksum.hexdigest()[:16]
