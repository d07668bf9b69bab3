"""The targets there are, each found by its name, and those that a file describes.

A name stands for a folder of this package with a `spec.toml`, or for an entry point of the group `nervecord.targets`
of any installed package. A folder whose `target.py` names a class `TARGET` compiles and runs; the others are
inspected. Nothing else is ever imported: a program names its target, and the name is only looked up here.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, cast

from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy, parts
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops import Level
from nervecord.compiler.plan.calibrate import Calibration, StreamCalibration
from nervecord.compiler.target.abilities import Readable
from nervecord.compiler.target.options import check_options
from nervecord.compiler.target.protocol import Emitted, Lowered, Target, TargetSpec
from nervecord.compiler.target.specfile import read_spec
from nervecord.errors import FileFormatError, NervecordError, unknown_name
from nervecord.runtime.session import Session
from nervecord.runtime.stream import StreamSession
from nervecord.targets.integers import IntegerTarget

GROUP = "nervecord.targets"
"""Of the entry points by which an installed package adds a target: name = "module:Class"."""
SPEC_FILE = "spec.toml"
TARGET_FILE = "target.py"
DEFAULT = "lava"
"""What is compiled for where nobody says."""
FLOAT = "reference"
"""What runs a policy as it was trained."""

AnyTarget: TypeAlias = Target[Session]

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class InspectedTarget:
    """A target that is limits and nothing else: nothing compiles for it."""

    spec: TargetSpec

    def lower(
        self, subject: Graph | Policy, calibration: Calibration | StreamCalibration | None, schedule: Schedule
    ) -> Lowered:
        """Refused."""
        self.refuse()

    def open(self, program: Program, *, engine: str | None = None, trace: bool = True) -> Session:
        """Refused."""
        self.refuse()

    def stream(self, program: Program, *, engine: str | None = None) -> StreamSession:
        """Refused."""
        self.refuse()

    def emit(self, program: Program, folder: Path) -> tuple[Emitted, ...]:
        """Refused."""
        self.refuse()

    def refuse(self) -> NoReturn:
        """Say that it is only inspected, and which targets compile."""
        raise NervecordError(
            f"target {self.spec.name!r} is inspected only, nothing compiles for it",
            hint=f"these compile: {', '.join(compiling_names())}; nervecord inspect takes it",
        )


# --------------------------------------------------------------------------------------------------------------------
# By name


def target_names() -> tuple[str, ...]:
    """All names: the float target, those that compile, those that are inspected, then what was installed."""
    names = sorted(_folders(), key=lambda name: (name != FLOAT, not _compiles(name), name))
    return (*names, *(name for name in sorted(_declared()) if name not in names))


def compiling_names() -> tuple[str, ...]:
    """Names of what compiles and runs, as far as can be told without importing it."""
    folders = _folders()
    return tuple(name for name in target_names() if name not in folders or _compiles(name))


def target_class(name: str) -> type[AnyTarget]:
    """The class of a target.

    Raises:
        NervecordError: there is no such target (the choices are listed, and the nearest one), two packages declare it,
            or the package that does cannot be loaded.
    """
    folders, declared = _folders(), _declared()
    if name not in folders and name not in declared:
        raise unknown_name("target", name, (*folders, *declared))
    packages = [*(["nervecord"] if name in folders else []), *(_package(entry) for entry in declared.get(name, ()))]
    if len(packages) > 1:
        raise NervecordError(
            f"is declared by {' and by '.join(packages)}", where=f"target {name!r}", hint="uninstall all but one"
        )
    if name in folders:
        if not _compiles(name):
            return InspectedTarget
        # A folder of this package, found above: not a name that a file brought.
        kind: type[AnyTarget] = importlib.import_module(f"nervecord.targets.{name}.target").TARGET
        return kind
    return _load(declared[name][0])


def find_target(
    name: str, *, limits: Mapping[str, float] | None = None, options: Mapping[str, object] | None = None
) -> AnyTarget:
    """A target by name.

    Args:
        limits: limit -> the user's own number, in place of one that is not exact.
        options: option -> value; see `options_of(target_class(name))`.

    Raises:
        NervecordError: see `target_class`, `check_options` and `TargetSpec.override`.
    """
    kind: Any = target_class(name)
    target: AnyTarget = InspectedTarget(read_spec(_HERE / name / SPEC_FILE)) if kind is InspectedTarget else kind()
    return with_limits(_with_options(target, options), limits)


def _with_options(target: AnyTarget, options: Mapping[str, object] | None) -> AnyTarget:
    """The target with options of the user's own."""
    check_options(target, options or {}, of=f"target {target.spec.name!r}")
    if not options:
        return target
    any_target: Any = target
    # Made anew, not copied: what a class makes of its options, such as another spec, it makes of these.
    changed: AnyTarget = dataclasses.replace(any_target, **options)
    return changed


def with_limits(target: AnyTarget, limits: Mapping[str, float] | None) -> AnyTarget:
    """The target with limits of the user's own."""
    if not limits:
        return target
    any_target: Any = target
    changed: AnyTarget = dataclasses.replace(any_target, spec=target.spec.override(**limits))
    return changed


def load_spec(name: str) -> TargetSpec:
    """The spec of a target; one of this package is read without importing what compiles for it.

    Raises:
        NervecordError: see `target_class`.
        FileFormatError: its spec.toml is damaged.
    """
    return load_specs((name,))[0]


def load_specs(names: tuple[str, ...] | None = None) -> tuple[TargetSpec, ...]:
    """The specs of these targets, in this order; of all targets by default.

    Raises:
        NervecordError: one of the names is unknown.
    """
    # The installed packages are searched once for all names: it takes longer than reading a spec.
    ours = set(_folders()) - set(_declared())
    return tuple(
        read_spec(_HERE / name / SPEC_FILE) if name in ours else find_target(name).spec
        for name in (target_names() if names is None else names)
    )


