"""Reads what a caller names: a graph, a policy or a program, or the path of one. For Python and the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from nervecord.compiler.files import program
from nervecord.compiler.files.program import SUFFIX, Program
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy, parts
from nervecord.compiler.graph.schedule import STREAM, Schedule
from nervecord.compiler.nir.file import read_nir
from nervecord.compiler.onnx.file import is_onnx
from nervecord.compiler.onnx.reading import read_onnx
from nervecord.compiler.ops import Level
from nervecord.compiler.passes.declare import declare
from nervecord.compiler.passes.discretise import discretise
from nervecord.compiler.passes.resets import with_reset
from nervecord.errors import ContractError, FileFormatError, GraphError, NervecordError
from nervecord.targets.catalogue import compiling_names, reader, target_of_arithmetic

StrPath: TypeAlias = str | os.PathLike[str]
RUN_POLICY = "policy.nir"
"""Name of the policy in a run folder."""
Source: TypeAlias = Graph | Policy | Program | StrPath


def load_program(path: StrPath) -> Program:
    """Read a program, of a target that is here, or of integers whose arithmetic it carries.

    Raises:
        FileFormatError: it is missing, damaged, no program, newer than this version, or for a target it does not have.
    """
    loaded, names = program.load(path), compiling_names()
    if loaded.target not in names and loaded.graph.arithmetic is None:
        raise FileFormatError(
            f"is for target {loaded.target!r}, and nothing here runs that",
            where=str(path),
            hint=f"programs are for: {', '.join(names)}; install the package that adds it, or a newer nervecord",
        )
    return loaded


def policy_file(source: StrPath) -> StrPath:
    """The file of a policy: of a run folder its policy.nir, anything else as it is.

    Raises:
        FileFormatError: it is a folder without one.
    """
    if not os.path.isdir(source):  # which takes names that no file can have; Path.is_dir raises of some
        return source
    inside = Path(source) / RUN_POLICY
    if not inside.is_file():
        raise FileFormatError(
            f"is a folder without {RUN_POLICY}",
            where=str(source),
            hint="a finished run folder has one, unless its policy has no spikes",
        )
    return inside


def load_source(source: Source) -> Graph | Policy | Program:
    """What a file or a run folder holds; graphs, policies and programs pass."""
    if isinstance(source, (Graph, Policy, Program)):
        return source
    source = policy_file(source)
    return load_program(source) if is_program(Path(source)) else read_graph(source)


def read_graph(path: StrPath, *, dt: float | None = None, convention: str = "euler") -> Graph | Policy:
    """The graph or policy of a file: NIR, or by the end of its name ONNX or that of a target's vendor.

    Args:
        dt, convention: see `read_nir`; a vendor's file is in steps already.

    Raises:
        FileFormatError: the file is missing, damaged, or of another kind. GraphError: it describes no legal graph.
    """
    if is_onnx(path):
        return read_onnx(path, dt=dt)
    loaded = reader(Path(path))
    return read_nir(path, dt=dt, convention=convention) if loaded is None else loaded.read(Path(path), dt=dt)


def is_program(path: Path) -> bool:
    """By content; a file that is neither is judged by its name, so that the reader of that kind says what is wrong."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return path.suffix == SUFFIX
        with path.open("rb") as file:
            start = file.read(8)
    except (OSError, ValueError):
        start = b""
    if start.startswith(b"PK"):
        return True
    return path.suffix == SUFFIX and not start.startswith(b"\x89HDF")


def subject_of(source: Source) -> Graph | Policy:
    """The graph or policy, of a program too."""
    loaded = load_source(source)
    return loaded.subject if isinstance(loaded, Program) else loaded


def network_of(source: Source, dt: float | None = None, convention: str = "euler") -> Graph | Policy:
    """What can be compiled; of a file with the time step that the caller says.

    Raises:
        NervecordError: it is a program.
    """
    loaded = source if isinstance(source, (Graph, Policy, Program)) else policy_file(source)
    if isinstance(loaded, Program) or (not isinstance(loaded, (Graph, Policy)) and is_program(Path(loaded))):
        raise NervecordError("is a program, compiled already", where=str(source), hint="a NIR file is needed")
    return loaded if isinstance(loaded, (Graph, Policy)) else read_graph(loaded, dt=dt, convention=convention)


