"""Isaac Gym's side of `training.isaac_gym`: runs in Isaac Gym's own interpreter (Python 3.8), one task for its life.

A handler file of `runtime.worker.child`; nothing of nervecord is imported here. Written against the documents of
isaacgym preview 4 and IsaacGymEnvs 1.5: `isaacgymenvs.make`, `VecTask.reset`, `VecTask.step`.
"""

from __future__ import annotations

import random
import sys
from typing import Any


class LostObservationError(Exception):
    """A task resets an environment in the step that ends its episode."""

    hint = "train a task that resets in the step after, for example Ant, Humanoid or Cartpole"


class Handler:
    """One vectorised task of IsaacGymEnvs.

    `open` may answer {"missing": ...} or {"tasks": ...} instead of the task's sizes: the caller says what is wrong with
    the installation or the name.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._env: Any = None
        self._pending: Any = None

    def open(self, values: dict[str, Any], arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Make `num_envs` environments of `task` on `device`, from `seed`."""
        try:
            # Before anything imports torch: Isaac Gym refuses to be imported after it.
            import isaacgym  # noqa: F401
            import isaacgymenvs
            from isaacgymenvs.tasks import isaacgym_task_map
        except (ImportError, RuntimeError, OSError) as error:  # RuntimeError: it has nothing for this Python
            name = getattr(error, "name", None) or "isaacgym"
            reason = f"{type(error).__name__}: {error}"
            return {"missing": name, "reason": reason, "python": list(sys.version_info[:2])}, {}
        import numpy
        import torch

        if values["task"] not in isaacgym_task_map:
            return {"tasks": sorted(isaacgym_task_map)}, {}
        # Tasks draw their first states from these generators; `make` hands its seed to nothing that draws.
        random.seed(values["seed"])
        numpy.random.seed(values["seed"])  # noqa: NPY002
        torch.manual_seed(values["seed"])
        env = self._env = isaacgymenvs.make(
            seed=values["seed"],
            task=values["task"],
            num_envs=values["num_envs"],
            sim_device=values["device"],
            rl_device=values["device"],
            graphics_device_id=-1,
            headless=True,
            force_render=False,
        )
        return {
            "observations": int(env.num_obs),
            "low": [float(x) for x in env.action_space.low],
            "high": [float(x) for x in env.action_space.high],
            "control_period": float(env.cfg["sim"]["dt"]) * int(env.control_freq_inv),
        }, {}

    def reset(self, values: dict[str, Any], arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin the first episodes: `VecTask.reset` computes no observations, and the next step resets all."""
        import numpy

        self._env.reset()
        self._pending = self._env.reset_buf.cpu().numpy() != 0
        return self.step({}, {"actions": numpy.zeros((self._env.num_envs, self._env.num_acts), numpy.float32)})

    def step(self, values: dict[str, Any], arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Apply the actions; returns observations, rewards, where episodes ended, and where by the time limit."""
        import torch

        env = self._env
        observations, rewards, resets, extras = env.step(torch.from_numpy(arrays["actions"]).to(env.rl_device))
        ended = resets.cpu().numpy() != 0
        if (ended & ~self._pending & (env.progress_buf.cpu().numpy() == 0)).any():
            raise LostObservationError(
                f"{type(env).__name__} resets an environment in the very step that ends its episode, whose last "
                "observation is lost"
            )
        self._pending = ended
        return {}, {
            "observations": observations["obs"].cpu().numpy(),
            "rewards": rewards.cpu().numpy(),
            "ended": ended,
            "timed_out": extras["time_outs"].cpu().numpy() != 0,
        }

    def close(self) -> None:
        """Nothing: the process ends next, and takes the simulator along."""
