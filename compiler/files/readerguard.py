"""Reads files that nobody vouches for in another process, under limits of time, memory and size.

The libraries that parse such files can be made to hang, to ask for terabytes, to crash and to return other files of the
disk. So a file is parsed in a process of its own (`compiler.files.readerchild`), which refuses such files; this module
starts it, watches it, and turns every outcome into a tree of plain values or one `FileFormatError`.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nervecord.errors import FileFormatError, MissingDependencyError, install_command

_MIB = 1 << 20
_HERE = Path(__file__).parent
# The children's own folders come last, so that their modules shadow nothing.
START = (
    "import sys; sys.path[:] = sys.argv[8:] + sys.path + sys.argv[6:8]\n"
    "import importlib, readerchild; readerchild.answer(importlib.import_module(sys.argv[1]), *sys.argv[2:6])"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What reading one file may take.

    Args:
        seconds: of processor time until the process is killed, for a file of less than a MiB.
        seconds_per_mib: more for each whole MiB: a graph of many small nodes takes most of them.
        patience: how many times as long it may take by the clock, on a machine with other work, beside the time that it
            waits for a processor. What hangs in libhdf5 takes processor time; this is for what waits, and for systems
            that cannot limit processor time.
        file_bytes: largest file that is opened.
        value_bytes: least that a file's values may take together, expanded; larger files may take
            `expansion` times their size.
        expansion: see there. Deflate reaches 1000, on constants, which the floor is there for.
        process_bytes: address space beside the values: the interpreter, numpy and libhdf5 take about 110 MiB.
    """

    seconds: float = 8.0
    seconds_per_mib: float = 2.0
    patience: float = 15.0
    file_bytes: int = 2048 * _MIB
    value_bytes: int = 256 * _MIB
    expansion: int = 16
    process_bytes: int = 512 * _MIB

    def values_of(self, size: int) -> int:
        """Bytes that the values of a file of `size` bytes may take."""
        return max(self.value_bytes, self.expansion * size)

    def seconds_of(self, size: int) -> float:
        """Seconds of processor time that reading a file of `size` bytes may take."""
        return self.seconds + self.seconds_per_mib * (size // _MIB)


@dataclass(frozen=True, slots=True)
class Reader:
    """What parses one kind of file.

    Args:
        path: of a module with what `readerchild.answer` needs; it imports nothing of this package.
        libraries: that it imports; the first one is named where it is missing, with `extra`.
        extra: that installs them; "" is the core.
        hint: what to do about a file that is refused.
    """

    path: Path
    libraries: tuple[str, ...]
    extra: str
    hint: str


def read_guarded(reader: Reader, name: str, size: int, limits: Limits) -> dict[str, Any]:
    """The content of a file as a tree: dicts by name, read-only arrays, and what else JSON can say.

    Args:
        name: of the file, which is a regular one of `size` bytes.

    Raises:
        FileFormatError: it is damaged, refused, or too large or slow to read; one sentence.
        MissingDependencyError: what parses it is not installed.
    """
    reply = _run(reader, name, size, limits)
    head, newline, body = reply.partition(b"\n")
    if not newline:
        raise FileFormatError("reading it gave no answer", where=name, hint="the file is damaged; write it again")
    answer = json.loads(head)
    if "refused" in answer:
        raise FileFormatError(one_line(answer["refused"]), where=name, hint=answer["hint"] or reader.hint)
    if "damaged" in answer:
        raise FileFormatError(f"damaged: {one_line(answer['damaged'])}", where=name, hint="write or copy it again")
    tree, used = _unpack(answer["tree"], body, 0)
    if used != len(body):
        raise FileFormatError("reading it ended half way", where=name, hint="the file is damaged; write it again")
    assert isinstance(tree, dict)
    return tree


def one_line(text: str, limit: int = 300) -> str:
    """`text` with its whitespace made single blanks, cut at `limit` characters: for messages of foreign libraries."""
    joined = " ".join(text.split())
    return joined if len(joined) <= limit else joined[: limit - 3] + "..."


def _search_path(reader: Reader, name: str) -> list[str]:
    """Folders that the libraries come from, so that the child need not process this environment's .pth files."""
    folders: list[str] = []
    for module in (*reader.libraries, "numpy"):
        try:
            spec = importlib.util.find_spec(module)
        except ImportError:  # of a package that it lies in
            spec = None
        if spec is None or spec.origin is None:
            raise MissingDependencyError(
                f"{reader.libraries[0]} is not installed", where=name, hint=install_command(reader.extra)
            )
        packaged = Path(spec.origin).name.startswith("__init__.")
        folder = str(Path(spec.origin).parents[module.count(".") + packaged])
        if folder not in folders:
            folders.append(folder)
    return folders


def _run(reader: Reader, name: str, size: int, limits: Limits) -> bytes:
    if not sys.executable:
        raise FileFormatError(
            "cannot be read safely: this Python does not know its own executable", where=name, hint="set sys.executable"
        )
    values = limits.values_of(size)
    # Once to read, once to convert or expand.
    memory = limits.process_bytes + 2 * values
    seconds = limits.seconds_of(size)
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        START,
        reader.path.stem,
        os.path.abspath(name),
        str(values),
        str(memory),
        str(math.ceil(seconds)),
        str(_HERE),
        str(reader.path.parent),
        *_search_path(reader, name),
    ]
    environment = {
        # Variables that name drivers, connectors and folders of plug-ins for HDF5 are not handed on: of a file that it
        # cannot open HDF5 asks every plug-in that it finds, whatever HDF5_PLUGIN_PRELOAD says.
        **{name: value for name, value in os.environ.items() if not name.startswith("HDF5_")},
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "HDF5_PLUGIN_PRELOAD": "::",
        "HDF5_PLUGIN_PATH": "",
    }
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as child:
        try:
            out, err = _outcome(child, seconds * limits.patience)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            raise FileFormatError(
                f"reading it took longer than {seconds * limits.patience:g} s",
                where=name,
                hint="the file is damaged or hostile, or this machine very busy",
            ) from None
        except BaseException:
            child.kill()
            raise
    if child.returncode == -getattr(signal, "SIGXCPU", 0) != 0:
        raise FileFormatError(
            f"reading it took more than {math.ceil(seconds)} s of processor time",
            where=name,
            hint="the file is damaged or hostile",
        )
    if child.returncode != 0:
        raise FileFormatError(
            f"reading it ended the reader: {_ending(child.returncode, err)}", where=name, hint="write or copy it again"
        )
    return out


