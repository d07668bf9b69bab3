"""The folder that the target fpga emits: hardware, memory contents, what builds them, a self-test and a README."""

from __future__ import annotations

import dataclasses
import json
from importlib import metadata
from pathlib import Path

from nervecord.compiler.files.atomic import write_atomically
from nervecord.compiler.files.program import Program
from nervecord.compiler.files.scratch import scratch_folder
from nervecord.compiler.plan.plan import plan
from nervecord.compiler.target.protocol import Emitted
from nervecord.targets.fpga.bench import bench_files, recorded
from nervecord.targets.fpga.board import Board, board
from nervecord.targets.fpga.core import Core
from nervecord.targets.fpga.driver import identity
from nervecord.targets.fpga.estimate import Estimate, estimate, memories, require_room
from nervecord.targets.fpga.layout import layout
from nervecord.targets.fpga.microcode import microcode
from nervecord.targets.fpga.parts import Interface
from nervecord.targets.fpga.place import Placed, constraints, makefile, pins, place_and_route
from nervecord.targets.fpga.serial import Device, Protocol
from nervecord.targets.fpga.verilog import convert, hexadecimal, require

NAME = "policy"
"""Of the top module and of files."""


def design(program: Program, on: Board, lanes: int) -> tuple[Interface, Protocol, Estimate]:
    """The core for a board, its protocol, and what it takes.

    State goes into single-port RAM where the board has it and more than nine tenths of its block RAM would be used.

    Raises:
        InfeasibleError: an op has no hardware.
    """
    require()
    made = plan(program.subject, program.schedule)
    code = microcode(layout(made), lanes)
    core = Interface(code)
    protocol = Protocol.of(core, identity(program, lanes))
    found = estimate(core, on, protocol)
    if 10 * found.used["ram"] > 9 * on.ram and on.spram >= 2 * -(-core.state_bits // 16) > 0:
        core = Interface(code, banked=True)
        found = estimate(core, on, protocol)
    return core, protocol, found


def needed(
    program: Program, board_name: str, lanes: int, *, measured: bool
) -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
    """What a program takes of a board: numbers, and the same in words.

    Args:
        measured: by place and route, not by estimate.

    Raises:
        InfeasibleError: an op has no hardware, the board holds too little, or its clock is not reached.
    """
    on = board(board_name)
    core, protocol, found = design(program, on, lanes)
    require_room(found, core, protocol)
    rows = _rows(found, program)
    if measured:
        with scratch_folder() as folder:
            placed = _placed(core, protocol, on, folder)
        found = dataclasses.replace(found, used=placed.used)
        rows = [("place and route", f"{placed.mhz:.1f} MHz"), *_rows(found, program, about="")]
    numbers = {**found.used, "cycles_least": found.cycles["least"], "cycles_most": found.cycles["most"]}
    return numbers, tuple(rows)


def _placed(core: Interface, protocol: Protocol, on: Board, folder: Path) -> Placed:
    """What place and route measure; files stay in the folder."""
    for file, content in _hardware(core, protocol, on, folder).items():
        write_atomically(folder / file, content.encode("ascii"))
    return place_and_route(folder, on, NAME)


def _hardware(core: Interface, protocol: Protocol, on: Board, folder: Path) -> dict[str, str]:
    """Verilog, memory contents, constraints and what builds them, by file."""
    device = Device(Core(core.code, banked=core.banked), protocol, on.divider)
    files = {f"{NAME}.v": convert(device, [device.rx, device.tx], NAME, folder)}
    files |= {f"{name}.hex": hexadecimal(bits, words) for name, (bits, words) in core.contents().items()}
    name, text = constraints(on, pins(on))
    return {**files, name: text, "Makefile": makefile(on, NAME) + BENCH}


def _rows(found: Estimate, program: Program, about: str = "about ") -> list[tuple[str, str]]:
    on = found.board
    names = {"cells": "logic cells", "ram": "block RAMs", "dsp": "multipliers", "spram": "single-port RAMs"}
    rows = [
        (f"{on.name}, {names[what]}", f"{about if what != 'ram' else ''}{used:,} of {getattr(on, what):,}")
        for what, used in found.used.items()
        if getattr(on, what)
    ]
    most = found.milliseconds(found.cycles["most"])
    rows.append(("worst case", f"{found.cycles['most']:,} cycles, {most:.2f} ms at {on.mhz:g} MHz"))
    rows.append(("serial line", f"{found.serial * 1e3:.2f} ms at {on.baud:,} baud"))
    if program.contract is not None:
        period = program.contract.control_period * 1e3
        rows.append(("control period", f"{100 * (most + found.serial * 1e3) / period:.1f} % of {period:g} ms, at most"))
    return rows


def write(
    program: Program, folder: Path, *, board_name: str, lanes: int, vectors: int, measured: bool
) -> tuple[Emitted, ...]:
    """Write the files.

    Args:
        measured: make the bitstream, and put what place and route measured into report.json and the README.

    Raises:
        InfeasibleError: an op has no hardware, the board holds too little, or its clock is not reached.
        MissingDependencyError: amaranth or a tool is missing. EngineError: a tool failed.
    """
    on = board(board_name)
    core, protocol, found = design(program, on, lanes)
    require_room(found, core, protocol)
    files = _hardware(core, protocol, on, folder)
    files |= bench_files(NAME, on.divider, *recorded(core, protocol, vectors))
    for file, content in files.items():
        write_atomically(folder / file, content.encode("ascii"))
    placed = place_and_route(folder, on, NAME) if measured else None
    readme = _readme(program, core, protocol, found, placed)
    write_atomically(folder / "README.md", readme.encode("utf-8"))
    emitted = [Emitted(folder / file, USES.get(file, "read by the bench")) for file in files if file in USES]
    emitted.append(Emitted(folder / "README.md", "resources, clock, cycles, and the protocol of the serial line"))
    if placed is not None:
        report = json.dumps({**placed.to_dict(), "estimate": dict(found.used)}, indent=2) + "\n"
        write_atomically(folder / "report.json", report.encode("ascii"))
        emitted.append(
            Emitted(
                placed.bitstream, f"make prog loads it; {placed.mhz:.1f} MHz after place and route", placed.to_dict()
            )
        )
    return tuple(emitted)


USES = {
    f"{NAME}.v": "the hardware; its memories are filled from the .hex files beside it",
    "weights.hex": "weights, a word for each cycle",
    "columns.hex": "the accumulators of sparse weights",
    "table.hex": "where the rows of sparse weights begin",
    "constants.hex": "what differs between neurons",
    "board.pcf": "pins and clock of the board",
    "board.lpf": "pins and clock of the board",
    "Makefile": "make, make prog, make bench",
    f"{NAME}_bench.v": "a self-test: make bench",
}
BENCH = f"""
bench: {NAME}_bench.v {NAME}.v
\tverilator --binary --timing -DNERVECORD_SIMULATED -Wno-fatal -O1 --top-module {NAME}_bench \\
		{NAME}_bench.v {NAME}.v -o {NAME}_bench
\t./obj_dir/{NAME}_bench

bench-iverilog: {NAME}_bench.v {NAME}.v
\tiverilog -g2005 -DNERVECORD_SIMULATED -o {NAME}_bench.vvp -s {NAME}_bench {NAME}_bench.v {NAME}.v
\tvvp {NAME}_bench.vvp

.PHONY: bench bench-iverilog
"""


def _readme(program: Program, core: Interface, protocol: Protocol, found: Estimate, placed: Placed | None) -> str:
    on = found.board
    lines = [
        f"# {program.target}: hardware for {on.title}",
        "",
        f"Written by nervecord {metadata.version('nervecord')}. Simulated, placed and routed; untested on silicon.",
        "`make` builds the bitstream, `make prog` loads it, `make bench` runs the self-test.",
        "",
        "| what | estimate | placed and routed |",
        "|---|---|---|",
    ]
    measured = placed.used if placed is not None else {}
    for what, used in found.used.items():
        lines.append(f"| {what}, of {getattr(on, what)} | {used} | {measured.get(what, '')} |")
    clock = f"{placed.mhz:.1f} MHz" if placed is not None else ""
    lines.append(f"| clock, {on.mhz:g} MHz on the board | | {clock} |")
    lines += ["", "| cycles of a block | at the board's clock |", "|---|---|"]
    for name, cycles in found.cycles.items():
        lines.append(f"| {name}: {cycles} | {found.milliseconds(cycles):.3f} ms |")
    lines += [
        f"| serial line | {found.serial * 1e3:.3f} ms |",
        "",
        "| memory | words | bits |",
        "|---|---|---|",
        *(f"| {name} | {depth} | {bits} |" for name, (depth, bits) in memories(core).items()),
        "",
        "## The serial line",
        "",
        f"{on.baud} baud, 8 bits, no parity. An order is a byte; numbers are little-endian and signed: "
        f"{protocol.inputs} of {protocol.in_bytes} bytes enter, {protocol.outputs} of {protocol.out_bytes} leave. The "
        "sum is that of all bytes of the numbers, modulo 256.",
        "",
        "| order | answer |",
        "|---|---|",
        f"| `V` | `v`, version, {protocol.identity.hex()}, numbers that enter and that leave (2 bytes each) |",
        "| `W`, numbers, sum | `w` |",
        "| `S` | `s` when the block is done |",
        "| `R` | `r`, numbers, sum |",
        "| `Z` | `z`: the state is that before the first block |",
        "| anything else | `e` and a code: 1 unknown order, 2 wrong sum, 3 numbers ended early, 4 out of range |",
        "",
        "Numbers that enter, in this order:",
        "",
        "| entry | numbers | range | always |",
        "|---|---|---|---|",
    ]
    names = set()
    for e in core.code.layout.entrances:
        if e.name not in names:
            names.add(e.name)
            rows = f", {e.rows} rows" if e.rows > 1 else ""
            lines.append(f"| {e.name} | {e.given}{rows} | {e.low}..{e.high} | {', '.join(map(str, e.fixed))} |")
    return "\n".join([*lines, ""])
