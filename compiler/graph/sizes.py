"""What of a graph is too large to be looked at."""

from __future__ import annotations

import math
from collections.abc import Iterator

from nervecord.compiler.budget import LARGEST, MOST_HELD, MOST_VALUES
from nervecord.compiler.findings import Finding
from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.graph.graph import Graph


def sizes(graph: Graph, contract: Contract | None) -> Iterator[Finding]:
    """A finding for each size beyond the budget; shapes alone are read."""
    total = waiting = block = 0
    for name, op in graph.nodes.items():
        values = max(math.prod(op.in_shape), op.size)
        if values > MOST_VALUES:
            yield _too_many(name, "values", values, MOST_VALUES)
        elif op.laid_out > MOST_HELD:
            yield _too_many(name, "values with the zeros around its input", op.laid_out, MOST_HELD)
        total += values
        if type(op).ROLE in ("input", "before"):
            block += op.size * (contract.steps if contract else 1)
        waiting += (op.lag + op.kept) * math.prod(op.in_shape)
    for what, count in (("values", total), ("values that wait in delays", waiting), ("values in a block", block)):
        if count > MOST_HELD:
            yield _too_many("graph", what, count, MOST_HELD)


def _too_many(node: str, what: str, count: int, most: int) -> Finding:
    return Finding("size", "error", node, f"has too many {what}", value=min(count, LARGEST), limit=most)
