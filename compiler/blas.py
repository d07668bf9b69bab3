"""Products of matrices whose warnings are true.

A BLAS may raise the processor's flags for a product whose result is finite and right: its kernels may compute lanes
that no result takes. NumPy then warns of an invalid value, or raises where `errstate` says so. It happened in tests,
seldom, with OpenBLAS 0.3.31: zeros times whole numbers. So the result decides: only where it is not finite is the
product made again with the flags heard.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def matmul(a: Any, b: Any) -> Array:
    """a @ b of two dense arrays."""
    return _heard(lambda: a @ b)


def einsum(subscripts: str, a: Array, b: Array) -> Array:
    """`np.einsum` of two arrays, by matrix products where they serve."""
    return _heard(lambda: np.einsum(subscripts, a, b, optimize=True))


def _heard(product: Callable[[], Any]) -> Array:
    with np.errstate(all="ignore"):
        result: Array = product()
    return result if np.isfinite(result).all() else product()
