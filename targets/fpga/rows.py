"""The pipeline of rows: list -> row of weights -> weight times value -> added to the accumulators."""

from __future__ import annotations

from typing import Any

from amaranth import Const, Mux, Signal, Value, signed, unsigned

from nervecord.targets.fpga.parts import Parts


class Rows(Parts):
    """See the module."""

    def _rows(self) -> None:
        """From a list to the accumulators."""
        core, code, m = self.core, self.code, self.m
        lanes, sum_bits = code.lanes, core.sum.bits
        lists_read, counts_read = self.lists[0], self.counts[0]
        sums_read, _ = self.sums
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
            c_ready.eq(~c_valid | (c_left == 1)),
            b_ready.eq(~b_valid | c_ready),
            a_ready.eq(~a_valid | b_ready),
        ]
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
                c_valid.eq(b_valid & (b_length != 0)),
                c_left.eq(b_length),
                c_at.eq(base),
                c_value.eq(b_value),
                c_row.eq(0),
            ]
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
