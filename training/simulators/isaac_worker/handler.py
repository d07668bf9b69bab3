"""Isaac Gym's side of `training.isaac_gym`: runs in Isaac Gym's own interpreter (Python 3.8), one task for its life.

A handler file of `runtime.worker_child`; nothing of nervecord is imported here. Commands come through the pipe. Actions
and what a step gives lie in one shared-memory file that is made here; `open` says where each of them begins.

Written against isaacgym preview 4 and IsaacGymEnvs 1.5: `isaacgymenvs.make`, `VecTask.reset`, `VecTask.step`.
"""

from __future__ import annotations

import mmap
import os
import random
import sys
from typing import Any

SHARED_MEMORY = "/dev/shm"
ALIGNMENT = 64
"""Bytes each array begins at a multiple of."""
FIRST_STEPS = 10
"""Steps in which the first episodes must have begun."""


class Refusal(Exception):
    """What this task or installation cannot do; `hint` says what would."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Handler:
    """One vectorised task of IsaacGymEnvs.

    `open` may answer {"missing": ...} or {"tasks": ...} instead of the task's sizes: the caller says what is wrong with
    the installation or the name.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._env: Any = None
        self._memory: Any = None
        self._views: dict[str, Any] = {}
        self._tensors: dict[str, Any] = {}
        self._pending: Any = None

    def open(self, values: dict[str, Any], arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Make `num_envs` environments of `task` on `device`, from `seed`."""
        try:
            # Before torch: Isaac Gym refuses to be imported after it.
            import isaacgym  # noqa: F401
            import isaacgymenvs
            import torch
            from isaacgymenvs.tasks import isaacgym_task_map
        except (ImportError, RuntimeError, OSError) as error:  # RuntimeError: it has nothing for this Python
            name = getattr(error, "name", None) or "isaacgym"
            reason = f"{type(error).__name__}: {error}"
            return {"missing": name, "reason": reason, "python": list(sys.version_info[:2])}, {}
        task, count = values["task"], values["num_envs"]
        if task not in isaacgym_task_map:
            return {"tasks": sorted(isaacgym_task_map)}, {}
        _seed_everything(values["seed"])
        self._env = isaacgymenvs.make(
            seed=values["seed"],
            task=task,
            num_envs=count,
            sim_device=values["device"],
            rl_device=values["device"],
            graphics_device_id=-1,
            headless=True,
            force_render=False,
            cfg=_cpu_configuration(isaacgymenvs, task, count) if values["device"] == "cpu" else None,
        )
        env = self._env
        fields = self._share(count, int(env.num_obs), int(env.num_acts))
        self._tensors = {name: torch.from_numpy(view) for name, view in self._views.items()}
        return {
            "file": self._memory_file,
            "fields": fields,
            "low": [float(x) for x in env.action_space.low],
            "high": [float(x) for x in env.action_space.high],
            "control_period": float(env.cfg["sim"]["dt"]) * int(env.control_freq_inv),
            "python": list(sys.version_info[:2]),
        }, {}

    def reset(self, values: dict[str, Any], arrays: dict[str, Any]) -> None:
        """Begin the first episodes.

        `VecTask.reset` computes no observations. All environments are marked to be reset by the next step, so steps
        without action are taken until each stands at the beginning of an episode.
        """
        self._env.reset()
        self._pending = self._env.reset_buf.cpu().numpy() != 0
        self._views["actions"][:] = 0.0
        for _ in range(FIRST_STEPS):
            self._advance()
            if not self._pending.any():
                return
        raise Refusal(
            f"{int(self._pending.sum())} environments had not begun an episode after {FIRST_STEPS} steps",
            "it is no task this adapter can train",
        )

    def step(self, values: dict[str, Any], arrays: dict[str, Any]) -> None:
        """Apply the actions that lie in the shared memory; the results lie there afterwards."""
        self._advance()

    def close(self) -> None:
        """Nothing: the process ends next, and takes simulator and memory along."""

    def _advance(self) -> None:
        env, tensors, views = self._env, self._tensors, self._views
        observations, rewards, resets, extras = env.step(tensors["actions"].to(env.rl_device))
        tensors["observations"].copy_(observations["obs"])
        tensors["rewards"].copy_(rewards)
        tensors["ended"].copy_(resets != 0)
        tensors["timed_out"].copy_(extras["time_outs"] != 0)
        ended = views["ended"] != 0
        begins_at_once = ended & ~self._pending & (env.progress_buf.cpu().numpy() == 0)
        if begins_at_once.any():
            raise Refusal(
                f"{type(env).__name__} resets an environment in the very step that ends its episode, whose last "
                "observation is lost",
                "train a task that resets in the step after, for example Ant, Humanoid or Cartpole",
            )
        self._pending = ended

    def _share(self, count: int, observations: int, actions: int) -> dict[str, Any]:
        """Make the shared memory; returns offset, dtype and shape of each array in it."""
        import numpy

        shapes = {
            "actions": ("<f4", (count, actions)),
            "observations": ("<f4", (count, observations)),
            "rewards": ("<f4", (count,)),
            "ended": ("|u1", (count,)),
            "timed_out": ("|u1", (count,)),
        }
        fields, end = {}, 0
        for name, (dtype, shape) in shapes.items():
            begin = -(-end // ALIGNMENT) * ALIGNMENT
            fields[name] = [begin, dtype, list(shape)]
            end = begin + int(numpy.prod(shape)) * int(dtype[2:])
        # The prefix of this worker's segments, which its guardian removes whatever happens.
        self._memory_file = os.path.join(SHARED_MEMORY, os.environ["NERVECORD_WORKER"] + "isaac")
        descriptor = os.open(self._memory_file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, end)  # too little room is an error here, and no SIGBUS later
            self._memory = mmap.mmap(descriptor, end)
        finally:
            os.close(descriptor)
        for name, (begin, dtype, shape) in fields.items():
            count_of = int(numpy.prod(shape))
            self._views[name] = numpy.frombuffer(self._memory, dtype, count_of, begin).reshape(shape)
        return fields


def _seed_everything(seed: int) -> None:
    """Tasks draw their first states from torch's generators; `make` hands its seed to nothing that draws."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)  # noqa: NPY002 - it is the global generator that tasks draw from
    torch.manual_seed(seed)


def _cpu_configuration(isaacgymenvs: Any, task: str, count: int) -> Any:
    """The task's configuration for physics on the CPU: `make` alone leaves PhysX on the GPU, whatever its device."""
    import hydra

    folder = os.path.join(os.path.dirname(os.path.abspath(isaacgymenvs.__file__)), "cfg")
    with hydra.initialize_config_dir(config_dir=folder):
        return hydra.compose(
            config_name="config",
            overrides=[
                f"task={task}",
                f"num_envs={count}",
                "sim_device=cpu",
                "rl_device=cpu",
                "pipeline=cpu",
                "headless=True",
            ],
        )
