"""The c target: C99 for microcontrollers, in the arithmetic of Loihi 2's fixed point."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.files.atomic import write_atomically
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy, parts
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops import Level
from nervecord.compiler.plan.calibrate import Calibration, StreamCalibration
from nervecord.compiler.target.implied import with_arithmetic
from nervecord.compiler.target.options import option
from nervecord.compiler.target.protocol import Emitted, Lowered, TargetSpec
from nervecord.runtime.engines.c.names import checked_prefix
from nervecord.targets.base import ArithmeticTarget, spec_beside


@dataclass(frozen=True)
class CTarget(ArithmeticTarget):
    """C99 for microcontrollers: its own arithmetic is Loihi 2's, and integers of any other it prints as they are."""

    spec: TargetSpec = spec_beside(__file__)
    prefix: str = option("policy", "what the names of files, functions and macros begin with")
    emits: ClassVar[str] = "C"
    vectors: int = option(100, "recorded steps of the self-test", low=1, high=100_000)

    def __post_init__(self) -> None:
        checked_prefix(self.prefix)

    def lower(
        self, subject: Graph | Policy, calibration: Calibration | StreamCalibration | None, schedule: Schedule
    ) -> Lowered:
        """A DISCRETE graph or policy in integers; see `compiler.lower`. What is in integers already stays as it is."""
        if parts(subject)[0].level is Level.INTEGER:
            return Lowered(subject, {})
        return super().lower(subject, calibration, schedule)

    def adopting(self, arithmetic: Arithmetic) -> CTarget:
        """The same with another arithmetic, for what is in those integers already."""
        return dataclasses.replace(self, spec=with_arithmetic(self.spec, arithmetic))

    def needs(self, program: Program) -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
        """What a program takes on a controller; see `Needing`."""
        from nervecord.targets.c.package import sizes

        size_of = sizes(program, self.prefix)
        rows = (
            ("flash", f"{size_of['flash_constants']:,} bytes of constants; the code comes on top"),
            ("RAM", f"{size_of['ram']:,} bytes of state"),
            ("stack", f"less than {size_of['stack']:,} bytes"),
            (
                "worst case",
                f"{size_of['synaptic_operations']:,} synaptic operations and {size_of['neuron_updates']:,} neuron "
                "updates per call",
            ),
        )
        return size_of, rows

    def emit(self, program: Program, folder: Path) -> tuple[Emitted, ...]:
        """The C sources, a self-test with recorded steps, and what builds them; see `targets.c.package`.

        Raises:
            InfeasibleError: an op has no form in C.
        """
        from nervecord.targets.c.package import package

        parts = package(program, prefix=self.prefix, vectors=self.vectors)
        for name, text in parts.files.items():
            write_atomically(folder / name, text.encode("ascii"))
        return tuple(Emitted(folder / name, parts.uses[name]) for name in parts.files)


TARGET = CTarget
