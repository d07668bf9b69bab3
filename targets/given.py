"""What a caller hands over: a graph, a policy or a program, or the file of one. For Python and the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from nervecord.compiler.files import program
from nervecord.compiler.files.attach import attach
from nervecord.compiler.files.contractfile import read_contract
from nervecord.compiler.files.program import SUFFIX, Program
from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy, parts
from nervecord.compiler.graph.schedule import STREAM, Schedule
from nervecord.compiler.nir.file import read_nir
from nervecord.compiler.onnx.file import is_onnx
from nervecord.compiler.onnx.reading import read_onnx
from nervecord.compiler.ops import Array, Level
from nervecord.compiler.passes.declare import declare
from nervecord.compiler.passes.discretise import discretise
from nervecord.compiler.passes.resets import with_reset
from nervecord.compiler.plan.interpret import plain_array
from nervecord.errors import ContractError, FileFormatError, GraphError, NervecordError
from nervecord.runtime.arrayfile import only_array, read_arrays, read_rows
from nervecord.runtime.nirdata import is_nirdata, read_nirdata
from nervecord.targets.catalogue import compiling_names, reader, target_of_arithmetic

StrPath: TypeAlias = str | os.PathLike[str]
RUN_POLICY = "policy.nir"
"""Name of the policy in a run folder."""
Given: TypeAlias = Graph | Policy | Program | StrPath


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


def policy_file(given: StrPath) -> StrPath:
    """The file of a policy: of a run folder its policy.nir, anything else as it is.

    Raises:
        FileFormatError: it is a folder without one.
    """
    if not os.path.isdir(given):  # which takes names that no file can have; Path.is_dir raises of some
        return given
    inside = Path(given) / RUN_POLICY
    if not inside.is_file():
        raise FileFormatError(
            f"is a folder without {RUN_POLICY}",
            where=str(given),
            hint="a finished run folder has one, unless its policy has no spikes",
        )
    return inside


def read_given(given: Given) -> Graph | Policy | Program:
    """What a file or a run folder holds; graphs, policies and programs pass."""
    if isinstance(given, (Graph, Policy, Program)):
        return given
    given = policy_file(given)
    return load_program(given) if is_program(Path(given)) else read_graph(given)


def read_graph(path: StrPath, *, dt: float | None = None, convention: str = "euler") -> Graph | Policy:
    """The graph or policy of a file: NIR, or by the end of its name ONNX or that of a target's vendor.

    Args:
        dt, convention: see `read_nir`; a vendor's file is in steps already.

    Raises:
        FileFormatError: the file is missing, damaged, or of another kind. GraphError: it describes no legal graph.
    """
    if is_onnx(path):
        return read_onnx(path, dt=dt)
    found = reader(Path(path))
    return read_nir(path, dt=dt, convention=convention) if found is None else found.read(Path(path), dt=dt)


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


def subject_of(given: Given) -> Graph | Policy:
    """The graph or policy, of a program too."""
    found = read_given(given)
    return found.subject if isinstance(found, Program) else found


def uncompiled(given: Given, dt: float | None = None, convention: str = "euler") -> Graph | Policy:
    """What can be compiled; of a file with the time step that the caller says.

    Raises:
        NervecordError: it is a program.
    """
    found = given if isinstance(given, (Graph, Policy, Program)) else policy_file(given)
    if isinstance(found, Program) or (not isinstance(found, (Graph, Policy)) and is_program(Path(found))):
        raise NervecordError("is a program, compiled already", where=str(given), hint="a NIR file is needed")
    return found if isinstance(found, (Graph, Policy)) else read_graph(found, dt=dt, convention=convention)


def given_schedule(subject: Graph | Policy | Program, steps: int | None) -> Schedule | None:
    """The schedule of a graph that is no policy, cleared before each block of `steps`; None where nothing is said.

    Raises:
        NervecordError: a policy or a program says it itself.
    """
    if steps is None:
        return None
    if not isinstance(subject, Graph):
        raise NervecordError(
            f"is {steps}, and a {type(subject).__name__.lower()} says its steps itself", where="steps",
            hint="leave it out: it is for a graph that is no policy",
        )  # fmt: skip
    return Schedule(steps, "reset")


def compilable(
    given: Given,
    target: str,
    schedule: Schedule,
    *,
    contract: StrPath | None,
    inputs: str | float | Mapping[str, str | float] | None,
    dt: float | None,
    convention: str,
    reset: str | None,
    **said: object,
) -> tuple[Graph | Policy, Schedule]:
    """What is compiled for a target, and its schedule: a network as its user describes it, or what a program holds.

    Args:
        given: anything that `compile` takes. target: its name. schedule: of a network.
        contract, inputs, dt, convention, reset: of `prepared`. said: what else the caller says.

    Raises:
        NervecordError: a program is given, and with it what it says itself; or as of `prepared`.
    """
    made = recompiled(
        given, target, contract=contract, inputs=inputs, dt=dt, reset=reset,
        convention=None if convention == "euler" else convention, **said,
    )  # fmt: skip
    if made is not None:
        return made.subject, made.schedule
    network = prepared(given, contract=contract, inputs=inputs, dt=dt, convention=convention, reset=reset)
    return network, schedule


CHOOSES = ("calibration", "allow_clustered_decays")
"""What a caller may say of a program of floats, which another target may still turn into integers."""


def recompiled(given: Given, target: str, **said: object) -> Program | None:
    """The program that is to become one of another target; None where something else is given.

    Args:
        target: its name. said: what else the caller says, by name; None or False where nothing.

    Raises:
        NervecordError: it is of that target already; or something is said that a program says itself.
    """
    if isinstance(given, (Graph, Policy)):
        return None
    if isinstance(given, Program):
        program, where = given, "network"
    elif is_program(Path(policy_file(given))):
        program, where = load_program(given), os.fspath(given)
    else:
        return None
    if program.target == target:
        raise NervecordError(
            f"is a program, compiled already for {target!r}", where=where,
            hint="name another target, or give the NIR file it was made of",
        )  # fmt: skip
    is_open = program.graph.level is not Level.INTEGER
    for name, value in said.items():
        if value is not None and value is not False and not (is_open and name in CHOOSES):
            raise NervecordError(
                f"is given, and {where} is compiled already: it stays as it is", where=name,
                hint="leave it out, or compile the NIR file anew",
            )  # fmt: skip
    return program


def said_reset(found: Graph | Policy, reset: str | None) -> Graph | Policy:
    """The graph with the reset rule that its user says, if one is said.

    Raises:
        NervecordError: it is a policy, whose file says it.
    """
    if reset is None:
        return found
    if isinstance(found, Policy):
        raise NervecordError("the file says the reset rule itself", where="--reset", hint="leave --reset out")
    return with_reset(found, reset)


def _in_steps(
    found: Graph | Policy, given: Given, dt: float | None = None, convention: str = "euler"
) -> Graph | Policy:
    """The subject with a fixed time step; what is wrong with a file's is said with its name."""
    graph, _ = parts(found)
    if graph.level is Level.INTEGER and dt in (None, graph.dt):
        return found
    try:
        return discretise(found, dt=dt, convention=convention)
    except GraphError as error:
        if isinstance(given, (str, os.PathLike)):
            error.add_note(f"it is the graph of {os.fspath(given)}")
        raise


