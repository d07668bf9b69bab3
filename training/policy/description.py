"""A trained spiking policy in plain numbers: float64 arrays, no torch, no graph.

    x = clip((observation - mean) / (sqrt(variance) + epsilon), -clip, clip)
    T times, layer by layer:  I = W input + b;  i = alpha i + I;  v = beta v + i;  s = v > threshold;  v = 0 where s
                              membrane readout: v = decay v + (W s + b)
    action = clip(v, low, high), or of sum(weight * spikes per step of the last layer) + offset
    a choice of actions: index of the first largest of those, without limits

The first layer's input is x, or the spikes of a population code. A layer without `alpha` has i = I, and one
that hears itself has V s of the step before in I. With `delay` 1, W
meets its input of the step before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nervecord.training.policy.network import SpikingPolicy
from nervecord.training.policy.spiking import THRESHOLD

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SpikingLayer:
    """Weight (out, in), bias (out,), membrane decay, current decay or None, threshold; recurrent weight or None."""

    weight: Array
    bias: Array
    beta: float
    alpha: float | None
    threshold: float
    recurrent: Array | None = None
    """Weight (out, out) through which the layer hears its own spikes of the step before."""


@dataclass(frozen=True, slots=True)
class PopulationCode:
    """Means (neurons,) of the receptive fields of every channel, and their width."""

    mean: Array
    sigma: float


@dataclass(frozen=True, slots=True)
class MembraneReadout:
    """Weight (actions, in), bias (actions,), decay."""

    weight: Array
    bias: Array
    decay: float


@dataclass(frozen=True, slots=True)
class CountReadout:
    """Weight (actions, neurons of a population) per spike and step, offset (actions,)."""

    weight: Array
    offset: Array


@dataclass(frozen=True, slots=True)
class PolicyDescription:
    """All numbers of a spiking policy; see the module for what they do."""

    mean: Array
    variance: Array
    epsilon: float
    clip: float
    encoder: PopulationCode | None
    layers: tuple[SpikingLayer, ...]
    readout: MembraneReadout | CountReadout
    low: Array
    high: Array
    steps: int
    state: str
    delay: int
    choices: int = 0

    @property
    def observations(self) -> int:
        """Size of an observation."""
        return len(self.mean)


def describe(
    policy: SpikingPolicy,
    *,
    normaliser: dict[str, Any],
    epsilon: float,
    clip: float,
    low: Array,
    high: Array,
    choices: int = 0,
) -> PolicyDescription:
    """The numbers of a policy.

    Args:
        policy: on any device.
        normaliser: state of the observation normaliser: mean, variance.
        epsilon, clip: the normaliser's other two numbers.
        low, high: action limits, (actions,).
        choices: number of actions to choose from, 0 where an action is values.
    """
    betas, alphas = policy.betas, policy.alphas
    layers = tuple(
        SpikingLayer(
            weight=_float64(layer.weight),
            bias=_float64(layer.bias),
            beta=betas[index].item(),
            alpha=None if alphas is None else alphas[index].item(),
            threshold=THRESHOLD,
            recurrent=None if (own := policy.recurrent_weight(index)) is None else _float64(own),
        )
        for index, layer in enumerate(policy.hidden)
    )
    return PolicyDescription(
        # Through float32: it is so rounded that the policy was given its statistics.
        mean=_float64(normaliser["mean"].float()),
        variance=_float64(normaliser["variance"].float()),
        epsilon=epsilon,
        clip=clip,
        encoder=None
        if policy.encoder is None
        else PopulationCode(_float64(policy.encoder.mean), policy.encoder.sigma.item()),
        layers=layers,
        readout=CountReadout(_float64(policy.readout.weight), _float64(policy.readout.bias))
        if policy.counts
        else MembraneReadout(
            _float64(policy.readout.weight), _float64(policy.readout.bias), policy.readout_decay.item()
        ),
        low=np.asarray(low, np.float64),
        high=np.asarray(high, np.float64),
        steps=policy.steps,
        state="carried" if policy.carried else "reset",
        delay=int(policy.delays),
        choices=choices,
    )


def _float64(tensor: torch.Tensor | Any) -> Array:
    array: Array = tensor.detach().cpu().double().numpy().copy()
    return array
