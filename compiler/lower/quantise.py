"""One float layer to Loihi's integers: scales, rounding, and the proof that they fit.

A real current of 1 becomes S = weight_scale * input_scale * 2^weight_exp accumulator units. The weight exponent is the
largest with which every range is proved (`compiler.ranges`); then the weight scale is lowered by less than one unit of
the threshold, so that the threshold itself is exact.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler import ranges, semantics
from nervecord.compiler.findings import raise_on_errors
from nervecord.compiler.layers import Layer
from nervecord.compiler.node import Array
from nervecord.errors import InfeasibleError

WEIGHT_LIMIT = 254
"""Largest mixed-sign mantissa; all below are even."""
BIAS_LIMIT = 4095
BIAS_EXPONENTS = range(8)
WEIGHT_EXPONENTS = range(0, -9, -1)
"""Tried from the finest. Positive ones would only add zeros below weights that are integers already."""
THRESHOLD_LIMIT = 131071
COARSE_THRESHOLD = 32
"""Below so many units per threshold the accumulator's rounding is felt: a warning, not an error."""


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What quantising did to one layer.

    Args:
        layer: the neurons' name.
        weight_scale: integers per real weight. weight_exp, weight_bits: of the connection.
        unit: real current of one accumulator unit: the step of the arithmetic.
        threshold: its mantissa; None for a readout.
        weight_error_max, weight_error_rms: in units of the largest weight.
        decay_error, bias_error_max: absolute.
        accumulator, accumulator_limit: proved bound and what the arithmetic holds.
        membrane_low, membrane_high, membrane_limit: the same of v, in threshold units.
    """

    layer: str
    weight_scale: float
    weight_exp: int
    weight_bits: int
    unit: float
    threshold: int | None
    weight_error_max: float
    weight_error_rms: float
    decay_error: float
    bias_error_max: float
    accumulator: int
    accumulator_limit: int
    membrane_low: float
    membrane_high: float
    membrane_limit: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Incoming:
    """What reaches a layer: integers low..high per channel, `scale` of them to a real 1.

    `constant`: value of a last, extra channel that is on in every useful step, 0 where there is none. The layer's
    current bias comes through it.
    """

    low: Array
    high: Array
    scale: float
    graded: bool
    constant: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """The reset window of a layer's neurons: interval 0 for carried state."""

    interval: int
    offset: int


@dataclass(frozen=True, slots=True)
class FixedLayer:
    """A layer in integers. scale: membrane units (v) per real 1."""

    dense: n.FixedDense
    neuron: n.FixedLIF | n.FixedReadout
    scale: float
    report: LayerReport


def needs_constant(layer: Layer) -> bool:
    """Whether the layer's bias enters the synaptic current, which the chip's own bias does not."""
    return bool((layer.current_bias != 0).any())


