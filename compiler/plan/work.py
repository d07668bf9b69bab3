"""What a plan takes to run, in operations and in values that are kept, against the budget."""

from __future__ import annotations

from nervecord.compiler.budget import LAYING, MOST_KEPT, MOST_OPERATIONS
from nervecord.compiler.ops import Op
from nervecord.compiler.plan.plan import Plan
from nervecord.errors import GraphError


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
