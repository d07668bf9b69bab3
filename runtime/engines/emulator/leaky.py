"""Recognises the equations for which the emulator's loop has a fast form: leaky neurons in wide registers of float64.

    u = limited(trunc(u * kept) + x * lift)        where there is a synaptic current
    v = min(max(trunc(v * kept) + (u or x * lift) + bias, low), high)
    spike where v > level, and v = 0 then           where it spikes

What is left out of the equations, as it never acts, is a number here that changes nothing. An op's type plays no part:
whatever has these equations runs so, and all else by its instructions (`runtime.engines.emulator.opcodes`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervecord.compiler.body.bounds import Bounds
from nervecord.compiler.body.expression import Array, Body
from nervecord.runtime.engines.emulator.tables import Real

EXACT = 1 << 51
"""Values stay below it, so that their sums of up to four, in any order, are exact in float64."""


@dataclass(frozen=True, slots=True)
class Leaky:
    """Equations in the fast form.

    Args:
        current: it has a synaptic current, which is the first state, and the membrane the second.
        fires: what it gives is spikes, not the membrane.
        numbers: of `tables.Real`. bias: one number for each neuron, or one.
    """

    current: bool
    fires: bool
    numbers: Array
    bias: Array


def leaky(body: Body, bounds: list[Bounds]) -> Leaky | None:
    """The fast form of equations, or None.

    Args:
        body: folded. bounds: of each node.
    """
    return _Recognition(body, bounds).found()


class _Mismatch(Exception):
    """The equations are others."""


class _Recognition:
    def __init__(self, body: Body, bounds: list[Bounds]) -> None:
        self.body, self.bounds = body, bounds
        self.numbers = np.zeros(Real.SIZE)
        self.numbers[[Real.U_LOW, Real.V_LOW]], self.numbers[[Real.U_HIGH, Real.V_HIGH]] = -np.inf, np.inf
        self.bias: Array = np.zeros(1)

    def found(self) -> Leaky | None:
        """See `leaky`."""
        body = self.body
        names = list(body.kept)
        if not 1 <= len(names) <= 2 or any(bounds.largest >= EXACT for bounds in self.bounds):
            return None
        try:
            membrane = self._fired(body.kept[names[-1]])
            self._membrane(membrane, names[-1], names[0] if len(names) == 2 else None)
        except _Mismatch:
            return None
        fires = body.result != body.kept[names[-1]]
        return Leaky(len(names) == 2, fires, self.numbers, self.bias)

    # ------------------------------------------------------------------------------------------------ the parts

    def _fired(self, after: int) -> int:
        """The membrane before the spike, whose value after it stands at `after`."""
        if self.body.result == after:
            return after
        spiked, (condition, zero, v) = self.body.nodes[self.body.result], self._arguments(after, "where")
        if spiked.operation != "as_integer" or spiked.arguments != (condition,) or self._number(zero) != 0:
            raise _Mismatch
        above, level = self._arguments(condition, "greater")
        if above != v:
            raise _Mismatch
        self.numbers[Real.LEVEL] = self._number(level)
        return v

    def _membrane(self, place: int, v: str, u: str | None) -> None:
        place = self._clipped(place, Real.V_LOW, Real.V_HIGH)
        terms = self._without_kept(self._terms(place), v, Real.KEEP_V)
        biases = [term for term in terms if term in self.body.values]
        entering = [term for term in terms if term not in self.body.values]
        if len(biases) > 1 or len(entering) > 1:
            raise _Mismatch
        if biases:
            self.bias = self.body.values[biases[0]].ravel().astype(np.float64)
        if u is None:
            self._entering(entering)
        elif entering == [self.body.kept[u]]:
            self._current(entering[0], u)
        else:
            raise _Mismatch

    def _current(self, place: int, u: str) -> None:
        if self.body.nodes[place].operation == "wrap_once":
            place, low, high = self.body.nodes[place].arguments
            self.numbers[Real.U_LOW], self.numbers[Real.U_HIGH] = self._number(low), self._number(high)
            self.numbers[Real.SPAN] = self._number(high) - self._number(low) + 1
        else:
            place = self._clipped(place, Real.U_LOW, Real.U_HIGH)
        self._entering(self._without_kept(self._terms(place), u, Real.KEEP_U))

    def _entering(self, terms: list[int]) -> None:
        """The one term that may enter, shifted up or not."""
        if len(terms) > 1:
            raise _Mismatch
        for term in terms:
            place, lift = term, 1.0
            if self.body.nodes[term].operation == "shift_left":
                place, bits = self.body.nodes[term].arguments
                lift = 2.0 ** self._number(bits)
            if self.body.nodes[place].operation != "input":
                raise _Mismatch
            self.numbers[Real.LIFT] = lift

    def _without_kept(self, terms: list[int], state: str, keep: Real) -> list[int]:
        """The terms without what is left of a state from the step before."""
        rest, factors = [], []
        for term in terms:
            node, place, factor = self.body.nodes[term], term, 1.0
            if node.operation == "scaled" and node.settings == ("zero",):
                place, share, bits = node.arguments
                factor = self._number(share) / 2.0 ** self._number(bits)
                if self.bounds[place].largest * self._number(share) >= EXACT:
                    raise _Mismatch
            if self.body.nodes[place].operation == "state" and self.body.nodes[place].name == state:
                factors.append(factor)
            elif node.operation == "scaled":
                raise _Mismatch
            else:
                rest.append(term)
        if len(factors) > 1:
            raise _Mismatch
        self.numbers[keep] = factors[0] if factors else 0.0
        return rest

    # ------------------------------------------------------------------------------------------------ nodes

    def _arguments(self, place: int, operation: str) -> tuple[int, ...]:
        if self.body.nodes[place].operation != operation:
            raise _Mismatch
        return self.body.nodes[place].arguments

    def _number(self, place: int) -> int:
        """A constant that is the same for all neurons."""
        value = self.body.values.get(place)
        if value is None or value.size > 1:
            raise _Mismatch
        return int(value.reshape(-1)[0])

    def _clipped(self, place: int, low: Real, high: Real) -> int:
        """What is clipped there, or the node itself."""
        if self.body.nodes[place].operation != "clip":
            return place
        place, least, most = self.body.nodes[place].arguments
        self.numbers[low], self.numbers[high] = self._number(least), self._number(most)
        return place

    def _terms(self, place: int) -> list[int]:
        """What is added up there. No sum is rounded, so their order is free; the current stays one term."""
        node = self.body.nodes[place]
        if node.operation != "add":
            return [place]
        states = self.body.kept.values()
        return [term for k in node.arguments for term in ([k] if k in states else self._terms(k))]
