"""Simulators behind one small protocol, in tensors.

All step a batch of environments of one task and reset an environment in the step AFTER its episode ended (Gymnasium's
AutoresetMode.NEXT_STEP): that step ignores the action, gives reward 0 and the first observation of the next episode.
Learners leave those steps out by a mask of valid steps. All are seeded with one seed for each environment.

A simulator on the host gives tensors that share its arrays' memory, valid until its next step; one on a GPU gives
tensors there, and no step waits for the host (but mjlab's, which resets by the numbers of environments).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nervecord.errors import MissingDependencyError, NervecordError, install_command
from nervecord.runtime.worker.environment import import_task, simulator_missing, stated_period, unknown_task
from nervecord.runtime.worker.simulator_messages import mujoco_log, opengl_refused, without_deprecations

Array = NDArray[Any]

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
    control_period: float | None
    """Seconds between two actions; None where Gymnasium's task says them."""

    def reset(self) -> Tensor:
        """First observations, (N, observations). To be called once."""
        ...

    def step(self, actions: Tensor) -> Step:
        """Apply actions (N, actions) within the limits, on its device; choices are (N, 1), integers."""
        ...

    def cut(self, where: Tensor) -> None:
        """End episodes, (N,) bool: the next step only resets these environments."""
        ...

    def state_dict(self) -> dict[str, Any] | None:
        """The state of all environments in plain containers and tensors; None where it cannot be saved."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from what `state_dict` gave, in place of `reset`."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class Unsaved:
    """The part of a `Simulator` whose state cannot be saved."""

    where: ClassVar[str]
    """The flag that errors name."""
    elsewhere: ClassVar[str | None] = "use --sim gymnasium"

    def state_dict(self) -> None:
        """None: it cannot be saved."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Refuse.

        Raises:
            NervecordError: always.
        """
        raise NervecordError("cannot continue from a saved state", where=self.where, hint=self.elsewhere)


class Uncut(Unsaved):
    """The part of a `Simulator` that neither saves its state nor ends a single episode, and takes no choices."""

    elsewhere = None
    choices = 0
    time_limit = 0
    can_cut = False

    def cut(self, where: Tensor) -> None:
        """Nothing: single environments cannot be reset."""


def shared_seed(seeds: list[int]) -> int:
    """The seed of a simulator that has one for all its environments."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint32)[0] >> 1)


def environment_seeds(seed: int, purpose: int, generation: int, count: int) -> list[int]:
    """One seed for each environment; other purposes and generations share none but by chance."""
    words = np.random.SeedSequence((seed, purpose, generation)).generate_state(count, np.uint32)
    return [int(word >> 1) for word in words]  # EnvPool takes signed 32-bit seeds


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
    with mujoco_log(), opengl_refused(env), without_deprecations(env):
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
