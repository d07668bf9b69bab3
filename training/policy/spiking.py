"""One spiking layer over all T steps as one differentiable operator.

    i_t = alpha i_(t-1) + I_t                (synaptic; a leaky neuron has i_t = I_t)
    v_t = beta v_(t-1) + i_t
    s_t = 1 where v_t > threshold, strictly  (gradient: 1 / (1 + slope |v_t - threshold|)^2)
    v_t = 0 where s_t = 1

These are snnTorch's Leaky and Synaptic with reset_mechanism="zero" and the reset in the step of the spike
(reset_delay=False); `nervecord.training.policy.literal` runs those modules, and the tests hold the two equal.

The reset: with `detached` the gradient does not go through the s_t of the last line, only through v_t where the neuron
did not fire. Without it, it does, as snnTorch's reset_delay=False does.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

THRESHOLD = 1.0
"""Threshold of every spiking neuron; weights and biases make up for it."""


@dataclass(frozen=True, slots=True)
class LayerSettings:
    """What of a layer is fixed while it learns."""

    steps: int
    synaptic: bool = False
    slope: float = 5.0
    detached: bool = True
    threshold: float = THRESHOLD


@dataclass(frozen=True, slots=True)
class LayerState:
    """State of a layer between two steps, each tensor (B, N): membrane, current, and the spikes of the last step."""

    v: Tensor
    i: Tensor
    last: Tensor


_P = ParamSpec("_P")
_R = TypeVar("_R")
Run: TypeAlias = "tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]"
"""Result of a forward pass: spikes or their sum; final membrane, current and spikes where they are kept."""


class _Layer(torch.autograd.Function):
    """The operator; the state goes in and out without gradient (no backpropagation from one action into another)."""

    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        alpha: Tensor,
        beta: Tensor,
        weights: Tensor | None,
        v0: Tensor | None,
        i0: Tensor | None,
        settings: LayerSettings,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        run = _forward_numba if current.device.type == "cpu" else compiled(_forward_torch)
        out, v, i, last = run(current, alpha, beta, weights, v0, i0, settings)
        ctx.save_for_backward(current, alpha, beta, weights, v0, i0)
        ctx.settings = settings
        ctx.mark_non_differentiable(*(part for part in (v, i, last) if part is not None))
        ctx.set_materialize_grads(False)
        return out, v, i, last

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, *_state: Any) -> tuple[Tensor | None, ...]:
        if grad_out is None:
            return (None,) * 7
        current, alpha, beta, weights, v0, i0 = ctx.saved_tensors
        run = _backward_numba if current.device.type == "cpu" else compiled(_backward_torch)
        grads = run(grad_out, current, alpha, beta, weights, v0, i0, ctx.settings)
        return (*grads, None, None, None)


@functools.cache
def compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A pass whose torch operators become a few kernels that keep v and i in registers over all T steps (Triton's on a
    GPU, by torch.compile). Where torch cannot compile here it warns once and runs the operators one by one."""
    attempt: Callable[_P, _R] | None = None
    able = True

    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        nonlocal attempt, able
        if able:
            try:
                if attempt is None:
                    # For batches of any size: one kernel serves collecting, updates and validation.
                    attempt = torch.compile(function, dynamic=True)
                return attempt(*args, **kwargs)
            except (torch._dynamo.exc.TorchDynamoException, RuntimeError) as error:
                if attempt is not None and not isinstance(error, torch._dynamo.exc.TorchDynamoException):
                    raise  # of the computation itself, as of a GPU without memory
                able = False
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                warnings.warn(f"torch.compile fails here ({reason}); the spiking layer runs slower", stacklevel=2)
        return function(*args, **kwargs)

    return run


