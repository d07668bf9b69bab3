"""Beginning with what another training has learnt: its networks and running statistics, under a schedule of its own.

`--resume` goes on with a run as if it had never stopped. This begins a new one, with other settings: another learning
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
from nervecord.training.folder import run_folder
from nervecord.training.folder.records import number_of, read_record
from nervecord.training.settings.config import PPO, TD7, Finetune, OnPolicy, TrainConfig
from nervecord.training.settings.fields import flag_name

if TYPE_CHECKING:
    import torch

LEARNT = ("actor", "critic", "obs_rms")
"""What is taken of a checkpoint's learner, and the statistics of its rewards; the optimiser begins anew."""


_FUNCTION = re.compile(r"[^\W\d][\w.]*:[\w<][\w.<>]*")


def is_function(teacher: str | Path) -> bool:
    """Whether a teacher's name is that of a function, `module:name`, and of no file."""
    return _FUNCTION.fullmatch(str(teacher)) is not None and not Path(teacher).exists()


def shared_with(folder: str | Path, *, network: bool = True, critic: bool = True) -> dict[str, Any]:
    """The fields, by their names alone, that a training takes from the run that it begins with or learns from.

    Args:
        folder: of that run; an ONNX file or a function says nothing of its task.
        network: the network too, where its weights are taken.
        critic: the critic's shape too, where it has one of on-policy learning.

    Raises:
        NervecordError: the folder holds no run.
    """
    if is_onnx(folder) or is_function(folder):
        return {}
    config = run_folder.open_existing(Path(folder))
    found = config.task.to_dict() | (config.network.to_dict() if network else {})
    return found | ({"critic": config.algorithm.critic} if critic and isinstance(config.algorithm, OnPolicy) else {})


def require_equal(
    before: TrainConfig, config: TrainConfig, *, where: str, network: bool = True, critic: bool = True
) -> None:
    """Refuse a configuration that differs from another run's in what both must share: the task, and network and critic
    where their weights are taken.

    Raises:
        NervecordError: it does; the error names the first such field.
    """
    parts = [(before.task, config.task)] + ([(before.network, config.network)] if network else [])
    pairs = [(name, was, now[name]) for a, b in parts for now in [b.to_dict()] for name, was in a.to_dict().items()]
    if critic and isinstance(before.algorithm, OnPolicy) and isinstance(config.algorithm, OnPolicy):
        pairs.append(("critic", list(before.algorithm.critic), list(config.algorithm.critic)))
    for name, was, now in pairs:
        if was != now:
            raise NervecordError(
                f"trained with {name.replace('_', ' ')} {_word(was)}, not {_word(now)}: its networks do not fit",
                where=where,
                hint=f"give no other {flag_name(name)}; it is taken from that run",
            )


def _word(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def read_start(config: TrainConfig) -> dict[str, Any]:
    """The checkpoint a training begins with: the best one of a finished run, else the newest.

    Args:
        config: of the training that begins; its `algorithm.start` names the run folder.

    Raises:
        NervecordError: the folder holds no run or no checkpoint, or its networks have another shape or task.
    """
    assert isinstance(config.algorithm, PPO | Finetune)
    folder = Path(config.algorithm.start)
    before, where = run_folder.open_existing(folder), f"--start {folder}"
    if before.algorithm.own_networks:
        raise NervecordError(
            f"was trained with {before.algorithm.name}, whose networks are its own",
            where=where,
            hint="start from a run of ppo or distill" + " or finetune" * isinstance(config.algorithm, Finetune),
        )
    require_equal(before, config, where=where)
    if isinstance(config.algorithm, PPO) and not isinstance(before.algorithm, OnPolicy):
        raise NervecordError(
            f"was trained with {before.algorithm.name}, and has no critic for PPO",
            where=where,
            hint="start from a run of ppo or distill",
        )
    return read_best(folder)


def read_critic(config: TrainConfig) -> dict[str, Any]:
    """The checkpoint of TD7 whose critic goes on: the best one of a finished run, else the newest.

    Args:
        config: of the training that begins, whose `algorithm.teacher` names the run folder.

    Raises:
        NervecordError: the folder holds no run or no checkpoint, or it is of another algorithm or task.
    """
    assert isinstance(config.algorithm, Finetune)
    name = config.algorithm.teacher
    where = f"--teacher {name}"
    if is_onnx(name) or is_function(name):
        raise NervecordError("is a file or a function, and has no critic", where=where, hint="take a run of td7")
    folder = Path(name)
    before = run_folder.open_existing(folder)
    if not isinstance(before.algorithm, TD7):
        raise NervecordError(
            f"was trained with {before.algorithm.name}, which has no critic that goes on from any action",
            where=where,
            hint="take a run of td7",
        )
    # What TD7 learnt of; its observations are raw.
    for field in ("env", "wrappers"):
        was, now = getattr(before.task, field), getattr(config.task, field)
        if was != now:
            raise NervecordError(
                f"was trained with {field} {was}, and the run of --start with {now}",
                where=where,
                hint="take a teacher and a student of one task",
            )
    if before.algorithm.gamma != config.algorithm.gamma:
        raise NervecordError(
            f"has values of gamma {before.algorithm.gamma:g}, not of {config.algorithm.gamma:g}",
            where=where,
            hint=f"add --gamma {before.algorithm.gamma:g}",
        )
    if config.network.state != "reset":
        raise NervecordError(
            "carries state from action to action, and a critic of TD7 knows none",
            where=f"--start {config.algorithm.start}",
            hint="start from a run with --state reset",
        )
    return read_best(folder)


def read_best(folder: Path) -> dict[str, Any]:
    """The best checkpoint of a finished run, the newest of one that is not finished.

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

    found = hashlib.sha256()
    parts = [learner[part] for part in LEARNT if part in learner]
    for tensor in _tensors(parts or [part for name, part in learner.items() if name != "replay"]):
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    if "reward_rms" in learner:
        found.update(repr(tuple(float(value) for value in statistics(learner["reward_rms"]).values())).encode())
    return found.hexdigest()[:16]
