"""Tasks with Isaac Lab's interface as simulators: what Isaac Lab (`isaac_lab`) and mjlab (`mjlab`) have in common.

An environment of theirs is many, stepped together as tensors on one device, in this process. Its observations come in
named groups, of which the policy takes one.

Resets. The protocol's NEXT_STEP is made of theirs like this:

- the step that ends an episode gives the episode's last observation, as far as the task has it (`_advance`);
- the next step is the one that "only resets". No environment can are frozen while the others step, so this one really
  takes a step, with action 0, which the learner does not see: reward 0, and the observation after it begins the
  episode. Should the new episode end in it, that end is reported, and the step after it resets again.

Where a task has a finite horizon (`is_finite_horizon`) nothing comes after its time limit, which is an end like a fall.

Most of their action spaces have no limits; the actions of such a task are taken to lie between -1 and 1.

Random numbers. They have one seed for all environments, which is derived from the list of seeds, and draw from torch's
global generators, as the learner does. So each simulator has a random state of its own, which stands in the place of
the global one while it is reset and stepped.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nervecord.errors import NervecordError
from nervecord.training.processes.devices import check_device
from nervecord.training.simulators.base import Step, Uncut, shared_seed

Array = NDArray[Any]

UNIT = 1.0
"""Limit of the actions of a task that has none."""


class LabSimulator(Uncut):
    """A task with Isaac Lab's interface, in tensors on its device.

    Args:
        env: the task's name.
        seeds: one for each environment.
        device: torch device of simulator and learner.

    Raises:
        MissingDependencyError: what has the task is not installed.
        NervecordError: the task is unknown, its spaces are not flat, or torch cannot use the device.
    """

    group: str
    """The group of observations that the policy takes; `_make` may set it."""
    _out: TextIO | None = None
    """Where what is printed goes; None for stderr."""

    def __init__(self, env: str, seeds: list[int], device: str) -> None:
        check_device(device)
        self._cuda = ["cuda:0" if device == "cuda" else device] if device.startswith("cuda") else []
        self._random: list[Tensor] = []
        self.num_envs = len(seeds)
        self._seed = shared_seed(seeds)
        with self._inside():
            self._inner = self._make(env, *self._cuda or [device])
        task = self._inner.unwrapped
        self.observation_size, self.low, self.high = self._sizes(env, task)
        self.device = torch.device(task.device)
        self.control_period = float(task.step_dt)
        """Seconds between two actions."""
        self._is_finite = bool(getattr(task.cfg, "is_finite_horizon", False))
        # Of all environments of the task, of which there may be more than seeds: those stand idle.
        self._actions = torch.zeros((task.num_envs, len(self.low)), device=self.device)
        self._last = torch.zeros((task.num_envs, self.observation_size), device=self.device)
        self._rest = torch.as_tensor(np.clip(0.0, self.low, self.high), dtype=torch.float32, device=self.device)
        self._resets = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)

    def _make(self, env: str, device: str) -> Any:
        """The environment, of at least `num_envs`, drawn from `_seed`."""
        raise NotImplementedError

    def _advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Step all environments: observations, where an episode ended its last one if the task has it and else
        `_last`; rewards; terminated; truncated."""
        raise NotImplementedError

    def reset(self) -> Tensor:
        """First observations, (N, observations) float32; every environment begins anew."""
        with self._inside():
            observations, _ = self._inner.reset(seed=self._seed)
        self._resets = torch.zeros_like(self._resets)
        self._last = observations[self.group].float().clone()
        return self._last[: self.num_envs].clone()

    def step(self, actions: Tensor) -> Step:
        """Apply actions (N, actions) that lie on the device; so do the results, which no later step touches."""
        count, resets = self.num_envs, self._resets
        self._actions[:count] = torch.where(resets[:, None], self._rest, actions.to(self._actions))
        with self._inside():
            observations, rewards, terminated, truncated = self._advance(self._actions.clone())
        ended = terminated | truncated
        terminated = ended if self._is_finite else terminated
        self._last = observations.float().clone()
        self._resets = ended[:count].clone()
        return Step(
            self._last[:count].clone(),
            rewards[:count].float().masked_fill(resets, 0.0),
            terminated[:count].clone(),
            truncated[:count].clone(),
        )

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        """This simulator's random state in the place of torch's, no gradients, and what is printed away from stdout,
        which belongs to results."""
        with torch.no_grad(), torch.random.fork_rng(self._cuda), contextlib.redirect_stdout(self._out or sys.stderr):
            if self._random:
                torch.set_rng_state(self._random[0])
                for device, state in zip(self._cuda, self._random[1:], strict=True):
                    torch.cuda.set_rng_state(state, device)
            try:
                yield
            finally:
                self._random = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, self._cuda)]

    def _sizes(self, env: str, task: Any) -> tuple[int, Array, Array]:
        """Size of an observation, and the limits of an action."""
        observations, action = task.single_observation_space, task.single_action_space
        observation = observations.spaces.get(self.group, observations)
        for name, space in (("observation", observation), ("action", action)):
            if type(space).__name__ != "Box" or len(space.shape) != 1:
                raise NervecordError(f"its {name} space is {space}, a flat Box is needed", where=env)
        low, high = (np.broadcast_to(np.asarray(side, np.float64), action.shape) for side in (action.low, action.high))
        low, high = np.where(np.isfinite(low), low, -UNIT), np.where(np.isfinite(high), high, UNIT)
        return int(observation.shape[0]), low, high
