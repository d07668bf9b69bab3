"""What a rollout says of the values of its states: advantages and returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of a rollout, each (T, N)."""

    values: Tensor
    """What the critic gives, without gradient."""
    advantages: Tensor
    returns: Tensor
    """What the critic should give: values and advantages together."""


def generalised_advantages(
    rewards: Tensor, values: Tensor, terminated: Tensor, truncated: Tensor, gamma: float, lam: float
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438).

    A step's value is bootstrapped from the observation it led to, but where the task ended in it, time limit or not.
    No advantage runs through an end; so what a step that only resets holds reaches no valid step.

    Args:
        rewards, terminated, truncated: (T, N).
        values: of the observations, (T + 1, N).
        gamma, lam: discount and lambda.

    Returns:
        (T, N).
    """
    advantages = torch.empty_like(rewards)
    deltas = rewards + gamma * values[1:].masked_fill(terminated, 0.0) - values[:-1]
    decay = gamma * lam * (~(terminated | truncated)).to(rewards)
    running = torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        running = deltas[t] + decay[t] * running
        advantages[t] = running
    return advantages


def explained_variance(values: Tensor, returns: Tensor, valid: Tensor) -> Tensor:
    """Share of the returns' variance that the values (T, N) explain, over the valid steps; a scalar, 1 at best."""
    weight = valid.to(values)
    count = weight.sum()

    def variance(x: Tensor) -> Tensor:
        mean = (x * weight).sum() / count
        return ((x - mean).square() * weight).sum() / count

    return 1 - variance(returns - values) / variance(returns).clamp(min=1e-12)
