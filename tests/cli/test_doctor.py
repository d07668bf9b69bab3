"""`nervecord doctor` and `--version --json`: what works is tried, and what does not has a command that mends it."""

from __future__ import annotations

import json
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from nervecord.cli import doctor
from nervecord.cli.doctor import PARTS, Part, try_part
from nervecord.errors import install_command


def test_version_for_machines(nervecord_cli: Any) -> None:
    answer = nervecord_cli("--version", "--json")
    assert (answer.code, answer.err) == (0, "")
    report = answer.json
    assert report["nervecord"] == metadata.version("nervecord")
    assert report["python"] == platform.python_version()
    assert report["numpy"] == metadata.version("numpy")
    assert set(report) > {"numba", "torch", "envpool", "mujoco", "gymnasium"}


@pytest.mark.parametrize("words", [("--short",), ("--json", "x"), ("--json", "--json")])
def test_version_takes_no_other_word(nervecord_cli: Any, words: tuple[str, ...]) -> None:
    answer = nervecord_cli("--version", *words)
    assert answer.code == 2
    assert repr(words[-1]) in answer.err


@pytest.mark.slow
def test_doctor_on_this_machine(nervecord_cli: Any) -> None:
    """The real thing: what the tests themselves run on works, and whatever does not says how to fix it."""
    answer = nervecord_cli("doctor", "--json", "--quiet")
    assert (answer.code, answer.err) == (0, "")
    report = answer.json
    assert report["works"] is True
    assert report["machine"]["interpreter"] == sys.executable
    parts = {part["part"]: part for part in report["parts"]}
    assert {"numpy", "numba", "torch, snnTorch", "CUDA", "Lava", "C compiler", "OpenGL by EGL"} <= set(parts)
    for name in ("numpy", "nir, h5py", "numba", "rich"):
        assert parts[name]["status"] == "works"
        assert parts[name]["needed"]
    for part in parts.values():
        assert part["note"]
        assert (part["fix"] is None) == (part["status"] == "works")
    assert metadata.version("numpy") in parts["numpy"]["note"]


def test_every_extra_named_exists() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {part.extra for part in PARTS if part.extra} <= set(project["optional-dependencies"])


def test_a_package_that_is_not_installed() -> None:
    check = try_part(Part("Nothing", "nothing", ("no-such-package", "numpy"), "raise SystemExit", "warp"))
    assert (check.status, check.note) == ("missing", "no-such-package not installed")
    assert check.fix == install_command("warp")
    assert not check.needed


@pytest.mark.parametrize(
    ("trial", "note"),
    [
        ("import numpy.nothing", "ModuleNotFoundError: No module named 'numpy.nothing'"),
        ("import os; os.kill(os.getpid(), 11)", "its process was ended by signal 11"),
        ("import os; os._exit(9)", "its process ended with 9"),
        ("print('no GPU found'); raise SystemExit(3)", "no GPU found"),
        ("import sys; sys.stdout.buffer.write(bytes([255])); sys.exit('Error \\udcff')", "Error"),
    ],
)
def test_a_part_that_is_there_and_does_not_work(trial: str, note: str) -> None:
    check = try_part(Part("Broken", "nothing", ("numpy",), trial))
    assert check.status == "broken"
    assert check.note.startswith(note)
    assert check.fix == install_command("")
    assert check.needed


def test_a_part_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SECONDS", 0.3)
    check = try_part(Part("Hangs", "nothing", ("numpy",), "import time; time.sleep(60)", "plot"))
    assert (check.status, check.note) == ("broken", "did not answer within 0.3 s")


def test_a_trial_sees_its_environment_and_its_last_line_is_the_note() -> None:
    trial = "import os; print('first'); print(os.environ['MUJOCO_GL'])"
    check = try_part(Part("GL", "", ("numpy",), trial, environment=(("MUJOCO_GL", "egl"),)))
    assert (check.status, check.note, check.fix) == ("works", "egl", "")


def test_a_needed_part_that_does_not_work_ends_with_1(nervecord_cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Part("numpy", "everything", ("numpy",), "import numpy.nothing")
    monkeypatch.setattr(doctor.diagnose, "__defaults__", ((broken, PARTS[3]),))
    answer = nervecord_cli("doctor", "--quiet")
    assert answer.code == 1
    assert "numpy" in answer.out
    assert "No module named 'numpy.nothing'" in answer.out
    assert f"to have what is missing:\n  numpy  {install_command('')}" in answer.out


def test_the_command_that_installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the checkout's own folder it is the short one, from elsewhere it says where the checkout is."""
    origin = json.loads(metadata.distribution("nervecord").read_text("direct_url.json") or "{}")
    if not origin:
        pytest.skip("nervecord is not installed from a folder")
    folder = Path(origin["url"].removeprefix("file://"))
    monkeypatch.chdir(folder)
    assert install_command("mujoco") == "pip install '.[mujoco]'"
    assert install_command("") == "pip install '.'"
    monkeypatch.chdir(tmp_path)
    assert install_command("plot,video") == f"pip install '{folder}[plot,video]'"


def test_missing_packages_are_brought_by_their_own_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    # What renders and what computes on a GPU lacks its package: reinstalling the core would bring neither.
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    parts = {part.name: part for part in PARTS}
    for name, extra in (("OpenGL by EGL", "mujoco"), ("OpenGL by OSMesa", "mujoco"), ("CUDA", "train"), ("numba", "")):
        assert try_part(parts[name]).fix == install_command(extra)
