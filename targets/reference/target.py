"""The reference target: the trained policy itself, in float64, by the definition of its nodes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nervecord.compiler.graph import Graph
from nervecord.compiler.program import Program
from nervecord.compiler.specfile import read_spec
from nervecord.compiler.target import Lowered, TargetSpec
from nervecord.errors import unknown_name
from nervecord.runtime.session import MachineSession, Session


@dataclass(frozen=True)
class ReferenceTarget:
    """Float64 on the host: what every other target is compared with."""

    @cached_property
    def spec(self) -> TargetSpec:
        """Its limits: none."""
        return read_spec(Path(__file__).with_name("spec.toml"))

    @property
    def engines(self) -> tuple[str, ...]:
        """Names of what runs its programs, the default first."""
        return self.spec.engines

    def lower(self, graph: Graph, calibration: object) -> Lowered:
        """The graph itself."""
        return Lowered(graph=graph, report={})

    def open(self, program: Program, *, engine: str | None = None, trace: bool = True) -> Session:
        """A session on the default engine or the one named; it always traces."""
        name = engine or self.engines[0]
        if name not in self.engines:
            raise unknown_name("engine", name, self.engines, where=self.spec.name)
        return MachineSession(program.graph, engine=name)
