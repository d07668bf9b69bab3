"""What one thing changes in a study, seed by seed.

Runs with the same seed see the same environments, so they are no independent values: what two configurations differ by
is taken of each seed, and the interval is that of the differences. For the same reason runs of several widths are not
pooled as if each were a value; a seed is one, its mean over the widths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nervecord.runtime.result import interval95
from nervecord.training.sweeps.cells import Cell, Finished
from nervecord.training.sweeps.study import Series, word

Measure = Callable[[Finished], float | None]
MEASURES: tuple[Measure, ...] = (lambda run: run.test, lambda run: run.training)
"""Tested return, and return while training."""


@dataclass(frozen=True, slots=True)
class Group:
    """Cells that are taken together: those of one kind and depth over all widths, say."""

    name: str
    cells: tuple[Cell, ...]

    @property
    def seeds(self) -> list[int]:
        """Seeds that every cell has finished."""
        held = [{run.seed for run in cell.finished} for cell in self.cells]
        return sorted(set.intersection(*held))

    def means(self, measure: Measure) -> dict[int, float]:
        """Seed -> mean over the cells, where all have a value."""
        found = {}
        for seed in self.seeds:
            values = [measure(run) for cell in self.cells for run in cell.finished if run.seed == seed]
            known = [value for value in values if value is not None]
            if len(known) == len(values):
                found[seed] = float(np.mean(known))
        return found


def depth_table(series: Series, cells: dict[str, Cell]) -> list[list[str]]:
    """The rows of a series by number of layers, over all widths, headings first; none where that says nothing.

    Layers of unequal widths are left out.
    """
    varied = _others(series)
    pools: dict[tuple[str, ...], dict[str, Cell]] = {}
    for cell in (cells[name] for name in series.cells):
        own = _factors(cell, varied)
        if len(set(cell.config.network.layers)) == 1:
            pools.setdefault((own["policy"], own["depth"], *(own[name] for name in varied)), {})[own["width"]] = cell
    if len({depth for _, depth, *_ in pools}) < 2 or all(len(widths) < 2 for widths in pools.values()):
        return []
    rows = [["policy", "layers", *varied, "widths", "seeds", "mean, 95 % interval", "while training, 95 % interval"]]
    for key, widths in pools.items():
        group = Group("", tuple(widths.values()))
        values = [_interval(list(group.means(measure).values())) for measure in MEASURES]
        rows.append([*key, ", ".join(widths), str(len(group.seeds)), *values])
    return rows


def paired_table(series: Series, cells: dict[str, Cell]) -> list[list[str]]:
    """What one field changes: rows of configurations less those that differ in it alone, headings first.

    Each value of a field is compared with its first one. Depth and width of layers count as two fields, and what is
    said of one of them, or of another field, is of the mean over the other. Where kinds of policies are compared, so is
    what depth changes of them. None where nothing can be compared.
    """
    rows = [["this", "less this", "seeds", "tested return, 95 % interval", "while training, 95 % interval"]]
    varied = _others(series)
    by_depth: dict[str, list[tuple[Group, Group]]] = {}
    for field in ("depth", "width", "policy", *varied):
        for more, less, policy in _pairs([cells[name] for name in series.cells], field, varied):
            rows.append(_row(more.name, less.name, (more,), (less,)))
            if field == "depth":
                by_depth.setdefault(policy, []).append((more, less))
    if len(by_depth) == 2 and not varied:
        for (more, less), (other_more, other_less) in zip(*reversed(by_depth.values()), strict=False):
            name = f"{more.name} less {less.name}", f"{other_more.name} less {other_less.name}"
            rows.append(_row(*name, (more, other_less), (less, other_more)))
    return rows if len(rows) > 1 else []


def _pairs(cells: Sequence[Cell], field: str, varied: Sequence[str]) -> list[tuple[Group, Group, str]]:
    """Groups that differ in one field alone, the one with its first value second, and the kind of policy."""
    pooled = "depth" if field == "width" else "width"
    factors = [_factors(cell, varied) for cell in cells]
    several = len({own[pooled] for own in factors}) > 1
    groups: dict[tuple[str, ...], dict[str, Cell]] = {}
    for cell, own in zip(cells, factors, strict=True):
        key = tuple(value for name, value in own.items() if name != pooled)
        groups.setdefault(key, {})[own[pooled]] = cell
    names = [name for name in factors[0] if name != pooled]
    at = names.index(field)
    first = next(iter(groups))[at]
    found = []
    for key, members in groups.items():
        other = groups.get((*key[:at], first, *key[at + 1 :]))
        if key[at] == first or other is None or other.keys() != members.keys():
            continue
        pair = [
            Group(_called(dict(zip(names, k, strict=True)), m, several), tuple(m[name] for name in members))
            for k, m in ((key, members), ((*key[:at], first, *key[at + 1 :]), other))
        ]
        found.append((pair[0], pair[1], key[names.index("policy")]))
    return found


def _called(own: dict[str, str], members: dict[str, Cell], several: bool) -> str:
    """The name of a group: its layers, or what is said of layers where it holds several shapes."""
    shape = word(next(iter(members.values())).config.network.layers)
    if several:
        shape = f"{own['width']} neurons" if "width" in own else f"{own['depth']} layer{'s' * (own['depth'] != '1')}"
    others = [f"{name} {value}" for name, value in own.items() if name not in ("policy", "depth", "width")]
    return ", ".join([f"{own['policy']} {shape}", *others])


def _row(name: str, less: str, plus: Sequence[Group], minus: Sequence[Group]) -> list[str]:
    """The sum of some groups less that of others, over the seeds that all have."""
    values = []
    for measure in MEASURES:
        added = [group.means(measure) for group in plus]
        taken = [group.means(measure) for group in minus]
        seeds = sorted(set.intersection(*(set(held) for held in (*added, *taken))))
        values.append([sum(held[seed] for held in added) - sum(held[seed] for held in taken) for seed in seeds])
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
        return "-"
    return f"{number(float(np.mean(values)))} ± {number(interval95(np.array(values)))}"


def number(value: float | None) -> str:
    """As tables show it."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"
