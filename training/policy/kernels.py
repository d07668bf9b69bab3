"""The spiking layer's inner loops for the CPU, compiled by numba at their first call.

A row (one sample) is walked through all T steps while its few kilobytes stay in the first-level cache; the loops over
neurons are plain elementwise code that the compiler vectorises. No fast-math: multiplication and addition stay apart
and in order, so that spikes equal those of the torch operators bit for bit.

Shapes: B samples, N neurons, T steps; `current` is (1, B, N) for a current that is constant over the T steps, else
(T, B, N). Scalars come in `constants`, in the arrays' dtype (a Python float would promote float32 to float64):
alpha, beta, threshold, slope, 1, 0. `alpha` is read only where `synaptic` is true. Without `stateful` all samples
start from the one row that `v0` and `i0` then hold, and no state is written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nervecord.runtime.engines.emulator.jit import Guarded

Array = NDArray[Any]


@Guarded
def forward(
    current: Array,
    v0: Array,
    i0: Array,
    constants: Array,
    weights: Array,
    synaptic: bool,
    summed: bool,
    stateful: bool,
    spikes: Array,
    z: Array,
    v: Array,
    i: Array,
    last: Array,
) -> None:
    """Run T = len(weights) steps.

    Writes the spike train into `spikes` (T, B, N), or with `summed` only sum_t weights[t] s_t into `z` (B, N); the
    final membrane `v`, current `i` and spikes `last` (each (B, N)).
    """
    steps = weights.shape[0]
    batch, size = current.shape[1], current.shape[2]
    constant = current.shape[0] == 1
    alpha, beta, threshold = constants[0], constants[1], constants[2]
    one, zero = constants[4], constants[5]
    membrane = np.empty(size, current.dtype)
    synapse = np.empty(size, current.dtype)
    fired = np.empty(size, current.dtype)
    total = np.empty(size, current.dtype)
    for b in range(batch):
        first = b if stateful else 0
        membrane[:] = v0[first]
        synapse[:] = i0[first]
        total[:] = zero
        for t in range(steps):
            row = current[0, b] if constant else current[t, b]
            if synaptic:
                for n in range(size):
                    synapse[n] = alpha * synapse[n] + row[n]
                    x = beta * membrane[n] + synapse[n]
                    fired[n] = one if x > threshold else zero
                    membrane[n] = zero if x > threshold else x
            else:
                for n in range(size):
                    x = beta * membrane[n] + row[n]
                    fired[n] = one if x > threshold else zero
                    membrane[n] = zero if x > threshold else x
            if summed:
                weight = weights[t]
                for n in range(size):
                    total[n] += weight * fired[n]
            else:
                spikes[t, b, :] = fired
        if summed:
            z[b, :] = total
        if stateful:
            v[b, :] = membrane
            i[b, :] = synapse
            last[b, :] = fired


@Guarded
def backward(
    current: Array,
    v0: Array,
    i0: Array,
    constants: Array,
    weights: Array,
    synaptic: bool,
    summed: bool,
    stateful: bool,
    detached: bool,
    grad_out: Array,
    grad_current: Array,
    grad_decays: Array,
    grad_weights: Array,
) -> None:
    """Walk the T steps again and then back.

    `grad_out` is (1, B, N) with `summed`, else (T, B, N). Writes `grad_current` (the shape of `current`), adds to
    `grad_decays` (float64: alpha, beta) and `grad_weights` (float64, T).
    """
    steps = weights.shape[0]
    batch, size = current.shape[1], current.shape[2]
    constant = current.shape[0] == 1
    alpha, beta, threshold, slope = constants[0], constants[1], constants[2], constants[3]
    one, zero = constants[4], constants[5]
    before = np.empty((steps, size), current.dtype)  # membrane at the start of the step
    charged = np.empty((steps, size), current.dtype)  # membrane before the reset
    synapse = np.empty((steps + 1, size), current.dtype)  # current at the start of the step
    grad_membrane = np.empty(size, current.dtype)
    grad_synapse = np.empty(size, current.dtype)
    total = np.empty(size, current.dtype)
    sum_alpha = np.zeros(size, current.dtype)
    sum_beta = np.zeros(size, current.dtype)
    sum_weights = np.zeros((steps, size), current.dtype)
    for b in range(batch):
        first = b if stateful else 0
        before[0, :] = v0[first]
        synapse[0, :] = i0[first]
        for t in range(steps):
            row = current[0, b] if constant else current[t, b]
            start, x = before[t], charged[t]
            if synaptic:
                s_old, s_new = synapse[t], synapse[t + 1]
                for n in range(size):
                    s_new[n] = alpha * s_old[n] + row[n]
                for n in range(size):
                    x[n] = beta * start[n] + s_new[n]
            else:
                for n in range(size):
                    x[n] = beta * start[n] + row[n]
            if t + 1 < steps:
                after = before[t + 1]
                for n in range(size):
                    after[n] = zero if x[n] > threshold else x[n]
        grad_membrane[:] = zero
        grad_synapse[:] = zero
        total[:] = zero
        for k in range(steps):
            t = steps - 1 - k
            out = grad_out[0, b] if summed else grad_out[t, b]
            start, x, s_old = before[t], charged[t], synapse[t]
            weight = weights[t] if summed else one
            if summed:
                sum_weight = sum_weights[t]
                for n in range(size):
                    sum_weight[n] += out[n] if x[n] > threshold else zero
            # With the reset detached its share of the gradient, -grad v, is left out.
            share = zero if detached else one
            for n in range(size):
                root = one + slope * abs(x[n] - threshold)
                spike_grad = weight * out[n] - share * grad_membrane[n] * x[n]
                carried = zero if x[n] > threshold else grad_membrane[n]
                grad_membrane[n] = spike_grad / (root * root) + carried
            for n in range(size):
                sum_beta[n] += grad_membrane[n] * start[n]
            if synaptic:
                for n in range(size):
                    grad_synapse[n] = grad_membrane[n] + alpha * grad_synapse[n]
                for n in range(size):
                    sum_alpha[n] += grad_synapse[n] * s_old[n]
                step_grad = grad_synapse
            else:
                step_grad = grad_membrane
            if constant:
                for n in range(size):
                    total[n] += step_grad[n]
            else:
                grad_current[t, b, :] = step_grad
            for n in range(size):
                grad_membrane[n] = beta * grad_membrane[n]
        if constant:
            grad_current[0, b, :] = total
        if b % 64 == 63 or b == batch - 1:
            # Float64 from here on: rounding does not grow with the batch.
            grad_decays[0] += sum_alpha.astype(np.float64).sum()
            grad_decays[1] += sum_beta.astype(np.float64).sum()
            sum_alpha[:] = zero
            sum_beta[:] = zero
            for t in range(steps):
                grad_weights[t] += sum_weights[t].astype(np.float64).sum()
            sum_weights[:] = zero
