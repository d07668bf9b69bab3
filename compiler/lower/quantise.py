"""One population and its links to integers: scales, rounding, and the proof that they fit.

All links of a population share one accumulator, so they have one unit: a real current of 1 becomes

    S = weight_scale * input_scale * 2^weight_exp

accumulator units on every one of them. S is the largest with which every range is proved (`compiler.lower.ranges`);
then it is lowered by less than one unit of the threshold, so that the threshold itself is exact.

A link that is the rest of another (`compiler.lower.slices`) has the same unit below a smaller exponent. Its mantissas
stand for the weights that fit them, which the other leaves out, and for what rounding left of the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.findings import Finding, raise_on_errors
from nervecord.compiler.lower import ranges
from nervecord.compiler.lower.normal import Link, Population
from nervecord.compiler.lower.reports import SMALLEST, PopulationReport, link_reports
from nervecord.compiler.lower.slices import rest_exponent
from nervecord.compiler.ops import (
    Array,
    Csr,
    Dense,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Mantissas,
    Neuron,
    Sparse,
)
from nervecord.compiler.ops.fields import LARGEST_INTEGER
from nervecord.compiler.ops.reach import Sent
from nervecord.errors import InfeasibleError

LEAST_UNIT = 1e-280
"""Accumulator units per real 1 that scales are not taken below: what is computed with them would leave float64."""
COARSE_THRESHOLD = 32
"""Below so many units per threshold the accumulator's rounding is felt: a warning, not an error."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """What a link's source sends: integers low..high per channel, `scale` of them to a real 1.

    `constant`: value of a last, extra channel that is on in every useful step, 0 where there is none. `carries`: the
    population's current bias comes through that channel of this link.
    """

    low: Array
    high: Array
    scale: float
    constant: int = 0
    carries: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """How to quantise.

    Args:
        arithmetic: of the target. weight_bits: of mantissas.
        interval: steps between two clearings of the state; 0 where it is carried.
        whole: no exponent may cut bits off: coarser weights instead, and biases in whole units.
        rest_bits: most bits by which a rest is finer than its link; None for all there is room for.
    """

    arithmetic: Arithmetic
    weight_bits: int
    interval: int
    whole: bool = False
    rest_bits: int | None = None


@dataclass(frozen=True, slots=True)
class Quantised:
    """A population in integers.

    Args:
        links: by name; without rests that are all zero.
        scale: membrane units (v) per real 1.
    """

    links: dict[str, Dense | Sparse]
    neuron: Neuron
    scale: float
    report: PopulationReport
    warnings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class _Scales:
    """Per link, integers per real weight and exponent; unit: accumulator units per real 1.

    passed_over: the threshold is beyond its largest mantissa, and a smaller exponent is to be tried.
    """

    weight_scale: tuple[float, ...]
    weight_exp: tuple[int, ...]
    step: tuple[int, ...]
    unit: float
    passed_over: bool = False


def quantise(
    population: Population,
    incoming: Sequence[Incoming],
    waits: Sequence[int],
    settings: Settings,
    *,
    drives: bool = False,
    cap: float | None = None,
) -> Quantised:
    """Find the finest scales that are proved to fit.

    Args:
        population: in normal form, one decay and threshold for all its neurons.
        incoming: of each link. waits: steps each link's connection takes.
        drives: add one neuron that spikes in every step: a bias channel for what it feeds.
        cap: largest unit allowed, for readouts that share a decoder.

    Raises:
        InfeasibleError: no scale fits; the message lists what overflows at the coarsest one.
    """
    a = settings.arithmetic
    reach = _real_reach(population, incoming)
    findings: list[Finding] = []
    saturating: Quantised | None = None
    # Weights coarser than a unit of the accumulator are worth it only where a rest makes up for them.
    highest = a.weight_exponent_high if any(link.rest_of for link in population.links) else 0
    for exponent in range(highest, a.weight_exponent_low - 1, -1):
        scales = _scales(population, incoming, exponent, settings, cap)
        if scales is None:
            break
        if scales.passed_over:
            continue
        if exponent > a.weight_exponent_low and _surely_too_large(scales, reach, incoming, a):
            continue
        parts = _with_scales(population, incoming, waits, scales, settings, drives)
        if parts is None:
            continue
        links, neuron = parts
        proved = _prove(population, links, neuron, incoming, settings)
        if reach and not proved.accumulator:
            continue  # the exponent cuts off all that enters
        findings = ranges.overflows([proved], a)
        if any(finding.severity == "error" for finding in findings):
            continue
        if findings and saturating is not None:
            continue
        report = _report(population, scales, links, neuron, proved, settings)
        scale = scales.unit * (1 << a.input_shift)
        quantised = Quantised(links, neuron, scale, report, tuple(findings))
        if not findings:
            return quantised
        # It may saturate, which is exact; a coarser unit that does not is better.
        saturating = quantised
    if saturating is not None:
        return saturating
    raise_on_errors(findings, InfeasibleError, where=population.label)
    raise InfeasibleError(
        "no weight exponent gives both a threshold of at least one unit and a bias that fits",
        where=population.label,
        hint="weights, threshold and bias of this layer lie too far apart; train with weight decay",
    )


def common(values: Array, what: str, population: Population, grid: float) -> float:
    """The one value of a population.

    Raises:
        InfeasibleError: they differ by more than `grid`, the step the chip could tell apart.
    """
    if float(values.max() - values.min()) > grid:
        raise InfeasibleError(
            f"{what} differs within the population ({values.min():.6g} to {values.max():.6g})",
            where=population.label,
            hint="the chip has one per population: split the layer, or train one decay and threshold per layer",
        )
    return float(values.mean())


def _largest(population: Population, link: Link, source: Incoming) -> float:
    largest = max(float(np.abs(link.stored).max()), SMALLEST)
    if source.carries:
        # The bias is a weight too, from a channel whose value is chosen by the caller.
        bias = float(np.abs(population.current_bias).max()) * source.scale / abs(source.constant)
        largest = max(largest, bias)
    return largest


def _threshold(population: Population) -> float | None:
    if population.threshold is None:
        return None
    return common(population.threshold, "threshold", population, 1e-9 * float(np.abs(population.threshold).max()))


def _scales(
    population: Population, incoming: Sequence[Incoming], exponent: int, settings: Settings, cap: float | None
) -> _Scales | None:
    """Scales in which the link that limits the unit has this exponent; None where there is nothing left to try."""
    a = settings.arithmetic
    finest_step = a.weight_step(settings.weight_bits, mixed=True)
    steps = [max(finest_step, 1 << -exponent) if settings.whole else finest_step] * len(incoming)
    finest = [
        math.inf if link.rest_of else (a.weight_largest // step * step) / _largest(population, link, source)
        for link, source, step in zip(population.links, incoming, steps, strict=True)
    ]
    if 0 in finest:
        return None
    units = [f * source.scale * 2.0**exponent for f, source in zip(finest, incoming, strict=True)]
    first = min(range(len(units)), key=units.__getitem__)
    limit, base = units[first], finest[first]
    if limit < LEAST_UNIT:
        return None
    passed_over = False
    if cap is not None and limit > cap:
        # With rests the exponent starts high: below it the same unit has mantissas that fill their range.
        has_rests = any(link.rest_of for link in population.links)
        passed_over = has_rests and limit >= 2 * cap and exponent > a.weight_exponent_low
        base, limit = base * cap / limit, cap
    own, shrink = base, 1.0
    threshold = _threshold(population)
    if threshold is not None:
        threshold_units = threshold * base * incoming[first].scale * 2.0**exponent
        threshold_units *= 2.0 ** (a.input_shift - a.threshold_shift)
        if threshold_units < 1:
            return None
        # No membrane comes to a threshold beyond the largest that there is.
        highest = (a.membrane_range[1] - (not a.fires_at_level)) >> a.threshold_shift
        top = min(a.threshold_largest, LARGEST_INTEGER - 1, highest) - a.fires_at_level
        passed_over |= threshold_units > top and exponent > a.weight_exponent_low
        whole = top if threshold_units > top else math.floor(threshold_units)
        own, shrink = base * (whole / threshold_units), whole / threshold_units
    weight_scale, exponents = [own] * len(incoming), [exponent] * len(incoming)
    for k, source in enumerate(incoming):
        if k == first:
            continue
        rest_of = population.links[k].rest_of
        if rest_of is not None:
            of = next(j for j, link in enumerate(population.links) if link.name == rest_of)
            exponents[k] = rest_exponent(a, exponents[of], steps[k], settings.rest_bits)
        elif not settings.whole:
            # The others have room: finer mantissas below a smaller exponent, the same unit.
            down = exponent - max(math.floor(math.log2(min(units[k] / limit, 2.0**64))), 0)
            exponents[k] = max(down, a.weight_exponent_low)
        weight_scale[k] = limit / (source.scale * 2.0 ** exponents[k]) * shrink
    unit = own * incoming[first].scale * 2.0**exponent
    if unit < LEAST_UNIT:
        return None
    return _Scales(tuple(weight_scale), tuple(exponents), tuple(steps), unit, passed_over)


def _real_reach(population: Population, incoming: Sequence[Incoming]) -> float:
    """Largest magnitude of the real current that can enter a neuron, bias channels left out."""
    high = low = np.zeros(population.size)
    for link, source in zip(population.links, incoming, strict=True):
        if link.rest_of is not None:
            continue
        width = link.weight.shape[1]
        least = np.minimum(source.low[:width], 0) / source.scale
        most = np.maximum(source.high[:width], 0) / source.scale
        upward = link.times(most - least, positive=True)
        high, low = high + link.times(least) + upward, low + link.times(most) - upward
    return float(max(high.max(), -low.min()))


def _surely_too_large(scales: _Scales, reach: float, incoming: Sequence[Incoming], arithmetic: Arithmetic) -> bool:
    """Whether the accumulator overflows whatever the rounding of weights does: then no proof need be tried."""
    slack = 1.0
    for exp, step, source in zip(scales.weight_exp, scales.step, incoming, strict=True):
        magnitude = np.maximum(np.abs(source.low), np.abs(source.high)).sum(dtype=np.float64)
        slack += float(magnitude) * (step / 2) * 2.0**exp + 1
    return reach * scales.unit - slack > arithmetic.accumulator_limit


def _with_scales(
    population: Population,
    incoming: Sequence[Incoming],
    waits: Sequence[int],
    scales: _Scales,
    settings: Settings,
    drives: bool,
) -> tuple[dict[str, Dense | Sparse], Neuron] | None:
    """The integer ops of these scales; None where a bias does not fit its mantissa and exponent."""
    a = settings.arithmetic
    mantissas_of: dict[str, Dense | Sparse] = {}
    for k, (link, source) in enumerate(zip(population.links, incoming, strict=True)):
        coarse = mantissas_of.get(link.rest_of or "")
        mantissas = _mantissas(population, link, source, waits[k], scales, k, settings, drives, coarse)
        if link.rest_of is None or mantissas.stored.any():
            mantissas_of[link.name] = mantissas
    threshold = _threshold(population)
    spike = None
    if threshold is not None:
        # Float spikes are above their threshold, strictly.
        exact = int(np.rint(threshold * scales.unit * 2.0 ** (a.input_shift - a.threshold_shift)))
        spike = IntegerSpike(exact + (1 if a.fires_at_level and a.threshold_shift == 0 else 0))
    with np.errstate(over="ignore"):  # what is beyond float64 fits no mantissa
        bias = (population.bias * scales.unit + _lost(mantissas_of, settings, population.size)) * (1 << a.input_shift)
        if a.bias_in_current and population.current_decay is not None:
            bias = population.current_bias * scales.unit * (1 << a.input_shift)
    if drives:
        assert spike is not None
        bias = np.append(bias, ((spike.threshold + 1) << a.threshold_shift) + 1)
    exponents = (a.input_shift,) if settings.whole else range(a.bias_exponent_high + 1)
    fitting = ((e, _bias_mantissas(bias, e, drives)) for e in exponents)
    bias_exp, bias_mantissas = next(((e, m) for e, m in fitting if np.abs(m).max() <= a.bias_range[1]), (None, bias))
    if bias_exp is None:
        return None
    grid = 1 / a.decay_codes if not a.decays_by_shift else 1e-9
    membrane = IntegerMembrane(
        a.decay_code(common(population.decay, "decay", population, grid)), bias_mantissas.astype(np.int32), bias_exp
    )
    synapse = None
    if population.current_decay is not None:
        keep = common(population.current_decay, "current decay", population, grid)
        synapse = IntegerSynapse(a.decay_code(keep, current=True))
    return mantissas_of, Neuron(membrane, synapse, spike, origin=population.origin)


def _bias_mantissas(bias: Array, exponent: int, drives: bool) -> Array:
    """Rounded; that of the neuron that drives up, as below its threshold it would be silent."""
    mantissas = np.rint(bias / (1 << exponent))
    if drives:
        mantissas[-1] = np.ceil(bias[-1] / (1 << exponent))
    return mantissas


def _mantissas(
    population: Population,
    link: Link,
    source: Incoming,
    wait: int,
    scales: _Scales,
    k: int,
    settings: Settings,
    drives: bool,
    coarse: Dense | Sparse | None,
) -> Dense | Sparse:
    """A link in mantissas: the channel of a bias is one more column, the neuron that drives one more row.

    Args:
        coarse: the mantissas whose rest these are.
    """
    least, most = settings.arithmetic.weight_range(mixed=True)
    step = scales.step[k]
    weight = link.stored * scales.weight_scale[k]
    column = np.zeros(population.size)
    if source.carries and source.constant:
        column = population.current_bias * scales.weight_scale[k] * source.scale / source.constant
    matrix: Array | Csr = weight
    if isinstance(link.weight, Csr):
        matrix = link.weight.with_values(weight)
        if source.constant:
            matrix = matrix.with_column(column)
    elif source.constant:
        matrix = np.concatenate([weight, column[:, None]], axis=1)
    weight = matrix.values if isinstance(matrix, Csr) else matrix
    if coarse is not None:
        stored = coarse.values if isinstance(coarse, Sparse) else coarse.weight[: len(weight)]
        weight -= stored * 2.0 ** (coarse.weight_exp - scales.weight_exp[k])
    rest = next((j for j, other in enumerate(population.links) if other.rest_of == link.name), None)
    if rest is not None and scales.weight_exp[rest] < scales.weight_exp[k]:
        fine = np.abs(weight) * 2.0 ** (scales.weight_exp[k] - scales.weight_exp[rest])
        weight[fine <= most // step * step] = 0
    weight /= step
    np.rint(weight, out=weight)
    weight *= step
    np.clip(weight, least // step * step, most // step * step, out=weight)
    shared = {
        "weight_exp": scales.weight_exp[k],
        "weight_bits": settings.weight_bits,
        "delay": wait,
        "origin": link.origin,
    }
    if not isinstance(matrix, Csr):
        if drives:
            weight = np.concatenate([weight, np.zeros((1, weight.shape[1]))])
        return Dense(weight.astype(np.int32), **shared)  # type: ignore[arg-type]
    whole = matrix.with_values(weight.astype(np.int32))
    whole = whole.with_row() if drives else whole
    form = link.convolution
    if form is not None and form.kernel_of(whole) is None:
        form = None  # gains that differ within a map, or a channel beside it
    return Sparse(whole.values, whole.columns, whole.starts, whole.inputs, convolution=form, **shared)  # type: ignore[arg-type]


def _lost(links: Mapping[str, Mantissas], settings: Settings, size: int) -> Array:
    """Accumulator units that negative exponents cut off, (neurons,), which the bias gives back in a reset window.

    a >> k rounds down: a connection loses (1 - 2^-k) / 2 of a unit at each step, on average, where its weights have
    bits that are cut off.
    """
    lost = np.zeros(size)
    if settings.whole or not settings.interval or not settings.arithmetic.bias_bits:
        return lost
    for mantissas in links.values():
        if mantissas.weight_exp < 0:
            low_bits = mantissas.stored & ((1 << -mantissas.weight_exp) - 1)
            rows = (
                np.bincount(mantissas.csr.row_of, low_bits, size)
                if isinstance(mantissas, Sparse)
                else low_bits.sum(axis=1)
            )
            lost += 0.5 * (1.0 - 2.0**mantissas.weight_exp) * (rows[:size] > 0)
    return lost


def _prove(
    population: Population,
    links: Mapping[str, Mantissas],
    neuron: Neuron,
    incoming: Sequence[Incoming],
    settings: Settings,
) -> ranges.UnitRange:
    product, entering = 0, Sent.nothing(neuron.size)
    for link, source in zip(population.links, incoming, strict=True):
        if link.name not in links:
            continue
        sent = Sent(source.low, source.high)
        reach, passed = ranges.propagate(links[link.name], settings.arithmetic, settings.interval, sent)
        product, entering = max(product, reach), entering + passed
    reached = neuron.reach(settings.arithmetic, settings.interval, entering)
    names = [link.origin[0] for link in population.links if link.rest_of is None]
    return ranges.UnitRange.of(population.label, names, product, entering, reached)


def _report(
    population: Population,
    scales: _Scales,
    links: Mapping[str, Mantissas],
    neuron: Neuron,
    proved: ranges.UnitRange,
    settings: Settings,
) -> PopulationReport:
    a = settings.arithmetic
    size, one = population.size, 1 << a.input_shift
    membrane = neuron.membrane
    assert isinstance(membrane, IntegerMembrane)
    bias = (membrane.bias[:size].astype(np.int64) << membrane.bias_exp) / (scales.unit * one)
    exact_bias = population.bias
    if a.bias_in_current and population.current_decay is not None:
        exact_bias = population.current_bias
    lost = _lost(links, settings, size) / scales.unit
    return PopulationReport(
        population=population.name,
        connections=tuple(link_reports(population.links, links, scales.weight_scale)),
        unit=1.0 / scales.unit,
        threshold=neuron.spike.threshold if isinstance(neuron.spike, IntegerSpike) else None,
        decay_error=float(np.abs(a.factor(membrane.decay) - population.decay).max()),
        bias_error_max=float(np.abs(bias - lost - exact_bias).max()),
        accumulator=proved.accumulator,
        accumulator_limit=a.accumulator_limit - 1,
        membrane_low=proved.membrane[0] / one,
        membrane_high=proved.membrane[1] / one,
        membrane_limit=a.membrane_range[1] // one,
    )
