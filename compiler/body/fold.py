"""Leaves out of a body what changes no bit: times 1, plus 0, shifts by 0, clips that a proof shows never to act.

Nodes that nothing needs any more go as well. The definition runs bodies as they are traced; engines read folded ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from nervecord.compiler.body.bounds import Bounds
from nervecord.compiler.body.evaluate import constant_value
from nervecord.compiler.body.expression import Array, Body, Node, dtype_of


def folded(
    body: Body, values: Mapping[int, Bounds] | None = None, *, zero: Collection[str] = (), rounding: bool = False
) -> Body:
    """The body without what is idle.

    Args:
        values: what every node reaches over all steps, where that is proved: then clips that never act, comparisons
            that always come out alike and what follows from them are left out too.
        zero: states, and "x", that are 0 in this step.
        rounding: also what changes the sign of a 0 alone: a float plus 0, or times 0.
    """
    work = _Folding(body, values, zero, rounding)
    for place in range(len(body.nodes)):
        work.take(place)
    return work.finished()


class _Folding:
    """A body in the making."""

    def __init__(self, body: Body, proved: Mapping[int, Bounds] | None, zero: Collection[str], rounding: bool) -> None:
        self.old, self.proved, self.zero, self.rounding = body, proved, zero, rounding
        self.nodes: list[Node] = []
        self.values: dict[int, Array] = {}
        self.moved: list[int] = []
        self._places: dict[tuple[Node, bytes], int] = {}

    def take(self, place: int) -> None:
        """The next node of the old body."""
        node = self.old.nodes[place]
        if node.operation == "constant":
            self.moved.append(self._put(node, self.old.values[place]))
            return
        if node.operation in ("input", "state") and node.name in self.zero:
            self.moved.append(self._put(Node("constant", node.kind), np.zeros((), dtype=dtype_of(node.kind))))
            return
        arguments = tuple(self.moved[k] for k in node.arguments)
        self.moved.append(self._simpler(place, Node(node.operation, node.kind, arguments, node.settings, node.name)))

    def _put(self, node: Node, value: Array | None = None) -> int:
        key = (node, b"" if value is None else repr(value.shape).encode() + value.tobytes())
        if key not in self._places:
            self._places[key] = len(self.nodes)
            self.nodes.append(node)
            if value is not None:
                self.values[self._places[key]] = value
        return self._places[key]

    def _simpler(self, place: int, node: Node) -> int:
        constants = [self.values.get(k) for k in node.arguments]
        if node.arguments and all(value is not None for value in constants):
            return self._put(Node("constant", node.kind), constant_value(node, list(constants)))
        fixed = self._proved(place, node)
        if fixed is not None:
            return fixed
        return self._put(node) if (same := self._idle(node, constants)) is None else same

    def _proved(self, place: int, node: Node) -> int | None:
        """The place of what a node always is, as far as ranges tell."""
        if self.proved is None or node.operation not in _DECIDED:
            return None
        if not all(k in self.proved for k in (place, *self.old.nodes[place].arguments)):
            return None  # only what matters has bounds
        if node.kind == "bool":
            low, high = self.proved[place].lowest, self.proved[place].highest
            return self._put(Node("constant", "bool"), np.array(bool(low))) if low == high else None
        old = self.old.nodes[place].arguments
        if node.operation == "clip":
            x, low_end, high_end = (self.proved[k] for k in old)
            if x.within(Bounds(low_end.high, high_end.low, x.reach)):
                return node.arguments[0]
        if node.operation in ("count_levels", "left_of_levels"):
            v, level = self.proved[old[0]], self.proved[old[1]]
            if v.highest < level.lowest + (0 if node.settings[0] else 1):
                none = node.operation == "count_levels"
                return self._put(Node("constant", "integer"), np.array(0)) if none else node.arguments[0]
        if node.operation == "wrap_once":
            x, low_end, high_end = (self.proved[k] for k in old)
            if x.lowest >= low_end.highest and x.highest <= high_end.lowest:
                return node.arguments[0]
        if node.operation == "wrap":
            half = 1 << (self.proved[old[1]].lowest - 1)
            if -half <= self.proved[old[0]].lowest and self.proved[old[0]].highest < half:
                return node.arguments[0]
        return None

    def _idle(self, node: Node, constants: list[Array | None]) -> int | None:
        """The place of an argument that the node gives as it is, or of a zero; None where it does something."""
        arguments = node.arguments

        def all_are(k: int, number: float) -> bool:
            value = constants[k]
            return value is not None and bool((value == number).all())

        match node.operation:
            # Of floats 0 is no neutral element: it makes 0 of -0.
            case "add" if node.kind == "integer" or self.rounding:
                return arguments[1] if all_are(0, 0) else arguments[0] if all_are(1, 0) else None
            case "subtract" if (node.kind == "integer" or self.rounding) and all_are(1, 0):
                return arguments[0]
            case "multiply":
                if (node.kind == "integer" or self.rounding) and (all_are(0, 0) or all_are(1, 0)):
                    return self._put(Node("constant", node.kind), np.zeros((), dtype=dtype_of(node.kind)))
                return arguments[1] if all_are(0, 1) else arguments[0] if all_are(1, 1) else None
            case "shift_left" | "shift_right" if all_are(1, 0):
                return arguments[0]
            case "scaled":
                factor, bits = constants[1], constants[2]
                assert factor is not None
                assert bits is not None
                if all_are(1, 0):
                    return self._put(Node("constant", "integer"), np.array(0))
                return arguments[0] if bool((factor == 1 << bits).all()) else None
            case "where":
                condition = constants[0]
                if condition is not None and condition.all() == condition.any():
                    return arguments[1] if condition.all() else arguments[2]
            case "both" | "either":
                neutral = node.operation == "both"
                for k in (0, 1):
                    value = constants[k]
                    if value is not None and value.all() == value.any():
                        return arguments[1 - k] if bool(value.all()) == neutral else arguments[k]
        return None

    def finished(self) -> Body:
        """The body of what is needed."""
        ends = [self.old.result, *self.old.kept.values(), *self.old.observed.values()]
        checks = [(place, message) for place, message in self.old.checks if not self._holds(self.moved[place])]
        needed: set[int] = set()
        waiting = [self.moved[place] for place in (*ends, *(place for place, _ in checks))]
        while waiting:
            place = waiting.pop()
            if place not in needed:
                needed.add(place)
                waiting += self.nodes[place].arguments
        renumbered = {place: k for k, place in enumerate(sorted(needed))}

        def at(old: int) -> int:
            return renumbered[self.moved[old]]

        return Body(
            nodes=tuple(
                Node(n.operation, n.kind, tuple(renumbered[k] for k in n.arguments), n.settings, n.name)
                for n in (self.nodes[place] for place in sorted(needed))
            ),
            values={renumbered[place]: value for place, value in self.values.items() if place in needed},
            result=at(self.old.result),
            kept={name: at(place) for name, place in self.old.kept.items()},
            observed={name: at(place) for name, place in self.old.observed.items()},
            checks=tuple((at(place), message) for place, message in checks),
        )

    def _holds(self, place: int) -> bool:
        value = self.values.get(place)
        return value is not None and bool(value.all())


_DECIDED = frozenset(
    {
        "clip",
        "wrap",
        "wrap_once",
        "count_levels",
        "left_of_levels",
        "greater",
        "greater_equal",
        "less",
        "less_equal",
        "equal",
    }
)
"""Operations that a range may show to do nothing, or to give one thing only."""
