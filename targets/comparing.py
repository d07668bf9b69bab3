"""What `compare` is given: two policies or two streams, opened on their engines and driven over the same input."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import STREAM, Schedule
from nervecord.compiler.ops import Array
from nervecord.errors import ContractError, NervecordError
from nervecord.runtime.measure.compare import Comparison, Mode
from nervecord.runtime.measure.compare import compare as compare_sessions
from nervecord.runtime.measure.compare_streams import compare_streams
from nervecord.runtime.session import Session
from nervecord.runtime.stream import StreamSession
from nervecord.targets.network import network_to_compile
from nervecord.targets.opening import open_session, open_stream
from nervecord.targets.recordings import observations_for, recorded_input
from nervecord.targets.source import Source, StrPath, acting_program, load_source, stream_program


def compare(
    a: Session | StreamSession | Source,
    b: Session | StreamSession | Source,
    observations: Array | StrPath | None = None,
    *,
    inputs: Array | Mapping[str, Array] | StrPath | None = None,
    steps: int | None = None,
    engines: tuple[str | None, str | None] = (None, None),
    mode: Mode = "free",
    tolerance: float | None = None,
) -> Comparison:
    """Drive two policies over the same observations, or two streams over the same recording; see `nervecord.compare`.

    Args:
        engines: of a and b, where they are no sessions.

    Raises:
        ContractError: one is a policy and the other is none, or the two do not match.
        NervecordError: there is nothing to drive them with.
    """
    named: list[Any] = [a, b]
    sides: list[Any] = [it if _is_session(it) else load_source(it) for it in named]
    acts = [_contract(side) is not None for side in sides]
    if acts[0] is not acts[1]:
        which = "first" if acts[0] else "second"
        raise ContractError(
            f"the {which} is a policy, and the other is a network without a contract",
            where="compare",
            hint="--contract FILE makes a policy of the network; or compare two networks",
        )
    with contextlib.ExitStack() as opened:
        if not acts[0]:
            return _streams(opened, sides, observations if inputs is None else inputs, steps, engines, mode, tolerance)
        if inputs is not None:
            raise NervecordError("is for networks, and these are policies", where="input", hint="--observations")
        if steps is not None:
            raise NervecordError("policies say it themselves", where="steps", hint="leave --steps out")
        rows = observations_for(observations, sides)
        for k, engine in enumerate(engines):
            if not _is_session(sides[k]):
                sides[k] = opened.enter_context(open_session(acting_program(sides[k]), engine=engine, trace=True))
        return compare_sessions(sides[0], sides[1], rows, mode=mode, tolerance=tolerance)


def _streams(
    opened: contextlib.ExitStack,
    sides: list[Any],
    inputs: Array | Mapping[str, Array] | StrPath | None,
    steps: int | None,
    engines: tuple[str | None, str | None],
    mode: Mode,
    tolerance: float | None,
) -> Comparison:
    if inputs is None:
        raise NervecordError(
            "these networks need a recording to be driven with",
            where="compare",
            hint="--input FILE: an .npz or .npy of (steps, values)",
        )
    schedule = _schedule(sides, steps)
    graph = sides[0].graph if isinstance(sides[0], Program) or _is_session(sides[0]) else sides[0]
    values = recorded_input(inputs, graph)
    assert values is not None
    streams = list(sides)
    for k, engine in enumerate(engines):
        if not _is_session(sides[k]):
            program = stream_program(sides[k], None, beside=schedule)
            streams[k] = opened.enter_context(open_stream(program, engine=engine))
    return compare_streams(streams[0], streams[1], values, mode=mode, tolerance=tolerance)


def _schedule(sides: Sequence[Any], steps: int | None) -> Schedule:
    """Of the networks: as one of the programs says it, else as the caller does."""
    schedules = [side.schedule for side in sides if isinstance(side, Program)]
    schedules += [side.plan.schedule for side in sides if _is_session(side)]
    if not schedules:
        return STREAM if steps is None else Schedule(steps, "reset")
    if steps is not None:
        raise NervecordError(
            "one of the two is a program, which says it itself", where="steps", hint="leave --steps out"
        )
    first: Schedule = schedules[0]
    return first


def compared(
    path: StrPath, *, dt: float | None, convention: str, reset: str | None, contract: StrPath | None
) -> tuple[Graph | Policy | Program, bool]:
    """A side of a comparison, and whether it is a network; programs and policies say it all themselves."""
    source = load_source(path)
    if not isinstance(source, Graph):
        return source, False
    return network_to_compile(path, contract=contract, inputs=None, dt=dt, convention=convention, reset=reset), True


def _is_session(side: Any) -> bool:
    return hasattr(side, "step") and hasattr(side, "plan")


def _contract(side: Any) -> Any:
    return side.plan.contract if _is_session(side) else getattr(side, "contract", None)
