"""A plan as the tables of the emulator's compiled loop, with the ranges that say which form of it is exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nervecord.compiler.body.expression import Body
from nervecord.compiler.lower.linear import largest_sent, senders, sums
from nervecord.compiler.lower.ranges import Proved, prove_bodies
from nervecord.compiler.ops import Array, Mantissas
from nervecord.compiler.ops.sparse import MOST_DENSE
from nervecord.compiler.plan.plan import Entry, Plan, Step
from nervecord.errors import InfeasibleError
from nervecord.runtime.engines.emulator.fused import HostChain, host_chain
from nervecord.runtime.engines.emulator.leaky import leaky
from nervecord.runtime.engines.emulator.opcodes import CHUNK, Eq, Ins, Instructions, Kept, instructions
from nervecord.runtime.engines.emulator.tables import Con, Fan, Header, Hold, Kind, Pop, Ring

NARROW = 1 << 31
"""Sums below it are exact in int32."""
FLOAT32 = 1 << 24
"""Whole numbers below it are exact in float32, and what is beyond stays beyond when it is rounded: a membrane passes a
threshold below it rounded or not."""
MOST_MEMORY = NARROW - 1
"""Places in a robot's memory are kept in that memory."""
SPARSE = 1 / 16
"""A matrix with a smaller part of weights that are not zero is stored by its rows. Measured, with a tenth of the
sources spiking: rows win below 7 % in matrices of 256 x 256 and 1024 x 1024, below 12 % in one of 4096 x 4096."""


@dataclass(slots=True)
class Packed:
    """What the kernel takes.

    Args:
        table, reals, weights, columns: of the graph. registers: of populations' equations, constants among them.
        state, memory: numbers of one robot; `dtypes` are theirs.
        scratch: numbers of one robot in float64, the accumulators of the host's population code among them.
        fused: whether the kernel does the host's part too.
        populations: name -> what it keeps, in the order of its rows of state; in the order of the counters.
        connections: names, in that order.
        rings: entry or population -> its ring. held: entry -> place of its row in the table.
    """

    table: Array
    reals: Array
    weights: Array
    columns: Array
    registers: Array
    state: int
    memory: int
    scratch: int
    fused: bool
    narrow: bool
    populations: dict[str, tuple[str, ...]]
    connections: tuple[str, ...]
    rings: dict[str, int]
    held: dict[str, int]

    @property
    def dtypes(self) -> tuple[type, type]:
        """Of state and memory."""
        return (np.float32, np.int32) if self.narrow else (np.int64, np.int64)


def pack(plan: Plan, *, fuse: bool = True, wide: bool = False, fast: bool = True, sparse: float = SPARSE) -> Packed:
    """The tables of a plan of integers.

    Args:
        fuse: give the kernel the host's part where it can do it. wide: take the wide form whatever the ranges.
        fast: give equations that have a fast form that one; else all run by their instructions.
        sparse: see `SPARSE`.

    Raises:
        GraphError: an entry has no limit.
        InfeasibleError: it needs more memory than can be addressed.
    """
    return _Packer(plan, host_chain(plan) if fuse else None, wide, fast, sparse).packed()


@dataclass(frozen=True, slots=True)
class Equations:
    """Instructions of a population, whose constants have no place among the registers yet.

    Args:
        instructions: of it. table, rows: its numbers of `opcodes.Eq` and `Kept`, and of `Ins`, as in the table.
    """

    instructions: Instructions
    table: Array
    rows: Array


def _behind(places: Array, start: int) -> None:
    """Gives places of constants, which are -1 - place, their own: from `start` on."""
    places[places < 0] = start - 1 - places[places < 0]


