"""The emulator's inner loop, compiled by numba: whole actions, observation to action, for a batch of robots.

All integers are computed in float64, where they are exact: |product| < 2^31, |u|, |v| < 2^24, decay factors are
multiples of 2^-12, so no operation here rounds but the ones that the arithmetic defines (floor of a shift, truncation
of a decay). That keeps the loops in wide SIMD registers. Three facts make it fast: an observation of graded integers is
held over the T steps, so the first layer's product is taken once; spikes are sparse, so deeper products are sums of a
few rows; nothing is allocated per step. With a population code the first layer receives other spikes at each step and
is treated like a deeper one; numba compiles that variant apart, so the other one pays nothing for it.

Layout, per layer, of the rows of `table` (int64): see `Column`. Weights are stored (in, out), so that a spike adds one
contiguous row.
"""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
from numba import njit

from nervecord.compiler import population


class Column(enum.IntEnum):
    """Columns of the layer table."""

    INPUTS = 0
    OUTPUTS = 1
    WEIGHT = 2  # offset into weights
    NEURON = 3  # offset of the layer's neurons into biases, thresholds, spikes and state
    FAN_OUT = 4  # offset into fan_out
    INTERVAL = 5
    OFFSET = 6
    SPIKING = 7
    CURRENT = 8  # whether du keeps anything of u
    COLUMNS = 9


_INPUTS, _OUTPUTS, _WEIGHT, _NEURON = int(Column.INPUTS), int(Column.OUTPUTS), int(Column.WEIGHT), int(Column.NEURON)
_FAN_OUT, _INTERVAL, _OFFSET = int(Column.FAN_OUT), int(Column.INTERVAL), int(Column.OFFSET)
_SPIKING, _CURRENT = int(Column.SPIKING), int(Column.CURRENT)
_U_WRAP = float(1 << 23)
_V_LIMIT = float((1 << 23) - 1)
_ONE = float(population.ONE)
_HALF_LOG2_E, _LARGEST_EXPONENT = population.HALF_LOG2_E, population.LARGEST_EXPONENT
_POWERS, _COEFFICIENTS, _DEGREE = population.POWERS, population.COEFFICIENTS, population.DEGREE


@njit(cache=True, nogil=True, error_model="numpy")
def _normalise(x: Any, host: Any, clip: float, out: Any) -> bool:
    """One observation normalised, in `out`; False where it is not finite (then of the mean)."""
    finite = True
    for j in range(x.size):
        if not np.isfinite(x[j]):
            finite = False
    for j in range(x.size):
        value = (x[j] - host[0, j]) / host[1, j] if finite else 0.0
        out[j] = min(max(value, -clip), clip)
    return finite


@njit(cache=True, nogil=True, error_model="numpy")
def _quantise(x: Any, channels: int, scale: float, limit: float, constant: float) -> None:
    """Normalised values into graded integers, in place; the bias channel behind them."""
    for j in range(channels):
        x[j] = min(max(np.rint(x[j] * scale), -limit), limit)
    if constant != 0.0:
        x[channels] = constant


@njit(cache=True, nogil=True, error_model="numpy")
def _populate(x: Any, mean: Any, sigma: float, pulses: Any, always: bool, v: Any, units: Any) -> None:
    """One action of the population code (`compiler.population`): its T steps of spikes into `pulses`, v carried on."""
    neurons = mean.shape[1]
    for j in range(mean.shape[0]):
        held = min(max(x[j], mean[j, 0]), mean[j, neurons - 1])
        for i in range(neurons):
            z = (held - mean[j, i]) / sigma
            e = min((z * z) * _HALF_LOG2_E, _LARGEST_EXPONENT)
            k = np.floor(e)
            f = e - k
            p = _COEFFICIENTS[_DEGREE]
            for c in range(_DEGREE - 1, -1, -1):
                p = p * f + _COEFFICIENTS[c]
            units[j * neurons + i] = np.rint((p * _POWERS[int(k)]) * _ONE)
    for t in range(pulses.shape[0]):
        for i in range(units.size):
            total = v[i] + units[i]
            fired = 1.0 if total >= _ONE else 0.0
            v[i] = total - _ONE * fired
            pulses[t, i] = fired
        if always:
            pulses[t, units.size] = 1.0


