"""The tutorials are run as they stand: files written, Python in one namespace, commands in a shell."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))

UNWRITABLE = """
try:
    open("probe", "w")
except PermissionError:
    pass
else:
    raise SystemExit("this folder can be written")
"""
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
    parts: list[tuple[str, str]] = []
    for kind, body in re.findall(r"^```(python|toml|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if kind != "console":
            parts.append((kind, body))
        else:
            parts += [(kind, line.removeprefix("$ ")) for line in body.splitlines() if line.startswith("$ ")]
    return parts


def test_there_are_tutorials_and_each_has_something_to_run() -> None:
    assert len(TUTORIALS) >= 3
    for path in TUTORIALS:
        assert len(blocks(path.read_text(encoding="utf-8"))) >= 3


def written_out(path: Path, folder: Path) -> None:
    """A tutorial's files, steps and zoo/, in an empty folder."""
    steps = []
    for kind, text in blocks(path.read_text(encoding="utf-8")):
        name = re.match(r"# file: (\S+)\n", text)
        if name:
            (folder / name[1]).write_text(text, encoding="utf-8")
        elif kind != "toml":
            steps.append((kind, text))
    (folder / "zoo").symlink_to(ROOT / "zoo")
    (folder / "tutorial.json").write_text(json.dumps(steps), encoding="utf-8")


def _marked(path: Path) -> object:
    # The others train, which takes up to half a minute.
    return pytest.param(path, id=path.stem, marks=[] if path.stem == "robot" else [pytest.mark.slow])


@pytest.mark.long
@pytest.mark.parametrize("path", [_marked(path) for path in TUTORIALS])
def test_tutorial(path: Path, tmp_path: Path) -> None:
    """A new user's walk, in an empty folder with zoo/ beside it."""
    for needed in ("torch", "snntorch", "nirtorch", "gymnasium"):
        pytest.importorskip(needed)
    written_out(path, tmp_path)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.run(
        [sys.executable, "-c", DRIVER], cwd=tmp_path, capture_output=True, text=True, timeout=600, env=environment
    )
    assert process.returncode == 0, f"{process.stdout[-3000:]}\n{process.stderr[-3000:]}"


@pytest.mark.long
def test_the_robots_walk_where_nothing_can_be_written(tmp_path: Path) -> None:
    """Working folder, home and scratch folder are read-only, as on many robots; what numba compiled is there."""
    words = [sys.executable, "-c", UNWRITABLE + DRIVER]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write anywhere, and setpriv is not here to take that away")
        capabilities = "-dac_override,-dac_read_search"
        words = ["setpriv", f"--bounding-set={capabilities}", f"--inh-caps={capabilities}", *words]
    (robot,) = (path for path in TUTORIALS if path.stem == "robot")
    written_out(robot, tmp_path)
    here = {name: str(tmp_path) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    before = sorted(os.listdir(tmp_path))
    tmp_path.chmod(0o555)
    try:
        process = subprocess.run(
            words, cwd=tmp_path, capture_output=True, text=True, timeout=600, env={**os.environ, **here, "PATH": path}
        )
    finally:
        tmp_path.chmod(0o755)
    assert process.returncode == 0, f"{process.stdout[-3000:]}\n{process.stderr[-3000:]}"
    assert "50 actions" in process.stdout
    assert sorted(os.listdir(tmp_path)) == before
