"""The core: a sequencer that executes instructions, and the two pipelines of which they make use.

    rows      list -> row of weights -> weight times value -> added to the accumulators
    vector    accumulators, held values, state, constants -> sum -> equations -> state, list, what is read

Each memory gives what is read a cycle later. Both pipelines take one weight word, or one neuron, per cycle; the
sequencer waits until one is empty before it takes the next instruction.
"""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Const, Elaboratable, Instance, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib.memory import Memory

from nervecord.targets.fpga.datapath import Datapath, Field, constant_words, pack, packed, units, unpack
from nervecord.targets.fpga.microcode import ROWS, Extent, Microcode


def address_bits(depth: int) -> int:
    """Of a memory's address."""
    return max((depth - 1).bit_length(), 1)


def _address(depth: int) -> Shape:
    """What addresses of a memory need."""
    return unsigned(address_bits(max(depth, 2)))


class Core(Elaboratable):
    """See the module.

    Args:
        code: what it executes. banked: state is held in two memories of one port each, as the iCE40 UltraPlus has them.

    Attributes:
        clear: back to the state before the first block; `busy` until that is done. start: one block; `busy` meanwhile.
        write, write_address, write_data: numbers of what enters, while it is not busy.
        read_address, read_data: numbers of what leaves, a cycle later, while it is not busy.
        seen, seen_cell, seen_place, seen_value, step: what each neuron gave, for whoever looks.
    """

    def __init__(self, code: Microcode, *, banked: bool = False) -> None:
        self.code, self.banked = code, banked
        self.units, self.places = units([cell.equations for cell in code.cells])
        self._constants()
        held, out = max(code.held.most, 1), max(code.out.most, 1)
        self.held_field, self.out_field = Field.holding(-held, held), Field.holding(-out, out)
        self.weight = Field.holding(int(code.words.min(initial=-1)), int(code.words.max(initial=0)))
        self.sum = Field.holding(-max(code.sum.most, 1), max(code.sum.most, 1))
        places = max((cell.size for cell in code.cells), default=2)
        shapes = {
            "clear": 1, "start": 1, "busy": 1, "write": 1, "write_address": _address(code.held.depth),
            "write_data": self.held_field.shape, "read_address": _address(code.out.depth),
            "read_data": self.out_field.shape, "seen": 1, "seen_cell": _address(len(code.cells)),
            "seen_place": _address(places), "seen_value": signed(max(self._result_bits(), 2)),
            "step": _address(code.window + 1),
        }  # fmt: skip
        self.ports = {name: Signal(shape, name=name) for name, shape in shapes.items()}
        self.clear, self.start, self.busy = (self.ports[name] for name in ("clear", "start", "busy"))
        self.write, self.write_address, self.write_data = (
            self.ports[name] for name in ("write", "write_address", "write_data")
        )
        self.read_address, self.read_data = self.ports["read_address"], self.ports["read_data"]
        self.seen, self.seen_cell, self.seen_place, self.seen_value, self.step = (
            self.ports[name] for name in ("seen", "seen_cell", "seen_place", "seen_value", "step")
        )

    def _result_bits(self) -> int:
        return max((unit.field(unit.body.result).bits + 1 for unit in self.units), default=2)

    def _constants(self) -> None:
        """Where each cell's constants stand, and the words."""
        self.constant_words: list[int] = []
        for cell, (unit, member) in zip(self.code.cells, self.places, strict=True):
            if self.units[unit].constants:
                cell.constants = len(self.constant_words)
                self.constant_words += constant_words(self.units[unit], member, cell.size)
        self.constant_bits = max((packed(unit.constants) for unit in self.units), default=0)

    @property
    def state_bits(self) -> int:
        """Bits of all that a neuron keeps."""
        return max((packed(unit.state) for unit in self.units), default=0)

    def contents(self) -> dict[str, tuple[int, list[int]]]:
        """Memory that is only read -> bits of a word, and the words."""
        code, found = self.code, {}
        bits = self.weight.bits
        mask = (1 << bits) - 1
        words = [sum((int(w) & mask) << (bits * k) for k, w in enumerate(row)) for row in code.words.tolist()]
        if words:
            found["weights"] = (bits * code.lanes, words)
        if code.columns:
            found["columns"] = (address_bits(max(code.sum.depth, 2)), code.columns)
            at, count = self.table_bits
            found["table"] = (at + count, [first | (length << at) for first, length in code.table])
        if self.constant_words:
            found["constants"] = (self.constant_bits, self.constant_words)
        return found

    @property
    def table_bits(self) -> tuple[int, int]:
        """Bits of a sparse row's first word, and of their number."""
        most = max((length for _, length in self.code.table), default=1)
        return address_bits(max(len(self.code.words), 2)), max(most.bit_length(), 1)

    def elaborate(self, platform: Any) -> Module:
        """The hardware."""
        return _Builder(self).built()


