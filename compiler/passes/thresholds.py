"""Thresholds that differ from neuron to neuron, folded into what enters: for chips that have one per population."""

from __future__ import annotations

import dataclasses

import numpy as np

from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import parts, with_graph
from nervecord.compiler.graph.verify import Subject
from nervecord.compiler.ops import ContinuousMembrane, Membrane, Neuron, Op, Spike
from nervecord.compiler.ops.level import FLOAT_LEVELS

SAME = 1e-9
"""Thresholds that differ by less than this part are one: rounding."""


def fold_thresholds(subject: Subject) -> Subject:
    """Scale every neuron's membrane so that all thresholds of a population are 1.

    Before                                             After
        v = decay v + gain i + leak                        v = decay v + (gain / threshold) i + leak / threshold
        spike where v > threshold, v = reset_value         spike where v > 1, v = reset_value / threshold

    In continuous time r and what v leaks towards are divided in the same way. v is divided by its threshold and decides
    the same, whatever the reset rule, up to the rounding of one division. Only populations whose thresholds differ and
    are positive change; what spikes gives its spikes, never its v.

    Pure, deterministic, idempotent: the same object where nothing changes.
    """
    graph, _ = parts(subject)
    if graph.level not in FLOAT_LEVELS:
        return subject
    nodes = {name: _folded(op) for name, op in graph.nodes.items()}
    if all(nodes[name] is op for name, op in graph.nodes.items()):
        return subject
    result: Graph = graph.replace(nodes=nodes)
    return with_graph(subject, result)  # type: ignore[return-value]


def _folded(op: Op) -> Op:
    if not (isinstance(op, Neuron) and isinstance(op.spike, Spike)):
        return op
    level = op.spike.threshold
    if (level <= 0).any() or level.max() - level.min() <= SAME * level.max():
        return op
    if isinstance(op.membrane, Membrane):
        membrane: Membrane | ContinuousMembrane = dataclasses.replace(
            op.membrane, gain=op.membrane.gain / level, leak=op.membrane.leak / level
        )
    else:
        assert isinstance(op.membrane, ContinuousMembrane)
        leak = None if op.membrane.leak is None else op.membrane.leak / level
        membrane = dataclasses.replace(op.membrane, r=op.membrane.r / level, leak=leak)
    spike = dataclasses.replace(op.spike, threshold=np.ones_like(level), reset_value=op.spike.reset_value / level)
    return op.replace(membrane=membrane, spike=spike)
