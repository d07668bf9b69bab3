"""Isaac Lab as a simulator: its tasks in this process, through skrl's own loader and wrapper. A door of skrl.

Resets. Isaac Lab resets an environment in the very step that ends its episode and gives the first observation of the
next one (SAME_STEP). The protocol's NEXT_STEP is made of it like this:

- the step that ends an episode gives the episode's last observation: Isaac Lab keeps it on request
  (`compute_final_obs`, asked for here). Where a task does not, it is lost, and the observation before it stands in its
  place: at a time limit the critic's value of that one then continues the episode, as in rsl_rl and rl_games;
- the next step is the one that "only resets". Isaac Lab cannot hold single environments, so this one really takes a
  step, with action 0, which the learner does not see: reward 0, and the observation after it begins the episode. Should
  the new episode end in it, that end is reported, and the step after it resets again.

A process holds one Isaac Lab simulation. It is made by the first simulator and handed on: each simulator takes it over
from the one before, which is of no use after that, resets it, and uses as many of its environments as it has seeds; the
others stand idle.

Isaac Lab's action spaces have no limits; the actions of such a task are taken to lie between -1 and 1, which its Ant
limits them to as well. Isaac Lab has one seed for all environments; it is derived from the list of them.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nervecord.errors import EngineError, MissingDependencyError, NervecordError, install_command
from nervecord.training.learners.base import check_device
from nervecord.training.quiet_skrl import import_skrl
from nervecord.training.simulators.base import Step

Array = NDArray[Any]

WHERE = "--sim isaaclab"
INSTALL = (
    "make an environment of Python 3.12, which Isaac Lab 3 needs, and start nervecord there; "
    f"{install_command('isaaclab')} brings both"
)
UNIT = 1.0
"""Limit of the actions of a task that has none."""


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
    with _arguments(), contextlib.redirect_stdout(sys.stderr):
        try:
            return load_isaaclab_env(task_name=env, num_envs=num_envs, cli_args=words, show_cfg=False)
        except Exception as error:
            if type(error).__name__ in ("NameNotFound", "NamespaceNotFound", "VersionNotFound"):
                raise NervecordError(f"no task of Isaac Lab ({error})", where=env) from error
            raise


@contextlib.contextmanager
def _arguments() -> Iterator[None]:
    """The loader reads the command line, where it would find ours, and adds to it."""
    ours = sys.argv
    sys.argv = ours[:1]
    try:
        yield
    finally:
        sys.argv = ours


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
    held = _simulation
    if (held.env, held.device) != (env, device):
        raise NervecordError(
            f"this process simulates {held.env} on {held.device} already, and Isaac Lab cannot begin a second time",
            where=WHERE,
            hint=f"train {env} on {device} in a process of its own",
        )
    there = int(held.inner.unwrapped.num_envs)
    if num_envs > there:
        raise NervecordError(
            f"{num_envs} environments are needed, and Isaac Lab was begun with {there} in this process", where=WHERE
        )
    return held


class IsaacLabSimulator:
    """A task of Isaac Lab, in tensors on its device.

    Args:
        env: the task's Gymnasium id, for example Isaac-Ant.
        seeds: one for each environment.
        device: torch device of simulator and learner.

    Raises:
        MissingDependencyError: Isaac Lab is not installed.
        NervecordError: the task is unknown, its spaces are not flat, or this process simulates another one.
    """

    choices = 0
    time_limit = 0
    is_shared = True
    """A process has one simulation: who validates takes it over."""

    def __init__(self, env: str, seeds: list[int], device: str) -> None:
        import_skrl()
        from skrl import config as skrl_config  # type: ignore[import-untyped]
        from skrl.envs.wrappers.torch import wrap_env  # type: ignore[import-untyped]

        check_device(device)
        device = "cuda:0" if device == "cuda" else device
        self.num_envs = len(seeds)
        seed = int(np.random.SeedSequence(seeds).generate_state(1, np.uint32)[0] >> 1)
        with _own_randomness(device):
            self._held = _take(env, len(seeds), seed, device)
        self._held.holder = self
        # A new wrapper for each simulator: it resets its environment once, with this seed.
        skrl_config.torch.key = seed
        self._env = wrap_env(self._held.inner, wrapper="isaaclab-single-agent", verbose=False)
        self.observation_size, self.low, self.high = _sizes(env, self._env.observation_space, self._env.action_space)
        self.device = torch.device(self._env.device)
        self.control_period = float(self._env.unwrapped.step_dt)
        """Seconds between two actions."""
        self._all_actions = torch.zeros((self._env.num_envs, len(self.low)), device=self._env.device)
        self._rest = torch.as_tensor(np.clip(0.0, self.low, self.high), dtype=torch.float32, device=self._env.device)
        self._resets = torch.zeros(self.num_envs, dtype=torch.bool, device=self._env.device)
        self._seen = torch.zeros((self.num_envs, self.observation_size), device=self._env.device)

    def reset(self) -> Tensor:
        """First observations, (N, observations) float32; every environment begins anew."""
        self._check_holder()
        with _own_randomness(self._held.device), contextlib.redirect_stdout(sys.stderr):
            observations, _ = self._env.reset()
        self._resets = torch.zeros_like(self._resets)
        self._seen = observations[: self.num_envs].float().clone()
        return self._seen

    def step(self, actions: Tensor) -> Step:
        """Apply actions (N, actions) that lie on the device; so do the results, which no later step touches."""
        self._check_holder()
        count, resets = self.num_envs, self._resets
        self._all_actions[:count] = torch.where(resets[:, None], self._rest, actions.to(self._all_actions))
        observations, rewards, terminated, truncated, info = self._env.step(self._all_actions.clone())
        terminated, truncated = (ends[:count, 0].bool() for ends in (terminated, truncated))
        ended = terminated | truncated
        last = info["final_obs"]["policy"][:count].float() if "final_obs" in info else self._seen
        self._seen = torch.where(ended[:, None], last, observations[:count].float())
        self._resets = ended
        return Step(
            self._seen.clone(),
            rewards[:count, 0].float().masked_fill(resets, 0.0),
            terminated.clone(),
            truncated.clone(),
        )

    def cut(self, where: Tensor) -> None:
        """Nothing: Isaac Lab holds no single environment."""

    def state_dict(self) -> None:
        """None: the simulation cannot be saved."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Refuse.

        Raises:
            NervecordError: always.
        """
        raise NervecordError("cannot go on from a saved state", where=WHERE)

    def close(self) -> None:
        """Let go of the simulation, which stays for the next simulator of this process."""
        if self._held.holder is self:
            self._held.holder = None

    def _check_holder(self) -> None:
        if self._held.holder is not self:
            raise EngineError("another simulator has taken the simulation over", where=WHERE)


def _own_randomness(device: str) -> AbstractContextManager[Any]:
    """Afterwards torch's generators are where they were: Isaac Lab seeds them, and the learner draws from them too."""
    return torch.random.fork_rng(devices=[device] if device.startswith("cuda") else [])


def _sizes(env: str, observation: Any, action: Any) -> tuple[int, Array, Array]:
    for name, space in (("observation", observation), ("action", action)):
        if type(space).__name__ != "Box" or len(space.shape) != 1:
            raise NervecordError(f"its {name} space is {space}, a flat Box is needed", where=env)
    low, high = (np.asarray(side, np.float64) for side in (action.low, action.high))
    low, high = np.where(np.isfinite(low), low, -UNIT), np.where(np.isfinite(high), high, UNIT)
    return int(observation.shape[0]), low, high
