"""The c target: C99 for microcontrollers, in the arithmetic of Loihi 2's fixed point."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from nervecord.compiler.files.atomic import write_atomically
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.lower.slices import SLICES_ABOUT
from nervecord.compiler.plan.calibrate import Calibration, StreamCalibration
from nervecord.compiler.target.implied import integers
from nervecord.compiler.target.options import option
from nervecord.compiler.target.protocol import Emitted, Lowered, TargetSpec
from nervecord.compiler.target.specfile import read_spec
from nervecord.errors import unknown_name
from nervecord.runtime.engines.c.names import checked_prefix
from nervecord.runtime.session import Session
from nervecord.runtime.stream import StreamSession
from nervecord.targets.integers import open_integers, stream_integers


@dataclass(frozen=True)
class CTarget:
    """C99 for microcontrollers."""

    spec: TargetSpec = field(default_factory=lambda: read_spec(Path(__file__).with_name("spec.toml")))
    weight_bits: int = option(8, "bits of a weight's mantissa", low=2, high=8)
    weight_slices: int = option(1, SLICES_ABOUT, low=1, high=2)
    prefix: str = option("policy", "what the names of files, functions and macros begin with")
    emits: ClassVar[str] = "C"
    vectors: int = option(100, "recorded steps of the self-test", low=1, high=100_000)

    def __post_init__(self) -> None:
        checked_prefix(self.prefix)

    def lower(
        self, subject: Graph | Policy, calibration: Calibration | StreamCalibration | None, schedule: Schedule
    ) -> Lowered:
        """A DISCRETE graph or policy in integers; see `compiler.lower`."""
        lowered, report = lower(
            subject, integers(self.spec), calibration, schedule=schedule, weight_bits=self.weight_bits,
            weight_slices=self.weight_slices,
        )  # fmt: skip
        return Lowered(subject=lowered, report=report)

    def open(self, program: Program, *, engine: str | None = None, trace: bool = True) -> Session:
        """A session on the default engine or the one named.

        "c": what is emitted, compiled here; "emulator": the same core in numba, the host's part in float64;
        "definition": by the ops' own steps, slow.
        """
        return open_integers(program, self._engine(engine), trace=trace)

    def stream(self, program: Program, *, engine: str | None = None) -> StreamSession:
        """A session of a program that is no policy, on the default engine or the one named."""
        return stream_integers(program, self._engine(engine))

    def _engine(self, engine: str | None) -> str:
        name = engine or self.spec.engines[0]
        if name not in self.spec.engines:
            raise unknown_name("engine", name, self.spec.engines, where=self.spec.name)
        return name

    def needs(self, program: Program) -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
        """What a program takes on a controller; see `Needing`."""
        from nervecord.targets.c.package import sizes

        made = sizes(program, self.prefix)
        rows = (
            ("flash", f"{made['flash_constants']:,} bytes of constants; the code comes on top"),
            ("RAM", f"{made['ram']:,} bytes of state"),
            ("stack", f"less than {made['stack']:,} bytes"),
            ("worst case", f"{made['synaptic_operations']:,} synaptic operations and {made['neuron_updates']:,} neuron "
             "updates per call"),
        )  # fmt: skip
        return made, rows

    def emit(self, program: Program, folder: Path) -> tuple[Emitted, ...]:
        """The C sources, a self-test with recorded steps, and what builds them; see `targets.c.package`.

        Raises:
            InfeasibleError: an op has no form in C.
        """
        from nervecord.targets.c.package import package

        made = package(program, prefix=self.prefix, vectors=self.vectors)
        for name, text in made.files.items():
            write_atomically(folder / name, text.encode("ascii"))
        return tuple(Emitted(folder / name, made.uses[name]) for name in made.files)


TARGET = CTarget
