"""How values and spikes enter the integers: the names, scales and codes of what sends them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.graph.names import unused
from nervecord.compiler.ops import BiasChannel, Input, Normalise, Op, PopulationEncode, Quantise
from nervecord.compiler.plan.plan import Plan
from nervecord.errors import InfeasibleError

TOO_LARGE = "its values are too large for the chip's integers"
"""Of what enters, here and in the rule `graded-range`."""
INPUT_EXPONENTS = range(1, 11)
"""Encoder scales tried, as powers of two: integers per unit of what enters; more where its limit is below a half."""


@dataclass(frozen=True, slots=True)
class Entering:
    """How one entry of the float graph enters the integers.

    Args:
        name: of the entry in the float graph. op: the op there.
        limit: largest magnitude of real values; None for spikes.
        code: name of the node that sends, in the integer graph.
    """

    name: str
    op: Op
    limit: float | None
    code: str


def entering_of(plan: Plan, name: str, op: Op) -> Entering:
    """An entry of the float graph.

    Raises:
        InfeasibleError: it sends values without a limit.
    """
    if op.spikes:
        return Entering(name, op, None, name)
    limit = op.clip if isinstance(op, Normalise) else op.limit if isinstance(op, Input) else None
    if limit is None:
        raise InfeasibleError(
            "sends values without a limit, and integers need one",
            where=op.label if op.origin else name,
            hint="normalise with a clip, or declare the input's limit",
        )
    return Entering(name, op, limit, _code_name(plan, name, "quantise"))


def with_channel(plan: Plan, entry: Entering) -> Entering:
    """An entry that spikes and carries a bias. A population code has room for the channel itself, an Input has not."""
    if isinstance(entry.op, PopulationEncode):
        return entry
    return dataclasses.replace(entry, code=_code_name(plan, entry.name, "bias"))


def _code_name(plan: Plan, entry: str, kind: str) -> str:
    """A name that no node has, of what sends an entry's values."""
    return unused(kind if len(plan.entries) == 1 else f"{kind}.{entry}", plan.graph.nodes)


def coarsest(limit: float) -> float:
    """The coarsest scale that is tried for values up to a limit: the limit itself is an integer above 0."""
    return 2.0 ** max(INPUT_EXPONENTS.start, math.ceil(-math.log2(limit)))


def encoder_scales(entries: Sequence[Entering], arithmetic: Arithmetic) -> list[dict[str, float]]:
    """Entry -> integers per unit, of every choice that is tried, from the coarsest."""
    limits = {entry.name: entry.limit for entry in entries if entry.limit is not None}
    if not limits:
        return [{}]
    scales_seen: list[dict[str, float]] = []
    for step in range(len(INPUT_EXPONENTS)):
        scales = {}
        for name, limit in limits.items():
            least = coarsest(limit)
            scale = least * 2.0**step
            while limit * scale >= arithmetic.graded_limit + 1 and scale > least:
                scale /= 2  # this one's values would be too large: it stays at the finest scale it can have
            if limit * scale >= arithmetic.graded_limit + 1:
                raise InfeasibleError(
                    TOO_LARGE, where=name, hint=f"a clip or limit below {(arithmetic.graded_limit + 1) / 2:g}"
                )
            scales[name] = scale
        if not scales_seen or scales_seen[-1] != scales:
            scales_seen.append(scales)
    return scales_seen


def code_of(entry: Entering, scale: float | None, constant: int, arithmetic: Arithmetic) -> Op:
    """What sends an entry's values or spikes into the integers."""
    if isinstance(entry.op, PopulationEncode):
        return entry.op.replace(always=bool(constant))
    if entry.limit is None or scale is None:
        return BiasChannel(entry.op.size) if constant else entry.op
    most = min(int(np.rint(entry.limit * scale)), arithmetic.graded_limit)
    return Quantise(entry.op.size, scale, most, constant)


def always_on(op: Op) -> bool:
    """Whether what sends spikes has a channel that spikes in each of the T steps."""
    return isinstance(op, BiasChannel) or (isinstance(op, PopulationEncode) and op.always)


def bias_carrier(
    sources: Iterable[str], encoders: Collection[str], spiking: Collection[str], inputs: Collection[str]
) -> str | None:
    """Which of a population's sources carries its bias, where that takes a channel that is always on.

    Args:
        sources: what feeds it, in order. encoders: of the host. inputs: Inputs of spikes.
        spiking: neurons that spike at most once in a step and that nothing outside the core reads.

    Returns:
        An encoder, else such neurons, else an Input, beside which the host sends one more; None where there is none.
    """
    sources = tuple(sources)
    return next((name for group in (encoders, spiking, inputs) for name in sources if name in group), None)
