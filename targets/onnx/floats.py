"""Core ops of floats as ONNX nodes, in float32: each the `step` of its op, in the order of its operations.

A value is a name, or None where it is zero: a state before its first step, a delay that nothing has left yet.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from nervecord.compiler.ops import (
    Activation,
    Affine,
    Array,
    Conv,
    Flatten,
    Membrane,
    Neuron,
    Op,
    Pool,
    Scale,
    SparseAffine,
    Spike,
    Synapse,
    Threshold,
)
from nervecord.errors import no_case
from nervecord.targets.onnx.builder import Builder

Value: TypeAlias = str | None
Slots: TypeAlias = dict[str, Value]
"""State of an op: name -> value."""

SINGLE: type = np.float32
ENGINE = "onnx"


class Floats:
    """Makes the nodes of one step of a core op.

    Args:
        builder: takes them.
    """

    dtype = SINGLE

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self._kernels: dict[type[Op], Callable[..., Value]] = {
            Affine: self._affine,
            SparseAffine: self._affine,
            Neuron: self._neuron,
            Scale: self._scale,
            Threshold: self._threshold,
            Flatten: self._flatten,
            Conv: self._conv,
            Pool: self._pool,
            Activation: self._activation,
        }

    def takes(self, op: Op) -> bool:
        """Whether there is a kernel."""
        return type(op) in self._kernels

    def step(self, name: str, op: Op, state: Slots, x: Value) -> Value:
        """What the op of a node gives; `state` is updated."""
        return self._kernels[type(op)](op, state, x)

    def shown(self, op: Op, value: str) -> str:
        """What the op gives, in its own units."""
        return value

    # ------------------------------------------------------------------------------------------ connections

    def _affine(self, op: Affine | SparseAffine, state: Slots, x: Value) -> Value:
        if x is None:
            return None if op.bias is None else self.builder.full(op.bias, SINGLE)
        weight = self.builder.constant(op.weight.astype(SINGLE))
        bias = [] if op.bias is None else [self.builder.constant(op.bias.astype(SINGLE))]
        return self.builder.op("Gemm", x, weight, *bias, transB=1)

    def _scale(self, op: Scale, state: Slots, x: Value) -> Value:
        return self._scaled(op.scale, x)

    def _flatten(self, op: Flatten, state: Slots, x: Value) -> Value:
        # Values are rows here, of whatever shape they stand for.
        return x

    def _conv(self, op: Conv, state: Slots, x: Value) -> Value:
        builder = self.builder
        shaped = builder.reshaped(self._standing(x, math.prod(op.in_shape)), builder.batch, *op.in_shape)
        held = [builder.constant(values.astype(SINGLE)) for values in (op.weight, op.bias) if values is not None]
        made = builder.op(
            "Conv", shaped, *held, strides=list(op.stride), pads=[*op.padding, *op.padding],
            dilations=list(op.dilation), group=op.groups,
        )  # fmt: skip
        return builder.reshaped(made, builder.batch, op.size)

    def _pool(self, op: Pool, state: Slots, x: Value) -> Value:
        builder = self.builder
        shaped = builder.reshaped(self._standing(x, math.prod(op.in_shape)), builder.batch, *op.in_shape)
        made = builder.op(
            "AveragePool", shaped, kernel_shape=list(op.kernel), strides=list(op.stride),
            pads=[*op.padding, *op.padding], count_include_pad=1,
        )  # fmt: skip
        match op.mode:
            case "sum":
                made = builder.op("Mul", made, builder.constant(np.array(math.prod(op.kernel), dtype=SINGLE)))
            case "average":
                pass
            case other:
                raise no_case(other, "mode", ENGINE)
        return builder.reshaped(made, builder.batch, op.size)

    def _threshold(self, op: Threshold, state: Slots, x: Value) -> Value:
        x = self._standing(x, op.size)
        over = self.builder.op("Greater", x, self.builder.row(op.threshold, SINGLE))
        return self.builder.cast(over, SINGLE)

    def _activation(self, op: Activation, state: Slots, x: Value) -> Value:
        x = self._standing(x, op.size)
        match op.function:
            case "tanh":
                return self.builder.op("Tanh", x)
            case "relu":
                return self.builder.op("Relu", x)
            case "elu":
                return self.builder.op("Elu", x, alpha=float(op.alpha))
            case other:
                raise no_case(other, "function", ENGINE)

    # ------------------------------------------------------------------------------------------ neurons

    def _neuron(self, op: Neuron, state: Slots, x: Value) -> Value:
        held, builder = op.membrane, self.builder
        assert isinstance(held, Membrane)
        if isinstance(op.synapse, Synapse):
            x = builder.total([self._scaled(op.synapse.decay, state["u"]), self._scaled(op.synapse.gain, x)])
            state["u"] = x
        v = builder.total([self._scaled(held.decay, state["v"]), self._scaled(held.gain, x)])
        if held.leak.any():
            v = builder.full(held.leak, SINGLE) if v is None else builder.op("Add", v, builder.row(held.leak, SINGLE))
        owed = state.get("owed")
        if owed is not None:
            v = builder.op("Sub", self._standing(v, op.size), owed)
        if op.spike is None:
            state["v"] = v
            return v
        assert isinstance(op.spike, Spike)
        v = self._standing(v, op.size)
        return self._spike(op, op.spike, state, v)

    def _spike(self, op: Neuron, spike: Spike, state: Slots, v: str) -> Value:
        builder = self.builder
        threshold = builder.row(spike.threshold, SINGLE)
        early = None
        if spike.reset == "subtract-early" and state["v"] is not None:
            early = builder.op("Greater", state["v"], threshold)
            v = builder.op("Where", early, builder.op("Sub", v, threshold), v)
        spiked = builder.op("Greater", v, threshold)
        resting = None
        if spike.refractory:
            rest = self._standing(state["rest"], op.size)
            resting = builder.op("Greater", rest, builder.row(np.zeros(1), SINGLE))
            spiked = builder.op("And", spiked, builder.op("Not", resting))
            v = builder.op("Where", resting, self._standing(state["v"], op.size), v)
            early = None if early is None else builder.op("And", early, builder.op("Not", resting))
            left = builder.op("Max", builder.op("Sub", rest, builder.row(np.ones(1), SINGLE)),
                              builder.row(np.zeros(1), SINGLE))  # fmt: skip
            state["rest"] = builder.op("Where", spiked, builder.row(np.full(1, spike.refractory), SINGLE), left)
        match spike.reset:
            case "value":
                state["v"] = builder.op("Where", spiked, builder.row(spike.reset_value, SINGLE), v)
            case "subtract":
                state["v"] = builder.op("Where", spiked, builder.op("Sub", v, threshold), v)
            case "subtract-early":
                lower = builder.op("Where", spiked, builder.op("Sub", v, threshold), v)
                if early is not None:
                    # The threshold is off already: of what spiked it is, of what did not it is given back.
                    higher = builder.op("Where", spiked, v, builder.op("Add", v, threshold))
                    lower = builder.op("Where", early, higher, lower)
                state["v"] = lower
            case "subtract-late":
                state["v"] = v
                kept = builder.row(np.zeros(1), SINGLE)
                if resting is not None and state["owed"] is not None:
                    kept = builder.op("Where", resting, state["owed"], kept)
                state["owed"] = builder.op("Where", spiked, threshold, kept)
            case "none":
                state["v"] = v
            case other:
                raise no_case(other, "reset", ENGINE)
        return builder.cast(spiked, SINGLE)

    def _scaled(self, factor: Array, x: Value) -> Value:
        """factor * x; without a node where that is x or zero."""
        if x is None or not factor.any():
            return None
        return x if (factor == 1).all() else self.builder.op("Mul", self.builder.row(factor, SINGLE), x)

    def _standing(self, x: Value, size: int) -> str:
        return self.builder.full(np.zeros(size), SINGLE) if x is None else x
