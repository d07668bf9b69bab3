"""Populations whose decays differ from neuron to neuron, split: for chips that have one decay per population."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.graph.graph import Edge, Graph
from nervecord.compiler.graph.names import fresh
from nervecord.compiler.graph.policy import parts, with_graph
from nervecord.compiler.graph.verify import Subject
from nervecord.compiler.ops import Affine, Array, Level, Membrane, Neuron, Op, SparseAffine, Synapse
from nervecord.compiler.passes.linear import matrix_of, only, with_matrix

MOST_GROUPS = 16
"""Populations that one may become."""


def split_decays(subject: Subject, arithmetic: Arithmetic) -> Subject:
    """Make a population of all neurons that have the same decays in the chip's codes; the others are silent in it.

    Before                                       After
        a -> in (4, n) -> lif (4) -> out             a -> in.lif.0 (4, n) -> lif.0 (4) -> out
                                                     a -> in.lif.1 (4, n) -> lif.1 (4) -> out

    In each copy the neurons of the others get no input, no bias and no leak, so that what a neuron does is done in one
    copy, and the sum of the copies is what was there: nothing changes but the order of float64 sums. `prune` then takes
    the silent ones out, where nothing outside the core reads them.

    Populations with more than `MOST_GROUPS` different codes, with thresholds below zero, or that anything but Affines
    feeds, stay as they are, and the rules of the target say so; `cluster_decays` brings decays together where that is
    allowed.

    Pure, deterministic, idempotent: the same object where nothing changes.
    """
    graph, _ = parts(subject)
    if graph.level is not Level.DISCRETE:
        return subject
    result = graph
    for name, op in graph.nodes.items():
        groups = decay_groups(op, arithmetic)
        fed = all(isinstance(graph.nodes[a], (Affine, SparseAffine)) for a in graph.sources(name))
        if isinstance(op, Neuron) and 1 < len(groups) <= MOST_GROUPS and fed:
            result = _split(result, name, op, groups)
    return subject if result is graph else with_graph(subject, result)  # type: ignore[return-value]


def decay_groups(op: Op, arithmetic: Arithmetic) -> list[Array]:
    """Neurons (as masks) of equal codes, in the order of their first ones; none for what cannot be split."""
    if not isinstance(op, Neuron) or not isinstance(op.membrane, Membrane) or len(op.in_shape) != 1:
        return []
    threshold = getattr(op.spike, "threshold", None)
    if threshold is not None and (threshold < 0).any():
        return []  # a neuron without input would spike
    codes = [_codes(op.membrane.decay, arithmetic.decay_code)]
    if isinstance(op.synapse, Synapse):
        codes.append(_codes(op.synapse.decay, lambda decay: arithmetic.decay_code(decay, current=True)))
    _, first, group = np.unique(np.stack(codes, axis=1), axis=0, return_index=True, return_inverse=True)
    return [group.ravel() == k for k in np.argsort(first)]


def _codes(decays: Array, code: Callable[[float], int]) -> Array:
    values, which = np.unique(decays, return_inverse=True)
    return np.array([code(float(value)) for value in values])[which.ravel()]


def _split(graph: Graph, name: str, op: Neuron, groups: list[Array]) -> Graph:
    names = set(graph.nodes)
    copies = [fresh(f"{name}.{k}", names) for k in range(len(groups))]
    nodes: dict[str, Op] = {}
    edges: list[Edge] = []
    for other, node in graph.nodes.items():
        if other == name:
            for copy, mask in zip(copies, groups, strict=True):
                for a in graph.sources(name):
                    connection = fresh(f"{a}.{copy}", names)
                    nodes[connection] = _rows(graph.nodes[a], mask)
                    edges += [*((b, connection) for b in graph.sources(a)), (connection, copy)]
                nodes[copy] = _alone(op, mask)
        elif not (name in graph.destinations(other) and graph.destinations(other) == (name,)):
            nodes[other] = node
    # The copies take the place of what is split, also where it feeds itself.
    edges += [(a, b) for a, b in graph.edges if b in nodes]
    links = [(part, b) for a, b in edges for part in (copies if a == name else [a]) if part in nodes and b != name]
    return graph.replace(nodes=nodes, edges=tuple(dict.fromkeys(links)))


def _rows(op: Op, mask: Array) -> Affine | SparseAffine:
    """The connection to some of the neurons."""
    assert isinstance(op, (Affine, SparseAffine))
    bias = None if op.bias is None else np.where(mask, op.bias, 0.0)
    return with_matrix(op, only(matrix_of(op), mask), bias)


def _alone(op: Neuron, mask: Array) -> Neuron:
    """The neurons with the decays of those in the mask, and no leak for the others."""
    membrane, first = op.membrane, int(np.flatnonzero(mask)[0])
    assert isinstance(membrane, Membrane)
    alike = dataclasses.replace(
        membrane, decay=np.where(mask, membrane.decay, membrane.decay[first]), leak=np.where(mask, membrane.leak, 0.0)
    )
    synapse = op.synapse
    if isinstance(synapse, Synapse):
        synapse = dataclasses.replace(synapse, decay=np.where(mask, synapse.decay, synapse.decay[first]))
    return op.replace(membrane=alike, synapse=synapse)
