"""Every op of a core in torch: what its `step` defines, for a batch on a device.

A kernel takes the op's state and its input, both (batch, ...), and returns its output; tensors are replaced in the
state, never written into, so that whoever holds one from an earlier step still has what it was. Factors of 1 and terms
of 0 are left out where leaving them out changes no bit.

Float kernels compute what the definition does, operation by operation; only sums of products are added up in another
order. Integer kernels are exact (see `integers`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nervecord.compiler.lower.ranges import UnitRange
from nervecord.compiler.ops import (
    Activation,
    Affine,
    Array,
    Conv,
    DelayLine,
    Dense,
    Flatten,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Mantissas,
    Membrane,
    Neuron,
    Op,
    Pool,
    Scale,
    Sparse,
    SparseAffine,
    Spike,
    Synapse,
    Threshold,
)
from nervecord.errors import GraphError, no_case
from nervecord.targets.batched.integers import Whole
from nervecord.targets.batched.place import Place

Kernel: TypeAlias = Callable[[dict[str, Tensor], Tensor], Tensor]
ENGINE = "engine torch"
PRODUCTS = 1 << 24
"""Products held at once where each is rounded on its own."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a kernel is made for.

    Args:
        place: device and type.
        whole: the arithmetic of a graph of integers; None of floats.
        graded: other values than binary spikes enter.
        proved: what a population of integers can reach.
    """

    place: Place
    whole: Whole | None
    graded: bool
    proved: UnitRange | None = None


def kernel(op: Op, ground: Ground) -> Kernel:
    """An op's step.

    Raises:
        GraphError: there is none for this op.
    """
    maker = KERNELS.get(type(op))
    if maker is None:
        raise GraphError(
            f"{op.kind} is not among what engine torch runs", where=op.label, hint="the definition runs every op"
        )
    return maker(op, ground)


# --------------------------------------------------------------------------------------------------------------------
# Connections, and what passes values on


def _affine(op: Op, ground: Ground) -> Kernel:
    assert isinstance(op, (Affine, SparseAffine))
    weight = ground.place.tensor(op.weight.T).contiguous()
    bias = None if op.bias is None else ground.place.tensor(op.bias)
    if bias is None:
        return lambda state, x: x @ weight
    return lambda state, x: x @ weight + bias


def _conv(op: Op, ground: Ground) -> Kernel:
    """As windows and one product, and not by a library of convolutions, whose own precision settings would count."""
    assert isinstance(op, Conv)
    axes = len(op.input_size)
    weight = ground.place.tensor(op.weight.reshape(op.groups, -1, *op.weight.shape[1:]))
    bias = None if op.bias is None else ground.place.tensor(op.bias.reshape(-1, *(1,) * axes))
    pads = [p for padding in reversed(op.padding) for p in (padding, padding)]
    reach = [d * (k - 1) + 1 for d, k in zip(op.dilation, op.weight.shape[2:], strict=True)]
    out, taps = "yz"[:axes], "vw"[:axes]
    equation = f"bgc{out}{taps},goc{taps}->bgo{out}"
    shape, groups, dilation = op.out_shape, op.groups, op.dilation
    taken = [
        torch.arange(0, span, apart, device=ground.place.device) for span, apart in zip(reach, dilation, strict=True)
    ]

    def run(state: dict[str, Tensor], x: Tensor) -> Tensor:
        windows = functional.pad(x, pads)
        for axis, (span, stride) in enumerate(zip(reach, op.stride, strict=True)):
            windows = windows.unfold(2 + axis, span, stride)
        for axis, apart in enumerate(dilation):
            windows = windows.index_select(2 + axes + axis, taken[axis]) if apart > 1 else windows
        split = windows.reshape(len(x), groups, -1, *windows.shape[2:])
        y = torch.einsum(equation, split, weight).reshape(len(x), *shape)
        return y if bias is None else y + bias

    return run


def _pool(op: Op, ground: Ground) -> Kernel:
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


def _activation(op: Op, ground: Ground) -> Kernel:
    assert isinstance(op, Activation)
    alpha = op.alpha
    match op.function:
        case "tanh":
            return lambda state, x: torch.tanh(x)
        case "relu":
            return lambda state, x: x.clamp(min=0)
        case "elu":
            return lambda state, x: torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0)))
        case other:
            raise no_case(other, "function", ENGINE)


def _delay_line(op: Op, ground: Ground) -> Kernel:
    assert isinstance(op, DelayLine)
    kept = op.kept
    back = torch.as_tensor(kept - (op.steps.ravel() - op.lag), device=ground.place.device)
    each = torch.arange(op.size, device=ground.place.device)

    def run(state: dict[str, Tensor], x: Tensor) -> Tensor:
        if not kept:
            return x
        line = torch.cat([state["line"], x[:, None]], dim=1)
        state["line"] = line[:, 1:]
        return line.reshape(len(x), kept + 1, -1)[:, back, each].reshape(x.shape)

    return run


def _scale(op: Op, ground: Ground) -> Kernel:
    assert isinstance(op, Scale)
    scale = ground.place.tensor(op.scale)
    return lambda state, x: scale * x


def _flatten(op: Op, ground: Ground) -> Kernel:
    shape = op.out_shape
    return lambda state, x: x.reshape(len(x), *shape)


def _dense(op: Op, ground: Ground) -> Kernel:
    assert isinstance(op, Mantissas)
    assert ground.whole is not None
    whole, exponent = ground.whole, op.weight_exp
    weight = ground.place.tensor(op.weight.T).contiguous()
    if not whole.arithmetic.shifts_each or exponent >= 0:
        return lambda state, x: whole.shifted(x @ weight, exponent)
    if not ground.graded:
        # Of a spike the product is the weight, so that the weights can be rounded instead.
        rounded = whole.shifted(weight, exponent)
        return lambda state, x: x @ rounded

    def run(state: dict[str, Tensor], x: Tensor) -> Tensor:
        total = x.new_zeros(len(x), weight.shape[1])
        at_once = max(1, PRODUCTS // max(total.numel(), 1))
        for start in range(0, len(weight), at_once):
            part = slice(start, start + at_once)
            total = total + whole.shifted(x[:, part, None] * weight[part], exponent).sum(1)
        return total

    return run


# --------------------------------------------------------------------------------------------------------------------
# Populations


def _threshold(op: Op, ground: Ground) -> Kernel:
    assert isinstance(op, Threshold)
    threshold = ground.place.tensor(op.threshold)
    return lambda state, x: (x > threshold).to(x.dtype)


def _neuron(op: Op, ground: Ground) -> Kernel:
    assert isinstance(op, Neuron)
    if isinstance(op.membrane, IntegerMembrane):
        return _integer_neuron(op, ground)
    membrane = _membrane(op, ground.place)
    if op.spike is None:

        def read(state: dict[str, Tensor], x: Tensor) -> Tensor:
            state["v"] = v = membrane(state, x)
            return v

        return read
    assert isinstance(op.spike, Spike)
    threshold, spike, zero = ground.place.tensor(op.spike.threshold), op.spike, ground.place.zeros()
    reset = _reset(spike, ground.place)
    late, early = spike.reset == "subtract-late", spike.reset == "subtract-early"

    def fire(state: dict[str, Tensor], x: Tensor) -> Tensor:
        v = membrane(state, x)
        above = state["v"] > threshold if early else None
        if above is not None:
            v = torch.where(above, v - threshold, v)
        spiked = v > threshold
        owed = zero
        if spike.refractory:
            resting = state["rest"] > 0
            spiked = spiked & ~resting
            above = None if above is None else above & ~resting
            v = torch.where(resting, state["v"], v)
            state["rest"] = (state["rest"] - 1).clamp(min=0).masked_fill(spiked, float(spike.refractory))
            owed = torch.where(resting, state["owed"], zero) if late else zero
        if late:
            state["owed"] = torch.where(spiked, threshold, owed)
        # The threshold that came off before the comparison is given back where no spike followed, and is off one else.
        state["v"] = reset(v, spiked if above is None else spiked & ~above)
        if above is not None:
            state["v"] = torch.where(above & ~spiked, state["v"] + threshold, state["v"])
        return spiked.to(v.dtype)

    return fire


def _membrane(op: Neuron, place: Place) -> Kernel:
    """v of a step before any spike; the synaptic current in the state is updated."""
    held, synapse = op.membrane, op.synapse
    assert isinstance(held, Membrane)
    decay, gain, leak = place.tensor(held.decay), _factor(held.gain, place), _term(held.leak, place)
    synapse_decay = synapse_gain = None
    if isinstance(synapse, Synapse):
        synapse_decay, synapse_gain = place.tensor(synapse.decay), _factor(synapse.gain, place)

    def run(state: dict[str, Tensor], x: Tensor) -> Tensor:
        if synapse_decay is not None:
            entering = x if synapse_gain is None else synapse_gain * x
            state["u"] = x = synapse_decay * state["u"] + entering
        v = decay * state["v"] + (x if gain is None else gain * x)
        v = v if leak is None else v + leak
        return v - state["owed"] if "owed" in state else v

    return run


def _factor(values: Array, place: Place) -> Tensor | None:
    return None if (values == 1).all() else place.tensor(values)


def _term(values: Array, place: Place) -> Tensor | None:
    return None if (values == 0).all() else place.tensor(values)


def _reset(spike: Spike, place: Place) -> Callable[[Tensor, Tensor], Tensor]:
    match spike.reset:
        case "value":
            value = place.tensor(spike.reset_value)
            if (spike.reset_value == 0).all():
                value = place.zeros()
            return lambda v, spiked: torch.where(spiked, value, v)
        case "subtract" | "subtract-early":
            threshold = place.tensor(spike.threshold)
            return lambda v, spiked: torch.where(spiked, v - threshold, v)
        case "none" | "subtract-late":
            return lambda v, spiked: v
        case other:
            raise no_case(other, "reset", ENGINE)


def _integer_neuron(op: Neuron, ground: Ground) -> Kernel:
    whole, held, proved = ground.whole, op.membrane, ground.proved
    assert whole is not None
    assert proved is not None
    assert isinstance(held, IntegerMembrane)
    a = whole.arithmetic
    # Spiking neurons have a threshold, those that are read none: their ranges are proved when the engine opens.
    threshold = op.spike.threshold if isinstance(op.spike, IntegerSpike) else None
    code = op.synapse.decay if isinstance(op.synapse, IntegerSynapse) else None
    shift = float(1 << a.input_shift)
    bias = held.bias.astype(np.int64) << held.bias_exp
    into_current = _term(bias, ground.place) if a.bias_in_current else None
    into_membrane = _term(bias, ground.place) if not a.bias_in_current else None
    late = code is not None and a.current_is_late
    # What cannot overflow needs no look at whether it did.
    low, high = a.membrane_range
    current_overflows = proved.current > a.current_limit
    membrane_overflows = proved.membrane[0] < low or proved.membrane[1] > high

    def run(state: dict[str, Tensor], x: Tensor) -> Tensor:
        entering = x * shift
        if code is not None:
            entering = whole.decayed(state["u"], code) + entering
        if into_current is not None:
            entering = entering + into_current
        if current_overflows:
            entering = whole.current(entering)
        received = state["u"] if late else entering
        if code is not None:
            state["u"] = entering
        v = whole.decayed(state["v"], held.decay) + received
        if into_membrane is not None:
            v = v + into_membrane
        if membrane_overflows:
            v = whole.membrane(v)
        if threshold is None:
            state["v"] = v
            return v
        spikes, state["v"] = whole.fire(v, threshold)
        return spikes

    return run


KERNELS: dict[type[Op], Callable[[Op, Ground], Kernel]] = cast(
    "dict[type[Op], Callable[[Op, Ground], Kernel]]",
    {
        Affine: _affine, SparseAffine: _affine, Conv: _conv, Pool: _pool, Scale: _scale, Flatten: _flatten,
        Dense: _dense, Sparse: _dense,
        Threshold: _threshold, Neuron: _neuron, Activation: _activation, DelayLine: _delay_line,
    },
)  # fmt: skip
"""Op -> what makes its kernel. What is not here is refused by name."""
