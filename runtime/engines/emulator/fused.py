"""The chains of host ops that the emulator's loop has a fast form of, recognised by their equations.

The chain is one normaliser, one encoder and one decoder; its numbers are read from the traced bodies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nervecord.compiler.ops import (
    ArgmaxDecode,
    Array,
    CountArgmaxDecode,
    CountDecode,
    Decode,
    HostOp,
    Input,
    Normalise,
    Op,
    PopulationEncode,
    Quantise,
)
from nervecord.compiler.ops.host import LARGEST_VALUE
from nervecord.compiler.plan.plan import Plan
from nervecord.runtime.session import neutral


@dataclass(frozen=True, slots=True)
class HostChain:
    """What the kernel takes of a chain.

    Args:
        mean, divisor: of the normaliser, (observations,). clip: its limit.
        scale, limit: of integers that the encoder makes; 0 where it makes spikes.
        centres: (channels, neurons) of a population code, else None. sigma: the width of its fields.
        appended: the number of one more channel; 0: none.
        weights: of the decoder, (actions, neurons). numbers: (4, actions) its offset, low, high, and the fail-safe
            action; a choice has an entry for each action to choose from, no limits, and its fail-safe in the first.
        counted: the decoder takes counts of spikes. chooses: it gives an index.
    """

    mean: Array
    divisor: Array
    clip: float
    scale: float
    limit: float
    centres: Array | None
    sigma: float
    appended: int
    weights: Array
    numbers: Array
    counted: bool
    chooses: bool


def host_chain(plan: Plan) -> HostChain | None:
    """What the kernel takes of the host's part of a plan; None where it has no fast form.

    The Input gives what it gets: the kernel neither clips values to a limit nor looks whether spikes are any. Where an
    observation is not finite the kernel takes the normaliser's mean.
    """
    if plan.contract is None or len(plan.before) != 3 or len(plan.after) != 2 or len(plan.reads) != 1:
        return None
    observed, normalise, encode, decode, _ = (step.op for step in (*plan.before, *plan.after))
    chained = all(
        [tap.source for tap in step.taps] == [before.name]
        for before, step in zip(plan.before, plan.before[1:], strict=False)
    )
    if not chained or [entry.name for entry in plan.entries] != [plan.before[-1].name] or len(plan.after[0].taps) != 1:
        return None
    if observed.spikes or not _is(observed, _INPUT) or not _is(normalise, _NORMALISE):
        return None
    sends = plan.step(plan.reads[0].source).op.sending
    decoders = [op for op in _DECODERS if _is(decode, op)]
    if not decoders or sends != (decoders[0].weights is not None):
        return None
    body, code = normalise.traced(None), encode.traced(None)
    clip = float(body.constant("high").item())
    if body.constant("low").item() != -clip or not np.array_equal(neutral(plan), body.constant("mean")):
        return None
    scale = limit = 0.0
    centres, sigma = None, 1.0
    if _is(encode, _QUANTISE, LARGEST_VALUE):
        scale, limit = float(code.constant("scale").item()), float(code.constant("high").item())
        if code.constant("low").item() != -limit:
            return None
    elif _is(encode, _ENCODE, 1):
        assert isinstance(encode, HostOp)
        centres, sigma = code.constant("mean").reshape(-1, encode.spread), float(code.constant("sigma").item())
        ends = ((code.constant(name), centres[:, k]) for name, k in (("first", 0), ("last", -1)))
        if any((end.reshape(centres.shape) != outermost[:, None]).any() for end, outermost in ends):
            return None
    else:
        return None
    assert isinstance(encode, HostOp)
    assert isinstance(decode, HostOp)
    weights, numbers = _decoder(decode, plan.contract.fail_safe)
    return HostChain(
        mean=body.constant("mean"),
        divisor=body.constant("divisor"),
        clip=clip,
        scale=scale,
        limit=limit,
        centres=centres,
        sigma=sigma,
        appended=encode.appended,
        weights=weights,
        numbers=numbers,
        counted=decode.weights is not None,
        chooses=decode.CHOOSES,
    )


def _decoder(decode: HostOp, fail_safe: Sequence[float]) -> tuple[Array, Array]:
    """Weights and numbers, as `HostChain` says."""
    body = decode.traced()
    names = {node.name for node in body.nodes if node.operation == "constant"}
    weights = decode.weights
    if weights is None:
        # The integers themselves are compared where they are chosen among.
        weights = body.constant("scale")[:, None] if "scale" in names else np.ones((decode.in_shape[0], 1))
    numbers = np.zeros((4, len(weights)))
    for row, name in enumerate(("offset", "low", "high")):
        if name in names:
            numbers[row] = body.constant(name)
    numbers[3, : len(fail_safe)] = fail_safe
    return weights, numbers


def _is(op: Op, template: HostOp, most: int = 0) -> bool:
    """Whether an op has the same stages and equations, whatever its named numbers are; it appends at most `most`."""
    return isinstance(op, HostOp) and 0 <= op.appended <= most and _form(op) == _form(template)


def _form(op: HostOp) -> tuple[object, ...]:
    bodies = [op.traced(), *([op.pulse_body] if op.PULSES else [])]
    constants = [(value, body.nodes[place].name) for body in bodies for place, value in body.values.items()]
    # Numbers without a name, a polynomial's among them, are in the kernel itself.
    numbers = [value.tobytes() for value, name in constants if not name]
    # Of the others the kernel takes some once and some for each value, as the op that it knows has them.
    each = op.in_shape[0] * op.spread if op.weights is None else len(op.weights)
    shapes = ["each" if value.shape == (each,) else value.shape for value, name in constants if name]
    return [body.structure for body in bodies], numbers, shapes, op.CHOOSES, op.weights is None, op.spread > 1


_ONE = np.ones(1)
_INPUT = Input((1,))
_NORMALISE = Normalise(_ONE, _ONE, 0.0, 1.0)
_QUANTISE = Quantise(1, 1.0, 1)
_ENCODE = PopulationEncode(np.array([[0.0, 1.0]]), 1.0)
_DECODERS: tuple[HostOp, ...] = (
    Decode(_ONE, _ONE, _ONE, _ONE),
    CountDecode(_ONE[:, None], _ONE, _ONE, _ONE),
    ArgmaxDecode(1),
    CountArgmaxDecode(_ONE[:, None], _ONE),
)
"""One of each op that the kernel has a form of."""
