"""What passes the border of a file of ONNX: numbers of float32."""

from __future__ import annotations

from typing import Any

import numpy as np

EPSILON = 2e-5
"""The largest difference between a core in float32 and its definition in float64 while no spike differs: the rounding
of sums of some hundred terms of magnitude below 100."""


def single(x: Any) -> Any:
    """Rounded to float32, and as float64 again; what float32 does not hold is infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(x, dtype=np.float64).astype(np.float32).astype(np.float64)