def prepared(
    given: Given,
    *,
    contract: StrPath | None,
    inputs: str | float | Mapping[str, str | float] | None,
    dt: float | None,
    convention: str,
    reset: str | None = None,
) -> Graph | Policy:
    """What is to be compiled: in steps, its inputs declared, with a contract where a file gives one.

    Raises:
        NervecordError: it is a program; or a policy already, which needs no contract and no declaration.
    """
    found = _in_steps(said_reset(uncompiled(given, dt, convention), reset), given, dt, convention)
    if isinstance(found, Policy):
        for where, value in (("contract", contract), ("inputs", inputs)):
            if value is not None:
                raise NervecordError("the file carries a contract already, which says it", where=where)
        return found
    if inputs is not None:
        found = declare(found, inputs)
    if contract is None:
        return found
    return attach(found, read_contract(contract))


def streaming(given: Given, steps: int | None, *, beside: Schedule | None = None) -> Program:
    """A program that is no policy; a graph as one of the target that computes in floats.

    Args:
        steps: of a graph, see `given_schedule`. beside: the schedule of what a graph runs beside, in place of steps.

    Raises:
        NervecordError: it is a policy, or a program that says its steps itself.
    """
    found = read_given(given)
    if isinstance(found, Policy) or (isinstance(found, Program) and found.contract is not None):
        raise NervecordError(
            "is a policy: it takes observations and gives actions",
            where="stream" if isinstance(given, (Policy, Program)) else str(given),
            hint="open it, or simulate it",
        )
    schedule = given_schedule(found, steps) or beside or STREAM
    if isinstance(found, Program):
        return found
    graph = _in_steps(found, given)
    assert isinstance(graph, Graph)
    return Program(target_of_arithmetic(graph), graph, None, schedule)