def block_schedule(subject: Graph | Policy | Program, steps: int | None) -> Schedule | None:
    """The schedule of a graph that is no policy, cleared before each block of `steps`; None where nothing is said.

    Raises:
        NervecordError: a policy or a program says it itself.
    """
    if steps is None:
        return None
    if not isinstance(subject, Graph):
        raise NervecordError(
            f"is {steps}, and a {type(subject).__name__.lower()} says its steps itself",
            where="steps",
            hint="leave it out: it is for a graph that is no policy",
        )
    return Schedule(steps, "reset")


def with_reset_rule(loaded: Graph | Policy, reset: str | None) -> Graph | Policy:
    """The graph with the reset rule that its user says, if one is said.

    Raises:
        NervecordError: it is a policy, whose file says it.
    """
    if reset is None:
        return loaded
    if isinstance(loaded, Policy):
        raise NervecordError("the file says the reset rule itself", where="--reset", hint="leave --reset out")
    return with_reset(loaded, reset)


def in_steps(
    loaded: Graph | Policy, source: Source, dt: float | None = None, convention: str = "euler"
) -> Graph | Policy:
    """The subject with a fixed time step; what is wrong with a file's is said with its name."""
    graph, _ = parts(loaded)
    if graph.level is Level.INTEGER and dt in (None, graph.dt):
        return loaded
    try:
        return discretise(loaded, dt=dt, convention=convention)
    except GraphError as error:
        if isinstance(source, (str, os.PathLike)):
            error.add_note(f"it is the graph of {os.fspath(source)}")
        raise


def stream_program(source: Source, steps: int | None, *, beside: Schedule | None = None) -> Program:
    """A program that is no policy; a graph as one of the target that computes in floats.

    Args:
        steps: of a graph, see `block_schedule`. beside: the schedule of what a graph runs beside, in place of steps.

    Raises:
        NervecordError: it is a policy, or a program that says its steps itself.
    """
    loaded = load_source(source)
    if isinstance(loaded, Policy) or (isinstance(loaded, Program) and loaded.contract is not None):
        raise NervecordError(
            "is a policy: it takes observations and gives actions",
            where="stream" if isinstance(source, (Policy, Program)) else str(source),
            hint="open it, or simulate it",
        )
    schedule = block_schedule(loaded, steps) or beside or STREAM
    if isinstance(loaded, Program):
        return loaded
    graph = in_steps(loaded, source)
    assert isinstance(graph, Graph)
    return Program(target_of_arithmetic(graph), graph, None, schedule)


def scheduled_subject(
    source: Source, inputs: str | float | Mapping[str, str | float] | None
) -> tuple[Graph | Policy, Schedule | None]:
    """The graph or policy, its inputs declared, and of a program its schedule.

    Raises:
        NervecordError: inputs are declared of a policy or program, which say what enters.
    """
    loaded = load_source(source)
    if inputs is not None:
        if not isinstance(loaded, Graph):
            raise NervecordError("what enters is said already", where="inputs")
        loaded = declare(loaded, inputs)
    return (loaded.subject, loaded.schedule) if isinstance(loaded, Program) else (loaded, None)


def acting_program(source: Source) -> Program:
    """What a session runs: a program, or a graph or policy as one of the target that computes in floats."""
    loaded = load_source(source)
    if isinstance(loaded, Program):
        return loaded
    discrete = in_steps(loaded, source)
    graph, contract = parts(discrete)
    return Program(target_of_arithmetic(graph), graph, contract)


def policy_of(source: Source) -> Policy:
    """A policy.

    Raises:
        ContractError: it is none.
    """
    loaded = subject_of(source)
    if isinstance(loaded, Policy):
        return loaded
    raise ContractError(
        "carries no contract, so it is no policy",
        where="graph" if isinstance(source, (Graph, Program)) else str(source),
        hint="give it one when compiling: --contract contract.toml; `nervecord contract` writes one to start from",
    )
