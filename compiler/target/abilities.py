"""What a target may have beside `Target`: protocols that the verbs ask for, one each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.findings import Finding
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops.fields import Array
from nervecord.compiler.plan.calibrate import Calibration, StreamCalibration
from nervecord.compiler.target.protocol import Lowered, Target


@dataclass(frozen=True, slots=True)
class Installation:
    """Whether an engine can run that needs an interpreter of its own.

    Args:
        engine: its name.
        about: what is installed and where; or what is missing, and how to get it.
        details: the same for machines; plain JSON types.
    """

    engine: str
    installed: bool
    about: str
    details: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Emitting(Protocol):
    """What a target has beside `Target` if what it writes for other tools is its purpose."""

    @property
    def emits(self) -> str:
        """What that is, in a word or two."""
        ...


@runtime_checkable
class Needing(Protocol):
    """What a target has beside `Target` if what a program takes there is no matter of cores."""

    def needs(self, program: Any) -> tuple[Mapping[str, int], tuple[tuple[str, str], ...]]:
        """(numbers by name, what and how much in words) of a program of this target."""
        ...


@dataclass(frozen=True, slots=True)
class Survey:
    """What a target finds of a program on the boards that it knows.

    Args:
        data: plain JSON types. rows: (what, how much) in words.
        finding: what speaks against the board that is chosen; None: it holds the program.
    """

    data: Mapping[str, Any]
    rows: tuple[tuple[str, str], ...]
    finding: Finding | None


@runtime_checkable
class Surveying(Protocol):
    """What a target has beside `Target` if boards hold its programs, of which `inspect` says what each has room for."""

    def survey(self, program: Any, observations: Array | None) -> Survey:
        """A program of this target on every board, and on the chosen one in detail.

        Args:
            observations: recorded ones of the policy, (k, n); None: there are none.
        """
        ...


@runtime_checkable
class Installable(Protocol):
    """What a target has beside `Target` if one of its engines must be installed by `nervecord targets install`."""

    def installation(self) -> Installation:
        """What is there; starts nothing."""
        ...

    def install(self, progress: Callable[[str], None], *, python: Path | None, allow_shim: bool) -> Installation:
        """Make the engine's environment, unless it is there.

        Args:
            progress: receives one line at a time, for people.
            python: the interpreter to build on; None looks for one.
            allow_shim: where there is no interpreter of the version that the engine declares, use a newer one with
                changes of ours.
        """
        ...


@runtime_checkable
class Readable(Protocol):
    """What a target has beside `Target` if it reads files of its vendor's tools, told by the ends of their names."""

    suffixes: ClassVar[tuple[str, ...]]
    """Such as ".net"."""

    @classmethod
    def read(cls, path: Path, *, dt: float | None) -> Graph:
        """The graph of a file; dt: seconds per step, where the caller says.

        Raises:
            FileFormatError: the file is missing, damaged, or of another kind.
            InfeasibleError: it says something that has no form here.
        """
        ...


@runtime_checkable
class Adopting(Protocol):
    """What a target has beside `Target` if it takes graphs of integers as they are, in whatever arithmetic."""

    def adopting(self, arithmetic: Arithmetic) -> Target[Any]:
        """The same target with this arithmetic as its spec's. Its `lower` gives such a graph back, with a report.

        Raises:
            NervecordError: an option that was given is of another arithmetic.
        """
        ...

    def lower(
        self, subject: Graph | Policy, calibration: Calibration | StreamCalibration | None, schedule: Schedule
    ) -> Lowered:
        """As of `Target`."""
        ...
