"""A target in a package of its own, as somebody's chip would be: found by the entry point beside this folder."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.plan.calibrate import Calibration, StreamCalibration
from nervecord.compiler.plan.plan import plan
from nervecord.compiler.target.options import option
from nervecord.compiler.target.protocol import Emitted, Fact, Limits, Lowered, TargetSpec
from nervecord.errors import unknown_name
from nervecord.runtime.session import MachineSession, Session
from nervecord.runtime.stream import MachineStream, StreamSession
from nervecord.targets.reference.target import ReferenceTarget


def chip() -> TargetSpec:
    """It computes as the reference does, on cores of 1,024 neurons, by hearsay."""
    limits = Limits(cores=Fact(4, "its maker", "exact"), neurons_per_core=Fact(1024, "a talk", "second-hand"))
    return dataclasses.replace(
        ReferenceTarget().spec,
        name="example-chip",
        title="Example chip",
        summary="A chip that a package adds.",
        engines=("model",),
        limits=limits,
    )


@dataclass(frozen=True)
class ExampleChip:
    """The target."""

    spec: TargetSpec = field(default_factory=chip)
    clock_mhz: int = option(100, "clock of the cores, MHz", low=1, high=400)
    mode: str = option("fast", "how it is driven", choices=("fast", "thrifty"))
    gain: float = option(1.0, "of the output stage", low=0.0)
    traced: bool = option(False, "keep a trace on the chip")

    def lower(
        self, subject: Graph | Policy, calibration: Calibration | StreamCalibration | None, schedule: Schedule
    ) -> Lowered:
        """As it is."""
        return Lowered(subject=subject, report={"clock_mhz": self.clock_mhz, "mode": self.mode})

    def open(self, program: Program, *, engine: str | None = None, trace: bool = True) -> Session:
        """On the one engine there is."""
        name = engine or self.spec.engines[0]
        if name not in self.spec.engines:
            raise unknown_name("engine", name, self.spec.engines, where=self.spec.name)
        return MachineSession(program.policy, engine=name)

    def stream(self, program: Program, *, engine: str | None = None) -> StreamSession:
        """The same for a program that is no policy."""
        return MachineStream(plan(program.graph, program.schedule), engine=engine or self.spec.engines[0])

    def emit(self, program: Program, folder: Path) -> tuple[Emitted, ...]:
        """The names of the layers."""
        path = folder / "layers.json"
        path.write_text(json.dumps(list(program.graph.nodes)))
        return (Emitted(path, f"chipload {path}", {"clock_mhz": self.clock_mhz}),)