def _outcome(child: subprocess.Popen[bytes], seconds: float) -> tuple[bytes, bytes]:
    """What a child wrote, within so many seconds by the clock beside those that it had to wait for a processor.

    Raises:
        TimeoutExpired: it took longer.
    """
    begun = time.monotonic()
    while True:
        left = seconds + _queued(child.pid) - (time.monotonic() - begun)
        try:
            return child.communicate(timeout=max(left, 0.01))
        except subprocess.TimeoutExpired:
            if time.monotonic() - begun >= seconds + _queued(child.pid):
                raise


def _queued(pid: int) -> float:
    """Seconds that a process was ready to run and no processor was free, as far as the system tells."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def _ending(code: int, err: bytes) -> str:
    if code < 0:
        return f"killed by signal {-code}"
    lines = err.decode(errors="replace").strip().splitlines()
    return one_line(lines[-1]) if lines else f"exit status {code}"


def _unpack(shell: Any, body: bytes, at: int) -> tuple[Any, int]:
    """(value, bytes of `body` used so far) of what `readerchild.pack` wrote."""
    if isinstance(shell, dict):
        tree: dict[str, Any] = {}
        for name, child in shell.items():
            tree[name], at = _unpack(child, body, at)
        return tree, at
    if shell[0] == "text":
        return shell[1], at
    _, dtype, shape = shell
    count = math.prod(shape)
    if at + count * np.dtype(dtype).itemsize > len(body):
        return np.zeros(0), len(body) + 1
    array = np.frombuffer(body, dtype, count, at).reshape(shape)
    return array, at + array.nbytes
