"""What targets share: engines by their names, and lowering by the arithmetic that the spec states."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.lower.slices import SLICES_ABOUT
from nervecord.compiler.plan.calibrate import Calibration, StreamCalibration
from nervecord.compiler.plan.plan import plan
from nervecord.compiler.target.implied import integers
from nervecord.compiler.target.options import option
from nervecord.compiler.target.protocol import Emitted, Lowered, TargetSpec
from nervecord.compiler.target.specfile import read_spec
from nervecord.errors import NervecordError, unknown_name
from nervecord.runtime.engines.torch import door
from nervecord.runtime.session import MachineSession, Session
from nervecord.runtime.stream import MachineStream, StreamSession


def spec_beside(module: str, name: str = "spec.toml") -> Any:
    """The field `spec` of a target's dataclass, read from a file beside its module: `spec_beside(__file__)`.

    Args:
        module: path of the module. name: of the file.
    """
    return field(default_factory=lambda: read_spec(Path(module).with_name(name)))


class EngineTarget:
    """A target that runs on the engines that its spec names; the first one is the default."""

    spec: TargetSpec

    def open(self, program: Program, *, engine: str | None = None, trace: bool = True) -> Session:
        """A session on the default engine or the one named; see `Target.open`."""
        return self.session(program, self.engine(program, engine), trace=trace)

    def stream(self, program: Program, *, engine: str | None = None) -> StreamSession:
        """A session of a program that is no policy, on the default engine or the one named."""
        return self.stream_session(program, self.engine(program, engine))

    def emit(self, program: Program, folder: Path) -> tuple[Emitted, ...]:
        """Nothing: there is no other tool that it writes for."""
        raise NervecordError("writes no files for other tools", where=f"target {self.spec.name!r}")

    def engine(self, program: Program, name: str | None) -> str:
        """The engine that a name means, for a program.

        Raises:
            NervecordError: there is no engine of that name, or it cannot run such a program.
        """
        chosen = name or self.spec.engines[0]
        if chosen not in self.spec.engines:
            raise unknown_name("engine", chosen, self.spec.engines, where=self.spec.name)
        return chosen

    def session(self, program: Program, engine: str, *, trace: bool) -> Session:
        """A session on one of the engines that run any program; a target with others has a case for them before."""
        match engine:
            case "c":
                from nervecord.runtime.engines.c.session import CSession

                return cast(Session, CSession(program.policy, trace=trace))
            case door.NAME:
                return door.open_policy(program, trace=trace)
            case "emulator":
                # numba is imported when the first session opens, not with the catalogue.
                from nervecord.runtime.engines.emulator.session import EmulatorSession

                return cast(Session, EmulatorSession(program.policy))
        return cast(Session, MachineSession(program.policy, engine=engine))

    def stream_session(self, program: Program, engine: str) -> StreamSession:
        """The same for a program that is no policy."""
        if engine == door.NAME:
            return door.open_stream(program)
        steps = plan(program.graph, program.schedule)
        match engine:
            case "c":
                from nervecord.runtime.engines.c.session import CStream

                return cast(StreamSession, CStream(steps))
            case "emulator":
                from nervecord.runtime.engines.emulator.session import EmulatorStream

                return cast(StreamSession, EmulatorStream(steps))
        return cast(StreamSession, MachineStream(steps, engine=engine))


@dataclass(frozen=True)
class ArithmeticTarget(EngineTarget):
    """A target that computes in the integers that its spec states, with the options that every such target has."""

    spec: TargetSpec
    weight_bits: int = option(0, "bits of a weight's mantissa", low=0, high=16, of="weight_bits")
    weight_slices: int = option(1, SLICES_ABOUT, low=1, high=2)

    def lower(
        self, subject: Graph | Policy, calibration: Calibration | StreamCalibration | None, schedule: Schedule
    ) -> Lowered:
        """A DISCRETE graph or policy in the spec's arithmetic; see `compiler.lower`."""
        return self.lowered(subject, calibration, schedule)

    def lowered(
        self,
        subject: Graph | Policy,
        calibration: Calibration | StreamCalibration | None,
        schedule: Schedule,
        *,
        whole: bool = False,
    ) -> Lowered:
        """The same; whole: with no exponent that cuts bits off."""
        program_graph, report = lower(
            subject,
            integers(self.spec),
            calibration,
            schedule=schedule,
            weight_bits=self.weight_bits or None,
            weight_slices=self.weight_slices,
            whole=whole,
        )
        return Lowered(subject=program_graph, report=report)
