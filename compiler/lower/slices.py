"""Bit slicing: a weight as the sum of two mantissas, of two connections beside one another.

A population's accumulator has one unit for all that enters it, so that a connection whose largest weight is far above
the others has mantissas too coarse for those. A second connection between the same ends has a smaller exponent: weights
that fit its mantissas are its alone, and of the larger ones it carries what rounding leaves. The fewer bits it is finer
by, the fewer weights take a synapse of both.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.graph.names import fresh
from nervecord.compiler.lower.normal import Population
from nervecord.compiler.lower.retime import Timing

SLICES_ABOUT = "mantissas that make up a weight: with 2, a finer one for small weights, and both for larger ones"
"""What the option of targets is for."""


def sliced(
    populations: Sequence[Population], timing: Timing, split: Collection[str], names: set[str]
) -> tuple[list[Population], Timing]:
    """The populations with a second link after each of those named in `split`, for the rest of its weights.

    Args:
        split: populations whose links become two; others, such as relays, have weights that are exact.
        names: names that nodes have; the new links' are added.
    """
    result, wait = [], dict(timing.wait)
    for p in populations:
        links = []
        for link in p.links:
            links.append(link)
            if p.name not in split:
                continue
            name = fresh(f"{link.name}.rest", names)
            wait[name] = wait[link.name]
            origin = (f"{' + '.join(link.origin)} (rest)",)
            links.append(dataclasses.replace(link, name=name, origin=origin, rest_of=link.name))
        result.append(dataclasses.replace(p, links=tuple(links)))
    return result, Timing(timing.phase, wait)


def rest_exponent(arithmetic: Arithmetic, exponent: int, step: int, most: int | None = None) -> int:
    """The smallest exponent of a rest with which half a step of its link, of this exponent, is still a mantissa.

    Args:
        most: bits by which it may be smaller, where fewer are to be than there is room for.

    Where every product is shifted on its own, each loses half a unit below exponent 0, which is more than a rest gains:
    there it stays at 0, or at its link's where that is smaller.
    """
    largest = arithmetic.weight_largest // step * step
    room = max(math.floor(math.log2(largest / (step / 2))), 0) if largest else 0
    if most is not None:
        room = min(room, most)
    least = arithmetic.weight_exponent_low
    if arithmetic.shifts_each:
        least = max(least, min(exponent, 0))
    return max(exponent - room, least)
