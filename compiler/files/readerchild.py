"""What the processes share that read files nobody vouches for; run in one of them by `compiler.files.readerguard`.

Such a process imports the standard library, numpy and one library that parses: it starts in a tenth of a second, and
whatever a hostile file does to that library happens there, under limits, and not in the compiler. What it hands over is
a tree: dicts by name, numbers as numpy arrays in native byte order (0-d for scalars), and anything else that JSON says.
"""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any, BinaryIO, TypeAlias

import numpy as np

Tree: TypeAlias = dict[str, Any]
"""Name -> Tree, array, or anything else as JSON says it."""


def pack(tree: Tree, out: BinaryIO) -> None:
    """Write a tree as one JSON line (arrays as dtype and shape) followed by the arrays' bytes in the same order."""
    arrays: list[np.ndarray[Any, Any]] = []

    def shell(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shell(child) for name, child in value.items()}
        if isinstance(value, np.ndarray):
            arrays.append(value)
            return ["array", value.dtype.str, list(value.shape)]
        return ["text", value]

    out.write(json.dumps({"tree": shell(tree)}).encode() + b"\n")
    for array in arrays:
        out.write(array.reshape(-1).view(np.uint8).data)


def answer(reader: ModuleType, path: str, value_bytes: str, memory: str, seconds: str) -> None:
    """Read `path` under limits, and write the reply to stdout: a packed tree, or one JSON line, "refused" or "damaged".

    Args:
        reader: a module with `load(path, value_bytes)`, which gives the tree, and `RefusedError`, for a file that is
            readable and asks for something it must not have; a second argument of it is a hint.
    """
    _limit(int(memory), int(seconds))
    try:
        pack(reader.load(path, int(value_bytes)), sys.stdout.buffer)
    except reader.RefusedError as error:
        reply = {"refused": str(error.args[0]), "hint": error.args[1] if len(error.args) > 1 else None}
    except MemoryError:
        reply = {"refused": f"reading it takes more than the memory limit of {memory} bytes", "hint": None}
    except Exception as error:
        # Not only the library's own errors: a damaged file makes it and numpy raise nearly anything. The parent
        # reports it.
        reply = {"damaged": str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"}
    else:
        return
    sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")


def _limit(memory: int, seconds: int) -> None:
    try:
        import resource
    except ImportError:  # Windows: the parent's time limit and the checks of sizes remain.
        return
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
    }
    for what, value in limits.items():
        _, hard = resource.getrlimit(what)
        endless = hard == resource.RLIM_INFINITY
        value = value if endless else min(value, hard)
        # At the first limit on processor time comes a signal that says why, at the second SIGKILL.
        last = value + 1 if what == resource.RLIMIT_CPU and (endless or value < hard) else value
        try:
            resource.setrlimit(what, (value, last))
        except (ValueError, OSError) as error:  # macOS has no limit on address space
            print(f"limit {what} not set: {error}", file=sys.stderr)
