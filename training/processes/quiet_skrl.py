"""skrl without what importing it does on the way."""

from __future__ import annotations

import logging
import os

import torch

from nervecord.training.processes.launch import launch


def import_skrl() -> None:
    """Import skrl, and undo a DEBUG log on the console, a process group of its own, and unchecked distributions."""
    launch()  # refuses an environment of several processes that is not torchrun's
    checked = torch.distributions.Distribution._validate_args
    # skrl would make a group here and now, with NCCL also where there is no card.
    world = os.environ.pop("WORLD_SIZE", None)
    try:
        from skrl.models import torch as _models  # type: ignore[import-untyped]  # noqa: F401 - it is this import that switches the checks off
    finally:
        if world is not None:
            os.environ["WORLD_SIZE"] = world
    torch.distributions.Distribution.set_default_validate_args(checked)
    logger = logging.getLogger("skrl")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.setLevel(logging.WARNING)
