"""What a design takes of a board, before any tool has run: memories exactly, logic and cycles by formulas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nervecord.targets.fpga.board import Board
from nervecord.targets.fpga.datapath import FIXED, Unit
from nervecord.targets.fpga.instructions import VECTOR, Microcode
from nervecord.targets.fpga.parts import SMALL, Interface, address_bits
from nervecord.targets.fpga.serial import Protocol

DISTRIBUTED = 4096
"""Bits of a memory that an ECP5 holds in logic, 64 of them in three cells."""
NAMES = {"cells": "logic cells", "ram": "block RAMs", "dsp": "multipliers", "spram": "single-port RAMs"}
FORMULAS = ("cells", "dsp")
"""What the estimate has by formulas; memories it has exactly."""
BASE, MULTIPLIER = 985, 120
"""Logic cells of what every design has, and of a multiplier where the device has none; as place and route found on four
networks."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a design takes of a board.

    Args:
        used: cells, ram, dsp, spram. cycles: of a block, at most and with no spikes. serial: seconds of the orders and
            answers of a block on the serial line.
    """

    board: Board
    used: Mapping[str, int]
    cycles: Mapping[str, int]
    serial: float

    @property
    def lacking(self) -> list[str]:
        """What the board has too little of."""
        return [what for what, used in self.used.items() if used > getattr(self.board, what)]

    def words(self, used: Mapping[str, int] | None = None) -> dict[str, str]:
        """What -> how much, of how much, of what the board has at all.

        Args:
            used: as place and route found it; by default the estimate, whose logic and multipliers are "about".
        """
        return {
            what: f"{'about ' if used is None and what in FORMULAS else ''}{number:,} of {getattr(self.board, what):,}"
            for what, number in (used or self.used).items()
            if getattr(self.board, what)
        }

    @property
    def shortage(self) -> str:
        """What the board has too little of, first of all; where it has enough, ""."""
        for what in self.lacking:
            return f"about {self.used[what]:,} {NAMES[what]}, the board has {getattr(self.board, what):,}"
        return ""

    def milliseconds(self, cycles: float) -> float:
        """At the board's clock, without the serial line."""
        return cycles / (self.board.mhz * 1e3)


def memories(core: Interface) -> dict[str, tuple[int, int]]:
    """Name -> (words, bits of one)."""
    code = core.code
    shapes = {name: (len(words), bits) for name, (bits, words) in core.contents().items()}
    value = max(code.values.most, 1).bit_length() + 1
    shapes |= {
        "lists": (code.lists.depth, address_bits(max(code.lists.most, 2))),
        "values": (code.values.depth, value),
        "counts": (code.counts.depth, max(code.counts.most.bit_length(), 1)),
        "held": (code.held.depth, core.held_field.bits),
        "sums": (code.sum.depth, core.sum.bits * code.lanes),
        "out": (code.out.depth, core.out_field.bits),
        "state": (code.state.depth, core.state_bits),
    }
    return {name: shape for name, shape in shapes.items() if shape[0] * shape[1]}


def estimate(core: Interface, board: Board, protocol: Protocol) -> Estimate:
    """What a core takes of a board."""
    code = core.code
    ram, cells, only_read = 0, 0, core.contents()
    for name, (depth, bits) in memories(core).items():
        if name == "state" and core.banked:
            continue
        if depth * bits <= SMALL:
            cells += 2 * depth * bits // 3
        elif board.family == "ecp5" and depth * bits <= DISTRIBUTED and name not in only_read:
            cells += 3 * depth * bits // 64
        else:
            ram += board.blocks(depth, bits)
    datapath = sum(_cells(unit) for unit in core.units)
    fields = {name for each in code.instructions for name in each}
    varying = [n for n in fields if len({each.get(n, 0) for each in code.instructions}) > 1]
    control = sum(max(each.get(n, 0) for each in code.instructions).bit_length() for n in varying)
    dsp = code.lanes * int(code.values.depth > 0) + sum(_multiplies(unit) for unit in core.units) + 1
    lanes = code.lanes * 3 * core.sum.bits
    pointers = sum(3 * address_bits(max(p.limit, 2)) for p in code.pointers)
    cells += BASE + datapath + 2 * control + lanes + 4 * core.held_field.bits + pointers
    if not board.dsp:
        cells += dsp * MULTIPLIER
    spram = 2 * -(-core.state_bits // 16) if core.banked else 0
    used = {"cells": cells, "ram": ram, "dsp": dsp if board.dsp else 0, "spram": spram}
    return Estimate(board, used, cycles(code), protocol.bits / board.baud)


def _cells(unit: Unit) -> int:
    """A look-up table for each bit of an addition or a choice, a flip-flop for each bit that is kept between stages."""
    total = 0
    for place, node in enumerate(unit.body.nodes):
        if node.arguments and node.operation not in ("as_integer", "shift_left", "shift_right", "wrap"):
            bits = max(unit.field(k).bits for k in (place, *node.arguments))
            total += bits * {"clip": 4, "wrap_once": 4, "scaled": 3, "lose": 2}.get(node.operation, 1)
    return 2 * total


def _multiplies(unit: Unit) -> int:
    return sum(
        -(-unit.field(node.arguments[0]).bits // 16)
        for node in unit.body.nodes
        if node.operation in ("multiply", "scaled") and 1 in FIXED.get(node.operation, (1,))
    )


def cycles(code: Microcode) -> dict[str, int]:
    """Of a block: "least", where nothing spikes; "most", where everything does in each step."""
    overhead, vector, rows = 12, 0, 0
    least = 0
    for k, each in enumerate(code.instructions):
        times = 1 if k < code.loop else each["last"] - each["first"] + 1
        least += 3 * (code.window if k >= code.loop else 1)
        if each["kind"] == VECTOR:
            vector += times * (each["size"] + overhead)
        else:
            rows += times * _row_work(code, each)
            least += 8 * times
    return {"least": vector + least, "most": vector + least + rows}


def _row_work(code: Microcode, each: Mapping[str, int]) -> int:
    """Words of weights that an instruction reads, where every source sends."""
    sources = _sources(code, each)
    if not each["sparse"]:
        return sources * each["length"]
    return sum(length for _, length in code.table[each["table"] : each["table"] + sources])


def _sources(code: Microcode, each: Mapping[str, int]) -> int:
    """Places of the list that an instruction walks over."""
    return code.list_sizes[each["list_base"]]


def bound(code: Microcode, events: float) -> float:
    """Cycles that no design of this kind goes below: weights / lanes, and neurons.

    Args:
        events: weights that spikes and values reach in a block, those of products of held input included.
    """
    neurons = sum(p.size * len(p.useful) for p in code.layout.populations)
    return events / code.lanes + neurons
