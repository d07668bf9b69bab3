"""The charts of a report, as Plotly figures in plain data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from nervecord.compiler.lower.reports import UNBOUNDED
from nervecord.runtime.report.html.drawing import GREY, INK, PALETTE
from nervecord.runtime.report.html.layout import printable

Figure: TypeAlias = dict[str, Any]
"""{"data": traces, "layout": layout}."""

DIVERGING = [[0.0, "#2166ac"], [0.5, "#f7f7f7"], [1.0, "#b2182b"]]
MOST_SPIKES = 20_000
"""In a raster; of a layer that fires more, the first neurons are drawn."""


def plain(text: str) -> str:
    """A name from a file as Plotly's text, which reads a few tags of HTML."""
    return printable(str(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _figure(data: Sequence[Mapping[str, Any]], *, height: int, x: str = "", y: str = "", **layout: Any) -> Figure:
    axis = {"gridcolor": "#eceef0", "zerolinecolor": "#d9dcdf", "linecolor": "#9aa1a7", "automargin": True}
    base: dict[str, Any] = {
        "height": height,
        # The toolbar appears on hover, and stands in the margin above the plot.
        "margin": {"l": 60, "r": 20, "t": 40, "b": 46},
        "modebar": {"orientation": "h", "bgcolor": "rgba(0,0,0,0)"},
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "hoverlabel": {"font": {"family": "system-ui, sans-serif"}},
        "xaxis": {**axis, "title": {"text": x, "font": {"color": GREY}}},
        "yaxis": {**axis, "title": {"text": y, "font": {"color": GREY}}},
    }
    for name, value in layout.items():
        base[name] = {**base[name], **value} if isinstance(base.get(name), dict) else value
    return {"data": list(data), "layout": base}


def weights(node: Mapping[str, Any], colour: str) -> Figure:
    """Histogram of a connection's weights that are not zero; `node` of `GraphFacts.to_dict`."""
    spread = node["weights"]
    edges, counts = spread["edges"], spread["counts"]
    centres = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    widths = [b - a for a, b in itertools.pairwise(edges)]
    bar = {
        "type": "bar",
        "x": centres,
        "y": counts,
        "width": widths,
        "marker": {"color": colour, "line": {"width": 0}},
        "hovertemplate": "%{x:.4g}: %{y:,}<extra></extra>",
    }
    return _figure([bar], height=220, x="weight", y="number", bargap=0)


def ranges(layers: Sequence[Mapping[str, Any]]) -> Figure:
    """Proved ranges of accumulators and membranes, as shares of what the arithmetic holds."""
    names = [plain(layer["layer"]) for layer in layers]

    def bars(low: Sequence[float], high: Sequence[float], name: str, colour: str) -> dict[str, Any]:
        return {
            "type": "bar",
            "orientation": "h",
            "y": names,
            "base": list(low),
            "name": name,
            "marker": {"color": colour},
            "x": [b - a for a, b in zip(low, high, strict=True)],
            "customdata": [[a, b] for a, b in zip(low, high, strict=True)],
            "hovertemplate": "%{y}, " + name + ": %{customdata[0]:.1%} to %{customdata[1]:.1%}<extra></extra>",
        }

    def share(value: float | None, limit: float) -> float:
        part = (value or 0.0) / limit if limit else 0.0
        # What nothing bounds saturates at the limit.
        return part if abs(value or 0.0) < UNBOUNDED else math.copysign(1.0, part)

    traces = [
        bars(
            [-share(layer["accumulator"], layer["accumulator_limit"]) for layer in layers],
            [share(layer["accumulator"], layer["accumulator_limit"]) for layer in layers],
            "accumulator",
            PALETTE[0],
        ),
        bars(
            [share(layer["membrane_low"], layer["membrane_limit"]) for layer in layers],
            [share(layer["membrane_high"], layer["membrane_limit"]) for layer in layers],
            "membrane",
            PALETTE[1],
        ),
        {
            "type": "scatter",
            "mode": "markers",
            "name": "threshold",
            "y": names,
            "x": [
                None if layer["threshold"] is None else share(layer["threshold"], layer["membrane_limit"])
                for layer in layers
            ],
            "marker": {"symbol": "diamond", "size": 9, "color": INK},
            "hovertemplate": "%{y}, threshold: %{x:.2%}<extra></extra>",
        },
    ]
    return _figure(
        traces,
        height=110 + 46 * len(layers),
        x="share of what the arithmetic holds",
        barmode="group",
        showlegend=True,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        xaxis={"range": [-1.02, 1.02], "tickformat": ".0%"},
        yaxis={"autorange": "reversed"},
        shapes=[
            {
                "type": "line",
                "x0": x,
                "x1": x,
                "y0": 0,
                "y1": 1,
                "yref": "paper",
                "line": {"color": "#c8502a", "dash": "dot", "width": 1.5},
            }
            for x in (-1, 1)
        ],
    )


def rates(layer: Mapping[str, Any], seconds: float, colour: str) -> Figure:
    """Histogram of the neurons' firing rates, Hz of the robot's time; `layer` of `Activity.to_dict`."""
    per_second = layer["steps"] / seconds
    bar = {
        "type": "histogram",
        "x": [rate * per_second for rate in layer["rates"]],
        "nbinsx": 40,
        "marker": {"color": colour},
        "hovertemplate": "%{x} Hz: %{y} neurons<extra></extra>",
    }
    return _figure([bar], height=250, x="spikes per second", y="neurons", bargap=0.04)


def raster(layers: Sequence[Mapping[str, Any]], seconds: float) -> tuple[Figure, str]:
    """Spikes over time, layer above layer; and a sentence where not all are drawn."""
    traces, note, base, budget = [], "", 0, MOST_SPIKES
    ticks: list[tuple[float, str]] = []
    for number, layer in enumerate(layers):
        steps, neurons = layer["spikes"]
        neuron_count = layer["neurons"]
        if len(steps) > budget:
            neuron_count = max(1, int(layer["neurons"] * budget / len(steps)))
            note = f"Of {layer['layer']} the first {neuron_count:,} of {layer['neurons']:,} neurons are drawn."
        spikes = [(s, n) for s, n in zip(steps, neurons, strict=True) if n < neuron_count]
        budget = max(0, budget - len(spikes))
        step = seconds / max(layer["steps"], 1)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(layer["layer"]),
                "x": [round(s * step, 6) for s, _ in spikes],
                "y": [base + n for _, n in spikes],
                "marker": {"symbol": "line-ns-open", "size": 4, "color": PALETTE[number % len(PALETTE)]},
                "hovertemplate": "%{x:.3f} s, neuron %{customdata}<extra>" + plain(layer["layer"]) + "</extra>",
                "customdata": [n for _, n in spikes],
            }
        )
        ticks.append((base + neuron_count / 2, plain(layer["layer"])))
        base += neuron_count + max(1, neuron_count // 40)
    y = {"tickvals": [at for at, _ in ticks], "ticktext": [name for _, name in ticks], "range": [-1, base]}
    height = min(640, 160 + 2 * base)
    return _figure(traces, height=height, x="time (s)", yaxis=y, xaxis={"range": [0, seconds]}), note


def actions(activity: Mapping[str, Any], names: Sequence[str], choices: Sequence[str], period: float) -> Figure:
    """Actions over time: a heat map over the channels, or steps between choices."""
    rows = activity["actions"]
    times = [round(k * period, 6) for k in range(len(rows))]
    if choices:
        line = {
            "type": "scatter",
            "mode": "lines",
            "line": {"shape": "hv", "color": PALETTE[0]},
            "x": times,
            "y": [row[0] for row in rows],
        }
        y = {"tickvals": list(range(len(choices))), "ticktext": [plain(name) for name in choices]}
        return _figure([line], height=260, x="time (s)", yaxis=y)
    most = max((abs(value) for row in rows for value in row), default=1.0) or 1.0
    heat = {
        "type": "heatmap",
        "x": times,
        "y": [plain(name) for name in names],
        "z": [list(channel) for channel in zip(*rows, strict=True)],
        "zmin": -most,
        "zmax": most,
        "colorscale": DIVERGING,
        "colorbar": {"thickness": 12},
        "hovertemplate": "%{x:.2f} s, %{y}: %{z:.3f}<extra></extra>",
    }
    return _figure([heat], height=max(230, 90 + 24 * len(names)), x="time (s)", yaxis={"autorange": "reversed"})


def returns(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> Figure:
    """Return of each episode and the means with their intervals; (label, `Result.to_dict`)."""
    traces: list[dict[str, Any]] = []
    for number, (label, result) in enumerate(runs):
        colour = PALETTE[number % len(PALETTE)]
        each = result["return_each"]
        # Spread by the golden ratio: points of the same height stay apart, the same way every time.
        x = [number - 0.18 + 0.36 * math.modf(k * 0.618033988749895)[0] for k in range(len(each))]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": x,
                "y": each,
                "name": plain(label),
                "marker": {"color": colour, "opacity": 0.45, "size": 7},
                "customdata": list(range(len(each))),
                "hovertemplate": "episode %{customdata}: %{y:,.1f}<extra></extra>",
            }
        )
        half = result["return_ci95"]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [number + 0.3],
                "y": [result["return_mean"]],
                "marker": {"color": colour, "size": 9},
                "error_y": {"type": "data", "array": [half or 0.0], "visible": half is not None, "color": colour},
                "hovertemplate": "mean %{y:,.1f}<extra>" + plain(label) + "</extra>",
            }
        )
    x_axis = {
        "tickvals": list(range(len(runs))),
        "ticktext": [plain(label) for label, _ in runs],
        "range": [-0.5, len(runs) - 0.3],
        "showgrid": False,
        "zeroline": False,
    }
    return _figure(traces, height=320, y="return of an episode", xaxis=x_axis)


