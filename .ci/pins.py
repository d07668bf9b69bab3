"""Whether the environment that runs this has the versions of constraints.txt: `.venv/bin/python .ci/pins.py`.

It asks no service, and says nothing of vulnerabilities: only that what would be looked up is what was tested. Exits
with 1 where a package is not pinned, has another version, or is a dependency of the core without an upper bound.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = {"nervecord", "pip", "setuptools", "wheel"}
"""Not pinned: the package itself, and what makes the environment."""
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def main() -> int:
    """Print what is wrong; the exit code is 1 where anything is."""
    pinned = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {said.metadata["Name"]: said.version for said in metadata.distributions()}
    wrong = [*differences(found, pinned), *unbounded(project["dependencies"])]
    print(*(wrong or [f"{len(found)} packages are installed in the versions of constraints.txt"]), sep="\n")
    return int(bool(wrong))


def pins(text: str) -> dict[str, str]:
    """Name -> version of lines NAME==VERSION; names as indexes compare them."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return {canonical(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def canonical(name: str) -> str:
    """A name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def differences(installed: Mapping[str, str], pinned: Mapping[str, str]) -> list[str]:
    """What of the installed packages (name -> version) is not what is pinned.

    A local part, as in 2.13.0+cpu, is a build of the same version.
    """
    found = []
    for name, version in sorted(installed.items()):
        wanted = pinned.get(canonical(name))
        if canonical(name) in OURS:
            continue
        if wanted is None:
            found.append(f"{name} {version} is installed, and constraints.txt does not pin it")
        elif version.partition("+")[0] != wanted:
            found.append(f"{name} {version} is installed, and constraints.txt pins {wanted}")
    return found


def unbounded(dependencies: Iterable[str]) -> list[str]:
    """Requirements that take any later version."""
    return [
        f"{line}: has no upper bound"
        for line in dependencies
        if not re.search(r"(<=?|==|~=)", _NAME.sub("", line.partition(";")[0], count=1))
    ]


if __name__ == "__main__":
    sys.exit(main())
