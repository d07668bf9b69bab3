"""The import of skrl, without the process group that it makes on the way."""

from __future__ import annotations

import os

from nervecord.training.processes.launch import launch


def import_skrl() -> None:
    """Import skrl; where torchrun started several processes it would join them, with NCCL also where no GPU is."""
    launch()  # refuses an environment of several processes that is not torchrun's
    world = os.environ.pop("WORLD_SIZE", None)
    try:
        import skrl  # type: ignore[import-untyped]  # noqa: F401 - it reads the environment once
    finally:
        if world is not None:
            os.environ["WORLD_SIZE"] = world