@njit(cache=True, nogil=True, error_model="numpy")
def _membrane(pending: Any, u: Any, v: Any, bias: Any, decays: Any, current: bool, cleared: bool) -> None:
    """u and v of a layer's neurons after receiving `pending`, before any spike."""
    keep_u, keep_v = decays[0], decays[1]
    for i in range(v.size):
        a = pending[i]
        if current:
            was = 0.0 if cleared else u[i]
            a += np.trunc(was * keep_u)
            a = a - 2.0 * _U_WRAP if a > _U_WRAP else (a + 2.0 * _U_WRAP if a <= -_U_WRAP else a)
        u[i] = a
        held = 0.0 if cleared else v[i]
        v[i] = min(max(np.trunc(held * keep_v) + a + bias[i], -_V_LIMIT), _V_LIMIT)


@njit(cache=True, nogil=True, error_model="numpy")
def _rows(weights: Any, spikes: Any, reach: Any, outputs: int, factor: float, sums: Any, out: Any) -> float:
    """out = 64 * floor(sum of the rows of `weights` whose spike is set, times 2^weight_exp); `sums` is scratch.

    Returns the synaptic events: the sum of `reach` over the spikes.
    """
    for o in range(outputs):
        sums[o] = 0.0
    # First the places of the spikes, without a branch: most neurons are silent, and a branch that cannot be foreseen
    # costs more than a place that is written over.
    places = np.empty(spikes.size + 1, np.int64)
    count = 0
    for j in range(spikes.size):
        places[count] = j
        count += int(spikes[j])
    events = 0.0
    for c in range(count):
        j = places[c]
        events += reach[j]
        row = weights[j * outputs : (j + 1) * outputs]
        for o in range(outputs):
            sums[o] += row[o]
    for o in range(outputs):
        out[o] = np.floor(sums[o] * factor) * 64.0
    return events


