"""The two ends of a spiking policy beside constant current and membrane: population code in, spike counts out.

The population code is fixed: its means are spread evenly over -3..3 of the normalised observation, and nothing about it
is learnt, so no gradient passes it. It computes what `compiler.population` defines; spikes of the two differ only where
float32 rounds an activation to another unit of 2^-20.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nervecord.compiler.ops.population import ONE

FIELD_RANGE = 3.0
"""Outermost means, in standard deviations of an observation; what lies beyond counts as there."""
FIELD_WIDTH = 0.6
"""sigma, in distances between two means."""


class PopulationEncoder(nn.Module):
    """Observations as spikes of `neurons` per channel, over T steps: a PopulationEncode node in torch."""

    mean: Tensor
    sigma: Tensor

    def __init__(self, channels: int, neurons: int) -> None:
        super().__init__()
        self.size = channels * neurons
        mean = torch.linspace(-FIELD_RANGE, FIELD_RANGE, neurons)
        sigma = torch.tensor(FIELD_WIDTH * 2 * FIELD_RANGE / (neurons - 1))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("sigma", sigma, persistent=False)

    def units(self, x: Tensor) -> Tensor:
        """What each neuron's accumulator gains per step, in whole units of 2^-20: (B, channels) -> (B, size)."""
        clamped = x.detach().clamp(self.mean[0], self.mean[-1])
        z = (clamped[..., None] - self.mean) / self.sigma
        return torch.round(torch.exp(-0.5 * z * z) * ONE).flatten(1)

    def forward(self, x: Tensor, steps: int, phase: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """T steps of spikes.

        Args:
            x: normalised observations, (B, channels).
            steps: T.
            phase: accumulators before the first step, (B, size); None for zeros.

        Returns:
            Spikes (T, B, size) and the accumulators after the last step. Whole numbers below 2^21: exact in float32.
        """
        units = self.units(x)
        v = torch.zeros_like(units) if phase is None else phase
        spikes = units.new_empty((steps, *units.shape))
        for t in range(steps):
            v = v + units
            spikes[t] = v >= ONE
            v = v - ONE * spikes[t]
        return spikes, v


class CountReadout(nn.Module):
    """Action means from spike rates: each action a weighted sum over a population of its own, and an offset."""

    def __init__(self, actions: int, neurons: int, gain: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(actions, neurons))
        self.bias = nn.Parameter(torch.zeros(actions))
        # Rows of length `gain`, as the orthogonal weights of the other readout.
        nn.init.normal_(self.weight)
        with torch.no_grad():
            self.weight.mul_(gain / self.weight.norm(dim=1, keepdim=True))

    def forward(self, rate: Tensor) -> Tensor:
        """(B, actions * neurons) spikes per step -> (B, actions)."""
        return (rate.reshape(len(rate), *self.weight.shape) * self.weight).sum(-1) + self.bias
