"""Boards, what they hold, and how a design's memories fill their block RAM."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nervecord.errors import unknown_name


@dataclass(frozen=True, slots=True)
class Board:
    """A board; see boards.toml. name: as it is typed."""

    name: str
    title: str
    family: str
    device: str
    package: str
    cells: int
    ram: int
    ram_bits: int
    dsp: int
    spram: int
    mhz: float
    clk: str
    rx: str
    tx: str

    @property
    def divider(self) -> int:
        """Clock cycles of a bit on the serial line: 1 Mbaud."""
        return round(self.mhz)

    @property
    def baud(self) -> int:
        """Of the serial line."""
        return round(self.mhz * 1e6 / self.divider)

    def blocks(self, depth: int, bits: int) -> int:
        """Block RAMs of a memory, by the shapes that a block has."""
        if depth * bits == 0:
            return 0
        shapes = [(256, 16), (512, 8), (1024, 4), (2048, 2)]
        if self.family == "ecp5":
            shapes = [(512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1)]
        return min(-(-depth // rows) * -(-bits // wide) for rows, wide in shapes)


@functools.cache
def _file() -> Any:
    return tomllib.loads(Path(__file__).with_name("boards.toml").read_text(encoding="utf-8"))


def sources() -> dict[str, str]:
    """Where what a board holds is from, and where its clock and pins are."""
    return {what: f"{what}: {_file()[what]['source']}" for what in ("capacity", "pins")}


@functools.cache
def boards() -> dict[str, Board]:
    """All of them, the smallest first."""
    known_boards = [Board(name=name, **entry) for name, entry in _file()["boards"].items()]
    return {board.name: board for board in sorted(known_boards, key=lambda b: (b.ram * b.ram_bits, b.cells))}


def board(name: str) -> Board:
    """A board by its name.

    Raises:
        NervecordError: there is none; the choices are listed.
    """
    if name not in boards():
        raise unknown_name("board", name, boards(), where="--board")
    return boards()[name]
