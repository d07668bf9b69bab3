"""Recordings: the input that calibrates, and the observations that drive policies, of arrays and of files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Array
from nervecord.compiler.plan.interpret import plain_array
from nervecord.errors import ContractError, FileFormatError, NervecordError
from nervecord.runtime.arrayfile import only_array, read_arrays, read_rows
from nervecord.runtime.nirdata import is_nirdata, read_nirdata
from nervecord.targets.source import StrPath


def recorded_input(
    recording: Array | Mapping[str, Array] | StrPath | None, subject: Graph | Policy
) -> Array | dict[str, Array] | None:
    """Recorded input that calibrates; of a file it is checked here, where its name is known.

    Raises:
        FileFormatError: the file holds no such numbers.
    """
    if recording is None:
        return None
    if isinstance(recording, Mapping):
        return {name: plain_array(rows, str(name)) for name, rows in recording.items()}
    if not isinstance(recording, (str, os.PathLike)):
        return plain_array(recording, "calibration")
    if isinstance(subject, Policy):
        return _observations(recording, subject)
    return stream_values(recording, subject)


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


def _observations(recording: StrPath, policy: Policy) -> Array:
    return _rows(recording, policy.contract, policy.graph)


def _rows(recording: StrPath, contract: Contract, graph: Graph | None = None) -> Array:
    where, size = str(recording), contract.observation.size
    if graph is not None and is_nirdata(recording):
        sizes = {name: graph.nodes[name].size for name in graph.inputs}
        values = read_nirdata(recording, sizes, contract.control_period)
        rows = np.concatenate(list(values.values()), axis=2)
        rows = rows.reshape(-1, size) if rows.shape[1] == 1 else rows
    else:
        rows = read_rows(recording)
    if rows.ndim != 2 or rows.shape[1] != size or len(rows) == 0:
        raise FileFormatError(f"its observations have shape {rows.shape}, (k, {size}) is needed", where=where)
    if not np.isfinite(rows).all():
        raise FileFormatError("its observations hold NaN or infinite values", where=where)
    return rows


def observations_for(recording: Array | StrPath | None, sides: Sequence[object]) -> Array:
    """Rows to drive several policies with: those given, or those that one of them carries.

    Args:
        sides: policies, programs or sessions.

    Raises:
        NervecordError: none are given, and none are carried. FileFormatError: the file holds none.
    """
    if recording is not None and not isinstance(recording, (str, os.PathLike)):
        return plain_array(recording, "observations")
    if recording is not None:
        contract = getattr(sides[0], "contract", None)
        if contract is None:
            raise ContractError("carries no contract, so it is no policy", where="compare")
        return _rows(recording, contract, getattr(sides[0], "graph", None))
    for side in sides:
        if isinstance(side, Policy) and side.recorded is not None:
            return side.recorded
    raise NervecordError(
        "none of these policies carries recorded ones",
        where="observations",
        hint="give an .npz or .npy of them, as in --observations FILE; a policy.nir of a training carries some",
    )
