"""How the engine is opened: torch is imported here, when a session is, and not before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from nervecord.compiler.files.program import Program
from nervecord.compiler.plan.plan import plan
from nervecord.errors import MissingDependencyError, install_command
from nervecord.runtime.session import Session
from nervecord.runtime.stream import StreamSession

if TYPE_CHECKING:
    from types import ModuleType

NAME = "torch"
"""Of the engine, in the spec of every target that opens it."""


def open_policy(program: Program, *, trace: bool = True, **settings: Any) -> Session:
    """A session of a policy's program.

    Args:
        trace: every step's values are kept, for `trace`.
        settings: device and precision; see `BatchedSession`.

    Raises:
        MissingDependencyError: torch is not installed.
    """
    return cast(Session, _sessions().BatchedSession(program.policy, trace=trace, **settings))


def open_stream(program: Program, **settings: Any) -> StreamSession:
    """The same for a program that is no policy; see `BatchedStream`."""
    return cast(StreamSession, _sessions().BatchedStream(plan(program.graph, program.schedule), **settings))


def _sessions() -> ModuleType:
    try:
        from nervecord.runtime.engines.torch import session
    except ImportError as error:
        if (error.name or "").split(".")[0] != "torch":
            raise
        raise MissingDependencyError(
            "needs torch, which is not installed", where="engine torch", hint=install_command("torch")
        ) from None
    return session
