"""What an installation can do: the core alone, and the core with an extra.

The quick tests hide the optional packages from a process; the slow ones build a wheel and install it into environments
of their own, outside the repository.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from policies import random_policy

from nervecord.compiler.nir.file import write_nir

ROOT = Path(__file__).parent.parent
OPTIONAL = (
    "torch",
    "snntorch",
    "skrl",
    "tensorboard",
    "mujoco",
    "gymnasium",
    "envpool",
    "matplotlib",
    "PIL",
    "imageio_ffmpeg",
    "plotly",
    "jinja2",
    "networkx",
    "pytest",
)

HIDE = f"""
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""

STEP = """
import sys
import numpy as np
import nervecord

assert {target!r} in [spec.name for spec in nervecord.list_targets()]
program = nervecord.compile({policy!r}, {target!r})
program.save({program!r})
with nervecord.open({program!r}) as session:
    actions = [session.step(row).tolist() for row in np.random.default_rng(0).normal(size=(5, 27))]
assert nervecord.inspect({program!r}, [{target!r}]).feasible
print(nervecord.__file__)
print(actions)
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "ant.nir"
    write_nir(random_policy(sizes=(27, 12, 8)), path)
    return path


def clean() -> dict[str, str]:
    """The environment without what would lead Python to this checkout."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}


# --------------------------------------------------------------------------------------------------------------------
# The optional packages hidden


@pytest.fixture
def core(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """core(code): Python without the optional packages. core(words=[...]): the command."""

    def run(code: str = "", words: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        if words is not None:
            code = f"from nervecord.cli.command import main\nraise SystemExit(main({words!r}))"
        return subprocess.run(
            [sys.executable, "-c", HIDE + code], cwd=tmp_path, capture_output=True, text=True, timeout=300, env=clean()
        )

    return run


@pytest.mark.long
@pytest.mark.parametrize("target", ["lava", "reference"])
def test_the_core_inspects_compiles_and_steps(target: str, core: Callable, policy: Path, tmp_path: Path) -> None:
    process = core(STEP.format(policy=str(policy), program=str(tmp_path / "p"), target=target))
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.long
def test_the_core_has_the_commands_that_need_no_more(core: Callable, policy: Path, tmp_path: Path) -> None:
    program = str(tmp_path / "ant.nervecord")
    for words in (
        ["--help"],
        ["train", "--help"],
        ["targets"],
        ["compile", str(policy), "-o", program],
        ["inspect", program, "--target", "lava"],
        ["compare", str(policy), program],
    ):
        process = core(words=words)
        assert (process.returncode, process.stderr) == (0, ""), words


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["run", "{policy}"], "[mujoco]'"),
        (["run", "{policy}", "--env", "HalfCheetah-v4"], "[mujoco]'"),
        (["run", "{policy}", "--picture", "a.png"], "[plot]'"),
        (["run", "{policy}", "--video", "a.mp4"], "[video]'"),
        (["train", "--steps", "1000"], "[train]'"),
        (["demo"], "pip install '"),
        (["inspect", "{policy}", "--html", "a.html"], "[report]'"),
        (["inspect", "{policy}", "--svg", "a.svg"], "[report]'"),
    ],
)
def test_what_is_missing_is_named_with_its_extra(
    words: list[str], hint: str, core: Callable, policy: Path, tmp_path: Path
) -> None:
    process = core(words=[word.format(policy=policy) for word in words])
    assert (process.returncode, process.stdout) == (2, "")
    assert hint in process.stderr
    assert "(pip install '" in process.stderr
    assert process.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["ant.nir"]  # no run folder, no demo folder


