"""What an arithmetic says of a target that computes by it.

A spec with a section [arithmetic] need not say the same again as behaviour and limits: what it leaves open is filled in
here, and what contradicts the arithmetic is refused. So the rules, which go by facts, and lowering, which goes by the
arithmetic, cannot part.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from nervecord.compiler.arithmetic import BOUNDS, Arithmetic
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.target.abilities import Adopting
from nervecord.compiler.target.protocol import Confidence, Fact, Target, TargetSpec
from nervecord.errors import FileFormatError

ABILITIES = ("bias", "graded_input", "readout", "recurrence")
"""A chip may have less of these than its arithmetic can: a fact that says "no" restricts, and contradicts nothing."""
FREE = ("message_bits",)
"""A chip's messages may be wider than the integers that are sent in them."""


def behaviour(a: Arithmetic) -> dict[str, Any]:
    """Behaviour that follows: fact -> value."""
    channel = "channel" if not a.bias_in_current else "native"
    return {
        "resets": ("value",) if not a.subtracts else ("subtract",),
        "nonzero_reset": False,
        "leak": "bias" if a.bias_bits else "no",
        "bias": a.bias_bits > 0,
        "current_bias": channel if a.bias_bits or not a.bias_in_current else "no",
        "per_neuron": (),
        "graded_input": a.graded_bits > 0,
        "readout": a.readout != "none",
        "recurrence": True,
        "free_wiring": False,
        "clears_buffers": False,
        "decays": "any" if not a.decays_by_shift else "shift",
    }


def limits(a: Arithmetic) -> dict[str, int]:
    """Limits that follow: fact -> number."""
    implied = {
        "weight_bits": a.weight_bits,
        "weight_min": a.weight_range(mixed=True)[0],
        "weight_max": max(a.weight_range(mixed=True)[1], a.weight_range(mixed=False)[1]),
        "state_bits": a.membrane_bits,
        "threshold_max": a.threshold_largest,
        "bias_bits": a.bias_bits,
        "message_bits": max(a.graded_bits, 1),
        "connection_delay": a.connection_delay,
        "delay_max": a.delay_max,
    }
    # A decay by shifts is no number of so many bits.
    return {**implied, "decay_bits": a.decay_bits} if not a.decays_by_shift else implied


def nodes(a: Arithmetic, source: str, confidence: Confidence) -> dict[str, Any]:
    """The table [nodes] that follows: what lowering makes the arithmetic's neurons and weights of."""
    neurons = ["LI", "LIF", "CubaLI", "CubaLIF"]
    return {
        "imported": ["Affine", "Delay", "I", "IF", *neurons],
        "discrete": ["Affine", *neurons],
        "integer": ["Dense", *neurons],
        "source": f"[arithmetic]: {source}",
        "confidence": _certain(confidence),
    }


def _certain(confidence: Confidence) -> Confidence:
    """That it is computed so is certain, however well the chip is known."""
    return "exact" if confidence == "unknown" else confidence


def with_implied(spec: TargetSpec) -> tuple[TargetSpec, list[str]]:
    """The spec with what follows from its arithmetic, where it was left open; and each fact that says something else
    than the arithmetic."""
    if spec.integers is None:
        return spec, []
    source, trust = spec.arithmetic_source, _certain(spec.arithmetic_confidence)
    changes: dict[str, Any] = {}
    wrong = []
    for section, follows in (("behaviour", behaviour(spec.integers)), ("limits", limits(spec.integers))):
        record = getattr(spec, section)
        filled = {}
        for name, value in follows.items():
            fact: Fact[Any] = getattr(record, name)
            if fact.value is None:
                filled[name] = Fact(value, f"[arithmetic]: {source}", trust)
            elif fact.value != value and name not in FREE and not (name in ABILITIES and fact.value is False):
                wrong.append(
                    f"{section}.{name}: says {fact}, and from [arithmetic] follows {Fact(value)} (leave the fact out, "
                    "or change the arithmetic)"
                )
        changes[section] = dataclasses.replace(record, **filled)
    return dataclasses.replace(spec, **changes), wrong


def with_arithmetic(spec: TargetSpec, arithmetic: Arithmetic) -> TargetSpec:
    """The spec with another arithmetic: what follows from that in place of what followed from its own."""
    opened: dict[str, Any] = {}
    for section, follows in (("behaviour", behaviour), ("limits", limits)):
        before = {} if spec.integers is None else follows(spec.integers)
        names = {**before, **follows(arithmetic)}
        opened[section] = dataclasses.replace(getattr(spec, section), **dict.fromkeys(names, Fact()))
    complete, wrong = with_implied(
        dataclasses.replace(
            spec,
            integers=arithmetic,
            arithmetic_source="the arithmetic that the program carries",
            arithmetic_confidence="exact",
            **opened,
        )
    )
    if wrong:
        raise FileFormatError("; ".join(wrong), where=spec.name)
    return complete


OVERRIDES = {"delay_max": "delay_max", "message_bits": "graded_bits"}
"""Limits that a user may set -> what of the arithmetic they are."""


def computes(spec: TargetSpec, graph: Graph) -> bool:
    """Whether a graph of integers is in this spec's arithmetic, or one that differs in limits which the graph keeps."""
    if graph.arithmetic is None or spec.integers is None:
        return False
    own = integers(spec)
    same = dataclasses.replace(graph.arithmetic, **{name: getattr(own, name) for name in OVERRIDES.values()}) == own
    return same and not any(True for op in graph.nodes.values() for _ in op.misfits(own))


def adopted(target: Target[Any], graph: Graph) -> Target[Any]:
    """The target with a graph's arithmetic as its own, where it takes integers of any; else as it is."""
    if isinstance(target, Adopting) and graph.arithmetic is not None and not computes(target.spec, graph):
        return target.adopting(graph.arithmetic)
    return target


def integers(spec: TargetSpec) -> Arithmetic:
    """The arithmetic of a spec, with the limits that the user gave in place of those that are not exact."""
    assert spec.integers is not None
    changes: dict[str, Any] = {}
    for limit, name in OVERRIDES.items():
        fact = getattr(spec.limits, limit)
        if limit in spec.overridden:
            changes[name] = int(min(fact.value, BOUNDS[name][1]))
    return dataclasses.replace(spec.integers, **changes)
