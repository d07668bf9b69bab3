"""What one thing changes in a study, seed by seed.

Runs with the same seed begin in the same environments, so they need not be independent: what two configurations differ
by is taken of each seed, and the interval is that of the differences. For the same reason a seed is one value where
runs of several widths are taken together, its mean over them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nervecord.runtime.result import interval95
from nervecord.training.settings.config import TrainConfig
from nervecord.training.sweeps.cells import Cell, Finished, other_fields
from nervecord.training.sweeps.study import Series, word

Measure = Callable[[Finished], float | None]
MEASURES: tuple[Measure, ...] = (lambda run: run.test, lambda run: run.training)
"""Tested return, and return while training."""


@dataclass(frozen=True, slots=True)
class CellGroup:
    """Cells that are taken together: those of one kind and depth over all widths, say."""

    cells: tuple[Cell, ...]

    @property
    def seeds(self) -> list[int]:
        """Seeds that every cell has finished."""
        seeds = [{run.seed for run in cell.finished} for cell in self.cells]
        return sorted(set.intersection(*seeds))

    def means(self, measure: Measure) -> dict[int, float]:
        """Seed -> mean over the cells, where all have a value."""
        means = {}
        for seed in self.seeds:
            values = [measure(run) for cell in self.cells for run in cell.finished if run.seed == seed]
            known = [value for value in values if value is not None]
            if len(known) == len(values):
                means[seed] = float(np.mean(known))
        return means


@dataclass(frozen=True, slots=True)
class Pair:
    """Two groups that differ in one field.

    Args:
        alike: what else says which comparison it is, the kind of policy left out.
    """

    name: str
    less_name: str
    more: CellGroup
    less: CellGroup
    policy: str
    alike: tuple[str, ...]


def depth_table(series: Series, cells: dict[str, Cell]) -> list[list[str]]:
    """The rows of a series by number of layers, over all widths, headings first; none where that says nothing.

    Layers of unequal widths are left out, as are networks of an algorithm's own.
    """
    varied = _others(series)
    pools: dict[tuple[str, ...], dict[str, Cell]] = {}
    for cell in (cells[name] for name in series.cells):
        own = _factors(cell, varied)
        if len(set(cell.config.network.layers)) == 1 and not cell.config.algorithm.own_networks:
            pools.setdefault((own["policy"], own["depth"], *(own[name] for name in varied)), {})[own["width"]] = cell
    if len({depth for _, depth, *_ in pools}) < 2 or all(len(widths) < 2 for widths in pools.values()):
        return []
    rows = [["policy", "layers", *varied, "widths", "seeds", "mean, 95 % interval", "while training, 95 % interval"]]
    for key, widths in pools.items():
        group = CellGroup(tuple(widths.values()))
        values = [_interval(list(group.means(measure).values())) for measure in MEASURES]
        rows.append([*key, ", ".join(widths), str(len(group.seeds)), *values])
    return rows


def paired_table(series: Series, cells: dict[str, Cell], base: TrainConfig) -> list[list[str]]:
    """What one field changes: rows of configurations less those that differ in it, headings first.

    Each value of a field is compared with its first one. Depth and width of layers count as two fields, and what is
    said of one of them, or of another field, is of the mean over the other, as far as both have it. Fields that follow
    from others by a rule are named. Where two kinds of policies are compared, so is what depth changes of them. None
    where no seed is finished on both sides of any comparison, and of a search, whose values were drawn.
    """
    rows = [["this", "less this", "seeds", "tested return, 95 % interval", "while training, 95 % interval"]]
    if series.is_search:
        return []
    varied = _others(series)
    members = [cells[name] for name in series.cells]
    depths: list[Pair] = []
    for field in ("depth", "width", "policy", *varied):
        pairs = _pairs(members, field, varied, base)
        rows += [_row(pair.name, pair.less_name, (pair.more,), (pair.less,)) for pair in pairs]
        depths += pairs if field == "depth" else []
    for pair, other in itertools.combinations(depths, 2):
        if pair.alike == other.alike and pair.policy != other.policy:
            names = f"{other.name} less {other.less_name}", f"{pair.name} less {pair.less_name}"
            rows.append(_row(*names, (other.more, pair.less), (other.less, pair.more)))
    rows = [rows[0], *(row for row in rows[1:] if row[2] != "0")]
    return rows if len(rows) > 1 else []


def _pairs(cells: Sequence[Cell], field: str, varied: Sequence[str], base: TrainConfig) -> list[Pair]:
    """Groups that differ in one field, the one with its first value second."""
    pooled = "depth" if field == "width" else "width"
    factors = [_factors(cell, varied) for cell in cells]
    if any(len(set(cell.config.network.layers)) > 1 for cell in cells):
        factors = [
            {**own, "depth": "", "width": word(c.config.network.layers)} for own, c in zip(factors, cells, strict=True)
        ]
    everywhere = len({own[pooled] for own in factors})
    groups: dict[tuple[str, ...], dict[str, Cell]] = {}
    for cell, own in zip(cells, factors, strict=True):
        groups.setdefault(tuple(value for name, value in own.items() if name != pooled), {})[own[pooled]] = cell
    names = [name for name in factors[0] if name != pooled]
    at = names.index(field)
    first = next(iter(groups))[at]
    pairs = []
    for key, members in groups.items():
        other_key = (*key[:at], first, *key[at + 1 :])
        common = [name for name in members if name in groups.get(other_key, {})]
        if key[at] == first or not common:
            continue
        more, less = ([of[name] for name in common] for of in (members, groups[other_key]))
        ruled = _ruled(more, less, base, varied)
        called = [
            _called(dict(zip(names, k, strict=True)), of, common, everywhere, ruled)
            for k, of in ((key, more), (other_key, less))
        ]
        alike = (*(v for n, v in zip(names, key, strict=True) if n != "policy"), *common)
        pairs.append(
            Pair(
                called[0], called[1], CellGroup(tuple(more)), CellGroup(tuple(less)), key[names.index("policy")], alike
            )
        )
    return pairs


def _ruled(more: Sequence[Cell], less: Sequence[Cell], base: TrainConfig, varied: Sequence[str]) -> list[str]:
    """Fields that a rule sets and in which the two sides differ."""
    names: dict[str, None] = {}
    for one, other in zip(more, less, strict=True):
        for name in [*other_fields(one.config, base), *other_fields(other.config, base)]:
            if name not in varied and one.config.fields[name] != other.config.fields[name]:
                names[name] = None
    return list(names)


def _called(
    own: dict[str, str], cells: Sequence[Cell], common: Sequence[str], everywhere: int, ruled: Sequence[str]
) -> str:
    """The name of a group: its layers, or what is said of layers where it holds several shapes."""
    shape = word(cells[0].config.network.layers)
    if len(cells) > 1:
        many = "s" * (own.get("depth") != "1")
        shape = f"{own['width']} neurons" if "width" in own else f"{own['depth']} layer{many}"
        if len(cells) < everywhere:
            shape += f" ({', '.join(common)})"
    others = [f"{name} {value}" for name, value in own.items() if name not in ("policy", "depth", "width")]
    by_rule = [f"{name} {', '.join(dict.fromkeys(word(cell.config.fields[name]) for cell in cells))}" for name in ruled]
    name, widths = cells[0].config.actor
    return ", ".join([f"{own['policy']} {shape}" if widths else name.upper(), *others, *by_rule])


def _row(name: str, less: str, plus: Sequence[CellGroup], minus: Sequence[CellGroup]) -> list[str]:
    """The sum of some groups less that of others, over the seeds that all have."""
    values = []
    for measure in MEASURES:
        added = [group.means(measure) for group in plus]
        subtracted = [group.means(measure) for group in minus]
        seeds = sorted(set.intersection(*(set(of) for of in (*added, *subtracted))))
        values.append([sum(of[seed] for of in added) - sum(of[seed] for of in subtracted) for seed in seeds])
    return [name, less, str(len(values[0])), *map(_interval, values)]


def _others(series: Series) -> list[str]:
    return [name for name in series.varied if name not in ("policy", "layers")]


def _factors(cell: Cell, varied: Sequence[str]) -> dict[str, str]:
    layers = cell.config.network.layers
    width = str(layers[0]) if len(set(layers)) == 1 else word(layers)
    others = {name: word(cell.config.fields[name]) for name in varied}
    return {"policy": cell.config.network.policy.upper(), "depth": str(len(layers)), "width": width, **others}


def _interval(values: Sequence[float]) -> str:
    if len(values) < 2:
        return number(values[0]) if values else "-"
    return f"{number(float(np.mean(values)))} ± {number(interval95(np.array(values)))}"


def number(value: float | None) -> str:
    """As tables show it."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.1f}"
