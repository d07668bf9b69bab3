"""A layout as memories and instructions: what the hardware executes for one block.

An instruction is either of two kinds. ROWS walks over a list of spikes and adds a row of weights for each of them to
the accumulators. VECTOR walks over the neurons of a population: what was accumulated (which it clears) and what is held
enters their equations, or is held itself. Instructions before `loop` are executed once per block, the others at each
step from `first` to `last`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from nervecord.compiler.ops import Array
from nervecord.targets.fpga.layout import Equations, Layout, Source

ROWS, VECTOR = 0, 1


@dataclass(frozen=True, slots=True)
class Pointer:
    """A place that moves round: by `stride` at each `event`, below `limit`.

    event: "step"; "block", before the first instruction; "row" is a step too, and 0 before each block.
    """

    limit: int
    stride: int
    event: str


@dataclass(frozen=True, slots=True)
class Place:
    """An address: base, or base + (pointer + offset) modulo the pointer's limit. pointer: number from 1 on; 0: none."""

    base: int
    pointer: int = 0
    offset: int = 0
    limit: int = 0

    def fields(self, name: str) -> dict[str, int]:
        """As fields of an instruction."""
        return {
            f"{name}_base": self.base,
            f"{name}_pointer": self.pointer,
            f"{name}_offset": self.offset,
            f"{name}_limit": self.limit,
        }


@dataclass(frozen=True, slots=True)
class Ring:
    """Where a source's lists stand. most: largest magnitude of a value; 1: no values."""

    source: Source
    base: int
    count: int
    pointer: int
    count_pointer: int

    def places(self, back: int) -> dict[str, int]:
        """Fields for the list of so many steps ago."""
        size, slots = self.source.size, self.source.slots
        off = (slots - back) % slots
        at, count = Place(self.base), Place(self.count)
        if self.pointer:
            at = Place(self.base, self.pointer, off * size, slots * size)
            count = Place(self.count, self.count_pointer, off, slots)
        return {"valued": int(self.source.valued), **at.fields("list"), **count.fields("count")}


@dataclass(frozen=True, slots=True)
class Weights:
    """Where a connection's weights stand.

    Args:
        base: first row of weights. length: words of each source's row; of sparse ones 0.
        table: of a sparse one, where the table of its rows begins; -1: dense.
    """

    base: int
    length: int
    table: int


@dataclass(slots=True)
class Cell:
    """What works on the neuron datapath: a population or an entrance. state, constants: first place of each."""

    name: str
    equations: Equations
    size: int
    state: int = 0
    constants: int = 0
    entrance: bool = False


@dataclass(slots=True)
class Extent:
    """A memory: how many words, and the largest magnitude in it."""

    depth: int = 0
    most: int = 0

    def take(self, words: int, most: int) -> int:
        """The first of so many more words."""
        base, self.depth, self.most = self.depth, self.depth + words, max(self.most, most)
        return base


@dataclass
class Microcode:
    """Everything that the hardware is made of.

    Args:
        lanes: weights of a word. words: of weights, (depth, lanes). columns: of sparse words, the accumulators' row.
        table: (first word, words) of each sparse source.
        inputs, outputs: numbers that the host writes, from address 0 of the held values on, and reads.
        rows: of what it writes. places: entry -> (first number in a row, how many, rows).
        list_sizes: first place of a ring -> places of one of its lists.
        shifts, sums: the shifts of products and of sums that there are, by their number.
    """

    layout: Layout
    lanes: int
    instructions: list[dict[str, int]] = field(default_factory=list)
    loop: int = 0
    words: Array = field(default_factory=lambda: np.zeros((0, 1), np.int64))
    columns: list[int] = field(default_factory=list)
    table: list[tuple[int, int]] = field(default_factory=list)
    pointers: list[Pointer] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    shifts: list[int] = field(default_factory=list)
    sums: list[int] = field(default_factory=list)
    inputs: int = 0
    outputs: int = 0
    rows: int = 1
    list_sizes: dict[int, int] = field(default_factory=dict)
    places: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    lists: Extent = field(default_factory=Extent)
    values: Extent = field(default_factory=Extent)
    counts: Extent = field(default_factory=Extent)
    held: Extent = field(default_factory=Extent)
    sum: Extent = field(default_factory=Extent)
    out: Extent = field(default_factory=Extent)
    state: Extent = field(default_factory=Extent)

    @property
    def window(self) -> int:
        """Steps of a block."""
        return self.layout.window

    def entering(self, entered: Mapping[str, Array], copy: int) -> Array:
        """The numbers that the host writes.

        Args:
            entered: entry -> (window, batch, ...), what enters the core in a block. copy: of the batch.
        """
        numbers = np.zeros((self.rows, max(self.inputs // self.rows, 0)), dtype=np.int64)
        for name, (at, size, rows) in self.places.items():
            numbers[:rows, at : at + size] = entered[name][:rows, copy].reshape(rows, size)
        return numbers.ravel()

    def leaving(self, numbers: Array) -> dict[str, Array]:
        """What the host reads, as `After.leave` takes it: core step -> (window, 1, ...), of every read."""
        values, at = {}, 0
        plan = self.layout.plan
        for end in self.layout.exits:
            rows = np.zeros((plan.window, 1, end.size), dtype=np.int64)
            # A sum stands in the first of its steps: what takes it adds up all of them.
            count = self.rows if end.rows else 1
            rows[end.first : end.first + count, 0] = numbers[at : at + count * end.size].reshape(count, end.size)
            values[end.population] = rows.reshape(plan.window, 1, *plan.step(end.population).op.out_shape)
            at += count * end.size
        return values
