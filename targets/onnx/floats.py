"""Core ops of floats as ONNX nodes, in float32: bodies read by `equations`, and here what mixes elements."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nervecord.compiler.body.expression import Body
from nervecord.compiler.ops import Affine, Conv, Flatten, Op, Pool, SparseAffine
from nervecord.compiler.plan.plan import Step
from nervecord.errors import no_case
from nervecord.targets.onnx.builder import Builder
from nervecord.targets.onnx.equations import Equations, Slots, Value

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
            Flatten: self._flatten,
            Conv: self._conv,
            Pool: self._pool,
        }

        self._equations = Equations(builder, SINGLE)
        self._bodies: dict[str, Body] = {}

    def takes(self, op: Op) -> bool:
        """Whether there is a form of it."""
        return self._equations.takes(op.traced(None)) if op.has_body else type(op) in self._kernels

    def step(self, step: Step, state: Slots, x: Value) -> Value:
        """What the op gives; `state` is updated."""
        op = step.op
        if not op.has_body:
            return self._kernels[type(op)](op, x)
        if step.name not in self._bodies:
            self._bodies[step.name] = op.traced(None)
        return self._equations.step(self._bodies[step.name], op.size, state, x)

    def wide(self, step: Step, name: str) -> bool:
        """Whether a state takes two columns where it is carried: here all are float32."""
        return False

    # ------------------------------------------------------------------------------------------ connections

    def _affine(self, op: Affine | SparseAffine, x: Value) -> Value:
        if x is None:
            return None if op.bias is None else self.builder.full(op.bias, SINGLE)
        weight = self.builder.constant(op.weight.astype(SINGLE))
        bias = [] if op.bias is None else [self.builder.constant(op.bias.astype(SINGLE))]
        return self.builder.op("Gemm", x, weight, *bias, transB=1)

    def _flatten(self, op: Flatten, x: Value) -> Value:
        # Values are rows here, of whatever shape they stand for.
        return x

    def _conv(self, op: Conv, x: Value) -> Value:
        builder = self.builder
        shaped = builder.reshaped(self._standing(x, math.prod(op.in_shape)), builder.batch, *op.in_shape)
        constants = [builder.constant(values.astype(SINGLE)) for values in (op.weight, op.bias) if values is not None]
        result = builder.op(
            "Conv",
            shaped,
            *constants,
            strides=list(op.stride),
            pads=[*op.padding, *op.padding],
            dilations=list(op.dilation),
            group=op.groups,
        )
        return builder.reshaped(result, builder.batch, op.size)

    def _pool(self, op: Pool, x: Value) -> Value:
        builder = self.builder
        shaped = builder.reshaped(self._standing(x, math.prod(op.in_shape)), builder.batch, *op.in_shape)
        pads = [*op.padding, *op.padding]
        if any(pad >= size for pad, size in zip(op.padding, op.kernel, strict=True)):
            # A runtime may refuse windows that hold nothing but padding; zeros that stand there already are input.
            edges = [0, 0, *op.padding]
            shaped = builder.op("Pad", shaped, builder.constant(np.array([*edges, *edges], dtype=np.int64)))
            pads = [0] * len(pads)
        result = builder.op(
            "AveragePool", shaped, kernel_shape=list(op.kernel), strides=list(op.stride), pads=pads, count_include_pad=1
        )
        match op.mode:
            case "sum":
                result = builder.op("Mul", result, builder.constant(np.array(math.prod(op.kernel), dtype=SINGLE)))
            case "average":
                pass
            case other:
                raise no_case(other, "mode", ENGINE)
        return builder.reshaped(result, builder.batch, op.size)

    def _standing(self, x: Value, size: int) -> str:
        return self.builder.full(np.zeros(size), SINGLE) if x is None else x
