"""mjlab as a simulator: its tasks in this process, Isaac Lab's interface on MuJoCo Warp. The door of mjlab.

What it has in common with Isaac Lab stands in `lab_interface`. Unlike that it leaves resets to its caller
(`auto_reset=False`), also of single environments. So every episode's last observation is there, first episodes can be
cut, and a process may hold several simulations.
"""

from __future__ import annotations

import importlib.util
import io
from typing import Any

from torch import Tensor

from nervecord.errors import MissingDependencyError, NervecordError, install_command, unknown_name
from nervecord.runtime.worker.environment import import_task
from nervecord.training.simulators.lab_interface import LabSimulator


class MjlabSimulator(LabSimulator):
    """A task of mjlab.

    Args:
        env: its id, for example Mjlab-Velocity-Flat-Unitree-Go1; module:Id imports the module that registers it.
        seeds: one for each environment.
        device: torch device of simulator and learner.

    Raises:
        MissingDependencyError: mjlab is not installed.
        NervecordError: the task is unknown or cannot be made, its policy observes anything but one flat group, or torch
            cannot use the device.
    """

    where = "--sim mjlab"
    can_cut = True
    _has_spoken = False

    def __init__(self, env: str, seeds: list[int], device: str) -> None:
        if MjlabSimulator._has_spoken:
            # What it says of every simulation was said of the first; a validation's would break the progress bar.
            self._out = io.StringIO()
        super().__init__(env, seeds, device)
        MjlabSimulator._has_spoken = True

    def _make(self, env: str, device: str) -> Any:
        if importlib.util.find_spec("mjlab") is None:
            raise MissingDependencyError(
                "mjlab is not installed here",
                where=self.where,
                hint=f"it needs another MuJoCo than the extra train: in an environment of its own, "
                f"{install_command('mjlab')}",
            )
        import mjlab.tasks  # noqa: F401 - registers its tasks, and those of packages that declare some
        from mjlab.envs import ManagerBasedRlEnv
        from mjlab.tasks.registry import list_tasks, load_env_cfg, load_rl_cfg

        import_task(env)
        name = env.rpartition(":")[2]
        if name not in list_tasks():
            raise unknown_name("mjlab task", name, list_tasks(), where="--env")
        groups = load_rl_cfg(name).obs_groups["actor"]
        if len(groups) != 1:
            raise NervecordError(
                f"its policy observes {len(groups)} groups ({', '.join(groups)}), one flat group is needed", where=env
            )
        (self.group,) = groups
        cfg = load_env_cfg(name)
        cfg.scene.num_envs, cfg.seed, cfg.auto_reset = self.num_envs, self._seed, False
        try:
            inner = ManagerBasedRlEnv(cfg, device)
        except OSError as error:  # a task that needs a file which its configuration does not name
            raise NervecordError(f"cannot be made ({error})", where=env) from error
        self.time_limit = int(inner.max_episode_length)
        return inner

    def _advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        due = self._resets.nonzero()[:, 0]
        if len(due):
            self._inner.reset(env_ids=due)
        observations, rewards, terminated, truncated, _ = self._inner.step(actions)
        return observations[self.group], rewards, terminated, truncated

    def cut(self, where: Tensor) -> None:
        """End episodes, (N,) bool: the next step resets these environments."""
        self._resets = self._resets | where

    def close(self) -> None:
        """Let the environments go."""
        self._inner.close()
