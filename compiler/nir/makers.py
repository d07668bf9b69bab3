"""What a file's numbers say about the tool that wrote it, where that tool loses something on the way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nervecord.compiler.findings import Finding
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.ops import Array, ContinuousMembrane, ContinuousSynapse, Neuron, Spike
from nervecord.compiler.passes.resets import UNSAID

SNNTORCH_DT = 1e-4
"""Seconds: snnTorch's export writes tau = SNNTORCH_DT / (1 - beta) and r = tau / SNNTORCH_DT, whatever was trained."""
FLOAT32 = 1e-5
"""Numbers that agree to this part are the same as float32 after a division or two."""


def notes(graph: Graph) -> Iterator[Finding]:
    """What is worth knowing of an IMPORTED graph of another tool."""
    alike = [op.label for _, op in graph.of_type(Neuron) if _as_snntorch_writes(op)]
    if alike:
        yield Finding(
            UNSAID,
            "warning",
            alike[0],
            "is written as snnTorch's export writes every neuron, with reset to zero, and snnTorch's default is to "
            "subtract the threshold" + (f"; so are {', '.join(alike[1:8])}" if alike[1:] else ""),
            fix="say how it was trained: --reset subtract-late (snnTorch's default), --reset subtract-early (with "
            "reset_delay=False), --reset zero (with reset_mechanism='zero'), or --reset zero-late (the same of RLeaky)",
        )


def _as_snntorch_writes(op: Neuron) -> bool:
    membrane, synapse, spike = op.membrane, op.synapse, op.spike
    if not isinstance(membrane, ContinuousMembrane) or membrane.tau is None or not isinstance(spike, Spike):
        return False
    if spike.reset_value.any() or (membrane.leak is not None and membrane.leak.any()):
        return False
    fits = _same(membrane.r * SNNTORCH_DT, membrane.tau)
    if isinstance(synapse, ContinuousSynapse):
        fits = fits and _same(synapse.w_in * SNNTORCH_DT, synapse.tau)
    return fits


def _same(a: Array, b: Array) -> bool:
    with np.errstate(invalid="ignore"):  # infinite time constants
        return bool((np.abs(a - b) <= FLOAT32 * np.abs(b)).all())
