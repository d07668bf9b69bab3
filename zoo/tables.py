"""The runs of the studies as two tables, and back: `python zoo/tables.py unpack FOLDER`, `... pack FOLDER`.

`zoo/study/runs.csv` has a row for each run: all of its config.json, result.json and versions.json, one column for each
value, named by its path ("config.algorithm.lr"). `zoo/study/metrics.csv` has the kept rows of their metrics.jsonl.
Cells are JSON; an empty one is a value that the run has not. `unpack` writes the run folders that `nervecord sweep`
reads, STUDY/RUN under FOLDER; `pack` reads such a FOLDER, as `zoo/keep.py RUN TARGET --results --rows 40` fills it.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TABLES = Path(__file__).parent / "study"
RECORDS = ("config", "result", "versions")
DIGITS = 7
"""Significant digits of a metric."""


def unpack(folder: Path, tables: Path = TABLES) -> None:
    """Write every run's folder, as `nervecord sweep --out FOLDER` looks for it."""
    for row in _read(tables / "runs.csv"):
        run = folder / row.pop("study") / row.pop("run")
        run.mkdir(parents=True)
        values = _nested({column: json.loads(cell) for column, cell in row.items() if cell})
        for record in RECORDS:
            (run / f"{record}.json").write_text(json.dumps(values[record], indent=2) + "\n", encoding="utf-8")
    for row in _read(tables / "metrics.csv"):
        run = folder / row.pop("study") / row.pop("run")
        with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
            values = {column: json.loads(cell) for column, cell in row.items() if cell}
            file.write(json.dumps(values) + "\n")


def pack(folder: Path, tables: Path = TABLES) -> None:
    """Write both tables of the run folders that lie in `folder`."""
    runs, metrics = [], []
    for run in sorted(path.parent for path in folder.glob("*/*/config.json")):
        key = {"study": run.parent.name, "run": run.name}
        records = {record: json.loads((run / f"{record}.json").read_text(encoding="utf-8")) for record in RECORDS}
        runs.append(key | {column: json.dumps(value) for column, value in _flat(records)})
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        metrics += [key | {column: _number(value) for column, value in json.loads(line).items()} for line in lines]
    _write(tables / "runs.csv", runs)
    _write(tables / "metrics.csv", metrics)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in values.items():
        *groups, name = path.split(".")
        at = nested
        for group in groups:
            at = at.setdefault(group, {})
        at[name] = value
    return nested


def _number(value: Any) -> str:
    return json.dumps(float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> int:
    """Parse the command line and convert."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("action", choices=("pack", "unpack"))
    parser.add_argument("folder", type=Path, help="of the run folders: STUDY/RUN")
    arguments = parser.parse_args()
    if arguments.action == "unpack" and arguments.folder.exists():
        print(f"{arguments.folder}: exists already", file=sys.stderr)
        return 2
    (pack if arguments.action == "pack" else unpack)(arguments.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
