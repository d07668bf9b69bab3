"""NIR files: the one door to the `nir` package.

Reading goes through `compiler.nir.hdf5guard` and never calls nir, whose reader trusts its file. Writing makes nir's own
objects, so that every NIR tool reads the result.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from nervecord.compiler.files.atomic import write_atomically
from nervecord.compiler.files.readerguard import Limits
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy, parts
from nervecord.compiler.graph.verify import require, unprintable
from nervecord.compiler.nir.form import layout
from nervecord.compiler.nir.hdf5guard import LIMITS, read_hdf5
from nervecord.compiler.nir.metadata import KEY, metadata, restore
from nervecord.compiler.nir.reading import import_graph
from nervecord.compiler.ops import Level, NirForm
from nervecord.compiler.passes.discretise import check_convention
from nervecord.errors import FileFormatError, GraphError, NervecordError


def read_nir(
    path: str | os.PathLike[str], *, dt: float | None = None, convention: str = "euler", limits: Limits = LIMITS
) -> Graph | Policy:
    """What a NIR file holds.

    A file that Nervecord wrote gives exactly what was written: a policy where it holds a contract, else a DISCRETE
    graph. Any other gives an IMPORTED graph in continuous time; `discretise` makes it executable.

    Args:
        path: the file.
        dt: seconds per step. NIR does not say it: None leaves it open, and is enough to inspect. For a file of
            Nervecord it must be the file's own.
        convention: the one `discretise` will be asked for; only its name is checked here.
        limits: of time, memory and size.

    Raises:
        FileFormatError: the file is missing, damaged, no NIR, newer, or inconsistent; it names the node.
        GraphError: what it describes is no legal graph; every violation is listed.
        NervecordError: dt is no positive number, or not the file's.
    """
    where = os.fspath(path)
    check_convention(convention)
    if dt is not None and not (math.isfinite(dt) and dt > 0):
        raise NervecordError(f"dt is {dt} s, it must be positive", where=where, hint="--dt 1e-3 is a millisecond")
    root = _root(read_hdf5(path, limits), where)
    described = root.get("metadata")
    if not isinstance(described, dict) or KEY not in described:
        return require(import_graph(root, where=where, dt=dt), Level.IMPORTED, where=where)
    subject = restore(root, where=where)
    name = unprintable(parts(subject)[0])
    if name is not None:
        raise FileFormatError(f"the name {name!r} cannot be printed", where=where)
    made_for = parts(subject)[0].dt
    if dt is not None and dt != made_for:
        raise NervecordError(f"was made for dt = {made_for} s, not {dt} s", where=where, hint="leave --dt out")
    return subject


def _root(tree: dict[str, Any], where: str) -> dict[str, Any]:
    root = tree.get("node")
    kind = root.get("type") if isinstance(root, dict) else None
    if not isinstance(root, dict) or not isinstance(kind, str):
        raise FileFormatError(
            "is HDF5 and no NIR: it has no group 'node' with a type",
            where=where,
            hint="it holds a recording, NIRData: --input takes it" if "nodes" in tree else None,
        )
    if kind != "NIRGraph":
        raise FileFormatError(
            f"its root is a single {kind}, no graph", where=where, hint="write nir.NIRGraph.from_list(node)"
        )
    return root


def write_nir(subject: Graph | Policy, path: str | os.PathLike[str]) -> None:
    """Write a DISCRETE graph or policy, so that `read_nir` gives it back exactly and every NIR tool reads its core.

    The same subject gives the same bytes; a crash leaves the old file or the new one. See `compiler.nir.form` for the
    equations, `compiler.nir.metadata` for what stands in the metadata: reset rules other than to a value, host ops and
    the contract are known to Nervecord only.

    Raises:
        GraphError: the graph is not DISCRETE, not legal, or holds something NIR cannot say; it names the node.
        NervecordError: the file cannot be written.
    """
    name = unprintable(parts(subject)[0])
    if name is not None:
        raise GraphError(f"the name {name!r} cannot be printed", where="graph", hint="rename it")
    write_atomically(path, nir_bytes(subject))


def nir_bytes(subject: Graph | Policy) -> bytes:
    """The content of the file `write_nir` writes."""
    import nir  # type: ignore[import-untyped]  # only writers need it, and it loads h5py

    graph, _ = parts(subject)
    if graph.level is not Level.DISCRETE:
        hint = "discretise it first" if graph.level is Level.IMPORTED else "an integer graph is kept in a program"
        raise GraphError(f"is {graph.level.value}, only a discrete graph is written as NIR", where="graph", hint=hint)
    require(subject)
    nir_layout = layout(graph)
    nir_graph = nir.NIRGraph(
        nodes={name: _node(nir, form) for name, form in nir_layout.nodes.items()},
        edges=list(nir_layout.edges),
        metadata=metadata(subject),
        type_check=False,  # `require` has checked, and nir knows no groups of a convolution
    )
    image = io.BytesIO()
    # Uncompressed: no other version of zlib gives other bytes.
    nir.write(image, nir_graph, compression=None)
    return image.getvalue()


def recording_bytes(nodes: Mapping[str, tuple[str, np.ndarray, float]]) -> bytes:
    """The content of a NIRData file.

    Args:
        nodes: node -> (name of the observable, (samples, steps, neurons), seconds per step).
    """
    import nir

    recordings = {
        name: nir.NIRNodeData({kind: nir.TimeGriddedData(grid, dt)}) for name, (kind, grid, dt) in nodes.items()
    }
    image = io.BytesIO()
    nir.write_data(image, nir.NIRGraphData(recordings))
    return image.getvalue()


def _node(nir: Any, form: NirForm) -> Any:
    kind, fields = form
    match kind:
        case "Input":
            return nir.Input(input_type={"input": fields["shape"]})
        case "Output":
            return nir.Output(output_type={"output": fields["shape"]})
        case "Flatten":
            fields = {**fields, "input_type": {"input": fields["input_type"]}}  # type: ignore[dict-item]
    # Copies: nir keeps what it is given, and ours are read-only. Single whole numbers it wants as int.
    return getattr(nir, kind)(**{name: _copied(value) for name, value in fields.items()})


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return value
    return int(value) if value.ndim == 0 and value.dtype.kind == "i" else np.array(value)
