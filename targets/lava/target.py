"""The lava target: Loihi 2 fixed point as lava-nc 0.10.0 computes it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nervecord.compiler.calibrate import Calibration
from nervecord.compiler.graph import Graph
from nervecord.compiler.program import Program
from nervecord.compiler.specfile import read_spec
from nervecord.compiler.target import Lowered, TargetSpec
from nervecord.errors import unknown_name
from nervecord.runtime.session import MachineSession, Session
from nervecord.targets.lava.lower import lower


@dataclass(frozen=True)
class LavaTarget:
    """Loihi 2 fixed point.

    Args:
        weight_bits: of the weights' mantissa, 2..8.
        netx: use no more of the arithmetic than lava-dl's netx format can say (`targets.lava.netx`).
    """

    weight_bits: int = 8
    netx: bool = False

    @cached_property
    def spec(self) -> TargetSpec:
        """Its limits."""
        return read_spec(Path(__file__).with_name("spec.toml"))

    @property
    def engines(self) -> tuple[str, ...]:
        """Names of what runs its programs, the default first."""
        return self.spec.engines

    def lower(self, graph: Graph, calibration: Calibration) -> Lowered:
        """A DISCRETE policy in integers; see `targets.lava.lower`."""
        lowered, report = lower(graph, calibration, weight_bits=self.weight_bits, whole=self.netx)
        return Lowered(graph=lowered, report=report)

    def open(self, program: Program, *, engine: str | None = None, trace: bool = True) -> Session:
        """A session on the default engine or the one named.

        "emulator": compiled and exact; "definition": the same by `compiler.semantics`, slow; "lava": the stock
        processes of lava-nc in their own interpreter, which records the readout at every step only where `trace`.
        """
        name = engine or self.engines[0]
        match name:
            case "emulator":
                # numba is imported when the first session opens, not with the catalogue.
                from nervecord.targets.lava.emulator import EmulatorSession

                return EmulatorSession(program.graph)
            case "definition":
                return MachineSession(program.graph, engine=name)
            case "lava":
                from nervecord.targets.lava.engine_lava import LavaSession

                return LavaSession(program.graph, full_trace=trace)
        raise unknown_name("engine", name, self.engines, where=self.spec.name)
