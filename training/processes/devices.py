"""The torch devices of this machine."""

from __future__ import annotations

import torch

from nervecord.errors import NervecordError


def check_device(name: str) -> torch.device:
    """The torch device of that name.

    Raises:
        NervecordError: torch does not know it or cannot use it here.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        usable = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        raise NervecordError(
            f"torch cannot use {name!r} here", where="--device", hint=f"choose from: {', '.join(usable)}"
        ) from error
    return device
