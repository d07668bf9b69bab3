"""EnvPool's environments, stepped by its own threads. The door to EnvPool."""

from __future__ import annotations

import importlib.util
import os
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nervecord.errors import MissingDependencyError, unknown_name
from nervecord.training.simulators.base import Step, Unsaved
from nervecord.training.simulators.spaces import limits

OPTIONS: dict[str, dict[str, Any]] = {
    # Gymnasium's observation holds the contact forces, which EnvPool leaves at zero in its v4 unless asked.
    "Humanoid-v4": {"post_constraint": True},
    "HumanoidStandup-v4": {"post_constraint": True},
}
"""What EnvPool must be told to give Gymnasium's task."""


def first_core(threads: int) -> int:
    """The core from which on each of EnvPool's threads is bound to one, or -1 where they are left to the system.

    They sleep between two steps, and Linux may wake all of them on the core that the policy runs on, and keep them
    there while another stands idle: half of the speed on two cores. They are bound only where there is a thread for
    each core of the machine, since another process that did the same could take the same cores.
    """
    cores = os.cpu_count() or 1
    is_everywhere = hasattr(os, "sched_getaffinity") and os.sched_getaffinity(0) == set(range(cores))
    return 0 if 1 < threads == cores and is_everywhere else -1


def has_task(env: str) -> bool:
    """Whether EnvPool is installed and has a task."""
    if importlib.util.find_spec("envpool") is None:
        return False
    import envpool

    return env in envpool.list_all_envs()


class EnvPoolSimulator(Unsaved):
    """EnvPool's environments.

    Args:
        env: a task of EnvPool.
        seeds: one for each environment.
        threads: threads that step them.

    Raises:
        MissingDependencyError: EnvPool is not installed.
        NervecordError: it has no such task, or its spaces cannot be trained.
    """

    where = "--sim envpool"
    device = torch.device("cpu")
    can_cut = True
    control_period: float | None = None

    def __init__(self, env: str, seeds: list[int], threads: int) -> None:
        try:
            import envpool
        except ImportError as error:
            raise MissingDependencyError(
                "EnvPool is not installed", where="--sim envpool", hint="pip install envpool, or use --sim gymnasium"
            ) from error
        known = envpool.list_all_envs()
        if env not in known:
            raise unknown_name("EnvPool task", env, known, where="--env")
        # A list of seeds: with one seed EnvPool gives environment i the seed + i, so that runs with neighbouring
        # seeds share environments; and its reset(seed=...) does nothing.
        threads = min(threads, len(seeds))
        self._pool: Any = envpool.make(
            env,
            env_type="gymnasium",
            num_envs=len(seeds),
            num_threads=threads,
            thread_affinity_offset=first_core(threads),
            seed=seeds[0],
            env_seed=seeds,
            **OPTIONS.get(env, {}),
        )
        self.num_envs = len(seeds)
        with warnings.catch_warnings():
            # Gymnasium's Box warns of limits that float32 rounds.
            warnings.simplefilter("ignore", UserWarning)
            spaces = (self._pool.observation_space, self._pool.action_space)
        self.observation_size, self.low, self.high, self.choices = limits(env, *spaces)
        self.time_limit = int(self._pool.config.get("max_episode_steps", 0))
        self._cut = np.zeros(0, np.int32)

    def reset(self) -> Tensor:
        """First observations, (N, observations)."""
        observations, _ = self._pool.reset()
        return torch.from_numpy(observations)

    def step(self, actions: Tensor) -> Step:
        """Apply actions (N, actions) within the limits."""
        values = actions[:, 0].to(torch.int32) if self.choices else actions.double()
        observations, rewards, terminated, truncated, _ = self._pool.step(values.numpy())
        if len(self._cut):
            # What these environments did with the action is nobody's; now they begin anew.
            first, _ = self._pool.reset(self._cut)
            for array in (observations, rewards, terminated, truncated):
                array.flags.writeable or array.setflags(write=True)
            observations[self._cut] = first
            for array in (rewards, terminated, truncated):
                array[self._cut] = 0
            self._cut = self._cut[:0]
        return Step(*(torch.from_numpy(array) for array in (observations, rewards, terminated, truncated)))

    def cut(self, where: Tensor) -> None:
        """End episodes, (N,) bool: the next step only resets these environments."""
        self._cut = np.flatnonzero(where.numpy()).astype(np.int32)

    def close(self) -> None:
        """End the threads; EnvPool's own close does nothing, they end with the object."""
        self._pool = None
