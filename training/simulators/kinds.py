"""The simulators there are, each declared once: what it is called, what it needs, what it can do.

Flags, checks, `nervecord doctor` and run folders are loops over `KINDS`. Importing this loads neither a
simulator nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SimulatorKind:
    """A simulator.

    Args:
        name: what `--sim` calls it. about: for its help.
        simulator: its class, "module:Class", which takes the task, the seeds, and what `takes` names.
        takes: which of "wrappers", "threads" and "device" it takes.
        tasks: the only tasks it has; empty where it has many.
        knows_gymnasium: whether its tasks are Gymnasium's, so that these say the time between two actions.
        prefix: before a task's name in a contract, where it is not unique without.
        is_shared: whether a process has one simulation alone, which a validation takes over.
        saves: "always", "some" (it depends on the task) or "never": what of a run resumes in the same episodes.
        can_cut: whether it ends single episodes.
        auto: function "module:name" that says of a task whether `AUTO` takes this simulator, which includes whether
            what it needs is installed; `AUTO` asks in the order of `KINDS`. Empty: it never does.
        packages: distributions, whose versions a run folder records.
        extra: of the installation that brings them. title: what documents call it.
        check: function "module:name" that refuses what cannot work here, before the class is imported.
        trial: Python code by which `nervecord doctor` tries it; empty: it is tried elsewhere.
        fix: how to install it, where the extra's command, {install}, is not enough.
    """

    name: str
    about: str
    simulator: str
    takes: tuple[str, ...]
    packages: tuple[str, ...]
    extra: str
    title: str = ""
    tasks: tuple[str, ...] = ()
    knows_gymnasium: bool = True
    prefix: str = ""
    is_shared: bool = False
    saves: str = "never"
    can_cut: bool = False
    auto: str = ""
    check: str = ""
    trial: str = ""
    fix: str = ""


_HERE = "nervecord.training.simulators"

AUTO = SimulatorKind("auto", "envpool where it is installed and has the task, else gymnasium", "", (), (), "")
"""What `--sim` says for one of two."""

_DECLARED = (
    SimulatorKind(
        "envpool",
        "EnvPool's environments, in threads of its own",
        f"{_HERE}.envpool:EnvPoolSimulator",
        ("threads",),
        ("envpool",),
        "train",
        title="EnvPool",
        can_cut=True,
        auto=f"{_HERE}.envpool:has_task",
        trial="import envpool; envpool.make_gymnasium('Ant-v4', num_envs=1).reset()",
    ),
    SimulatorKind(
        "gymnasium",
        "Gymnasium's environments, one after the other, also your own",
        f"{_HERE}.gymnasium:GymnasiumSimulator",
        ("wrappers",),
        ("gymnasium", "mujoco"),
        "mujoco",
        saves="some",
        can_cut=True,
        auto=f"{_HERE}.gymnasium:has_task",
    ),
    SimulatorKind(
        "gymnasium-async",
        "Gymnasium's environments, each in a process",
        f"{_HERE}.gymnasium_async:AsyncGymnasiumSimulator",
        ("wrappers",),
        ("gymnasium", "mujoco"),
        "mujoco",
        can_cut=True,
    ),
    SimulatorKind(
        "warp",
        "MuJoCo Warp, Ant-v4 alone, on --device",
        f"{_HERE}.warp_ant:WarpAnt",
        ("device",),
        ("mujoco-warp", "warp-lang"),
        "warp",
        title="MuJoCo Warp",
        tasks=("Ant-v4",),
        saves="always",
        can_cut=True,
        check=f"{_HERE}.warp_versions:check",
        trial="import mujoco_warp",
    ),
    SimulatorKind(
        "isaacgym",
        "Isaac Gym preview 4, in an interpreter of its own",
        f"{_HERE}.isaac_gym:IsaacGymSimulator",
        ("device",),
        (),
        "",
        title="Isaac Gym",
        knows_gymnasium=False,
        prefix="IsaacGym/",
        trial=f"""
from nervecord.errors import NervecordError
from {_HERE}.isaac_gym import interpreter
try:
    print(interpreter())
except NervecordError as error:
    print(error.message)
    raise SystemExit(3)
""",
        fix="see docs/simulators.md, Isaac Gym: NVIDIA's download, in a Python 3.8 of its own",
    ),
    SimulatorKind(
        "isaaclab",
        "Isaac Lab 3",
        f"{_HERE}.isaac_lab:IsaacLabSimulator",
        ("device",),
        ("isaaclab",),
        "isaaclab",
        title="Isaac Lab",
        knows_gymnasium=False,
        is_shared=True,
        trial="import isaaclab",
        fix="in an environment of its own, of Python 3.12: {install}",
    ),
    SimulatorKind(
        "mjlab",
        "mjlab",
        f"{_HERE}.mjlab:MjlabSimulator",
        ("device",),
        ("mjlab",),
        "mjlab",
        title="mjlab",
        knows_gymnasium=False,
        can_cut=True,
        trial="import mjlab.tasks",
        fix="in an environment of its own: {install}",
    ),
)

KINDS: dict[str, SimulatorKind] = {kind.name: kind for kind in _DECLARED}
"""By name, without `AUTO`."""


def on_devices() -> tuple[str, ...]:
    """Names of the simulators that run on a torch device."""
    return tuple(kind.name for kind in KINDS.values() if "device" in kind.takes)


def with_own_tasks() -> tuple[str, ...]:
    """Names of the simulators whose tasks are not Gymnasium's."""
    return tuple(kind.name for kind in KINDS.values() if not kind.knows_gymnasium)


def that_cut() -> tuple[str, ...]:
    """Names of the simulators that end single episodes."""
    return tuple(kind.name for kind in KINDS.values() if kind.can_cut)


def kind_named(sim: str) -> SimulatorKind:
    """What `--sim` says, `AUTO` included."""
    return AUTO if sim == AUTO.name else KINDS[sim]
