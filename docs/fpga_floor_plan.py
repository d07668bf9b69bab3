"""Draws docs/fpga-floor-plan.png: how much of each tile of an iCE40 is configured, from what nextpnr writes.

nervecord compile policy.nir --target fpga --board icebreaker -o ant_fpga/      # without --place-and-route
make -C ant_fpga TOOLS=yowasp-
python docs/fpga_floor_plan.py ant_fpga/policy.asc
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import Patch

COLOURS = {
    "logic": ("logic", "Blues"),
    "ramb": ("block RAM", "Oranges"),
    "ramt": ("block RAM", "Oranges"),
    "dsp0": ("multipliers", "Greens"),
    "dsp1": ("multipliers", "Greens"),
    "dsp2": ("multipliers", "Greens"),
    "dsp3": ("multipliers", "Greens"),
    "ipcon": ("single-port RAM and others", "Purples"),
    "io": ("pins", "Greys"),
}
"""Kind of a tile in the text -> what it is, and the colours from empty to full."""


def tiles(text: str) -> list[tuple[int, int, str, int]]:
    """(x, y, kind, bits that are set) of each tile of a configuration in icestorm's text form."""
    matches = re.finditer(r"^\.(\w+)_tile (\d+) (\d+)\n((?:[01]+\n)+)", text, re.MULTILINE)
    return [(int(tile[2]), int(tile[3]), tile[1], tile[4].count("1")) for tile in matches]


def draw(text: str, title: str, path: Path) -> None:
    """A square for each tile, the darker the more of it is configured, against the fullest of its kind."""
    placed = tiles(text)
    fullest = {COLOURS[kind][0]: 1 for _, _, kind, _ in placed}
    for _, _, kind, bits in placed:
        fullest[COLOURS[kind][0]] = max(fullest[COLOURS[kind][0]], bits)
    figure, axes = plt.subplots(figsize=(5.6, 6.9), dpi=100, layout="constrained")
    for x, y, kind, bits in placed:
        name, colours = COLOURS[kind]
        share = bits / fullest[name]
        colour = plt.get_cmap(colours)(0.25 + 0.7 * share) if bits else "#f4f4f4"
        axes.add_patch(plt.Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, color=colour, linewidth=0))
    axes.set(
        xlim=(-1, max(x for x, *_ in placed) + 1),
        ylim=(-1, max(y for _, y, *_ in placed) + 1),
        xlabel="x, tiles",
        ylabel="y, tiles",
        aspect="equal",
    )
    axes.set_title(title, fontsize=9)
    legend = {COLOURS[kind] for _, _, kind, _ in placed}
    figure.legend(
        handles=[Patch(color=plt.get_cmap(colours)(0.7), label=name) for name, colours in sorted(legend)],
        loc="outside lower center",
        ncols=3,
        fontsize=7,
        frameon=False,
    )
    figure.savefig(path)


if __name__ == "__main__":
    draw(
        Path(sys.argv[1]).read_text(encoding="ascii"),
        "zoo/ant-small on an iCE40UP5K: what each tile is configured for",
        Path(__file__).with_name("fpga-floor-plan.png"),
    )
