"""Reads a body with bounds: what every value can reach, whatever enters. Nothing measured goes in.

`where` knows in each branch what its condition says of the values that it compares.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nervecord.compiler.body.bounds import READINGS, UNBOUNDED, ZERO, Bounds, add, chosen, joined, least, most, subtract
from nervecord.compiler.body.expression import Body, Node

WIDENED_AFTER = 64
"""Steps after which a range of carried state that still grows has no bound."""


class IntervalReading:
    """A body of integers, ready to be read with bounds.

    Args:
        body: the equations.
        known: node -> bounds that follow from something else than one step's equations.
    """

    def __init__(self, body: Body, known: Mapping[int, Bounds] | None = None) -> None:
        self.body = body
        self._known = known or {}
        self._constants = {place: Bounds.of(value, value) for place, value in body.values.items()}
        self._behind: dict[int, set[int]] = {}

    def step(self, x: Bounds, state: Mapping[str, Bounds]) -> dict[int, Bounds]:
        """What kept, observed and checked values and the result reach in one step, and all that they need."""
        values = _Step(self, x, state)
        body = self.body
        for place in (*body.kept.values(), *body.observed.values(), body.result, *(k for k, _ in body.checks)):
            values.of(place)
        return values.found

    def every(self, x: Bounds, state: Mapping[str, Bounds]) -> list[Bounds]:
        """What every node reaches in one step."""
        values = _Step(self, x, state)
        return [values.of(place) for place in range(len(self.body.nodes))]

    def constant(self, place: int) -> Bounds:
        """Of a constant."""
        return self._constants[place]

    def known(self, place: int) -> Bounds | None:
        """See `known` above."""
        return self._known.get(place)

    def behind(self, place: int) -> set[int]:
        """All nodes that follow from one."""
        if place not in self._behind:
            reached = {place}
            for k in range(place + 1, len(self.body.nodes)):
                if reached.intersection(self.body.nodes[k].arguments):
                    reached.add(k)
            self._behind[place] = reached
        return self._behind[place]


class _Step:
    """One step of a reading; `implied` are values that a condition narrows."""

    def __init__(
        self,
        reading: IntervalReading,
        x: Bounds,
        state: Mapping[str, Bounds],
        outer: _Step | None = None,
        implied: Mapping[int, Bounds] | None = None,
    ) -> None:
        self.reading, self.x, self.state, self.outer = reading, x, state, outer
        self.found: dict[int, Bounds] = dict(implied or {})
        self._narrower = set[int]().union(*(reading.behind(place) for place in self.found))

    def of(self, place: int) -> Bounds:
        """The bounds of a node."""
        value = self.found.get(place)
        if value is None:
            if self.outer is not None and place not in self._narrower:
                return self.outer.of(place)
            value = self._value(self.reading.body.nodes[place], place)
            bound = self.reading.known(place)
            value = value if bound is None else value.meet(bound)
            self.found[place] = value if self.outer is None else value.meet(self.outer.of(place))
        return self.found[place]

    def _value(self, node: Node, place: int) -> Bounds:
        match node.operation:
            case "constant":
                return self.reading.constant(place)
            case "input":
                return self.x
            case "state":
                return self.state[node.name]
            case "where":
                return self._selected(*node.arguments)
        if node.operation not in READINGS:
            raise TypeError(f"no bounds are known of the operation {node.operation}")
        return READINGS[node.operation](*[self.of(k) for k in node.arguments], *node.settings)

    def _selected(self, condition: int, a: int, b: int) -> Bounds:
        """Of both branches where both are possible, else of the one that is."""
        taken, never_a = self._branch(condition, True, a)
        left, never_b = self._branch(condition, False, b)
        if never_a is None and never_b is None:
            return taken.hull(left)
        no_a: Any = False if never_a is None else never_a
        no_b: Any = False if never_b is None else never_b
        low = chosen(no_a, left.low, chosen(no_b, taken.low, least(taken.low, left.low)))
        high = chosen(no_a, left.high, chosen(no_b, taken.high, most(taken.high, left.high)))
        return Bounds.of(low, high)

    def _branch(self, condition: int, holds: bool, place: int) -> tuple[Bounds, Any]:
        """A branch's bounds, and for which elements it is impossible; None where for none of them."""
        implied = self._implied(condition, holds)
        if not implied:
            return self.of(place), None
        never = functools.reduce(lambda a, b: a | b, [bounds.empty for bounds in implied.values()])
        value = _Step(self.reading, self.x, self.state, self, implied).of(place)
        return value, never if np.any(never) else None

    def _implied(self, condition: int, holds: bool) -> dict[int, Bounds]:
        """What a condition says of the values that it compares: place -> narrower bounds."""
        node = self.reading.body.nodes[condition]
        match node.operation:
            case "negated":
                return self._implied(node.arguments[0], not holds)
            case "both" | "either" if (node.operation == "both") == holds:
                bounds_of = self._implied(node.arguments[0], holds)
                for place, bounds in self._implied(node.arguments[1], holds).items():
                    bounds_of[place] = bounds_of[place].meet(bounds) if place in bounds_of else bounds
                return bounds_of
        sides = _SIDES.get((node.operation, holds))
        if sides is None:
            return {}
        a, b = node.arguments
        bounds_of = {}
        for place, other, above in ((a, b, sides[0]), (b, a, not sides[0])):
            if self.reading.body.nodes[place].operation == "constant":
                continue
            value, apart = self.of(place), Bounds.of(sides[1], sides[1])
            if above:
                limit = add(self.of(other), apart)
                bounds_of[place] = joined(most(value.low, limit.low), value.high, value, limit)
            else:
                limit = subtract(self.of(other), apart)
                bounds_of[place] = joined(value.low, least(value.high, limit.high), value, limit)
        return bounds_of


