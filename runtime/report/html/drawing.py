"""The graph as a picture: boxes from input to output, host and core apart, the cores of a target in colour."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nervecord.runtime.report.html.layout import Layout, lay_out, printable

PALETTE = ("#3d6b9c", "#c8502a", "#4c8c6b", "#8a5f9e", "#b8860b", "#4a8fa8", "#a0486b", "#6b7b3a")
"""One colour for each population's cores; they repeat."""
INK, GREY, LINE = "#22262a", "#5b6268", "#9aa1a7"
BOX = (1.5, 0.92)
"""Width and height of a node, inches."""
GAP = (0.42, 0.34)
NAME_LENGTH = 18


@dataclass(frozen=True, slots=True)
class Cores:
    """The cores that a population sits on. first, last: counted over the target from 0."""

    colour: str
    first: int | None = None
    last: int | None = None

    def __str__(self) -> str:
        if self.first is None or self.last is None:
            return ""
        return f"core {self.first}" if self.first == self.last else f"cores {self.first:,} to {self.last:,}"


def draw_svg(graph: Mapping[str, Any], placement: Mapping[str, Any] | None = None, *, title: str = "") -> str:
    """An SVG document of the graph; the same input gives the same text.

    Args:
        graph: `GraphFacts.to_dict`. placement: `Placement.to_dict` of the same graph on a target.
        title: of the target, at the region that holds the core.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    layout = lay_out(graph)
    width = layout.columns * (BOX[0] + GAP[0]) + GAP[0]
    height = layout.rows * (BOX[1] + GAP[1]) + 0.55
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    cores = cores_of(graph, placement)
    nodes = {node["id"]: node for node in graph["nodes"]}
    # `add_artist`, as `add_patch` measures each shape for limits of the axes, which are set above.
    _region(axes, layout, nodes, title)
    for a, b in graph["edges"]:
        _edge(axes, layout, a, b)
    for name, node in nodes.items():
        _box(axes, _corner(layout, name), node, cores.get(name))
    out = io.StringIO()
    # Text stays text, so that it can be found and copied; ids do not depend on the clock.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nervecord", "font.family": "sans-serif"}):
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    return out.getvalue()


def cores_of(graph: Mapping[str, Any], placement: Mapping[str, Any] | None) -> dict[str, Cores]:
    """Node -> the cores that hold it: of a population its own, of a connection those of what it feeds."""
    cores: dict[str, Cores] = {}
    if placement is None:
        return cores
    first = 0
    for number, layer in enumerate(placement["layers"]):
        colour = PALETTE[number % len(PALETTE)]
        if layer["cores"] is None:
            cores[layer["name"]] = Cores(colour)
        else:
            cores[layer["name"]] = Cores(colour, first, first + layer["cores"] - 1)
            first += layer["cores"]
    following: dict[str, list[str]] = {}
    for a, b in graph["edges"]:
        following.setdefault(a, []).append(b)
    for node in graph["nodes"]:
        at, visited = node["id"], set()
        while node["side"] == "core" and at not in cores and at not in visited and at in following:
            visited.add(at)
            at = following[at][0]
        if node["side"] == "core" and at in cores:
            cores.setdefault(node["id"], Cores(cores[at].colour))
    return cores


def _corner(layout: Layout, name: str) -> tuple[float, float]:
    column, row = layout.places[name]
    return GAP[0] + column * (BOX[0] + GAP[0]), 0.55 + row * (BOX[1] + GAP[1])


def _region(axes: Any, layout: Layout, nodes: Mapping[str, Mapping[str, Any]], title: str) -> None:
    """A rounded field behind what runs on the core, where no host node would lie in it."""
    from matplotlib.patches import FancyBboxPatch

    columns = [layout.places[name][0] for name, node in nodes.items() if node["side"] == "core"]
    inside = [
        node for name, node in nodes.items() if columns and min(columns) <= layout.places[name][0] <= max(columns)
    ]
    if not columns or any(node["side"] == "host" for node in inside):
        return
    left, right = (GAP[0] + column * (BOX[0] + GAP[0]) for column in (min(columns), max(columns)))
    margin = GAP[0] * 0.42
    low = 0.55 + layout.rows * (BOX[1] + GAP[1]) - GAP[1] + margin
    axes.add_artist(
        FancyBboxPatch(
            (left - margin, 0.55 - margin),
            right - left + BOX[0] + 2 * margin,
            low - 0.55 + margin,
            boxstyle="round,pad=0,rounding_size=0.12",
            fc="#f2f6fa",
            ec="#c5d3e0",
            lw=1,
            zorder=0,
        )
    )
    label = "core" + (f": {printable(title, 60)}" if title else "")
    axes.text(left, 0.26, label, fontsize=9, color="#3d6b9c", va="center", parse_math=False, fontweight="bold")
    if min(columns):
        axes.text(GAP[0], 0.26, "host", fontsize=9, color=GREY, va="center", fontweight="bold")


def _box(axes: Any, corner: tuple[float, float], node: Mapping[str, Any], cores: Cores | None) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = corner
    host = node["side"] == "host"
    colour = LINE if host else cores.colour if cores else "#3d6b9c"
    holds = cores is not None and cores.first is not None
    axes.add_artist(
        FancyBboxPatch(
            (x, y),
            *BOX,
            boxstyle="round,pad=0,rounding_size=0.07",
            lw=1.2 if host else 1.6,
            fc="#f7f8f8" if host else "white",
            ec=colour,
            ls=(0, (4, 2)) if host else "-",
            zorder=3,
        )
    )
    if holds:
        axes.add_artist(
            FancyBboxPatch(
                (x, y), BOX[0], 0.06, boxstyle="round,pad=0,rounding_size=0.03", fc=colour, ec=colour, lw=1.6, zorder=4
            )
        )
    shape = "x".join(map(str, node["shape"]))
    lines: Sequence[tuple[str, float, str, str]] = (
        (printable(node["name"], NAME_LENGTH), 9.5, INK, "bold"),
        (printable(node["kind"], 26), 7.5, GREY, "normal"),
        (f"{shape}" + (f" · {node['parameters']:,} parameters" if node["parameters"] else ""), 7.5, GREY, "normal"),
        (str(cores) if holds else "on a loop" if node["recurrent"] else "", 7.5, colour, "bold"),
    )
    for k, (text, size, ink, weight) in enumerate(lines):
        axes.text(
            x + BOX[0] / 2,
            y + 0.2 + k * 0.195,
            text,
            fontsize=size,
            color=ink,
            ha="center",
            va="center",
            fontweight=weight,
            parse_math=False,
            zorder=5,
        )


def _edge(axes: Any, layout: Layout, a: str, b: str) -> None:
    """An arrow; one that passes over columns, or returns, swings out of their way."""
    from matplotlib.patches import FancyArrowPatch

    (xa, ya), (xb, yb) = _corner(layout, a), _corner(layout, b)
    back = (a, b) in layout.back
    span = layout.places[b][0] - layout.places[a][0]
    middle = BOX[1] / 2
    if a == b or back:
        # Over the top where it comes from above or from the same row, else below: nothing of its own lies there.
        above = ya <= yb and a != b
        side = 0.0 if above else BOX[1]
        start, end = (xa + BOX[0] * 0.5, ya + side), (xb + BOX[0] * 0.5, yb + side)
        bend = 0.35 if above else -0.35
        if a == b:
            start, end, bend = (xa + BOX[0] * 0.75, ya + side), (xa + BOX[0] * 0.25, ya + side), -0.8
    else:
        start, end = (xa + BOX[0], ya + middle), (xb, yb + middle)
        bend = 0.0 if span <= 1 else -0.22
    axes.add_artist(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=10,
            lw=1.3,
            color="#c8502a" if back or a == b else GREY,
            connectionstyle=f"arc3,rad={bend}",
            shrinkA=0,
            shrinkB=1,
            zorder=2 if not back else 4,
        )
    )
