"""The lava target: Loihi 2 fixed point as lava-nc 0.10.0 computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.plan.calibrate import Calibration, StreamCalibration
from nervecord.compiler.plan.plan import plan
from nervecord.compiler.target.abilities import Installation
from nervecord.compiler.target.options import option
from nervecord.compiler.target.protocol import Emitted, Lowered, TargetSpec
from nervecord.errors import InfeasibleError, NervecordError
from nervecord.runtime.session import Session
from nervecord.runtime.stream import StreamSession
from nervecord.targets.base import ArithmeticTarget, spec_beside
from nervecord.targets.lava import environment

NETX_FILE = "policy.net"


@dataclass(frozen=True)
class LavaTarget(ArithmeticTarget):
    """Loihi 2 fixed point."""

    spec: TargetSpec = spec_beside(__file__)
    suffixes: ClassVar[tuple[str, ...]] = (".net",)
    netx: bool = option(False, "use no more of the arithmetic than lava-dl's netx can say, so that --emit can write it")

    def lower(
        self, subject: Graph | Policy, calibration: Calibration | StreamCalibration | None, schedule: Schedule
    ) -> Lowered:
        """A DISCRETE graph or policy in Lava's integers; see `compiler.lower`."""
        if self.netx and self.weight_slices > 1:
            raise NervecordError(
                f"is {self.weight_slices}, and netx has one connection between two layers",
                where="weight_slices",
                hint="leave out netx or weight_slices",
            )
        return self.lowered(subject, calibration, schedule, whole=self.netx)

    def session(self, program: Program, engine: str, *, trace: bool) -> Session:
        """On "lava": the stock processes of lava-nc in their own interpreter, which records the readout at every step
        only where `trace`."""
        if engine == "lava":
            from nervecord.targets.lava.engine_lava import LavaSession

            return LavaSession(program.policy, full_trace=trace)
        return super().session(program, engine, trace=trace)

    def stream_session(self, program: Program, engine: str) -> StreamSession:
        """The same for a program that is no policy."""
        if engine == "lava":
            from nervecord.targets.lava.engine_lava import LavaStream

            return LavaStream(plan(program.graph, program.schedule))
        return super().stream_session(program, engine)

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
        options = "".join(f", {name}={value}" for name, value in arguments.items())
        return (Emitted(path, f"lava.lib.dl.netx.hdf5.Network(net_config={str(path)!r}{options})", arguments),)

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


def _installation(lava_status: environment.LavaStatus) -> Installation:
    about = f"lava-nc {lava_status.lava_version} on Python {lava_status.python_version} in {lava_status.path}"
    if lava_status.shim:
        about += " (with the shim)"
    if not lava_status.installed:
        about = f"{lava_status.problem}; to install it: {environment.INSTALL_COMMAND}"
    details = {
        "path": str(lava_status.path),
        "python": lava_status.python_version,
        "lava": lava_status.lava_version,
        "shim": lava_status.shim,
        "problem": lava_status.problem,
    }
    return Installation("lava", lava_status.installed, about, details)


TARGET = LavaTarget
