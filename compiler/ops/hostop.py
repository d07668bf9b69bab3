"""What ops that run on the host share: up to six stages, each of which an op leaves out where it says nothing of it.

    spread    each value of x several times, side by side
    weights   sums over values that stand side by side, each with its weight, added in order
    body      equations of each value, in floats, each operation rounded on its own
    pulse     equations of each of the T steps, with state, in integers: what an encoder of spikes does
    appended  one more channel, the same number in each step
    chooses   the index of the first largest

Engines read these stages; `HostStep` runs them with numpy, which is their definition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.body.evaluate import Evaluator, zero_state
from nervecord.compiler.body.expression import Body
from nervecord.compiler.body.trace import Tracer, Value
from nervecord.compiler.ops.fields import Array
from nervecord.compiler.ops.op import Op, State


@dataclass(frozen=True, slots=True, eq=False)
class HostOp(Op):
    """See the module. The body by default gives x."""

    PULSES: ClassVar[bool] = False
    """Whether it has a `pulse`."""
    CHOOSES: ClassVar[bool] = False
    """Whether it gives the index of the first largest value, NaN where one is not finite."""

    @property
    def spread(self) -> int:
        """How often each value of x stands in what the body takes, side by side."""
        return 1

    @property
    def weights(self) -> Array | None:
        """(sums, values of each), or None: the body takes x itself."""
        return None

    @property
    def appended(self) -> int:
        """The number of one more channel; 0: there is none."""
        return 0

    @property
    def drive(self) -> tuple[int, int]:
        """Smallest and largest integer that the body gives to `pulse`."""
        raise TypeError(f"{self.kind} has no steps of its own")

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        return do.x

    def pulse(self, do: Tracer) -> Value:
        """The equations of one of the T steps: what is sent, of what the body gave."""
        raise TypeError(f"{self.kind} has no steps of its own")

    def traced(self, arithmetic: Arithmetic | None = None) -> Body:
        """Its body; the host's is in floats at every level."""
        tracer = Tracer("float")
        return tracer.body(self.body(tracer, None))

    @property
    def pulse_body(self) -> Body:
        """`pulse`, traced."""
        tracer = Tracer("integer")
        return tracer.body(self.pulse(tracer))

    def state(self, batch: int) -> State:
        return zero_state(self.pulse_body, (batch, self.size - bool(self.appended))) if self.PULSES else {}

    def step(self, state: State, x: Array, arithmetic: Arithmetic | None = None) -> Array:
        return HostStep(self).step(x)


class HostStep:
    """A host op, ready to run with numpy.

    Args:
        op: what to run, a `HostOp`.
    """

    def __init__(self, op: Op) -> None:
        assert isinstance(op, HostOp)  # what runs before and after a core is
        self.op = op
        self._body = Evaluator(op.traced())
        self._pulse = Evaluator(op.pulse_body) if op.PULSES else None

    def state(self, batch: int) -> State:
        """As the op's, without tracing it."""
        size = self.op.size - bool(self.op.appended)
        return {} if self._pulse is None else zero_state(self._pulse.body, (batch, size))

    def values(self, x: Array) -> Array:
        """What the body gives for x, (batch, ...)."""
        op = self.op
        if op.spread > 1:
            x = np.repeat(x, op.spread, axis=-1)
        with np.errstate(over="ignore", invalid="ignore"):  # limits take it, or sessions, as no action
            if op.weights is not None:
                x = ordered_sums(op.weights, x)
            return self._body.step({}, x)

    def step(self, x: Array) -> Array:
        """y (batch, *out_shape) of an op without `pulse`.

        Raises:
            TypeError: the op has one, and makes the steps of an action at once: see `train`.
        """
        if self._pulse is not None:
            raise TypeError(f"{self.op.kind} makes the steps of an action at once")
        y = self.values(x)
        if self.op.CHOOSES:
            return first_largest(y)
        return self._appended(y)

    def train(self, state: State, x: Array, steps: int) -> Array:
        """An action's T steps of an op with `pulse`, (steps, batch, *out_shape); its state goes on."""
        assert self._pulse is not None
        drive = self.values(x)
        return self._appended(np.stack([self._pulse.step(state, drive) for _ in range(steps)]))

    def _appended(self, y: Array) -> Array:
        if not self.op.appended:
            return y
        return np.concatenate([y, np.full((*y.shape[:-1], 1), self.op.appended, dtype=y.dtype)], axis=-1)


def ordered_sums(weights: Array, x: Array) -> Array:
    """Weighted sums of values that stand side by side, the products added in their order.

    Args:
        weights: (sums, values of each). x: (batch, sums * values of each).

    Returns:
        (batch, sums) float64.
    """
    values = x.reshape(len(x), *weights.shape).astype(np.float64)
    y: Array = weights[:, 0] * values[..., 0]
    for k in range(1, weights.shape[1]):
        y = y + weights[:, k] * values[..., k]
    return y


def first_largest(x: Array) -> Array:
    """The choice (batch, 1) among x (batch, actions): index of the first largest; NaN where not all are finite."""
    chosen = np.argmax(x, axis=-1).astype(np.float64)
    return np.where(np.isfinite(x).all(axis=-1), chosen, np.nan)[..., None]
