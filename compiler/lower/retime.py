"""When every population works on a chip whose connections cost steps, so that what met in training still meets.

Each population gets a phase: the steps by which it is later than in training (`compiler.plan.timing`, which the rules
use too). A connection then waits delay + phase(destination) - phase(source) steps. Around a loop the phases cancel, so
that its delay must pay for all its connections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nervecord.compiler.lower.normal import Population
from nervecord.compiler.plan.plan import Plan
from nervecord.compiler.plan.timing import Lateness
from nervecord.compiler.plan.topology import Topology
from nervecord.errors import InfeasibleError


@dataclass(frozen=True, slots=True)
class Timing:
    """Phases of populations, and the steps each link waits (its cost included)."""

    phase: dict[str, int]
    wait: dict[str, int]


def retime(plan: Plan, populations: Sequence[Population], cost: int) -> Timing:
    """The timing of a DISCRETE plan on a chip whose connections cost `cost` steps.

    Raises:
        InfeasibleError: a loop does not pay for its connections, or an Output adds what cannot be equally late.
    """
    late = Lateness.of(plan.graph, Topology.of(plan.graph), cost, aligned=not plan.schedule.resets)
    for loop in late.loops:
        raise InfeasibleError(
            f"{loop.message(loop.wires)} ({loop.delay} against {loop.least})", where=loop.wires[0], hint=loop.fix
        )
    for end in late.apart:
        raise InfeasibleError(
            f"{end.message(end.early, end.latest)} ({end.steps[1]} against {end.steps[0]} steps)",
            where=end.name,
            hint=end.fix,
        )
    phase = {p.name: late.late[p.name] for p in populations}
    wait = {link.name: link.delay + phase[p.name] - phase.get(link.source, 0) for p in populations for link in p.links}
    return Timing(phase, wait)


def hops(wait: int, longest: int) -> list[int]:
    """A wait as the waits of relays in a row, each at most `longest`."""
    count = -(-wait // longest)
    return [wait // count + (1 if k < wait % count else 0) for k in range(count)]
