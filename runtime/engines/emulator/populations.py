"""How each kind of population is packed for the emulator: its form in the compiled loop, and the numbers of that.

A new kind is a function here, or in a module of its own, its name in `FORMS`, and its steps in the loop
(`runtime.engines.emulator.kernel_steps`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.ops import (
    Array,
    Delta,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Neuron,
    Op,
    Sigma,
    SigmaDelta,
)
from nervecord.compiler.ops.sigma_delta import Rectifier
from nervecord.errors import InfeasibleError, no_case
from nervecord.runtime.engines.emulator.tables import Code, Form, Real, Sdn

_SATURATES = ("saturate", "saturate-symmetric")
OVERFLOWS = (*_SATURATES, "wrap", "wrap-once")
ROUNDINGS = ("floor", "zero", "at-least-one")
NARROW_KINDS: tuple[type[Op], ...] = (Neuron,)
"""Kinds whose state is no wider than the arithmetic's membranes and currents."""


class Places(Protocol):
    """Where numbers are put."""

    def put_rows(self, rows: list[Any]) -> int:
        """Numbers into the table; returns where they begin."""

    def put_real(self, values: Array) -> int:
        """Numbers among the reals; returns where they begin."""


@dataclass(frozen=True, slots=True)
class Formed:
    """A population in the columns of `runtime.engines.emulator.tables.Pop` that depend on its kind.

    Args:
        form: which steps of the loop run it.
        current, integer, real, bias: as of `Pop`; what a form does not use is 0.
    """

    form: Form
    current: int = 0
    integer: int = 0
    real: int = 0
    bias: int = 0


@dataclass(frozen=True, slots=True)
class Given:
    """What is known of a population: largest magnitudes of what enters the neuron at a step, and of what it sends."""

    arithmetic: Arithmetic
    entering: int
    sent: int


def formed(op: Op, name: str, given: Given, places: Places) -> Formed:
    """A population's form, its numbers put in their places.

    Raises:
        InfeasibleError: the loop has no steps for this kind.
    """
    if type(op) not in FORMS:
        raise InfeasibleError(
            f"is a {op.kind}, which the emulator does not run", where=name, hint="use the engine definition"
        )
    return FORMS[type(op)](op, given, places)


def wraps_once(entering: int, arithmetic: Arithmetic) -> bool:
    """Whether one correction brings any current back into its range."""
    bias = 1 << (arithmetic.bias_bits + arithmetic.bias_exponent_high)
    return entering + (bias if arithmetic.bias_in_current else 0) <= 1 << arithmetic.current_bits


def _neuron(op: Any, given: Given, places: Places) -> Formed:
    bias = op.membrane.bias.astype(np.int64) << op.membrane.bias_exp
    current = op.synapse is not None
    if _leaky(op, given):
        own = places.put_real(_own(op, given.arithmetic))
        return Formed(Form.LEAKY, current, real=own, bias=places.put_real(bias))
    code = places.put_rows([_code(op, given)])
    return Formed(Form.ANY, current, integer=code, bias=places.put_real(bias))


def _leaky(op: Neuron, given: Given) -> bool:
    """Whether neurons are computed in the fast form."""
    a = given.arithmetic
    if (a.decay, a.decay_rounding, a.reset, a.compare) != ("factor", "zero", "zero", ">"):
        return False
    if a.membrane_overflow not in _SATURATES or (op.spike is not None and given.sent > 1):
        return False
    if op.synapse is None:
        return not a.bias_in_current and given.entering <= a.current_limit
    if a.current_is_late or a.bias_in_current:
        return False
    return a.current_overflow in _SATURATES or (a.current_overflow == "wrap-once" and wraps_once(given.entering, a))


def _code(op: Neuron, given: Given) -> list[int]:
    a = given.arithmetic
    assert isinstance(op.membrane, IntegerMembrane)
    u_decay = op.synapse.decay if isinstance(op.synapse, IntegerSynapse) else 0
    threshold = op.spike.threshold if isinstance(op.spike, IntegerSpike) else 0
    found = [
        a.decays_by_shift, a.decay_bits, _case(ROUNDINGS, a.decay_rounding, "decay_rounding"), u_decay,
        op.membrane.decay, a.current_is_late, a.input_shift, a.bias_in_current,
        a.current_bits, _case(OVERFLOWS, a.current_overflow, "current_overflow"),
        a.membrane_bits, _case(OVERFLOWS, a.membrane_overflow, "membrane_overflow"),
        threshold << a.threshold_shift, a.fires_at_level, a.subtracts, given.sent,
    ]  # fmt: skip
    assert len(found) == Code.SIZE
    return found


def _case(cases: tuple[str, ...], value: Any, choice: str) -> int:
    """The loop's number of a case."""
    if value not in cases:
        raise no_case(value, choice, "emulator")
    return cases.index(value)


def _own(op: Neuron, a: Arithmetic) -> Array:
    assert isinstance(op.membrane, IntegerMembrane)
    u_decay = op.synapse.decay if isinstance(op.synapse, IntegerSynapse) else a.decay_codes
    threshold = op.spike.threshold if isinstance(op.spike, IntegerSpike) else 0
    span = 1 << a.current_bits if a.current_overflow == "wrap-once" else 0
    found = [
        a.factor(u_decay), a.factor(op.membrane.decay), 1 << a.input_shift, span, *a.current_range,
        *a.membrane_range, threshold << a.threshold_shift,
    ]  # fmt: skip
    assert len(found) == Real.SIZE
    return np.array(found, dtype=np.float64)


def _sigma_delta(op: Any, given: Given, places: Places) -> Formed:
    sums, sends = isinstance(op, (Sigma, SigmaDelta)), isinstance(op, (Delta, SigmaDelta))
    relu = isinstance(op, SigmaDelta) and _rectifies(op.activation)
    bias = op.bias.astype(np.int64) << op.lift if isinstance(op, SigmaDelta) else np.zeros(op.size)
    row = [sums, 0 if sums else op.lift, relu, op.level if sends else 0, op.state_exp if sends else 0]
    assert len(row) == Sdn.SIZE
    return Formed(Form.SIGMA_DELTA, integer=places.put_rows([row]), bias=places.put_real(bias))


def _rectifies(activation: Rectifier) -> bool:
    match activation:
        case "relu":
            return True
        case "unit":
            return False
        case other:
            raise no_case(other, "activation", "emulator")


FORMS: dict[type[Op], Callable[[Any, Given, Places], Formed]] = {
    Neuron: _neuron, Delta: _sigma_delta, SigmaDelta: _sigma_delta, Sigma: _sigma_delta
}  # fmt: skip
"""Kind of population -> how it is packed."""
