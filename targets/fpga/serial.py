"""The board's side of the serial line: the core behind a UART, and the protocol that both ends speak.

A byte is an order; numbers are little-endian and signed, of `Protocol.in_bytes` and `Protocol.out_bytes`:

    V                       -> v, version, 8 bytes of the program's hash, numbers that enter, that leave (2 bytes each)
    W numbers, sum          -> w                        writes what enters; sum: of all bytes of the numbers, modulo 256
    S                       -> s, when the block is done
    R                       -> r, numbers, sum          what leaves
    Z                       -> z                        back to the state before the first block
    anything else           -> e, code

Codes: see `ERRORS`. An order may be sent while the last one is executed, one and no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth import Array, Cat, Const, Elaboratable, Module, Mux, Signal

from nervecord.targets.fpga.core import Core
from nervecord.targets.fpga.parts import Interface

VERSION = 1
UNKNOWN_ORDER, WRONG_SUM, TOO_SLOW, OUT_OF_RANGE = 1, 2, 3, 4
ERRORS = {
    UNKNOWN_ORDER: "an order that it does not know",
    WRONG_SUM: "the sum of what was written is wrong",
    TOO_SLOW: "the numbers ended early",
    OUT_OF_RANGE: "a number is beyond what the core holds",
}
PATIENCE_BITS = 12
"""A pause of 2^12 bits of the serial line within numbers ends them."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """What both ends know of a program.

    Args:
        identity: 8 bytes of its hash. inputs, outputs: numbers of a block. in_bytes, out_bytes: of each.
    """

    identity: bytes
    inputs: int
    outputs: int
    in_bytes: int
    out_bytes: int

    @classmethod
    def of(cls, core: Interface, identity: bytes) -> Protocol:
        """Of a core."""
        return cls(
            identity, core.code.inputs, core.code.outputs, -(-core.held_field.bits // 8), -(-core.out_field.bits // 8)
        )

    @property
    def greeting(self) -> bytes:
        """The answer to V."""
        sizes = self.inputs.to_bytes(2, "little") + self.outputs.to_bytes(2, "little")
        return b"v" + bytes([VERSION]) + self.identity + sizes

    @property
    def bits(self) -> int:
        """Bits on the line of a block's orders and answers, 10 for each byte."""
        return 10 * (2 + self.inputs * self.in_bytes + 1 + 2 + 2 + self.outputs * self.out_bytes + 1)


