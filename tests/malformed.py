"""The malformed files, each made by its generator when a test first asks for it; the repository holds none of them."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import shutil
import tempfile
from pathlib import Path
from types import ModuleType

GENERATORS = {".nir": "generate.py", ".nervecord": "programs.py"}
"""In tests/data/malformed, by the suffix of what they make."""


@functools.cache
def generator(suffix: str) -> ModuleType:
    """The module that makes the files with this suffix: `FILES` has one function for each of them."""
    path = Path(__file__).parent / "data" / "malformed" / GENERATORS[suffix]
    spec = importlib.util.spec_from_file_location(f"malformed_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
