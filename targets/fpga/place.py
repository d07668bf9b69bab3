"""Synthesis, place and route by open tools, and what they report."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from nervecord.compiler.files.scratch import scratch_folder
from nervecord.errors import EngineError, InfeasibleError
from nervecord.targets.fpga.board import Board
from nervecord.targets.fpga.verilog import run_tool, tool

USED = {
    "ice40": {"cells": "ICESTORM_LC", "ram": "ICESTORM_RAM", "dsp": "ICESTORM_DSP", "spram": "ICESTORM_SPRAM"},
    "ecp5": {"cells": "TRELLIS_COMB", "ram": "DP16KD", "dsp": "MULT18X18D"},
}
"""Family -> what a board has -> its name in nextpnr's report."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What place and route measured.

    Args:
        used: cells, ram, dsp, spram. mhz: largest clock. seconds: of synthesis, of place and route and packing.
        file: name of the bitstream. bitstream: its bytes.
    """

    board: Board
    used: Mapping[str, int]
    mhz: float
    seconds: Mapping[str, float]
    file: str
    bitstream: bytes

    def to_dict(self) -> dict[str, object]:
        """As plain JSON types."""
        return {"board": self.board.name, "used": dict(self.used), "mhz": self.mhz, "seconds": dict(self.seconds)}


def constraints(board: Board, ports: Mapping[str, str]) -> tuple[str, str]:
    """(name, text) of the file that says where the ports stand."""
    if board.family == "ice40":
        lines = [f"set_io {name} {pin}" for name, pin in ports.items()]
        return "board.pcf", "\n".join([*lines, f"set_frequency clk {board.mhz:g}", ""])
    lines = [
        f'LOCATE COMP "{name}" SITE "{pin}";\nIOBUF PORT "{name}" IO_TYPE=LVCMOS33;' for name, pin in ports.items()
    ]
    return "board.lpf", "\n".join([*lines, f'FREQUENCY PORT "clk" {board.mhz:g} MHZ;', ""])


def pins(board: Board) -> dict[str, str]:
    """Port -> pin."""
    return {"clk": board.clk, "rx": board.rx, "tx": board.tx}


def synthesis(board: Board, name: str) -> str:
    """The script of yosys that makes a netlist of NAME.v."""
    if board.family == "ice40":
        options = "-dsp -device u " if board.dsp else "-device hx "
        return f"read_verilog {name}.v; synth_ice40 {options}-top {name} -json {name}.json"
    return f"read_verilog {name}.v; synth_ecp5 -top {name} -json {name}.json"


def placing(board: Board, name: str) -> tuple[str, list[str]]:
    """(tool, arguments) that place and route NAME.json."""
    file, _ = constraints(board, {})
    common = [
        f"--{board.device}",
        "--package",
        board.package,
        "--json",
        f"{name}.json",
        "--freq",
        f"{board.mhz:g}",
        "--report",
        f"{name}_report.json",
        "--seed",
        "1",
    ]
    if board.family == "ice40":
        return "nextpnr-ice40", [*common, "--pcf", file, "--asc", f"{name}.asc"]
    return "nextpnr-ecp5", [*common, "--lpf", file, "--textcfg", f"{name}.config", "--speed", "6"]


def packing(board: Board, name: str) -> tuple[str, list[str], str]:
    """(tool, arguments, file) that make the bitstream."""
    if board.family == "ice40":
        return "icepack", [f"{name}.asc", f"{name}.bin"], f"{name}.bin"
    return "ecppack", ["--compress", "--input", f"{name}.config", "--bit", f"{name}.bit"], f"{name}.bit"


def makefile(board: Board, name: str) -> str:
    """The same steps for make, with native tools or those of PyPI: make TOOLS=yowasp-"""
    placer, arguments = placing(board, name)
    packer, words, file = packing(board, name)
    middle = f"{name}.asc" if board.family == "ice40" else f"{name}.config"
    loader = "iceprog" if board.family == "ice40" else f"openFPGALoader --board {board.name.split('-')[0]}"
    return f"""\
# Written by nervecord. make | prog | clean. The tools of PyPI: make TOOLS=yowasp-
TOOLS ?=

{file}: {middle}
\t$(TOOLS){packer} {" ".join(words)}

{middle}: {name}.json
\t$(TOOLS){placer} {" ".join(arguments)}

{name}.json: {name}.v $(wildcard *.hex)
\t$(TOOLS)yosys -q -p "{synthesis(board, name)}"

prog: {file}
\t{loader} {file}

clean:
\trm -f {name}.json {middle} {file} {name}_report.json

# The bitstream alone may be there, without what it was made of.
.SECONDARY: {name}.json {middle}

.PHONY: prog clean
"""


OUTPUTS = ("json", "asc", "config", "bin", "bit")
"""Ends of the names of what the tools write."""


@functools.lru_cache(maxsize=4)
def _placed(files: tuple[tuple[str, str], ...], board: Board, name: str) -> Placed:
    """See `place_and_route`. Runs in a folder of its own, so that one that is interrupted leaves nothing."""
    (placer, _), (packer, *_) = placing(board, name), packing(board, name)
    for each in ("yosys", placer, packer):
        tool(each)  # before the first one works for minutes
    with scratch_folder() as folder:
        for file, text in files:
            (folder / file).write_text(text, encoding="ascii")
        start = time.monotonic()
        run_tool("yosys", ["-q", "-p", synthesis(board, name)], folder)
        synthesised = time.monotonic()
        placer, arguments = placing(board, name)
        try:
            run_tool(placer, [*arguments, "--timing-allow-fail", "-q"], folder)
        except EngineError as error:
            if "no BELs remaining" not in str(error):
                raise
            kind = str(error).partition("cell type ")[2].partition(" ")[0] or "a cell"
            raise InfeasibleError(
                f"place and route finds no room for {kind}",
                where=f"board {board.name}",
                hint="a larger board, or fewer lanes",
            ) from None
        packer, arguments, file = packing(board, name)
        run_tool(packer, arguments, folder)
        done = time.monotonic()
        report = json.loads((folder / f"{name}_report.json").read_text(encoding="utf-8"))
        bitstream = (folder / file).read_bytes()
    used = {
        what: int(report["utilization"].get(cell, {"used": 0})["used"]) for what, cell in USED[board.family].items()
    }
    mhz = min(float(clock["achieved"]) for clock in report["fmax"].values())
    return Placed(
        board, used, mhz, {"synthesis": synthesised - start, "place_and_route": done - synthesised}, file, bitstream
    )


def place_and_route(files: Mapping[str, str], board: Board, name: str) -> Placed:
    """What place and route measure, and the bitstream. What was placed before is not placed again.

    Args:
        files: NAME.v, contents of its memories, constraints.

    Raises:
        InfeasibleError: it does not fit, or is slower than the board's clock.
        MissingDependencyError: a tool is missing. EngineError: one failed.
    """
    placed = _placed(tuple(files.items()), board, name)
    if placed.mhz < board.mhz:
        raise InfeasibleError(
            f"reaches {placed.mhz:.1f} MHz after place and route, the board's clock is {board.mhz:g} MHz",
            where=f"board {board.name}",
            hint="fewer lanes, or a board with a faster device",
        )
    return placed
