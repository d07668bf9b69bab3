"""The spiking policy run by snnTorch's own modules, one step at a time: the reference the fused operator is held to.

`snn.Leaky` and `snn.Synaptic` are made with reset_mechanism="zero". Through a reset that is not detached they run with
reset_delay=False. snnTorch has no such setting with the gradient of the reset cut off (its reset_delay=True resets one
step later; for Leaky that is the same sequence of spikes, for Synaptic one input is lost), so there the module runs
with reset_mechanism="none" and the reset is applied here, from detached spikes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import snntorch  # type: ignore[import-untyped]
import torch
from torch import Tensor
from torch.nn import functional

from nervecord.compiler.population import ONE
from nervecord.training.policy.spiking import THRESHOLD, LayerState

if TYPE_CHECKING:
    from nervecord.training.policy.network import SpikingPolicy


class _Spike(torch.autograd.Function):
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


class _LiteralLayer:
    """One snnTorch module and its state."""

    def __init__(self, policy: SpikingPolicy, index: int, state: LayerState) -> None:
        self.synaptic, self.detached = policy.synaptic, policy.settings.detached
        slope = policy.settings.slope
        settings: dict[str, Any] = {
            "beta": policy.betas[index].detach(),
            "threshold": THRESHOLD,
            "spike_grad": lambda x: _Spike.apply(x, slope),  # type: ignore[no-untyped-call]
            "reset_mechanism": "none" if self.detached else "zero",
            "reset_delay": False,
        }
        alphas = policy.alphas
        if alphas is not None:
            self.neuron = snntorch.Synaptic(alpha=alphas[index].detach(), **settings)
            self.neuron.alpha = alphas[index]
        else:
            self.neuron = snntorch.Leaky(**settings)
        # Given as buffers, so that the decays' gradient reaches the policy's own parameters.
        self.neuron.beta = policy.betas[index]
        # snnTorch keeps every neuron ever made in a list of the class.
        snntorch.SpikingNeuron.instances.remove(self.neuron)
        self.v, self.i, self.spikes = state.v, state.i, state.last

    def step(self, current: Tensor) -> Tensor:
        """Spikes (B, N) of one step with the input current (B, N)."""
        if self.synaptic:
            self.spikes, self.i, self.v = self.neuron(current, self.i, self.v)
        else:
            self.spikes, self.v = self.neuron(current, self.v)
        if self.detached:
            self.v = self.v * (1 - self.spikes.detach())
        return self.spikes


def literal_forward(policy: SpikingPolicy, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """What `policy.forward` computes, by the letter: T steps of encoder, linear layer, neuron, ..., readout."""
    before = policy.unpack(x, state)
    layers = [_LiteralLayer(policy, index, part) for index, part in enumerate(before.layers)]
    out, phase, spikes = before.readout, before.phase, torch.zeros(())
    given = [before.entered, *(part.last for part in before.layers)]
    for _ in range(policy.steps):
        now = [x]
        if policy.encoder is not None and phase is not None:
            phase = phase + policy.encoder.units(x)
            now = [(phase >= ONE).to(x.dtype)]
            phase = phase - ONE * now[0]
        for index, layer in enumerate(layers):
            signal = given[index] if policy.delays else now[index]
            now.append(layer.step(policy.hidden[index](signal)))
        if policy.counts:
            spikes = spikes + now[-1]
        else:
            signal = given[-1] if policy.delays else now[-1]
            out = policy.readout_decay * out + functional.linear(signal, policy.readout.weight, policy.readout.bias)
        given = now
    if policy.counts:
        out = policy.readout(spikes / policy.steps)
    states = [LayerState(layer.v, layer.i, layer.spikes) for layer in layers]
    return out, policy.pack(states, given[0], phase, out)
