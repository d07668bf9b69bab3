"""Writes the memories and instructions of a layout: what `instructions` says they are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from nervecord.compiler.ops import Array
from nervecord.targets.fpga.instructions import ROWS, VECTOR, Cell, Microcode, Place, Pointer, Ring, Weights
from nervecord.targets.fpga.layout import Connection, Entrance, Equations, Exit, Layout, Population, Source, identity


def microcode(layout: Layout, lanes: int = 1) -> Microcode:
    """The memories and instructions of a layout.

    Args:
        lanes: weights that are added per cycle, a power of two.
    """
    return _Writer(layout, lanes).written()


class _Writer:
    def __init__(self, layout: Layout, lanes: int) -> None:
        self.layout, self.lanes = layout, lanes
        self.code = Microcode(layout, lanes)
        self.rings: dict[str, Ring] = {}
        self.weights: dict[str, Weights] = {}
        self.input_at: dict[str, int] = {}
        self._dense: list[Array] = []
        self._total: int | None = None
        self._entered: set[str] = set()
        self.rows = max((entrance.rows for entrance in layout.entrances), default=1)

    def written(self) -> Microcode:
        """See `microcode`."""
        code, layout = self.code, self.layout
        self._take_inputs()
        sources = [e.source for e in layout.entrances] + [p.source for p in layout.populations if p.source]
        # Values stand beside the first lists only: those of binary spikes need none.
        for source in sorted(sources, key=lambda source: not source.valued):
            self.rings[source.name] = self._ring(source)
        self._stored([c for p in layout.populations for c in p.incoming])
        products_of = {p.name: self._held_products(p) for p in layout.populations}
        code.loop = len(code.instructions)
        for entrance in layout.entrances:
            if not entrance.held:
                self._enter(entrance)
        exits = {
            e.population: (e, code.out.take(e.size * (self.rows if e.rows else 1), self._largest(e)))
            for e in layout.exits
        }
        code.outputs = code.out.depth
        for population in layout.populations:
            self._population(population, products_of[population.name], exits.get(population.name))
        code.words = np.concatenate(self._dense) if self._dense else np.zeros((0, self.lanes), np.int64)
        return code

    # ------------------------------------------------------------------------------------------------ memories

    def _take_inputs(self) -> None:
        row = 0
        for entrance in self.layout.entrances:
            if entrance.name not in self.input_at:
                self.input_at[entrance.name] = row
                self.code.places[entrance.name] = row, entrance.size, entrance.rows
                row += entrance.size
                most = max(entrance.source.most, abs(entrance.low), abs(entrance.high), *map(abs, entrance.fixed))
                self.code.held.most = max(self.code.held.most, most)
        self.row = row
        self.code.inputs, self.code.rows = row * self.rows, self.rows
        self.code.held.depth = self.code.inputs

    def _ring(self, source: Source) -> Ring:
        code = self.code
        base = code.lists.take(source.size * source.slots, source.size)
        code.list_sizes[base] = source.size
        if source.valued:
            code.values.depth = base + source.size * source.slots
            code.values.most = max(code.values.most, source.most)
        count = code.counts.take(source.slots, source.size)
        if source.slots == 1:
            return Ring(source, base, count, 0, 0)
        return Ring(
            source,
            base,
            count,
            self._pointer(Pointer(source.slots * source.size, source.size, "step")),
            self._pointer(Pointer(source.slots, 1, "step")),
        )

    def _pointer(self, pointer: Pointer) -> int:
        if pointer in self.code.pointers:
            return self.code.pointers.index(pointer) + 1
        self.code.pointers.append(pointer)
        return len(self.code.pointers)

    def _blocks(self, weight: Array) -> Array:
        """(sources, words of a row, lanes)."""
        sources, outputs = weight.shape
        length = -(-outputs // self.lanes)
        padded = np.zeros((sources, length * self.lanes), np.int64)
        padded[:, :outputs] = weight
        return padded.reshape(sources, length, self.lanes)

    def _stored(self, connections: Sequence[Connection]) -> None:
        """Sparse ones first: columns stand beside their words only."""
        chosen = []
        for c in [*connections, *(self._unit(size, ()) for size in self._unit_sizes())]:
            blocks = self._blocks(c.weight)
            nonzero: Array = np.any(blocks, axis=2)
            bits = _bits(int(np.abs(c.weight).max(initial=0))) * self.lanes
            index = max(blocks.shape[1] - 1, 1).bit_length()
            sparse = np.count_nonzero(nonzero) * (bits + index) + len(blocks) * 24 < nonzero.size * bits
            chosen.append((c, blocks, nonzero, sparse))
        for c, blocks, nonzero, sparse in sorted(chosen, key=lambda it: not it[3]):
            self._store(c, blocks, nonzero, sparse=sparse)

    def _store(self, c: Connection, blocks: Array, nonzero: Array, *, sparse: bool) -> None:
        code = self.code
        base = sum(len(words) for words in self._dense)
        if not sparse:
            self.weights[c.name] = Weights(base, blocks.shape[1], -1)
            self._dense.append(blocks.reshape(-1, self.lanes))
            return
        self.weights[c.name] = Weights(base, 0, len(code.table))
        starts = base + np.concatenate([[0], np.cumsum(nonzero.sum(axis=1))])
        code.table += [(int(a), int(b - a)) for a, b in itertools.pairwise(starts)]
        self._dense.append(blocks[nonzero])
        code.columns += np.nonzero(nonzero)[1].tolist()

    # ------------------------------------------------------------------------------------------------ instructions

    def _put(self, kind: int, steps: tuple[int, int], fields: dict[str, int]) -> None:
        self.code.instructions.append({"kind": kind, "first": steps[0], "last": steps[1], **fields})

    def _numbered(self, numbers: list[int], value: int) -> int:
        if value not in numbers:
            numbers.append(value)
        return numbers.index(value)

    def _add_rows(self, c: Connection, steps: tuple[int, int], shift: int) -> int:
        """Instructions that add what a connection gives; returns the largest magnitude of the sum."""
        weights, most = self.weights[c.name], 0
        for name, back in c.taps:
            ring = self.rings[name]
            self._put(
                ROWS,
                steps,
                {
                    **ring.places(back),
                    "sparse": int(weights.table >= 0),
                    "length": weights.length,
                    "weights": weights.base,
                    "table": max(weights.table, 0),
                    "shift": self._numbered(self.code.shifts, shift),
                },
            )
            product = np.abs(c.weight) * ring.source.most
            product = product << shift if shift >= 0 else np.where(product > 0, (product >> -shift) + 1, 0)
            most += int(product.sum(axis=0).max(initial=0))
        self.code.sum.take(0, most)
        self.code.sum.depth = max(self.code.sum.depth, -(-c.weight.shape[1] // self.lanes))
        return most

    def _accumulated(self, group: Sequence[Connection], steps: tuple[int, int]) -> tuple[int, int]:
        """Instructions that add up a group; the shift of the sum, and the largest magnitude of the shifted sum."""
        least = min((0 if c.each else c.exponent) for c in group)
        most = 0
        for c in group:
            most += self._add_rows(c, steps, c.exponent if c.each else c.exponent - least)
        self.code.sum.most = max(self.code.sum.most, most)
        return least, (most << least if least >= 0 else (most >> -least) + 1)

    @staticmethod
    def _groups(connections: Sequence[Connection]) -> list[list[Connection]]:
        """What may stand in the same accumulators: a sum that is rounded stands alone."""
        alone = [[c] for c in connections if c.exponent < 0 and not c.each]
        together = [c for c in connections if c.exponent >= 0 or c.each]
        return [*alone, *([together] if together else [])]

    def _vector(
        self, steps: tuple[int, int], size: int, *, shift: int | None, held: Place | None, **fields: int
    ) -> None:
        place = (held or Place(0)).fields("held")
        sums = 0 if shift is None else self._numbered(self.code.sums, shift)
        own = {"size": size, "summed": int(shift is not None), "sum_shift": sums, "takes": int(held is not None)}
        self._put(VECTOR, steps, {**own, **place, **fields})

    def _keep(
        self, steps: tuple[int, int], size: int, *, shift: int | None, held: Place | None, to: Place, most: int
    ) -> None:
        """An instruction that holds a sum."""
        self._vector(steps, size, shift=shift, held=held, keeps=1, **to.fields("kept"))
        self.code.held.most = max(self.code.held.most, most)

    # ------------------------------------------------------------------------------------------------ what enters

    def _cell(self, name: str, equations: Equations, size: int, *, entrance: bool = False) -> int:
        cell = Cell(name, equations, size, entrance=entrance)
        if equations.body.kept:
            cell.state = self.code.state.take(size, 0)
        self.code.cells.append(cell)
        return len(self.code.cells) - 1

    def _enter(self, entrance: Entrance) -> None:
        """An instruction that lists what enters."""
        steps = (0, 0) if entrance.held else (0, self.layout.plan.schedule.steps - 1)
        place = Place(self.input_at[entrance.name])
        if entrance.rows > 1:
            pointer = self._pointer(Pointer(self.row * self.rows, self.row, "row"))
            place = Place(place.base, pointer, 0, self.row * self.rows)
        cell = self._cell(entrance.name, entrance.equations, entrance.size, entrance=True)
        self._vector(
            steps,
            entrance.size,
            shift=None,
            held=place,
            cell=cell,
            sends=1,
            clears=self.layout.window,
            **self.rings[entrance.source.name].places(0),
        )

    def _held_products(self, population: Population) -> list[tuple[Connection, Place, int]]:
        """Instructions that take the products of what is held; (connection, where they stand, largest magnitude)."""
        products: list[tuple[Connection, Place, int]] = []
        together: dict[tuple[int, tuple[int | None, ...]], list[Connection]] = {}
        for c in population.incoming:
            if c.held:
                together.setdefault((c.slots, c.when), []).append(c)
        for (slots, _), connections in together.items():
            for c in connections:
                self._enter_once(c)
            pointer = self._pointer(Pointer(slots * population.size, population.size, "block")) if slots > 1 else 0
            base = self.code.held.take(slots * population.size, 0)
            place = Place(base, pointer, 0, slots * population.size)
            most, before = 0, None
            for group in self._groups(connections):
                shift, magnitude = self._accumulated(group, (0, 0))
                most += magnitude
                self._keep((0, 0), population.size, shift=shift, held=before, to=place, most=most)
                before = place
            products.append((connections[0], place, most))
        return products

    def _enter_once(self, c: Connection) -> None:
        """The list of a held entry, where it is not there yet."""
        ((name, _),) = c.taps
        if name in self._entered:
            return
        self._entered.add(name)
        self._enter(next(e for e in self.layout.entrances if e.held and e.source.name == name))

    # ------------------------------------------------------------------------------------------------ populations

    def _stretches(self, population: Population, when: tuple[int | None, ...]) -> list[tuple[int, int, int | None]]:
        """(first, last step, blocks ago) of useful steps."""
        stretches: list[tuple[int, int, int | None]] = []
        for k in population.useful:
            if stretches and stretches[-1][2] == when[k]:
                stretches[-1] = (stretches[-1][0], k, when[k])
            else:
                stretches.append((k, k, when[k]))
        return stretches

    def _population(
        self, population: Population, held: list[tuple[Connection, Place, int]], end: tuple[Exit, int] | None
    ) -> None:
        if not len(population.useful):
            return
        steps = (population.useful[0], population.useful[-1])
        size = population.size
        direct = [self._plain(c, steps) for c in population.incoming if not c.held]
        # Only one product that is held is read beside the sum; others are added up as if they had been sent.
        for c, place, most in held[1:]:
            direct.append(self._as_list(population, c, place, most))
        groups = self._groups(direct)
        total, most = None, held[0][2] if held else 0
        for group in groups[:-1]:
            shift, magnitude = self._accumulated(group, steps)
            most += magnitude
            if total is None and held:
                for first, last, at in self._first_held(population, held):
                    self._keep((first, last), size, shift=shift, held=at, to=self._total_place(), most=most)
            else:
                self._keep(steps, size, shift=shift, held=total, to=self._total_place(), most=most)
            total = self._total_place()
        last_shift = self._accumulated(groups[-1], steps)[0] if groups else None
        cell = self._cell(population.name, population.equations, size)
        fields = self._ends(population, end)
        if total is not None or not held:
            self._vector(steps, size, shift=last_shift, held=total, cell=cell, **fields)
            return
        for first, last, at in self._first_held(population, held):
            self._vector((first, last), size, shift=last_shift, held=at, cell=cell, **fields)

    def _first_held(
        self, population: Population, held: list[tuple[Connection, Place, int]]
    ) -> list[tuple[int, int, Place | None]]:
        c, place, _ = held[0]
        return [
            (first, last, self._ago(population.size, place, c.slots, back))
            for first, last, back in self._stretches(population, c.when)
        ]

    @staticmethod
    def _ago(size: int, place: Place, slots: int, back: int | None) -> Place | None:
        if back is None:
            return None
        return Place(place.base, place.pointer, (slots - back) % slots * size, place.limit)

    def _total_place(self) -> Place:
        if self._total is None:
            widest = max(p.size for p in self.layout.populations)
            self._total = self.code.held.take(widest, 0)
        return Place(self._total)

    def _ends(self, population: Population, end: tuple[Exit, int] | None) -> dict[str, int]:
        """Fields of what it sends, and of what is read of it."""
        window = self.layout.window
        fields = {"clears": window if population.clears is None else population.clears}
        if population.source is not None:
            fields |= {"sends": 1, **self.rings[population.name].places(0)}
        if end is not None:
            out, base = end
            fields |= {
                "reads": 1,
                "read_first": out.first,
                "read_last": out.last,
                "adds": int(not out.rows and out.last > out.first),
            }
            place = Place(base)
            if out.rows and self.rows > 1:
                limit = self.rows * out.size
                pointer = self._pointer(Pointer(limit, out.size, "row"))
                place = Place(base, pointer, -out.first * out.size % limit, limit)
            fields |= place.fields("out")
        return fields

    # ------------------------------------------------------------------------------------------------ rare forms

    def _plain(self, c: Connection, steps: tuple[int, int]) -> Connection:
        """The connection; where values that enter must be added up before products are rounded, of their sum."""
        if not c.each or len(c.taps) == 1:
            return c
        size = c.weight.shape[0]
        self._accumulated([self._unit(size, c.taps)], steps)
        most = sum(self.rings[name].source.most for name, _ in c.taps)
        source = self._listed(f"{c.name} (sum)", size, most, steps, shift=0, held=None)
        return Connection(c.name, c.weight, c.exponent, True, ((source, 0),), False, 1, ())

    def _as_list(self, population: Population, c: Connection, place: Place, most: int) -> Connection:
        """A connection that adds what is held to the sum."""
        name = f"{c.name} (list)"
        for first, last, back in self._stretches(population, c.when):
            at = self._ago(population.size, place, c.slots, back)
            self._listed(name, population.size, most, (first, last), shift=None, held=at)
        return self._unit(population.size, ((name, 0),))

    def _listed(
        self, name: str, size: int, most: int, steps: tuple[int, int], *, shift: int | None, held: Place | None
    ) -> str:
        """An instruction that lists what is accumulated or held, as it is."""
        if name not in self.rings:
            self.rings[name] = self._ring(Source(name, size, 1, True, most))
        cell = self._cell(name, identity(most), size)
        self._vector(
            steps,
            size,
            shift=shift,
            held=held,
            cell=cell,
            sends=1,
            clears=self.layout.window,
            **self.rings[name].places(0),
        )
        return name

    def _unit(self, size: int, taps: tuple[tuple[str, int], ...]) -> Connection:
        """A connection from each place to the same place."""
        return Connection(f"unit {size}", np.eye(size, dtype=np.int64), 0, False, taps, False, 1, ())

    def _unit_sizes(self) -> list[int]:
        """Of all such connections that are needed."""
        sizes = {c.weight.shape[0] for p in self.layout.populations for c in p.incoming if c.each and len(c.taps) > 1}
        for p in self.layout.populations:
            if len({(c.slots, c.when) for c in p.incoming if c.held}) > 1:
                sizes.add(p.size)
        return sorted(sizes)

    def _largest(self, end: Exit) -> int:
        population = next(p for p in self.layout.populations if p.name == end.population)
        low, high = population.equations.ranges[population.equations.body.result]
        times = 1 if end.rows else end.last - end.first + 1
        return max(abs(low), abs(high)) * times


def _bits(most: int) -> int:
    """Bits of a signed number of this magnitude."""
    return most.bit_length() + 1
