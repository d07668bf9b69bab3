"""The figures of a study: tested return against depth, or whatever a series varies, and learning curves."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nervecord.errors import MissingDependencyError, install_command
from nervecord.runtime.report.picture import COLOURS, save_figure
from nervecord.training.sweeps.study import Series, Study, word

if TYPE_CHECKING:
    from nervecord.training.sweeps.cells import Cell

PANEL = (4.2, 3.1)
"""Inches of one panel."""
_INK, _QUIET = "#22262a", "#5b6268"

Panel = tuple[str, Callable[[Any], None]]
"""Title, and what draws it into axes."""


def require() -> None:
    """Refuse to draw where matplotlib is missing.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "matplotlib is not installed", where="--report", hint=install_command("plot")
        ) from None


def draw_returns(path: str | os.PathLike[str], study: Study, cells: dict[str, Cell]) -> None:
    """Tested return: for each width against depth, for each further series against what it varies.

    Where that is several fields, the last is the axis, and each combination of the others a line.
    """
    panels: list[Panel] = []
    for series in study.series:
        others = [name for name in series.varied if name not in ("policy", "layers")]
        if series.is_search:
            panels += [_against_drawn(series, name, cells) for name in series.varied]
        elif "layers" in series.varied and not others:
            panels += _against_depth(series, cells)
        elif others:
            panels.append(_against_field(series, others[-1], cells))
        else:
            panels.append(_against_policy(series, cells))
    if panels:
        _save(panels, path, columns=3, ylabel="tested return")


def draw_curves(path: str | os.PathLike[str], study: Study, cells: dict[str, Cell]) -> None:
    """Learning curves: a panel for each width and depth of the first series, and one for each further series."""
    panels: list[Panel] = []
    first, *further = study.series
    groups: dict[tuple[int, ...], list[str]] = {}
    for name in first.cells:
        groups.setdefault(cells[name].config.network.layers, []).append(name)
    for layers, names in groups.items():
        panels.append((f"layers {word(layers)}", _curves(first, names, cells)))
    depths = len({len(layers) for layers in groups})
    panels += [(series.title, _curves(series, series.cells, cells, with_layers=True)) for series in further]
    _save(panels, path, columns=min(max(depths, 2), 4), ylabel="return while training", xlabel="environment steps")


def _label(series: Series, cell: Cell, *, without: Sequence[str] = (), with_layers: bool = False) -> str:
    name, widths = cell.config.actor
    parts = [name.upper(), *([widths] if widths and with_layers else ())]
    parts += [
        f"{name} {word(cell.config.fields[name])}"
        for name in series.varied
        if name not in ("policy", "layers", *without)
    ]
    return " ".join(parts)


def _against_depth(series: Series, cells: dict[str, Cell]) -> list[Panel]:
    """A panel for each width; layers of unequal widths have none."""
    widths: dict[int, dict[str, list[tuple[float, Cell]]]] = {}
    for name in series.cells:
        cell = cells[name]
        layers = cell.config.network.layers
        if len(set(layers)) == 1:
            lines = widths.setdefault(layers[0], {})
            lines.setdefault(_label(series, cell), []).append((float(len(layers)), cell))
    return [
        (f"{width} neurons in each layer", _medians(lines, "hidden layers", None))
        for width, lines in sorted(widths.items())
    ]


def _against_field(series: Series, field: str, cells: dict[str, Cell]) -> Panel:
    values = list(dict.fromkeys(cells[name].config.fields[field] for name in series.cells))
    with_layers = "layers" in series.varied
    lines: dict[str, list[tuple[float, Cell]]] = {}
    for name in series.cells:
        cell = cells[name]
        label = _label(series, cell, without=(field,), with_layers=with_layers)
        lines.setdefault(label, []).append((float(values.index(cell.config.fields[field])), cell))
    return series.title, _medians(lines, field.replace("_", " "), [word(value) for value in values])


def _against_drawn(series: Series, field: str, cells: dict[str, Cell]) -> Panel:
    """A dot for each configuration that was drawn: the median of its seeds against one of its fields."""
    finished = [cells[name] for name in series.cells if cells[name].finished]
    values = [cell.config.fields[field] for cell in finished]
    numbers = [value for value in values if type(value) in (int, float)]

    def draw(axes: Any) -> None:
        medians = [float(np.median(cell.tests)) for cell in finished]
        axes.scatter(values if len(numbers) == len(values) else [word(v) for v in values], medians, s=16, c=COLOURS[0])
        if numbers and min(numbers) > 0 and max(numbers) > 30 * min(numbers):
            axes.set_xscale("log")
        axes.set_xlabel(field.replace("_", " "))

    return f"{series.title}: {field.replace('_', ' ')}", draw


