"""When every population works on a chip whose connections cost steps, so that what met in training still meets.

Each population gets a phase, the steps by which it is later than in training: the smallest with which every connection
has the steps that it costs,

    phase(destination) >= phase(source) + cost - delay        (phase of what enters: 0)

and a connection then waits delay + phase(destination) - phase(source) steps. Around a loop the phases cancel, so that
its delay must pay for all its connections. Where a wait is longer than the chip's longest delay, relays carry spikes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nervecord.compiler.lower.normal import Link, Population
from nervecord.errors import InfeasibleError


@dataclass(frozen=True, slots=True)
class Loop:
    """A cycle whose delays do not pay for its connections."""

    members: tuple[str, ...]
    delay: int
    needed: int


@dataclass(frozen=True, slots=True)
class Timing:
    """Phases of populations, and the steps each link waits (its cost included)."""

    phase: dict[str, int]
    wait: dict[str, int]


def retime(populations: Sequence[Population], cost: int) -> Timing | Loop:
    """The timing of a chip whose connections cost `cost` steps; the loop that makes it impossible, if one does."""
    edges = [(link.source, p.name, cost - link.delay) for p in populations for link in p.links]
    phase, loop = phases([p.name for p in populations], edges)
    if loop is not None:
        delays = {(link.source, p.name): link.delay for p in populations for link in p.links}
        around = list(zip(loop, [*loop[1:], loop[0]], strict=True))
        return Loop(loop, sum(delays[edge] for edge in around), cost * len(loop))
    wait = {
        link.name: link.delay + phase[p.name] - phase.get(link.source, 0) for p in populations for link in p.links
    }
    return Timing(phase, wait)


def phases(
    names: Iterable[str], edges: Sequence[tuple[str, str, int]]
) -> tuple[dict[str, int], tuple[str, ...] | None]:
    """The smallest phases >= 0 with phase(b) >= phase(a) + late of every edge (a, b, late); or a loop without any.

    Sources that are none of `names` have phase 0.
    """
    phase = dict.fromkeys(names, 0)
    because: dict[str, str] = {}
    moved = set(phase)
    for _ in range(len(phase) + 1):
        # Only what a node that moved feeds can move.
        feeding, moved = moved, set()
        for a, b, late in edges:
            start = phase.get(a, 0)
            if (a in feeding or a not in phase) and start + late > phase[b]:
                phase[b] = start + late
                because[b] = a
                moved.add(b)
        if not moved:
            return phase, None
    return phase, _loop(because, min(moved))


def _loop(because: dict[str, str], start: str) -> tuple[str, ...]:
    """The cycle that the last reasons lead back along, in the direction of its edges."""
    seen: list[str] = []
    at = start
    while at not in seen:
        seen.append(at)
        at = because[at]
    cycle = seen[seen.index(at) :]
    return tuple(reversed(cycle))


def hops(wait: int, longest: int) -> list[int]:
    """A wait as the waits of relays in a row, each at most `longest`."""
    count = -(-wait // longest)
    return [wait // count + (1 if k < wait % count else 0) for k in range(count)]


def refuse_loop(loop: Loop, where: str) -> InfeasibleError:
    """The error for a loop that the chip makes longer than it was trained."""
    return InfeasibleError(
        f"the loop {' -> '.join((*loop.members, loop.members[0]))} has a delay of {loop.delay} steps, and its "
        f"connections cost {loop.needed} on the chip",
        where=where, hint="train with a delay on every connection of the loop",
    )  # fmt: skip


def longest_wait(populations: Sequence[Population], timing: Timing) -> tuple[Link, int] | None:
    """The link that waits longest, and how long."""
    links = [(link, timing.wait[link.name]) for p in populations for link in p.links]
    return max(links, key=lambda pair: pair[1], default=None)