class Line(Elaboratable):
    """A UART: 8 bits, no parity, one stop bit.

    Args:
        divider: cycles of a bit, 4 or more.

    Attributes:
        rx, tx: the line. data, fresh: a byte that came, until `taken`. out, send: a byte to send while `ready`.
    """

    def __init__(self, divider: int) -> None:
        self.divider = divider
        self.rx, self.tx = Signal(init=1), Signal(init=1)
        self.data, self.fresh, self.taken = Signal(8), Signal(), Signal()
        self.out, self.send, self.ready = Signal(8), Signal(), Signal()

    def elaborate(self, platform: Any) -> Module:
        """The hardware."""
        m, last = Module(), self.divider - 1
        first, line = Signal(init=1), Signal(init=1)
        m.d.sync += [first.eq(self.rx), line.eq(first)]
        timer, left, bits = Signal(range(2 * self.divider)), Signal(range(11)), Signal(8)
        with m.If(self.taken):
            m.d.sync += self.fresh.eq(0)
        with m.If((left == 0) & ~line):
            # The middle of the first bit is one and a half bits after the start bit's edge.
            m.d.sync += [left.eq(9), timer.eq(self.divider + self.divider // 2 - 2)]
        with m.Elif((left != 0) & (timer != 0)):
            m.d.sync += timer.eq(timer - 1)
        with m.Elif(left != 0):
            m.d.sync += [left.eq(left - 1), timer.eq(last)]
            with m.If(left == 1):
                m.d.sync += [self.data.eq(bits), self.fresh.eq(line)]
            with m.Else():
                m.d.sync += bits.eq(Cat(bits[1:], line))
        pause, waiting, word = Signal(range(self.divider)), Signal(range(11)), Signal(10, init=1)
        m.d.comb += [self.ready.eq(waiting == 0), self.tx.eq(word[0])]
        with m.If(self.ready & self.send):
            m.d.sync += [word.eq(Cat(Const(0, 1), self.out, Const(1, 1))), waiting.eq(10), pause.eq(last)]
        with m.Elif(~self.ready & (pause != 0)):
            m.d.sync += pause.eq(pause - 1)
        with m.Elif(~self.ready):
            m.d.sync += [pause.eq(last), waiting.eq(waiting - 1), word.eq(Cat(word[1:], Const(1, 1)))]
        return m


class Device(Elaboratable):
    """A core behind a serial line: what a board holds.

    Args:
        core: of the program. protocol: of it. divider: cycles of a bit.

    Attributes:
        rx, tx: the line.
    """

    def __init__(self, core: Core, protocol: Protocol, divider: int) -> None:
        self.core, self.protocol, self.divider = core, protocol, divider
        self.rx, self.tx = Signal(init=1, name="rx"), Signal(name="tx", init=1)

    def elaborate(self, platform: Any) -> Module:
        """The hardware."""
        m, core, protocol = Module(), self.core, self.protocol
        m.submodules.core = core
        m.submodules.line = line = Line(self.divider)
        m.d.comb += [line.rx.eq(self.rx), self.tx.eq(line.tx)]
        total, error = Signal(8), Signal(3)
        most = max(protocol.inputs, protocol.outputs, len(protocol.greeting), 1)
        number, part = Signal(range(most + 1)), Signal(range(max(protocol.in_bytes, protocol.out_bytes) + 1))
        silence = Signal(range(self.divider << PATIENCE_BITS))
        word = Signal(8 * protocol.in_bytes)
        m.d.comb += [core.write_address.eq(number), core.read_address.eq(number), core.write_data.eq(word)]
        greeting = Array([Const(byte, 8) for byte in protocol.greeting])
        answer, after = Signal(8), Signal(2)
        numbers_out = Signal(8 * protocol.out_bytes)

        def say(what: Any) -> None:
            m.d.sync += answer.eq(what)
            m.next = "ANSWER"

        with m.FSM():
            with m.State("ORDER"):
                m.d.sync += [number.eq(0), part.eq(0), total.eq(0), error.eq(0), after.eq(0), silence.eq(0)]
                with m.If(line.fresh & ~core.busy):
                    m.d.comb += line.taken.eq(1)
                    with m.Switch(line.data):
                        with m.Case(ord("V")):
                            m.next = "GREET"
                        with m.Case(ord("W")):
                            m.next = "NUMBERS" if protocol.inputs else "SUM"
                        with m.Case(ord("S")):
                            m.d.comb += core.start.eq(1)
                            m.next = "RUN"
                        with m.Case(ord("Z")):
                            m.d.comb += core.clear.eq(1)
                            m.next = "CLEAR"
                        with m.Case(ord("R")):
                            m.d.sync += after.eq(1)
                            say(ord("r"))
                        with m.Default():
                            m.d.sync += [error.eq(UNKNOWN_ORDER), after.eq(2)]
                            say(ord("e"))
            with m.State("NUMBERS"):
                m.d.sync += silence.eq(silence + 1)
                with m.If(line.fresh):
                    m.d.comb += line.taken.eq(1)
                    m.d.sync += [
                        word.eq(Cat(word[8:], line.data)),
                        total.eq(total + line.data),
                        part.eq(part + 1),
                        silence.eq(0),
                    ]
                    with m.If(part == protocol.in_bytes - 1):
                        m.d.sync += part.eq(0)
                        m.next = "WRITE"
                with m.Elif(silence == (self.divider << PATIENCE_BITS) - 1):
                    m.d.sync += [error.eq(TOO_SLOW), after.eq(2)]
                    say(ord("e"))
            with m.State("WRITE"):
                m.d.comb += core.write.eq(1)
                width = len(core.write_data)
                with m.If((word[width - 1 :] != 0) & ~word[width - 1 :].all()):
                    m.d.sync += error.eq(OUT_OF_RANGE)
                m.d.sync += number.eq(number + 1)
                m.next = "NUMBERS"
                with m.If(number == protocol.inputs - 1):
                    m.next = "SUM"
            with m.State("SUM"):
                m.d.sync += silence.eq(silence + 1)
                with m.If(line.fresh):
                    m.d.comb += line.taken.eq(1)
                    wrong = line.data != total
                    m.d.sync += [error.eq(Mux(wrong, WRONG_SUM, error)), after.eq(Mux(wrong | (error != 0), 2, 0))]
                    say(Mux(wrong | (error != 0), ord("e"), ord("w")))
                with m.Elif(silence == (self.divider << PATIENCE_BITS) - 1):
                    m.d.sync += [error.eq(TOO_SLOW), after.eq(2)]
                    say(ord("e"))
            with m.State("RUN"), m.If(~core.busy):
                say(ord("s"))
            with m.State("CLEAR"), m.If(~core.busy):
                say(ord("z"))
            with m.State("ANSWER"):
                m.d.comb += [line.out.eq(answer), line.send.eq(line.ready)]
                with m.If(line.ready), m.Switch(after):
                    with m.Case(1):
                        m.d.sync += [number.eq(0), part.eq(0), total.eq(0)]
                        m.next = "READ" if protocol.outputs else "LAST"
                    with m.Case(2):
                        m.d.sync += after.eq(0)
                        say(error)
                    with m.Default():
                        m.next = "ORDER"
            with m.State("READ"):
                m.next = "FETCHED"
            with m.State("FETCHED"):
                m.d.sync += numbers_out.eq(core.read_data)
                m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += [line.out.eq(numbers_out[:8]), line.send.eq(line.ready)]
                with m.If(line.ready):
                    m.d.sync += [numbers_out.eq(numbers_out >> 8), total.eq(total + numbers_out[:8]), part.eq(part + 1)]
                    with m.If(part == protocol.out_bytes - 1):
                        m.d.sync += [part.eq(0), number.eq(number + 1)]
                        m.next = "READ"
                        with m.If(number == protocol.outputs - 1):
                            m.next = "LAST"
            with m.State("LAST"):
                m.d.sync += after.eq(0)
                say(total)
            with m.State("GREET"):
                m.d.comb += [line.out.eq(greeting[number]), line.send.eq(line.ready)]
                with m.If(line.ready):
                    m.d.sync += number.eq(number + 1)
                    with m.If(number == len(protocol.greeting) - 1):
                        m.next = "ORDER"
        return m
