"""Draw every attempt at a teacher and at a spiking student of one: `python zoo/attempts.py`.

Teachers: what `zoo/ant-teacher` and `zoo/ant-teacher-3` keep of each, as it was validated. Students: the end of every
attempt in `zoo/ant-teacher/attempts/students.json`, and the validated curve of the one that is kept, `zoo/ant`. Writes
`zoo/ant-teacher/attempts.png`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ZOO = Path(__file__).parent
TEACHER, SECOND = ZOO / "ant-teacher", ZOO / "ant-teacher-3"
OTHER = ZOO / "ant" / "other-seed"
CHAINS = (
    ("seed 3", "-", ZOO / "ant" / "stages" / "1-distilled", ZOO / "ant"),
    ("seed 2", "--", OTHER / "1-distilled", OTHER / "2-fine-tuned"),
)
"""Name and line of a chain, and its distilled and its fine-tuned student, both validated."""
COLOURS = {"distilled": "#2c6fbb", "PPO": "#e9a23b", "fine-tuned": "#d1495b"}
MARKERS = {"distilled": "o", "PPO": "s", "fine-tuned": "D"}


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def validated(folder: Path) -> list[dict[str, Any]]:
    """Rows of a kept training's metrics with a validated return."""
    return [row for row in lines(folder / "metrics.jsonl") if row["validation_return"] is not None]


def draw_teachers(axes: Any) -> None:
    """Validated return against updates, a line for each attempt."""
    first = lines(TEACHER / "attempts" / "seed1.jsonl")
    axes.plot(
        [row["updates"] / 1e6 for row in first],
        [row["return"] for row in first],
        color="#8d99ae",
        lw=1.3,
        label="seed 1, given up",
    )
    for folder, colour, label in ((TEACHER, "#1b1b1e", "seed 2"), (SECOND, "#2a9d8f", "seed 3")):
        kept = validated(folder)
        updates = [row.get("updates", 0) / 1e6 for row in kept]
        axes.plot(updates, [row["validation_return"] for row in kept], color=colour, lw=1.3, label=label)
    calm = lines(TEACHER / "attempts" / "calm.jsonl")
    axes.plot(
        [row["updates"] / 1e6 for row in calm],
        [row["return"] for row in calm],
        color="#9b5de5",
        lw=1.3,
        label="seed 2, with less noise",
    )
    axes.set_xlabel("updates of TD7, millions")
    axes.set_ylabel("mean return without noise", fontsize=8)


def draw_students(axes: Any) -> None:
    """Return against the steps a student learnt with: the end of each attempt, the curves of those kept."""
    for seed, style, first, then in CHAINS:
        distilled = validated(first)
        axes.plot(
            [row["step"] / 1e6 for row in distilled],
            [row["validation_return"] for row in distilled],
            style,
            lw=1.0,
            color=COLOURS["distilled"],
            label=f"{seed}, as validated",
        )
        tuned, end = validated(then), distilled[-1]["step"] / 1e6
        fill = tuned[0]["step"]
        axes.plot(
            [end + (row["step"] - fill) / 1e6 for row in tuned],
            [row["validation_return"] for row in tuned],
            style,
            lw=1.0,
            color=COLOURS["fine-tuned"],
        )
    named: set[str] = set()
    for one in json.loads((TEACHER / "attempts" / "students.json").read_text(encoding="utf-8")):
        how = one["how"]
        label = None if how in named else how
        named.add(how)
        axes.plot(
            [one["millions"]],
            [one["return"]],
            MARKERS[how],
            color=COLOURS[how],
            markersize=5,
            label=label,
            fillstyle="none" if one.get("bound") else "full",
        )
        name = f"{one['name']}, below {one['return']:,}" if one.get("bound") else one["name"]
        at, shift = (one["millions"], one["return"]), one.get("label", (4, -9))
        axes.annotate(name, at, xytext=shift, textcoords="offset points", fontsize=7)
    axes.set_xlabel("environment steps a student learnt with, millions")


def main() -> int:
    """Draw."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), dpi=130, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    teachers, students = figure.subplots(1, 2, sharey=True)
    draw_teachers(teachers)
    draw_students(students)
    for axes, title in ((teachers, "teachers, without spikes"), (students, "students, spiking")):
        axes.set_title(title, fontsize=9)
        axes.set_ylim(0, 10_500)
        axes.grid(color="#e5e7e9", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(TEACHER / "attempts.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
