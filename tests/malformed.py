"""The malformed files, each made by its generator when a test first asks for it; the repository holds none of them."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from types import ModuleType

from scripts import script

GENERATORS = {".nir": "generate.py", ".nervecord": "programs.py"}
"""In tests/data/malformed, by the suffix of what they make."""


def generator(suffix: str) -> ModuleType:
    """The module that makes the files with this suffix: `FILES` has one function for each of them."""
    return script(f"tests/data/malformed/{GENERATORS[suffix]}")


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="malformed-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def malformed(name: str) -> Path:
    """The file of that name ("nan_weights.nir")."""
    path = _folder() / name
    generator(path.suffix).write_file(path)
    return path
