"""What a core is made of: its ports, the memories, the current instruction and its addresses."""

from __future__ import annotations

from typing import Any

from amaranth import Array, ClockSignal, Const, Instance, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib.memory import Memory

from nervecord.targets.fpga.datapath import Field, constant_words, packed, units
from nervecord.targets.fpga.instructions import Extent, Microcode

SMALL = 256
"""Bits of a memory that is made of logic."""


def address_bits(depth: int) -> int:
    """Of a memory's address."""
    return max((depth - 1).bit_length(), 1)


def _address(depth: int) -> Shape:
    """What addresses of a memory need."""
    return unsigned(address_bits(max(depth, 2)))


class Interface:
    """What a core is made of, and its ports.

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
            "clear": 1,
            "start": 1,
            "busy": 1,
            "write": 1,
            "write_address": _address(code.held.depth),
            "write_data": self.held_field.shape,
            "read_address": _address(code.out.depth),
            "read_data": self.out_field.shape,
            "seen": 1,
            "seen_cell": _address(len(code.cells)),
            "seen_place": _address(places),
            "seen_value": signed(max(self._result_bits(), 2)),
            "step": _address(code.window + 1),
        }
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
        code, memories = self.code, {}
        bits = self.weight.bits
        mask = (1 << bits) - 1
        words = [sum((int(w) & mask) << (bits * k) for k, w in enumerate(row)) for row in code.words.tolist()]
        if words:
            memories["weights"] = (bits * code.lanes, words)
        if code.columns:
            memories["columns"] = (address_bits(max(code.sum.depth, 2)), code.columns)
            at, count = self.table_bits
            memories["table"] = (at + count, [first | (length << at) for first, length in code.table])
        if self.constant_words:
            memories["constants"] = (self.constant_bits, self.constant_words)
        return memories

    @property
    def table_bits(self) -> tuple[int, int]:
        """Bits of a sparse row's first word, and of their number."""
        most = max((length for _, length in self.code.table), default=1)
        return address_bits(max(len(self.code.words), 2)), max(most.bit_length(), 1)


class Parts:
    """What the pipelines share: the current instruction, addresses, memories."""

    def __init__(self, core: Interface) -> None:
        self.core, self.code, self.m = core, core.code, Module()
        m = self.m
        self.fields = self._instruction()
        self.clearing, self.clear_at = Signal(), Signal(address_bits(max(self._deepest(), 2)))
        self.rows_go, self.vector_go = Signal(), Signal()
        self.rows_done, self.vector_done = Signal(), Signal()
        self.finish, self.idle = Signal(), Signal()
        self.step = core.step
        self.pointers = [
            Signal(address_bits(max(p.limit, 2)), name=f"pointer{k}") for k, p in enumerate(self.code.pointers)
        ]
        self.list_at = self._place("list", self.code.lists)
        self.count_at = self._place("count", self.code.counts)
        self.held_at = self._place("held", self.code.held)
        self.kept_at = self._place("kept", self.code.held)
        self.out_at = self._place("out", self.code.out)
        m.d.comb += core.busy.eq(1)

    def _deepest(self) -> int:
        code = self.code
        return max(code.held.depth, code.sum.depth, code.state.depth, code.counts.depth, code.out.depth)

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
        address = Signal(address_bits(max(extent.depth, 2)), name=f"{name}_at")
        if not used:
            m.d.comb += address.eq(base)
            return address
        widest = max(len(self.pointers[k - 1]) for k in used)
        moved, turned = Signal(widest + 1, name=f"{name}_moved"), Signal(widest + 1, name=f"{name}_turned")
        now = Signal(widest, name=f"{name}_pointer")
        with m.Switch(pointer):
            for k in used:
                with m.Case(k):
                    m.d.comb += now.eq(self.pointers[k - 1])
        limit = self.field(f"{name}_limit")
        m.d.comb += [moved.eq(now + self.field(f"{name}_offset")), turned.eq(Mux(moved >= limit, moved - limit, moved))]
        m.d.sync += address.eq(base + Mux(pointer == 0, 0, turned))
        return address

    # ------------------------------------------------------------------------------------------------ memories

    def _memories(self) -> None:
        core, code, m = self.core, self.code, self.m
        self.roms: dict[str, tuple[Value, Value, Value]] = {}
        for name, (bits, words) in core.contents().items():
            address = Signal(address_bits(max(len(words), 2)), name=f"{name}_address")
            data, enable = Signal(bits, name=f"{name}_data"), Signal(name=f"{name}_enable")
            m.submodules[f"rom_{name}"] = Instance(
                "nervecord_rom",
                p_WIDTH=bits,
                p_DEPTH=len(words),
                p_BITS=len(address),
                p_FILE=f"{name}.hex",
                i_clk=self.m_clock(),
                i_enable=enable,
                i_address=address,
                o_data=data,
            )
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

        return ClockSignal()

    def _memory(self, name: str, shape: Any, depth: int, *, through: bool = False) -> tuple[Any, Any]:
        """(read port, write port); through: what is written is read in the same cycle."""
        # A block RAM for a few bits would be wasted.
        small = max(depth, 2) * Shape.cast(shape).width <= SMALL
        attributes = {"ram_style": "logic"} if small else {}
        memory = Memory(shape=shape, depth=max(depth, 2), init=[], attrs=attributes)
        self.m.submodules[f"memory_{name}"] = memory
        write = memory.write_port()
        read = memory.read_port(transparent_for=(write,) if through else ())
        return read, write

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

    def _within(self, depth: int) -> Value:
        """Whether the place that is cleared is one of so many."""
        return self.clear_at < max(depth, 2)


ALWAYS = frozenset(
    {
        "kind",
        "first",
        "last",
        "keeps",
        "takes",
        "summed",
        "sends",
        "reads",
        "adds",
        "valued",
        "sparse",
        "list_pointer",
        "count_pointer",
        "held_pointer",
        "kept_pointer",
        "out_pointer",
    }
)
"""Fields that are 0 where an instruction does not name them; others may keep what they were."""
