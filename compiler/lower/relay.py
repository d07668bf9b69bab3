"""Relays: neurons that spike where they are spiked at, for waits beyond a chip's longest delay."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.budget import MOST_RELAYS
from nervecord.compiler.lower.normal import Link, Population
from nervecord.compiler.lower.retime import Timing, hops
from nervecord.compiler.ops import Csr
from nervecord.errors import InfeasibleError

TOO_LONG = "its delay is longer than the chip's longest"
"""Of a connection, here and in the rule `delay-range`."""
WIDE = 256
"""Relays of so many neurons and more get weights in compressed rows."""


def relays(
    populations: Sequence[Population], timing: Timing, arithmetic: Arithmetic, graded: set[str]
) -> tuple[list[Population], Timing]:
    """The populations with a relay, or several in a row, in every link that waits longer than one connection can.

    A relay has a neuron for each of its source's, which spikes one wait after that and forgets: the same spikes, later.

    Args:
        graded: sources that send values, which neurons do not pass on.

    Raises:
        InfeasibleError: a link from values waits too long, or the arithmetic's neurons cannot relay.
    """
    phase, wait = dict(timing.phase), dict(timing.wait)
    result: list[Population] = []
    count = 0
    sizes: dict[str, int] = {p.name: p.size for p in populations}
    for p in populations:
        links = list(p.links)
        for k, link in enumerate(links):
            if wait[link.name] <= arithmetic.delay_max:
                continue
            if link.source in graded:
                raise InfeasibleError(
                    f"{TOO_LONG}, and {link.source} sends values, which no neuron passes on "
                    f"({wait[link.name]} against {arithmetic.delay_max})",
                    where=link.origin[0],
                    hint="put spiking neurons into this path, or make the other paths shorter",
                )
            waits = hops(wait[link.name], max(arithmetic.delay_max, 1))
            if arithmetic.subtracts or not arithmetic.delay_max or min(waits) < arithmetic.connection_delay:
                raise InfeasibleError(
                    f"{TOO_LONG}, and its neurons cannot relay spikes ({wait[link.name]} against "
                    f"{arithmetic.delay_max})",
                    where=link.origin[0],
                    hint="make the paths equally long",
                )
            count += len(waits) - 1
            if count > MOST_RELAYS:
                raise InfeasibleError(
                    f"{TOO_LONG}, and at most {MOST_RELAYS} populations pass spikes on ({wait[link.name]} against "
                    f"{arithmetic.delay_max})",
                    where=link.origin[0],
                    hint="a larger time step, or shorter delays",
                )
            source, at = link.source, phase.get(link.source, 0)
            width = sizes.get(source, int(link.weight.shape[1]))
            for hop, steps in enumerate(waits[:-1]):
                at += steps
                relay = _relay(f"{link.name}.relay{hop}", source, link, width)
                result.append(relay)
                phase[relay.name], wait[relay.links[0].name], source = at, steps, relay.name
                sizes[relay.name] = width
            links[k] = dataclasses.replace(link, source=source, delay=waits[-1])
            wait[link.name] = waits[-1]
        result.append(dataclasses.replace(p, links=tuple(links)))
    return result, Timing(phase, wait)


def _relay(name: str, source: str, link: Link, width: int) -> Population:
    """One neuron per source: a spike of weight 1 is above its threshold of one half, and nothing is kept."""
    zero = np.zeros(width)
    weight = np.eye(width) if width < WIDE else Csr.identity(width)
    identity = Link(f"{name}.in", source, link.origin, weight, 0)
    return Population(
        name=name,
        origin=link.origin,
        links=(identity,),
        current_bias=zero,
        bias=zero,
        decay=zero,
        threshold=np.full(width, 0.5),
        current_decay=None,
    )
