"""Which spaces of a task can be trained, and what helps where one cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nervecord.errors import NervecordError
from nervecord.runtime.worker.environment import choices_of

Array = NDArray[Any]

_FLATTENED = ("Box", "Dict", "Tuple", "MultiBinary")


def limits(env: str, observation_space: Any, action_space: Any) -> tuple[int, Array, Array, int]:
    """Size of an observation, limits of an action, and the number of choices, 0 where an action is values.

    Raises:
        NervecordError: the spaces cannot be trained; the hint names the wrapper that helps, where one does.
    """
    if not _is_flat(observation_space):
        raise _refusal(env, "observation", observation_space, "a flat Box", _helps(observation_space))
    size, count = int(observation_space.shape[0]), choices_of(action_space)
    if count and action_space.start != 0:
        raise NervecordError(f"numbers its actions from {action_space.start}, 0 is needed", where=env)
    if count:
        return size, np.zeros(1), np.array([count - 1.0]), count
    if not _is_flat(action_space):
        raise _refusal(env, "action", action_space, "a flat Box or Discrete", None)
    low, high = (np.asarray(side, np.float64) for side in (action_space.low, action_space.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise NervecordError(
            "its actions have no limits, finite ones are needed",
            where=env,
            hint="wrap it in one that gives them, for example a class of your own: --wrappers module:Class",
        )
    return size, low, high, 0


def _helps(space: Any) -> str | None:
    if type(space).__name__ == "Box" and len(space.shape) == 3 and space.dtype == np.uint8:
        return (
            "these are images, and a policy has no convolutions: reduce them, for example --wrappers "
            "ResizeObservation:16,16 (which needs opencv) FlattenObservation"
        )
    if type(space).__name__ in _FLATTENED:
        return "--wrappers FlattenObservation makes one Box of it"
    return None


def _refusal(env: str, kind: str, space: Any, needed: str, hint: str | None) -> NervecordError:
    return NervecordError(f"its {kind} space is {space}, {needed} is needed", where=env, hint=hint)


def _is_flat(space: Any) -> bool:
    return type(space).__name__ == "Box" and len(space.shape) == 1
