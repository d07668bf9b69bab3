"""NIRData files: recordings of a graph's nodes as HDF5, written by nir's own objects and read without trusting them.

A node holds observables, each a grid of time steps (samples, steps, neurons) or a list of events. Attributes of a file
are not read (`compiler.nir.hdf5guard`): a row of a grid is a step of the graph, and events are sorted into its steps.
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
        sizes: node -> neurons. dt: seconds per step of the graph, which events are sorted by.

    Raises:
        FileFormatError: it is damaged, holds no such node, or several observables of which none is meant.
    """
    where, tree = os.fspath(path), read_hdf5(path)
    if "node" in tree:
        raise FileFormatError("is a graph, not a recording", where=where, hint="nir.write_data writes recordings")
    found = {}
    nodes = _group(tree, "nodes")
    for name, size in sizes.items():
        node = _group(nodes, name)
        if not node:
            held = ", ".join(sorted(nodes)[:10]) or "nothing"
            raise FileFormatError(f"holds nothing of {name!r}, but of {held}", where=where)
        found[name] = _rows(_observable(node, f"{where}: {name}"), size, dt, f"{where}: {name}")
    return found


def _group(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """A group in a group; empty where there is none."""
    held = tree.get(name)
    return held if isinstance(held, dict) else {}


def _observable(node: dict[str, Any], where: str) -> dict[str, Any]:
    named = {name: held for name, held in _group(node, "observables").items() if isinstance(held, dict)}
    for name in (INPUT, SPIKES, "output", VALUES):
        if name in named:
            return dict(named[name])
    if len(named) != 1:
        raise FileFormatError(
            f"holds {', '.join(sorted(named)) or 'no observables'}, and which is meant is not clear", where=where,
            hint=f"call it {INPUT!r}",
        )  # fmt: skip
    return dict(next(iter(named.values())))


def _rows(observable: dict[str, Any], size: int, dt: float | None, where: str) -> Array:
    data = observable.get("data")
    if isinstance(data, np.ndarray):
        if data.ndim != 3 or data.shape[2] != size:
            raise FileFormatError(f"has shape {data.shape}, (samples, steps, {size}) is needed", where=where)
        return np.ascontiguousarray(data.swapaxes(0, 1), dtype=np.float64)
    idx, time, value = (observable.get(key) for key in ("idx", "time", "value"))
    if not (isinstance(idx, np.ndarray) and isinstance(time, np.ndarray) and idx.shape == time.shape and idx.ndim == 2):
        raise FileFormatError("is neither a grid of steps nor a list of events", where=where)
    if dt is None:
        raise FileFormatError("holds events, and the graph has no time step to sort them into", where=where)
    if idx.dtype.kind not in "iu" or time.dtype.kind not in "iuf":
        raise FileFormatError("has events whose neurons are no whole numbers, or whose times are none", where=where)
    sample, event = np.nonzero(idx >= 0)
    neuron, steps = idx[sample, event], np.floor(time[sample, event] / dt + 1e-9)
    if not len(steps):
        raise FileFormatError("holds no event", where=where)
    if not (np.isfinite(steps).all() and steps.min() >= 0 and steps.max() < MOST_STEPS and neuron.max() < size):
        raise FileFormatError(f"has events outside {size} neurons and {MOST_STEPS} steps of {dt:g} s", where=where)
    count = int(steps.max()) + 1
    if count * len(idx) * size > MOST_VALUES:
        raise FileFormatError(
            f"has {len(idx)} samples of {count} steps of {size} neurons, {MOST_VALUES} values at most are laid out",
            where=where, hint="fewer samples, or a larger time step",
        )  # fmt: skip
    rows: Array = np.zeros((count, len(idx), size))
    values = np.asarray(value)[sample, event] if isinstance(value, np.ndarray) and value.shape == idx.shape else 1.0
    rows[steps.astype(np.int64), sample, neuron.astype(np.int64)] = values
    return rows


def write_recording(path: str | os.PathLike[str], arrays: Mapping[str, Array], graph: Graph) -> None:
    """Write node -> (steps, samples, ...) as NIRData; axes of a node are flattened.

    Raises:
        NervecordError: it cannot be written.
    """
    nodes: dict[str, tuple[str, Array]] = {}
    for name, values in arrays.items():
        if not name or "/" in name or name.startswith("."):
            raise NervecordError(f"{name!r} cannot be the name of a node in a file", where=os.fspath(path))
        grid = np.ascontiguousarray(values.reshape(*values.shape[:2], math.prod(values.shape[2:])).swapaxes(0, 1))
        binary = bool(np.isin(grid, (0, 1)).all())
        op = graph.nodes.get(name)
        kind = INPUT if name in graph.inputs else SPIKES if binary and op is not None and op.spikes else VALUES
        nodes[name] = kind, grid.astype(bool) if kind == SPIKES else grid
    write_atomically(path, recording_bytes(nodes, graph.dt or 1.0))
