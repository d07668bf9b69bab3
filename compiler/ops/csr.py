"""Matrices in compressed rows (CSR), as far as connections need them: made, multiplied, added, cut.

Plain numpy: what executes a connection belongs to the core, which a robot carries, and these are the few operations
that it takes. Rows hold their columns in ascending order; a zero may be stored, and is then part of the pattern.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nervecord.compiler.ops.fields import Array, Shape, Violation

PRODUCTS = 1 << 22
"""Products that are held at once."""
MOST_PRODUCTS = 1 << 26
"""Products that one matrix times another may take."""
MOST_WEIGHTS = 1 << 24
"""Weights that are stored of one matrix: 128 MiB in float64."""


class TooLargeError(Exception):
    """A product of two matrices would take more than `MOST_PRODUCTS`."""


@dataclass(frozen=True, slots=True, eq=False)
class Csr:
    """A matrix (out, in).

    Args:
        values: (stored,). columns: (stored,), the column of each. starts: (out + 1,), where each row begins in them.
        inputs: number of columns.
    """

    values: Array
    columns: Array
    starts: Array
    inputs: int

    @classmethod
    def identity(cls, size: int) -> Csr:
        """Ones on the diagonal."""
        return cls(np.ones(size), np.arange(size), np.arange(size + 1), size)

    @classmethod
    def zeros(cls, shape: tuple[int, int]) -> Csr:
        """Nothing but zeros, one of which is stored."""
        return cls(np.zeros(1), np.zeros(1, np.int64), np.minimum(np.arange(shape[0] + 1), 1), shape[1])

    @classmethod
    def of(cls, matrix: Array) -> Csr:
        """What is not zero of a dense matrix; one zero of a matrix of zeros."""
        rows, columns = np.nonzero(matrix)
        if not rows.size:
            return cls.zeros((len(matrix), matrix.shape[1]))
        starts = np.concatenate([[0], np.cumsum(np.count_nonzero(matrix, axis=1))])
        return cls(matrix[rows, columns], columns, starts, matrix.shape[1])

    @classmethod
    def gathered(cls, rows: Array, columns: Array, values: Array, shape: Shape) -> Csr:
        """Of the places and values of single weights, in any order; those of one place add up."""
        places = rows.astype(np.int64) * shape[1] + columns
        unique, which = np.unique(places, return_inverse=True)
        if len(unique) == len(places):
            summed = np.empty_like(values)
            summed[which.ravel()] = values
        else:
            summed = np.bincount(which.ravel(), weights=values, minlength=len(unique))
        counts = np.bincount(unique // shape[1], minlength=shape[0])
        return cls(summed, unique % shape[1], np.concatenate([[0], np.cumsum(counts)]), shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return len(self.starts) - 1, self.inputs

    @property
    def density(self) -> float:
        """Share of the places that are stored."""
        return len(self.values) / max(1, self.shape[0] * self.inputs)

    @property
    def row_of(self) -> Array:
        """(stored,) the row of each value."""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.starts))

    def violations(self) -> Iterator[Violation]:
        """What of it is no matrix in compressed rows."""
        counts = np.diff(self.starts.astype(np.int64))  # a file's may lie so far apart that their type wraps
        if self.starts[0] != 0 or self.starts[-1] != len(self.values) or (counts < 0).any() or not len(counts):
            yield "rows", "its rows do not begin where its values do", None, None
        elif self.columns.min() < 0 or self.columns.max() >= self.inputs:
            yield "columns", f"a column lies outside 0..{self.inputs - 1}", None, None
        elif (np.diff(self.row_of * self.inputs + self.columns) <= 0).any():
            yield "columns", "the columns of a row are out of order", None, None

    def with_values(self, values: Array) -> Csr:
        """Other values in the same places."""
        return Csr(values, self.columns, self.starts, self.inputs)

    def rows(self, first: int, last: int) -> Array:
        """Rows first..last - 1 as a dense matrix."""
        last = min(last, self.shape[0])
        start, end = int(self.starts[first]), int(self.starts[last])
        dense = np.zeros((last - first, self.inputs), dtype=self.values.dtype)
        within = np.repeat(np.arange(last - first), np.diff(self.starts[first : last + 1]))
        dense[within, self.columns[start:end]] = self.values[start:end]
        return dense

    def dense(self) -> Array:
        """All of it as a dense matrix."""
        return self.rows(0, self.shape[0])

    def products(self, x: Array, shift: int = 0) -> Array:
        """(batch, out) of (batch, in): each product of whole numbers shifted right by `shift`, then added by rows."""
        result = np.zeros((len(x), self.shape[0]), dtype=np.result_type(x, self.values))
        filled = np.diff(self.starts) > 0
        begins = self.starts[:-1][filled]
        at_once = max(1, PRODUCTS // max(len(self.values), 1))
        for first in range(0, len(x), at_once):
            part = x[first : first + at_once, self.columns] * self.values
            if shift:
                part >>= shift
            result[first : first + at_once, filled] = np.add.reduceat(part, begins, axis=1)
        return result

    def transposed(self) -> Csr:
        """(in, out)."""
        order = np.argsort(self.columns, kind="stable")
        counts = np.bincount(self.columns, minlength=self.inputs)
        return Csr(self.values[order], self.row_of[order], np.concatenate([[0], np.cumsum(counts)]), self.shape[0])

    def nonzero(self) -> Csr:
        """Without the zeros that are stored; of a matrix of zeros one stays."""
        return self.only(self.values != 0)

    def only(self, mask: Array) -> Csr:
        """With some of its values (mask) in their places, and zeros in the others."""
        if not mask.any():
            return Csr.zeros(self.shape)
        starts = np.concatenate([[0], np.cumsum(mask)])[self.starts]
        return Csr(self.values[mask], self.columns[mask], starts, self.inputs)

    def scaled(self, factors: Array) -> Csr:
        """Every row times its factor."""
        return self.with_values(self.values * factors[self.row_of])

    def cut(self, rows: Array, columns: Array) -> Csr:
        """The part of it in some rows and columns (masks)."""
        mask = rows[self.row_of] & columns[self.columns]
        size = int(columns.sum())
        if not mask.any():
            return Csr.zeros((int(rows.sum()), size))
        part = self.only(mask)
        # A row that is cut off has no values, so that the next one begins where it does.
        starts = np.append(part.starts[:-1][rows], part.starts[-1])
        return Csr(part.values, (np.cumsum(columns) - 1)[part.columns], starts, size)

    def with_column(self, column: Array) -> Csr:
        """One more column, its zeros left out."""
        rows = np.flatnonzero(column)
        return Csr.gathered(
            np.concatenate([self.row_of, rows]),
            np.concatenate([self.columns, np.full(len(rows), self.inputs)]),
            np.concatenate([self.values, column[rows]]),
            (self.shape[0], self.inputs + 1),
        )

    def with_row(self) -> Csr:
        """One more row, which is empty."""
        return Csr(self.values, self.columns, np.append(self.starts, self.starts[-1]), self.inputs)

    def __add__(self, other: Csr) -> Csr:
        return Csr.gathered(
            np.concatenate([self.row_of, other.row_of]),
            np.concatenate([self.columns, other.columns]),
            np.concatenate([self.values, other.values]),
            self.shape,
        )

    def __matmul__(self, other: Csr) -> Csr:
        """The product of two matrices.

        Raises:
            TooLargeError: it takes more than `MOST_PRODUCTS` products, one row of it more than `MOST_WEIGHTS`, or has
                more weights than that.
        """
        reach = np.diff(other.starts)[self.columns]
        products = np.concatenate([[0], np.cumsum(reach)])[self.starts]
        if products[-1] > MOST_PRODUCTS or np.diff(products).max(initial=0) > MOST_WEIGHTS:
            raise TooLargeError
        if not products[-1]:
            return Csr.zeros((self.shape[0], other.inputs))
        # Some rows at a time: the products take far more memory than what they add up to.
        parts, weights, first = [], 0, 0
        while first < self.shape[0]:
            last = max(first + 1, int(np.searchsorted(products, products[first] + PRODUCTS, "right")) - 1)
            parts.append(self._times(other, reach, first, last))
            weights, first = weights + len(parts[-1].values), last
            if weights > MOST_WEIGHTS:
                raise TooLargeError
        counts = np.concatenate([np.diff(part.starts) for part in parts])
        return Csr(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.columns for part in parts]),
            np.concatenate([[0], np.cumsum(counts)]),
            other.inputs,
        )

    def _times(self, other: Csr, reach: Array, first: int, last: int) -> Csr:
        """Rows first..last - 1 of the product; `reach`: of each stored value, the products that it takes part in."""
        begin, end = int(self.starts[first]), int(self.starts[last])
        reach, columns = reach[begin:end], self.columns[begin:end]
        # The products of each stored value with the row of the other that it meets, one after the other.
        each = np.repeat(np.arange(end - begin), reach)
        within = np.arange(len(each)) - np.repeat(np.cumsum(reach) - reach, reach)
        met = other.starts[columns][each] + within
        rows = np.repeat(np.arange(last - first), np.diff(self.starts[first : last + 1]))
        return Csr.gathered(
            rows[each],
            other.columns[met],
            self.values[begin:end][each] * other.values[met],
            (last - first, other.inputs),
        )
