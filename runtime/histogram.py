"""Durations counted in bins of equal ratio: how long steps take, from the quickest to the worst, in fixed memory."""

from __future__ import annotations

import bisect
import math
from typing import Any

PER_DECADE = 10
EDGES = tuple(1e-6 * 10 ** (k / PER_DECADE) for k in range(7 * PER_DECADE + 1))
"""Seconds: upper edges of the bins, from a microsecond to ten seconds; one more bin holds what is longer."""


class Histogram:
    """Counts durations. `counts[k]` are those of at most `EDGES[k]` seconds, the last those beyond all edges."""

    def __init__(self) -> None:
        self.counts = [0] * (len(EDGES) + 1)
        self.largest = math.nan

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect.bisect_left(EDGES, seconds)] += 1
        self.largest = seconds if not seconds <= self.largest else self.largest

    @property
    def total(self) -> int:
        """How many were counted."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """Seconds that this share of the durations does not exceed, to the edge of a bin; NaN before the first."""
        if not self.total:
            return math.nan
        rank, passed = share * self.total, 0
        for edge, count in zip((*EDGES, math.inf), self.counts, strict=True):
            passed += count
            if count and passed >= rank:
                return min(edge, self.largest)
        return self.largest

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types: the bins that hold something, by their upper edges in seconds."""
        edges = (*EDGES, math.inf)
        bins = [[edge if math.isfinite(edge) else None, count] for edge, count in zip(edges, self.counts, strict=True)]
        return {
            "total": self.total,
            "median": self.quantile(0.5),
            "p99": self.quantile(0.99),
            "largest": self.largest,
            "bins": [row for row in bins if row[1]],
        }
