"""Making Lava's environment: really made (of a stand-in for lava-nc, so that no network is needed), killed, raced."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from nervecord.errors import EngineError, MissingDependencyError, NervecordError
from nervecord.targets.lava import environment
from nervecord.targets.lava.environment import LAVA_VERSION, MARKER, install, require, status

STAND_IN = ("lava/magma/core/run_configs.py", "lava/proc/lif/models.py", "lava/magma/compiler/var_model.py")
INSTALL = """
import sys
from pathlib import Path
from nervecord.targets.lava import environment
environment.REQUIREMENTS = Path(sys.argv[1])
environment.install(lambda line: print(line, flush=True), python=Path(sys.executable), allow_shim=True)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NERVECORD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def wheel(folder: Path) -> Path:
    """A lava-nc that holds nothing but what the check imports; gives its requirement, with its hash."""
    folder.mkdir()
    info = f"lava_nc-{LAVA_VERSION}.dist-info"
    with zipfile.ZipFile(folder / f"lava_nc-{LAVA_VERSION}-py3-none-any.whl", "w") as file:
        for name in STAND_IN:
            file.writestr(name, "Loihi2SimCfg = PyLifModelBitAcc = None\n")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: lava-nc\nVersion: {LAVA_VERSION}\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    (environment,) = folder.iterdir()
    path = folder.parent / "requirements.txt"
    path.write_text(f"lava-nc=={LAVA_VERSION} --hash=sha256:{hashlib.sha256(environment.read_bytes()).hexdigest()}\n")
    return path


# --------------------------------------------------------------------------------------------------------------------
# Making it


def test_every_package_has_one_version_and_its_hashes() -> None:
    lines = environment.REQUIREMENTS.read_text().replace("\\\n", " ").splitlines()
    pins = [line.split() for line in lines if not line.startswith("#")]
    assert [name for name, *_ in pins] == environment.pins()
    assert f"lava-nc=={LAVA_VERSION}" in environment.pins()
    assert all(re.fullmatch(r"[a-z-]+==[0-9.]+", name) for name, *_ in pins)
    assert all(hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", h) for h in hashes) for _, *hashes in pins)


@pytest.mark.long
@pytest.mark.skipif(sys.version_info[:2] not in environment.SHIM_PYTHONS, reason="Lava does not run on this Python")
def test_a_package_of_another_hash_is_not_installed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requirements = wheel(tmp_path / "wheels")
    requirements.write_text(requirements.read_text().replace("sha256:", "sha256:0")[:-2])
    monkeypatch.setattr(environment, "REQUIREMENTS", requirements)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    with pytest.raises(EngineError) as caught:
        install(lambda line: None, python=Path(sys.executable), allow_shim=True)
    assert "HASH" in "".join(caught.value.__notes__).upper()
    assert not status().installed


@pytest.mark.long
@pytest.mark.skipif(sys.version_info[:2] not in environment.SHIM_PYTHONS, reason="Lava does not run on this Python")
def test_killed_half_way_raced_and_found_again(home: Path, tmp_path: Path) -> None:
    requirements = wheel(tmp_path / "wheels")
    variables = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels")}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", INSTALL, str(requirements)],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    with start() as first:
        assert first.stdout is not None
        assert "making an environment" in first.stdout.readline()
        deadline = time.monotonic() + 10
        while not list(home.glob("lava.building-*/bin")) and time.monotonic() < deadline:
            time.sleep(0.01)
        with start() as second, start() as third:
            assert second.stdout is not None
            assert third.stdout is not None
            assert "another installation is running" in second.stdout.readline()
            assert "another" in third.stdout.readline()
            assert not status().installed
            os.killpg(first.pid, signal.SIGKILL)
            outputs = [second.stdout.read(), third.stdout.read()]
        assert (second.returncode, third.returncode) == (0, 0), outputs
    outputs.sort(key=len)
    assert outputs[0].startswith(f"lava-nc {LAVA_VERSION} on Python")  # the one that came last made nothing
    assert "left by an installation that was interrupted" in outputs[1]
    assert sorted(path.name for path in home.iterdir()) == ["lava", "lava.lock"]

    installation = require()
    assert installation.lava_version == LAVA_VERSION
    assert installation.python_version == ".".join(map(str, sys.version_info[:3]))
    assert installation.shim  # recorded, because it was needed
    subprocess.run([installation.python, "-I", "-c", "import lava.proc.lif.models"], check=True)
    assert install([].append) == installation

    (home / "lava" / "bin" / "python").unlink()
    assert "interpreter" in str(status().problem)
    with pytest.raises(MissingDependencyError, match=r"gone.*nervecord targets install lava"):
        require()