class _Packer:
    """Writes the tables of one plan."""

    def __init__(self, plan: Plan, chain: HostChain | None, wide: bool, fast: bool, sparse: float) -> None:
        arithmetic = plan.graph.arithmetic
        assert arithmetic is not None
        self.plan, self.chain, self.fast, self.sparse, self.arithmetic = plan, chain, fast, sparse, arithmetic
        self.proofs = {proved.range.name: proved for proved in prove_bodies(plan)}
        self.sent = largest_sent(plan)
        self.senders = senders(plan)
        self.sums = {step.name: sums(step, self.sent, arithmetic) for step in plan.connections}
        self.units = {unit.step.name: unit for unit in plan.units}
        self.entering = {
            name: sum(self.sums[step.name].given for step in unit.incoming) << arithmetic.input_shift
            for name, unit in self.units.items()
        }
        self.narrow = not wide and self._is_narrow()
        self.connections = {step.name: k for k, step in enumerate(plan.connections)}
        self.populations = {name: k for k, name in enumerate(self.units)}
        self.table: list[Array] = [np.zeros(Header.SIZE, dtype=np.int64)]
        self.header = self.table[0]
        self.size = int(Header.SIZE)
        self.reals: list[Array] = [np.zeros(0)]
        self.real = 0
        self.weights: list[Array] = []
        self.columns: list[Array] = []
        self.weight = 0
        self.memory = 0
        self.state = 0
        self.equations: list[Equations] = []
        self.held = [entry for entry in plan.entries if entry.entering == "held"]
        self.rings = {name: k for k, name in enumerate(self.senders)}

    # ------------------------------------------------------------------------------------------------ ranges

    def _is_narrow(self) -> bool:
        """Whether weights of 16 bits, sums of 32 and a state in float32 are exact."""
        for proved in self.proofs.values():
            body, values = proved.reached.body, proved.reached.values
            if any(values[place].largest >= FLOAT32 for place in (body.result, *body.kept.values())):
                return False
        for step in self.plan.connections:
            assert isinstance(step.op, Mantissas)
            if step.op.stored.min() < -(1 << 15) or step.op.stored.max() >= 1 << 15:
                return False
            if self.sums[step.name].given >= NARROW or self.sums[step.name].product >= 1 << 53:
                return False
        return max(*self.entering.values(), *self.sent.values()) < NARROW

    # ------------------------------------------------------------------------------------------------ places

    def put_rows(self, rows: list[Any]) -> int:
        """Numbers into the table; returns where they begin."""
        return self.put_table(np.array(rows, dtype=np.int64).ravel())

    def put_table(self, numbers: Array) -> int:
        """Numbers into the table, which may still be changed; returns where they begin."""
        self.table.append(numbers)
        self.size += numbers.size
        return self.size - numbers.size

    def _reserve(self, count: int) -> int:
        """So many numbers of a robot's memory."""
        self.memory += count
        return self.memory - count

    def put_real(self, values: Array) -> int:
        """Numbers among the reals; returns where they begin."""
        array = np.asarray(values, dtype=np.float64).ravel()
        self.reals.append(array)
        self.real += array.size
        return self.real - array.size

    # ------------------------------------------------------------------------------------------------ rings

    def _ring_rows(self) -> list[list[int]]:
        rows = []
        for name, sender in self.senders.items():
            width, steps = sender.source.op.size, sender.source.keeps + self.plan.window
            count, place = self._reserve(steps), self._reserve(steps * width)
            value = self._reserve(steps * width) if sender.graded else -1
            rows.append([width, steps, count, place, value, *self._fans(name)])
        return rows

    def _fans(self, source: str) -> tuple[int, int]:
        """Where the fan-outs of what `source` feeds stand, and how many they are."""
        rows = []
        for step in self.plan.connections:
            if not any(tap.source == source for tap in step.taps):
                continue
            synapses = step.op.synapses()
            assert synapses is not None
            reach = np.asarray(synapses.fan_out, dtype=np.int64).ravel()
            uniform = bool((reach == reach[0]).all())
            counter = len(self.units) + self.connections[step.name]
            rows.append([counter, -1 if uniform else self.put_rows([reach]), int(reach[0])])
        assert all(len(row) == Fan.SIZE for row in rows)
        return (self.put_rows(rows) if rows else 0), len(rows)

    # ------------------------------------------------------------------------------------------------ steps

    def _connection(self, step: Step) -> list[int]:
        dense = step.op
        assert isinstance(dense, Mantissas)
        (outputs,), (inputs,) = dense.out_shape, dense.in_shape
        hoisted = step.name in self.plan.hoisted
        blocks = self._blocks(dense.delay) if hoisted else 1
        span, weight, column = self._store(dense)
        taps = [0] if hoisted else [self.rings[tap.source] for tap in step.taps]
        each = self.arithmetic.shifts_each and dense.weight_exp < 0
        real = self.narrow and self.sums[step.name].product >= NARROW
        return [
            inputs,
            outputs,
            weight,
            span,
            dense.weight_exp,
            each,
            real,
            self._reserve(outputs * blocks),
            dense.delay,
            blocks,
            self.put_rows(taps),
            len(taps),
            column,
        ]

    def _blocks(self, delay: int) -> int:
        return -(-delay // self.plan.window) + 1

    def _store(self, dense: Mantissas) -> tuple[int, int, int]:
        """A matrix by source: where in the table its rows begin (-1: dense), where its weights, and how far from a
        weight's place its column is."""
        place, span, column = self.weight, -1, 0
        places = dense.out_shape[0] * dense.in_shape[0]
        # What is too large to be laid out with its zeros stays as it is stored, however full.
        if places > MOST_DENSE or np.count_nonzero(dense.stored) < self.sparse * places:
            stored = dense.by_source()
            rows = stored.values
            span = self.put_rows([place + stored.starts])
            column = sum(map(len, self.columns)) - place
            self.columns.append(stored.columns.astype(np.int32))
        else:
            rows = dense.weight.T
        self.weights.append(rows.astype(np.int16 if self.narrow else np.int32).ravel())
        self.weight += rows.size
        return span, place, column

    def _kind(self, step: Step, row: list[int]) -> Kind:
        if step.name in self.plan.hoisted:
            return Kind.HELD
        several = len(step.taps) > 1 or row[Con.REAL]
        return Kind.VALUES if several or self.senders[step.taps[0].source].graded else Kind.ROWS

    def _population(self, step: Step) -> list[int]:
        op, n = step.op, step.op.size
        proved = self.proofs[step.name]
        body = proved.folded
        taps = [self.connections[tap.source] for tap in step.taps]
        state = self.state
        self.state += len(body.kept) * n
        value = -1
        if not op.sending:
            value = self.state
            self.state += n * self.plan.window
        return [
            n,
            state,
            len(body.kept),
            self.put_rows(taps),
            len(taps),
            self._reserve(n) if len(taps) > 1 else 0,
            step.phase % self.plan.window,
            self.rings.get(step.name, -1),
            value,
            *self._form(proved, body, step),
        ]

    def _form(self, proved: Proved, body: Body, step: Step) -> tuple[int, int, int, int]:
        """The last columns of `Pop`: the fast form where the equations are those of one, else instructions."""
        ranges, n = proved.bounds(body), step.op.size
        valued = step.op.sending and self.senders[step.name].graded
        fast = leaky(body, ranges) if self.fast and not valued else None
        if fast is not None and fast.fires == step.op.sending:
            return 1, 0, self.put_real(fast.numbers), self.put_real(np.broadcast_to(fast.bias, n))
        code = instructions(body, ranges, n, step.op.label)
        states = [number for state in code.states for number in state]
        own = [0, len(code.rows), code.x, *code.result, *states]
        assert len(own) == Eq.SIZE + Kept.SIZE * len(code.states)
        table: Array = np.array(own, dtype=np.int64)
        place = self.put_table(table)
        rows: Array = np.array(code.rows, dtype=np.int64).reshape(-1, Ins.SIZE)
        table[Eq.FIRST] = self.put_table(rows.reshape(-1))
        self.equations.append(Equations(code, table, rows))
        return 0, place, 0, 0

    def _registers(self) -> Array:
        """All registers: those that are written, which populations share, and the constants of each behind them."""
        parts = [np.zeros(max((each.instructions.registers for each in self.equations), default=0) * CHUNK, np.int64)]
        start = len(parts[0])
        for each in self.equations:
            for column in (Ins.A, Ins.B, Ins.C):
                _behind(each.rows[:, column], start)
            _behind(each.table[Eq.RESULT : Eq.RESULT + 1], start)
            _behind(each.table[Eq.SIZE + Kept.AFTER :: Kept.SIZE], start)
            parts.append(each.instructions.constants)
            start += each.instructions.constants.size
        return np.concatenate(parts)

    def _hold_row(self, entry: Entry, start: int) -> list[int]:
        width, blocks = entry.op.size, self._blocks(entry.keeps)
        fan, fans = self._fans(entry.name)
        products = [self.connections[name] for name, source in self.plan.hoisted.items() if source == entry.name]
        return [
            width,
            self._reserve(width * blocks),
            blocks,
            self.rings.get(entry.name, -1),
            fan,
            fans,
            self.put_rows(products) if products else 0,
            len(products),
            start,
        ]

    # ------------------------------------------------------------------------------------------------ the whole

    def packed(self) -> Packed:
        """All tables."""
        plan, h = self.plan, self.header
        scratch = self._host(self.chain) if self.chain is not None else 0
        h[Header.STEPS], h[Header.WINDOW], h[Header.RESETS] = plan.schedule.steps, plan.window, plan.schedule.resets
        h[Header.REALS] = self.real
        connections = [self._connection(step) for step in plan.connections]
        populations = [self._population(unit.step) for unit in plan.units]
        order: list[tuple[int, int]] = []
        for step in plan.core:
            if step.name in self.connections:
                k = self.connections[step.name]
                order.append((self._kind(step, connections[k]), k))
            else:
                order.append((Kind.NEURONS, self.populations[step.name]))
        widest = max(max(row[Con.INPUTS], row[Con.OUTPUTS]) for row in connections)
        starts = np.cumsum([0, *(entry.op.size for entry in self.held)])
        hold_rows = [self._hold_row(entry, int(start)) for entry, start in zip(self.held, starts, strict=False)]
        streamed = [self.rings[entry.name] for entry in plan.entries if entry.entering != "held"]
        rings = self._ring_rows()
        assert all(
            len(row) == size
            for rows, size in (
                (connections, Con.SIZE),
                (populations, Pop.SIZE),
                (hold_rows, Hold.SIZE),
                (rings, Ring.SIZE),
            )
            for row in rows
        )
        h[Header.ORDER], h[Header.ORDERS] = self.put_rows(order), len(order)
        h[Header.CONNECTION], h[Header.CONNECTIONS] = self.put_rows(connections), len(connections)
        h[Header.POPULATION], h[Header.POPULATIONS] = self.put_rows(populations), len(populations)
        h[Header.RING] = self.put_rows(rings)
        h[Header.HELD], h[Header.HELDS] = self.put_rows(hold_rows), len(hold_rows)
        h[Header.STREAMED], h[Header.STREAMEDS] = self.put_rows(streamed), len(streamed)
        h[Header.ZERO], h[Header.WIDEST] = self._reserve(widest), widest
        h[Header.AT], h[Header.GATHERED], h[Header.TOTAL] = self._reserve(len(order)), self._reserve(widest), scratch
        if self.memory > MOST_MEMORY:
            raise InfeasibleError(
                f"one copy needs {self.memory} numbers of memory, at most {MOST_MEMORY} can be addressed",
                where="emulator",
                hint="shorter delays or shorter blocks",
            )
        registers = self._registers()
        places = {entry.name: int(h[Header.HELD]) + k * Hold.SIZE for k, entry in enumerate(self.held)}
        return Packed(
            table=np.concatenate(self.table),
            reals=np.concatenate(self.reals),
            weights=np.concatenate(self.weights),
            columns=np.concatenate([*self.columns, np.zeros(1, np.int32)]),
            registers=registers,
            state=self.state,
            memory=self.memory,
            scratch=scratch + widest,
            fused=self.chain is not None,
            narrow=self.narrow,
            populations={name: tuple(self.proofs[name].reached.body.kept) for name in self.populations},
            connections=tuple(self.connections),
            rings=self.rings,
            held=places,
        )

    def _host(self, chain: HostChain) -> int:
        """The host's ops among the reals: clip, scale, limit, appended, sigma; the normaliser's mean and divisor; the
        decoder's offset, low, high, fail-safe, and weights by neuron; the population code's means.

        Returns:
            How many numbers in float64 it needs.
        """
        plan, h, pulsed = self.plan, self.header, chain.centres is not None
        self.put_real(np.array([chain.clip, chain.scale, chain.limit, 0 if pulsed else chain.appended, chain.sigma]))
        self.put_real(chain.mean)
        self.put_real(chain.divisor)
        self.put_real(chain.numbers)
        self.put_real(chain.weights.T)
        accumulators = 0
        if chain.centres is not None:
            self.put_real(chain.centres)
            accumulators = chain.centres.size
            h[Header.ALWAYS], h[Header.CHANNEL] = chain.appended, chain.centres.shape[1]
        h[Header.PULSED], h[Header.CARRIED] = pulsed, not plan.schedule.resets
        h[Header.OBSERVATIONS] = chain.mean.size
        h[Header.COUNTED], h[Header.CHOOSES] = chain.counted, chain.chooses
        (read,) = plan.reads
        h[Header.READ], h[Header.FIRST], h[Header.LAST] = self.populations[read.source], read.first, read.last
        h[Header.DECODED], h[Header.EACH] = chain.weights.shape
        h[Header.UNITS], h[Header.COUNTS] = accumulators, 2 * accumulators
        h[Header.PULSE] = self._reserve(accumulators + 1) if pulsed else 0
        return int(2 * accumulators + (chain.weights.size if chain.counted else 0))
