"""Linear ops as matrices, dense or in compressed rows, and what is made of them: products and sums."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

import numpy as np

from nervecord.compiler.blas import matmul
from nervecord.compiler.ops import (
    Affine,
    Array,
    Conv,
    Convolution,
    Csr,
    DelayLine,
    Flatten,
    Op,
    Pool,
    Scale,
    SparseAffine,
)
from nervecord.compiler.ops.csr import MOST_PRODUCTS, MOST_WEIGHTS, TooLargeError

LINEAR = (Affine, SparseAffine, Conv, Pool, Scale, Flatten, DelayLine)
SPARSE = 1 / 4
"""A matrix with a smaller part of weights that are stored is kept in compressed rows."""
ROWS = 1 << 22
"""Weights of a matrix in compressed rows that are laid out at once."""

Matrix: TypeAlias = Array | Csr


class TooManyError(Exception):
    """A matrix would have more than `MOST_WEIGHTS`, or take too long."""


def convolution_of(op: Conv | Pool) -> Convolution:
    """How the weights of a convolution or pooling repeat; a pooling keeps its channels apart."""
    if isinstance(op, Pool):
        channels, shape, ones = op.input_shape[0], op.input_shape, (1,) * len(op.kernel)
        return Convolution(channels, shape, op.kernel, op.stride, op.padding, ones, channels)
    return Convolution(
        op.weight.shape[0], op.in_shape, op.weight.shape[2:], op.stride, op.padding, op.dilation, op.groups
    )


def through(op: Op, before: Matrix, *, direct: bool) -> Matrix:
    """The matrix of what comes before, then that of the op; the delay of the op is the caller's.

    Args:
        direct: `before` is the identity, so that the op's own matrix is the answer, to the bit.

    Raises:
        TooManyError: it has too many weights.
    """
    match op:
        case Flatten():
            return before
        case Scale():
            factors = op.scale.ravel()
            return before.scaled(factors) if isinstance(before, Csr) else before * factors[:, None]
        case Affine():
            return op.weight if direct else _product(op.weight, before)
        case SparseAffine():
            return op.csr if direct else _product(op.csr, before)
        case Conv() | Pool():
            own = _unrolled(op)
            return own if direct else _product(own, before)
    raise TypeError(f"{op.kind} is not linear")


def _unrolled(op: Conv | Pool) -> Csr:
    synapses = op.synapses()
    taps = synapses.stored if synapses is not None else op.size * int(np.prod(op.kernel))  # type: ignore[union-attr]
    if taps > MOST_WEIGHTS:
        raise TooManyError
    form = convolution_of(op)
    if isinstance(op, Conv):
        return form.unrolled(op.weight)
    share = 1.0 if op.mode == "sum" else 1.0 / float(np.prod(op.kernel))
    return form.unrolled(np.full((form.features, 1, *op.kernel), share))


def _product(a: Matrix, b: Matrix) -> Matrix:
    if isinstance(a, Csr) and isinstance(b, Csr):
        try:
            product = a @ b
        except TooLargeError:
            raise TooManyError from None
        if len(product.values) > MOST_WEIGHTS:
            raise TooManyError
        return product
    if a.shape[0] * b.shape[1] > MOST_WEIGHTS:
        raise TooManyError
    if isinstance(a, Csr):
        assert not isinstance(b, Csr)
        if a.shape[0] * a.inputs * b.shape[1] > MOST_PRODUCTS:
            return np.ascontiguousarray(a.products(np.ascontiguousarray(b.T)).T)
        at_once = max(1, ROWS // a.inputs)
        return np.concatenate([matmul(a.rows(k, k + at_once), b) for k in range(0, a.shape[0], at_once)])
    if isinstance(b, Csr):
        if a.shape[0] * a.shape[1] * b.inputs > MOST_PRODUCTS:
            return b.transposed().products(a)
        total, at_once = np.zeros((a.shape[0], b.inputs)), max(1, ROWS // b.inputs)
        for k in range(0, b.shape[0], at_once):
            total += matmul(a[:, k : k + at_once], b.rows(k, k + at_once))
        return total
    return matmul(a, b)


def added(a: Matrix, b: Matrix) -> Matrix:
    """The sum of two matrices."""
    if isinstance(a, Csr) and isinstance(b, Csr):
        return a + b
    return (a.dense() if isinstance(a, Csr) else a) + (b.dense() if isinstance(b, Csr) else b)


def only(matrix: Matrix, rows: Array) -> Matrix:
    """The matrix with nothing but some of its rows (mask) left; the others are empty."""
    if not isinstance(matrix, Csr):
        return np.where(rows[:, None], matrix, 0.0)
    return matrix.only(rows[matrix.row_of])


def connection(
    matrix: Matrix, bias: Array | None, delay: int, origin: tuple[str, ...], convolution: Convolution | None
) -> Affine | SparseAffine:
    """The Affine of a matrix, in the storage that is smaller; `convolution` is kept where it is one still."""
    if not isinstance(matrix, Csr):
        return Affine(matrix, bias, delay, origin=origin)
    if matrix.density >= SPARSE and matrix.shape[0] * matrix.inputs <= MOST_WEIGHTS:
        return Affine(matrix.dense(), bias, delay, origin=origin)
    sparse = SparseAffine.of(matrix, bias, delay, origin=origin)
    if convolution is not None and convolution.kernel_of(sparse.csr) is not None:
        return dataclasses.replace(sparse, convolution=convolution)
    return sparse


def matrix_of(op: Affine | SparseAffine) -> Matrix:
    """The weights of a connection as they are stored."""
    return op.csr if isinstance(op, SparseAffine) else op.weight


def with_matrix(op: Affine | SparseAffine, matrix: Matrix, bias: Array | None) -> Affine | SparseAffine:
    """The connection with another matrix in its storage; no convolution is left."""
    if isinstance(op, Affine):
        assert not isinstance(matrix, Csr)
        return op.replace(weight=matrix, bias=bias)
    assert isinstance(matrix, Csr)
    return SparseAffine.of(matrix, bias, op.delay, origin=op.origin)


def cut(matrix: Matrix, rows: Array, columns: Array) -> Matrix:
    """The part of a matrix in some rows and columns (masks)."""
    return matrix.cut(rows, columns) if isinstance(matrix, Csr) else matrix[rows][:, columns]


def empty_rows(matrix: Matrix) -> Array:
    """Mask of the rows in which every weight is zero."""
    if not isinstance(matrix, Csr):
        return np.asarray(~matrix.any(axis=1))
    counts = np.bincount(matrix.row_of[matrix.values != 0], minlength=matrix.shape[0])
    return np.asarray(counts == 0)
