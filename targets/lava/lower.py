"""A float policy to Loihi 2's integers, with the pipeline of Lava's Dense handled exactly.

Every Dense delivers one step late. In a policy whose state is cleared before each action, layer l (counted from 1)
therefore does its T useful steps at steps l .. l + T - 1 of a window of T + L, L being the number of connections. Its
neurons are cleared at step l (LIFReset with that offset), so whatever a bias or a synaptic current did before, while
the pipeline filled or drained, is gone when the first useful input arrives; and what layer l - 1 sends in its own T
useful steps is just what layer l receives in its. The result equals the delay-free network of the training, step for
step, with biases and synaptic currents, whatever stood in the Dense buffers. The readout is read in the window's last
step.

With carried state there is no window: the policy must have been trained with a delay of one step per connection.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.calibrate import Calibration
from nervecord.compiler.graph import Graph, Level, chain
from nervecord.compiler.interpret import Machine
from nervecord.compiler.layers import Layer, Stack, stack
from nervecord.compiler.node import Array, Node
from nervecord.compiler.quantise import (
    COARSE_THRESHOLD,
    FixedLayer,
    Incoming,
    Window,
    needs_constant,
    quantise_layer,
)
from nervecord.compiler.verify import require
from nervecord.errors import InfeasibleError

INPUT_EXPONENTS = range(1, 11)
"""Encoder scales tried, as powers of two: integers per unit of the normalised observation."""
SEARCH_OBSERVATIONS = 256
"""Recorded observations that choose the encoder's scale."""
MANY_CHOICES = 0.01
"""Above this share of observations on which integers choose another action than float: a warning."""
PAYLOAD_BITS = 16
"""Graded spikes stay within this many bits, sign included."""


def lower(
    graph: Graph, calibration: Calibration, *, weight_bits: int = 8, whole: bool = False
) -> tuple[Graph, dict[str, Any]]:
    """DISCRETE policy -> INTEGER policy and what it cost.

    The encoder's scale is the one of `INPUT_EXPONENTS` with the smallest error of the action over recorded
    observations, or of what the choice of an action is made from; all other scales follow from the proof of their
    ranges. A population code has no scale: its spikes enter as they are.

    Args:
        graph: a DISCRETE policy.
        calibration: its behaviour on recorded observations.
        weight_bits: 2..8.
        whole: weights without an exponent that cuts bits off and biases in whole units, as netx needs.

    Returns:
        The INTEGER graph, its contract's latency set; and a report of plain JSON types: "layers" (range, step and error
        of each), "input_scale" and "input_limit" (None behind a population code), "bias_channel", "action_error_rms"
        and "action_error_max" against float on the recorded observations (free-running where state is carried),
        "warnings". Where the action is a choice, instead of the action's error what `choice_report` gives.

    Raises:
        InfeasibleError: the policy cannot be expressed or its ranges cannot be proved.
    """
    if not 2 <= weight_bits <= 8:
        raise InfeasibleError(f"{weight_bits} weight bits lie outside 2..8", where="weight_bits")
    parts = stack(graph)
    _require_pipeline(graph, parts)
    chosen: tuple[float, Graph, list[FixedLayer]] | None = None
    refused: InfeasibleError | None = None
    rows = _spread(len(calibration.observations), SEARCH_OBSERVATIONS, carried=_carried(graph))
    for encoder in _encoders(parts):
        try:
            candidate, layers = _quantise(graph, parts, encoder, weight_bits, whole)
        except InfeasibleError as error:
            refused = refused or error  # the coarsest scale's reason is the one that no scale mends
            continue
        error_rms = search_error(candidate, calibration, rows)
        if chosen is None or error_rms < chosen[0]:
            chosen = (error_rms, candidate, layers)
    if chosen is None:
        assert refused is not None
        raise refused
    _, lowered, layers = chosen
    return require(lowered, Level.INTEGER), _report(lowered, layers, calibration)


