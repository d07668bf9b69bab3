"""What a caller hands over: a policy or a program, or the file of one. For the Python API and the command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from nervecord.compiler import program
from nervecord.compiler.graph import Graph
from nervecord.compiler.nirfile import read_nir
from nervecord.compiler.node import Array
from nervecord.compiler.passes.discretise import discretise
from nervecord.compiler.program import SUFFIX, Program
from nervecord.errors import ContractError, FileFormatError, NervecordError
from nervecord.runtime.arrayfile import read_rows
from nervecord.targets.catalogue import FLOAT, compiling_names

StrPath: TypeAlias = str | os.PathLike[str]
RUN_POLICY = "policy.nir"
"""Name of the policy in a run folder."""
Given: TypeAlias = Graph | Program | StrPath


def load_program(path: StrPath) -> Program:
    """Read a program, of a target that is here.

    Raises:
        FileFormatError: it is missing, damaged, no program, newer than this version, or for a target it does not have.
    """
    loaded, names = program.load(path), compiling_names()
    if loaded.target not in names:
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
    if not _is_folder(given):
        return given
    inside = Path(given) / RUN_POLICY
    if not inside.is_file():
        raise FileFormatError(
            f"is a folder without {RUN_POLICY}",
            where=str(given),
            hint="a finished run folder has one, unless its policy has no spikes",
        )
    return inside


def _is_folder(given: StrPath) -> bool:
    try:
        return Path(given).is_dir()
    except ValueError:  # a name that no file can have
        return False


def subject(given: Given) -> Graph | Program:
    """What a file or a run folder holds; graphs and programs pass."""
    if isinstance(given, (Graph, Program)):
        return given
    given = policy_file(given)
    return load_program(given) if is_program(Path(given)) else read_nir(given)


def is_program(path: Path) -> bool:
    """By content; a file that is neither is judged by its name, so that the reader of that kind says what is wrong."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except (OSError, ValueError):
        start = b""
    if start.startswith(b"PK"):
        return True
    return path.suffix == SUFFIX and not start.startswith(b"\x89HDF")


def graph_of(given: Given) -> Graph:
    """The graph of a policy or program."""
    found = subject(given)
    return found.graph if isinstance(found, Program) else found


def policy_graph(given: Graph | StrPath) -> Graph:
    """A policy that can be compiled.

    Raises:
        NervecordError: it is a program. ContractError: it is no policy.
    """
    found = subject(given)
    if isinstance(found, Program):
        raise NervecordError("is a program, compiled already", where=str(given), hint="a policy.nir is needed")
    return _with_contract(found, given)


def acting(given: Given) -> Program:
    """What a session runs: a program, or a policy graph as one of the target that computes in floats."""
    found = subject(given)
    if isinstance(found, Program):
        return found
    return Program(FLOAT, discretise(_with_contract(found, given)))


def observations(given: Array | StrPath | None, policy: Graph) -> Array | None:
    """Rows for a policy; those of a file are checked here, where its name is known.

    Raises:
        FileFormatError: the file holds no (k, observations) finite numbers.
    """
    if given is None or isinstance(given, np.ndarray):
        return given
    rows, where = read_rows(given), str(given)
    size = None if policy.contract is None else policy.contract.observation.size
    if size is not None and (rows.ndim != 2 or rows.shape[1] != size or len(rows) == 0):
        raise FileFormatError(f"its observations have shape {rows.shape}, (k, {size}) is needed", where=where)
    if not np.isfinite(rows).all():
        raise FileFormatError("its observations hold NaN or infinite values", where=where)
    return rows


def observations_for(given: Array | StrPath | None, policies: Sequence[Graph]) -> Array:
    """Rows to drive several policies with: those given, or those that one of them carries.

    Raises:
        NervecordError: none are given, and none are carried. FileFormatError: as `observations`.
    """
    rows = observations(given, policies[0])
    if rows is not None:
        return rows
    for policy in policies:
        if policy.recorded is not None:
            return policy.recorded
    raise NervecordError(
        "none of these policies carries recorded ones", where="observations", hint="a policy.nir of a training does"
    )


def _with_contract(graph: Graph, given: Given) -> Graph:
    if graph.contract is None:
        raise ContractError(
            "carries no contract, so it is no policy",
            where="graph" if isinstance(given, Graph) else str(given),
            hint="`nervecord train` writes policies; inspect and simulate take any graph",
        )
    return graph
