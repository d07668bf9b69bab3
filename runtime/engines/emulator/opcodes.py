"""A population's equations as instructions of the emulator's loop, over a register of up to `CHUNK` neurons for each
value.

Registers are rows of int64 in one array: those that a step writes come first, and are used again once nothing reads
what they hold; constants stand behind them, one row for each that is the same for all neurons, else one number for each
neuron. Every value and every product fits into int64, which the proved ranges show.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from nervecord.compiler.body.bounds import Bounds
from nervecord.compiler.body.expression import Array, Body, Node
from nervecord.errors import InfeasibleError

CHUNK = 256
"""Neurons that one instruction is run for at once: their registers stay in the nearest cache."""
LARGEST = 1 << 62
"""Values and products stay below it in magnitude."""


class Opcode(enum.IntEnum):
    """What an instruction does: an operation of `compiler.body.expression`, or one for each of its choices."""

    add = 0
    subtract = 1
    multiply = 2
    minimum = 3
    maximum = 4
    negate = 5
    absolute = 6
    shift_left = 7
    shift_right = 8
    wrap = 9
    wrap_once = 10
    scaled_zero = 11
    scaled_floor = 12
    lose = 13
    lose_at_least_one = 14
    levels_passed = 15
    levels_reached = 16
    left_of_passed = 17
    left_of_reached = 18
    greater = 19
    greater_equal = 20
    less = 21
    less_equal = 22
    equal = 23
    both = 24
    either = 25
    negated = 26
    where = 27
    clip = 28


VARIANTS: dict[str, dict[str | bool, str]] = {
    "scaled": {"zero": "scaled_zero", "floor": "scaled_floor"},
    "lose": {False: "lose", True: "lose_at_least_one"},
    "count_levels": {False: "levels_passed", True: "levels_reached"},
    "left_of_levels": {False: "left_of_passed", True: "left_of_reached"},
}


SHIFTS = ("shift_left", "shift_right", "scaled", "lose")
"""Operations whose last argument is a number of bits."""


class Ins(enum.IntEnum):
    """Columns of an instruction. Beside the place of an argument stands 1 where it has one number for each neuron."""

    OPCODE = 0
    TO = 1
    A = 2
    A_EACH = 3
    B = 4
    B_EACH = 5
    C = 6
    C_EACH = 7
    SIZE = 8


class Eq(enum.IntEnum):
    """Numbers of a population's equations in the table; those of its states (`Kept`) follow."""

    FIRST = 0  # place of the first instruction
    COUNT = 1
    X = 2  # register of what enters; -1: nothing reads it
    RESULT = 3
    RESULT_EACH = 4
    SIZE = 5


class Kept(enum.IntEnum):
    """Numbers of one state: its register when the step begins (-1: nothing reads it), and what it is kept from."""

    LOADED = 0
    AFTER = 1
    AFTER_EACH = 2
    SIZE = 3


@dataclass(frozen=True, slots=True)
class Instructions:
    """Equations ready to be packed.

    Args:
        rows: of `Ins`. x, result, states: as of `Eq` and `Kept`.
        registers: how many are written. Their places are multiples of `CHUNK`; those of constants count from the end of
            all written ones, wherever that will be, and are negative: -1 - place.
        constants: numbers of the constants, in their places.
    """

    rows: list[list[int]]
    x: int
    result: tuple[int, int]
    states: list[tuple[int, int, int]]
    registers: int
    constants: Array


def instructions(body: Body, bounds: list[Bounds], size: int, label: str) -> Instructions:
    """Of the equations of a population of `size` neurons.

    Args:
        body: folded. bounds: of each node. label: of the op, for messages.

    Raises:
        InfeasibleError: there is no instruction for an operation, or a value may need more than 63 bits.
    """
    return _Assembler(body, bounds, size, label).assembled()


