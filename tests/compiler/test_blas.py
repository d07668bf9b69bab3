"""`compiler.blas`: what a BLAS says of lanes that no result takes is not heard, what is true is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nervecord.compiler.blas import einsum, matmul


class OtherLanes:
    """A matrix whose product raises the flag of an invalid value although its result is finite."""

    __array_ufunc__ = None

    def __init__(self, matrix: np.ndarray[Any, Any]) -> None:
        self.matrix = matrix

    def __rmatmul__(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        np.multiply(np.float64(np.inf), 0.0)
        return x @ self.matrix


def test_a_flag_of_other_lanes_is_not_heard() -> None:
    x, weight = np.ones((1, 5)), np.eye(5)
    with np.errstate(all="raise"):
        with pytest.raises(FloatingPointError):
            x @ OtherLanes(weight)
        np.testing.assert_array_equal(matmul(x, OtherLanes(weight)), x)


@pytest.mark.parametrize("value", [1e200, np.inf])
def test_a_product_that_is_not_finite_is_heard(value: float) -> None:
    large, signs = np.full((1, 2), value), np.array([[value], [-value]])
    with np.errstate(over="raise", invalid="raise"):
        with pytest.raises(FloatingPointError):
            matmul(large, signs)
        with pytest.raises(FloatingPointError):
            einsum("bi,io->bo", large, signs)
    with np.errstate(all="ignore"):
        assert not np.isfinite(matmul(large, signs)).any()


def test_they_are_the_products_of_numpy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 7)), rng.normal(size=(7, 4))
    np.testing.assert_array_equal(matmul(a, b), a @ b)
    np.testing.assert_array_equal(einsum("bi,io->bo", a, b), np.einsum("bi,io->bo", a, b, optimize=True))
    assert matmul(a[0] > 0, np.arange(7)).dtype == np.int64
