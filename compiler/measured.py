"""Findings that no look at a graph can give: what the compiled policy did on the recorded observations.

They are warnings. A program with one is feasible, and its verdict is not the whole story.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nervecord.compiler.contract import Contract
from nervecord.compiler.findings import Finding
from nervecord.compiler.graph import Graph
from nervecord.compiler.interpret import simulate
from nervecord.compiler.node import Array

ACTION_ERROR = 0.05
"""Of the action's range: a larger root mean square error of the action is a finding. The policies of zoo/ come to
0.008 to 0.02 with weights of 8 bits, 0.04 to 0.09 with 4, and 0.15 to 0.37 with 2."""
ROWS = 256
"""Observations on which spikes are counted."""
CHOICES_DIFFERENT = 0.05
"""Of the observations: a larger share on which the choice is another one is a finding."""

CODES: dict[str, tuple[str, str]] = {
    "action-error": (
        f"The compiled policy's actions differ from the float policy's by more than {ACTION_ERROR:.0%} of the action's "
        "range (root mean square, on the recorded observations).",
        "Use more weight bits, or train with coarser weights; run both in closed loop before trusting it.",
    ),
    "choice-error": (
        f"The compiled policy chooses another action on more than {CHOICES_DIFFERENT:.0%} of the recorded "
        "observations.",
        "Use more weight bits; run both in closed loop before trusting it.",
    ),
    "silent-layer": (
        "A layer that spikes in float spikes nowhere once it is compiled: nothing behind it sees the observation.",
        "Use more weight bits, or train with larger weights or lower thresholds.",
    ),
}
"""code -> what it means, what to do; all of them warnings at level integer."""


def measured_findings(
    contract: Contract, lowering: Mapping[str, Any], floating: Mapping[str, float], compiled: Mapping[str, float]
) -> Iterator[Finding]:
    """What compiling measured and a user should see.

    Args:
        contract: of the policy.
        lowering: the target's report: "action_error_rms" or "choices_different" with "observations", where it measured
            them.
        floating, compiled: spiking layer -> spikes per action before and after, on recorded observations.
    """
    spread = _spread(contract)
    error = lowering.get("action_error_rms")
    if error is not None and spread and error > ACTION_ERROR * spread:
        yield _finding(
            "action-error", "graph", f"the action's error is {error / spread:.0%} of its range", error,
            ACTION_ERROR * spread,
        )  # fmt: skip
    different, observations = lowering.get("choices_different"), lowering.get("observations")
    if different is not None and observations and different > CHOICES_DIFFERENT * observations:
        share = different / observations
        yield _finding(
            "choice-error", "graph", f"the choice is another one on {share:.0%} of the observations", different,
            round(CHOICES_DIFFERENT * observations),
        )  # fmt: skip
    for layer, spikes in compiled.items():
        if spikes == 0 and floating.get(layer, 0.0) > 0:
            message = f"never spikes; in float it gives {floating[layer]:.3g} spikes per action"
            yield _finding("silent-layer", layer, message, 0, None)


def _finding(code: str, node: str, message: str, value: float, limit: float | None) -> Finding:
    fix = CODES[code][1].rstrip(".")
    return Finding(
        code=code,
        severity="warning",
        node=node,
        message=message,
        value=value,
        limit=limit,
        fix=fix[0].lower() + fix[1:],
        source="measured on the recorded observations",
    )


def _spread(contract: Contract) -> float | None:
    """Mean width of the action's limits; None where it has none, or is a choice."""
    low, high = contract.action.low, contract.action.high
    if low is None or high is None or contract.choices:
        return None
    widths = [b - a for a, b in zip(low, high, strict=True)]
    return sum(widths) / len(widths)


def measured_spikes(graph: Graph, observations: Array) -> dict[str, float]:
    """Spikes per action of each spiking layer of an executable policy, on the first of these observations (k, n).

    They are given one after another, as in life, so that a state that is carried is carried.
    """
    rows = observations[:ROWS]
    spikes = simulate(graph, rows).spikes(graph)
    return {name: float(values.sum()) / len(rows) for name, values in spikes.items()}
