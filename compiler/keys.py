"""The keys of a file that a user writes: each is declared once, beside the field that it fills.

Reading, templates and documents go by the declarations, so that a key has one meaning, one bound and one default.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nervecord.compiler import schema

UNLIMITED = math.inf
UNLIMITED_WORD = "unlimited"
"""How a file says that there is no limit."""
LARGEST = 2**53
"""No number of a file lies beyond: all are exact as floats."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key.

    Args:
        name: in its section. kind: type of its value: bool, int, float, str, a tuple of one of these, or a Literal.
        about: what it means.
        low, high: bounds of a number, both included. choices: of a text; empty where any is allowed.
        default: what a file means that leaves it out; None: nothing is known then, or it must not be left out.
        like: the key whose value is the default.
        unlimited: whether it may be "unlimited". least: of the values of a list, their number.
    """

    name: str
    kind: Any
    about: str
    low: float = -LARGEST
    high: float = LARGEST
    choices: tuple[str, ...] = ()
    default: bool | float | str | tuple[int, ...] | None = None
    like: str = ""
    unlimited: bool = False
    least: int = 0

    @property
    def needed(self) -> bool:
        """Whether nothing says what a file means that leaves it out."""
        return self.default is None and not self.like

    @property
    def type(self) -> Any:
        """What its value must fit."""
        return self._type(self.kind)

    def _type(self, kind: Any) -> Any:
        if typing.get_origin(kind) is tuple:
            return schema.row(self._type(typing.get_args(kind)[0]), 1000, self.least)
        if kind is int:
            return schema.whole(math.ceil(self.low), math.floor(self.high))
        if kind is float:
            return schema.real(self.low, self.high)
        if kind is str:
            return schema.one_of(self.choices) if self.choices else schema.text(least=1)
        return kind

    def problem(self, value: object) -> str | None:
        """What is wrong with a value of a file; None where nothing is."""
        if self.unlimited and value == UNLIMITED_WORD:
            return None
        if not schema.fits(value, self.type):
            return f"is {schema.printable(repr(value))}, {self.allowed} is needed"
        unprintable = schema.unprintable(value)
        return None if unprintable is None else "the text has characters that cannot be printed"

    @property
    def allowed(self) -> str:
        """The values it takes, in words."""
        words = _words(self.kind, self)
        return f'{words} or "{UNLIMITED_WORD}"' if self.unlimited else words

    @property
    def default_text(self) -> str:
        """What a file means that leaves it out, in words; empty where nothing says it."""
        return f"as `{self.like}`" if self.like else "" if self.default is None else f"`{toml(self.default)}`"


def _words(kind: Any, key: Key) -> str:
    if typing.get_origin(kind) is tuple:
        inner = dataclasses.replace(key, kind=typing.get_args(kind)[0], unlimited=False)
        return f"a list, {f'{key.least} or more, ' * (key.least > 0)}each {inner.allowed}"
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else key.choices
    if choices:
        return "one of " + ", ".join(json.dumps(choice) for choice in choices)
    if kind is bool:
        return "true or false"
    if kind is str:
        return "a text"
    number = "an integer" if kind is int else "a number"
    if key.high < LARGEST:
        return f"{number} from {key.low:,.15g} to {key.high:,.15g}"
    return number if key.low <= -LARGEST else f"{number} of at least {key.low:,.15g}"


def declared(about: str, **how: Any) -> dict[str, Any]:
    """The metadata of a dataclass field that a file fills; see `Key`."""
    return {"about": about, **how}


def key(about: str, **how: Any) -> Any:
    """A dataclass field that a file fills, without a value of its own; see `Key`."""
    return dataclasses.field(metadata=declared(about, **how))


@functools.cache
def keys_of(kind: Any) -> Mapping[str, Key]:
    """Name -> key, of the fields that declare one. Of a field that holds a fact it is the fact's value."""
    hints = typing.get_type_hints(kind)
    keys = {}
    for field in dataclasses.fields(kind):
        if "about" in field.metadata:
            hint = hints[field.name]
            value = typing.get_args(hint)[0] if typing.get_origin(hint) not in (None, tuple, Literal) else hint
            keys[field.name] = Key(**{"name": field.name, "kind": value, **field.metadata})
    return keys


def toml(value: object) -> str:
    """A value as TOML writes it."""
    if value == UNLIMITED:
        return f'"{UNLIMITED_WORD}"'
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def plain(value: object) -> object:
    """A value as JSON and TOML hold it."""
    if value == UNLIMITED:
        return UNLIMITED_WORD
    return list(value) if isinstance(value, tuple) else value


def table_problems(section: str, data: Any, allowed: Sequence[str], needed: Sequence[str] = ()) -> list[str]:
    """What is wrong with the keys of a table, whatever their values are."""
    if not isinstance(data, Mapping):
        return [f"{section}: a table is needed"]
    prefix = f"{section}." if section else ""
    wrong = [
        f"{prefix}{schema.printable(name)}: unknown key (choose from: {', '.join(sorted(allowed))})"
        for name in data
        if name not in allowed
    ]
    return wrong + [f"{prefix}{name}: is missing" for name in needed if name not in data]