def errors(layers: Sequence[Mapping[str, Any]]) -> Figure:
    """Rounding of weights, per layer: root mean square and largest, as shares of the layer's largest weight."""
    names = [plain(layer["layer"]) for layer in layers]
    traces = [
        {
            "type": "bar",
            "name": label,
            "x": names,
            "y": [layer.get(key) for layer in layers],
            "marker": {"color": colour},
            "hovertemplate": "%{x}: %{y:.3%}<extra>" + label + "</extra>",
        }
        for label, key, colour in (
            ("root mean square", "weight_error_rms", PALETTE[0]),
            ("largest", "weight_error_max", PALETTE[1]),
        )
    ]
    return _figure(
        traces,
        height=280,
        y="error of a weight",
        barmode="group",
        showlegend=True,
        yaxis={"tickformat": ".2%"},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
    )


def parting(comparison: Mapping[str, Any]) -> Figure:
    """Share of each layer's values that differ; `Comparison.to_dict`."""
    layers = comparison["layers"]
    bar = {
        "type": "bar",
        "x": [plain(layer["layer"]) for layer in layers],
        "y": [layer["different"] / max(layer["compared"], 1) for layer in layers],
        "customdata": [[layer["different"], layer["compared"]] for layer in layers],
        "marker": {"color": [PALETTE[k % len(PALETTE)] for k in range(len(layers))]},
        "hovertemplate": "%{x}: %{customdata[0]:,} of %{customdata[1]:,}<extra></extra>",
    }
    return _figure([bar], height=280, y="values that differ", yaxis={"tickformat": ".2%", "rangemode": "tozero"})


