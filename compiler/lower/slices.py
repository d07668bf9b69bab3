"""Bit slicing: a weight as the sum of two mantissas, of two connections beside one another.

A population's accumulator has one unit for all that enters it, so that a connection whose largest weight is far above
the others has mantissas too coarse for those. A second connection between the same ends, with a smaller exponent,
carries what rounding leaves of the first: the weights are then as fine as the exponents go, for twice the synapses.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.lower.normal import Population
from nervecord.compiler.lower.retime import Timing

SLICES_ABOUT = "mantissas that make up a weight: with 2 a second connection carries what rounding leaves of the first"
"""What the option of targets is for."""


def sliced(
    populations: Sequence[Population], timing: Timing, split: Collection[str], taken: set[str]
) -> tuple[list[Population], Timing]:
    """The populations with a second link after each of those named in `split`, for the rest of its weights.

    Args:
        split: populations whose links become two; others, such as relays, have weights that are exact.
        taken: names that nodes have; the new links' are added.
    """
    found, wait = [], dict(timing.wait)
    for p in populations:
        links = []
        for link in p.links:
            links.append(link)
            if p.name not in split:
                continue
            name = f"{link.name}.rest"
            while name in taken:
                name += "'"
            taken.add(name)
            wait[name] = wait[link.name]
            links.append(dataclasses.replace(link, name=name, rest_of=link.name))
        found.append(dataclasses.replace(p, links=tuple(links)))
    return found, Timing(timing.phase, wait)


def rest_bits(arithmetic: Arithmetic, step: int) -> int:
    """Bits by which a rest's exponent may lie below its link's, so that half a step of that is still a mantissa."""
    largest = arithmetic.weight_largest // step * step
    return max(math.floor(math.log2(largest / (step / 2))), 0) if largest else 0
