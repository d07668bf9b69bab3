"""NIRData files: recordings of a graph's nodes as HDF5, written by nir's own objects and read without trusting them.

A node holds observables, each a grid of time steps (samples, steps, neurons) with its step, or a list of events with
its end. A grid's step must be that of the graph; events are sorted into the graph's steps.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nervecord.compiler.files.atomic import write_atomically
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.nir.file import recording_bytes
from nervecord.compiler.nir.hdf5guard import SIGNATURE, read_hdf5
from nervecord.compiler.ops import Array
from nervecord.errors import FileFormatError, NervecordError

ENDINGS = (".nir", ".h5", ".hdf5")
"""Of files that are written as NIRData; any other is an .npz."""
INPUT, SPIKES, VALUES = "input", "spikes", "v"
"""Observables that are written: what enters, spikes, and membranes or other values."""
ACTIONS = "actions"
"""What a policy gave, beside its nodes."""
MOST_STEPS = 1 << 24
"""Steps that a list of events may be sorted into."""
MOST_VALUES = 1 << 26
"""Values that a recording may be laid out as: half a gigabyte."""


def is_nirdata(path: str | os.PathLike[str]) -> bool:
    """Whether a file is HDF5, by its first bytes."""
    try:
        if not Path(path).is_file():
            return False
        with open(path, "rb") as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except (OSError, ValueError):
        return False


def read_nirdata(path: str | os.PathLike[str], sizes: Mapping[str, int], dt: float | None) -> dict[str, Array]:
    """Node -> (steps, samples, n), of the nodes that are asked for.

    Args:
        sizes: node -> neurons. dt: seconds between two rows: the graph's step, or a policy's control period; None
            where nobody knows.

    Raises:
        FileFormatError: it is damaged, of another step, holds no such node, or several observables of which none is
            meant.
    """
    where, tree = os.fspath(path), read_hdf5(path)
    if "node" in tree:
        raise FileFormatError("is a graph, not a recording", where=where, hint="nir.write_data writes recordings")
    rows = {}
    nodes = _group(tree, "nodes")
    for name, size in sizes.items():
        node = _group(nodes, name)
        if not node:
            names = ", ".join(sorted(nodes)[:10]) or "nothing"
            raise FileFormatError(f"holds nothing of {name!r}, but of {names}", where=where)
        rows[name] = _rows(_observable(node, f"{where}: {name}"), size, dt, f"{where}: {name}")
    return rows


def _group(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """A group in a group; empty where there is none."""
    group = tree.get(name)
    return group if isinstance(group, dict) else {}


def _observable(node: dict[str, Any], where: str) -> dict[str, Any]:
    named = {name: value for name, value in _group(node, "observables").items() if isinstance(value, dict)}
    for name in (INPUT, SPIKES, "output", VALUES):
        if name in named:
            return dict(named[name])
    if len(named) != 1:
        raise FileFormatError(
            f"holds {', '.join(sorted(named)) or 'no observables'}, and which is meant is not clear",
            where=where,
            hint=f"call it {INPUT!r}",
        )
    return dict(next(iter(named.values())))


def _rows(observable: dict[str, Any], size: int, dt: float | None, where: str) -> Array:
    data = observable.get("data")
    if isinstance(data, np.ndarray):
        if data.ndim != 3 or data.shape[2] != size:
            raise FileFormatError(f"has shape {data.shape}, (samples, steps, {size}) is needed", where=where)
        recorded = _number(observable, "dt")
        if None not in (recorded, dt) and not math.isclose(recorded, dt, rel_tol=1e-6):  # type: ignore[arg-type]
            raise FileFormatError(
                f"is recorded in steps of {recorded:g} s, and a step is {dt:g} s here",
                where=where,
                hint="record it in these steps; of a network of another tool --dt says the step",
            )
        return np.ascontiguousarray(data.swapaxes(0, 1), dtype=np.float64)
    if dt is None:
        raise FileFormatError("holds events, and there is no time step to sort them into", where=where)
    return _sorted(observable, size, dt, where)


def _sorted(observable: dict[str, Any], size: int, dt: float, where: str) -> Array:
    """Events as a grid, which ends where the recording does; a time within 1e-9 steps below a step belongs to it."""
    idx, time, value = (observable.get(key) for key in ("idx", "time", "value"))
    if not (isinstance(idx, np.ndarray) and isinstance(time, np.ndarray) and idx.shape == time.shape and idx.ndim == 2):
        raise FileFormatError("is neither a grid of steps nor a list of events", where=where)
    if idx.dtype.kind not in "iu" or time.dtype.kind not in "iuf":
        raise FileFormatError("has events whose neurons are no integers, or whose times are none", where=where)
    neurons = _number(observable, "n_neurons")
    if neurons not in (None, size):
        raise FileFormatError(f"is of {neurons:g} neurons, {size} are needed", where=where)
    sample, event = np.nonzero(idx >= 0)
    neuron, steps = idx[sample, event], np.floor(time[sample, event] / dt + 1e-9)
    end = _number(observable, "t_max")
    count = np.ceil(end / dt - 1e-6) if end is not None else np.append(steps, -1).max() + 1
    if not 1 <= count <= MOST_STEPS:
        ends = "holds no event that is in time" if end is None else f"ends after {end:g} s"
        raise FileFormatError(f"{ends}, 1 to {MOST_STEPS:,} steps of {dt:g} s are needed", where=where)
    if not (np.isfinite(steps).all() and (steps >= 0).all() and (steps < count).all() and (neuron < size).all()):
        raise FileFormatError(f"has events outside {size} neurons and {count * dt:g} s", where=where)
    if count * len(idx) * size > MOST_VALUES:
        raise FileFormatError(
            f"has {len(idx)} samples of {count:.0f} steps of {size} neurons, {MOST_VALUES} values at most are laid out",
            where=where,
            hint="fewer samples, or a larger time step",
        )
    rows: Array = np.zeros((int(count), len(idx), size))
    values = np.asarray(value)[sample, event] if isinstance(value, np.ndarray) and value.shape == idx.shape else 1.0
    rows[steps.astype(np.int64), sample, neuron.astype(np.int64)] = values
    return rows


def _number(observable: dict[str, Any], name: str) -> float | None:
    """An attribute of a recording; None where the file leaves it out."""
    value = observable.get(f"/{name}")
    return None if value is None else float(value)


def write_recording(
    path: str | os.PathLike[str], arrays: Mapping[str, Array], graph: Graph, period: float | None = None
) -> None:
    """Write node -> (steps, samples, ...) as NIRData; axes of a node are flattened.

    Args:
        period: of a policy, the seconds between two of its observations and actions.

    Raises:
        NervecordError: it cannot be written.
    """
    nodes: dict[str, tuple[str, Array, float]] = {}
    for name, values in arrays.items():
        if not name or "/" in name or name.startswith("."):
            raise NervecordError(f"{name!r} cannot be the name of a node in a file", where=os.fspath(path))
        grid = np.ascontiguousarray(values.reshape(*values.shape[:2], math.prod(values.shape[2:])).swapaxes(0, 1))
        binary = bool(np.isin(grid, (0, 1)).all())
        op = graph.nodes.get(name)
        kind = INPUT if name in graph.inputs else SPIKES if binary and op is not None and op.spikes else VALUES
        dt = period if name in (*graph.inputs, ACTIONS) else None
        nodes[name] = kind, grid.astype(bool) if kind == SPIKES else grid, dt or graph.dt or 1.0
    write_atomically(path, recording_bytes(nodes))
