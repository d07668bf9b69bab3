"""The reset rule that a NIR file could not say, given by its user."""

from __future__ import annotations

import dataclasses

from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.ops import Neuron, Spike
from nervecord.compiler.ops.neurons import Reset
from nervecord.errors import GraphError, unknown_name

RULES: dict[str, tuple[Reset, int]] = {
    "zero": ("value", 0),
    "zero-late": ("value", 1),
    "subtract": ("subtract", 0),
    "subtract-late": ("subtract-late", 0),
    "subtract-early": ("subtract-early", 0),
}
"""Rule -> reset and silent steps. What a spike does to the membrane: back to zero, or the threshold less; in the same
step or (late) the next, or (early) before the next comparison where it is above the threshold still."""
UNSAID = "reset-unsaid"
"""Code of the note that a file looks as if its reset rule was lost."""
NOTES = {
    UNSAID: (
        "The file is written as snnTorch's export writes every network, with reset to zero, and snnTorch's default is "
        "to subtract. About the graph itself, whatever the target.",
        "Say how it was trained: `--reset`.",
    )
}
"""Code of a note on a file -> what it means, what to do."""


def with_reset(graph: Graph, rule: str) -> Graph:
    """Give all spiking neurons the reset rule that they were trained with.

    Before                       After `with_reset(graph, "subtract")`
        v = 0 where it spiked        v = v - threshold where it spiked

    "zero-late" is a reset to zero and a silent step, in which what enters is lost, as in snnTorch's recurrent neurons.
    "zero" changes nothing but takes back the note that the rule is not known.

    Pure, deterministic, idempotent: the same object where nothing changes.

    Args:
        graph: IMPORTED or DISCRETE, of another tool. rule: one of `RULES`.

    Raises:
        GraphError: a neuron resets to another value than zero, which its file does say.
        NervecordError: there is no such rule.
    """
    if rule not in RULES:
        raise unknown_name("reset rule", rule, RULES, where="--reset")
    reset, silent = RULES[rule]
    nodes = dict(graph.nodes)
    for name, op in graph.nodes.items():
        if not isinstance(op, Neuron) or not isinstance(op.spike, Spike):
            continue
        if op.spike.reset == "value" and op.spike.reset_value.any():
            raise GraphError(
                "resets to a value that is not zero, so that its file does say the rule",
                where=op.label,
                hint="leave --reset out",
            )
        if silent and op.synapse is not None:
            raise GraphError(
                "a late reset to zero clears the synaptic current too (snnTorch), and no neuron here does that",
                where=op.label,
                hint="train with reset_delay=False, and give --reset zero",
            )
        if (op.spike.reset, op.spike.refractory) != (reset, silent):
            nodes[name] = op.replace(spike=dataclasses.replace(op.spike, reset=reset, refractory=silent))
    notes = tuple(note for note in graph.notes if note.code != UNSAID)
    if notes == graph.notes and all(nodes[name] is graph.nodes[name] for name in nodes):
        return graph
    return graph.replace(nodes=nodes, notes=notes)
