"""Linear operations in a row become one connection: what a chip is told whose connections end in neurons."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nervecord.compiler.graph.graph import Edge, Graph
from nervecord.compiler.graph.names import unused
from nervecord.compiler.graph.policy import parts, with_graph
from nervecord.compiler.graph.verify import Subject, verify
from nervecord.compiler.ops import Affine, Array, Conv, Csr, DelayLine, Flatten, Input, Neuron, Op, Output, SparseAffine
from nervecord.compiler.ops.fields import declarations
from nervecord.compiler.ops.level import FLOAT_LEVELS
from nervecord.compiler.passes.linear import (
    LINEAR,
    Matrix,
    TooManyError,
    added,
    connection,
    convolution_of,
    only,
    through,
)

MOST_DELAYS = 64
"""Connections that a delay line may become, one for each length."""


@dataclass(frozen=True)
class _Sum:
    """What enters a node: sum over (source, delay) of matrix x(t - delay), and a bias; all flat, in C order.

    through: names of the nodes on the way, from the source on. direct: no op has been met, the matrix is the identity.
    """

    matrices: dict[tuple[str, int], Matrix]
    bias: Array | None
    through: tuple[str, ...]
    direct: bool = False


class _StaysError(Exception):
    """A chain has no matrix of a size that can be kept, or nothing that it means the same as; the node it is about."""


def compose(subject: Subject) -> Subject:
    """Give every population one Affine for each source and delay, in place of all that lies between.

    Before                                             After
        input -> Conv -> neurons (8, 8, 8)                 input (64) -> Affine -> neurons (512)
        neurons -> SumPool2d -> Conv -> neurons            neurons -> Affine -> neurons
        neurons -> Flatten -> Affine -> Affine -> neurons  neurons -> Affine -> neurons
        neurons -> DelayLine of 1, 3 -> Affine -> neurons  neurons -> Affine with delay 1, Affine with delay 3 -> ...
        neurons -> neurons                                 neurons -> Affine of ones and zeros -> neurons
        neurons (4, 4) -> Flatten -> output                neurons (16) -> output

    The sum over a chain is the same numbers added in another order, so that the error is the rounding of float64. A
    matrix of which less than a quarter is not zero becomes a SparseAffine, which knows the convolution that it unrolls
    where nothing else lies on the way.
    Shapes become flat, in C order, those of Inputs and Outputs too. What is one Affine already is left as it is. Where
    something is no such chain (a matrix of more than `MOST_WEIGHTS` weights, a Delay in continuous time, a bias that
    waits in a delay line, linear ops before an Output), nothing is changed, and the rules of the target name it.

    Pure, deterministic, idempotent: the same object where nothing changes.

    Args:
        subject: a legal graph or policy, IMPORTED or DISCRETE; anything else comes back as it is.
    """
    graph, _ = parts(subject)
    if graph.level not in FLOAT_LEVELS or _is_plain(graph) or verify(subject):
        return subject
    try:
        return with_graph(subject, _composed(graph))  # type: ignore[return-value]
    except _StaysError:
        return subject


def _receivers(graph: Graph) -> Iterator[tuple[str, Op]]:
    return ((name, op) for name, op in graph.nodes.items() if type(op).ROLE == "population")


def _plain(graph: Graph, name: str) -> bool:
    """Whether a population is fed by Affines alone, and those by what sends."""
    sources = [graph.nodes[a] for a in graph.sources(name)]
    if not all(isinstance(op, (Affine, SparseAffine)) for op in sources):
        return False
    return not any(isinstance(graph.nodes[b], LINEAR) for a in graph.sources(name) for b in graph.sources(a))


def _is_plain(graph: Graph) -> bool:
    flat = all(len(op.out_shape) == 1 for op in graph.nodes.values())
    return flat and all(_plain(graph, name) for name, _ in _receivers(graph))


def _composed(graph: Graph) -> Graph:
    others = {name: op for name, op in graph.nodes.items() if not isinstance(op, LINEAR)}
    sums: dict[str, _Sum] = {}
    nodes: dict[str, Op] = {}
    edges: list[Edge] = []
    names = set(graph.nodes)
    for name, op in others.items():
        if type(op).ROLE != "population":
            nodes[name] = _flat(op)
            edges += [(a, name) for a in _ends(graph, name)]
        elif _plain(graph, name):
            for a in graph.sources(name):
                if a not in nodes:
                    nodes[a] = graph.nodes[a]
                    edges += [(b, a) for b in graph.sources(a)]
                edges.append((a, name))
            nodes[name] = _flat(op)
        else:
            for label, source, affine in _affines(graph, name, sums, names):
                nodes[label] = affine
                edges += [(source, label), (label, name)]
            nodes[name] = _flat(op)
    return graph.replace(nodes=nodes, edges=tuple(edges))


def _ends(graph: Graph, name: str) -> Iterator[str]:
    """What feeds a node outside the core, Flattens looked through."""
    for a in graph.sources(name):
        op = graph.nodes[a]
        if isinstance(op, Flatten):
            yield from _ends(graph, a)
        elif isinstance(op, LINEAR):
            raise _StaysError(a)
        else:
            yield a


def _affines(
    graph: Graph, name: str, sums: dict[str, _Sum], names: set[str]
) -> Iterator[tuple[str, str, Affine | SparseAffine]]:
    """(name, source, connection) of everything that enters a population."""
    total = _entering(graph, name, sums, set())
    origin = tuple(word for a in total.through for word in (graph.nodes[a].origin or (a,)))
    weighted = [a for a in total.through if isinstance(graph.nodes[a], (Affine, SparseAffine, Conv))]
    base = weighted[-1] if weighted and len(total.matrices) == 1 else f"{name}.in"
    convolutions = [op for a in weighted if isinstance(op := graph.nodes[a], Conv)]
    form = convolution_of(convolutions[0]) if len(convolutions) == len(weighted) == 1 else None
    bias = total.bias
    for source, delay in total.matrices:
        label = base if len(total.matrices) == 1 else f"{name}.{source}" + (f".{delay}" if delay else "")
        if label not in weighted or label != base:  # it may keep the name of the connection whose place it takes
            label = unused(label, names)
        names.add(label)
        yield label, source, connection(total.matrices[source, delay], bias, delay, origin or (name,), form)
        bias = None


def _entering(graph: Graph, name: str, sums: dict[str, _Sum], open_: set[str]) -> _Sum:
    """What enters a node: the sum of what its sources give."""
    matrices: dict[tuple[str, int], Matrix] = {}
    bias: Array | None = None
    met: dict[str, None] = {}
    sources = graph.sources(name)
    direct = False
    for a in sources:
        part = _given(graph, a, sums, open_)
        met |= dict.fromkeys(part.through)
        direct = part.direct and len(sources) == 1
        for key, matrix in part.matrices.items():
            matrices[key] = added(matrices[key], matrix) if key in matrices else matrix
        if part.bias is not None:
            bias = part.bias if bias is None else bias + part.bias
    return _Sum(matrices, bias, tuple(met), direct)


def _given(graph: Graph, name: str, sums: dict[str, _Sum], open_: set[str]) -> _Sum:
    """What a node gives, in terms of what sends."""
    op = graph.nodes[name]
    if not isinstance(op, LINEAR):
        if type(op).ROLE == "passing":
            raise _StaysError(name)
        return _Sum({(name, 0): Csr.identity(op.size)}, None, (), True)
    if name in sums:
        return sums[name]
    if name in open_:
        raise _StaysError(name)  # linear ops in a circle
    before = _entering(graph, name, sums, open_ | {name})
    sums[name] = _through(name, op, before)
    return sums[name]


def _through(name: str, op: Op, before: _Sum) -> _Sum:
    if before.bias is not None and before.bias.any() and op.lag + op.kept:
        raise _StaysError(name)  # a bias is there from the first step on, and what waits is zero then
    linear = op.replace(bias=None) if isinstance(op, (Affine, SparseAffine, Conv)) else op
    bias = None if before.bias is None else _applied(linear, before.bias[None])[0]
    if isinstance(op, (Affine, SparseAffine, Conv)) and op.bias is not None:
        own = np.repeat(op.bias, op.size // len(op.bias)) if isinstance(op, Conv) else op.bias
        bias = own if bias is None else bias + own
    matrices: dict[tuple[str, int], Matrix] = {}
    if isinstance(op, DelayLine):
        steps = op.steps.ravel()
        for wait in np.unique(steps).tolist():
            for (source, delay), matrix in before.matrices.items():
                # Behind another delay line two ways may wait equally long.
                key, part = (source, delay + wait), only(matrix, steps == wait)
                matrices[key] = added(matrices[key], part) if key in matrices else part
        if len(matrices) > MOST_DELAYS:
            raise _StaysError(name)
        return _Sum(matrices, bias, (*before.through, name))
    try:
        for (source, delay), matrix in before.matrices.items():
            matrices[source, delay + op.lag] = through(op, matrix, direct=before.direct)
    except TooManyError:
        raise _StaysError(name) from None
    return _Sum(matrices, bias, (*before.through, name), before.direct and isinstance(op, Flatten))


def _applied(op: Op, rows: Array) -> Array:
    """A linear op on flat rows."""
    result = op.step({}, rows.reshape(len(rows), *op.in_shape))
    return np.ascontiguousarray(result.reshape(len(rows), -1))


def _flat(op: Op) -> Op:
    """The op with a flat shape."""
    if len(op.out_shape) == 1 and len(op.in_shape) == 1:
        return op
    if isinstance(op, (Input, Output)):
        return op.replace(shape=(op.size,))
    if not isinstance(op, Neuron):
        # Its arrays are of its shape: a stateless spike.
        return op.replace(**{n: getattr(op, n).ravel() for n, d in declarations(type(op)) if d.kind == "array"})
    pieces = {}
    for name in ("membrane", "synapse", "spike"):
        part = getattr(op, name)
        if part is not None:
            arrays = {n: getattr(part, n) for n, d in declarations(type(part)) if d.kind == "array"}
            flat = {n: a.ravel() for n, a in arrays.items() if a is not None}
            pieces[name] = dataclasses.replace(part, **flat)
    return op.replace(**pieces)
