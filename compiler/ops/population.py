"""The population code's arithmetic, to the bit: receptive fields, and the accumulators that turn them into spikes.

The exponential function is not the same in every library, and one different bit can move a spike. So it is computed
here from additions, multiplications and powers of two alone, in a fixed order, and only its first 20 bits are used:
accumulators then hold whole numbers below 2^21, exact in any order, in float32, int32 or float64.
"""

from __future__ import annotations

import numpy as np

from nervecord.compiler.body.trace import Tracer, Value
from nervecord.compiler.ops.fields import Array

ONE = 1 << 20
"""An accumulator spikes where it reaches this."""
HALF_LOG2_E = 0.7213475204444817
"""exp(-z^2 / 2) = 2^(-z^2 * this)."""
LARGEST_EXPONENT = 32.0
"""Beyond it an activation is zero: it rounds to no unit of 2^-20."""
POWERS = 2.0 ** -np.arange(LARGEST_EXPONENT + 1)
"""2^-k, k whole; exact."""
DEGREE = 14


def _coefficients() -> Array:
    """Of 2^-f = sum_i c_i f^i, i = 0..DEGREE: c_i = c_(i - 1) * -ln 2 / i, in this order of operations."""
    coefficients = [1.0]
    for i in range(1, DEGREE + 1):
        coefficients.append(coefficients[-1] * -0.6931471805599453 / i)
    return np.array(coefficients)


COEFFICIENTS = _coefficients()
"""The error of the polynomial on 0 <= f <= 1 is below 1e-14, a unit of the result is 1e-6."""


def activation(do: Tracer, mean: Array, sigma: float) -> Value:
    """Units of 2^-20 that each neuron's accumulator gains per step: whole numbers 0..2^20.

        x = min(max(x, first mean), last mean);  z = (x - mean) / sigma;  e = min((z * z) * HALF_LOG2_E, 32)
        k = floor(e);  f = e - k;  p = (((c_14 * f + c_13) * f + c_12) ... ) * f + c_0
        a = round_half_even((p * 2^-k) * 2^20)

    Args:
        do: its x is the normalised observation, each channel once for each of its neurons.
        mean: (channels, neurons) centres. sigma: width of the fields.
    """
    first, last = (np.repeat(mean[:, end], mean.shape[1]) for end in (0, -1))
    clipped = do.clip(do.x, do.constant("first", first), do.constant("last", last))
    z = (clipped - do.constant("mean", mean.ravel())) / do.constant("sigma", sigma)
    e = do.minimum((z * z) * HALF_LOG2_E, LARGEST_EXPONENT)
    k = do.floor(e)
    f = e - k
    p = do.constant("", COEFFICIENTS[DEGREE])
    for c in COEFFICIENTS[DEGREE - 1 :: -1]:
        p = p * f + float(c)
    return do.as_kind(do.rint((p * do.power_of_two(k)) * float(ONE)), "integer")


def pulse(do: Tracer) -> Value:
    """One step of the accumulators, each a whole number 0..2^20 - 1 before and after it: a spike where it gets full."""
    v = do.state("v") + do.x
    full = v >= ONE
    do.keep("v", do.where(full, v - ONE, v))
    return do.as_kind(full, "integer")