def use(resources: Mapping[str, Any], limits: Mapping[str, Any]) -> Figure:
    """What is used of each limit, on a scale of powers of ten: most lie far below."""
    shares = {name: share for name, share in resources["utilisation"].items() if share}
    names = [name.replace("_", " ") for name in shares]
    over = [share > 1 for share in shares.values()]
    sure = [limits.get(name, {}).get("confidence") in ("exact", "given") for name in shares]
    bar = {
        "type": "bar",
        "orientation": "h",
        "y": names,
        "x": list(shares.values()),
        "marker": {
            "color": ["#c8502a" if o else PALETTE[0] for o in over],
            "pattern": {"shape": ["" if s else "/" for s in sure]},
        },
        "customdata": [limits.get(name, {}).get("confidence", "") for name in shares],
        "hovertemplate": "%{y}: %{x:.3%} of the limit (%{customdata})<extra></extra>",
    }
    low = min([0.001, *shares.values()])
    high = max([1.0, *shares.values()])
    x = {
        "type": "log",
        "range": [math.floor(math.log10(low)), math.log10(high) + 0.08],
        "tickformat": ".3~%",
        "dtick": 1,
    }
    line = {
        "type": "line",
        "x0": 1,
        "x1": 1,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"color": "#c8502a", "dash": "dot"},
    }
    return _figure(
        [bar],
        height=90 + 26 * len(names),
        x="share of the limit; hatched: the limit is not official",
        xaxis=x,
        yaxis={"autorange": "reversed"},
        shapes=[line],
    )
