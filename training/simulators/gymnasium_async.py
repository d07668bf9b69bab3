"""Gymnasium's vector environment with a process for each environment: for tasks of one's own whose step takes long."""

from __future__ import annotations

from typing import Any

from nervecord.errors import NervecordError
from nervecord.training.simulators.gymnasium import GymnasiumSimulator


class AsyncGymnasiumSimulator(GymnasiumSimulator):
    """Gymnasium's environments, together.

    Args:
        As of `GymnasiumSimulator`.
    """

    mode = "async"

    def state_dict(self) -> None:
        """None: the environments are in other processes."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Refuse.

        Raises:
            NervecordError: always.
        """
        raise NervecordError(
            "cannot continue from a saved state", where="--sim gymnasium-async", hint="use --sim gymnasium"
        )
