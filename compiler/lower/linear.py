"""How large what is sent and summed in a plan of integers can be: the part of its linear form that rests on proofs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.lower.ranges import entering, prove_bodies
from nervecord.compiler.ops import Array, Mantissas, Sparse
from nervecord.compiler.plan.plan import Entry, Plan, Step


@dataclass(frozen=True, slots=True)
class Sender:
    """What sends to connections step by step.

    Args:
        source: of the plan. largest: magnitude of one value. graded: it sends other values than 0 and 1.
    """

    source: Entry | Step
    largest: int
    graded: bool


@dataclass(frozen=True, slots=True)
class Sums:
    """Largest magnitudes of a connection.

    Args:
        product: of any partial sum of its products. given: of what it gives, its exponent applied.
    """

    product: int
    given: int


def largest_sent(plan: Plan) -> dict[str, int]:
    """Entry or population -> largest magnitude of one value that it sends.

    Raises:
        GraphError: an entry has no limit.
    """
    most = {name: int(max(high.max(), -low.min())) for name, (low, high) in entering(plan).items()}
    for proof in prove_bodies(plan):
        result = proof.reached.values[proof.reached.body.result].largest
        most[proof.range.name] = min(result, proof.range.message)
    return most


def senders(plan: Plan) -> dict[str, Sender]:
    """What sends to connections step by step (`Plan.stepwise`), by name.

    Raises:
        GraphError: an entry has no limit.
    """
    largest, result = largest_sent(plan), {}
    for name in plan.stepwise:
        source = plan.sources[name]
        graded = source.graded if isinstance(source, Entry) else source.op.messages or largest[name] > 1
        result[name] = Sender(source, largest[name], graded)
    return result


def sums(step: Step, most: dict[str, int], arithmetic: Arithmetic) -> Sums:
    """Of a connection; `most` as `largest_sent` gives it."""
    dense = step.op
    assert isinstance(dense, Mantissas)
    x = sum(most[tap.source] for tap in step.taps)
    (inputs,) = dense.in_shape
    product = int(_row_sums(dense).max()) * x
    e = dense.weight_exp
    if e >= 0:
        return Sums(product, product << e)
    # Rounding down: one unit below, of each product where each is rounded.
    return Sums(product, (product >> -e) + (inputs if arithmetic.shifts_each else 1))


def _row_sums(dense: Mantissas) -> Array:
    """(outputs,) sums of the magnitudes of what enters each."""
    (outputs,), (inputs,) = dense.out_shape, dense.in_shape
    if isinstance(dense, Sparse):
        magnitudes = dense.csr.with_values(np.abs(dense.values.astype(np.int64)))
        return magnitudes.products(np.ones((1, inputs), np.int64))[0]
    reach = max(1, (1 << 22) // inputs)
    parts = (dense.rows(k, k + reach).astype(np.int64) for k in range(0, outputs, reach))
    return np.concatenate([np.abs(part).sum(axis=1) for part in parts])
