"""The JSON files of a run folder, as anybody may have left them: regular, of a bounded size, objects and nothing else.

A run folder may have been copied from elsewhere. What is in it is read as data, and a file that is none is a sentence.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nervecord.compiler.files.regular import read_text
from nervecord.compiler.schema import printable
from nervecord.errors import FileFormatError

MAXIMUM_BYTES = 64 << 20
"""Of config.json, versions.json, result.json."""
LARGEST = 1e300
"""Of a number: no infinity, and no whole number that has no float."""
MOST_METRICS = 1 << 30
"""Bytes of metrics.jsonl."""


def read_record(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileFormatError: it is missing, no regular file, too large, or no JSON object.
    """
    where = printable(str(path))
    return parsed(read_text(path, where, MAXIMUM_BYTES, "file"), where)


def parsed(text: str, where: str) -> dict[str, Any]:
    """The object in a JSON text.

    Raises:
        FileFormatError: it is none.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of more digits than Python reads
        raise FileFormatError(f"not JSON: {printable(str(error))}", where=where) from None
    if not isinstance(data, dict):
        raise FileFormatError(f"holds {type(data).__name__}, not a JSON object", where=where)
    return data


def read_metrics(path: Path, *, last: bool = False) -> list[dict[str, Any]]:
    """The whole rows of metrics.jsonl, or the `last` of them alone; none where there is no file. Each has a "step".

    Raises:
        FileFormatError: a row is none.
    """
    if not path.exists():
        return []
    where = printable(str(path))
    lines = read_text(path, where, MOST_METRICS, "file").split("\n")
    # What follows the last line break is the torn row of a process that was killed.
    rows = []
    for k in range(max(0, len(lines) - 2) if last else 0, len(lines) - 1):
        at = f"{where}: line {k + 1}"
        rows.append(parsed(lines[k], at))
        number_of(rows[-1], "step", where=at)
    return rows


def number_of(record: dict[str, Any], *names: str, where: str) -> float:
    """A finite number that stands in a record under a name, or under names one inside the other.

    Raises:
        FileFormatError: it does not.
    """
    value: Any = record
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -LARGEST <= value <= LARGEST:
        raise FileFormatError(f"says no number as its {'.'.join(names)}", where=where)
    return value
