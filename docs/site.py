"""Builds the documentation site: `make docs`.

The site is the repository's documents as they lie there, so that every link means the same on the site and in a
checkout, and pages of the Python API made from its docstrings. MkDocs builds it strictly: a link, an anchor or a name
that leads nowhere ends the build.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nervecord

ROOT = Path(__file__).resolve().parent.parent
STAGE = ROOT / "build" / "docs"
"""Where the documents are gathered; MkDocs reads no folder that holds its own configuration."""
SOURCES = ROOT / "build" / "sources"
ROOMS = ("compiler", "runtime", "targets", "training", "cli")
SUFFIXES = {".md", ".png", ".svg", ".toml"}
TOP = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE")
FOLDERS = ("docs", "zoo")

API = """# Python interface

`import nervecord` loads nothing else: each name imports what it needs when it is used. The same verbs on the command
line: `nervecord --help`.

"""


def gather() -> None:
    """Copy the documents, and what they show, to `STAGE`; write the pages of the API."""
    shutil.rmtree(STAGE, ignore_errors=True)
    found = [ROOT / name for name in TOP]
    found += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    for path in found:
        target = STAGE / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    # The sources alone: beside them a checkout holds environments, which would all be searched.
    shutil.rmtree(SOURCES, ignore_errors=True)
    for room in ROOMS:
        skipped = shutil.ignore_patterns("__pycache__", "*_worker")
        shutil.copytree(ROOT / room, SOURCES / "nervecord" / room, ignore=skipped)
    for path in ROOT.glob("*.py"):
        shutil.copyfile(path, SOURCES / "nervecord" / path.name)
    (STAGE / "docs" / "api.md").write_text(api_page(), encoding="utf-8")


def api_page() -> str:
    """A page with every public name: functions first, then types."""
    functions = [name for name in nervecord.__all__ if name[0].islower()]
    types = [name for name in nervecord.__all__ if not name[0].islower()]
    parts = [API, "## Functions\n\n", *(_entry(name) for name in functions), "## Types\n\n", *map(_entry, types)]
    return "".join(parts)


def _entry(name: str) -> str:
    return f"::: nervecord.{name}\n\n"


def main() -> int:
    """Gather and build; returns MkDocs' exit code."""
    gather()
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file", str(ROOT / "mkdocs.yml")]
    # The theme speaks of its successor at every build.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, check=False, env=environment)
    if done.returncode == 0:
        print(f"wrote {(ROOT / 'build' / 'site' / 'index.html').relative_to(ROOT)}")
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