def scheduled_subject(
    given: Given, inputs: str | float | Mapping[str, str | float] | None
) -> tuple[Graph | Policy, Schedule | None]:
    """The graph or policy, its inputs declared, and of a program its schedule.

    Raises:
        NervecordError: inputs are declared of a policy or program, which say what enters.
    """
    found = read_given(given)
    if inputs is not None:
        if not isinstance(found, Graph):
            raise NervecordError("what enters is said already", where="inputs")
        found = declare(found, inputs)
    return (found.subject, found.schedule) if isinstance(found, Program) else (found, None)


def acting(given: Given) -> Program:
    """What a session runs: a program, or a graph or policy as one of the target that computes in floats."""
    found = read_given(given)
    if isinstance(found, Program):
        return found
    discrete = _in_steps(found, given)
    graph, contract = parts(discrete)
    return Program(target_of_arithmetic(graph), graph, contract)


def recorded_input(
    given: Array | Mapping[str, Array] | StrPath | None, subject: Graph | Policy
) -> Array | dict[str, Array] | None:
    """Recorded input that calibrates; of a file it is checked here, where its name is known.

    Raises:
        FileFormatError: the file holds no such numbers.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        return {name: plain_array(rows, str(name)) for name, rows in given.items()}
    if not isinstance(given, (str, os.PathLike)):
        return plain_array(given, "calibration")
    if isinstance(subject, Policy):
        return _observations(given, subject)
    return stream_values(given, subject)


def stream_values(path: StrPath, graph: Graph) -> Array | dict[str, Array]:
    """What a file holds for a graph: an array for each input by name, or the one array there is.

    Raises:
        FileFormatError: it holds neither.
    """
    if is_nirdata(path):
        return dict(read_nirdata(path, {name: graph.nodes[name].size for name in graph.inputs}, graph.dt))
    arrays = read_arrays(path)
    if set(arrays) == set(graph.inputs) and len(arrays) > 1:
        return arrays
    return only_array(arrays, where=str(path))


def _observations(given: StrPath, policy: Policy) -> Array:
    return _rows(given, policy.contract, policy.graph)


def _rows(given: StrPath, contract: Contract, graph: Graph | None = None) -> Array:
    where, size = str(given), contract.observation.size
    if graph is not None and is_nirdata(given):
        sizes = {name: graph.nodes[name].size for name in graph.inputs}
        found = read_nirdata(given, sizes, contract.control_period)
        rows = np.concatenate(list(found.values()), axis=2)
        rows = rows.reshape(-1, size) if rows.shape[1] == 1 else rows
    else:
        rows = read_rows(given)
    if rows.ndim != 2 or rows.shape[1] != size or len(rows) == 0:
        raise FileFormatError(f"its observations have shape {rows.shape}, (k, {size}) is needed", where=where)
    if not np.isfinite(rows).all():
        raise FileFormatError("its observations hold NaN or infinite values", where=where)
    return rows


def observations_for(given: Array | StrPath | None, sides: Sequence[object]) -> Array:
    """Rows to drive several policies with: those given, or those that one of them carries.

    Args:
        sides: policies, programs or sessions.

    Raises:
        NervecordError: none are given, and none are carried. FileFormatError: the file holds none.
    """
    if given is not None and not isinstance(given, (str, os.PathLike)):
        return plain_array(given, "observations")
    if given is not None:
        contract = getattr(sides[0], "contract", None)
        if contract is None:
            raise ContractError("carries no contract, so it is no policy", where="compare")
        return _rows(given, contract, getattr(sides[0], "graph", None))
    for side in sides:
        if isinstance(side, Policy) and side.recorded is not None:
            return side.recorded
    raise NervecordError(
        "none of these policies carries recorded ones", where="observations",
        hint="give an .npz or .npy of them, as in --observations FILE; a policy.nir of a training carries some",
    )  # fmt: skip


def policy_of(given: Given) -> Policy:
    """A policy.

    Raises:
        ContractError: it is none.
    """
    found = subject_of(given)
    if isinstance(found, Policy):
        return found
    raise ContractError(
        "carries no contract, so it is no policy",
        where="graph" if isinstance(given, (Graph, Program)) else str(given),
        hint="give it one when compiling: --contract contract.toml; `nervecord contract` writes one to start from",
    )
