"""The state of Gymnasium's environments in plain containers, so that a resumed training continues in their episodes.

What can be saved: MuJoCo's tasks, Gymnasium's classic control, and any task of a user's own whose environment has
`get_state()` (plain containers, numbers, tensors) and `set_state_from(state)`. All of an episode belongs to it: the
physics, the random generator, the steps of the time limit, and whether the next step resets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

CLASSIC = ("state", "steps_beyond_terminated", "last_u")
"""What Gymnasium's classic control keeps between two steps."""
KEPT = ("xpos", "xipos", "cinert", "cvel", "qfrc_actuator", "cfrc_ext")
"""What MuJoCo's tasks read of the step before and MuJoCo's own state does not hold."""


def save(vector: Any) -> list[dict[str, Any]] | None:
    """The state of a synchronous vector environment, an entry for each environment; None where one has no state."""
    states = []
    for env, resets in zip(vector.envs, vector._autoreset_envs, strict=True):
        task = env.unwrapped
        physics = _save_task(task)
        if physics is None:
            return None
        states.append(
            {
                "task": physics,
                "random": _plain(task.np_random.bit_generator.state),
                "elapsed": [getattr(layer, "_elapsed_steps", None) for layer in _layers(env)],
                "resets": bool(resets),
            }
        )
    return states


def load(vector: Any, states: list[dict[str, Any]]) -> None:
    """Put a vector environment, which was reset, into what `save` gave."""
    for index, (env, state) in enumerate(zip(vector.envs, states, strict=True)):
        task = env.unwrapped
        _load_task(task, state["task"])
        task.np_random.bit_generator.state = state["random"]
        for layer, elapsed in zip(_layers(env), state["elapsed"], strict=True):
            if elapsed is not None:
                layer._elapsed_steps = elapsed
        vector._autoreset_envs[index] = state["resets"]


def _layers(env: Any) -> list[Any]:
    """The wrappers of an environment, outermost first, without the task itself."""
    layers = []
    while env is not env.unwrapped:
        layers.append(env)
        env = env.env
    return layers


def _save_task(task: Any) -> dict[str, Any] | None:
    if hasattr(task, "get_state") and hasattr(task, "set_state_from"):
        return {"own": task.get_state()}
    if hasattr(task, "model") and hasattr(task, "data"):
        import mujoco

        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        numbers = np.zeros(mujoco.mj_stateSize(task.model, kind))
        mujoco.mj_getState(task.model, task.data, numbers, kind)
        arrays = {name: torch.from_numpy(np.array(getattr(task.data, name))) for name in KEPT}
        return {"mujoco": torch.from_numpy(numbers), "kept": arrays}
    if type(task).__module__.startswith("gymnasium.envs.classic_control"):
        return {"classic": {name: _to_tensor(getattr(task, name)) for name in CLASSIC if hasattr(task, name)}}
    return None


def _load_task(task: Any, state: dict[str, Any]) -> None:
    if "own" in state:
        task.set_state_from(state["own"])
    elif "mujoco" in state:
        import mujoco

        mujoco.mj_setState(task.model, task.data, state["mujoco"].numpy(), mujoco.mjtState.mjSTATE_INTEGRATION)
        for name, values in state["kept"].items():
            getattr(task.data, name)[:] = values.numpy()
    else:
        for name, value in state["classic"].items():
            setattr(task, name, value.numpy() if isinstance(value, torch.Tensor) else value)


def _to_tensor(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, tuple):  # CartPole's state before its first step
        return torch.tensor(value, dtype=torch.float64)
    return value.item() if isinstance(value, np.generic) else value


def _plain(value: Any) -> Any:
    """A generator's state with plain integers."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return int(value) if isinstance(value, np.integer) else value
