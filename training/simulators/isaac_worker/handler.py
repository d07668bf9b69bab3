"""Isaac Gym's side of `training.isaac_gym`: runs in Isaac Gym's own interpreter (Python 3.8), one task for its life.

A handler file of `runtime.worker.child`; nothing of nervecord is imported here.

Written against isaacgym preview 4 and IsaacGymEnvs 1.5: `isaacgymenvs.make`, `VecTask.reset`, `VecTask.step`.
"""

from __future__ import annotations

import os
import random
import sys
from typing import Any

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
        return {
            "observations": int(env.num_obs),
            "low": [float(x) for x in env.action_space.low],
            "high": [float(x) for x in env.action_space.high],
            "control_period": float(env.cfg["sim"]["dt"]) * int(env.control_freq_inv),
        }, {}

    def reset(self, values: dict[str, Any], arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin the first episodes.

        `VecTask.reset` computes no observations. All environments are marked to be reset by the next step, so steps
        without action are taken until each stands at the beginning of an episode.
        """
        import numpy

        self._env.reset()
        self._pending = self._env.reset_buf.cpu().numpy() != 0
        no_action = numpy.zeros((self._env.num_envs, self._env.num_acts), numpy.float32)
        for _ in range(FIRST_STEPS):
            found = self.step({}, {"actions": no_action})
            if not self._pending.any():
                return found
        raise Refusal(
            f"{int(self._pending.sum())} environments had not begun an episode after {FIRST_STEPS} steps",
            "it is no task this adapter can train",
        )

    def step(self, values: dict[str, Any], arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Apply the actions; gives observations, rewards, where episodes ended, and where by the time limit."""
        import torch

        env = self._env
        observations, rewards, resets, extras = env.step(torch.from_numpy(arrays["actions"]).to(env.rl_device))
        ended = resets.cpu().numpy() != 0
        if (ended & ~self._pending & (env.progress_buf.cpu().numpy() == 0)).any():
            raise Refusal(
                f"{type(env).__name__} resets an environment in the very step that ends its episode, whose last "
                "observation is lost",
                "train a task that resets in the step after, for example Ant, Humanoid or Cartpole",
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
