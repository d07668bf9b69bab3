"""Fields of a configuration: a default, a help text, bounds. Flags, checks and documents are loops over them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar

from nervecord.compiler.schema import MOST_WHOLE, checked, real, row, text, whole
from nervecord.errors import NervecordError, unknown_name

LONGEST_SHOWN = 80
"""Letters of a value in an error."""
MOST_ITEMS = 1000
"""Layers, wrappers."""
MOST_WIDTH = 1 << 20
"""Neurons of a layer."""
MOST_ENVS = 1 << 20
"""Environments stepped together, and steps of each in a rollout."""


def flag(default: Any, about: str, **bounds: Any) -> Any:
    """A field with its default, the help text of its flag, and its bounds.

    Bounds: `choices`, `least`, `most`, `above` and `below` (exclusive); of a tuple `least` is that of each item, and
    `items` the least number of them. `needs` is a field and the value without which this one has no meaning. `free`
    marks what does not decide what is learnt, `resumable` what `--resume` may change, `naming` what tells a run from
    others of the same cell of a study.
    """
    return field(default=default, metadata={"help": about, **bounds})


def with_default(kind: type[Part], name: str, default: Any) -> Any:
    """A field of another part again, with another default."""
    (again,) = (f for f in dataclasses.fields(kind) if f.name == name)  # type: ignore[arg-type]  # it is a dataclass
    return field(default=default, metadata=again.metadata)


def flag_name(name: str) -> str:
    """The flag of a field."""
    return "--" + name.replace("_", "-")


def value_type(f: dataclasses.Field[Any]) -> Any:
    """The type that a field's values have, bounds included (`nervecord.compiler.schema`)."""
    default, bounds = f.default, f.metadata
    least, most = bounds.get("least"), bounds.get("most")
    if isinstance(default, bool):
        return bool
    if isinstance(default, int):
        return whole(-MOST_WHOLE if least is None else least, MOST_WHOLE if most is None else most)
    if isinstance(default, float):
        below = bounds.get("below")
        high = math.inf if most is None else most
        return real(-math.inf if least is None else least, high, above=bounds.get("above"), below=below)
    if isinstance(default, tuple):
        return row(text() if least is None else whole(least, MOST_WIDTH), MOST_ITEMS, bounds.get("items", 0))
    return text()


def _checked(part: Part, f: dataclasses.Field[Any]) -> Any:
    """The value of a field, of its type: an int becomes the float that is needed, a list a tuple.

    Raises:
        NervecordError: it is of another type, out of its bounds, or none of its choices.
    """
    where, choices = part.spelled(f.name), f.metadata.get("choices")
    value = checked(getattr(part, f.name), value_type(f), where, NervecordError)
    if choices is not None and value not in choices:
        raise unknown_name(f.name, value, choices, where=where)
    return value


def _check_needed(part: Part, f: dataclasses.Field[Any]) -> None:
    """Refuse a value other than the default where the field that gives it a meaning has another value."""
    if "needs" not in f.metadata or getattr(part, f.name) == f.default:
        return
    name, value = f.metadata["needs"]
    actual = getattr(part, name)
    if actual != value:
        hint = f"drop it, or use {_as_flag(name, value)}"
        raise NervecordError(f"has no meaning with {_as_flag(name, actual)}", where=flag_name(f.name), hint=hint)


def lapsed(kind: type[Part], values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults of the fields of `values` that have no meaning any more after `changes`, which do not name them."""
    after = {**values, **changes}
    defaults: dict[str, Any] = {}
    for f in dataclasses.fields(kind):  # type: ignore[arg-type]  # a Part is always a dataclass
        name, value = f.metadata.get("needs", ("", None))
        if name in after and after[name] != value and f.name in values and f.name not in changes:
            # What needs this one comes after it.
            after[f.name] = defaults[f.name] = f.default
    return defaults


def value_text(value: Any) -> str:
    """A value in an error; of one that a file may have made long, its beginning."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return "a very large number"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _as_flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return flag_name(name if value else f"no_{name}")
    return f"{flag_name(name)} {value}"


class Part:
    """A part of the configuration: a frozen dataclass whose fields are flags."""

    __slots__ = ()

    positional: ClassVar[str] = ""
    """The field that the verb of the command line takes as its argument, without a flag."""

    @classmethod
    def spelled(cls, name: str) -> str:
        """A field as users write it: its flag, or the name of the verb's argument."""
        return name if name == cls.positional else flag_name(name)

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):  # type: ignore[arg-type]  # a Part is always a dataclass
            object.__setattr__(self, f.name, _checked(self, f))
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            _check_needed(self, f)
        self._check_together()

    def _check_together(self) -> None:
        """Refuse fields that contradict each other."""

    def to_dict(self) -> dict[str, Any]:
        """Field names and values, as JSON types."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
