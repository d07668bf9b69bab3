"""Emitted C, compiled and called."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from nervecord.compiler.files.program import Program
from nervecord.targets.c.target import CTarget

STRICT = ("-std=c99", "-ffp-contract=off", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic")


COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]


def _flags_of_the_processor() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return []


def call(*words: object, cwd: Path | None = None, code: int = 0) -> str:
    """What a command says; it must end with this code."""
    process = subprocess.run([str(word) for word in words], capture_output=True, text=True, cwd=cwd, check=False)
    assert process.returncode == code, f"{words}: {process.stdout}{process.stderr}"
    return process.stdout


def emitted(program: Program, folder: Path, **options: Any) -> Path:
    """The folder that the target wrote."""
    folder.mkdir(exist_ok=True)
    CTarget(**{"vectors": 24, **options}).emit(program, folder)
    return folder


def selftest(folder: Path, compiler: str, *flags: str, prefix: str = "policy", code: int = 0) -> None:
    """Compile and run it."""
    sources = [f"{prefix}.c", f"{prefix}_weights.c", f"{prefix}_selftest.c"]
    call(compiler, *STRICT, *flags, f"-D{prefix.upper()}_SELFTEST_MAIN", "-o", "selftest", *sources, cwd=folder)
    call("./selftest", cwd=folder, code=code)