def test_a_step_that_fails_leaves_what_stood_there(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    python = script(
        tmp_path / "python", 'case "$*" in *version_info*) echo 3 10;; *) echo no space left; exit 7;; esac'
    )
    old = home / "lava"
    old.mkdir(parents=True)
    (old / "something").touch()
    with pytest.raises(EngineError, match="code 7 of: ") as caught:
        install([].append, python=python)
    assert "no space left" in "".join(caught.value.__notes__)
    assert (old / "something").exists()
    assert sorted(path.name for path in home.iterdir()) == ["lava", "lava.lock"]


# --------------------------------------------------------------------------------------------------------------------
# Finding an interpreter


def test_without_python_3_10_it_says_what_to_run(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    script(tmp_path / "bin" / "python3.10", "echo 'pyenv: python3.10: command not found' >&2; exit 127")
    script(tmp_path / "pyenv" / "versions" / "3.10.99" / "bin" / "python", "echo 3 9")
    with pytest.raises(MissingDependencyError, match=r"Python 3.10.*pyenv install 3.10") as caught:
        install([].append)
    assert environment.INSTALL_COMMAND in str(caught.value)
    assert "--allow-shim" in str(caught.value)


def test_launchers_without_an_interpreter_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join(str(tmp_path / name) for name in ("shims", "bin")))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    script(tmp_path / "shims" / "python3.10", "exit 127")
    good = script(tmp_path / "bin" / "python3.10", "echo 3 10")
    assert environment._base(None, False, [].append) == (good, False)


def test_uv_fetches_one_where_none_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setattr(environment, "python_version", lambda _: None)
    fetched = tmp_path / "fetched"
    script(
        tmp_path / "bin" / "uv",
        f'case "$*" in "python install 3.10") touch {fetched};; *--managed*) echo {fetched};; *) exit 2;; esac',
    )
    assert environment._base(None, False, [].append) == (fetched, False)
    assert fetched.exists()


@pytest.mark.parametrize(
    ("answer", "message"), [("3 9", r"3\.9"), ("3 13", r"3\.13"), ("3 12", "--allow-shim"), ("hello", "no Python")]
)
def test_a_named_interpreter_of_the_wrong_version(home: Path, tmp_path: Path, answer: str, message: str) -> None:
    with pytest.raises(NervecordError, match=message):
        install([].append, python=script(tmp_path / "python", f"echo {answer}"))
    assert not status().installed


def test_the_shim_needs_its_allowance(tmp_path: Path) -> None:
    newer = script(tmp_path / "python", "echo 3 12")
    assert environment._base(newer, True, [].append) == (newer, True)
    assert environment._base(script(tmp_path / "stock", "echo 3 10"), True, [].append)[1] is False


# --------------------------------------------------------------------------------------------------------------------
# What is installed


def test_nothing_is_installed(home: Path) -> None:
    assert status().problem == "it is not installed"
    assert not home.exists()  # asking makes nothing
    with pytest.raises(MissingDependencyError, match=r"targets install lava.*emulator"):
        require()


@pytest.mark.parametrize(
    "marker",
    [
        "",
        "[]",
        "{}",
        '{"format": 1}',
        json.dumps({"format": 2, "lava": LAVA_VERSION, "python": "3.10.1", "shim": False}),
    ],
)
def test_a_damaged_or_foreign_marker_is_no_installation(home: Path, marker: str) -> None:
    (home / "lava").mkdir(parents=True)
    (home / "lava" / MARKER).write_text(marker)
    installation = status()
    assert not installation.installed
    assert installation.problem


def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NERVECORD_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert environment.home() == Path("/data/nervecord")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/ant")
    assert environment.home() == Path("/home/ant/.local/share/nervecord")
    monkeypatch.setenv("NERVECORD_HOME", "~/chosen")
    assert environment.home() == Path("/home/ant/chosen")


@pytest.mark.lava
def test_the_real_one_is_stock_lava() -> None:
    state = status()
    if not state.installed:
        pytest.skip(f"no Lava environment: {state.problem}; run {environment.INSTALL_COMMAND}")
    answer = subprocess.run(
        [state.python, "-I", "-c", "from importlib.metadata import version as v; print(v('lava-nc'), v('numpy'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.split() == [LAVA_VERSION, "1.26.4"]
