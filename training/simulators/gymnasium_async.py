"""Gymnasium's vector environment with a process for each environment: for tasks of one's own whose step takes long."""

from __future__ import annotations

from nervecord.training.simulators.base import Unsaved
from nervecord.training.simulators.gymnasium import GymnasiumSimulator


class AsyncGymnasiumSimulator(Unsaved, GymnasiumSimulator):
    """Gymnasium's environments, together; their state is in other processes.

    Args:
        As of `GymnasiumSimulator`.
    """

    where = "--sim gymnasium-async"
    mode = "async"
