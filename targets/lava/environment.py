"""The environment that Lava runs in: found, or made.

lava-nc 0.10.0 declares Python 3.10 and numpy below 2, so it gets an interpreter of its own in the user's data folder
(`NERVECORD_HOME`, or where the system keeps such things). It is built beside its place and renamed into it, so that
what stands there is whole; a lock keeps two builders apart.

Newer interpreters can run it only with the shim in `lava_worker/shim.py`; that is a change to what is promised (stock
Lava), so it needs an explicit allowance, and the marker file records it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nervecord.compiler.files.atomic import write_atomically
from nervecord.errors import EngineError, MissingDependencyError, NervecordError

LAVA_VERSION = "0.10.0"
PYTHON = (3, 10)
"""The version Lava declares."""
SHIM_PYTHONS = ((3, 11), (3, 12))
"""Versions it was seen to run on with the shim; numpy 1.26 has no build for newer ones."""
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
"""Lava and all that it needs, each of one version and with the hashes of its files."""
INSTALL_COMMAND = "nervecord targets install lava"
MARKER = "nervecord.json"
MARKER_FORMAT = 1
STEP_TIMEOUT = 1800.0
"""Seconds for one step of the installation."""

CHECK = """
import json, sys
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.lif.models import PyLifModelBitAcc
print(json.dumps(sys.version_info[:3]))
"""

Progress = Callable[[str], None]
"""Receives one line at a time for people to read."""


@dataclass(frozen=True, slots=True)
class LavaStatus:
    """What is installed.

    Args:
        installed: whether it can be used.
        path: where the environment is, or would be.
        python: its interpreter.
        python_version, lava_version: None where it is not installed.
        shim: whether Lava runs on a newer Python than it declares, by our shim.
        problem: why it is not installed, for people.
    """

    installed: bool
    path: Path
    python: Path
    python_version: str | None = None
    lava_version: str | None = None
    shim: bool = False
    problem: str | None = None


def home() -> Path:
    """Where environments are kept: NERVECORD_HOME, or the user's data folder."""
    if chosen := os.environ.get("NERVECORD_HOME"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "nervecord"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "nervecord"


def status() -> LavaStatus:
    """What is installed; starts nothing."""
    path = home() / "lava"
    python = path / "bin" / "python"

    def absent(problem: str) -> LavaStatus:
        return LavaStatus(installed=False, path=path, python=python, problem=problem)

    try:
        marker = json.loads((path / MARKER).read_text())
        if marker["format"] != MARKER_FORMAT or marker["lava"] != LAVA_VERSION:
            return absent(f"it was made for lava-nc {marker['lava']} by another version of nervecord")
        result = LavaStatus(
            installed=True,
            path=path,
            python=python,
            python_version=str(marker["python"]),
            lava_version=str(marker["lava"]),
            shim=bool(marker["shim"]),
        )
    except FileNotFoundError:
        return absent("it is not installed")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return absent(f"its marker {path / MARKER} is damaged: {error!r}")
    if not os.access(python, os.X_OK):
        return absent(f"its interpreter {python} is gone (was the Python it was made from removed?)")
    return result


def require() -> LavaStatus:
    """What is installed.

    Raises:
        MissingDependencyError: nothing that can be used.
    """
    installation = status()
    if not installation.installed:
        raise MissingDependencyError(
            f"engine 'lava' needs Lava's own environment, and {installation.problem}",
            where="lava",
            hint=f"run: {INSTALL_COMMAND}; the engine 'emulator' computes the same without it",
        )
    return installation


def install(progress: Progress, *, python: Path | None = None, allow_shim: bool = False) -> LavaStatus:
    """Make the environment, unless it is there.

    Args:
        python: the interpreter to build on; None looks for a 3.10 (PATH, pyenv, uv) and lets uv fetch one.
        allow_shim: where there is no 3.10, use a newer Python with the shim.

    Raises:
        MissingDependencyError: no suitable Python; says what to run.
        EngineError: a step of the installation failed; what stood there before still does.
    """
    root = home()
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / "lava.lock", progress):
        installation = status()
        if installation.installed:
            version, lava = installation.python_version, installation.lava_version
            progress(f"lava-nc {lava} on Python {version} is installed in {installation.path}")
            return installation
        for remnant in [*root.glob("lava.building-*"), *root.glob("lava.old-*")]:
            progress(f"removing {remnant}, left by an installation that was interrupted")
            shutil.rmtree(remnant)
        base, shim = _base(python, allow_shim, progress)
        building = root / f"lava.building-{os.getpid()}"
        try:
            version = _build(building, base, shim, progress)
            _put_in_place(building, installation.path)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        progress(f"lava-nc {LAVA_VERSION} on Python {version} is installed in {installation.path}")
        return require()


# --------------------------------------------------------------------------------------------------------------------
# Building


def _build(building: Path, base: Path, shim: bool, progress: Progress) -> str:
    """Make the environment in this folder and mark it whole; returns its Python's version."""
    progress(f"making an environment with {base}")
    _make_environment(base, building)
    interpreter = building / "bin" / "python"
    progress(f"installing lava-nc {LAVA_VERSION} and what it needs (about 300 MB)")
    # With the shim pip must neither look at the bound Lava declares nor at those of what it needs.
    options = ["--no-deps", "--ignore-requires-python"] if shim else []
    # Wheels of these hashes alone: what an index was made to give instead is not installed, nor is a setup.py run.
    options += ["--require-hashes", "--only-binary", ":all:", "-r", str(REQUIREMENTS)]
    _run([str(interpreter), "-m", "pip", "install", "--disable-pip-version-check", *options])
    progress("checking it")
    checked = [str(interpreter), "-I", "-c", (_shim_first() if shim else "") + CHECK]
    version = ".".join(map(str, json.loads(_run(checked).strip().splitlines()[-1])))
    marker = {"format": MARKER_FORMAT, "lava": LAVA_VERSION, "python": version, "shim": shim, "pins": pins()}
    write_atomically(building / MARKER, (json.dumps(marker, indent=1, sort_keys=True) + "\n").encode())
    return version


