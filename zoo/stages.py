"""Draw the learning curve of a policy that was trained in stages: `python zoo/stages.py zoo/NAME`.

The stages are the folders in `stages/`, in the order of their names, and then the folder itself. Each begins where the
one before it ended. Writes `stages.png`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from nervecord.training.settings.config import TrainConfig

COLOURS = ("#2c6fbb", "#2a9d8f", "#e9a23b", "#8d99ae", "#6a4c93", "#d1495b", "#1b1b1e", "#b5651d", "#0b7a75")

EPISODES = 100
"""A training return is the mean of so many."""

LENGTH = 1000
"""Steps of a whole episode. With exact resuming simulators begin anew at every checkpoint: where that is sooner, only
falls end."""


NAMES = {"ppo": "PPO", "distill": "distillation", "finetune": "fine-tuning"}
"""What the pictures call algorithms; others by their name in capitals."""


def read(folder: Path) -> TrainConfig:
    """The configuration of a stage."""
    path = folder / "config.json"
    return TrainConfig.from_json(path.read_text(), where=str(path))


def rows(folder: Path) -> list[dict[str, Any]]:
    """The kept rows of a stage's metrics."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def label(folder: Path, number: int) -> str:
    """What a stage was."""
    config = read(folder)
    policy = "spiking" if config.network.policy == "snn" else "without spikes"
    return f"{number}. {policy}, {NAMES.get(config.algorithm.name, config.algorithm.name.upper())}"


def trained_rows(folder: Path, number: int) -> list[dict[str, Any]]:
    """Rows whose training return says something: none where only falls end, and not those of the first falls."""
    config = read(folder)
    if config.run.exact_resume and config.run.checkpoint_every < LENGTH * config.algorithm.num_envs:
        return []
    return [row for row in rows(folder) if row["episodes"] and (number == 1 or row["episodes"] >= EPISODES)]


def draw(folder: Path) -> None:
    """Write `stages.png` of one zoo folder."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), dpi=130, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    before = 0.0
    for number, stage in enumerate([*sorted((folder / "stages").iterdir()), folder], 1):
        colour = COLOURS[(number - 1) % len(COLOURS)]
        metrics = rows(stage)
        trained = [(before + row["step"] / 1e6, row["train_return"]) for row in trained_rows(stage, number)]
        validated = [
            (before + row["step"] / 1e6, row["validation_return"])
            for row in metrics
            if row["validation_return"] is not None
        ]
        axes.plot([x for x, _ in trained], [y for _, y in trained], color=colour, lw=1.3, label=label(stage, number))
        if validated:
            axes.plot(*zip(*validated, strict=True), "o", color=colour, markersize=4)
        path = stage / "result.json"
        result = json.loads(path.read_text()) if path.is_file() else {"test": None}
        if result["test"]:
            end = before + result["step"] / 1e6
            axes.plot([end], [result["test"]["mean_return"]], "D", color=colour, markersize=5)
        before += metrics[-1]["step"] / 1e6
    axes.set_xlabel("environment steps of all stages, millions")
    axes.set_ylabel("return (lines: with action noise;\nwithout: dots validation, diamonds test)", fontsize=8)
    axes.grid(color="#e5e7e9", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower center")
    figure.savefig(folder / "stages.png")


def main() -> int:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the zoo")
    draw(parser.parse_args().folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
