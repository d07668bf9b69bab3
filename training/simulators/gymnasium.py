"""Gymnasium's vector environment in this process: any task, also a user's own, with wrappers. Slower than EnvPool."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nervecord.errors import MissingDependencyError, install_command
from nervecord.runtime.worker.environment import import_task, simulator_missing, unknown_task, wrapper
from nervecord.runtime.worker.simulator_messages import opengl_refused, without_deprecations
from nervecord.training.simulators import saving
from nervecord.training.simulators.base import Step
from nervecord.training.simulators.spaces import limits


def has_task(env: str) -> bool:
    """Always true: Gymnasium is the last choice of "auto", and its constructor refuses an unknown task by name."""
    return True


class GymnasiumSimulator:
    """Gymnasium's environments, one after the other.

    Args:
        env: Gymnasium id, also module:Id.
        seeds: one for each environment.
        wrappers: names of `gymnasium.wrappers`, or module:Class, innermost first.

    Raises:
        MissingDependencyError: Gymnasium is not installed.
        NervecordError: the task or a wrapper is unknown, or the spaces cannot be trained.
    """

    mode = "sync"
    """How its vector environment steps: one after the other here, together in a subclass."""
    device = torch.device("cpu")
    can_cut = True
    control_period: float | None = None

    def __init__(self, env: str, seeds: list[int], wrappers: tuple[str, ...] = ()) -> None:
        try:
            import gymnasium
        except ImportError as error:
            raise MissingDependencyError(
                "Gymnasium is not installed", where="--sim gymnasium", hint=install_command("mujoco")
            ) from error
        import_task(env)
        if env.rpartition(":")[2] not in gymnasium.registry:
            raise unknown_task(env, where="--env")
        around = [wrapper(text) for text in wrappers]
        with opengl_refused(env), without_deprecations(env, is_in_process=self.mode == "sync"):
            try:
                self._vector = gymnasium.make_vec(
                    env,
                    num_envs=len(seeds),
                    vectorization_mode=self.mode,
                    vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP},
                    wrappers=around,
                )
            except gymnasium.error.DependencyNotInstalled as error:
                raise simulator_missing(env, error) from None
        self._seeds = seeds
        self.num_envs = len(seeds)
        self.observation_size, self.low, self.high, self.choices = limits(
            env, self._vector.single_observation_space, self._vector.single_action_space
        )
        spec = self._vector.spec
        self.time_limit = int(spec.max_episode_steps or 0) if spec is not None else 0
        self._cut: np.ndarray | None = None

    def reset(self) -> Tensor:
        """First observations, (N, observations)."""
        observations, _ = self._vector.reset(seed=self._seeds)  # type: ignore[arg-type]  # a vector takes a list
        return torch.from_numpy(np.asarray(observations))

    def step(self, actions: Tensor) -> Step:
        """Apply actions (N, actions) within the limits."""
        values = actions[:, 0].long().numpy() if self.choices else actions.double().numpy()
        observations, rewards, terminated, truncated, _ = self._vector.step(values)
        if self._cut is not None:
            # What these environments did with the action is nobody's; now they begin anew.
            observations, _ = self._vector.reset(options={"reset_mask": self._cut})
            for array in (rewards, terminated, truncated):
                array[self._cut] = 0
            self._cut = None
        return Step(*(torch.from_numpy(np.asarray(array)) for array in (observations, rewards, terminated, truncated)))

    def cut(self, where: Tensor) -> None:
        """End episodes, (N,) bool: the next step only resets these environments."""
        self._cut = where.numpy().copy() if where.any() else None

    def state_dict(self) -> dict[str, Any] | None:
        """The state of all environments; None where one of them cannot be saved (`saving`)."""
        state = saving.save(self._vector)
        cut = None if self._cut is None else torch.from_numpy(self._cut)
        return None if state is None else {"environments": state, "cut": cut}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from what `state_dict` gave, in place of `reset`."""
        self.reset()
        saving.load(self._vector, state["environments"])
        self._cut = None if state["cut"] is None else state["cut"].numpy()

    def close(self) -> None:
        """Close the environments."""
        self._vector.close()