_SIDES: dict[tuple[str, bool], tuple[bool, int]] = {
    ("greater", True): (True, 1),
    ("greater", False): (False, 0),
    ("greater_equal", True): (True, 0),
    ("greater_equal", False): (False, 1),
    ("less", True): (False, 1),
    ("less", False): (True, 0),
    ("less_equal", True): (False, 0),
    ("less_equal", False): (True, 1),
}
"""(comparison, whether it holds) -> whether its first argument lies above the second, and by how much at least."""


@dataclass(frozen=True, slots=True)
class Reached:
    """What a body can reach over many steps.

    Args:
        body: the equations. x: what enters at a step.
        state: before any step. values: of the nodes that matter, over all steps.
    """

    body: Body
    x: Bounds
    state: dict[str, Bounds]
    values: dict[int, Bounds]

    def named(self, name: str) -> Bounds:
        """Of an observed value."""
        return self.values[self.body.observed[name]]


def over_steps(
    body: Body,
    x: Bounds,
    steps: int,
    *,
    known: Mapping[int, Bounds] | None = None,
    proposals: Iterable[Mapping[str, Bounds]] = (),
) -> Reached:
    """What a body reaches, from a state of zeros on.

    Args:
        body: of integers. x: what enters at each step; neurons that nothing enters see 0, which belongs to it.
        steps: between two clearings of the state; 0: it is carried.
        known: see `IntervalReading`.
        proposals: state -> bounds that may hold where it is carried. The first ones are taken from which one step
            leads to nothing beyond them, which is what makes them true.
    """
    reading, x = IntervalReading(body, known), x.hull(ZERO)
    for proposed in proposals:
        state = {name: bounds.hull(ZERO) for name, bounds in proposed.items()}
        values = reading.step(x, state)
        if all(values[place].within(state[name]) for name, place in body.kept.items()):
            return Reached(body, x, state, values)
    state = dict.fromkeys(body.kept, ZERO)
    values = {}
    # Each end of each state is widened at most once.
    for k in range(steps or WIDENED_AFTER + 2 * len(body.kept) + 2):
        # The state only grows from step to step, so the last step's values are those of all steps.
        values = reading.step(x, state)
        after = {name: state[name].hull(values[place]).narrow() for name, place in body.kept.items()}
        if all(after[name].same(state[name]) for name in after):
            break
        if not steps and k >= WIDENED_AFTER:
            after = {name: _widened(state[name], bounds) for name, bounds in after.items()}
        state = after
    # What is kept is 0, or what an earlier step left.
    state = {name: ZERO.hull(values[place]) for name, place in body.kept.items()}
    return Reached(body, x, state, values)


def _widened(before: Bounds, after: Bounds) -> Bounds:
    """Without a bound where it still grows."""
    low = chosen(after.low < before.low, -UNBOUNDED, after.low)
    return Bounds.of(low, chosen(after.high > before.high, UNBOUNDED, after.high))