def pins() -> list[str]:
    """Names and versions of Lava and all that it needs."""
    lines = REQUIREMENTS.read_text(encoding="ascii").splitlines()
    return [line.split()[0] for line in lines if line[:1].isalpha()]


def _shim_first() -> str:
    return f"exec(open({str(Path(__file__).parent / 'lava_worker' / 'shim.py')!r}).read()); apply()\n"


def _make_environment(base: Path, folder: Path) -> None:
    try:
        _run([str(base), "-I", "-m", "venv", str(folder)])
    except EngineError:
        # Some systems ship Python without ensurepip; uv needs neither.
        uv = shutil.which("uv")
        if uv is None:
            raise
        shutil.rmtree(folder, ignore_errors=True)
        _run([uv, "venv", "--seed", "--python", str(base), str(folder)])


def _put_in_place(building: Path, path: Path) -> None:
    if path.exists():
        old = path.with_name(f"lava.old-{os.getpid()}")
        path.rename(old)
        building.rename(path)
        shutil.rmtree(old)
    else:
        building.rename(path)


def _run(command: Sequence[str]) -> str:
    """Run a step of the installation; returns what it printed.

    Raises:
        EngineError: it failed or took too long.
    """
    words = " ".join(command[:6])
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=STEP_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"did not end within {STEP_TIMEOUT:g} s: {words}", where="install lava") from None
    if done.returncode:
        error = EngineError(
            f"exit code {done.returncode} of: {words}",
            where="install lava",
            hint="what it printed is below; the installation can be run again",
        )
        error.add_note("\n".join((done.stdout + done.stderr).strip().splitlines()[-30:]))
        raise error
    return done.stdout


@contextlib.contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock; the system gives it back however we end."""
    with path.open("w") as file:
        waiting = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    progress("another installation is running; waiting for it")
                waiting = True
                time.sleep(0.1)
        yield


# --------------------------------------------------------------------------------------------------------------------
# Finding an interpreter


def _base(python: Path | None, allow_shim: bool, progress: Progress) -> tuple[Path, bool]:
    """The interpreter to build on, and whether it needs the shim."""
    if python is not None:
        return python, _needs_shim(python, allow_shim)
    for candidate in _candidates():
        if python_version(candidate) == PYTHON:
            return candidate, False
    uv = shutil.which("uv")
    if uv is not None:
        progress("fetching Python 3.10 with uv")
        try:
            _run([uv, "python", "install", "3.10"])
            return Path(_run([uv, "python", "find", "--managed-python", "3.10"]).strip()), False
        except EngineError as error:
            if not allow_shim:
                raise
            progress(f"uv could not: {error}")
    here = Path(sys.executable)
    if allow_shim and python_version(here) in SHIM_PYTHONS:
        progress(f"no Python 3.10: using {here} with the shim for newer Pythons, as allowed")
        return here, True
    newest = ".".join(map(str, SHIM_PYTHONS[-1]))
    raise MissingDependencyError(
        f"lava-nc {LAVA_VERSION} needs Python 3.10, and none is found on PATH, in pyenv or by uv",
        where="install lava",
        hint=(
            "run one of: pip install uv, pyenv install 3.10, or your system's python3.10 with venv; "
            f"then: {INSTALL_COMMAND}. With --allow-shim Python 3.11 to {newest} will do"
        ),
    )


def _needs_shim(python: Path, allow_shim: bool) -> bool:
    version = python_version(python)
    if version == PYTHON:
        return False
    if version is None:
        raise NervecordError(f"{python} is no Python interpreter", where="install lava")
    named = ".".join(map(str, version))
    if version not in SHIM_PYTHONS:
        raise NervecordError(f"{python} is Python {named}, which Lava does not run on", where="install lava")
    if not allow_shim:
        raise NervecordError(
            f"{python} is Python {named}, lava-nc {LAVA_VERSION} declares 3.10",
            where="install lava",
            hint="allow the shim for newer Pythons with --allow-shim, or name a Python 3.10",
        )
    return True


def _candidates() -> Iterator[Path]:
    """Interpreters that may be 3.10, cheapest first. Each has to be asked: pyenv's launchers exist without one."""
    for folder in os.get_exec_path():
        candidate = Path(folder) / "python3.10"
        if os.access(candidate, os.X_OK):
            yield candidate
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob("versions/3.10.*/bin/python"), reverse=True)
    uv = shutil.which("uv")
    if uv is not None:
        done = subprocess.run(
            [uv, "python", "find", "--no-project", "3.10"], capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode == 0:
            yield Path(done.stdout.strip())


def python_version(python: Path) -> tuple[int, int] | None:
    """(major, minor) of an interpreter, None where it is none or does not answer."""
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", "import sys; print(*sys.version_info[:2])"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        major, minor = done.stdout.split()
        return int(major), int(minor)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
