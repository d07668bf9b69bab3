"""What a run folder is resumed from, as anybody may have left it: checkpoints and rows of metrics.

A checkpoint may have been cut short, copied from elsewhere or made by others, and so may a row. Each is a sentence that
names the file, with the way out: the checkpoint before. Nothing here waits, as a pipe would have one do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nervecord.compiler.files.regular import open_regular
from nervecord.compiler.schema import checked, printable, real, record, whole
from nervecord.errors import FileFormatError, NervecordError
from nervecord.training.folder.records import metric_lines, row_of

MOST_BYTES = 64 << 30
"""Of a checkpoint; one with a replay of millions of observations takes some gigabytes."""
LATEST = 10**15
"""Step of a training."""
WAY_OUT = "delete it to resume from the one before"
_WRONG = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)

_CHECKPOINT = record(
    "checkpoint",
    [
        ("step", whole(0, LATEST)),
        ("generation", whole(0, LATEST)),
        ("episodes", whole(0, LATEST)),
        ("returns", list[real()]),  # type: ignore[misc]
        ("lengths", list[real()]),  # type: ignore[misc]
        ("best", record("best", [("step", whole(0, LATEST)), ("score", real())], closed=False) | None),
        ("learner", dict[str, Any]),
    ],
    closed=False,
)
"""What every checkpoint has, and of what type; its learner's parts are the learner's to check."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint's file, of whatever format; executes nothing of it.

    Raises:
        FileFormatError: it is missing, no regular file, empty, or holds something else.
    """
    where = printable(str(path))
    with open_regular(path, where, MOST_BYTES, "checkpoint") as file:
        import torch  # rows are read without

        try:
            # weights_only: tensors and plain containers, no code.
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # of hostile bytes torch raises nearly anything
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
            raise FileFormatError(f"is damaged: {printable(reason)}", where=where, hint=WAY_OUT) from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise FileFormatError(
            f"is damaged: it holds a {type(content).__name__}, and a checkpoint names its parts",
            where=where,
            hint=WAY_OUT,
        )
    return content


def check_checkpoint(content: dict[str, Any], path: Path, step: int) -> dict[str, Any]:
    """The content of a checkpoint of this format, whose parts are of their types.

    Raises:
        FileFormatError: one is not, or it is another step's than its name says.
    """
    where = printable(str(path))
    try:
        parts = checked(content, _CHECKPOINT, where)
    except FileFormatError as error:
        raise FileFormatError(f"is damaged: {error.message}", where=where, hint=WAY_OUT) from None
    if parts.step != step:
        raise FileFormatError(f"is of step {parts.step}, and its name says {step}", where=where, hint=WAY_OUT)
    return content


@contextlib.contextmanager
def restoring(what: str | Path) -> Iterator[None]:
    """Where a learner, a simulator and random numbers take up what a checkpoint says, whose parts may be anything.

    Args:
        what: the checkpoint, for messages.

    Raises:
        FileFormatError: they cannot.
    """
    try:
        yield
    except NervecordError:
        raise
    except _WRONG as error:
        if type(error).__name__ == "OutOfMemoryError":  # of a GPU
            raise
        reason = (str(error).splitlines() or [""])[0]
        raise FileFormatError(
            f"does not hold what this training resumes from: {type(error).__name__}: {printable(reason)}",
            where=printable(str(what)),
            hint=WAY_OUT,
        ) from error


def require_parts(state: dict[str, Any], parts: dict[str, Any]) -> None:
    """Refuse a learner's state that lacks networks, statistics or an optimiser: what is not there would begin anew.

    Raises:
        KeyError: it does.
    """
    for name, part in parts.items():
        if isinstance(part, dict) and part and not isinstance(state.get(name), dict):
            raise KeyError(name)


def whole_rows(path: Path, step: int) -> Iterator[bytes]:
    """The lines of metrics.jsonl up to a step, as they stand.

    Raises:
        FileFormatError: see `metric_lines`; or a line is no row.
    """
    for at, line in metric_lines(path):
        try:
            row = row_of(line, at)
        except FileFormatError as error:
            error.hint = error.hint or "delete the line to resume"
            raise
        if row["step"] > step:
            return
        yield line
