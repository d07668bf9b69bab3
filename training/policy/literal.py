"""The spiking policy run by snnTorch's own modules, one step at a time: the reference the fused operator is held to.

`snn.Leaky` and `snn.Synaptic` are made with reset_mechanism="zero". Through a reset that is not detached they run with
reset_delay=False. snnTorch has no such setting with the gradient of the reset cut off (its reset_delay=True resets one
step later; for Leaky that is the same sequence of spikes, for Synaptic one input is lost), so there the module runs
with reset_mechanism="none" and the reset is applied here, from detached spikes. Layers that hear themselves are
`snn.RLeaky` and `snn.RSynaptic`; the latter's reset_delay=False takes the spikes of the step before and drops the
result (snnTorch 1.0.0), so it too runs without its reset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import snntorch  # type: ignore[import-untyped]
import torch
from torch import Tensor
from torch.nn import functional

from nervecord.compiler.ops.population import ONE
from nervecord.training.policy.spiking import THRESHOLD, LayerState, Spike

if TYPE_CHECKING:
    from nervecord.training.policy.network import SpikingPolicy


class _LiteralLayer:
    """One snnTorch module and its state."""

    def __init__(self, policy: SpikingPolicy, index: int, state: LayerState) -> None:
        self.synaptic, self.detached = policy.synaptic, policy.settings.detached
        self.hears_itself = bool(policy.recurrent)
        self.resets_here = self.detached or (self.hears_itself and self.synaptic)
        slope = policy.settings.slope
        settings: dict[str, Any] = {
            "beta": policy.betas[index].detach(),
            "threshold": THRESHOLD,
            "spike_grad": lambda x: Spike.apply(x, slope),  # type: ignore[no-untyped-call]
            "reset_mechanism": "none" if self.resets_here else "zero",
            "reset_delay": False,
        }
        alphas = policy.alphas
        leaky, synaptic = snntorch.Leaky, snntorch.Synaptic
        if self.hears_itself:
            leaky, synaptic = snntorch.RLeaky, snntorch.RSynaptic
            settings |= {"linear_features": policy.widths[index]}
        if alphas is not None:
            self.neuron = synaptic(alpha=alphas[index].detach(), **settings)
            self.neuron.alpha = alphas[index]
        else:
            self.neuron = leaky(**settings)
        if self.hears_itself:
            self.neuron.recurrent = policy.recurrent[index]
        # Given as buffers, so that the decays' gradient reaches the policy's own parameters.
        self.neuron.beta = policy.betas[index]
        # snnTorch keeps every neuron ever made in a list of the class.
        snntorch.SpikingNeuron.instances.remove(self.neuron)
        self.v, self.i, self.spikes = state.v, state.i, state.last

    def step(self, current: Tensor) -> Tensor:
        """Spikes (B, N) of one step with the input current (B, N)."""
        feedback = (self.spikes,) if self.hears_itself else ()
        if self.synaptic:
            self.spikes, self.i, self.v = self.neuron(current, *feedback, self.i, self.v)
        else:
            self.spikes, self.v = self.neuron(current, *feedback, self.v)
        if self.resets_here:
            self.v = self.v * (1 - (self.spikes.detach() if self.detached else self.spikes))
        return self.spikes


def literal_forward(policy: SpikingPolicy, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """What `policy.forward` computes, by the letter: T steps of encoder, linear layer, neuron, ..., readout."""
    before = policy.unpack(x, state)
    layers = [_LiteralLayer(policy, index, part) for index, part in enumerate(before.layers)]
    out, phase, spikes = before.readout, before.phase, torch.zeros(())
    values = [before.entered, *(part.last for part in before.layers)]
    for _ in range(policy.steps):
        now = [x]
        if policy.encoder is not None and phase is not None:
            phase = phase + policy.encoder.units(x)
            now = [(phase >= ONE).to(x.dtype)]
            phase = phase - ONE * now[0]
        for index, layer in enumerate(layers):
            signal = values[index] if policy.delays else now[index]
            now.append(layer.step(policy.hidden[index](signal)))
        if policy.counts:
            spikes = spikes + now[-1]
        else:
            signal = values[-1] if policy.delays else now[-1]
            out = policy.readout_decay * out + functional.linear(signal, policy.readout.weight, policy.readout.bias)
        values = now
    if policy.counts:
        out = policy.readout(spikes / policy.steps)
    states = [LayerState(layer.v, layer.i, layer.spikes) for layer in layers]
    return out, policy.pack(states, values[0], phase, out)