@njit(cache=True, nogil=True, error_model="numpy")
def act(
    observation: Any,
    action: Any,
    host: Any,
    decode: Any,
    scalars: Any,
    table: Any,
    weights: Any,
    biases: Any,
    layer_floats: Any,
    fan_out: Any,
    state: Any,
    spikes: Any,
    counters: Any,
    encoder: Any,
) -> int:
    """One action of every robot of a batch.

    Args:
        observation: (batch, observations) float64. action: (batch, actions), written; (batch, 1) for a choice.
        host: (2, observations): mean, divisor.
        decode: (4 + neurons, actions): offset, low, high, fail-safe, weights of each action's readout neurons.
            For a choice the weighted sums are compared, low and high are not used, and the fail-safe stands first.
        scalars: (9,) float64: clip, scale, limit, constant, steps T, window, clock at the window's start, over how
            many of its last steps the readout is summed (1 for a membrane, T for spike counts), and whether the action
            is a choice.
        table: (layers, Column.COLUMNS) int64. layer_floats: (layers, 4): keep_u, keep_v, threshold << 6, 2^weight_exp.
        weights, biases, fan_out: flat, float64.
        state: (batch, 3, neurons) float32, in which integers below 2^24 are exact: pending (what Dense delivers next,
            << 6), u, v.
        spikes: (batch, window, neurons) float32, written: spikes, or v of a readout.
        counters: (layers, 2) int64, added to: spikes of the layer, synaptic events of the connection before it.
        encoder: None where the observation is held as graded integers; else, of the population code: means (channels,
            neurons), sigma, accumulators (batch, n) (carried on), whether they go on from the action before, whether
            there is a bias source, and (batch, T, inputs) float32, written: its spikes.

    Returns:
        Number of robots whose observation was not finite (they got the fail-safe action).
    """
    layers = table.shape[0]
    steps, window, clock, summed = int(scalars[4]), int(scalars[5]), int(scalars[6]), int(scalars[7])
    neurons, chooses = decode.shape[0] - 4, scalars[8] != 0.0
    channels = observation.shape[1]
    encoded = np.empty(max(table[0, _INPUTS], channels))
    first = np.empty(table[0, _OUTPUTS])
    sums = np.empty(table[:, _OUTPUTS].max())
    distrusted = 0
    for b in range(observation.shape[0]):
        finite = _normalise(observation[b], host, scalars[0], encoded)
        outputs = table[0, _OUTPUTS]
        if encoder is None:
            _quantise(encoded, channels, scalars[1], scalars[2], scalars[3])
            for o in range(outputs):
                first[o] = 0.0
            events = 0.0
            for j in range(encoded.size):
                x = encoded[j]
                if x != 0.0:
                    events += fan_out[j]
                    row = weights[j * outputs : (j + 1) * outputs]
                    for o in range(outputs):
                        first[o] += x * row[o]
            for o in range(outputs):
                first[o] = np.floor(first[o] * layer_floats[0, 3]) * 64.0
            counters[0, 1] += int(events) * steps
        else:
            mean, sigma, accumulators, carried, always, pulses = encoder
            if not carried:
                accumulators[b, :] = 0.0
            _populate(encoded, mean, sigma, pulses[b], always, accumulators[b], np.empty(mean.size))
        for t in range(window):
            for k in range(layers):
                start = table[k, _NEURON]
                stop = start + table[k, _OUTPUTS]
                interval = table[k, _INTERVAL]
                cleared = interval > 0 and (clock + t) % interval == table[k, _OFFSET]
                v = state[b, 2, start:stop]
                _membrane(
                    state[b, 0, start:stop],
                    state[b, 1, start:stop],
                    v,
                    biases[start:stop],
                    layer_floats[k],
                    table[k, _CURRENT] != 0,
                    cleared,
                )
                spiked = spikes[b, t, start:stop]
                if table[k, _SPIKING]:
                    threshold = layer_floats[k, 2]
                    fired = 0
                    for i in range(v.size):
                        over = v[i] > threshold
                        spiked[i] = 1.0 if over else 0.0
                        v[i] = 0.0 if over else v[i]
                        fired += over
                    counters[k, 0] += fired
                else:
                    for i in range(v.size):
                        spiked[i] = v[i]
            pending = state[b, 0, : table[0, _OUTPUTS]]
            if encoder is None:
                for o in range(outputs):
                    pending[o] = first[o] if t < steps else 0.0
            elif t < steps:
                sent = encoder[5][b, t]
                weight = weights[: sent.size * outputs]
                counters[0, 1] += int(_rows(weight, sent, fan_out, outputs, layer_floats[0, 3], sums, pending))
            else:
                pending[:] = 0.0
            for k in range(1, layers):
                before = table[k - 1, _NEURON]
                fired_before = spikes[b, t, before : before + table[k - 1, _OUTPUTS]]
                start, count = table[k, _NEURON], table[k, _OUTPUTS]
                weight = weights[table[k, _WEIGHT] : table[k, _WEIGHT] + fired_before.size * count]
                reach = fan_out[table[k, _FAN_OUT] : table[k, _FAN_OUT] + fired_before.size]
                pending = state[b, 0, start : start + count]
                counters[k, 1] += int(_rows(weight, fired_before, reach, count, layer_floats[k, 3], sums, pending))
        start = table[layers - 1, _NEURON]
        largest, chosen = -np.inf, 0
        for i in range(decode.shape[1]):
            y = 0.0
            for k in range(neurons):
                total = 0.0
                for t in range(window - summed, window):
                    total += spikes[b, t, start + i * neurons + k]
                y += total * decode[4 + k, i]
            y += decode[0, i]
            if not chooses:
                action[b, i] = min(max(y, decode[1, i]), decode[2, i]) if finite else decode[3, i]
            elif y > largest:
                largest, chosen = y, i
        if chooses:
            action[b, 0] = chosen if finite else decode[3, 0]
        if not finite:
            distrusted += 1
    return distrusted
