"""What quantising did to populations and connections, for a program's report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nervecord.compiler.lower.normal import Link
from nervecord.compiler.ops import Array, Csr, Mantissas, Sparse

SMALLEST = 1e-30
"""Stands for the largest weight of a matrix of zeros."""
LARGE = 1e100


@dataclass(frozen=True, slots=True)
class LinkReport:
    """What quantising did to one connection: errors are in units of its largest weight, with its rest if it has one."""

    connection: str
    weight_scale: float
    weight_exp: int
    weight_bits: int
    delay: int
    weight_error_max: float
    weight_error_rms: float


@dataclass(frozen=True, slots=True)
class PopulationReport:
    """What quantising did to one population.

    Args:
        population: its name. connections: of each link.
        unit: real current of one accumulator unit: the step of the arithmetic.
        threshold: its mantissa; None where it does not spike.
        decay_error, bias_error_max: absolute.
        accumulator, accumulator_limit: proved bound and what the arithmetic holds.
        membrane_low, membrane_high, membrane_limit: the same of v, in accumulator units.
    """

    population: str
    connections: tuple[LinkReport, ...]
    unit: float
    threshold: int | None
    decay_error: float
    bias_error_max: float
    accumulator: int
    accumulator_limit: int
    membrane_low: float
    membrane_high: float
    membrane_limit: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        data = dataclasses.asdict(self)
        data["connections"] = [dict(link) for link in data["connections"]]
        return data


UNBOUNDED = 2.0**50
"""A proved end of a membrane's range that is none: no target's register is as wide."""


def bound_text(value: float) -> str:
    """An end of a proved range, in words where nothing bounds it."""
    return "unbounded" if abs(value) >= UNBOUNDED else f"{value:,.0f}"


def link_reports(
    links: Sequence[Link], mantissas_of: Mapping[str, Mantissas], scales: Sequence[float]
) -> list[LinkReport]:
    """Of a population's connections.

    Args:
        mantissas_of: link -> its mantissas; a rest that is not there is zero.
        scales: mantissas to a real 1, of each link.
    """
    present = [
        (link, mantissas_of[link.name], scale)
        for link, scale in zip(links, scales, strict=True)
        if link.name in mantissas_of
    ]
    errors: dict[str, Array] = {}
    for link, mantissas, scale in present:
        stored = _real(link, mantissas, scale)
        if link.rest_of is None:
            errors[link.name] = stored - link.stored
        else:
            errors[link.rest_of] += stored
    return [_report(link, mantissas, scale, errors[link.rest_of or link.name]) for link, mantissas, scale in present]


def _report(link: Link, mantissas: Mantissas, scale: float, error: Array) -> LinkReport:
    largest = max(float(np.abs(link.stored).max()), SMALLEST)
    rows, width = link.weight.shape
    # Squares of such errors are beyond float64; of others no copy is made.
    unit, scaled = (largest, error / largest) if largest > LARGE else (1.0, error)
    return LinkReport(
        connection=link.name,
        weight_scale=scale,
        weight_exp=mantissas.weight_exp,
        weight_bits=mantissas.weight_bits,
        delay=mantissas.delay,
        weight_error_max=float(np.abs(error).max()) / largest,
        weight_error_rms=float(np.sqrt(np.sum(np.square(scaled)) / (rows * width))) / (largest / unit),
    )


def _real(link: Link, mantissas: Mantissas, scale: float) -> Array:
    """The weights that mantissas stand for, at the places of `link.stored`: bias channels and drivers left out."""
    rows, width = link.weight.shape
    if not isinstance(link.weight, Csr):
        return mantissas.weight[:rows, :width] / scale
    assert isinstance(mantissas, Sparse)
    matrix = mantissas.csr
    inside = (matrix.row_of < rows) & (matrix.columns < width)
    weights: Array = matrix.values[inside] / scale
    return weights
