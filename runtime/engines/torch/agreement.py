"""Engine and definition, op by op, on the same inputs and states: the measure of the engine's floats.

The definition runs freely. At every step every op of the core is also run by its kernel, on what the definition gave
it, so that a rounding cannot grow along a trajectory, and one that flips a spike is seen where it happens.

Sums of products are rounded in another order than numpy's, and in float32 weights and inputs are rounded first. The
difference of a value of n terms stays within

    epsilon = 2 (n + 8) u m

where u is half a unit in the last place of 1 (2^-53 in float64, 2^-24 in float32) and m the sum of the terms'
magnitudes: each of the two results is within (n + 8) u m of the exact one (the standard bound on a sum in any order,
with room for the rounding of parameters, inputs and state). A spike may differ only where |v - threshold| is within the
epsilon of v. Of integers epsilon is zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from nervecord.compiler.ops import (
    Affine,
    Array,
    Conv,
    Level,
    Membrane,
    Neuron,
    Op,
    Pool,
    Scale,
    SparseAffine,
    Spike,
    State,
    Synapse,
)
from nervecord.compiler.plan.interpret import Machine
from nervecord.compiler.plan.plan import Plan
from nervecord.runtime.engines.torch.host_steps import DOUBLE
from nervecord.runtime.engines.torch.machine import BatchedMachine
from nervecord.runtime.engines.torch.place import ROUNDING
from nervecord.runtime.measure.replay import before_spike, threshold_of

ROOM = 8
"""Roundings beside those of the sum."""


@dataclass(slots=True)
class OpAgreement:
    """One op of the core.

    Args:
        compared: values. flipped: spikes that differ. beyond: values outside their epsilon, spikes that differ farther
            from the threshold included. largest: largest difference of values. epsilon: largest epsilon of a value.
    """

    name: str
    kind: str
    compared: int = 0
    flipped: int = 0
    beyond: int = 0
    largest: float = 0.0
    epsilon: float = 0.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """What `agreement` found, of every op of the core in the plan's order."""

    device: str
    precision: str
    ops: tuple[OpAgreement, ...] = field(default=())

    @property
    def agrees(self) -> bool:
        """Whether nothing is beyond its epsilon."""
        return not any(op.beyond for op in self.ops)

    @property
    def flipped(self) -> int:
        """Spikes that differ, all of them within epsilon of their threshold where it agrees."""
        return sum(op.flipped for op in self.ops)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "device": self.device,
            "precision": self.precision,
            "agrees": self.agrees,
            "flipped": self.flipped,
            "ops": [asdict(op) for op in self.ops],
        }


def agreement(
    plan: Plan, blocks: Sequence[Mapping[str, Array]], *, device: str | torch.device = "cpu", precision: str = "float64"
) -> Agreement:
    """Compare the engine with the definition op by op.

    Args:
        plan: of any executable graph.
        blocks: what enters, one mapping for each block (an action, of a policy): Input -> (batch, ...) where it is
            held, (T, batch, ...) of a stream.
        device, precision: of the engine.

    Raises:
        GraphError, InfeasibleError, NervecordError: as of `BatchedMachine`.
    """
    batch = next(iter(blocks[0].values())).shape[0 if plan.schedule.held else 1]
    engine = BatchedMachine(plan, batch, device=device, precision=precision)
    machine = _Watched(plan, batch, engine)
    for block in blocks:
        machine.block(block)
    return Agreement(str(engine.place.device), precision, tuple(machine.found.values()))


class _Watched(Machine):
    """The definition, which runs each kernel beside each op."""

    def __init__(self, plan: Plan, batch: int, engine: BatchedMachine) -> None:
        super().__init__(plan, batch)
        self._engine = engine
        self._exact = plan.graph.level is Level.INTEGER
        self.found = {step.name: OpAgreement(step.name, step.op.kind) for step in plan.core}

    @torch.no_grad()
    def _advance(self, name: str, x: Array) -> Array:
        engine, op = self._engine, self.plan.step(name).op
        place = engine.place
        before = {key: value.copy() for key, value in self.state[name].items()}
        state = {key: place.tensor(value) for key, value in before.items()}
        theirs = engine.kernels[name](state, place.tensor(x)).to(DOUBLE).cpu().numpy()
        ours = super()._advance(name, x)
        unit = 0.0 if self._exact else ROUNDING[place.dtype]
        epsilon = np.zeros_like(ours) if self._exact else 2 * (terms(op) + ROOM) * unit * magnitude(op, before, x)
        row = self.found[name]
        row.compared += ours.size
        agreed = np.ones(ours.shape, dtype=np.bool_)
        if op.spikes:
            agreed = theirs == ours
            v, threshold = (None, None) if self._exact else (before_spike(op, before, x), threshold_of(op))
            near = agreed if v is None or threshold is None else np.abs(v - threshold) <= epsilon
            row.flipped += int(np.count_nonzero(~agreed))
            row.beyond += int(np.count_nonzero(~agreed & ~near))
        else:
            _note(row, ours, theirs, epsilon)
        for key, value in self.state[name].items():
            # Where a spike flipped, the reset is another one.
            _note(row, np.where(agreed, value, 0), np.where(agreed, state[key].to(DOUBLE).cpu().numpy(), 0), epsilon)
        return ours


def _note(row: OpAgreement, ours: Array, theirs: Array, epsilon: Array) -> None:
    apart = np.abs(ours - theirs)
    row.beyond += int(np.count_nonzero(~(apart <= epsilon)))
    row.largest = max(row.largest, float(apart.max(initial=0.0)))
    row.epsilon = max(row.epsilon, float(np.max(epsilon, initial=0.0)))


def terms(op: Op) -> int:
    """Number of products in the longest sum that one of its values is."""
    match op:
        case Affine() | SparseAffine():
            return op.in_shape[0]
        case Conv():
            return int(np.prod(op.weight.shape[1:]))
        case Pool():
            return math.prod(op.kernel)
    return 0


def magnitude(op: Op, state: State, x: Array) -> Array:
    """Sum of the magnitudes of the terms that each value is made of: the op with every number made positive."""
    x = np.abs(x)
    match op:
        case Affine() | Conv():
            bias = None if op.bias is None else np.abs(op.bias)
            return op.replace(weight=np.abs(op.weight), bias=bias).step({}, x)
        case SparseAffine():
            bias = None if op.bias is None else np.abs(op.bias)
            return op.replace(values=np.abs(op.values), bias=bias, convolution=None).step({}, x)
        case Scale():
            return np.abs(op.scale) * x
        case Pool():
            return op.step({}, x)
        case Neuron():
            return _of_neuron(op, state, x)
    threshold = threshold_of(op)
    return x.reshape(len(x), *op.out_shape) + (0.0 if threshold is None else np.abs(threshold))


def _of_neuron(op: Neuron, state: State, x: Array) -> Array:
    """Of v, with the threshold that it is compared with and that a reset may take off, and the value it may set."""
    membrane = op.membrane
    assert isinstance(membrane, Membrane)
    entering = x
    if isinstance(op.synapse, Synapse):
        entering = op.synapse.decay * np.abs(state["u"]) + np.abs(op.synapse.gain) * x
    total: Array = membrane.decay * np.abs(state["v"]) + np.abs(membrane.gain) * entering + np.abs(membrane.leak)
    if isinstance(op.synapse, Synapse):
        total = total + entering  # the current is a value of its own, with the same epsilon
    if isinstance(op.spike, Spike):
        total = total + np.abs(op.spike.threshold) + np.abs(op.spike.reset_value)
    return total
