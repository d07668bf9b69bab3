"""Compiles the C of a plan into a shared library of this process, and loads it.

The library is built in a folder of its own, which nobody else can write, and which is gone when it is loaded. A plan
that was built is kept for the process.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from nervecord.compiler.files.atomic import write_atomically
from nervecord.compiler.files.regular import open_regular
from nervecord.compiler.files.scratch import scratch_folder
from nervecord.errors import EngineError, FileFormatError, InfeasibleError, MissingDependencyError, escaped
from nervecord.runtime.engines.c.source import Source

COMPILERS = ("cc", "gcc", "clang")
"""Where the variable CC names none."""
STRICT = ("-std=c99", "-ffp-contract=off", "-fno-fast-math")
"""What exactness needs."""
FAST = ("-O3", "-march=native")
SHARED = ("-O3",)
"""For a library that another machine of the same kind opens: no instructions of this one alone."""
IDENTITY = "nervecord_identity"
"""Symbol of a library that was built ahead of time: the hash of the texts it was built from."""
MOST_LIBRARY = 1 << 30
"""Bytes of one."""
SECONDS = 600.0
"""A compiler that takes longer hangs."""


def compiler() -> tuple[str, ...]:
    """The command of a C compiler: of the variable CC, else the first of `COMPILERS` that is here.

    Raises:
        MissingDependencyError: there is none.
    """
    try:
        named = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise MissingDependencyError(f"names no command: {error}", where="variable CC") from None
    if named:
        if shutil.which(named[0]) is None:
            raise MissingDependencyError(f"names {named[0]!r}, and there is no such command", where="variable CC")
        return tuple(named)
    for name in COMPILERS:
        if shutil.which(name) is not None:
            return (name,)
    raise MissingDependencyError(
        f"needs a C compiler, and there is none of {', '.join(COMPILERS)}",
        where="engine c",
        hint="install gcc or clang, or name a compiler in the variable CC; the engine emulator needs none",
    )


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a compiler says where the folder for temporary files takes no more."""


MOST_FUNCTIONS = 1 << 20
"""Characters of functions that are compiled when an engine opens: twenty seconds of a compiler."""
MOST_TABLES = 1 << 24
"""Characters of constants: as long."""


def load_library(source: Source, *, flags: tuple[str, ...] = FAST) -> ctypes.CDLL:
    """The compiled functions of a source.

    Args:
        flags: beside `STRICT`.

    Raises:
        InfeasibleError: a compiler would take minutes or more.
        MissingDependencyError: there is no compiler.
        EngineError: it failed.
    """
    for what, text, most in (("functions", source.source, MOST_FUNCTIONS), ("constants", source.weights, MOST_TABLES)):
        if len(text) > most:
            raise InfeasibleError(
                f"its C has {len(text)} characters of {what}, at most {most} are compiled when an engine opens",
                where="engine c",
                hint="the engine emulator compiles nothing; compile --target c --shared FILE compiles it once",
            )
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
            f"cannot build its library: {error.strerror or error}",
            where="engine c",
            hint="the folder for temporary files must be writable, and not be full; the variable TMPDIR names another",
        ) from None


def identity(source: Source) -> str:
    """What a library of this source says of itself: the hash of its texts, which hold everything it computes."""
    digest = hashlib.sha256()
    for name, text in sorted(source.files().items()):
        digest.update(f"{name}\n{len(text)}\n{text}".encode())
    return digest.hexdigest()


def build_shared(source: Source, path: Path) -> None:
    """Write the library that `open_shared` opens, by the compiler that the variable CC names, of another machine too.

    Raises:
        MissingDependencyError: there is no compiler. EngineError: it failed. NervecordError: it cannot be written.
    """
    files = {
        **source.files(),
        f"{IDENTITY}.c": f'extern const char {IDENTITY}[];\nconst char {IDENTITY}[] = "{identity(source)}";\n',
    }
    with scratch_folder() as folder:
        library = build(files, source.prefix, folder, compiler(), SHARED)
        write_atomically(path, library.read_bytes())


def open_shared(source: Source, path: str | os.PathLike[str]) -> ctypes.CDLL:
    """A library that was built ahead of time. Opening it runs its code, so only its user names it, and no file does.

    Raises:
        FileFormatError: it cannot be opened here, or was built from another program or by another version.
    """
    where = escaped(os.fspath(path))
    with open_regular(path, where, MOST_LIBRARY, "library"):
        pass  # opening a pipe as a library would wait for it
    try:
        library = ctypes.CDLL(os.path.abspath(path))
        # As many letters as a hash has; a library of another kind lacks the symbol.
        own_identity = (ctypes.c_char * 64).in_dll(library, IDENTITY).value.decode("ascii", "replace")
    except OSError as error:
        raise FileFormatError(
            f"cannot be opened on this machine: {error}",
            where=where,
            hint="build it for this kind of processor: CC=COMPILER nervecord compile ... --target c --shared FILE",
        ) from None
    except ValueError:
        own_identity = ""
    if own_identity != identity(source):
        raise FileFormatError(
            "is no library of this program, of this version of nervecord",
            where=where,
            hint="nervecord compile PROGRAM.nir --target c --shared FILE -o PROGRAM.nervecord writes both",
        )
    return library


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
            words,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{command[0]} did not run: {error}", where="engine c") from None
    if done.returncode:
        full = next((os.strerror(code) for code in _FULL if os.strerror(code) in done.stderr), None)
        if full is not None:
            raise OSError(errno.ENOSPC, full)
        lines = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()
        raise EngineError(
            f"{command[0]} failed: {lines[0]}", where="engine c", hint="name another compiler in the variable CC"
        )
    return library
