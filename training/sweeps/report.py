"""What a study has come to so far: its cells as data, as text, and as a Markdown report with figures.

Numbers are read from the run folders alone, and only from finished runs. A cell is one configuration; its values are
the tested returns of its seeds, one for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nervecord.compiler.files.atomic import write_atomically
from nervecord.compiler.schema import printable
from nervecord.errors import NervecordError
from nervecord.training.folder.records import read_record, result_of
from nervecord.training.folder.run_folder import PACKAGES
from nervecord.training.sweeps.cells import Cell, other_fields, read_cells
from nervecord.training.sweeps.pairs import depth_table, number, paired_table
from nervecord.training.sweeps.standing import Standing, State
from nervecord.training.sweeps.study import Series, Study, word


def report_data(study: Study, cells: dict[str, Cell], standing: Standing | None = None) -> dict[str, Any]:
    """Everything the report says, as plain JSON types."""
    errors = {} if standing is None else dict(standing.errors)
    finished = sum(len(cell.finished) for cell in cells.values())
    return {
        "study": study.name,
        "folder": str(study.folder),
        "runs": len(study.runs),
        "finished": finished,
        "begun": 0 if standing is None else standing.count(State.BEGUN),
        "failed": errors,
        "total_steps": study.total_steps,
        "series": [
            {"title": series.title, "varied": list(series.varied), "cells": list(series.cells)}
            for series in study.series
        ],
        "cells": [cell.to_dict(study.base) for cell in cells.values()],
    }


def table(study: Study, series: Series, cells: dict[str, Cell]) -> list[list[str]]:
    """The rows of a series, headings first."""
    columns = list(
        dict.fromkeys(name for cell in series.cells for name in other_fields(cells[cell].config, study.base))
    )
    varied = [name for name in series.varied if name not in ("policy", "layers")]
    columns = [*varied, *(name for name in columns if name not in varied)]
    head = ["policy", "layers", *columns, "seeds", "median", "quartiles", "mean, 95 % interval", "while training"]
    rows = [head]
    for name in series.cells:
        cell = cells[name]
        data = cell.to_dict(study.base)
        test, training = data["test_return"], data["training_return"]["median"]
        quartiles = "-" if test["quartiles"] is None else " .. ".join(map(number, test["quartiles"]))
        mean = "-" if test["ci95"] is None else f"{number(test['mean'])} ± {number(test['ci95'])}"
        rows.append(
            [
                cell.config.actor[0].upper(),
                cell.config.actor[1] or "-",
                *(word(cell.config.fields[field]) for field in columns),
                _seeds(cell),
                number(test["median"]),
                quartiles,
                mean,
                number(training),
            ]
        )
    return rows


def _seeds(cell: Cell) -> str:
    text = f"{len(cell.finished)} of {len(cell.seeds)}"
    return text + (f", {len(cell.failed)} failed" if cell.failed else "")


def report_paths(target: str | Path) -> tuple[Path, Path, Path]:
    """The Markdown file and the two figures of a report: a name that ends in .md, or a folder.

    Raises:
        NervecordError: the folder of the file does not exist, or a folder cannot be made.
    """
    path = Path(target)
    if path.suffix.lower() != ".md":
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NervecordError(
                f"cannot be made: {error.strerror}", where=str(path), hint="a folder, or a file that ends in .md"
            ) from None
        path = path / "report.md"
    if not path.parent.is_dir():
        raise NervecordError(f"the folder {path.parent} does not exist", where="--report", hint="make it first")
    return path, path.with_name(f"{path.stem}-returns.png"), path.with_name(f"{path.stem}-curves.png")


def write_report(target: str | Path, study: Study, standing: Standing | None = None) -> list[Path]:
    """Write the report and its figures.

    Args:
        target: a file that ends in .md, with the figures beside it, or a folder.
        study, standing: what was asked for, and where it stands by its folder's word.

    Returns:
        What was written; no figures where nothing is finished.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        NervecordError: it cannot be written.
    """
    from nervecord.training.sweeps import plots as sweep_plots

    path, returns, curves = report_paths(target)
    sweep_plots.require()
    cells = read_cells(study, standing)
    written = [path]
    if any(cell.finished for cell in cells.values()):
        sweep_plots.draw_returns(returns, study, cells)
        sweep_plots.draw_curves(curves, study, cells)
        written += [returns, curves]
    text = markdown(study, cells, standing, [figure.name for figure in written[1:]])
    write_atomically(path, text.encode())
    return written


def markdown(study: Study, cells: dict[str, Cell], standing: Standing | None, figures: Sequence[str]) -> str:
    """The report as Markdown."""
    parts = [f"# Study: {study.name}", _summary(study), _completeness(study, cells, standing)]
    if study.notes:
        parts.append(study.notes)
    for series in study.series:
        parts += [f"## {series.title[:1].upper()}{series.title[1:]}", _pipes(table(study, series, cells))]
        if pooled := depth_table(series, cells):
            parts += ["By depth, each seed's mean over all widths:", _pipes(pooled)]
        if paired := paired_table(series, cells, study.base):
            parts += ["What one thing changes, seed by seed:", _pipes(paired)]
    if figures:
        returns, curves = figures
        parts += [
            "## Figures",
            f"![Tested return]({returns})",
            "Tested return: a dot for each seed, the line through the medians, bars from quartile to quartile. A "
            "fraction beside a median says how many of the planned seeds it has, where some are missing.",
            f"![Learning curves]({curves})",
            "Mean return of the last 100 training episodes, with noise: a thin line for each seed, a thick one for "
            "their median.",
        ]
    parts += ["## How it was measured", _method(study)]
    if standing is not None and standing.errors:
        lines = [f"- `{name}`: {' '.join(sentence.split())}" for name, sentence in standing.errors.items()]
        parts += ["## Failed runs", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _summary(study: Study) -> str:
    configs = [run.config for run in study.runs]
    tasks = ", ".join(dict.fromkeys(config.task.env for config in configs))
    return (
        f"{len(study.cells)} configurations on {tasks}, {len(study.runs)} runs of "
        f"{_range([config.total_steps for config in configs])} environment steps each, {study.total_steps:,} in all."
    )


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _completeness(study: Study, cells: dict[str, Cell], standing: Standing | None) -> str:
    finished = sum(len(cell.finished) for cell in cells.values())
    if finished == len(study.runs):
        return "All runs are finished."
    parts = [f"{finished} of {len(study.runs)} runs are finished"]
    if standing is not None:
        parts += [
            f"{count} {words}"
            for state, words in ((State.FAILED, "failed"), (State.BEGUN, "begun"))
            if (count := standing.count(state))
        ]
    empty = sum(not cell.finished for cell in cells.values())
    short = sum(0 < len(cell.finished) < len(cell.seeds) for cell in cells.values())
    return (
        f"**Not complete:** {', '.join(parts)}. {empty} configurations have no finished run and {short} have fewer "
        "seeds than planned: compare with care."
    )


def _pipes(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    aligned = {"policy", "layers", "widths", "this", "less this"}
    rule = [":--" if name in aligned else "--:" for name in head]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))


def _method(study: Study) -> str:
    base = study.base
    choice = (
        f"the checkpoint with the highest mean of {base.run.validation_episodes} deterministic episodes on validation "
        "seeds"
        if base.run.validation_episodes and base.run.export == "best"
        else "the last checkpoint"
    )
    text = (
        f"The tested policy is {choice}. Its tested return is the mean of {base.run.test_episodes} deterministic "
        "episodes on held-out test seeds; that is one value for each seed of a configuration. Median, quartiles "
        "(interpolated) and the 95 % interval of the mean (Student's t) are over the values of a row. Runs with the "
        "same seed begin in the same environments and need not be independent, so what two configurations differ by is "
        "taken seed by seed, with the interval of the differences. The return while training is the mean of the last "
        "100 training episodes, with action noise, at the end; the median over the seeds, where no mean is named."
    )
    lines = sorted({line for run in study.runs if (line := _versions(run.folder))})
    if not lines:
        return text
    return text + "\n\nTrained with:\n\n" + "\n".join(f"- {line}" for line in lines)


def _versions(folder: Path) -> str:
    """What trained a finished run, in one line."""
    path = folder / "versions.json"
    if result_of(folder) is None or not path.is_file():
        return ""
    record = read_record(path)
    versions = {name: printable(str(value)) for name, value in record.items()}
    installed = record.get("packages")
    known = installed if isinstance(installed, dict) else {}
    packages = ", ".join(f"{name} {printable(str(known[name]))}" for name in PACKAGES if known.get(name))
    commit = f", commit {versions['git_commit'][:12]}" if record.get("git_commit") else ""
    changed = ", with uncommitted changes" if (folder / "git.diff").is_file() else ""
    python, machine, cores = (versions.get(name, "unknown") for name in ("python", "machine", "cores"))
    return f"{packages}; Python {python} on {machine}, {cores} cores{commit}{changed}"
