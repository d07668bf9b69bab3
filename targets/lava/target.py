"""The lava target: Loihi 2 fixed point as lava-nc 0.10.0 computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

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
from nervecord.compiler.target.protocol import Emitted, Installation, Lowered, TargetSpec
from nervecord.compiler.target.specfile import read_spec
from nervecord.errors import InfeasibleError, NervecordError, unknown_name
from nervecord.runtime.session import Session
from nervecord.runtime.stream import StreamSession
from nervecord.targets.integers import open_integers, stream_integers
from nervecord.targets.lava import environment

NETX_FILE = "policy.net"


@dataclass(frozen=True)
class LavaTarget:
    """Loihi 2 fixed point."""

    spec: TargetSpec = field(default_factory=lambda: read_spec(Path(__file__).with_name("spec.toml")))
    weight_bits: int = option(8, "bits of a weight's mantissa", low=2, high=8)
    weight_slices: int = option(1, SLICES_ABOUT, low=1, high=2)
    suffixes: ClassVar[tuple[str, ...]] = (".net",)
    netx: bool = option(False, "use no more of the arithmetic than lava-dl's netx can say, so that --emit can write it")

    def lower(
        self, subject: Graph | Policy, calibration: Calibration | StreamCalibration | None, schedule: Schedule
    ) -> Lowered:
        """A DISCRETE graph or policy in Lava's integers; see `compiler.lower`."""
        if self.netx and self.weight_slices > 1:
            raise NervecordError(
                f"is {self.weight_slices}, and netx has one connection between two layers", where="weight_slices",
                hint="leave out netx or weight_slices",
            )  # fmt: skip
        lowered, report = lower(
            subject, integers(self.spec), calibration, schedule=schedule, weight_bits=self.weight_bits,
            weight_slices=self.weight_slices, whole=self.netx,
        )  # fmt: skip
        return Lowered(subject=lowered, report=report)

    def open(self, program: Program, *, engine: str | None = None, trace: bool = True) -> Session:
        """A session on the default engine or the one named.

        "emulator": compiled and exact; "definition": the same by the ops' own steps, slow; "torch": the same for many
        robots side by side; "c": what the target c emits, compiled here; "lava": the stock processes of lava-nc in
        their own interpreter, which records the readout at every step only where `trace`.
        """
        name = engine or self.spec.engines[0]
        if name not in self.spec.engines:
            raise unknown_name("engine", name, self.spec.engines, where=self.spec.name)
        if name == "lava":
            from nervecord.targets.lava.engine_lava import LavaSession

            return LavaSession(program.policy, full_trace=trace)
        return open_integers(program, name, trace=trace)

    def stream(self, program: Program, *, engine: str | None = None) -> StreamSession:
        """A session of a program that is no policy, on the default engine or the one named."""
        name = engine or self.spec.engines[0]
        if name not in self.spec.engines:
            raise unknown_name("engine", name, self.spec.engines, where=self.spec.name)
        if name == "lava":
            from nervecord.targets.lava.engine_lava import LavaStream

            return LavaStream(plan(program.graph, program.schedule))
        return stream_integers(program, name)

    def emit(self, program: Program, folder: Path) -> tuple[Emitted, ...]:
        """The HDF5 file that lava-dl's netx loads; see `targets.lava.netx`.

        Raises:
            InfeasibleError: the format cannot say it; a program compiled with the option `netx` has no weights or
                biases that it cannot say.
        """
        # h5py is imported where a file is written, not with the catalogue.
        from nervecord.targets.lava.netx import export_netx

        path = folder / NETX_FILE
        try:
            arguments = export_netx(plan(program.subject, program.schedule), path).arguments
        except InfeasibleError as error:
            if not self.netx:
                error.add_note("the option netx (--netx) keeps to the part of the arithmetic that this file can say")
            raise
        given = "".join(f", {name}={value}" for name, value in arguments.items())
        return (Emitted(path, f"lava.lib.dl.netx.hdf5.Network(net_config={str(path)!r}{given})", arguments),)

    @classmethod
    def read(cls, path: Path, *, dt: float | None) -> Graph:
        """The graph of a file that lava-dl's slayer exported; see `targets.lava.netx_read`."""
        from nervecord.targets.lava.netx_read import read_netx

        return read_netx(path, dt=dt)

    def installation(self) -> Installation:
        """Whether the engine "lava" can run here."""
        return _installation(environment.status())

    def install(self, progress: Callable[[str], None], *, python: Path | None, allow_shim: bool) -> Installation:
        """Make the environment of the engine "lava", unless it is there; see `targets.lava.environment`."""
        return _installation(environment.install(progress, python=python, allow_shim=allow_shim))


def _installation(found: environment.LavaStatus) -> Installation:
    about = f"lava-nc {found.lava_version} on Python {found.python_version} in {found.path}"
    if found.shim:
        about += " (with the shim)"
    if not found.installed:
        about = f"{found.problem}; to install it: {environment.INSTALL_COMMAND}"
    details = {
        "path": str(found.path),
        "python": found.python_version,
        "lava": found.lava_version,
        "shim": found.shim,
        "problem": found.problem,
    }
    return Installation("lava", found.installed, about, details)


TARGET = LavaTarget
