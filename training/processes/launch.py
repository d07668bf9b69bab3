"""Which of several processes this one is, as torchrun says in the environment. Loads no torch.

torchrun starts W processes with the same command line and tells each its place: WORLD_SIZE processes in all, this one
RANK among them and LOCAL_RANK among the LOCAL_WORLD_SIZE of its machine, and where they meet (MASTER_ADDR,
MASTER_PORT). Without it a process is alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from nervecord.errors import NervecordError


@dataclass(frozen=True, slots=True)
class Launch:
    """The place of a process among those of one training; by default it is alone."""

    rank: int = 0
    world: int = 1
    """Processes in all."""
    local_rank: int = 0
    local_world: int = 1
    """Processes on this machine."""


def launch() -> Launch:
    """This process's place.

    Raises:
        NervecordError: the environment says that there are several processes and not which this is: another tool's
            WORLD_SIZE, say. Taken for one process each would write the same run folder.
    """
    world = _number("WORLD_SIZE", os.environ.get("WORLD_SIZE", "1"))
    if world <= 1:
        return Launch()
    names = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise NervecordError(
            f"WORLD_SIZE is {world}, and {', '.join(missing)} not set: torchrun sets all of them",
            where="environment",
            hint="start it with torchrun --nproc-per-node N -m nervecord train, or unset WORLD_SIZE",
        )
    rank, local_rank, local_world = (_number(name, os.environ[name]) for name in names[:3])
    return Launch(rank, world, local_rank, local_world)


def alone(what: str) -> None:
    """Refuse to run `what` in several processes.

    Raises:
        NervecordError: torchrun started this process with others.
    """
    world = launch().world
    if world > 1:
        raise NervecordError(
            f"{what} runs in one process, WORLD_SIZE is {world}", where="environment", hint="start it without torchrun"
        )


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise NervecordError(f"{name} is {text!r}, not a number", where="environment")
    return int(text)
