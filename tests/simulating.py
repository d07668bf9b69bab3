"""Simulators in numpy arrays, for tests that compare numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from nervecord.training.simulators import make
from nervecord.training.simulators.base import Simulator

FIELDS = ("observations", "rewards", "terminated", "truncated")
"""Of a step."""


class InArrays:
    """A simulator that takes and gives copies in numpy; everything else is the simulator's own."""

    def __init__(self, inner: Simulator) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def reset(self) -> np.ndarray:
        """First observations, float64."""
        return self.inner.reset().cpu().double().numpy().copy()

    def step(self, actions: np.ndarray) -> SimpleNamespace:
        """One step: observations and rewards float64, ends bool."""
        result = self.inner.step(torch.from_numpy(np.asarray(actions, np.float64)).to(self.inner.device))
        tensors = {name: getattr(result, name).cpu() for name in FIELDS}
        return SimpleNamespace(
            **{name: (x if x.dtype == torch.bool else x.double()).numpy().copy() for name, x in tensors.items()}
        )


def make_simulator(*arguments: Any, **options: Any) -> Any:
    """`make.make_simulator`, in arrays."""
    return InArrays(make.make_simulator(*arguments, **options))
