"""Rewards of several steps in one transition: what a target sums before the critic's value follows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nervecord.training.learners.base import Rollout


@dataclass(frozen=True, slots=True)
class Windows:
    """Of each step of a rollout, the steps from it on that its target sums; each (T, N)."""

    rewards: Tensor
    """sum_j gamma^j r_(t+j) over the window's k steps, float64."""
    after: Tensor
    """The row of the rollout's observations that the window led to, t + k, int64."""
    discount: Tensor
    """gamma^(k-1), float64; 0 where the task ended in the window's last step."""


def windows(rollout: Rollout, gamma: float, steps: int) -> Windows:
    """Windows of `steps` steps, and of fewer where an episode or the rollout ends before.

    A window never goes beyond an end, so what a step that only resets holds reaches no valid step.

    Args:
        rollout: T steps of N environments.
        gamma: discount.
        steps: of a window, 1 or more.
    """
    length = len(rollout.valid)
    rewards, discount = rollout.rewards.clone(), torch.ones_like(rollout.rewards)
    after = torch.arange(1, length + 1, device=rewards.device)[:, None].expand_as(rewards).clone()
    ended = rollout.terminated.clone()
    open_ = ~rollout.done
    for j in range(1, min(steps, length)):
        # Rows t of which step t + j is in the rollout, and in the same episode.
        goes_on = open_[: length - j]
        rewards[: length - j] += torch.where(goes_on, gamma**j * rollout.rewards[j:], 0.0)
        discount[: length - j][goes_on] = gamma**j
        after[: length - j] += goes_on
        ended[: length - j] |= goes_on & rollout.terminated[j:]
        open_ = goes_on & ~rollout.done[j:]
    return Windows(rewards, after, discount.masked_fill(ended, 0.0))
