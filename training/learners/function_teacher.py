"""A teacher that is a function of yours: raw observations (B, observations) to actions (B, actions), arrays of numpy.

In a configuration it is `module:name`. A function that is given in Python is known by the name under which its module
has it; one that no module has (a lambda, one of a notebook) teaches in its own process only, and a training that it
taught cannot be resumed in another.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nervecord.errors import NervecordError
from nervecord.runtime.environment import import_task
from nervecord.training.config import TrainConfig

Function: TypeAlias = Callable[[NDArray[np.float32]], Any]

PART = "function"
"""Of a checkpoint's learner: the name."""

_given: dict[str, Function] = {}
"""Functions that were given in Python, by the names they have in configurations."""


def name_of(function: Function) -> str:
    """The name that a function has in a configuration, by which this process finds it from now on.

    Raises:
        NervecordError: it has no name.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        # An object that can be called: its class names it.
        module, name = type(function).__module__, f"{type(function).__qualname__}.object"
    found = f"{module}:{name}"
    _given[found] = function
    return found


def function_named(name: str) -> Function:
    """The function of that name; its module is imported.

    Raises:
        NervecordError: there is none.
    """
    if name in _given:
        return _given[name]
    import_task(name)
    module, _, path = name.partition(":")
    found: Any = sys.modules[module]
    for part in path.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise NervecordError(
            f"{module} has no function {path}",
            where=name,
            hint="name a function of raw observations as module:function",
        )
    return found  # type: ignore[no-any-return]


def read_function_teacher(name: str, config: TrainConfig) -> dict[str, Any]:
    """A function as the checkpoint of a teacher; it is looked for at once.

    Raises:
        NervecordError: there is none of that name.
    """
    function_named(name)
    return {"config": config.to_dict(), "step": 0, "learner": {PART: name}}


class FunctionTeacher(nn.Module):
    """The function, asked on the host.

    Args:
        name: of the function.
        outputs: numbers of its answer to one observation.
    """

    def __init__(self, name: str, outputs: int) -> None:
        super().__init__()
        self.name, self.outputs = name, outputs
        self.function = function_named(name)

    @torch.no_grad()
    def forward(self, observations: Tensor) -> Tensor:
        """Actions (B, outputs) for raw observations (B, observations).

        Raises:
            NervecordError: the function's answer has another shape, or is not finite.
        """
        answer = np.asarray(self.function(observations.cpu().numpy()), dtype=np.float32)
        wanted = (len(observations), self.outputs)
        if answer.shape != wanted:
            raise NervecordError(
                f"gave an array of shape {answer.shape} for {len(observations)} observations, {wanted} is needed",
                where=self.name,
            )
        if not np.isfinite(answer).all():
            raise NervecordError("gave an action that is not finite", where=self.name)
        return torch.from_numpy(answer).to(observations.device)