def search_error(graph: Graph, calibration: Calibration, rows: Array) -> float:
    """What the encoder's scale is chosen by: rms error of the action, or of the preferences where it is a choice."""
    actions, preferences = _answers(graph, calibration.observations[rows])
    if calibration.preferences is None:
        return _errors(actions - calibration.actions[rows])[0]
    assert preferences is not None
    return _errors(preferences - calibration.preferences[rows])[0]


def _answers(graph: Graph, observations: Array) -> tuple[Array, Array | None]:
    """Actions of the integer policy, and where they are choices (k, choices) what it held of each."""
    rows = observations[:, None, :] if _carried(graph) else observations[None]
    machine = Machine(graph, rows.shape[1])
    chooses = graph.contract is not None and bool(graph.contract.choices)
    actions, preferences = [], []
    for row in rows:
        actions.append(machine.window(row)[0])
        if chooses:
            preferences.append(machine.host.preferences(machine.left))
    return np.concatenate(actions), np.concatenate(preferences) if chooses else None


def _errors(difference: Array) -> tuple[float, float]:
    return float(np.sqrt(np.mean(difference**2))), float(np.abs(difference).max())


def choice_report(preferred: Array, chosen: Array, held: Array) -> dict[str, Any]:
    """What integers did to a choice of actions, on recorded observations.

    Args:
        preferred: (k, choices) preferences of the float policy. held: of the integer one, in the same units.
        chosen: (k, 1) actions of the integer policy.

    Returns:
        "choices_different": observations on which it chose another action than float; "choice_margin_max": the largest
        lead, in the float policy, of an action that lost (0 where none did); "choice_ties": observations on which
        several integers were the largest, so that the rule of the first decided; "preference_error_rms" and
        "preference_error_max", in the float policy's units.
    """
    taken = np.take_along_axis(preferred, chosen.astype(np.int64), axis=1)[:, 0]
    lead = preferred.max(axis=1) - taken
    different = preferred.argmax(axis=1) != chosen[:, 0]
    rms, largest = _errors(held - preferred)
    return {
        "choices_different": int(np.count_nonzero(different)),
        "choice_margin_max": float(lead.max()),
        "choice_ties": int(np.count_nonzero((held == held.max(axis=1, keepdims=True)).sum(axis=1) > 1)),
        "preference_error_rms": rms,
        "preference_error_max": largest,
    }


def _carried(graph: Graph) -> bool:
    return graph.contract is not None and graph.contract.state == "carried"


def _spread(available: int, wanted: int, *, carried: bool) -> Array:
    """Row numbers: spread over all, or the first ones where they must follow one another."""
    count = min(available, wanted)
    return np.arange(count) if carried else np.unique(np.linspace(0, available - 1, count).astype(np.int64))


def _require_pipeline(graph: Graph, parts: Stack) -> None:
    for layer in parts.layers:
        where = layer.affine_origin[0]
        if _carried(graph) and layer.delay != 1:
            raise InfeasibleError(
                f"state is carried and this connection has a delay of {layer.delay} steps, the chip's is 1",
                where=where,
                hint="train with --state carried --delays, or with --state reset",
            )
        if not _carried(graph) and layer.delay != 0:
            raise InfeasibleError(
                "state is cleared before each action and this connection has a delay",
                where=where,
                hint="train without --delays: reset windows staggered by layer absorb the chip's delay exactly",
            )


def _encoders(parts: Stack) -> Iterator[tuple[str, Node, Incoming]]:
    """What may stand between Normalise and the core: name, node, and what it sends there."""
    normalise, first = parts.normalise[1], parts.layers[0]
    if parts.encode is not None:
        name, code = parts.encode
        always = needs_constant(first)
        yield name, dataclasses.replace(code, always=always), _spikes(code.mean.size + int(always), always)
        return
    size = normalise.in_shape[0]
    for exponent in INPUT_EXPONENTS:
        scale = 2.0**exponent
        if normalise.clip * scale >= 1 << (PAYLOAD_BITS - 1):
            return
        limit = int(np.rint(normalise.clip * scale))
        constant = _constant(first, scale) if needs_constant(first) else 0
        low, high = np.full(size, -limit, dtype=np.int64), np.full(size, limit, dtype=np.int64)
        if constant:
            low, high = np.append(low, 0), np.append(high, constant)
        incoming = Incoming(low, high, scale, graded=True, constant=constant)
        yield "quantise", n.Quantise(size, scale, limit, constant), incoming


