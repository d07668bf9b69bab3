"""Where tensors of the engine live, and of what type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nervecord.compiler.ops import Array, Level
from nervecord.errors import GraphError, NervecordError, unknown_name

if TYPE_CHECKING:
    from nervecord.compiler.graph.graph import Graph

PRECISIONS = {"float64": torch.float64, "float32": torch.float32}
ROUNDING = {torch.float64: 2.0**-53, torch.float32: 2.0**-24}
"""Half a unit in the last place of 1."""


@dataclass(frozen=True, slots=True)
class Place:
    """A device, and the type that the core computes in. The host's ops are float64 everywhere."""

    device: torch.device
    dtype: torch.dtype

    def tensor(self, values: Array, dtype: torch.dtype | None = None) -> Tensor:
        """Values on the device, in the core's type unless another is named; a copy."""
        return torch.from_numpy(np.array(values, dtype=np.float64)).to(self.device, dtype or self.dtype)

    def zeros(self, *shape: int) -> Tensor:
        """Of the core's type."""
        return torch.zeros(shape, dtype=self.dtype, device=self.device)


def place_of(graph: Graph, device: str | torch.device, precision: str) -> Place:
    """Where a graph is to run.

    Args:
        device: as torch names it: "cpu", "cuda", "cuda:1". precision: of floats, "float64" or "float32".

    Raises:
        NervecordError: there is no such device or precision here.
        GraphError: integers are asked for in float32.
    """
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS, where="engine torch")
    if graph.level is Level.INTEGER and precision != "float64":
        raise GraphError(
            f"holds integers up to 2^53, and {precision} does not", where="engine torch", hint="leave the precision out"
        )
    return Place(_device(device), PRECISIONS[precision])


def _device(named: str | torch.device) -> torch.device:
    try:
        device = torch.device(named)
        # Whether it is there shows when something is put on it.
        torch.zeros(1, dtype=torch.float64, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        there = ["cpu", *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
        raise NervecordError(
            f"{str(named)!r} cannot be used: {reason}", where="device", hint=f"there are: {', '.join(there)}"
        ) from None
    return device


def require_exact_products(place: Place) -> None:
    """Refuse float32 products that torch was allowed to round more coarsely (TensorFloat-32, bfloat16).

    Raises:
        NervecordError: it was, somewhere in this process; the epsilon that is stated would not hold.
    """
    if place.dtype is torch.float32 and torch.get_float32_matmul_precision() != "highest":
        raise NervecordError(
            f"torch multiplies float32 matrices at precision {torch.get_float32_matmul_precision()!r} in this process",
            where="engine torch",
            hint='torch.set_float32_matmul_precision("highest"), or the precision float64',
        )
