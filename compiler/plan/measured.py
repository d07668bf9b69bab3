"""Findings that no look at a graph can give: what the compiled policy did on the recorded observations.

They are warnings. A program with one is feasible, and its verdict is not the whole story.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nervecord.compiler.findings import Finding
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Array
from nervecord.compiler.plan.interpret import simulate
from nervecord.compiler.plan.plan import plan

ROWS = 256
"""Observations on which spikes are counted."""
STEPS = 1 << 17
"""Of all nodes, one after another: where an action takes many steps, spikes are counted on fewer observations."""

CODES: dict[str, tuple[str, str]] = {
    "action-error": (
        "The compiled policy's actions are far from the float policy's, on the recorded observations.",
        "Use more weight bits (`--weight-bits`) or slices (`--weight-slices 2`), or train with a smaller range of "
        "weights; run both in closed loop before trusting it.",
    ),
    "choice-error": (
        "The compiled policy chooses another action on many of the recorded observations.",
        "Use more weight bits (`--weight-bits`) or slices (`--weight-slices 2`); run both in closed loop before "
        "trusting it.",
    ),
    "silent-layer": (
        "A layer that spikes in float spikes nowhere once it is compiled: nothing behind it sees the observation.",
        "Use more weight bits (`--weight-bits`) or slices (`--weight-slices 2`), or train with larger weights or lower "
        "thresholds.",
    ),
}
"""code -> what it means, what to do; all of them warnings at level integer."""


def silent_layers(floating: Mapping[str, float], compiled: Mapping[str, float]) -> Iterator[Finding]:
    """Layers that compiling silenced.

    Args:
        floating, compiled: spiking layer -> spikes per action before and after, on recorded observations.
    """
    for layer, spikes in compiled.items():
        if spikes == 0 and floating.get(layer, 0.0) > 0:
            yield Finding(
                code="silent-layer",
                severity="warning",
                node=layer,
                message=f"never spikes; in float it gives {floating[layer]:.3g} spikes per action",
                value=0,
                fix="more weight bits or slices, or larger weights or lower thresholds in training",
                source="measured on the recorded observations",
            )


def measured_spikes(policy: Policy, observations: Array) -> dict[str, float]:
    """Spikes per action of each spiking layer of an executable policy, on the first of these observations (k, n).

    They are given one after another, as in life, so that a state that is carried is carried.
    """
    rows = observations[: max(1, min(ROWS, STEPS // (plan(policy).window * len(policy.graph.nodes))))]
    spikes = simulate(policy, rows).spikes(policy.graph)
    return {name: float(values.sum()) / len(rows) for name, values in spikes.items()}
