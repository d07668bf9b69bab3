"""The reference target: the trained policy itself, in float64, by the definition of its nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.plan.calibrate import Calibration, StreamCalibration
from nervecord.compiler.plan.plan import plan
from nervecord.compiler.target.protocol import Emitted, Lowered, TargetSpec
from nervecord.compiler.target.specfile import read_spec
from nervecord.errors import NervecordError, unknown_name
from nervecord.runtime.engines.torch import door
from nervecord.runtime.session import MachineSession, Session
from nervecord.runtime.stream import MachineStream, StreamSession


@dataclass(frozen=True)
class ReferenceTarget:
    """Float64 on the host: what every other target is compared with. It has no limits and no options."""

    spec: TargetSpec = field(default_factory=lambda: read_spec(Path(__file__).with_name("spec.toml")))

    def lower(
        self, subject: Graph | Policy, calibration: Calibration | StreamCalibration | None, schedule: Schedule
    ) -> Lowered:
        """The subject itself."""
        return Lowered(subject=subject, report={})

    def open(self, program: Program, *, engine: str | None = None, trace: bool = True) -> Session:
        """A session on the default engine or the one named; `trace` matters to torch alone."""
        name = engine or self.spec.engines[0]
        if name not in self.spec.engines:
            raise unknown_name("engine", name, self.spec.engines, where=self.spec.name)
        if name == door.NAME:
            return door.open_policy(program, trace=trace)
        return MachineSession(program.policy, engine=name)

    def stream(self, program: Program, *, engine: str | None = None) -> StreamSession:
        """A session of a graph that is no policy."""
        name = engine or self.spec.engines[0]
        if name not in self.spec.engines:
            raise unknown_name("engine", name, self.spec.engines, where=self.spec.name)
        if name == door.NAME:
            return door.open_stream(program)
        return cast(StreamSession, MachineStream(plan(program.graph, program.schedule), engine=name))

    def emit(self, program: Program, folder: Path) -> tuple[Emitted, ...]:
        """Nothing: the policy's NIR file is what other tools take."""
        raise NervecordError("writes no files for other tools", where=f"target {self.spec.name!r}")


TARGET = ReferenceTarget
