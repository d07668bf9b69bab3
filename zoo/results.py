"""Write docs/zoo.md: every policy that is kept, seed by seed, beside the best published returns.

    python zoo/results.py

Numbers are read from the zoo's folders: `config.json`, the evaluations, the program. Published returns stand in
`zoo/published.toml`, the returns that are aimed at in the recipe `zoo`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import nervecord
from nervecord.runtime.result import interval95
from nervecord.training.recipes.recipe import read_recipe

ZOO = Path(__file__).parent
DOCUMENT = ZOO.parent / "docs" / "zoo.md"
TASKS = ("Ant-v4", "HalfCheetah-v4", "Hopper-v4", "Walker2d-v4", "Humanoid-v4")
HEAD = """# Trained policies beside published ones

Written by `python zoo/results.py` from the evaluations in `zoo/`; every policy's own page has more. Returns are means
with 95 % intervals over held-out episodes without noise, the same for both columns. Loss: the mean difference between
the returns of the float policy and of the compiled one on the same episode, relative to the float policy's mean.
Weights have 8 bits, in two slices where the page says so. Spikes are those of hidden neurons.
"""


@dataclass(frozen=True)
class Row:
    """A policy of one seed: the evaluations of both sides."""

    name: str
    task: str
    seed: int
    sides: tuple[list[dict[str, Any]], list[dict[str, Any]]]
    cores: int | None

    def returns(self, side: int) -> Any:
        """Of every episode: side 0 is in floats, side 1 in fixed point."""
        return np.concatenate([block["return_each"] for block in self.sides[side]])

    def mean(self, side: int) -> str:
        """Mean return with its interval."""
        values = self.returns(side)
        return f"{values.mean():,.0f} ± {interval95(values):,.0f}"

    @property
    def loss(self) -> str:
        """Mean loss in parts of the float policy's return, with its interval."""
        plain = self.returns(0)
        losses = plain - self.returns(1)
        return f"{100 * losses.mean() / plain.mean():z.1f} % ± {100 * interval95(losses) / plain.mean():.1f} %"

    def count(self, name: str) -> str:
        """A count for each action in fixed point."""
        return f"{np.mean([block[name] for block in self.sides[1]]):,.0f}"


def rows() -> Iterator[Row]:
    """The policies of the five tasks, the best of a task first."""
    entries = []
    for folder in sorted(path.parent for path in ZOO.glob("*/policy.nir")):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        # Of the same training with another seed, the folder seed-N has the evaluations alone.
        seeds = {folder: config["run"]["seed"]}
        seeds |= {other: int(other.name.removeprefix("seed-")) for other in folder.glob("seed-*")}
        for place, seed in seeds.items():
            program = nervecord.load(folder / f"{folder.name}.nervecord")
            row = Row(
                folder.name,
                config["task"]["env"],
                seed,
                (_blocks(place, "float"), _blocks(place, "fixed")),
                # The same network takes the same cores, whatever its seed.
                program.report["placement"]["cores"],
            )
            if row.task in TASKS:
                entries.append(row)
    yield from sorted(entries, key=lambda row: (TASKS.index(row.task), -row.returns(1).mean()))


def _blocks(place: Path, side: str) -> list[dict[str, Any]]:
    """The evaluations of a side; those of further seeds of episodes lie in a folder of their own."""
    files = [place / f"evaluation-{side}.json", *sorted(place.glob(f"evaluations/{side}-*.json"))]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def document() -> str:
    """The text of docs/zoo.md."""
    entries, aims = list(rows()), read_recipe("zoo").aims
    published = tomllib.loads((ZOO / "published.toml").read_text(encoding="utf-8"))
    lines = [HEAD, "## Policies\n"]
    lines.append(
        "| task | policy | seed | float64 | Loihi 2 fixed point | loss | episodes | spikes per action | synaptic "
        "operations per action | cores |"
    )
    lines.append(f"|{'---|' * 10}")
    for row in entries:
        cells = [
            row.task,
            f"[zoo/{row.name}](../zoo/{row.name}/README.md)",
            row.seed,
            row.mean(0),
            row.mean(1),
            row.loss,
            f"{len(row.returns(1)):,}",
            row.count("spikes_per_action"),
            row.count("synaptic_events_per_action"),
            "-" if row.cores is None else row.cores,
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["\n## Beside published returns\n"]
    lines.append(
        "| task | best here, fixed point | mean of its seeds | best spiking policy found | best without spikes found "
        "| aim |"
    )
    lines.append(f"|{'---|' * 6}")
    below, missing, short = [], [], []
    for task in TASKS:
        best = next((row for row in entries if row.task == task), None)
        spiking = published[task].get("spiking")
        ours = [best.mean(1) if best else "none", _over_seeds(best, entries)]
        theirs = [_published(spiking), _published(published[task]["plain"])]
        lines.append(f"| {' | '.join([task, *ours, *theirs])} | {aims[task]:,.0f} |")
        value = best.returns(1).mean() if best else None
        if value is None:
            missing.append(task)
        elif value < aims[task]:
            short.append(task)
        if value is not None and spiking and value < spiking["value"]:
            below.append(task)
    lines += [
        "\nPublished returns are means over training seeds where their source has several; those here are of the best",
        "seed and, in the next column, the mean over all kept seeds of the same policy, each counting once.\n",
        *_verdicts(below, missing, short),
        "\nSources; second-hand where another work's table gives the number:\n",
    ]
    lines += [f"- `{key}`: {text}" for key, text in published["sources"].items()]
    return "\n".join(lines) + "\n"


def _over_seeds(best: Row | None, entries: list[Row]) -> str:
    """The mean of what each seed of a policy returns in fixed point, and how many seeds there are."""
    means = [row.returns(1).mean() for row in entries if best is not None and row.name == best.name]
    return f"{np.mean(means):,.0f} ({len(means)} seeds)" if len(means) > 1 else "one seed"


def _published(entry: dict[str, Any] | None) -> str:
    return "none" if entry is None else f"{entry['value']:,.0f} ({entry['method']}, `{entry['source']}`)"


def _verdicts(below: list[str], missing: list[str], short: list[str]) -> list[str]:
    """What is not reached."""
    texts = [
        ("Below the best published spiking policy", below),
        ("Below the aim of the recipe `zoo` ([teacher.md](teacher.md#the-whole-chain))", short),
        ("Without a policy", missing),
    ]
    return [f"- {what}: {', '.join(tasks) or 'none'}." for what, tasks in texts]


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