class _Builder:
    """Makes the parts of a core, which share signals."""

    def __init__(self, core: Core) -> None:
        self.core, self.code, self.m = core, core.code, Module()
        m = self.m
        self.fields = self._instruction()
        self.clearing, self.clear_at = Signal(), Signal(address_bits(max(self._deepest(), 2)))
        self.rows_go, self.vector_go = Signal(), Signal()
        self.rows_done, self.vector_done = Signal(), Signal()
        self.finish, self.idle = Signal(), Signal()
        self.step = core.step
        self.pointers = [Signal(address_bits(max(p.limit, 2)), name=f"pointer{k}")
                         for k, p in enumerate(self.code.pointers)]  # fmt: skip
        self.list_at = self._place("list", self.code.lists)
        self.count_at = self._place("count", self.code.counts)
        self.held_at = self._place("held", self.code.held)
        self.kept_at = self._place("kept", self.code.held)
        self.out_at = self._place("out", self.code.out)
        m.d.comb += core.busy.eq(1)

    def _deepest(self) -> int:
        code = self.code
        return max(code.held.depth, code.sum.depth, code.state.depth, code.counts.depth, code.out.depth)

    def built(self) -> Module:
        """The whole."""
        self._memories()
        self._rows()
        self._vector()
        self._sequencer()
        return self.m

    # ------------------------------------------------------------------------------------------------ instructions

    def _instruction(self) -> dict[str, Value]:
        """The fields of the current instruction; one that is the same in all of them is no signal."""
        m, instructions = self.m, self.code.instructions
        self.pc = Signal(address_bits(max(len(instructions), 2)))
        self.fetch = Signal()
        names = list(dict.fromkeys(name for each in instructions for name in each))
        fields: dict[str, Value] = {}
        for name in names:
            values = [each.get(name, 0) for each in instructions if name in ALWAYS or name in each]
            if len(set(values)) == 1:
                fields[name] = Const(values[0])
                continue
            register = Signal(max(max(values).bit_length(), 1), name=f"i_{name}")
            fields[name] = register
        with m.If(self.fetch), m.Switch(self.pc):
            for k, each in enumerate(instructions):
                with m.Case(k):
                    for name, register in fields.items():
                        if isinstance(register, Signal) and (name in each or name in ALWAYS):
                            m.d.sync += register.eq(each.get(name, 0))
        return fields

    def field(self, name: str) -> Value:
        """A field; 0 where no instruction has it."""
        return self.fields.get(name, Const(0))

    def _place(self, name: str, extent: Extent) -> Value:
        """An address of the current instruction, in a register two cycles after it was fetched."""
        m = self.m
        base, pointer = self.field(f"{name}_base"), self.field(f"{name}_pointer")
        used = sorted({each.get(f"{name}_pointer", 0) for each in self.code.instructions} - {0})
        found = Signal(address_bits(max(extent.depth, 2)), name=f"{name}_at")
        if not used:
            m.d.comb += found.eq(base)
            return found
        widest = max(len(self.pointers[k - 1]) for k in used)
        moved, turned = Signal(widest + 1, name=f"{name}_moved"), Signal(widest + 1, name=f"{name}_turned")
        now = Signal(widest, name=f"{name}_pointer")
        with m.Switch(pointer):
            for k in used:
                with m.Case(k):
                    m.d.comb += now.eq(self.pointers[k - 1])
        limit = self.field(f"{name}_limit")
        m.d.comb += [
            moved.eq(now + self.field(f"{name}_offset")),
            turned.eq(Mux(moved >= limit, moved - limit, moved)),
        ]
        m.d.sync += found.eq(base + Mux(pointer == 0, 0, turned))
        return found

    # ------------------------------------------------------------------------------------------------ memories

    def _memories(self) -> None:
        core, code, m = self.core, self.code, self.m
        self.roms: dict[str, tuple[Value, Value, Value]] = {}
        for name, (bits, words) in core.contents().items():
            address = Signal(address_bits(max(len(words), 2)), name=f"{name}_address")
            data, enable = Signal(bits, name=f"{name}_data"), Signal(name=f"{name}_enable")
            m.submodules[f"rom_{name}"] = Instance(
                "nervecord_rom", p_WIDTH=bits, p_DEPTH=len(words), p_BITS=len(address), p_FILE=f"{name}.hex",
                i_clk=self.m_clock(), i_enable=enable, i_address=address, o_data=data,
            )  # fmt: skip
            self.roms[name] = (address, enable, data)
        self.lists = self._memory("lists", unsigned(address_bits(max(code.lists.most, 2))), code.lists.depth)
        value = Field.holding(-max(code.values.most, 1), max(code.values.most, 1))
        self.values = self._memory("values", value.shape, code.values.depth) if code.values.depth else None
        self.counts = self._memory("counts", unsigned(max(code.counts.most.bit_length(), 1)), code.counts.depth)
        self.held = self._memory("held", core.held_field.shape, code.held.depth)
        self.sums = self._memory("sums", unsigned(core.sum.bits * code.lanes), code.sum.depth, through=True)
        self.out = self._memory("out", core.out_field.shape, code.out.depth)

    def m_clock(self) -> Value:
        """The clock, for what is no part of Amaranth."""
        from amaranth import ClockSignal

        return ClockSignal()

    def _memory(self, name: str, shape: Any, depth: int, *, through: bool = False) -> tuple[Any, Any]:
        """(read port, write port); through: what is written is read in the same cycle."""
        memory = Memory(shape=shape, depth=max(depth, 2), init=[])
        self.m.submodules[f"memory_{name}"] = memory
        write = memory.write_port()
        read = memory.read_port(transparent_for=(write,) if through else ())
        return read, write

    # ------------------------------------------------------------------------------------------------ rows

    def _rows(self) -> None:
        """From a list to the accumulators."""
        core, code, m = self.core, self.code, self.m
        lanes, sum_bits = code.lanes, core.sum.bits
        lists_read, counts_read = self.lists[0], self.counts[0]
        sums_read, sums_write = self.sums
        if not len(code.words):
            m.d.comb += self.rows_done.eq(1)
            self.rows_sums = None
            return
        weights_at, weights_enable, weights = self.roms["weights"]
        waiting = Signal()
        left, at = Signal(counts_read.data.shape()), Signal(len(lists_read.addr))
        a_valid, b_valid, c_valid = Signal(), Signal(), Signal()
        m.d.comb += counts_read.addr.eq(self.count_at)
        with m.If(self.rows_go):
            m.d.sync += [waiting.eq(1), at.eq(self.list_at)]
        with m.If(waiting):
            m.d.sync += [waiting.eq(0), left.eq(counts_read.data)]
        table_at_bits, table_count_bits = core.table_bits
        c_left = Signal(max(table_count_bits, self._bits("length")))
        c_ready, b_ready, a_ready = Signal(), Signal(), Signal()
        m.d.comb += [
            c_ready.eq(~c_valid | (c_left == 1)), b_ready.eq(~b_valid | c_ready), a_ready.eq(~a_valid | b_ready),
        ]  # fmt: skip
        # The list, and values beside it.
        issue = Signal()
        m.d.comb += [issue.eq((left != 0) & a_ready), lists_read.addr.eq(at), lists_read.en.eq(issue)]
        with m.If(issue):
            m.d.sync += [left.eq(left - 1), at.eq(at + 1)]
        with m.If(a_ready):
            m.d.sync += a_valid.eq(issue)
        value_shape: Any = unsigned(1)
        a_value: Value = Const(1, 1)
        if self.values is not None:
            values_read = self.values[0]
            m.d.comb += [values_read.addr.eq(at), values_read.en.eq(issue)]
            value_shape = values_read.data.shape()
            a_value = Mux(self.field("valued"), values_read.data, Const(1, value_shape))
        # The row of the source.
        b_base, b_value, b_length = Signal(len(weights_at)), Signal(value_shape), Signal(len(c_left))
        with m.If(b_ready):
            m.d.sync += [b_valid.eq(a_valid), b_value.eq(a_value)]
            m.d.sync += b_base.eq(lists_read.data * self.field("length") + self.field("weights"))
        base: Value = b_base
        m.d.comb += b_length.eq(self.field("length"))
        if "table" in self.roms:
            table_at, table_enable, table = self.roms["table"]
            m.d.comb += [table_at.eq(lists_read.data + self.field("table")), table_enable.eq(b_ready)]
            base = Mux(self.field("sparse"), table[:table_at_bits], b_base)
            with m.If(self.field("sparse")):
                m.d.comb += b_length.eq(table[table_at_bits:])
        # A word of weights per cycle.
        c_row, c_value, c_at = Signal(len(sums_read.addr)), Signal(value_shape), Signal(len(weights_at))
        with m.If(c_ready):
            m.d.sync += [
                c_valid.eq(b_valid & (b_length != 0)), c_left.eq(b_length), c_at.eq(base), c_value.eq(b_value),
                c_row.eq(0),
            ]  # fmt: skip
        with m.Else():
            m.d.sync += [c_left.eq(c_left - 1), c_at.eq(c_at + 1), c_row.eq(c_row + 1)]
        m.d.comb += [weights_at.eq(c_at), weights_enable.eq(1)]
        d_valid, d_row, d_value = Signal(), Signal(len(c_row)), Signal(value_shape)
        m.d.sync += [d_valid.eq(c_valid), d_row.eq(c_row), d_value.eq(c_value)]
        row: Value = d_row
        if "columns" in self.roms:
            columns_at, columns_enable, columns = self.roms["columns"]
            m.d.comb += [columns_at.eq(c_at), columns_enable.eq(1)]
            row = Mux(self.field("sparse"), columns, d_row)
        # Times the value, shifted.
        e_valid, e_row = Signal(), Signal(len(c_row))
        m.d.sync += [e_valid.eq(d_valid), e_row.eq(row)]
        products = []
        for k in range(lanes):
            weight = weights.word_select(k, core.weight.bits).as_signed()
            product = Signal(signed(sum_bits), name=f"product{k}")
            m.d.sync += product.eq(self._shifted(weight * d_value, "shift", code.shifts))
            products.append(product)
        self.rows_sums = (d_valid, row, e_valid, e_row, products)
        idle = ~(waiting | a_valid | b_valid | c_valid | d_valid | e_valid)
        m.d.comb += self.rows_done.eq(~self.rows_go & idle & (left == 0))

    def _bits(self, name: str) -> int:
        return max(max((each.get(name, 0) for each in self.code.instructions), default=1).bit_length(), 1)

    def _shifted(self, value: Value, name: str, amounts: list[int]) -> Value:
        """The value, shifted by the amount of the current instruction's number; down is rounded down."""
        choices = [value << amount if amount >= 0 else value >> -amount for amount in amounts] or [value]
        if len(choices) == 1:
            return choices[0]
        widest = max(len(choice) for choice in choices)
        parts = []
        for choice in choices:
            part = Signal(signed(widest + 1))
            self.m.d.comb += part.eq(choice)
            parts.append(part)
        return Array(parts)[self.field(name)]

    # ------------------------------------------------------------------------------------------------ neurons

    def _vector(self) -> None:
        """From the accumulators to what neurons keep and send."""
        core, code, m = self.core, self.code, self.m
        running, index = Signal(), Signal(len(core.seen_place) + 1)
        size = self.field("size")
        last = index + 1 == size
        with m.If(self.vector_go):
            m.d.sync += [running.eq(size != 0), index.eq(0)]
        with m.If(running):
            m.d.sync += index.eq(index + 1)
            with m.If(last):
                m.d.sync += running.eq(0)
        lane_bits = (code.lanes - 1).bit_length()
        held_read, held_write = self.held
        m.d.comb += held_read.addr.eq(self.held_at + index)
        # Stage 1: what was read.
        valid1, index1, last1 = Signal(), Signal(len(index)), Signal()
        m.d.sync += [valid1.eq(running), index1.eq(index), last1.eq(last)]
        x = Signal(signed(max(core.sum.bits + max([0, *code.sums]), core.held_field.bits) + 1))
        self._sums(running, index, valid1, index1, last1, lane_bits)
        sums_read = self.sums[0]
        lane = sums_read.data.word_select(index1[:lane_bits], core.sum.bits) if lane_bits else sums_read.data
        total = Signal(signed(len(x)))
        m.d.comb += total.eq(self._shifted(lane.as_signed(), "sum_shift", code.sums))
        held = Mux(self.field("takes"), held_read.data, 0)
        m.d.sync += x.eq(Mux(self.field("summed"), total, 0) + held)
        # Stage 2: what enters.
        valid2, index2, last2 = Signal(), Signal(len(index)), Signal()
        m.d.sync += [valid2.eq(valid1), index2.eq(index1), last2.eq(last1)]
        m.d.comb += [
            held_write.addr.eq(self.kept_at + index2), held_write.data.eq(x), held_write.en.eq(valid2 & self.field("keeps")),
        ]  # fmt: skip
        with m.If(core.write):
            m.d.comb += [
                held_write.addr.eq(core.write_address), held_write.data.eq(core.write_data), held_write.en.eq(1)
            ]  # fmt: skip
        with m.If(self.clearing):
            m.d.comb += [
                held_write.addr.eq(self.clear_at), held_write.data.eq(0), held_write.en.eq(self._within(code.held.depth))
            ]
        self._neurons(x, index, valid2, index2, last2, running)

    def _within(self, depth: int) -> Value:
        """Whether the place that is cleared is one of so many."""
        return self.clear_at < max(depth, 2)

    def _sums(self, running: Value, index: Value, valid1: Value, index1: Value, last1: Value, lane_bits: int) -> None:
        """The accumulators: rows add to them, neurons take what is in them and leave 0."""
        code, m = self.code, self.m
        read, write = self.sums
        m.d.comb += read.addr.eq(index >> lane_bits)
        whole = index1[:lane_bits] == code.lanes - 1 if lane_bits else Const(1)
        m.d.comb += [
            write.addr.eq(index1 >> lane_bits), write.data.eq(0),
            write.en.eq(valid1 & self.field("summed") & (whole | last1)),
        ]  # fmt: skip
        if self.rows_sums is not None:
            d_valid, row, e_valid, e_row, products = self.rows_sums
            bits = self.core.sum.bits
            with m.If(d_valid):
                m.d.comb += read.addr.eq(row)
            added = [(read.data.word_select(k, bits).as_signed() + p)[:bits] for k, p in enumerate(products)]
            with m.If(e_valid):
                m.d.comb += [write.addr.eq(e_row), write.data.eq(Cat(*added)), write.en.eq(1)]
        with m.If(self.clearing):
            m.d.comb += [write.addr.eq(self.clear_at), write.data.eq(0), write.en.eq(self._within(code.sum.depth))]

    def _neurons(self, x: Value, index: Value, valid2: Value, index2: Value, last2: Value, running: Value) -> None:
        """The datapaths, and what becomes of what they give."""
        core, code, m = self.core, self.code, self.m
        cell = self.field("cell")
        unit_of, member_of = self._choice([u for u, _ in core.places], cell), self._choice([k for _, k in core.places], cell)
        state_base = self._choice([c.state for c in code.cells], cell)
        constants: Value = Const(0)
        if "constants" in self.roms:
            address, enable, data = self.roms["constants"]
            constants = Signal(len(data))
            base = self._choice([c.constants for c in code.cells], cell)
            m.d.comb += [address.eq(base + index), enable.eq(1)]
            m.d.sync += constants.eq(data)
        bits = core.state_bits
        word: Value = Const(0)
        state_next = Signal(max(bits, 1))
        state_write, state_write_at = Signal(), Signal(address_bits(max(code.state.depth, 2)))
        if bits:
            state_at = Signal(address_bits(max(code.state.depth, 2)))
            m.d.comb += state_at.eq(state_base + index)
            data = self._state_memory(bits, state_at, running, state_write_at, state_next, state_write)
            word = Signal(bits)
            fresh = Signal()
            m.d.comb += fresh.eq(self.step == self.field("clears"))
            m.d.sync += word.eq(Mux(fresh, 0, data))
        paths = []
        for k, unit in enumerate(core.units):
            entering = unit.field(next((p for p, n in enumerate(unit.body.nodes) if n.operation == "input"), 0))
            taken = x[: entering.bits].as_signed() if entering.signed else x[: entering.bits]
            paths.append(Datapath(m, unit, f"unit{k}", taken, unpack(word, unit.state), unpack(constants, unit.constants),
                                  member_of))  # fmt: skip
        depth = max((path.depth for path in paths), default=0)
        # Of two banks one is read while the other one is written: an odd number of cycles lies between.
        depth = max(depth, 1)
        depth += int(core.banked and depth % 2 == 0)
        works = valid2 & ~self.field("keeps")
        valid, place, last = self._later(works, depth), self._later(index2, depth), self._later(last2, depth)
        value = Signal(core.seen_value.shape())
        with m.Switch(unit_of):
            for k, (unit, path) in enumerate(zip(core.units, paths, strict=True)):
                with m.Case(k):
                    result, kept = path.ends(depth)
                    m.d.comb += value.eq(result)
                    if unit.state:
                        m.d.comb += state_next.eq(pack(kept, unit.state))
        m.d.comb += [state_write.eq(valid & self._choice([int(bool(core.units[u].state)) for u, _ in core.places], cell)),
                     state_write_at.eq(state_base + place)]  # fmt: skip
        with m.If(self.clearing):
            m.d.comb += [state_write.eq(self._within(code.state.depth)), state_write_at.eq(self.clear_at), state_next.eq(0)]
        m.d.comb += [core.seen.eq(valid), core.seen_cell.eq(cell), core.seen_place.eq(place), core.seen_value.eq(value)]
        self._send(valid, place, value)
        self._read(depth, index2, valid, value)
        stages = Signal(depth + 2)
        m.d.sync += stages.eq(Cat(running | self.vector_go, stages))
        m.d.comb += self.vector_done.eq(~running & ~self.vector_go & ~stages.any())

    def _choice(self, values: list[int], number: Value) -> Value:
        """values[number]"""
        if len(set(values)) <= 1:
            return Const(values[0] if values else 0)
        found = Signal(max(max(values).bit_length(), 1))
        with self.m.Switch(number):
            for k, value in enumerate(values):
                with self.m.Case(k):
                    self.m.d.comb += found.eq(value)
        return found

    def _later(self, value: Value, cycles: int) -> Value:
        for _ in range(cycles):
            later = Signal(len(value))
            self.m.d.sync += later.eq(value)
            value = later
        return value

    def _state_memory(
        self, bits: int, read_at: Value, reads: Value, write_at: Value, data: Value, writes: Value
    ) -> Value:
        """What a neuron kept, a cycle after it is asked for."""
        m = self.m
        if not self.core.banked:
            read, write = self._memory("state", unsigned(bits), self.code.state.depth)
            m.d.comb += [read.addr.eq(read_at), write.addr.eq(write_at), write.data.eq(data), write.en.eq(writes)]
            found: Value = read.data
            return found
        given, odd = [], Signal()
        m.d.sync += odd.eq(read_at[0])
        for bank in range(2):
            parts = []
            mine = writes & (write_at[0] == bank)
            address = Mux(mine, write_at[1:], read_at[1:])
            for part in range(-(-bits // 16)):
                out = Signal(16, name=f"bank{bank}_{part}")
                word = Signal(16, name=f"bank{bank}_{part}_written")
                m.d.comb += word.eq(data[16 * part : 16 * part + 16])
                m.submodules[f"bank{bank}_{part}"] = Instance(
                    "SB_SPRAM256KA", i_ADDRESS=self._address14(address), i_DATAIN=word, i_MASKWREN=Const(15, 4),
                    i_WREN=mine, i_CHIPSELECT=Const(1, 1), i_CLOCK=self.m_clock(), i_STANDBY=Const(0, 1),
                    i_SLEEP=Const(0, 1), i_POWEROFF=Const(1, 1), o_DATAOUT=out,
                )  # fmt: skip
                parts.append(out)
            given.append(Cat(*parts)[:bits])
        return Mux(odd, given[1], given[0])

    def _address14(self, address: Value) -> Value:
        wide = Signal(14)
        self.m.d.comb += wide.eq(address)
        return wide

    def _send(self, valid: Value, place: Value, value: Value) -> None:
        """The list of what is sent."""
        code, m = self.code, self.m
        _, write = self.lists
        _, count_write = self.counts
        count = Signal(count_write.data.shape())
        sends = Signal()
        m.d.comb += [
            sends.eq(valid & self.field("sends") & (value != 0)),
            write.addr.eq(self.list_at + count), write.data.eq(place), write.en.eq(sends),
        ]  # fmt: skip
        if self.values is not None:
            values_write = self.values[1]
            m.d.comb += [values_write.addr.eq(self.list_at + count), values_write.data.eq(value),
                         values_write.en.eq(sends & self.field("valued"))]  # fmt: skip
        with m.If(self.vector_go):
            m.d.sync += count.eq(0)
        with m.Elif(sends):
            m.d.sync += count.eq(count + 1)
        finished = Signal()
        m.d.comb += finished.eq(self.finish & self.field("sends"))
        m.d.comb += [count_write.addr.eq(self.count_at), count_write.data.eq(count), count_write.en.eq(finished)]
        with m.If(self.clearing):
            m.d.comb += [count_write.addr.eq(self.clear_at), count_write.data.eq(0),
                         count_write.en.eq(self._within(code.counts.depth))]  # fmt: skip

    def _read(self, depth: int, index2: Value, valid: Value, value: Value) -> None:
        """What the host reads: set in the first of its steps, and added up in the others where it is a sum."""
        core, code, m = self.core, self.code, self.m
        read, write = self.out
        read_first, read_last = self.field("read_first"), self.field("read_last")
        reads = valid & self.field("reads") & (self.step >= read_first) & (self.step <= read_last)
        before = self._later(index2, depth)
        # A cycle before it is written what stands there is read; neurons of one population have places of their own.
        early = self._later(index2, depth - 1)
        m.d.comb += read.addr.eq(core.read_address)
        total: Value = value
        if any(each.get("adds") for each in code.instructions):
            with m.If(~self.idle):
                m.d.comb += read.addr.eq(self.out_at + early)
            total = value + Mux(self.field("adds") & (self.step != read_first), read.data, 0)
        m.d.comb += [write.addr.eq(self.out_at + before), write.data.eq(total), write.en.eq(reads),
                     core.read_data.eq(read.data)]  # fmt: skip

    # ------------------------------------------------------------------------------------------------ sequencer

    def _sequencer(self) -> None:
        """One instruction after the other, the loop once for each step."""
        core, code, m = self.core, self.code, self.m
        end, step = len(code.instructions), self.step
        first, last, kind = self.field("first"), self.field("last"), self.field("kind")
        with m.FSM():
            with m.State("CLEAR"):
                m.d.comb += self.clearing.eq(1)
                m.d.sync += self.clear_at.eq(self.clear_at + 1)
                m.d.sync += [pointer.eq(0) for pointer in self.pointers]
                with m.If(self.clear_at == max(self._deepest(), 2) - 1):
                    m.d.sync += self.clear_at.eq(0)
                    m.next = "IDLE"
            with m.State("IDLE"):
                m.d.comb += [core.busy.eq(0), self.idle.eq(1)]
                m.d.sync += [step.eq(0), self.pc.eq(0)]
                with m.If(core.clear):
                    m.next = "CLEAR"
                with m.Elif(core.start):
                    self._move("block")
                    m.d.sync += [p.eq(0) for p, of in zip(self.pointers, code.pointers, strict=True) if of.event == "row"]
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += self.fetch.eq(1)
                m.next = "DECIDE"
            with m.State("DECIDE"):
                m.next = "WAIT"
                with m.If((step < first) | (step > last)):
                    m.next = "NEXT"
            with m.State("WAIT"):
                m.d.comb += [self.rows_go.eq(kind == ROWS), self.vector_go.eq(kind != ROWS)]
                m.next = "RUN"
            with m.State("RUN"):
                with m.If(Mux(kind == ROWS, self.rows_done, self.vector_done)):
                    m.d.comb += self.finish.eq(kind != ROWS)
                    m.next = "NEXT"
            with m.State("NEXT"):
                m.d.sync += self.pc.eq(self.pc + 1)
                m.next = "FETCH"
                with m.If(self.pc == end - 1):
                    m.d.sync += [self.pc.eq(code.loop), step.eq(step + 1)]
                    self._move("step")
                    with m.If(step == code.window - 1):
                        m.next = "IDLE"

    def _move(self, event: str) -> None:
        """Move the pointers."""
        for pointer, of in zip(self.pointers, self.code.pointers, strict=True):
            if of.event == event or (event == "step" and of.event == "row"):
                turned = pointer >= of.limit - of.stride
                self.m.d.sync += pointer.eq(Mux(turned, pointer - (of.limit - of.stride), pointer + of.stride))


ALWAYS = frozenset({"kind", "first", "last", "keeps", "takes", "summed", "sends", "reads", "adds", "valued", "sparse",
                    "list_pointer", "count_pointer", "held_pointer", "kept_pointer", "out_pointer"})  # fmt: skip
"""Fields that are 0 where an instruction does not name them; others may keep what they were."""
