"""A teacher that is a function of yours: raw observations (B, observations) to actions (B, actions), or to preferences
(B, choices) where an action is a choice; arrays of numpy.

In a configuration it is `module:name`. A function that is given in Python is known by the name under which its module
has it. One that no module has (a lambda, a method of an object, one of a notebook) teaches in its own process only, and
a training that it taught cannot be resumed in another.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nervecord.errors import NervecordError
from nervecord.runtime.worker.environment import import_task
from nervecord.training.settings.config import TrainConfig

Function: TypeAlias = Callable[[NDArray[np.float32]], Any]

PART = "function"
"""Of a checkpoint's learner: the name."""

_given: dict[str, Function] = {}
"""Functions that were given in Python, by the names they have in configurations."""


class TeacherError(NervecordError):
    """A function gave what is no answer. It depends on what it was asked, so of several processes one may meet it."""

    on_one_process = True


def _found(name: str) -> Any:
    """What a module that is imported has under a name, None where it has nothing."""
    module, _, path = name.partition(":")
    resolved: Any = sys.modules.get(module)
    for part in path.split("."):
        resolved = getattr(resolved, part, None)
    return resolved


def name_of(function: Function) -> str:
    """The name that a function has in a configuration, by which this process finds it from now on."""
    kind = type(function)
    module = getattr(function, "__module__", None) or kind.__module__
    name = f"{module}:{getattr(function, '__qualname__', kind.__qualname__)}"
    if _found(name) is not function:
        known = [each for each, other in _given.items() if other is function]
        name = known[0] if known else f"{name}.<{len(_given)}>"
    _given[name] = function
    return name


def function_named(name: str) -> Function:
    """The function of that name; its module is imported.

    Raises:
        NervecordError: there is none, or it takes no single argument.
    """
    if name not in _given:
        if "<" in name:
            raise NervecordError(
                "was given in Python and has no name there, so it taught in that process only",
                where=name,
                hint="define it in a module, and give it as module:function",
            )
        import_task(name)
    function = _given.get(name, _found(name))
    hint = "name a function of raw observations as module:function"
    if not callable(function):
        module, _, path = name.partition(":")
        raise NervecordError(f"{module} has no function {path}", where=name, hint=hint)
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise NervecordError(f"cannot be called with observations alone: {error}", where=name, hint=hint) from error
    except ValueError:
        pass  # some of C say nothing of their arguments
    return function  # type: ignore[no-any-return]


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
        """Actions, or preferences, (B, outputs) for raw observations (B, observations).

        Raises:
            TeacherError: the function's answer is no array, has another shape, or is not finite.
        """
        outputs = self.function(observations.cpu().numpy().copy())
        try:
            answer = np.array(outputs, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise TeacherError(
                f"gave a {type(outputs).__name__}, and an array of numbers is needed: {error}", where=self.name
            ) from error
        shape = (len(observations), self.outputs)
        if answer.shape != shape:
            raise TeacherError(
                f"gave an array of shape {answer.shape} for {len(observations)} observations, {shape} is needed",
                where=self.name,
                hint="an action has as many values as the task takes; where it is a choice, a preference for each",
            )
        if not np.isfinite(answer).all():
            raise TeacherError("gave an action that is not finite", where=self.name)
        return torch.from_numpy(answer).to(observations.device)
