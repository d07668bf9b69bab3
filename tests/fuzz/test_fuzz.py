"""2,000 damaged files, always the same ones, 490 of them in the quick suite; `make fuzz` tries any number of others."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.campaign import HERE, MOST_MEMORY, watcher
from fuzz.kinds import KINDS, run_case, seeds

from nervecord.errors import NervecordError

CASES = {
    "program": 640,
    "report": 60,
    "nir content": 460,
    "arrays": 240,
    "contract": 160,
    "target": 80,
    "nir bytes": 20,
    "study": 80,
    "record": 80,
    "onnx": 40,
    "net": 20,
    "description": 40,
    "recording": 40,
    "layout": 40,
}
SLICES = 4

pytestmark = pytest.mark.reader_process


def test_there_are_two_thousand() -> None:
    assert sum(CASES.values()) == 2000
    assert set(CASES) == set(KINDS)


@pytest.mark.parametrize("part", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(1, SLICES))])
# Of layouts ten files take minutes of CPU time; tests/compiler/test_budget.py has what is refused of them.
@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] if k == "layout" else []) for k in CASES])
def test_damaged_files_are_read_within_their_promises_or_refused(kind: str, part: int, tmp_path: Path) -> None:
    if kind == "onnx":
        pytest.importorskip("onnx")
    count = CASES[kind] // SLICES
    outcomes = []
    for number in range(part * count, (part + 1) * count):
        try:
            outcomes.append(run_case(kind, number, tmp_path))
        except Exception as error:
            error.add_note(f"it was {kind} {number}: python tests/fuzz/campaign.py --kind '{kind}' --first {number}")
            raise
    assert "refused" in outcomes
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("nir content", 2000724),
        ("nir content", 2005242),
        ("nir content", 2007978),
        ("nir content", 6004919),
        ("record", 6000633),
        ("target", 6002745),
        ("onnx", 7000720),
        ("onnx", 7001118),
    ],
)
def test_what_was_once_raised_is_refused(kind: str, number: int, tmp_path: Path) -> None:
    """An edge to or from a name with a line break in it; half of a surrogate pair; no field that indexes neurons; an
    operator with a line break in its name."""
    if kind == "onnx":
        pytest.importorskip("onnx")
    assert run_case(kind, number, tmp_path) == "refused"


@pytest.mark.parametrize("kind", CASES)
def test_a_fuzzer_that_read_nothing_would_find_nothing(kind: str, tmp_path: Path) -> None:
    """What the damage starts from is sound, but for what contracts and networks that do not meet."""
    if kind == "onnx":
        pytest.importorskip("onnx")
    outcomes = [_outcome(kind, path, tmp_path) for path in seeds(kind) if kind != "nir content"]
    if kind in ("program", "report", "arrays"):
        assert set(outcomes) == {"read"}
    else:
        assert "read" in outcomes or kind == "nir content"


def _outcome(kind: str, sound: Path, folder: Path) -> str:
    copy = folder / sound.name
    copy.write_bytes(sound.read_bytes())
    try:
        KINDS[kind].check(copy, random.Random(0))
    except NervecordError as error:
        return str(error)
    return "read"


def test_the_watcher_sees_what_is_written_outside(tmp_path: Path) -> None:
    notes: list[str] = []
    look = watcher(str(tmp_path), notes)
    look("open", (str(tmp_path / "case"), "wb", os.O_WRONLY))
    look("open", ("/etc/passwd", "r", os.O_RDONLY))
    look("subprocess.Popen", ("python", ["python", "-c", "import readerchild"], None, None))
    assert notes == []
    look("open", ("/etc/passwd", "w", os.O_WRONLY))
    look("os.mkdir", ("/tmp/elsewhere", 0o777, -1))
    look("subprocess.Popen", ("sh", ["sh", "-c", "true"], None, None))
    look("socket.connect", (None, ("127.0.0.1", 80)))
    assert len(notes) == 4


@pytest.mark.slow
def test_the_compiled_loop_stays_within_its_memory(tmp_path: Path) -> None:
    """With numba's checks of bounds, which cost a compilation of a minute."""
    process = subprocess.run(
        [sys.executable, str(HERE / "campaign.py"), "--bounds", "--kind", "program", "--cases", "300"],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert "program" in process.stdout


@pytest.mark.long
def test_a_campaign_counts_what_fails(tmp_path: Path) -> None:
    """The watcher's other half: a child that dies and one that hangs are told apart, and gone on from."""
    from fuzz.campaign import Watched

    class Broken(Watched):
        script = ""

        def command(self) -> list[str]:
            return [sys.executable, "-c", self.script.replace("FIRST", str(self.next))]

    message = json.dumps({"case": 0, "outcome": "read", "seconds": 0.1, "memory": MOST_MEMORY, "outside": ["open /x"]})
    Broken.script = f"import os\nif FIRST == 0:\n    print({message!r}, flush=True)\n    os.abort()\n" + (
        "elif FIRST == 2:\n    print('{}', flush=True)\n    import time; time.sleep(60)\n"
    )
    watched = Broken("program", 0, 4, bounds=False)
    watched.hangs, watched.patience, watched.log = 2.0, 1, tmp_path / "log"
    watched.run(float("inf"))
    assert watched.counts == {"read": 1, "crashed": 2, "hung": 1}
    assert watched.outside == {"program 0: open /x"}
    assert watched.memory == (MOST_MEMORY, 0)
    assert watched.slowest == (0.1, 0)
    assert json.loads(watched.log.read_text())["kind"] == "program"
    assert watched.stalls == 1
    assert any("hung" in line for line in watched.failures)