class _Assembler:
    def __init__(self, body: Body, bounds: list[Bounds], size: int, label: str) -> None:
        self.body, self.bounds, self.size, self.label = body, bounds, size, label
        self.needed = _needed(body)
        self.last_use = self._last_uses()
        self.free: list[int] = []
        self.written = 0
        self.place: dict[int, tuple[int, int]] = {}
        self.numbers: list[Array] = []
        self.count = 0
        self.rows: list[list[int]] = []
        self.loaded: dict[str, int] = {}
        self.x = -1

    def assembled(self) -> Instructions:
        """All of it."""
        body = self.body
        # What enters is loaded before the first instruction, whichever node comes first.
        for place in self.needed:
            node = body.nodes[place]
            if node.operation == "input":
                self.x = self._register()
                self.place[place] = self.x, 0
            elif node.operation == "state":
                self.loaded[node.name] = self._register()
                self.place[place] = self.loaded[node.name], 0
            elif node.operation == "constant":
                self.place[place] = self._constant(body.values[place])
        for place in self.needed:
            if body.nodes[place].operation not in ("input", "state", "constant"):
                self._instruction(place, body.nodes[place])
        states = [(self.loaded.get(name, -1), *self.place[place]) for name, place in body.kept.items()]
        constants = np.concatenate([*self.numbers, np.zeros(0, np.int64)])
        return Instructions(self.rows, self.x, self.place[body.result], states, self.written, constants)

    def _instruction(self, place: int, node: Node) -> None:
        self._require_narrow(place, node)
        arguments = [self.place[k] for k in node.arguments]
        if node.operation == "as_integer":
            self.place[place] = arguments[0]  # a truth value is 0 or 1
            return
        name = node.operation
        if name in VARIANTS:
            name = VARIANTS[name][node.settings[0]]
        if name not in Opcode.__members__:
            raise InfeasibleError(
                f"needs the operation {name}, of which the emulator has no form",
                where=self.label,
                hint="use the engine definition",
            )
        for k in {self._root(k) for k in node.arguments}:
            if self.last_use[k] == place and self.place[k][0] >= 0:
                self.free.append(self.place[k][0])
        to = self._register()
        padded = [*arguments, *[arguments[0]] * (3 - len(arguments))]
        self.rows.append([int(Opcode[name]), to, *(number for pair in padded for number in pair)])
        self.place[place] = to, 0

    def _require_narrow(self, place: int, node: Node) -> None:
        largest = self.bounds[place].largest
        if node.operation == "scaled":
            largest = max(largest, self.bounds[node.arguments[0]].largest * self.bounds[node.arguments[1]].largest)
        if node.operation == "left_of_levels":
            largest += self.bounds[node.arguments[1]].largest * self.bounds[node.arguments[2]].largest
        if node.operation in SHIFTS:
            by = self.bounds[node.arguments[-1]]
            if not 0 <= by.lowest <= by.highest < 64:
                raise InfeasibleError(f"shifts by {by.lowest} to {by.highest}, 0 to 63 is needed", where=self.label)
        if largest >= LARGEST:
            raise InfeasibleError(
                f"a value of it may need more than 63 bits, in {node.operation}",
                where=self.label,
                hint="scale the weights down",
            )

    def _root(self, place: int) -> int:
        """The node whose register a node's value stands in."""
        while self.body.nodes[place].operation == "as_integer":
            (place,) = self.body.nodes[place].arguments
        return place

    def _last_uses(self) -> dict[int, int]:
        """Node with a register -> the last one that reads it; beyond all of them where its value leaves."""
        last = {self._root(place): place for place in self.needed}
        for place in self.needed:
            for k in self.body.nodes[place].arguments:
                last[self._root(k)] = max(last[self._root(k)], place)
        for place in (self.body.result, *self.body.kept.values()):
            last[self._root(place)] = len(self.body.nodes)
        return last

    def _register(self) -> int:
        if self.free:
            return self.free.pop()
        self.written += 1
        return (self.written - 1) * CHUNK

    def _constant(self, value: Array) -> tuple[int, int]:
        each = value.size > 1
        numbers = value.ravel() if each else np.full(min(self.size, CHUNK), value.reshape(-1)[0])
        self.numbers.append(numbers.astype(np.int64))
        self.count += numbers.size
        return -1 - (self.count - numbers.size), int(each)


def _needed(body: Body) -> list[int]:
    """The nodes that the result and the state follow from, in their order; checks are proved to hold."""
    places: set[int] = set()
    waiting = [body.result, *body.kept.values()]
    while waiting:
        place = waiting.pop()
        if place not in places:
            places.add(place)
            waiting += body.nodes[place].arguments
    return sorted(places)
