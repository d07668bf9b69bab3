"""The simulator of a configuration, by its name."""

from __future__ import annotations

import importlib.util
from importlib import metadata

from nervecord.errors import MissingDependencyError, NervecordError, install_command, unknown_name
from nervecord.training.settings.fields import RunConfig
from nervecord.training.simulators.base import Simulator

KINDS: tuple[str, ...] = RunConfig.__dataclass_fields__["sim"].metadata["choices"]
"""Simulators by name; "auto" is EnvPool or Gymnasium."""


def make_simulator(
    env: str,
    seeds: list[int],
    *,
    kind: str = "auto",
    wrappers: tuple[str, ...] = (),
    threads: int = 1,
    device: str = "cpu",
) -> Simulator:
    """A simulator with one environment for each seed.

    Args:
        env: Gymnasium id, also module:Id; for Isaac Gym the name of its task, for mjlab its id of it, also module:Id.
        seeds: one for each environment.
        kind: "envpool", "gymnasium", "warp" (MuJoCo Warp, Ant-v4 alone), "isaacgym", "isaaclab", "mjlab", or "auto":
            EnvPool where it is installed and knows the task, else Gymnasium.
        wrappers: names of Gymnasium wrappers, which need its own environments.
        threads: threads EnvPool steps its environments with.
        device: torch device MuJoCo Warp, Isaac Gym, Isaac Lab and mjlab run on; the others run on the CPU.

    Raises:
        MissingDependencyError: the simulator asked for is not installed.
        NervecordError: the task is unknown to it, its spaces cannot be trained, or the device cannot be used.
    """
    if kind not in KINDS:
        raise unknown_name("simulator", kind, KINDS, where="--sim")
    if kind == "auto":
        kind = resolve_kind(env, wrappers)
    if wrappers and kind != "gymnasium":
        raise NervecordError(
            f"are around Gymnasium's environments, and --sim {kind} has none",
            where="--wrappers",
            hint="use --sim gymnasium",
        )
    if kind == "envpool":
        from nervecord.training.simulators.envpool import EnvPoolSimulator

        return EnvPoolSimulator(env, seeds, threads)
    if kind == "warp":
        check_warp(env)
        from nervecord.training.simulators.warp_ant import WarpAnt

        return WarpAnt(seeds, device)
    if kind == "isaacgym":
        from nervecord.training.simulators.isaac_gym import IsaacGymSimulator

        return IsaacGymSimulator(env, seeds, device)
    if kind == "isaaclab":
        from nervecord.training.simulators.isaac_lab import IsaacLabSimulator

        return IsaacLabSimulator(env, seeds, device)
    if kind == "mjlab":
        from nervecord.training.simulators.mjlab import MjlabSimulator

        return MjlabSimulator(env, seeds, device)
    from nervecord.training.simulators.gymnasium import GymnasiumSimulator

    return GymnasiumSimulator(env, seeds, wrappers)


def resolve_kind(env: str, wrappers: tuple[str, ...] = ()) -> str:
    """The simulator "auto" stands for: "envpool" where it is installed and knows the task, else "gymnasium"."""
    if wrappers or importlib.util.find_spec("envpool") is None:
        return "gymnasium"
    import envpool

    return "envpool" if env in envpool.list_all_envs() else "gymnasium"


def check_warp(env: str) -> None:
    """Refuse what MuJoCo Warp cannot do here.

    Raises:
        NervecordError: it has no such task, or another version than MuJoCo.
        MissingDependencyError: it is not installed.
    """
    if env != "Ant-v4":
        raise NervecordError(
            f"{env} is no task of the simulator warp, which has Ant-v4 alone", where="--env", hint="use --sim auto"
        )
    found: dict[str, str] = {}
    for name in ("mujoco", "mujoco-warp", "warp-lang"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError as error:
            raise MissingDependencyError(
                f"{name} is not installed", where="--sim warp", hint=install_command("train,warp")
            ) from error
    if found["mujoco"] != found["mujoco-warp"]:
        raise NervecordError(
            f"MuJoCo Warp {found['mujoco-warp']} is not of the version of MuJoCo, {found['mujoco']}",
            where="--sim warp",
            hint=f"pip install mujoco-warp=={found['mujoco']}",
        )
