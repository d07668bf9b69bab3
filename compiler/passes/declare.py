"""What enters a graph, said by its user: spikes, or values with a limit."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.ops import Input
from nervecord.errors import GraphError, NervecordError

SPIKES = "spikes"


def declare(graph: Graph, kinds: str | float | Mapping[str, str | float]) -> Graph:
    """Say what the Inputs carry.

    Before                          After `declare(graph, "spikes")`        After `declare(graph, {"input": 4.0})`
        input  carries=unknown          input  carries=spikes                   input  carries=values limit=4.0

    A limit clips what enters, so that the meaning changes for larger values alone; to say spikes changes nothing.
    Pure, deterministic, idempotent: the same object where nothing changes.

    Args:
        kinds: "spikes" or the limit of values, of all Inputs; or Input -> such.

    Raises:
        GraphError: there is no Input of that name.
        NervecordError: a limit is no positive number.
    """
    kind_of = dict(kinds) if isinstance(kinds, Mapping) else dict.fromkeys(graph.inputs, kinds)
    for name in kind_of:
        if name not in graph.inputs:
            raise GraphError(f"is no input; the inputs are {', '.join(graph.inputs)}", where=name)
    nodes = dict(graph.nodes)
    for name, kind in kind_of.items():
        op = nodes[name]
        assert isinstance(op, Input)
        nodes[name] = _declared(op, kind, name)
    return graph if all(nodes[name] is graph.nodes[name] for name in kind_of) else graph.replace(nodes=nodes)


def _declared(op: Input, kind: str | float, name: str) -> Input:
    if kind == SPIKES:
        return op if op.carries == SPIKES else op.replace(carries=SPIKES, limit=None)
    if isinstance(kind, (str, bool)) or not (math.isfinite(kind) and kind > 0):
        raise NervecordError(
            f"is {kind!r}: an input carries spikes, or values up to a positive limit",
            where=f"input {name}",
            hint="--inputs spikes, --inputs 4.0, or --inputs NAME=spikes,OTHER=4.0",
        )
    if op.carries == "values" and op.limit == float(kind):
        return op
    return op.replace(carries="values", limit=float(kind))
