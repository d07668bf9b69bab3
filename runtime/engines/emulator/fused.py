"""The chains of host ops that the emulator's loop has a fast form of, and what it takes of their decoders."""

from __future__ import annotations

from typing import Any

import numpy as np

from nervecord.compiler.ops import (
    ArgmaxDecode,
    Array,
    CountArgmaxDecode,
    CountDecode,
    Decode,
    Input,
    Normalise,
    PopulationEncode,
    Quantise,
)
from nervecord.compiler.plan.plan import Plan


def fusable(plan: Plan) -> bool:
    """Whether the kernel does the host's part as well: one normaliser, one encoder, one decoder, in a chain.

    And an Input that gives what it gets: the kernel neither clips values to a limit nor looks whether spikes are any.
    """
    given = plan.before[0].op
    if not isinstance(given, Input) or given.spikes or given.limit is not None:
        return False
    kinds = [type(step.op) for step in plan.before[1:]]
    if plan.contract is None or kinds not in ([Normalise, Quantise], [Normalise, PopulationEncode]):
        return False
    chained = all(
        [tap.source for tap in step.taps] == [before.name]
        for before, step in zip(plan.before, plan.before[1:], strict=False)
    )
    if not chained or [entry.name for entry in plan.entries] != [plan.before[-1].name]:
        return False
    if len(plan.after) != 2 or len(plan.after[0].taps) != 1 or len(plan.reads) != 1:
        return False
    decode = plan.after[0].op
    population = plan.step(plan.reads[0].source).op
    counts = isinstance(decode, (CountDecode, CountArgmaxDecode))
    return isinstance(decode, (Decode, CountDecode, ArgmaxDecode, CountArgmaxDecode)) and population.sending == counts


def decoder_numbers(decode: Any, fail_safe: tuple[float, ...]) -> tuple[Array, Array]:
    """(actions, neurons) weights; (4, actions) offset, low, high, fail-safe.

    A choice has an entry for each action to choose from, no limits, and its fail-safe in the first.
    """
    if isinstance(decode, Decode):
        return decode.scale[:, None], np.array([decode.offset, decode.low, decode.high, fail_safe])
    if isinstance(decode, CountDecode):
        return decode.weight, np.array([decode.offset, decode.low, decode.high, fail_safe])
    fixed = np.zeros((4, decode.choices))
    fixed[3, 0] = fail_safe[0]
    if isinstance(decode, CountArgmaxDecode):
        fixed[0] = decode.offset
        return decode.weight, fixed
    # The integers themselves are compared.
    return np.ones((decode.choices, 1)), fixed
