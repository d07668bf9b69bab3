"""What `inspect` finds on boards: what each holds, whether a program fits, and on one of them clock, cycles, latency.

By estimate at once, or by place and route and by simulation, which take minutes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nervecord.compiler.files.program import Program
from nervecord.compiler.findings import Finding
from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.ops import Array
from nervecord.compiler.plan.calibrate import spread
from nervecord.compiler.plan.plan import plan
from nervecord.compiler.target.abilities import Survey
from nervecord.errors import InfeasibleError
from nervecord.targets.fpga.bench import drawn
from nervecord.targets.fpga.board import Board, board, sources
from nervecord.targets.fpga.estimate import NAMES, Estimate
from nervecord.targets.fpga.hostfiles import observations as drawn_observations
from nervecord.targets.fpga.package import Design, designs, placed, smallest
from nervecord.targets.fpga.place import Placed
from nervecord.targets.fpga.session import Simulated, SimulatedSession

BLOCKS = 100
"""Actions over which cycles are counted."""


@dataclass(frozen=True, slots=True)
class Cycles:
    """Clock cycles of blocks, simulated. of: what entered, in words."""

    mean: float
    most: int
    of: str


def survey(program: Program, board_name: str, lanes: int, *, measured: bool, observations: Array | None) -> Survey:
    """A program on every board by estimate, and on one in detail.

    Args:
        measured: by place and route, and cycles by simulation. observations: recorded ones, (k, n); None: drawn.

    Raises:
        InfeasibleError: an op has no hardware. MissingDependencyError: a tool is missing. EngineError: one failed.
    """
    by_board = designs(program, lanes)
    chosen = by_board[board(board_name).name]
    fitting = [name for name, each in by_board.items() if not each.estimate.lacking]
    finding, routed, cycles = _lack(chosen.estimate, fitting), None, None
    if measured and finding is None:
        try:
            routed = placed(chosen)
        except InfeasibleError as error:
            finding = Finding("board", "error", "graph", error.message, fix=error.hint or "", target="fpga")
        else:
            cycles = simulated_cycles(program, lanes, observations)
    data = {
        "board": board_name,
        "lanes": lanes,
        "feasible": finding is None,
        "boards": {name: _board_data(each.estimate) for name, each in by_board.items()},
        **_detail_data(chosen.estimate, program.contract, routed, cycles),
    }
    rows = [(name, _board_words(each.estimate)) for name, each in by_board.items()]
    rows += _detail_rows(chosen, program.contract, routed, cycles)
    return Survey(data, tuple(rows), finding)


def _lack(estimate: Estimate, fitting: Sequence[str]) -> Finding | None:
    """What speaks against a board by estimate."""
    if not estimate.lacking:
        return None
    what = estimate.lacking[0]
    return Finding(
        "board",
        "error",
        "graph",
        f"{estimate.board.name} has too few {NAMES[what]}",
        estimate.used[what],
        getattr(estimate.board, what),
        smallest(fitting),
        "fpga",
        sources()["capacity"],
    )


def simulated_cycles(program: Program, lanes: int, observations: Array | None) -> Cycles:
    """Clock cycles of a block in the simulated hardware.

    Raises:
        MissingDependencyError: there is no C++ compiler.
    """
    if program.contract is None:
        machine = Simulated(plan(program.graph, program.schedule), lanes=lanes)
        rng, (core,) = np.random.default_rng(0), machine.cores
        try:
            for _ in range(BLOCKS):
                core.block(machine.code.entering(drawn(machine.code, rng), 0))
            counts, of = machine.cycles, f"{BLOCKS} drawn blocks"
        finally:
            machine.close()
    else:
        recorded = observations is not None
        rows = observations if observations is not None else drawn_observations(plan(program.policy), BLOCKS)
        rows = rows[spread(len(rows), BLOCKS, carried=not program.policy.schedule.resets)]
        with SimulatedSession(program.policy, lanes=lanes) as session:
            for row in rows:
                session.step(row)
            counts = session.cycles
        of = f"{len(rows)} {'recorded' if recorded else 'drawn'} observations"
    return Cycles(float(np.mean(counts)), max(counts), of)


# --------------------------------------------------------------------------------------------------------------------
# As data


def _board_data(estimate: Estimate) -> dict[str, Any]:
    on = estimate.board
    return {
        "title": on.title,
        "device": f"{on.family} {on.device} {on.package}",
        "holds": {what: getattr(on, what) for what in NAMES},
        "block_ram_bits": on.ram_bits,
        "clock_mhz": on.mhz,
        "feasible": not estimate.lacking,
        "estimate": dict(estimate.used),
        "lacking": estimate.lacking,
        "milliseconds_most": estimate.milliseconds(estimate.cycles["most"]),
        "sources": dict(sources()),
    }


def _detail_data(
    estimate: Estimate, contract: Contract | None, routed: Placed | None, cycles: Cycles | None
) -> dict[str, Any]:
    data: dict[str, Any] = {
        "estimate": dict(estimate.used),
        "placed": None if routed is None else routed.to_dict(),
        "cycles": _counts(estimate, cycles),
        "cycles_of": None if cycles is None else cycles.of,
        "milliseconds": {name: estimate.milliseconds(count) for name, count in _counts(estimate, cycles).items()},
        "serial_milliseconds": estimate.serial * 1e3,
    }
    if contract is not None:
        data["control_period"] = contract.control_period
        data["share"] = _shares(estimate, contract, cycles)
    return data


def _counts(estimate: Estimate, cycles: Cycles | None) -> dict[str, float]:
    """Cycles of a block: mean and most of what was simulated, and what no input exceeds."""
    simulated = {} if cycles is None else {"mean": cycles.mean, "most": float(cycles.most)}
    return {**simulated, "bound": float(estimate.cycles["most"])}


def _shares(estimate: Estimate, contract: Contract, cycles: Cycles | None) -> dict[str, float]:
    """Of the control period, the serial line included."""
    return {
        name: (estimate.milliseconds(count) / 1e3 + estimate.serial) / contract.control_period
        for name, count in _counts(estimate, cycles).items()
    }


# --------------------------------------------------------------------------------------------------------------------
# In words


def _board_words(estimate: Estimate) -> str:
    if estimate.lacking:
        return f"infeasible by estimate: {estimate.shortage}"
    parts = [f"{words} {NAMES[what]}" for what, words in estimate.words().items()]
    most = estimate.milliseconds(estimate.cycles["most"])
    return f"feasible by estimate: {', '.join(parts)}; at most {most:.2f} ms at {estimate.board.mhz:g} MHz"


def _holds(on: Board) -> str:
    blocks = f"{on.ram} block RAMs of {on.ram_bits:,} bits"
    more = [f"{getattr(on, what)} {NAMES[what]}" for what in ("dsp", "spram") if getattr(on, what)]
    return ", ".join([f"{on.cells:,} logic cells", blocks, *more, f"{on.mhz:g} MHz"])


def _detail_rows(
    design: Design, contract: Contract | None, routed: Placed | None, cycles: Cycles | None
) -> list[tuple[str, str]]:
    estimate, on = design.estimate, design.estimate.board
    rows = [(f"{on.name} holds", f"{_holds(on)} ({on.title})")]
    rows += [("source", text) for text in sources().values()]
    measured = {} if routed is None else estimate.words(routed.used)
    for what, words in estimate.words().items():
        after = f"{measured[what]}, placed and routed; estimated {words}" if what in measured else words
        rows.append((NAMES[what], after))
    if routed is not None:
        rows.append(("largest clock", f"{routed.mhz:.1f} MHz after place and route"))
    if cycles is not None:
        rows.append(("cycles per action", f"{cycles.mean:,.0f} mean, {cycles.most:,} most of {cycles.of}, simulated"))
    rows.append(("cycles per action", f"at most {estimate.cycles['most']:,}, whatever enters"))
    counts = _counts(estimate, cycles)
    times = [f"{estimate.milliseconds(count):.2f} ms {WORDS[name]}" for name, count in counts.items()]
    rows.append(("latency", f"{', '.join(times)} at {on.mhz:g} MHz"))
    rows.append(("serial line", f"{estimate.serial * 1e3:.2f} ms at {on.baud:,} baud"))
    if contract is not None:
        shares = _shares(estimate, contract, cycles)
        words = ", ".join(f"{100 * share:.1f} % {WORDS[name]}" for name, share in shares.items())
        rows.append(("share of the control period", f"{words}, of {contract.control_period * 1e3:g} ms"))
    return rows


WORDS: Mapping[str, str] = {"mean": "mean", "most": "most", "bound": "at most"}