def quantise_layer(
    layer: Layer,
    incoming: Incoming,
    window: Window,
    *,
    weight_bits: int = 8,
    drive_next: bool = False,
    whole: bool = False,
) -> FixedLayer:
    """Find the finest scales that are proved to fit.

    Args:
        layer: in normal form, one decay and threshold for the whole population.
        incoming: what reaches it.
        window: when its neurons are cleared.
        weight_bits: of the weights' mantissa, 1..8.
        drive_next: add one neuron that spikes in every step: the next layer's constant channel.
        whole: no exponent may cut bits off: coarser weights instead, and biases in whole units.

    Raises:
        InfeasibleError: no scale fits; the message lists what overflows at the coarsest one.
    """
    finest_step = 1 << (8 - weight_bits + 1)
    largest = max(float(np.abs(layer.weight).max()), 1e-30)
    if needs_constant(layer):
        # The bias is a weight too, from a channel whose value is chosen by the caller.
        largest = max(largest, float(np.abs(layer.current_bias).max()) * incoming.scale / abs(incoming.constant))
    findings = []
    for weight_exp in WEIGHT_EXPONENTS:
        step = max(finest_step, 1 << -weight_exp) if whole else finest_step
        finest = weight_scale = (WEIGHT_LIMIT // step * step) / largest
        if finest == 0:
            break
        threshold = _threshold(layer)
        if threshold is not None:
            units = threshold * finest * incoming.scale * 2.0**weight_exp
            if units < 1:
                break
            if units > THRESHOLD_LIMIT:
                continue
            weight_scale = finest * math.floor(units) / units
        fixed = _with_scale(layer, incoming, window, weight_scale, weight_exp, step, weight_bits, drive_next, whole)
        if fixed is None:
            continue
        low, high = incoming.low, incoming.high
        proved = ranges.layer_range(layer.affine, fixed[0], layer.neuron, fixed[1], low, high)
        findings = ranges.check([proved])
        if not findings:
            return _finish(layer, incoming, *fixed, weight_scale, proved, whole)
    raise_on_errors(findings, InfeasibleError, where=layer.neuron_origin[0])
    raise InfeasibleError(
        "no weight exponent gives both a threshold of at least one unit and a bias that fits",
        where=layer.neuron_origin[0],
        hint="weights, threshold and bias of this layer lie too far apart; train with weight decay",
    )


def common(values: Array, what: str, layer: Layer, grid: float) -> float:
    """The one value of a population.

    Raises:
        InfeasibleError: they differ by more than `grid`, the step the chip could tell apart.
    """
    if float(values.max() - values.min()) > grid:
        raise InfeasibleError(
            f"{what} differs within the population ({values.min():.6g} to {values.max():.6g})",
            where=layer.neuron_origin[0],
            hint="the chip has one per population: split the layer, or train one decay and threshold per layer",
        )
    return float(values.mean())


def decay_code(decay: float) -> int:
    """dv (or du + 1) of a decay factor: 4096 * (1 - decay), rounded, 0..4095."""
    return int(np.clip(np.rint(semantics.DECAY_ONE * (1.0 - decay)), 0, semantics.DECAY_ONE - 1))


def _lost(weight_exp: int, interval: int, whole: bool) -> float:
    """Accumulator units that a negative exponent cuts off on average, which the bias gives back in a reset window."""
    return 0.0 if whole or not interval else 0.5 * (1.0 - 2.0**weight_exp)


def _threshold(layer: Layer) -> float | None:
    if layer.threshold is None:
        return None
    return common(layer.threshold, "threshold", layer, 1e-9 * float(np.abs(layer.threshold).max()))


def _with_scale(
    layer: Layer,
    incoming: Incoming,
    window: Window,
    weight_scale: float,
    weight_exp: int,
    step: int,
    weight_bits: int,
    drive_next: bool,
    whole: bool,
) -> tuple[n.FixedDense, n.FixedLIF | n.FixedReadout] | None:
    """The integer nodes of these scales; None where a bias does not fit its 13 bits and exponent."""
    unit = weight_scale * incoming.scale * 2.0**weight_exp
    weight = layer.weight * weight_scale
    if incoming.constant:
        column = layer.current_bias * weight_scale * incoming.scale / incoming.constant
        weight = np.concatenate([weight, column[:, None]], axis=1)
    weight = np.clip(np.rint(weight / step) * step, -256 // step * step, WEIGHT_LIMIT // step * step)
    # a >> k rounds down: on average (1 - 2^-k) / 2 of a unit is lost at each step.
    lost = _lost(weight_exp, window.interval, whole)
    bias = (layer.bias * unit + lost) * (1 << semantics.MANTISSA_SHIFT)
    threshold = _threshold(layer)
    mantissa = None if threshold is None else int(np.rint(threshold * unit))
    if drive_next:
        assert mantissa is not None
        weight = np.concatenate([weight, np.zeros((1, weight.shape[1]))])
        bias = np.append(bias, ((mantissa + 1) << semantics.MANTISSA_SHIFT) + 1)
    exponents = (semantics.MANTISSA_SHIFT,) if whole else BIAS_EXPONENTS
    bias_exp = next((e for e in exponents if np.abs(np.rint(bias / (1 << e))).max() <= BIAS_LIMIT), None)
    if bias_exp is None:
        return None
    decay = decay_code(common(layer.decay, "decay", layer, 1 / semantics.DECAY_ONE))
    if layer.current_decay is None:
        du = semantics.DECAY_ONE - 1
    else:
        du = max(decay_code(common(layer.current_decay, "current decay", layer, 1 / semantics.DECAY_ONE)) - 1, 0)
    shared: dict[str, Any] = {
        "du": du,
        "dv": decay,
        "bias_mant": np.rint(bias / (1 << bias_exp)).astype(np.int32),
        "bias_exp": bias_exp,
        "reset_interval": window.interval,
        "reset_offset": window.offset,
        "origin": layer.neuron_origin,
    }
    dense = n.FixedDense(
        weight=weight.astype(np.int32),
        weight_exp=weight_exp,
        weight_bits=weight_bits,
        graded=incoming.graded,
        origin=layer.affine_origin,
    )
    if mantissa is None:
        return dense, n.FixedReadout(**shared)
    return dense, n.FixedLIF(threshold=mantissa, **shared)


def _finish(
    layer: Layer,
    incoming: Incoming,
    dense: n.FixedDense,
    neuron: n.FixedLIF | n.FixedReadout,
    weight_scale: float,
    proved: ranges.LayerRange,
    whole: bool,
) -> FixedLayer:
    unit = weight_scale * incoming.scale * 2.0**dense.weight_exp
    size = layer.size
    error = dense.weight[:size, : layer.weight.shape[1]] / weight_scale - layer.weight
    largest = max(float(np.abs(layer.weight).max()), 1e-30)
    one = 1 << semantics.MANTISSA_SHIFT
    bias = (neuron.bias_mant[:size].astype(np.int64) << neuron.bias_exp) / (unit * one)
    lost = _lost(dense.weight_exp, neuron.reset_interval, whole) / unit
    assert proved.membrane is not None
    report = LayerReport(
        layer=layer.neuron,
        weight_scale=weight_scale,
        weight_exp=dense.weight_exp,
        weight_bits=dense.weight_bits,
        unit=1.0 / unit,
        threshold=neuron.threshold if isinstance(neuron, n.FixedLIF) else None,
        weight_error_max=float(np.abs(error).max()) / largest,
        weight_error_rms=float(np.sqrt(np.mean(error**2))) / largest,
        decay_error=float(np.abs((semantics.DECAY_ONE - neuron.dv) / semantics.DECAY_ONE - layer.decay).max()),
        bias_error_max=float(np.abs(bias - lost - layer.bias).max()),
        accumulator=proved.accumulator,
        accumulator_limit=ranges.ACCUMULATOR_LIMIT - 1,
        membrane_low=proved.membrane[0] / one,
        membrane_high=proved.membrane[1] / one,
        membrane_limit=semantics.V_LIMIT // one,
    )
    return FixedLayer(dense=dense, neuron=neuron, scale=unit * one, report=report)
