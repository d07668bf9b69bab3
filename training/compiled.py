"""torch.compile where it can compile; the operators one by one where it cannot."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

_P = ParamSpec("_P")
_R = TypeVar("_R")


def compiled(
    function: Callable[_P, _R], what: str, *, dynamic: bool, options: dict[str, Any] | None = None
) -> Callable[_P, _R]:
    """The function, compiled by torch when it is first called. Where torch cannot compile here it warns once, and from
    then on runs the operators one by one.

    Args:
        function: of tensors.
        what: it is, for the warning.
        dynamic: compile once for tensors of any size, not for each size.
        options: of torch's compiler.
    """
    attempt: Callable[_P, _R] | None = None
    able = True

    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        nonlocal attempt, able
        if able:
            try:
                if attempt is None:
                    attempt = torch.compile(function, dynamic=dynamic, options=options)
                return attempt(*args, **kwargs)
            except (torch._dynamo.exc.TorchDynamoException, RuntimeError) as error:
                if attempt is not None and not isinstance(error, torch._dynamo.exc.TorchDynamoException):
                    raise  # of the computation itself, as of a card without memory
                able = False
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                warnings.warn(f"torch.compile fails here ({reason}); {what} runs slower", stacklevel=2)
        return function(*args, **kwargs)

    return run