def inspected_targets(
    named: Sequence[str | AnyTarget | TargetSpec] | None, subject: Graph | Policy, own: AnyTarget | None
) -> list[AnyTarget | TargetSpec]:
    """What a graph is inspected for.

    Args:
        named: names, targets and specs; None: all targets that are installed, and `own`.
        own: what runs the program that is inspected; it is known by its name too.
    """
    mine = {} if own is None or own.spec.name in target_names() else {own.spec.name: own}
    # A graph of integers may be one that a target adopts, which its spec alone does not say.
    find: Any = find_target if parts(subject)[0].level is Level.INTEGER else load_spec
    chosen = (*target_names(), *mine) if named is None else named
    return [mine.get(it) or find(it) if isinstance(it, str) else it for it in chosen]


# --------------------------------------------------------------------------------------------------------------------
# By file


def reader(path: Path) -> type[Readable] | None:
    """What reads a file of this name for a target of this package; None where no target does."""
    for name in _folders():
        kind: Any = target_class(name) if _compiles(name) else None
        if kind is not None and path.suffix in getattr(kind, "suffixes", ()):
            return cast(type[Readable], kind)
    return None


def target_of_arithmetic(graph: Graph) -> str:
    """The target that a graph runs on as it is: that of its integers, where one computes so; else the float one."""
    if graph.arithmetic is None:
        return FLOAT
    names = (name for name in _folders() if _compiles(name) and load_spec(name).integers == graph.arithmetic)
    return min(names, key=lambda name: (name != DEFAULT, name), default=FLOAT)


def target_from_file(
    path: Path, *, limits: Mapping[str, float] | None = None, options: Mapping[str, object] | None = None
) -> AnyTarget:
    """A target that a file describes; docs/own-chip.md lists its keys.

    With a section [arithmetic] it compiles, and runs on the engines of `IntegerTarget`; without one it is inspected.

    Args:
        limits, options: see `find_target`.

    Raises:
        FileFormatError: see `read_spec`; it takes the name of an installed target, or names engines.
        NervecordError: see `check_options` and `TargetSpec.override`.
    """
    spec = read_spec(path, own=True)
    if spec.name in target_names():
        raise FileFormatError(
            f"calls itself {spec.name!r}, which is an installed target", where=str(path), hint="give it another name"
        )
    if spec.engines:
        raise FileFormatError(
            f"engines: {', '.join(spec.engines)} cannot come with a file", where=str(path), hint="leave engines out"
        )
    target: AnyTarget = InspectedTarget(spec) if spec.integers is None else IntegerTarget(spec)
    return with_limits(_with_options(target, options), limits)


def runner(program: Program) -> AnyTarget:
    """What runs a program: its target, or where that is not installed, what the program itself says of it.

    Raises:
        NervecordError: neither is there.
    """
    if program.target in compiling_names() or program.graph.arithmetic is None:
        return find_target(program.target)
    return cast(AnyTarget, IntegerTarget.of(program))


# --------------------------------------------------------------------------------------------------------------------
# What is installed


def _folders() -> tuple[str, ...]:
    return tuple(sorted(path.parent.name for path in _HERE.glob(f"*/{SPEC_FILE}")))


def _compiles(folder: str) -> bool:
    return (_HERE / folder / TARGET_FILE).is_file()


def _declared() -> dict[str, list[metadata.EntryPoint]]:
    """Name -> entry points of that name; more than one where packages disagree."""
    folders = tuple(path or os.curdir for path in sys.path)
    return _entry_points(tuple((path, os.stat(path).st_mtime_ns) for path in folders if os.path.isdir(path)))


@functools.lru_cache(maxsize=1)
def _entry_points(folders: tuple[tuple[str, int], ...]) -> dict[str, list[metadata.EntryPoint]]:
    """The same, read again where a package was installed since: all of an environment's take 30 ms."""
    entries: dict[str, list[metadata.EntryPoint]] = {}
    for entry in metadata.entry_points(group=GROUP):
        entries.setdefault(entry.name, []).append(entry)
    return entries


def _package(entry: metadata.EntryPoint) -> str:
    return "a package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _load(entry: metadata.EntryPoint) -> type[AnyTarget]:
    """The class an entry point leads to.

    The package is the user's, not ours: whatever goes wrong in it is said with its name.
    """
    where = f"target {entry.name!r} of {_package(entry)}"
    try:
        kind: Any = entry.load()
        target = kind()
    except Exception as error:
        raise NervecordError(
            f"cannot be loaded: {type(error).__name__}: {error}",
            where=where,
            hint="uninstall that package, or name the targets that are meant",
        ) from error
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(target, Target)):
        raise NervecordError(
            f"{entry.value} is no target", where=where, hint="it must be a dataclass that keeps nervecord.Target"
        )
    if target.spec.name != entry.name:
        raise NervecordError(f"its spec calls it {target.spec.name!r}", where=where, hint="the two must agree")
    return cast(type[AnyTarget], kind)


def chosen_target(
    choice: str | Target[Any] | None, limits: Mapping[str, float] | None, options: Mapping[str, Any]
) -> Target[Any]:
    """The target that a caller named or brought; None: the default one.

    Raises:
        NervecordError: there is no such target, option or limit, or a target has options already.
    """
    if choice is None or isinstance(choice, str):
        return find_target(DEFAULT if choice is None else choice, limits=limits, options=options)
    if options:
        raise NervecordError("the target has its options already", where=next(iter(options)))
    return with_limits(choice, limits)