def spike_layer(
    current: Tensor,
    beta: Tensor,
    settings: LayerSettings,
    *,
    alpha: Tensor | None = None,
    weights: Tensor | None = None,
    state: LayerState | None = None,
    recurrent: Tensor | None = None,
) -> tuple[Tensor, LayerState | None]:
    """Run one layer for `settings.steps` steps.

    Args:
        current: input current, (1, B, N) where it is constant over the steps, else (T, B, N).
        beta: membrane decay, a scalar tensor.
        settings: what is fixed.
        alpha: current decay, a scalar tensor; needed where `settings.synaptic`.
        weights: (T,); with it the result is the weighted spike sum, without it the spike train.
        state: state before the first step; None to start from zero and to keep none.
        recurrent: weights (N, N) through which the layer hears its own spikes of the step before.

    Returns:
        sum_t weights[t] s_t, (B, N), or the spikes, (T, B, N); and the state after the last step (no gradient), None
        where none was given.
    """
    if alpha is None:
        alpha = torch.zeros_like(beta)
    if recurrent is not None:
        return _recurrent_layer(current, alpha, beta, settings, weights, state, recurrent)
    v0, i0 = (None, None) if state is None else (state.v, state.i)
    out, v, i, last = _Layer.apply(current, alpha, beta, weights, v0, i0, settings)  # type: ignore[no-untyped-call]
    return out, None if state is None else LayerState(v, i, last)


class Spike(torch.autograd.Function):
    """Step function; gradient 1 / (1 + slope |x|)^2, x being the membrane above the threshold."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grad / (1 + ctx.slope * x.abs()) ** 2, None


def _recurrent_layer(
    current: Tensor,
    alpha: Tensor,
    beta: Tensor,
    settings: LayerSettings,
    weights: Tensor | None,
    state: LayerState | None,
    recurrent: Tensor,
) -> tuple[Tensor, LayerState | None]:
    """A layer that hears itself, in torch's operators step by step: a product at each step leaves nothing to fuse."""
    zeros = current.new_zeros(current.shape[1:])
    v, i, spikes = (zeros, zeros, zeros) if state is None else (state.v, state.i, state.last)
    train = []
    for t in range(settings.steps):
        row = current[0] if current.shape[0] == 1 else current[t]
        entering = row + torch.nn.functional.linear(spikes, recurrent)
        i = alpha * i + entering if settings.synaptic else i
        v = beta * v + (i if settings.synaptic else entering)
        spikes = Spike.apply(v - settings.threshold, settings.slope)  # type: ignore[no-untyped-call]
        v = v * (1 - (spikes.detach() if settings.detached else spikes))
        train.append(spikes)
    stacked = torch.stack(train)
    out = stacked if weights is None else torch.einsum("t,tbn->bn", weights, stacked)
    return out, None if state is None else LayerState(v.detach(), i.detach(), spikes.detach())


def _constants(alpha: Tensor, beta: Tensor, settings: LayerSettings, dtype: np.dtype[Any]) -> np.ndarray:
    return np.array([alpha.item(), beta.item(), settings.threshold, settings.slope, 1.0, 0.0], dtype=dtype)


def _start(current: Tensor, first: Tensor | None) -> Tensor:
    """The first value of a state, (B, N); one row of zeros, (1, N), where there is none."""
    return current.new_zeros(1, current.shape[-1]) if first is None else first


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().contiguous().numpy()
    return array


def _given(
    current: Tensor,
    alpha: Tensor,
    beta: Tensor,
    weights: Tensor | None,
    v0: Tensor | None,
    i0: Tensor | None,
    settings: LayerSettings,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, bool, bool, bool]:
    """What both kernels take first: the current, where v and i start, the constants, the weights of the steps, and
    whether there is a synapse, a weighted sum, a state that continues."""
    array = _array(current)
    return (
        array,
        _array(_start(current, v0)),
        _array(_start(current, i0)),
        _constants(alpha, beta, settings, array.dtype),
        _array(weights) if weights is not None else np.zeros(settings.steps, array.dtype),
        settings.synaptic,
        weights is not None,
        v0 is not None,
    )


def _forward_numba(
    current: Tensor,
    alpha: Tensor,
    beta: Tensor,
    weights: Tensor | None,
    v0: Tensor | None,
    i0: Tensor | None,
    settings: LayerSettings,
) -> Run:
    from nervecord.training.policy import kernels

    summed = weights is not None
    shape, stateful = current.shape[1:], v0 is not None
    v, i, last = (current.new_empty(shape if stateful else (0, 0)) for _ in range(3))
    out = current.new_empty(shape if summed else (settings.steps, *shape))
    unused = current.new_empty((1, 1, 1)) if summed else current.new_empty((1, 1))
    kernels.forward(
        *_given(current, alpha, beta, weights, v0, i0, settings),
        (unused if summed else out).numpy(),
        (out if summed else unused).numpy(),
        v.numpy(),
        i.numpy(),
        last.numpy(),
    )
    return (out, v, i, last) if stateful else (out, None, None, None)


