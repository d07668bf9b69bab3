"""How a program is opened: on an engine of its target, with what that engine lets choose."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from nervecord.compiler.files.program import Program
from nervecord.errors import NervecordError, unknown_name
from nervecord.runtime.engines.torch import door
from nervecord.runtime.session import Session
from nervecord.runtime.stream import StreamSession
from nervecord.targets.catalogue import find_target, runner

C = "c"
"""The engine whose library can be built ahead of time."""
FPGA, FPGA_SIM = "fpga", "fpga-sim"
"""The engines of the target fpga, which take programs of integers of any target: on a board, and simulated."""


def open_session(
    program: Program,
    *,
    engine: str | None,
    trace: bool,
    device: str | None = None,
    precision: str | None = None,
    library: str | os.PathLike[str] | None = None,
    port: str | os.PathLike[str] | None = None,
) -> Session:
    """A session of a policy's program.

    Args:
        engine: of its target; None: the first. trace: see `Target.open`.
        device, precision: of the engine torch; None: the processor, float64.
        library: of the engine c, built ahead of time (`build_library`).
        port: of the engine fpga, where the board is.

    Raises:
        NervecordError: the target has no such engine, or the engine no choice of device, precision, library or port.
    """
    if port is not None:
        return _open_board(program, engine, port)
    if library is not None:
        return _open_library(program, engine, trace, library)
    settings = _settings(program, engine, device, precision)
    if settings:
        return door.open_policy(program, trace=trace, **settings)
    return (_simulated(program, engine) or runner(program)).open(program, engine=engine, trace=trace)


def _open_library(program: Program, engine: str | None, trace: bool, library: str | os.PathLike[str]) -> Session:
    if engine not in (None, C):
        raise NervecordError(f"is of the engine {C}, and engine {engine!r} takes none", where="library")
    from nervecord.runtime.engines.c.session import CSession

    return cast(Session, CSession(program.policy, trace=trace, library=library))


def _open_board(program: Program, engine: str | None, port: str | os.PathLike[str]) -> Session:
    if engine not in (None, FPGA):
        raise NervecordError(f"is of the engine {FPGA}, and engine {engine!r} takes none", where="port")
    from nervecord.targets.fpga.verilog import require

    require()
    from nervecord.targets.fpga.driver import BoardSession
    from nervecord.targets.fpga.target import lanes_of

    return cast(Session, BoardSession(program, port, lanes=lanes_of(program)))


def _simulated(program: Program, engine: str | None) -> Any:
    """The target fpga for a program of any target, where its engine is asked for."""
    if engine not in (FPGA, FPGA_SIM) or program.target == FPGA or program.graph.arithmetic is None:
        return None
    return find_target(FPGA)


def build_library(program: Program, path: str | os.PathLike[str]) -> None:
    """Compile the engine c of a policy ahead of time into a library, which `open_session` opens without a compiler.

    Raises:
        ContractError: it is no policy. InfeasibleError: an op has no form in C.
        MissingDependencyError: there is no C compiler. EngineError: it failed.
    """
    from nervecord.compiler.plan.plan import plan
    from nervecord.runtime.engines.c.library import build_shared
    from nervecord.runtime.engines.c.source import c_source

    build_shared(c_source(plan(program.policy), observed=True), Path(path))


def open_stream(
    program: Program, *, engine: str | None, device: str | None = None, precision: str | None = None
) -> StreamSession:
    """The same for a program that is no policy."""
    settings = _settings(program, engine, device, precision)
    if settings:
        return door.open_stream(program, **settings)
    return cast(StreamSession, (_simulated(program, engine) or runner(program)).stream(program, engine=engine))


def _settings(program: Program, engine: str | None, device: str | None, precision: str | None) -> dict[str, Any]:
    settings = {name: value for name, value in (("device", device), ("precision", precision)) if value is not None}
    if not settings:
        return {}
    target = runner(program)
    engines = target.spec.engines
    if engine is not None and engine not in engines:
        raise unknown_name("engine", engine, engines, where=target.spec.name)
    chosen = engine or engines[0]
    if chosen != door.NAME:
        name, value = next(iter(settings.items()))
        raise NervecordError(
            f"{value!r} is given, and engine {chosen!r} lets nobody choose it",
            where=name,
            hint=f"engine {door.NAME!r} does",
        )
    return settings
