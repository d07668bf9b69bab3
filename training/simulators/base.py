"""Simulators behind one small protocol, in tensors.

All step a batch of environments of one task and reset an environment in the step AFTER its episode ended (Gymnasium's
AutoresetMode.NEXT_STEP): that step ignores the action, gives reward 0 and the first observation of the next episode.
Learners leave those steps out by a mask of valid steps. All are seeded with one seed for each environment.

A simulator on the host gives tensors that share its arrays' memory, valid until its next step; one on a card gives
tensors there, and no step waits for the host (but mjlab's, which resets by the numbers of environments).
"""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nervecord.errors import MissingDependencyError, NervecordError, install_command, unknown_name
from nervecord.runtime.environment import import_task, mujoco_log, simulator_missing, stated_period, unknown_task
from nervecord.training.settings import RunConfig

Array = NDArray[Any]

KINDS: tuple[str, ...] = RunConfig.__dataclass_fields__["sim"].metadata["choices"]
"""Simulators by name; "auto" is EnvPool or Gymnasium."""

TRAINING, VALIDATION, TEST = 0, 1, 2
"""Purposes of a simulator: each draws its environments' seeds from a stream of its own."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of all environments, in tensors on the simulator's device.

    Observations (N, observations) and rewards (N,), float32 or float64; terminated and truncated (N,) bool, of which
    both can be set where an episode fails in its last step.
    """

    observations: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor


class Simulator(Protocol):
    """A batch of environments with NEXT_STEP autoreset."""

    num_envs: int
    observation_size: int
    low: Array
    """Least action, (actions,) float64."""
    high: Array
    """Greatest action, (actions,) float64."""
    choices: int
    """Number of actions to choose from, where an action is one value, the number of the one chosen; else 0."""
    device: torch.device
    """Where its tensors are."""
    time_limit: int
    """Steps of an episode that the time limit ends; 0 where it is not known or `cut` does nothing."""
    can_cut: bool
    """Whether `cut` does anything."""

    def reset(self) -> Tensor:
        """First observations, (N, observations). To be called once."""
        ...

    def step(self, actions: Tensor) -> Step:
        """Apply actions (N, actions) within the limits, on its device; choices are (N, 1), whole numbers."""
        ...

    def cut(self, where: Tensor) -> None:
        """End episodes, (N,) bool: the next step only resets these environments."""
        ...

    def state_dict(self) -> dict[str, Any] | None:
        """The state of all environments in plain containers and tensors; None where it cannot be saved."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave, in place of `reset`."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


def environment_seeds(seed: int, purpose: int, generation: int, count: int) -> list[int]:
    """One seed for each environment; other purposes and generations share none but by chance."""
    words = np.random.SeedSequence((seed, purpose, generation)).generate_state(count, np.uint32)
    return [int(word >> 1) for word in words]  # EnvPool takes signed 32-bit seeds


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


def control_period(env: str) -> float:
    """Seconds between two actions of a Gymnasium task.

    Raises:
        MissingDependencyError: Gymnasium is not installed.
        NervecordError: the task is unknown, or says nothing about time.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise MissingDependencyError("Gymnasium is not installed", where=env, hint=install_command("train")) from error
    import_task(env)
    if env.rpartition(":")[2] not in gymnasium.registry:
        raise unknown_task(env, where="--env")
    with mujoco_log(), warnings.catch_warnings():
        # Ant-v4 says that there is an Ant-v5, which is another task.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            instance = gymnasium.make(env)
        except gymnasium.error.DependencyNotInstalled as error:
            raise simulator_missing(env, error) from None
    try:
        period = stated_period(instance)
        if period is None and instance.metadata.get("render_fps"):
            period = 1 / instance.metadata["render_fps"]
    finally:
        instance.close()
    if period is None or not period > 0:
        raise NervecordError(
            "says neither dt, tau nor render_fps, so the time between actions is unknown",
            where=env,
            hint='give the environment an attribute dt, in seconds, or metadata = {"render_fps": ...}',
        )
    return float(period)
