"""Isaac Gym (preview 4) as a simulator: a task of IsaacGymEnvs in Isaac Gym's own Python 3.8, in a worker process.

Never run with the real Isaac Gym. The worker (`isaac_worker/handler.py`, through `runtime.worker`) steps the task on
its GPU; actions, observations, rewards and ends cross a pipe.

Resets. A task marks an environment whose episode has ended (`reset_buf`) and returns the last observation of that
episode; its next step resets what is marked, whatever the action. That is the protocol's NEXT_STEP, with two
differences: the step that resets has a reward, which belongs to no action and becomes 0, and a task may end an episode
in the step that resets, which is reported, so that the step after it is known to reset again. Tasks that reset in the
very step that ends an episode (AnymalTerrain) lose its last observation, and are refused when they first do so.

`extras["time_outs"]` marks the ends by the time limit: truncated. Every other end is terminated; IsaacGymEnvs cannot
tell a fall in the last step of an episode from its time limit. Isaac Gym has one seed for all environments.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nervecord.errors import MissingDependencyError, NervecordError, unknown_name
from nervecord.runtime.worker.parent import Worker
from nervecord.training.simulators.base import Step, Uncut, shared_seed

HANDLER = Path(__file__).parent / "isaac_worker" / "handler.py"
VARIABLE = "NERVECORD_ISAACGYM_PYTHON"
"""Environment variable that names Isaac Gym's interpreter."""
PYTHON = (3, 8)
"""The newest Python that Isaac Gym preview 4 has bindings for, and the oldest the worker runs on."""
INSTALL = (
    "download Isaac Gym preview 4 from https://developer.nvidia.com/isaac-gym; in a Python 3.8 environment run "
    "pip install -e isaacgym/python, then pip install -e of a clone of https://github.com/isaac-sim/IsaacGymEnvs; set "
    f"{VARIABLE} to that environment's python"
)
OPEN_TIMEOUT = 600.0
"""Seconds to import Isaac Gym, which compiles a torch extension the first time, and to make the environments."""
STEP_TIMEOUT = 120.0
WHERE = "--sim isaacgym"


def interpreter() -> Path:
    """The interpreter that the environment variable names.

    Raises:
        MissingDependencyError: it names none, or no file.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        raise MissingDependencyError(
            f"Isaac Gym needs a Python 3.8 of its own, and {VARIABLE} names none", where=WHERE, hint=INSTALL
        )
    path = Path(named).expanduser()
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise MissingDependencyError(f"{VARIABLE} names {named}, which is no program", where=WHERE, hint=INSTALL)
    return path


class IsaacGymSimulator(Uncut):
    """A task of IsaacGymEnvs in a worker process.

    Args:
        env: the task's name in IsaacGymEnvs, for example Ant.
        seeds: one for each environment.
        device: torch device of the learner; physics runs on it where it is a GPU, else on the first GPU.

    Raises:
        MissingDependencyError: there is no interpreter for it, or Isaac Gym is not installed there.
        NervecordError: the interpreter is too new, or the task unknown.
        EngineError: Isaac Gym failed.
    """

    where = WHERE
    device = torch.device("cpu")

    def __init__(self, env: str, seeds: list[int], device: str) -> None:
        python = interpreter()
        self.num_envs = len(seeds)
        gpu = device if device.startswith("cuda:") else "cuda:0"
        task = {"task": env, "num_envs": len(seeds), "seed": shared_seed(seeds), "device": gpu}
        self._worker = Worker(python, HANDLER, name="Isaac Gym worker", call_timeout=STEP_TIMEOUT)
        try:
            opened = self._worker.call("open", task, timeout=OPEN_TIMEOUT).values
            _check_opened(opened, env, python)
        except BaseException:
            self._worker.kill()
            raise
        self.observation_size = int(opened["observations"])
        self.low, self.high = (np.asarray(opened[side], np.float64) for side in ("low", "high"))
        self.control_period = float(opened["control_period"])
        """Seconds between two actions."""
        self._resets = np.zeros(self.num_envs, bool)

    def reset(self) -> Tensor:
        """First observations, (N, observations)."""
        return self._step("reset", {}).observations

    def step(self, actions: Tensor) -> Step:
        """Apply actions (N, actions) within the limits."""
        return self._step("step", {"actions": actions.float().numpy()})

    def _step(self, call: str, arrays: dict[str, Any]) -> Step:
        results = self._worker.call(call, arrays=arrays).arrays
        ended, timed_out = results["ended"], results["timed_out"]
        rewards = np.where(self._resets, np.float32(0.0), results["rewards"])
        self._resets = ended
        parts = (results["observations"], rewards, ended & ~timed_out, ended & timed_out)
        return Step(*(torch.from_numpy(array) for array in parts))

    def close(self) -> None:
        """End the worker."""
        self._worker.close()


def _check_opened(opened: dict[str, Any], env: str, python: Path) -> None:
    if "missing" in opened:
        version = tuple(opened["python"])
        if version > PYTHON:
            raise NervecordError(
                f"{python} is Python {_dotted(version)}, Isaac Gym preview 4 runs on {_dotted(PYTHON)} at most",
                where=WHERE,
                hint=INSTALL,
            )
        raise MissingDependencyError(
            f"{opened['missing']} cannot be imported in {python} ({opened['reason']})", where=WHERE, hint=INSTALL
        )
    if "tasks" in opened:
        raise unknown_name("Isaac Gym task", env, opened["tasks"], where="--env")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