def _backward_numba(
    grad_out: Tensor,
    current: Tensor,
    alpha: Tensor,
    beta: Tensor,
    weights: Tensor | None,
    v0: Tensor | None,
    i0: Tensor | None,
    settings: LayerSettings,
) -> tuple[Tensor | None, ...]:
    from nervecord.training.policy import kernels

    grad_current = torch.empty_like(current, memory_format=torch.contiguous_format)
    grad_decays = np.zeros(2)
    grad_weights = np.zeros(settings.steps)
    grads = _array(grad_out)
    kernels.backward(
        *_given(current, alpha, beta, weights, v0, i0, settings),
        settings.detached,
        grads if weights is None else grads[None],
        grad_current.numpy(),
        grad_decays,
        grad_weights,
    )
    return (
        grad_current,
        alpha.new_tensor(grad_decays[0]) if settings.synaptic else None,
        beta.new_tensor(grad_decays[1]),
        weights.new_tensor(grad_weights) if weights is not None else None,
    )


def _steps(
    current: Tensor, alpha: Tensor, beta: Tensor, v0: Tensor | None, i0: Tensor | None, settings: LayerSettings
) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    """Membrane and current at the start of each step (and after the last), charged membrane, spikes."""
    zeros = current.new_zeros(current.shape[1:])
    v0, i0 = zeros if v0 is None else v0, zeros if i0 is None else i0
    befores, synapses, chargeds, spikes = [v0], [i0], [], []
    for t in range(settings.steps):
        row = current[0] if current.shape[0] == 1 else current[t]
        synapses.append(alpha * synapses[-1] + row if settings.synaptic else i0)
        chargeds.append(beta * befores[-1] + (synapses[-1] if settings.synaptic else row))
        fired = chargeds[-1] > settings.threshold
        spikes.append(fired.to(current.dtype))
        befores.append(chargeds[-1].masked_fill(fired, 0.0))
    return befores, synapses, chargeds, spikes


def _forward_torch(
    current: Tensor,
    alpha: Tensor,
    beta: Tensor,
    weights: Tensor | None,
    v0: Tensor | None,
    i0: Tensor | None,
    settings: LayerSettings,
) -> Run:
    """The same in torch operators, for a device that numba's loops do not run on."""
    befores, synapses, _, spikes = _steps(current, alpha, beta, v0, i0, settings)
    train = torch.stack(spikes)
    out = train if weights is None else torch.einsum("t,tbn->bn", weights, train)
    if v0 is None:
        return out, None, None, None
    return out, befores[-1].clone(), synapses[-1].clone(), spikes[-1].clone()


def _backward_torch(
    grad_out: Tensor,
    current: Tensor,
    alpha: Tensor,
    beta: Tensor,
    weights: Tensor | None,
    v0: Tensor | None,
    i0: Tensor | None,
    settings: LayerSettings,
) -> tuple[Tensor | None, ...]:
    befores, synapses, chargeds, spikes = _steps(current, alpha, beta, v0, i0, settings)
    constant = current.shape[0] == 1
    grad_v, grad_i = torch.zeros_like(befores[0]), torch.zeros_like(befores[0])
    grad_alpha, grad_beta = torch.zeros_like(alpha), torch.zeros_like(beta)
    grad_steps: list[Tensor] = []
    for t in reversed(range(settings.steps)):
        x, fired = chargeds[t], spikes[t]
        out = grad_out[t] if weights is None else weights[t] * grad_out
        carried = grad_v * (1 - fired)
        through = out if settings.detached else out - grad_v * x
        grad_x = through / (1 + settings.slope * (x - settings.threshold).abs()) ** 2 + carried
        grad_beta = grad_beta + (grad_x * befores[t]).sum()
        if settings.synaptic:
            grad_i = grad_x + alpha * grad_i
            grad_alpha = grad_alpha + (grad_i * synapses[t]).sum()
        grad_steps.append(grad_i if settings.synaptic else grad_x)
        grad_v = beta * grad_x
    stacked = torch.stack(grad_steps[::-1])
    grad_weights = None
    if weights is not None:
        grad_weights = torch.stack([(grad_out * s).sum() for s in spikes])
    return (
        stacked.sum(0, keepdim=True) if constant else stacked,
        grad_alpha if settings.synaptic else None,
        grad_beta,
        grad_weights,
    )