# --------------------------------------------------------------------------------------------------------------------
# Installed


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of this checkout and the wheel made from it; of a copy, so that it stays as it is."""
    source, out = tmp_path_factory.mktemp("source") / "nervecord", tmp_path_factory.mktemp("dist")
    shutil.copytree(
        ROOT,
        source,
        symlinks=True,
        ignore=shutil.ignore_patterns(".*", "tests", "benchmarks", "runs", "demo", "shared", "build", "*.egg-info"),
    )
    process = _called([sys.executable, "-m", "build", "--outdir", str(out), str(source)])
    assert process.returncode == 0, process.stderr
    return out


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (path,) = distributions.glob("nervecord-*.whl")
    return path


def _called(words: list[str], **how: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=1800, env=clean(), **how)  # type: ignore[call-overload, no-any-return]


def installed(folder: Path, wheel: Path, extra: str = "") -> Path:
    """A fresh environment with the wheel; returns its bin folder."""
    process = _called([sys.executable, "-m", "venv", str(folder)])
    assert process.returncode == 0, process.stderr
    installation = _called(
        [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", f"{wheel}{extra}"]
    )
    assert installation.returncode == 0, installation.stderr
    return folder / "bin"


@pytest.mark.slow  # tests/test_repository.py compares the lists of packages and of data with the sources
def test_the_wheel_holds_what_it_needs_and_nothing_else(wheel: Path) -> None:
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert all(top == "nervecord" or top.endswith(".dist-info") for top in tops), tops
    for name in (
        "py.typed",
        "targets/loihi1/spec.toml",
        "targets/lava/lava_worker/handler.py",
        "training/simulators/isaac_worker/handler.py",
        "compiler/nir/hdf5child.py",
        "runtime/report/html/report.html.jinja",
        "runtime/report/html/report.css",
        "runtime/report/html/report.js",
    ):
        assert f"nervecord/{name}" in names
    assert not [name for name in names if "/tests/" in name or "/benchmarks/" in name]


@pytest.mark.slow
def test_an_index_would_take_them(distributions: Path) -> None:
    pytest.importorskip("twine")
    process = _called([sys.executable, "-m", "twine", "check", "--strict", *map(str, distributions.iterdir())])
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.slow
def test_the_sdist_installs_too(distributions: Path, policy: Path, tmp_path: Path) -> None:
    (sdist,) = distributions.glob("nervecord-*.tar.gz")
    bin = installed(tmp_path / "venv", sdist)
    process = _called(
        [str(bin / "nervecord"), "compile", str(policy), "-o", str(tmp_path / "a.nervecord")], cwd=tmp_path
    )
    assert (process.returncode, process.stderr) == (0, "")
    process = _called([str(bin / "nervecord"), "doctor", "--json", "--quiet"], cwd=tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    parts = {part["part"]: part for part in json.loads(process.stdout)["parts"]}
    assert parts["numba"]["status"] == "works"
    assert parts["torch, snnTorch"]["status"] == "missing"
    assert parts["torch, snnTorch"]["fix"] == f"pip install '{sdist}[train]'"


@pytest.mark.slow
def test_a_report_from_an_installation(wheel: Path, policy: Path, tmp_path: Path) -> None:
    """The page's template and styles are shipped."""
    bin = installed(tmp_path / "venv", wheel, "[report]")
    process = _called(
        [str(bin / "nervecord"), "inspect", str(policy), "--html", str(tmp_path / "a.html")], cwd=tmp_path
    )
    assert process.returncode == 0, process.stderr
    assert "Content-Security-Policy" in (tmp_path / "a.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_core_installation(wheel: Path, policy: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    bin = installed(tmp_path / "venv", wheel)
    listed = json.loads(_called([str(bin / "python"), "-m", "pip", "list", "--format", "json"]).stdout)
    names = {package["name"].lower() for package in listed}
    assert {"nervecord", "numpy", "nir", "h5py", "numba"} <= names
    assert not names & {"torch", "mujoco", "gymnasium", "matplotlib", "snntorch", "skrl"}

    program = str(home / "ant.nervecord")
    process = _called(
        [str(bin / "python"), "-c", STEP.format(policy=str(policy), program=program, target="lava")], cwd=home
    )
    assert (process.returncode, process.stderr) == (0, "")
    place, actions = process.stdout.splitlines()
    assert Path(place).is_relative_to(tmp_path / "venv")
    assert str(ROOT) not in place
    # The same actions as here.
    here = _called([sys.executable, "-c", STEP.format(policy=str(policy), program=program, target="lava")], cwd=home)
    assert here.stdout.splitlines()[1] == actions

    command = str(bin / "nervecord")
    for words in (
        ["--version"],
        ["compile", str(policy), "-o", program],
        ["inspect", program, "--target", "lava", "--json"],
        ["compare", str(policy), program],
        ["targets", "loihi1"],
    ):
        process = _called([command, *words], cwd=home)
        assert (process.returncode, process.stderr) == (0, ""), words
    for words, hint in ((["run", program], "[mujoco]'"), (["train", "--steps", "1000"], "[train]'")):
        process = _called([command, *words], cwd=home)
        assert (process.returncode, process.stdout) == (2, "")
        assert hint in process.stderr
        assert process.stderr.count("\n") == 1
    assert os.listdir(home) == ["ant.nervecord"]


@pytest.mark.slow
def test_installation_with_mujoco(wheel: Path, policy: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    bin = installed(tmp_path / "venv", wheel, "[mujoco]")
    process = _called([str(bin / "nervecord"), "run", str(policy), "--episodes", "1", "--json"], cwd=home)
    assert process.returncode == 0, process.stderr
    data = json.loads(process.stdout)
    assert (data["env"], data["episodes"], data["fail_safe"]) == ("Ant-v4", 1, {})
    assert data["length_mean"] > 0
    # The same episode as here.
    here = _called([sys.executable, "-m", "nervecord", "run", str(policy), "--episodes", "1", "--json"], cwd=home)
    assert json.loads(here.stdout)["return_each"] == pytest.approx(data["return_each"])
