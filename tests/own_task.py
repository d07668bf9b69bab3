"""A task of a user's own: a point that is to be pushed to the middle. Registered as own_task:Point-v0, and others."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Point(gymnasium.Env[Any, Any]):
    """Position and velocity on a line; the action is a push within -2..2."""

    dt = 0.1
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # as in Gymnasium

    def __init__(self, observes: str = "box", unlimited: bool = False, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        wide = np.inf if unlimited else 2.0
        self.observes = observes
        self.action_space = spaces.Box(-wide, wide, (1,), np.float32)
        box = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space: Any = {
            "box": box,
            "dict": spaces.Dict({"place": spaces.Box(-np.inf, np.inf, (1,)), "speed": spaces.Box(-5, 5, (1,))}),
            "image": spaces.Box(0, 255, (24, 24, 3), np.uint8),
        }[observes]
        self.place = np.zeros(2)

    def _observation(self) -> Any:
        if self.observes == "dict":
            return {"place": self.place[:1].astype(np.float32), "speed": self.place[1:].astype(np.float32)}
        if self.observes == "image":
            return np.full((24, 24, 3), int(np.clip(128 + 20 * self.place[0], 0, 255)), np.uint8)
        return self.place.copy()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = np.array([self.np_random.uniform(-1, 1), 0.0])
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place[1] = np.clip(self.place[1] + self.dt * float(action[0]), -5, 5)
        self.place[0] += self.dt * self.place[1]
        return self._observation(), 1.0 - abs(self.place[0]), bool(abs(self.place[0]) > 3), False, {}

    def render(self) -> Any:
        """A grey picture, brighter to the right."""
        return np.full((32, 32, 3), int(np.clip(128 + 20 * self.place[0], 0, 255)), np.uint8)

    def get_state(self) -> dict[str, Any]:
        """All there is to save."""
        return {"place": self.place.tolist()}

    def set_state_from(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` gave."""
        self.place = np.array(state["place"])


class Limited(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Gives a task's actions limits."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)


class Timeless(Point):
    """A task that does not say how long a step lasts, and has a defect of its own that follows from it."""

    dt = None  # type: ignore[assignment]


for name, arguments in {
    "Point-v0": {},
    "DictPoint-v0": {"observes": "dict"},
    "ImagePoint-v0": {"observes": "image"},
    "FreePoint-v0": {"unlimited": True},
}.items():
    gymnasium.register(name, f"{__name__}:Point", max_episode_steps=50, kwargs=arguments)
gymnasium.register("Timeless-v0", f"{__name__}:Timeless", max_episode_steps=50)
