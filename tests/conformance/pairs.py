"""A covering array: few rows in which every pair of values of two factors occurs that can occur at all.

    rows, forbidden = covering({"a": (1, 2), "b": (3, 4)}, problems)

Which pairs can occur is found by trying: a row is drawn at random around a pair until nothing speaks against it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

Value: TypeAlias = Any
Row: TypeAlias = dict[str, Value]
"""Factor -> its value."""
Pair: TypeAlias = frozenset[tuple[str, Value]]
Factors: TypeAlias = Mapping[str, tuple[Value, ...]]
TRIES = 100
"""Rows that are drawn around a pair before it counts as forbidden."""
NEAR = 0.8
"""How likely a row near the first legal one has its value of a factor; of all rows 3 % are legal here."""
CANDIDATES = 8
"""Legal rows, of which the one with most new pairs is taken."""


def pairs_of(row: Row) -> set[Pair]:
    """Of a row."""
    return {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}


def covering(
    factors: Factors, problems: Callable[[Row], set[str]], relevant_part: Callable[[Row], Row] = dict, seed: int = 0
) -> tuple[list[Row], dict[Pair, set[str]]]:
    """Rows that have every pair, and what no row can have.

    Args:
        factors: name -> its values, which have a hash.
        problems: what speaks against a row; nothing where it is legal.
        relevant_part: the part of a row that matters: a factor of what the row leaves out does not.

    Returns:
        (rows, forbidden pair, or a value alone -> what speaks against the first row where it has that).
    """
    draw = Draw(factors, problems, relevant_part, np.random.default_rng(seed))
    rows: list[Row] = []
    forbidden: dict[Pair, set[str]] = {}
    alone = [frozenset({(name, value)}) for name, values in factors.items() for value in values]
    for value in alone:
        if not draw.legal(dict(value), 1):
            forbidden[value] = draw.wrong(dict(value))
            draw.leave_out(*value)
    missing = dict.fromkeys(
        frozenset({(a, x), (b, y)})
        for a, b in itertools.combinations(draw.factors, 2)
        for x in draw.factors[a]
        for y in draw.factors[b]
    )
    while missing:
        pair = next(iter(missing))
        candidates = draw.legal(dict(pair), CANDIDATES)
        if not candidates:
            del missing[pair]
            if dict(pair).items() <= relevant_part(draw.first | dict(pair)).items():
                forbidden[pair] = draw.wrong(dict(pair))
            continue
        rows.append(max(candidates, key=lambda row: len(pairs_of(relevant_part(row)) & missing.keys())))
        for covered in pairs_of(relevant_part(rows[-1])):
            missing.pop(covered, None)
    return rows, forbidden


class Draw:
    """Rows around what is fixed of them; `first` is a legal one."""

    def __init__(
        self,
        factors: Factors,
        problems: Callable[[Row], set[str]],
        relevant_part: Callable[[Row], Row],
        rng: np.random.Generator,
    ) -> None:
        self.factors, self.problems, self.relevant_part, self.rng = dict(factors), problems, relevant_part, rng
        self.first: Row = {}
        self.first = self.legal({}, 1)[0]

    def leave_out(self, place: tuple[str, Value]) -> None:
        """Draw this value no more."""
        name, value = place
        self.factors[name] = tuple(other for other in self.factors[name] if other != value)

    def wrong(self, fixed: Row) -> set[str]:
        """What speaks against the first row with these values."""
        return self.problems(self.first | fixed)

    def legal(self, fixed: Row, count: int) -> list[Row]:
        """Up to `count` legal rows that show these values; every other try is near the first legal row."""
        rows: list[Row] = []
        for k in range(TRIES):
            row = {
                name: fixed.get(name, values[self.rng.integers(len(values))] if values else None)
                for name, values in self.factors.items()
            }
            if self.first and k % 2:
                row |= {n: self.first[n] for n in row if n not in fixed and self.rng.random() < NEAR}
            if fixed.items() <= self.relevant_part(row).items() and not self.problems(row):
                rows.append(row)
            if len(rows) == count:
                break
        return rows
