"""Rows drawn by weight: what an off-policy learner, or an imitator, has seen.

`Replay` has LAP's priorities (Fujimoto, Meger and Precup 2020, arXiv 2007.06049): a transition is drawn with a
probability proportional to max(|TD error|, least)^alpha, and a new one has the greatest priority there is. The loss
that belongs to it is a Huber loss (`nervecord.training.learners.td7`), which makes importance weights needless.

Weights lie in a sum tree: drawing and changing B of N cost B log N, not N.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]


class SumTree:
    """Weights of which one can be drawn in proportion, and changed, in the logarithm of their number.

    Args:
        size: number of weights; all are 0 at first.
    """

    def __init__(self, size: int) -> None:
        self.depth = max(1, (size - 1).bit_length())
        self.leaves = 1 << self.depth
        # Node k has the children 2k and 2k + 1; node 1 is the root, the leaves are the last half.
        self.nodes = np.zeros(2 * self.leaves, np.float64)

    @property
    def total(self) -> float:
        """Sum of all weights."""
        return float(self.nodes[1])

    def get(self, count: int) -> Array:
        """The first `count` weights, a view."""
        return self.nodes[self.leaves : self.leaves + count]

    def set(self, index: Array, weights: Array | float) -> None:
        """Set weights (B,) at `index` (B,) int64; where an index comes twice, its last weight holds."""
        node = index + self.leaves
        self.nodes[node] = weights
        for _ in range(self.depth):
            node = node >> 1
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1]

    def find(self, sums: Array) -> Array:
        """For each of `sums` (B,), in [0, total), the index at which the running sum of weights first exceeds it."""
        left = sums.copy()
        node = np.ones(len(sums), np.int64)
        for _ in range(self.depth):
            node = node << 1
            here = self.nodes[node]
            # A right child of weight 0 is never entered, which rounding in `left` could ask for.
            right = (left >= here) & (self.nodes[node + 1] > 0)
            left = np.where(right, left - here, left)
            node = node + right
        return node - self.leaves


class WeightedRows:
    """The newest rows of float32 numbers, drawn in proportion to their weights.

    Args:
        sizes: of the parts of a row.
        capacity: number of rows held; the oldest goes first.
        seed: of the draws.
    """

    def __init__(self, sizes: Sequence[int], capacity: int, seed: int) -> None:
        self.sizes, self.capacity = list(sizes), capacity
        # All parts in one row: drawing it touches one place in memory.
        self.rows = np.zeros((capacity, sum(sizes)), np.float32)
        self.tree = SumTree(capacity)
        self.generator = np.random.default_rng(seed)
        self.size, self.next = 0, 0

    def __len__(self) -> int:
        return self.size

    def append(self, parts: Sequence[Array], weights: Array | float) -> Array:
        """Store K rows, part by part, each (K, size), with weights, (K,) or one; returns where they are, (K,)."""
        count = len(parts[0])
        where: Array = (self.next + np.arange(count)) % self.capacity
        self.rows[where] = np.concatenate(parts, axis=1, dtype=np.float32, casting="unsafe")
        self.tree.set(where, weights)
        self.next = int(self.next + count) % self.capacity
        self.size = min(self.size + count, self.capacity)
        return where

    def raise_weights(self, index: Array, least: float) -> None:
        """Give the rows at `index` (B,), each once, at least this weight."""
        self.tree.set(index, np.maximum(self.tree.get(self.capacity)[index], least))

    def draw(self, count: int) -> tuple[tuple[Tensor, ...], Array]:
        """Draw `count` rows with replacement: their parts, each (count, size) float32, and where they are."""
        index = self.tree.find(self.generator.random(count) * self.tree.total)
        return torch.split(torch.from_numpy(self.rows[index]), self.sizes, dim=1), index

    def content(self) -> dict[str, Array]:
        """What it holds, for `restore`: rows, weights, and where the next row goes."""
        return {"rows": self.rows[: self.size], "weights": self.tree.get(self.size), "next": np.array(self.next)}

    def restore(self, rows: Array, weights: Array, following: int) -> None:
        """Take back what `content` gave, while nothing is held, with the same capacity."""
        self.size, self.next = len(rows), following
        self.rows[: self.size] = rows
        self.tree.set(np.arange(self.size), weights)


@dataclass(frozen=True, slots=True)
class Batch:
    """Transitions: float32 tensors of B rows. `continues` is 0 where the last state is terminal, else 1."""

    observations: Tensor
    """(B, observations)."""
    actions: Tensor
    """(B, actions), between -1 and 1."""
    next_observations: Tensor
    """(B, observations)."""
    rewards: Tensor
    """(B, 1), of one step or summed over several."""
    continues: Tensor
    """(B, 1); where rewards are summed over k steps gamma^(k-1) in the place of 1."""
    later_observations: Tensor
    """(B, observations), what the last of those steps led to; with one step the next observations."""


def row_sizes(observations: int, actions: int, *, later: bool) -> list[int]:
    """Sizes of the parts of a row, in the order of `Batch`."""
    return [observations, actions, observations, 1, 1] + [observations] * later


def batch_of(parts: Sequence[Tensor]) -> Batch:
    """A batch of a row's parts: the next observations are the later ones too where a row has no others."""
    later = parts[5] if len(parts) > 5 else parts[2]
    return Batch(parts[0], parts[1], parts[2], parts[3], parts[4], later)


class Replay(WeightedRows):
    """The newest transitions, drawn by priority.

    Args:
        observations, actions: sizes of an observation and of an action.
        capacity: number of transitions held; the oldest goes first.
        seed: of the draws.
        later: whether rewards may be of several steps, so that a row has the observations after them too.
    """

    def __init__(self, observations: int, actions: int, capacity: int, seed: int, *, later: bool = False) -> None:
        super().__init__(row_sizes(observations, actions, later=later), capacity, seed)
        self.later = later
        self.max_priority = 1.0

    def add(
        self,
        observations: Array,
        actions: Array,
        next_observations: Array,
        rewards: Array,
        continues: Array,
        later_observations: Array | None = None,
    ) -> None:
        """Store K transitions, in the order and the meaning of `Batch`: (K, observations), (K, actions),
        (K, observations), (K,), (K,), and (K, observations) where the replay has a place for it.

        `continues` is 0 where the last state is terminal, not where an episode was cut by a time limit."""
        parts = [observations, actions, next_observations, rewards[:, None], continues[:, None]]
        if later_observations is not None:
            parts.append(later_observations)
        self.append(parts, self.max_priority)

    def sample(self, count: int) -> tuple[Batch, Array]:
        """Draw `count` transitions in proportion to their priority, with replacement, and where they are (B,)."""
        parts, index = self.draw(count)
        return batch_of(parts), index

    def set_priorities(self, index: Array, priorities: Array) -> None:
        """Set priorities (B,), above 0, of the transitions at `index` (B,)."""
        self.tree.set(index, priorities)
        self.max_priority = max(self.max_priority, float(priorities.max()))

    def forget_max_priority(self) -> None:
        """Let new transitions have the greatest priority that is held now, not the greatest that ever was."""
        if self.size:
            self.max_priority = float(self.tree.get(self.size).max())
