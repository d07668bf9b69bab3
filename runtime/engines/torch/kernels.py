"""Every op of a core in torch: what its `step` defines, for a batch on a device.

A kernel takes the op's state and its input, both (batch, ...), and returns its output; tensors are replaced in the
state, never written into, so that whoever holds one from an earlier step still has what it was. Factors of 1 and terms
of 0 are left out where leaving them out changes no bit.

Elementwise ops are read from their bodies (`equations`). What mixes elements has a kernel here: of floats only sums of
products are added up in another order; integers are float64, which holds every product and sum below 2^53 exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

import torch
from torch import Tensor
from torch.nn import functional

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.body.fold import folded
from nervecord.compiler.lower.ranges import Proved
from nervecord.compiler.ops import Affine, Conv, DelayLine, Dense, Flatten, Mantissas, Op, Pool, Sparse, SparseAffine
from nervecord.errors import GraphError, no_case
from nervecord.runtime.engines.torch.equations import equations
from nervecord.runtime.engines.torch.place import Place

Kernel: TypeAlias = Callable[[dict[str, Tensor], Tensor], Tensor]
ENGINE = "engine torch"
PRODUCTS = 1 << 24
"""Products held at once where each is rounded on its own."""


@dataclass(frozen=True, slots=True)
class KernelContext:
    """What a kernel is made for.

    Args:
        place: device and type.
        arithmetic: of a graph of integers; None of floats.
        graded: other values than binary spikes enter.
        proved: what a population of integers can reach.
    """

    place: Place
    arithmetic: Arithmetic | None
    graded: bool
    proved: Proved | None = None


def kernel(op: Op, context: KernelContext) -> Kernel:
    """An op's step.

    Raises:
        GraphError: there is none for this op.
    """
    if op.has_body:
        body = folded(op.traced(context.arithmetic)) if context.proved is None else context.proved.folded
        return equations(body, context.place, op.label)
    maker = KERNELS.get(type(op))
    if maker is None:
        raise GraphError(
            f"{op.kind} is not among what engine torch runs", where=op.label, hint="the definition runs every op"
        )
    return maker(op, context)


# --------------------------------------------------------------------------------------------------------------------
# Connections, and what passes values on


def _affine(op: Op, context: KernelContext) -> Kernel:
    assert isinstance(op, (Affine, SparseAffine))
    weight = context.place.tensor(op.weight.T).contiguous()
    bias = None if op.bias is None else context.place.tensor(op.bias)
    if bias is None:
        return lambda state, x: x @ weight
    return lambda state, x: x @ weight + bias


def _conv(op: Op, context: KernelContext) -> Kernel:
    """As windows and one product, and not by a library of convolutions, whose own precision settings would count."""
    assert isinstance(op, Conv)
    axes = len(op.input_size)
    weight = context.place.tensor(op.weight.reshape(op.groups, -1, *op.weight.shape[1:]))
    bias = None if op.bias is None else context.place.tensor(op.bias.reshape(-1, *(1,) * axes))
    pads = [p for padding in reversed(op.padding) for p in (padding, padding)]
    reach = [d * (k - 1) + 1 for d, k in zip(op.dilation, op.weight.shape[2:], strict=True)]
    out, taps = "yz"[:axes], "vw"[:axes]
    equation = f"bgc{out}{taps},goc{taps}->bgo{out}"
    shape, groups, dilation = op.out_shape, op.groups, op.dilation
    indices = [
        torch.arange(0, span, apart, device=context.place.device) for span, apart in zip(reach, dilation, strict=True)
    ]

    def run(state: dict[str, Tensor], x: Tensor) -> Tensor:
        windows = functional.pad(x, pads)
        for axis, (span, stride) in enumerate(zip(reach, op.stride, strict=True)):
            windows = windows.unfold(2 + axis, span, stride)
        for axis, apart in enumerate(dilation):
            windows = windows.index_select(2 + axes + axis, indices[axis]) if apart > 1 else windows
        split = windows.reshape(len(x), groups, -1, *windows.shape[2:])
        y = torch.einsum(equation, split, weight).reshape(len(x), *shape)
        return y if bias is None else y + bias

    return run


def _pool(op: Op, context: KernelContext) -> Kernel:
    assert isinstance(op, Pool)
    axes = len(op.kernel)
    pads = [p for padding in reversed(op.padding) for p in (padding, padding)]
    over = tuple(range(-axes, 0))

    match op.mode:
        case "sum":
            pooled = torch.sum
        case "average":
            pooled = torch.mean
        case other:
            raise no_case(other, "mode", ENGINE)

    def run(state: dict[str, Tensor], x: Tensor) -> Tensor:
        windows = functional.pad(x, pads)
        for axis, (span, stride) in enumerate(zip(op.kernel, op.stride, strict=True)):
            windows = windows.unfold(2 + axis, span, stride)
        return pooled(windows, over)

    return run


def _delay_line(op: Op, context: KernelContext) -> Kernel:
    assert isinstance(op, DelayLine)
    length = op.kept
    back = torch.as_tensor(length - (op.steps.ravel() - op.lag), device=context.place.device)
    each = torch.arange(op.size, device=context.place.device)

    def run(state: dict[str, Tensor], x: Tensor) -> Tensor:
        if not length:
            return x
        line = torch.cat([state["line"], x[:, None]], dim=1)
        state["line"] = line[:, 1:]
        return line.reshape(len(x), length + 1, -1)[:, back, each].reshape(x.shape)

    return run


def _flatten(op: Op, context: KernelContext) -> Kernel:
    shape = op.out_shape
    return lambda state, x: x.reshape(len(x), *shape)


def _shifted(total: Tensor, exponent: int) -> Tensor:
    """total * 2^exponent, rounded down."""
    if exponent == 0:
        return total
    shifted = total * 2.0**exponent
    return shifted if exponent > 0 else torch.floor(shifted)


def _dense(op: Op, context: KernelContext) -> Kernel:
    assert isinstance(op, Mantissas)
    assert context.arithmetic is not None
    exponent = op.weight_exp
    weight = context.place.tensor(op.weight.T).contiguous()
    if not context.arithmetic.shifts_each or exponent >= 0:
        return lambda state, x: _shifted(x @ weight, exponent)
    if not context.graded:
        # Of a spike the product is the weight, so that the weights can be rounded instead.
        rounded = _shifted(weight, exponent)
        return lambda state, x: x @ rounded

    def run(state: dict[str, Tensor], x: Tensor) -> Tensor:
        total = x.new_zeros(len(x), weight.shape[1])
        at_once = max(1, PRODUCTS // max(total.numel(), 1))
        for start in range(0, len(weight), at_once):
            part = slice(start, start + at_once)
            total = total + _shifted(x[:, part, None] * weight[part], exponent).sum(1)
        return total

    return run


KERNELS: dict[type[Op], Callable[[Op, KernelContext], Kernel]] = cast(
    "dict[type[Op], Callable[[Op, KernelContext], Kernel]]",
    {
        Affine: _affine,
        SparseAffine: _affine,
        Conv: _conv,
        Pool: _pool,
        Flatten: _flatten,
        Dense: _dense,
        Sparse: _dense,
        DelayLine: _delay_line,
    },
)
"""What mixes elements -> what makes its kernel. What neither is here nor has a body is refused by name."""
