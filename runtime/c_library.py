"""Compiles the C of a plan into a shared library of this process, and loads it.

The library is built in a folder of its own, which nobody else can write, and which is gone when it is loaded. A plan
that was built is kept for the process.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from nervecord.compiler.c.source import Source
from nervecord.compiler.files.scratch import scratch_folder
from nervecord.errors import EngineError, MissingDependencyError

COMPILERS = ("cc", "gcc", "clang")
"""Where the variable CC names none."""
STRICT = ("-std=c99", "-ffp-contract=off", "-fno-fast-math")
"""What exactness needs."""
FAST = ("-O3", "-march=native")
SECONDS = 600.0
"""A compiler that takes longer hangs."""


def compiler() -> tuple[str, ...]:
    """The command of a C compiler: of the variable CC, else the first of `COMPILERS` that is here.

    Raises:
        MissingDependencyError: there is none.
    """
    named = shlex.split(os.environ.get("CC", ""))
    if named:
        if shutil.which(named[0]) is None:
            raise MissingDependencyError(f"names {named[0]!r}, and there is no such command", where="variable CC")
        return tuple(named)
    for name in COMPILERS:
        if shutil.which(name) is not None:
            return (name,)
    raise MissingDependencyError(
        f"needs a C compiler, and there is none of {', '.join(COMPILERS)}", where="engine c",
        hint="install gcc or clang, or name a compiler in the variable CC; the engine emulator needs none",
    )  # fmt: skip


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a compiler says where the folder for temporary files takes no more."""


def load_library(source: Source, *, flags: tuple[str, ...] = FAST) -> ctypes.CDLL:
    """The compiled functions of a source.

    Args:
        flags: beside `STRICT`.

    Raises:
        MissingDependencyError: there is no compiler.
        EngineError: it failed.
    """
    return _loaded(tuple(sorted(source.files().items())), source.prefix, compiler(), flags)


@functools.lru_cache(maxsize=64)
def _loaded(
    files: tuple[tuple[str, str], ...], prefix: str, command: tuple[str, ...], flags: tuple[str, ...]
) -> ctypes.CDLL:
    try:
        with scratch_folder() as folder:
            library = build(dict(files), prefix, folder, command, flags)
            return ctypes.CDLL(str(library))
    except OSError as error:
        raise EngineError(
            f"cannot build its library: {error.strerror or error}", where="engine c",
            hint="the folder for temporary files must be writable, and not be full; the variable TMPDIR names another",
        ) from None  # fmt: skip


def build(
    files: Mapping[str, str], prefix: str, folder: Path, command: tuple[str, ...], flags: tuple[str, ...]
) -> Path:
    """A shared library of these files, in a folder.

    Raises:
        EngineError: the compiler failed. OSError: the folder takes no more.
    """
    for name, text in files.items():
        (folder / name).write_text(text, encoding="ascii")
    library = folder / f"{prefix}.so"
    words = [*command, *STRICT, *flags, "-shared", "-fPIC", "-o", str(library)]
    words += [str(folder / name) for name in files if name.endswith(".c")]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=SECONDS, check=False, env={**os.environ, "LC_ALL": "C"},
            errors="replace",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{command[0]} did not run: {error}", where="engine c") from None
    if done.returncode:
        full = next((os.strerror(code) for code in _FULL if os.strerror(code) in done.stderr), None)
        if full is not None:
            raise OSError(errno.ENOSPC, full)
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()
        raise EngineError(
            f"{command[0]} failed: {said[0]}", where="engine c", hint="name another compiler in the variable CC"
        )
    return library
