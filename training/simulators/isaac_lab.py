"""Isaac Lab as a simulator: its tasks in this process, through skrl's loader. A door of skrl.

What it has in common with mjlab stands in `lab_interface`. Isaac Lab resets an environment in the very step that ends
its episode and gives the first observation of the next one. It keeps the last one on request (`compute_final_obs`,
asked for here). Where a task does not, that is lost, and the observation before it stands in its place: at a time limit
the critic's value of that one then continues the episode, as in rsl_rl and rl_games.

A process holds one Isaac Lab simulation. It is made by the first simulator and handed on: each simulator takes it over
from the one before, which is of no use after that, resets it, and uses as many of its environments as it has seeds; the
others stand idle.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nervecord.errors import EngineError, MissingDependencyError, NervecordError, install_command
from nervecord.training.processes.quiet_skrl import import_skrl
from nervecord.training.simulators.base import Step
from nervecord.training.simulators.lab_interface import LabSimulator

WHERE = "--sim isaaclab"
INSTALL = (
    "make an environment of Python 3.12, which Isaac Lab 3 needs, and start nervecord there; "
    f"{install_command('isaaclab')} brings both"
)


def load(env: str, num_envs: int, seed: int, device: str) -> Any:
    """An Isaac Lab environment, made by skrl's loader.

    Raises:
        MissingDependencyError: Isaac Lab is not installed.
        NervecordError: it has no such task.
    """
    if importlib.util.find_spec("isaaclab") is None or importlib.util.find_spec("isaaclab_tasks") is None:
        raise MissingDependencyError("Isaac Lab is not installed here", where=WHERE, hint=INSTALL)
    import_skrl()
    from skrl.envs.loaders.torch import load_isaaclab_env  # type: ignore[import-untyped]

    # The loader hands --device to the launcher alone, and not to the task.
    words = ["--seed", str(seed), "--device", device, f"env.sim.device={device}", "env.compute_final_obs=true"]
    with _arguments():
        try:
            return load_isaaclab_env(task_name=env, num_envs=num_envs, cli_args=words, show_cfg=False)
        except Exception as error:
            if type(error).__name__ in ("NameNotFound", "NamespaceNotFound", "VersionNotFound"):
                raise NervecordError(f"no task of Isaac Lab ({error})", where=env) from error
            raise


@contextlib.contextmanager
def _arguments() -> Iterator[None]:
    """The loader reads the command line, where it would find ours, and adds to it."""
    arguments = sys.argv
    sys.argv = arguments[:1]
    try:
        yield
    finally:
        sys.argv = arguments


@dataclass(slots=True)
class _Simulation:
    """The one simulation of this process."""

    env: str
    device: str
    inner: Any
    holder: object = None


_simulation: _Simulation | None = None


def _take(env: str, num_envs: int, seed: int, device: str) -> _Simulation:
    global _simulation
    if _simulation is None:
        _simulation = _Simulation(env, device, load(env, num_envs, seed, device))
        atexit.register(_simulation.inner.close)
    current = _simulation
    if (current.env, current.device) != (env, device):
        raise NervecordError(
            f"this process simulates {current.env} on {current.device}, and Isaac Lab cannot begin a second time",
            where=WHERE,
            hint=f"train {env} on {device} in a process of its own",
        )
    there = int(current.inner.unwrapped.num_envs)
    if num_envs > there:
        raise NervecordError(
            f"{num_envs} environments are needed, and Isaac Lab was begun with {there} in this process", where=WHERE
        )
    return current


class IsaacLabSimulator(LabSimulator):
    """A task of Isaac Lab.

    Args:
        env: the task's Gymnasium id, for example Isaac-Ant.
        seeds: one for each environment.
        device: torch device of simulator and learner.

    Raises:
        MissingDependencyError: Isaac Lab is not installed.
        NervecordError: the task is unknown, its spaces are not flat, this process simulates another one, or torch
            cannot use the device.
    """

    where = WHERE
    group = "policy"

    def _make(self, env: str, device: str) -> Any:
        self._held = _take(env, self.num_envs, self._seed, device)
        self._held.holder = self
        return self._held.inner

    def reset(self) -> Tensor:
        """First observations, (N, observations) float32; every environment begins anew."""
        self._check_holder()
        return super().reset()

    def step(self, actions: Tensor) -> Step:
        """Apply actions (N, actions) that lie on the device; so do the results, which no later step touches."""
        self._check_holder()
        return super().step(actions)

    def _advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        observations, rewards, terminated, truncated, info = self._inner.step(actions)
        last = info["final_obs"][self.group] if "final_obs" in info else self._last
        ended = (terminated | truncated)[:, None]
        return torch.where(ended, last, observations[self.group]), rewards, terminated, truncated

    def close(self) -> None:
        """Let go of the simulation, which stays for the next simulator of this process."""
        if self._held.holder is self:
            self._held.holder = None

    def _check_holder(self) -> None:
        if self._held.holder is not self:
            raise EngineError("another simulator has taken the simulation over", where=WHERE)
