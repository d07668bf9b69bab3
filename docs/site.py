"""Builds the documentation site: `make docs`.

The site is the repository's documents as they lie there, so that every link means the same on the site and in a
checkout, and pages of the Python API made from its docstrings. MkDocs builds it strictly: a link, an anchor or a name
that leads nowhere ends the build. MkDocs does not check links to files that are no pages, so they are checked here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nervecord

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "build" / "site"
STAGE = ROOT / "build" / "docs"
"""Where the documents are gathered; MkDocs reads no folder that holds its own configuration."""
SOURCES = ROOT / "build" / "sources"
ROOMS = ("compiler", "runtime", "targets", "training", "cli")
SUFFIXES = {".md", ".png", ".svg", ".toml"}
TOP = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "CITATION.cff")
FOLDERS = ("docs", "zoo")

API = """# Python interface

`import nervecord` loads nothing else: each name imports what it needs when it is used. The same verbs on the command
line: `nervecord --help`.

"""


def gather() -> None:
    """Copy the documents, and what they show, to `STAGE`; write the pages of the API."""
    shutil.rmtree(STAGE, ignore_errors=True)
    paths = [ROOT / name for name in TOP]
    paths += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    for path in paths:
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


class _Links(HTMLParser):
    """The targets of a page's links and pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [value for name, value in attrs if name in ("href", "src") and value]


def broken_links(site: Path) -> list[str]:
    """The relative links of a built site that lead to no file, each as "page: target"."""
    broken = []
    for page in sorted(site.rglob("*.html")):
        links = _Links()
        links.feed(page.read_text(encoding="utf-8"))
        for target in dict.fromkeys(links.targets):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc or not parts.path:
                continue
            base = site if parts.path.startswith("/") else page.parent
            if not (base / unquote(parts.path).lstrip("/")).exists():
                broken.append(f"{page.relative_to(site)}: {target}")
    return broken


def main() -> int:
    """Gather, build and check; returns MkDocs' exit code, or 1 where a link leads to no file."""
    gather()
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file", str(ROOT / "mkdocs.yml")]
    # The theme speaks of its successor at every build.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    process = subprocess.run(words, cwd=ROOT, check=False, env=environment)
    if process.returncode:
        return process.returncode
    if broken := broken_links(SITE):
        print("Links that lead to no file:", *broken, sep="\n  ", file=sys.stderr)
        return 1
    print(f"wrote {(SITE / 'index.html').relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
