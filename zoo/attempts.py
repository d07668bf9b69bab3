"""Draw every attempt at a teacher and at a spiking student of one: `python zoo/attempts.py`.

Teachers: what `zoo/ant-teacher` and `zoo/ant-teacher-3` keep of each, as it was validated. Students: the end of every
attempt in `zoo/ant-teacher/attempts/students.json`, and the validated curves of the one that is kept, `zoo/ant`, and of
the same chain with seed 2, `zoo/ant-teacher/attempts/students-seed2.jsonl`. Writes
`zoo/ant-teacher/attempts.png`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ZOO = Path(__file__).parent
TEACHER, SECOND = ZOO / "ant-teacher", ZOO / "ant-teacher-3"
COLOURS = {"distilled": "#2c6fbb", "PPO": "#e9a23b", "fine-tuned": "#d1495b"}
MARKERS = {"distilled": "o", "PPO": "s", "fine-tuned": "D"}


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def validated(folder: Path) -> list[dict[str, Any]]:
    """Rows of a kept training's metrics with a validated return."""
    return [row for row in lines(folder / "metrics.jsonl") if row["validation_return"] is not None]


Curve = list[tuple[int, float]]
"""Environment steps and validated returns of a training."""


def chains() -> list[tuple[str, str, Curve, Curve]]:
    """Name and line of each chain, and the validated curves of its distilled and of its fine-tuned student."""
    stages = (ZOO / "ant" / "stages" / "1-distilled", ZOO / "ant")
    curves = [[(row["step"], row["validation_return"]) for row in validated(folder)] for folder in stages]
    rows = lines(TEACHER / "attempts" / "students-seed2.jsonl")
    other = [
        [(row["step"], row["return"]) for row in rows if row["stage"] == stage] for stage in ("distilled", "fine-tuned")
    ]
    return [("seed 3", "-", curves[0], curves[1]), ("seed 2", "--", other[0], other[1])]


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
        rows = validated(folder)
        updates = [row.get("updates", 0) / 1e6 for row in rows]
        axes.plot(updates, [row["validation_return"] for row in rows], color=colour, lw=1.3, label=label)
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
    for seed, style, distilled, tuned in chains():
        axes.plot(
            [step / 1e6 for step, _ in distilled],
            [value for _, value in distilled],
            style,
            lw=1.0,
            color=COLOURS["distilled"],
            label=f"{seed}, as validated",
        )
        end, fill = distilled[-1][0], tuned[0][0]
        axes.plot(
            [(end + step - fill) / 1e6 for step, _ in tuned],
            [value for _, value in tuned],
            style,
            lw=1.0,
            color=COLOURS["fine-tuned"],
        )
    labels: set[str] = set()
    for one in json.loads((TEACHER / "attempts" / "students.json").read_text(encoding="utf-8")):
        how = one["how"]
        label = None if how in labels else how
        labels.add(how)
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
