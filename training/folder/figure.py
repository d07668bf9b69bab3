"""The learning curve of a run folder as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nervecord.runtime.report.picture import save_figure
from nervecord.training.folder.records import number_of, read_columns, read_record


def draw_learning_curve(folder: Path, path: Path, *, title: str = "") -> None:
    """Draw a run's returns against its steps, from `metrics.jsonl` and `result.json`.

    Args:
        folder: the run folder.
        path: .png, .svg or .pdf to write.
        title: above the axes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_columns(folder / "metrics.jsonl", "train_return", "validation_return")
    figure = Figure(figsize=(8, 4.2), dpi=130, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    trained = [(step / 1e6, value) for step, value, _ in rows if value is not None]
    if trained:
        axes.plot(*zip(*trained, strict=True), color="#2c6fbb", linewidth=1.3, label="training, with action noise")
    validated = [(step / 1e6, value) for step, _, value in rows if value is not None]
    if validated:
        axes.plot(*zip(*validated, strict=True), "o", color="#d1495b", markersize=4, label="validation, deterministic")
    _draw_result(axes, folder / "result.json")
    axes.set_xlabel("environment steps, millions")
    axes.set_ylabel("return")
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(color="#e5e7e9", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    save_figure(figure, path)


def _draw_result(axes: Any, path: Path) -> None:
    result = read_record(path) if path.exists() else {}
    if result.get("test") is None:
        return
    where = str(path)
    step, mean, episodes = (
        number_of(result, *names, where=where) for names in (("step",), ("test", "mean_return"), ("test", "episodes"))
    )
    interval = result["test"].get("interval95")
    interval = interval if isinstance(interval, list) and len(interval) == 2 else None  # one episode has none
    low, high = (number_of({"interval95": end}, "interval95", where=where) for end in interval or (mean, mean))
    axes.errorbar(
        [step / 1e6],
        [mean],
        [[mean - low], [high - mean]],
        fmt="D",
        color="#1b1b1e",
        markersize=5,
        capsize=3,
        label=f"test, {episodes} other episodes" + (", 95 % interval" if interval else ""),
    )
