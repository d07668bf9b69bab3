"""The campaigns of kills and of full disks still find what they are there for; `make faults` runs them at length."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from faults.scenes import Chosen, Scene, contents, strangers, whole

HERE = Path(__file__).parent


def run(script: str, *words: str) -> str:
    """What a script prints; it must find nothing wrong."""
    process = subprocess.run(
        [sys.executable, str(HERE / script), *words],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stdout + process.stderr[-2000:]
    return process.stdout


@pytest.mark.long
def test_compiling_is_killed() -> None:
    rows = [
        line.split() for line in run("campaign.py", "--kind", "compile", "--kills", "1", "--chosen", "1").split("\n")
    ]
    assert [row[:3] for row in rows[1:3]] == [["compile", "random", "1"], ["compile", "chosen", "1"]]


@pytest.mark.slow
def test_training_is_killed() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("envpool")
    rows = [line.split() for line in run("campaign.py", "--kind", "train", "--kills", "2", "--chosen", "4").split("\n")]
    assert [row[:3] for row in rows[1:3]] == [["train", "random", "2"], ["train", "chosen", "4"]]


@pytest.mark.slow
def test_a_disk_that_is_full() -> None:
    text = run("full_disk.py", "contract", "compile for c", "simulate")
    assert text.count(" 0 wrong") == 3


@pytest.mark.slow
def test_disks_that_are_full() -> None:
    pytest.importorskip("torch")
    assert " 0 wrong" in run("full_disk.py")


@pytest.mark.slow
def test_the_disk_of_a_sweep_is_full() -> None:
    pytest.importorskip("ray")
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root mounts a disk of a given size")
    assert "64 kB: 0 wrong" in run("full_sweep.py", "64")


class Careless(Scene):
    """Writes in place, and leaves a file and a process behind."""

    name = "careless"
    moments = (("half", 1),)

    def work(self, moment: Chosen | None) -> int:
        subprocess.Popen(["sleep", "60"])
        (self.folder / "cwd" / "litter").touch()
        with open(self.folder / "file.json", "w") as file:
            file.write('{"a"')
            file.flush()
            if moment:
                os.kill(os.getpid(), signal.SIGKILL)
            file.write(": 1}")
        return 0

    def look(self) -> list[str]:
        return [text for name, data in contents(self.folder).items() if (text := whole(name, data))]

    def over(self) -> list[str]:
        return strangers(self.folder / "cwd", set())


def test_what_is_half_or_left_behind_is_found(tmp_path: Path) -> None:
    """In a process of its own: pytest's is not one to fork."""
    code = (
        "from pathlib import Path\n"
        "from faults import campaign, forks\n"
        "from faults.test_faults import Careless\n"
        "forks.Fork.survivors.__defaults__ = (0.2,)\n"
        f"scene = Careless(Path({str(tmp_path)!r}) / 's')\n"
        "found = campaign.Campaign(scene, 'chosen', 0, 2, 60.0)\n"
        "found.run(); print(*found.wrong, sep='\\n')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])}
    process = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stderr
    assert "half: file.json" in process.stdout
    assert "still runs: sleep 60" in process.stdout
    assert "left behind: cwd/litter" in process.stdout


class Endless(Careless):
    """Comes to no end."""

    def work(self, moment: Chosen | None) -> int:
        if moment:
            signal.pause()
        return 0


def test_a_hang_is_no_kill(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from faults import campaign\n"
        "from faults.test_faults import Endless\n"
        "campaign.LONGEST = 0.5\n"
        f"found = campaign.Campaign(Endless(Path({str(tmp_path)!r}) / 's'), 'chosen', 0, 1, 2.0)\n"
        "found.run(); print(found.seen['kills'], *found.wrong, sep='\\n')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])}
    process = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stderr
    assert "\n0\n" in process.stdout
    assert "hung for 0.5 s" in process.stdout


def test_what_is_whole() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a", b"some bytes")
    program = packed.getvalue()
    assert whole("a.nervecord", program) == ""
    assert "damaged" in whole("a.nervecord", program.replace(b"some", b"Some"))
    picture = b"\x89PNG" + bytes(9) + b"IEND\xaeB`\x82"
    assert whole("a.png", picture) == whole("a.json", b"{}") == whole("a.jsonl", b'{}\n{"half') == ""
    for name, data in (
        ("a.png", b""),
        ("a.png", picture[:-4]),
        ("a.json", b"{"),
        ("a.jsonl", b"{\n"),
        ("a.txt", b""),
        ("a.pt", b"x"),
        ("a.nervecord", b"PK"),
        ("a.nir", b"\x89HDF"),
    ):
        assert whole(name, data).startswith(f"half: {name}"), name
