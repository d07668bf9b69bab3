"""The pipeline of neurons: accumulators, held values, state, constants -> equations -> state, list, what is read."""

from __future__ import annotations

from amaranth import Cat, Const, Instance, Mux, Signal, Value, signed, unsigned

from nervecord.targets.fpga.datapath import Datapath, pack, unpack
from nervecord.targets.fpga.parts import address_bits
from nervecord.targets.fpga.rows import Rows


class Neurons(Rows):
    """See the module."""

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
        valid2, index2 = Signal(), Signal(len(index))
        m.d.sync += [valid2.eq(valid1), index2.eq(index1)]
        m.d.comb += [
            held_write.addr.eq(self.kept_at + index2),
            held_write.data.eq(x),
            held_write.en.eq(valid2 & self.field("keeps")),
        ]
        with m.If(core.write):
            m.d.comb += [
                held_write.addr.eq(core.write_address),
                held_write.data.eq(core.write_data),
                held_write.en.eq(1),
            ]
        with m.If(self.clearing):
            m.d.comb += [
                held_write.addr.eq(self.clear_at),
                held_write.data.eq(0),
                held_write.en.eq(self._within(code.held.depth)),
            ]
        self._neurons(x, index, valid2, index2, running)

    def _sums(self, running: Value, index: Value, valid1: Value, index1: Value, last1: Value, lane_bits: int) -> None:
        """The accumulators: rows add to them, neurons take what is in them and leave 0."""
        code, m = self.code, self.m
        read, write = self.sums
        m.d.comb += read.addr.eq(index >> lane_bits)
        whole = index1[:lane_bits] == code.lanes - 1 if lane_bits else Const(1)
        m.d.comb += [
            write.addr.eq(index1 >> lane_bits),
            write.data.eq(0),
            write.en.eq(valid1 & self.field("summed") & (whole | last1)),
        ]
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

    def _neurons(self, x: Value, index: Value, valid2: Value, index2: Value, running: Value) -> None:
        """The datapaths, and what becomes of what they give."""
        core, code, m = self.core, self.code, self.m
        cell = self.field("cell")
        unit_of, member_of = (
            self._choice([u for u, _ in core.places], cell),
            self._choice([k for _, k in core.places], cell),
        )
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
            entering_value = x[: entering.bits].as_signed() if entering.signed else x[: entering.bits]
            states, constant = unpack(word, unit.state), unpack(constants, unit.constants)
            paths.append(Datapath(m, unit, f"unit{k}", entering_value, states, constant, member_of))
        depth = max((path.depth for path in paths), default=0)
        # Of two banks one is read while the other one is written: an odd number of cycles lies between.
        depth = max(depth, 1)
        depth += int(core.banked and depth % 2 == 0)
        works = valid2 & ~self.field("keeps")
        valid, place = self._later(works, depth), self._later(index2, depth)
        value = Signal(core.seen_value.shape())
        with m.Switch(unit_of):
            for k, (unit, path) in enumerate(zip(core.units, paths, strict=True)):
                with m.Case(k):
                    result, states = path.ends(depth)
                    m.d.comb += value.eq(result)
                    if unit.state:
                        m.d.comb += state_next.eq(pack(states, unit.state))
        keeps = self._choice([int(bool(core.units[u].state)) for u, _ in core.places], cell)
        m.d.comb += [state_write.eq(valid & keeps), state_write_at.eq(state_base + place)]
        with m.If(self.clearing):
            m.d.comb += [
                state_write.eq(self._within(code.state.depth)),
                state_write_at.eq(self.clear_at),
                state_next.eq(0),
            ]
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
        chosen = Signal(max(max(values).bit_length(), 1))
        with self.m.Switch(number):
            for k, value in enumerate(values):
                with self.m.Case(k):
                    self.m.d.comb += chosen.eq(value)
        return chosen

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
            read_word: Value = read.data
            return read_word
        words, odd = [], Signal()
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
                    "SB_SPRAM256KA",
                    i_ADDRESS=self._address14(address),
                    i_DATAIN=word,
                    i_MASKWREN=Const(15, 4),
                    i_WREN=mine,
                    i_CHIPSELECT=Const(1, 1),
                    i_CLOCK=self.m_clock(),
                    i_STANDBY=Const(0, 1),
                    i_SLEEP=Const(0, 1),
                    i_POWEROFF=Const(1, 1),
                    o_DATAOUT=out,
                )
                parts.append(out)
            words.append(Cat(*parts)[:bits])
        return Mux(odd, words[1], words[0])

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
            write.addr.eq(self.list_at + count),
            write.data.eq(place),
            write.en.eq(sends),
        ]
        if self.values is not None:
            values_write = self.values[1]
            m.d.comb += [
                values_write.addr.eq(self.list_at + count),
                values_write.data.eq(value),
                values_write.en.eq(sends & self.field("valued")),
            ]
        with m.If(self.vector_go):
            m.d.sync += count.eq(0)
        with m.Elif(sends):
            m.d.sync += count.eq(count + 1)
        finished = Signal()
        m.d.comb += finished.eq(self.finish & self.field("sends"))
        m.d.comb += [count_write.addr.eq(self.count_at), count_write.data.eq(count), count_write.en.eq(finished)]
        with m.If(self.clearing):
            m.d.comb += [
                count_write.addr.eq(self.clear_at),
                count_write.data.eq(0),
                count_write.en.eq(self._within(code.counts.depth)),
            ]

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
        m.d.comb += [
            write.addr.eq(self.out_at + before),
            write.data.eq(total),
            write.en.eq(reads),
            core.read_data.eq(read.data),
        ]