def _against_policy(series: Series, cells: dict[str, Cell]) -> Panel:
    lines = {_label(series, cells[name]): [(float(k), cells[name])] for k, name in enumerate(series.cells)}
    return series.title, _medians(lines, "policy", list(lines))


def _medians(lines: dict[str, list[tuple[float, Cell]]], xlabel: str, ticks: list[str] | None) -> Callable[[Any], None]:
    """Dots for seeds, a line through the medians, bars over the quartiles."""

    def draw(axes: Any) -> None:
        for k, (label, points) in enumerate(lines.items()):
            colour = COLOURS[k % len(COLOURS)]
            offset = 0.06 * (k - (len(lines) - 1) / 2)
            points = sorted(((x, cell) for x, cell in points if cell.finished), key=lambda point: point[0])
            for x, cell in points:
                tests = cell.tests
                axes.scatter([x + offset] * len(tests), tests, s=14, color=colour, alpha=0.5, linewidths=0)
                low, middle, high = np.quantile(tests, (0.25, 0.5, 0.75))
                axes.errorbar(x + offset, middle, [[middle - low], [high - middle]], color=colour, capsize=3, lw=1.3)
                if len(tests) < len(cell.seeds):
                    axes.annotate(
                        f"{len(tests)}/{len(cell.seeds)}",
                        (x + offset, middle),
                        xytext=(6, 3),
                        textcoords="offset points",
                        fontsize=7.5,
                        color=colour,
                    )
            middles = [float(np.median(cell.tests)) for _, cell in points]
            axes.plot([x + offset for x, _ in points], middles, "o-", color=colour, ms=5, lw=1.6, label=label)
        places = sorted({x for points in lines.values() for x, _ in points})
        axes.set_xticks(places, [f"{x:g}" for x in places] if ticks is None else [ticks[int(x)] for x in places])
        axes.set_xlim(places[0] - 0.5, places[-1] + 0.5)
        axes.set_xlabel(xlabel)
        axes.legend(frameon=False, fontsize=8.5)

    return draw


def _curves(
    series: Series, names: Sequence[str], cells: dict[str, Cell], *, with_layers: bool = False
) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        for k, name in enumerate(names):
            cell, colour = cells[name], COLOURS[k % len(COLOURS)]
            style = ("-", "--", ":", "-.")[k // len(COLOURS) % 4]
            runs = [run.curve for run in cell.finished if run.curve]
            for curve in runs:
                axes.plot(*zip(*curve, strict=True), color=colour, lw=0.7, alpha=0.4)
            text = f"{_label(series, cell, with_layers=with_layers)} ({len(cell.finished)} of {len(cell.seeds)} seeds)"
            steps, middles = _median_curve(runs)
            axes.plot(steps, middles, style, color=colour, lw=1.9, label=text)
        axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
        axes.legend(frameon=False, fontsize=8)

    return draw


def _median_curve(runs: Sequence[tuple[tuple[int, float], ...]]) -> tuple[list[int], list[float]]:
    """The median over runs at the steps that all of them have."""
    if not runs:
        return [], []
    tables = [dict(curve) for curve in runs]
    steps = [step for step in tables[0] if all(step in other for other in tables[1:])]
    return steps, [float(np.median([known[step] for known in tables])) for step in steps]


def _save(
    panels: Sequence[Panel], path: str | os.PathLike[str], *, columns: int, ylabel: str, xlabel: str = ""
) -> None:
    from matplotlib.figure import Figure

    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), dpi=130, facecolor="white", layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)  # all show returns of one task
    for k, axes in enumerate(grid.flat):
        if k >= len(panels):
            axes.axis("off")
            continue
        title, draw = panels[k]
        draw(axes)
        _style(axes, title)
        if k % columns == 0:
            axes.set_ylabel(ylabel)
        if xlabel:
            axes.set_xlabel(xlabel)
    save_figure(figure, path)


def _style(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#eceef0", lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5, colors=_QUIET)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_size(9)
        label.set_color(_QUIET)
