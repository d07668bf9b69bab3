"""The fpga target: hardware for the integer core, its files for a board, simulated in the loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy, parts
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops import Array, Level
from nervecord.compiler.plan.calibrate import Calibration, StreamCalibration
from nervecord.compiler.plan.plan import plan
from nervecord.compiler.target.boards import Survey
from nervecord.compiler.target.implied import with_arithmetic
from nervecord.compiler.target.options import option
from nervecord.compiler.target.protocol import Emitted, Lowered, TargetSpec
from nervecord.errors import NervecordError
from nervecord.runtime.session import Session
from nervecord.runtime.stream import StreamSession
from nervecord.targets.base import ArithmeticTarget, spec_beside
from nervecord.targets.fpga.board import boards
from nervecord.targets.fpga.verilog import require

LANES = (1, 2, 4, 8, 16)
SIMULATED, BOARD = "fpga-sim", "fpga"
REPORTED = "fpga"
"""Where a program's report of its lowering says for which board it was compiled, and with how many lanes."""


def lanes_of(program: Program) -> int:
    """The lanes that a program was compiled with; 1 where it was compiled for another target."""
    lowering = program.report.get("lowering")
    chosen = lowering.get(REPORTED) if isinstance(lowering, Mapping) else None
    lanes = chosen.get("lanes") if isinstance(chosen, Mapping) else 1
    return lanes if type(lanes) is int and lanes in LANES else 1


@dataclass(frozen=True)
class FpgaTarget(ArithmeticTarget):
    """Hardware of the integer core: its own arithmetic is Loihi 2's, and integers of any other it takes as they are."""

    spec: TargetSpec = spec_beside(__file__)
    emits: ClassVar[str] = "hardware"
    board: str = option("icebreaker", "what it is for", choices=tuple(boards()))
    lanes: int = option(1, "weights that are added per clock cycle: 1, 2, 4, 8 or 16", low=1, high=16)
    place_and_route: bool = option(False, "also make the bitstream, and measure what the board is asked for")
    vectors: int = option(2, "recorded blocks of the self-test bench", low=1, high=1000)

    def __post_init__(self) -> None:
        if self.lanes not in LANES:
            raise NervecordError(f"{self.lanes} lanes, 1, 2, 4, 8 or 16 are possible", where="--lanes")

    def lower(
        self, subject: Graph | Policy, calibration: Calibration | StreamCalibration | None, schedule: Schedule
    ) -> Lowered:
        """A DISCRETE graph or policy in integers; see `compiler.lower`. What is in integers already stays as it is."""
        chosen = {REPORTED: {"board": self.board, "lanes": self.lanes}}
        if parts(subject)[0].level is Level.INTEGER:
            return Lowered(subject, chosen)
        made = super().lower(subject, calibration, schedule)
        return Lowered(made.subject, {**made.report, **chosen}, made.allowances)

    def adopting(self, arithmetic: Arithmetic) -> FpgaTarget:
        """The same with another arithmetic, for what is in those integers already."""
        return dataclasses.replace(self, spec=with_arithmetic(self.spec, arithmetic))

    def engine(self, program: Program, name: str | None) -> str:
        """The engine that a name means; see `EngineTarget.engine`."""
        if name == BOARD:
            raise NervecordError(
                "needs the serial port of a board, and a policy",
                where=f"engine {name!r}",
                hint='nervecord.open(program, engine="fpga", port="/dev/ttyUSB1")',
            )
        return super().engine(program, name)

    def session(self, program: Program, engine: str, *, trace: bool) -> Session:
        """A session on simulated hardware, or on one of the other engines."""
        if engine == SIMULATED:
            require()
            from nervecord.targets.fpga.session import open_program

            return cast(Session, open_program(program, lanes=lanes_of(program)))
        return super().session(program, engine, trace=trace)

    def stream_session(self, program: Program, engine: str) -> StreamSession:
        """The same for a program that is no policy."""
        if engine == SIMULATED:
            require()
            from nervecord.targets.fpga.session import SimulatedStream

            made = plan(program.graph, program.schedule)
            return cast(StreamSession, SimulatedStream(made, lanes=lanes_of(program)))
        return super().stream_session(program, engine)

    def needs(self, program: Program) -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
        """What a program takes of the board, by estimate; see `Needing`.

        Raises:
            InfeasibleError: an op has no hardware, or the board holds too little.
        """
        require()
        from nervecord.targets.fpga.package import needed

        return needed(program, self.board, self.lanes)

    def survey(self, program: Program, observations: Array | None) -> Survey:
        """A program on every board by estimate, and on this one by place and route too if that is chosen.

        Raises:
            InfeasibleError: an op has no hardware. MissingDependencyError: a tool is missing. EngineError: one failed.
        """
        require()
        from nervecord.targets.fpga.survey import survey

        return survey(program, self.board, self.lanes, measured=self.place_and_route, observations=observations)

    def emit(self, program: Program, folder: Path) -> tuple[Emitted, ...]:
        """Verilog, memory contents, constraints, what builds them, a self-test; see `targets.fpga.package`.

        Raises:
            InfeasibleError: an op has no hardware, the board holds too little, or its clock is not reached.
            MissingDependencyError: amaranth or yosys is missing.
        """
        require()
        from nervecord.targets.fpga.package import write

        return write(
            program,
            folder,
            board_name=self.board,
            lanes=self.lanes,
            vectors=self.vectors,
            measured=self.place_and_route,
        )


TARGET = FpgaTarget
