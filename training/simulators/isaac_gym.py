"""Isaac Gym (preview 4) as a simulator: its tasks run in Isaac Gym's own Python 3.8, in a worker process.

The worker (`isaac_worker/handler.py`, through `runtime.worker`) steps a task of IsaacGymEnvs on its device. Actions,
observations, rewards and ends go through its pipe.

Resets. A task of IsaacGymEnvs marks an environment whose episode has ended (`reset_buf`) and gives the last observation
of that episode. Its next step resets what is marked, whatever the action, and gives the first observation of the next
episode. That is the protocol's NEXT_STEP; two things differ and are changed here:

- the step that resets has a reward, which belongs to no action: it becomes 0;
- a task may end an episode in the step that resets, before any action: that end is reported, so that the step after it
  is known to reset again.

Tasks that reset in the very step that ends an episode (AnymalTerrain) lose its last observation and are refused when
they first do so.

Ends. `extras["time_outs"]` marks those by the time limit: truncated. Every other end is terminated. IsaacGymEnvs cannot
tell a fall in the very last step of an episode from the time limit.

Seeds. Isaac Gym has one seed for all environments of a task; it is derived from the list of them.
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
from nervecord.training.simulators.base import Step

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


class IsaacGymSimulator:
    """A task of IsaacGymEnvs in a worker process.

    Args:
        env: the task's name in IsaacGymEnvs, for example Ant.
        seeds: one for each environment.
        device: torch device physics and task run on, "cuda", "cuda:1" or "cpu".

    Raises:
        MissingDependencyError: there is no interpreter for it, or Isaac Gym is not installed there.
        NervecordError: the interpreter is too new, or the task unknown.
        EngineError: Isaac Gym failed.
    """

    choices = 0
    time_limit = 0
    can_cut = False
    device = torch.device("cpu")

    def __init__(self, env: str, seeds: list[int], device: str) -> None:
        python = interpreter()
        self.num_envs = len(seeds)
        seed = int(np.random.SeedSequence(seeds).generate_state(1, np.uint32)[0] >> 1)
        self._worker = Worker(python, HANDLER, name="Isaac Gym worker", call_timeout=STEP_TIMEOUT)
        try:
            opened = self._worker.call(
                "open",
                {
                    "task": env,
                    "num_envs": len(seeds),
                    "seed": seed,
                    "device": "cuda:0" if device == "cuda" else device,
                },
                timeout=OPEN_TIMEOUT,
            ).values
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
        return torch.from_numpy(self._worker.call("reset").arrays["observations"])

    def step(self, actions: Tensor) -> Step:
        """Apply actions (N, actions) within the limits."""
        found = self._worker.call("step", arrays={"actions": actions.float().numpy()}).arrays
        ended, timed_out = found["ended"], found["timed_out"]
        rewards = np.where(self._resets, np.float32(0.0), found["rewards"])
        self._resets = ended
        results = (found["observations"], rewards, ended & ~timed_out, ended & timed_out)
        return Step(*(torch.from_numpy(array) for array in results))

    def cut(self, where: Tensor) -> None:
        """Nothing: Isaac Gym draws the lengths of first episodes itself where a task asks for it."""

    def state_dict(self) -> None:
        """None: PhysX cannot be saved."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Refuse.

        Raises:
            NervecordError: always.
        """
        raise NervecordError("cannot continue from a saved state", where=WHERE)

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
