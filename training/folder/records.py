"""The JSON files of a run folder, as anybody may have left them: regular, of a bounded size, objects and nothing else.

A run folder may have been copied from elsewhere. What is in it is read as data, and a file that is none is a sentence.
"""

from __future__ import annotations

import collections
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nervecord.compiler.files.regular import open_regular, read_text
from nervecord.compiler.schema import printable
from nervecord.errors import FileFormatError

MAXIMUM_BYTES = 8 << 20
"""Of config.json, versions.json, result.json: what is made of one takes up to thirty times as much."""
LARGEST = 1e300
"""Of a number: no infinity, and no integer that has no float."""
MOST_METRICS = 1 << 29
"""Bytes of metrics.jsonl."""
MOST_ROWS = 1 << 21
"""Rows of it."""
LONGEST_ROW = 1 << 20
"""Bytes of a row."""


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


def metric_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """(place, line) of each whole line of metrics.jsonl, unread; what follows the last line break is the torn row of a
    process that was killed.

    Raises:
        FileFormatError: it is no regular file, or a line, or their number, is beyond all that trainings write.
    """
    where = printable(str(path))
    with open_regular(path, where, MOST_METRICS, "file") as file:
        for number in itertools.count(1):
            try:
                line = file.readline(LONGEST_ROW + 1)
            except OSError as error:
                raise FileFormatError(f"cannot be read: {error.strerror or error}", where=where) from None
            if len(line) > LONGEST_ROW:
                raise FileFormatError(
                    f"has more than {LONGEST_ROW} bytes", where=f"{where}: line {number}", hint="delete the line"
                )
            if not line.endswith(b"\n"):
                return
            if number > MOST_ROWS:
                raise FileFormatError(f"has more than {MOST_ROWS} rows", where=where)
            yield f"{where}: line {number}", line


def row_of(line: bytes, at: str) -> dict[str, Any]:
    """The row in a line of metrics.jsonl, which has a "step".

    Raises:
        FileFormatError: there is none.
    """
    try:
        row = parsed(line.decode(), at)
    except UnicodeDecodeError:
        raise FileFormatError("is no text", where=at) from None
    number_of(row, "step", where=at)
    return row


def read_columns(path: Path, *names: str) -> list[tuple[Any, ...]]:
    """The step and the value under each name in the rows of metrics.jsonl, None where a row has none; no row where
    there is no file.

    Raises:
        FileFormatError: see `metric_lines`; or a row is none, or holds something else than a number there.
    """
    if not path.exists():
        return []
    rows = []
    for at, line in metric_lines(path):
        row = row_of(line, at)
        values = (None if row.get(name) is None else number_of(row, name, where=at) for name in names)
        rows.append((row["step"], *values))
    return rows


def last_row(path: Path) -> dict[str, Any] | None:
    """The last row of metrics.jsonl; the others are not looked at.

    Raises:
        FileFormatError: see `metric_lines`; or it is none.
    """
    last = collections.deque(metric_lines(path), maxlen=1) if path.exists() else None
    return row_of(last[0][1], last[0][0]) if last else None


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


def result_of(folder: Path) -> float | None:
    """Tested return of a finished run; None for one that is not finished. A training writes its result last."""
    path = folder / "result.json"
    if not path.is_file():
        return None
    record = read_record(path)
    if "test" in record and record["test"] is None:
        return None
    return number_of(record, "test", "mean_return", where=str(path))
