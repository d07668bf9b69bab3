"""One budget for what a graph asks for: values and operations, counted from its shapes before anything is laid out.

A file of a few bytes can say shapes of terabytes, and each op says what it would take of them (`Op.laid_out`,
`Op.operations`). `sizes` belongs to verification, so that every verb keeps to it; `require_runnable` to the plan, which
everything that runs is made of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nervecord.compiler.findings import Finding
from nervecord.errors import GraphError

if TYPE_CHECKING:
    from nervecord.compiler.graph.contract import Contract
    from nervecord.compiler.graph.graph import Graph
    from nervecord.compiler.ops import Op
    from nervecord.compiler.plan.plan import Plan

MOST_VALUES = 1 << 24
"""No op takes or gives more values."""
MOST_HELD = 1 << 26
"""Values of all ops together, of all delays, of the steps of an action, and of what one op lays out: half a gigabyte
each."""
MOST_OPERATIONS = 1 << 36
"""Operations of one block, a policy's action or a block of a stream: half a minute of a processor's matrix products."""
LAYING = 8
"""Operations that laying a value out takes as long as: it is written and read where nothing is near."""
MOST_KEPT = 1 << 27
"""Values that all ops give in all steps of what is run and kept: a gigabyte."""
MOST_RELAYS = 1 << 10
"""Populations that pass spikes on, where a chip's delays are too short; compiling so many takes some ten seconds."""
LARGEST = 1 << 62
"""A larger number is said as this one."""


def sizes(graph: Graph, contract: Contract | None) -> Iterator[Finding]:
    """What of a graph is too large to be looked at; shapes alone are read."""
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


def operations(plan: Plan) -> int:
    """Of one block; each value that an op lays out around its input takes as long as some operations."""
    return plan.window * sum(_work(step.op) for step in plan.core)


def _work(op: Op) -> int:
    return op.operations + LAYING * op.laid_out


def require_runnable(plan: Plan) -> None:
    """Refuse a plan one block of which takes more operations than can be waited for.

    Raises:
        GraphError: it does; names the op that takes most.
    """
    count = operations(plan)
    if count > MOST_OPERATIONS:
        largest = max(plan.core, key=lambda step: _work(step.op))
        raise GraphError(
            f"takes {_work(largest.op)} operations in each of {plan.window} steps, and with all others {count} in "
            f"a block, at most {MOST_OPERATIONS} are run",
            where=largest.name,
            hint="fewer steps for an action, or smaller layers; inspect runs none",
        )


def require_kept(plan: Plan, steps: int, batch: int = 1) -> None:
    """Refuse to keep what all ops give in so many steps, where it does not fit.

    Raises:
        GraphError: it does not.
    """
    count = steps * batch * sum(step.op.size for step in plan.core)
    if count > MOST_KEPT:
        raise GraphError(
            f"gives {count} values in {steps} steps, and at most {MOST_KEPT} are kept",
            where="graph",
            hint="fewer steps at once, or fewer copies",
        )