def _spikes(count: int, constant: bool) -> Incoming:
    low, high = np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.int64)
    return Incoming(low, high, 1.0, graded=False, constant=int(constant))


def _quantise(
    graph: Graph, parts: Stack, encoder: tuple[str, Node, Incoming], weight_bits: int, whole: bool
) -> tuple[Graph, list[FixedLayer]]:
    assert graph.contract is not None
    carried = _carried(graph)
    depth = len(parts.layers)
    name, encode, incoming = encoder
    nodes: list[tuple[str, Node]] = [
        (graph.inputs[0], graph.nodes[graph.inputs[0]]),
        parts.normalise,
        (name, encode),
    ]
    fixed: list[FixedLayer] = []
    for k, layer in enumerate(parts.layers, start=1):
        window = Window(0, 0) if carried else Window(graph.contract.steps + depth, k)
        following = parts.layers[k] if k < depth else None
        drive = following is not None and needs_constant(following)
        done = quantise_layer(layer, incoming, window, weight_bits=weight_bits, drive_next=drive, whole=whole)
        fixed.append(done)
        nodes += [(layer.affine, done.dense), (layer.neuron, done.neuron)]
        incoming = _spikes(done.neuron.in_shape[0], drive)
    decode_name, decode = parts.decode
    if isinstance(decode, n.Decode):
        decode = dataclasses.replace(decode, scale=decode.scale / fixed[-1].scale)
    elif isinstance(decode, n.ArgmaxDecode):
        # The readout has one scale for all actions, so their order stays; what a unit is worth is kept for reports.
        decode = dataclasses.replace(decode, scale=float(decode.scale / fixed[-1].scale))
    nodes += [(decode_name, decode), (graph.outputs[0], graph.nodes[graph.outputs[0]])]
    contract = dataclasses.replace(graph.contract, latency=0 if carried else depth)
    lowered = chain(Level.INTEGER, nodes, dt=graph.dt, contract=contract)
    return lowered, fixed


def _constant(layer: Layer, input_scale: float) -> int:
    """Value of the bias channel: the power of two with which the largest bias is no larger than the largest weight."""
    ratio = float(np.abs(layer.current_bias).max()) * input_scale / max(float(np.abs(layer.weight).max()), 1e-30)
    return int(2 ** np.ceil(np.log2(max(ratio, 1.0))))


def _report(lowered: Graph, layers: Sequence[FixedLayer], calibration: Calibration) -> dict[str, Any]:
    actions, preferences = _answers(lowered, calibration.observations)
    if preferences is None or calibration.preferences is None:
        rms, largest = _errors(actions - calibration.actions)
        error: dict[str, Any] = {"action_error_rms": rms, "action_error_max": largest}
    else:
        error = choice_report(calibration.preferences, actions, preferences)
    (encoder,) = (node for _, node in lowered.of_type(n.Quantise, n.PopulationEncode))
    quantiser = encoder if isinstance(encoder, n.Quantise) else None
    channel = quantiser.constant if quantiser else int(encoder.always)  # type: ignore[attr-defined]
    warnings = [
        f"{layer.report.layer}: the threshold is only {layer.report.threshold} units, so rounding is coarse"
        for layer in layers
        if layer.report.threshold is not None and layer.report.threshold < COARSE_THRESHOLD
    ]
    if _carried(lowered) and channel:
        warnings.append("the bias channel starts one step late at an episode's first step")
    if (changed := error.get("choices_different", 0)) > MANY_CHOICES * len(calibration.observations):
        warnings.append(f"on {changed} of {len(calibration.observations)} observations another action is chosen")
    return {
        "input_scale": quantiser.scale if quantiser else None,
        "input_limit": quantiser.limit if quantiser else None,
        "bias_channel": channel,
        "layers": [layer.report.to_dict() for layer in layers],
        **error,
        "observations": len(calibration.observations),
        "observations_clipped": calibration.saturated,
        "warnings": warnings,
    }
