"""The core: a sequencer that executes instructions, and the two pipelines of which they make use.

    rows      list -> row of weights -> weight times value -> added to the accumulators
    vector    accumulators, held values, state, constants -> sum -> equations -> state, list, what is read

Each memory gives what is read a cycle later. Both pipelines take one weight word, or one neuron, per cycle; the
sequencer waits until one is empty before it takes the next instruction.
"""

from __future__ import annotations

from typing import Any

from amaranth import Elaboratable, Module, Mux

from nervecord.targets.fpga.instructions import ROWS
from nervecord.targets.fpga.neurons import Neurons
from nervecord.targets.fpga.parts import Interface


class Core(Interface, Elaboratable):
    """The hardware of a microcode; see `Interface`."""

    def elaborate(self, platform: Any) -> Module:
        """The hardware."""
        return _Sequencer(self).built()


class _Sequencer(Neurons):
    """One instruction after the other."""

    def built(self) -> Module:
        """The whole."""
        self._memories()
        self._rows()
        self._vector()
        self._sequencer()
        return self.m

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
                    m.d.sync += [
                        p.eq(0) for p, of in zip(self.pointers, code.pointers, strict=True) if of.event == "row"
                    ]
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
            with m.State("RUN"), m.If(Mux(kind == ROWS, self.rows_done, self.vector_done)):
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
