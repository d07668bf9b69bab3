"""What targets that compute in integers share: lowering and engines by the arithmetic that their spec states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

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
from nervecord.compiler.target.protocol import Behaviour, Emitted, Limits, Lowered, TargetSpec
from nervecord.errors import NervecordError, unknown_name
from nervecord.runtime.engines.torch import door
from nervecord.runtime.session import MachineSession, Session
from nervecord.runtime.stream import MachineStream, StreamSession

ENGINES = ("emulator", "definition", "torch", "c")
"""What runs integers of any arithmetic: the compiled loop, the ops' own steps, batches on any device, and the C that
the target c emits."""


@dataclass(frozen=True)
class IntegerTarget:
    """A chip that a file describes, arithmetic included."""

    spec: TargetSpec
    weight_bits: int = option(0, "bits of a weight's mantissa; 0: all that the arithmetic has", low=0, high=16)
    weight_slices: int = option(1, SLICES_ABOUT, low=1, high=2)

    @classmethod
    def of(cls, program: Program) -> IntegerTarget:
        """What runs a program whose target is not here: its arithmetic, and no limits."""
        spec = TargetSpec(
            name=program.target, title=program.target, summary="known from a program alone", engines=(),
            arithmetic="as the program carries it", integers=program.graph.arithmetic, nodes={}, nodes_source="program",
            nodes_confidence="unknown", behaviour=Behaviour(), limits=Limits(),
        )  # fmt: skip
        return cls(spec)

    def lower(
        self, subject: Graph | Policy, calibration: Calibration | StreamCalibration | None, schedule: Schedule
    ) -> Lowered:
        """A DISCRETE graph or policy in the spec's arithmetic; see `compiler.lower`."""
        lowered, report = lower(
            subject, integers(self.spec), calibration, schedule=schedule, weight_bits=self.weight_bits or None,
            weight_slices=self.weight_slices,
        )  # fmt: skip
        return Lowered(subject=lowered, report=report)

    def open(self, program: Program, *, engine: str | None = None, trace: bool = True) -> Session:
        """A session on one of `ENGINES`, by default the emulator; `trace` matters to torch and c alone."""
        name = engine or ENGINES[0]
        if name not in ENGINES:
            raise unknown_name("engine", name, ENGINES, where=self.spec.name)
        return open_integers(program, name, trace=trace)

    def stream(self, program: Program, *, engine: str | None = None) -> StreamSession:
        """A session of a program that is no policy; see `open`."""
        name = engine or ENGINES[0]
        if name not in ENGINES:
            raise unknown_name("engine", name, ENGINES, where=self.spec.name)
        return stream_integers(program, name)

    def emit(self, program: Program, folder: Path) -> tuple[Emitted, ...]:
        """Nothing: no other tool knows this chip."""
        raise NervecordError("writes no files for other tools", where=f"target {self.spec.name!r}")


def open_integers(program: Program, engine: str, *, trace: bool = True) -> Session:
    """A session of a program of integers on one of `ENGINES`."""
    if engine == "definition":
        return cast(Session, MachineSession(program.policy, engine=engine))
    if engine == "c":
        from nervecord.runtime.engines.c.session import CSession

        return cast(Session, CSession(program.policy, trace=trace))
    if engine == door.NAME:
        return door.open_policy(program, trace=trace)
    # numba is imported when the first session opens, not with the catalogue.
    from nervecord.runtime.engines.emulator.session import EmulatorSession

    return cast(Session, EmulatorSession(program.policy))


def stream_integers(program: Program, engine: str) -> StreamSession:
    """The same for a program that is no policy."""
    made = plan(program.graph, program.schedule)
    if engine == "definition":
        return cast(StreamSession, MachineStream(made, engine=engine))
    if engine == "c":
        from nervecord.runtime.engines.c.session import CStream

        return cast(StreamSession, CStream(made))
    if engine == door.NAME:
        return door.open_stream(program)
    from nervecord.runtime.engines.emulator.session import EmulatorStream

    return cast(StreamSession, EmulatorStream(made))
