"""The tutorials are run as they stand: files written, Python in one namespace, commands in a shell."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))

DRIVER = """
import json, subprocess, sys
sys.path.insert(0, "")
shared = {"__name__": "tutorial"}
for number, (kind, text) in enumerate(json.load(open("tutorial.json"))):
    print(f"-- block {number}: {kind}", flush=True)
    if kind == "python":
        exec(compile(text, f"block {number}", "exec"), shared)
    else:
        subprocess.run(text, shell=True, check=True)
"""


def blocks(text: str) -> list[tuple[str, str]]:
    """("python", "toml" or "console", code) in order; of a console block each command. Of TOML only files are taken."""
    found: list[tuple[str, str]] = []
    for kind, body in re.findall(r"^```(python|toml|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if kind != "console":
            found.append((kind, body))
        else:
            found += [(kind, line.removeprefix("$ ")) for line in body.splitlines() if line.startswith("$ ")]
    return found


def test_there_are_tutorials_and_each_has_something_to_run() -> None:
    assert len(TUTORIALS) >= 3
    for path in TUTORIALS:
        assert len(blocks(path.read_text(encoding="utf-8"))) >= 3


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial(path: Path, tmp_path: Path) -> None:
    """A new user's walk, in an empty folder with zoo/ beside it."""
    for needed in ("torch", "snntorch", "nirtorch", "gymnasium"):
        pytest.importorskip(needed)
    steps = []
    for kind, text in blocks(path.read_text(encoding="utf-8")):
        name = re.match(r"# file: (\S+)\n", text)
        if name:
            (tmp_path / name[1]).write_text(text, encoding="utf-8")
        elif kind != "toml":
            steps.append((kind, text))
    (tmp_path / "zoo").symlink_to(ROOT / "zoo")
    (tmp_path / "tutorial.json").write_text(json.dumps(steps), encoding="utf-8")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], cwd=tmp_path, capture_output=True, text=True, timeout=600, env=environment
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
