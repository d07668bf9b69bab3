"""Neurons that never spike because nothing reaches them, taken out."""

from __future__ import annotations

import dataclasses

import numpy as np

from nervecord.compiler.graph.graph import Edge, Graph
from nervecord.compiler.graph.names import fresh
from nervecord.compiler.graph.policy import parts, with_graph
from nervecord.compiler.graph.verify import Subject
from nervecord.compiler.ops import Affine, Array, Level, Membrane, Neuron, Op, SparseAffine, Spike
from nervecord.compiler.ops.fields import declarations
from nervecord.compiler.passes.linear import cut, empty_rows, matrix_of, with_matrix


def prune(subject: Subject) -> Subject:
    """Take silent neurons out of populations that only connections hear.

    Before                                            After
        in (5, n) -> lif (5) -> out (m, 5)                in (3, n) -> lif (3) -> out (m, 3)

    A neuron is silent that has no weight, no bias and no leak, and a threshold of zero or more: v stays 0. What it
    sends is 0, so that its columns in the connections behind go with it, and nothing changes, to the bit but for the
    order of float64 sums. A connection that hears several populations is given one of its own for the smaller one. The
    last neuron of a population stays.

    Pure, deterministic, idempotent: the same object where nothing changes.
    """
    graph, _ = parts(subject)
    if graph.level is not Level.DISCRETE:
        return subject
    smaller = graph
    for name in graph.nodes:
        silent = _silent(smaller, name)
        if silent is not None and silent.any() and not silent.all():
            smaller = _without(smaller, name, ~silent)
    return subject if smaller is graph else with_graph(subject, smaller)  # type: ignore[return-value]


def _silent(graph: Graph, name: str) -> Array | None:
    op = graph.nodes[name]
    if not (isinstance(op, Neuron) and isinstance(op.spike, Spike) and isinstance(op.membrane, Membrane)):
        return None
    around = [graph.nodes[a] for a in (*graph.sources(name), *graph.destinations(name))]
    if len(op.in_shape) != 1 or not all(isinstance(node, (Affine, SparseAffine)) for node in around):
        return None
    silent = (op.membrane.leak == 0) & (op.spike.threshold >= 0)
    for a in graph.sources(name):
        affine = _affine(graph.nodes[a])
        silent &= empty_rows(matrix_of(affine))
        if affine.bias is not None:
            silent &= affine.bias == 0
    return silent


def _without(graph: Graph, name: str, mask: Array) -> Graph:
    nodes: dict[str, Op] = dict(graph.nodes)
    edges: list[Edge] = list(graph.edges)
    names = set(nodes)
    op = nodes[name]
    assert isinstance(op, Neuron)
    nodes[name] = _neurons(op, mask)
    for a in graph.sources(name):
        smaller = _affine(nodes[a])
        matrix = cut(matrix_of(smaller), mask, np.ones(smaller.in_shape, dtype=bool))
        smaller = with_matrix(smaller, matrix, None if smaller.bias is None else smaller.bias[mask])
        if graph.destinations(a) == (name,):
            nodes[a] = smaller
            continue
        own = fresh(f"{a}.{name}", names)
        nodes[own] = smaller
        edges.remove((a, name))
        edges += [*((b, own) for b in graph.sources(a)), (own, name)]
    between = graph.replace(nodes=nodes, edges=tuple(edges))
    nodes, edges = dict(between.nodes), list(between.edges)
    for b in between.destinations(name):
        whole = _affine(nodes[b])
        smaller = with_matrix(whole, cut(matrix_of(whole), np.ones(whole.out_shape, dtype=bool), mask), whole.bias)
        if between.sources(b) == (name,):
            nodes[b] = smaller
            continue
        # The bias stays with those that are still heard through it.
        own = fresh(f"{b}.{name}", names)
        nodes[own] = smaller.replace(bias=None)
        edges.remove((name, b))
        edges += [(name, own), *((own, c) for c in between.destinations(b))]
    return between.replace(nodes=nodes, edges=tuple(edges))


def _affine(op: Op) -> Affine | SparseAffine:
    assert isinstance(op, (Affine, SparseAffine))
    return op


def _neurons(op: Neuron, mask: Array) -> Neuron:
    pieces = {}
    for name in ("membrane", "synapse", "spike"):
        part = getattr(op, name)
        if part is not None:
            arrays = {n: getattr(part, n)[mask] for n, d in declarations(type(part)) if d.kind == "array"}
            pieces[name] = dataclasses.replace(part, **arrays)
    return op.replace(**pieces)
