"""The targets there are: the folders of this package that hold a spec.toml."""

from __future__ import annotations

from pathlib import Path

from nervecord.compiler.specfile import read_spec
from nervecord.compiler.target import TargetSpec
from nervecord.errors import unknown_name

SPEC_FILE = "spec.toml"
_HERE = Path(__file__).parent
_FIRST = ("reference", "lava")
"""The targets that compile come first in lists."""


def target_names() -> tuple[str, ...]:
    """Names of all targets: those that compile, then those that are inspected only, by name."""
    found = sorted(path.parent.name for path in _HERE.glob(f"*/{SPEC_FILE}"))
    return tuple(sorted(found, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)))


def load_spec(name: str) -> TargetSpec:
    """The spec of a target.

    Raises:
        NervecordError: there is no such target; the message lists the choices and the nearest one.
        FileFormatError: its spec.toml is damaged.
    """
    names = target_names()
    if name not in names:
        raise unknown_name("target", name, names)
    return read_spec(_HERE / name / SPEC_FILE)


def load_specs(names: tuple[str, ...] | None = None) -> tuple[TargetSpec, ...]:
    """The specs of these targets, in this order; of all targets by default.

    Raises:
        NervecordError: one of the names is unknown.
    """
    return tuple(load_spec(name) for name in (target_names() if names is None else names))
