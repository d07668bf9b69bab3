"""What users may choose of a target: fields of its dataclass, each declared once with type, bounds and a sentence.

    @dataclass(frozen=True)
    class MyChip:
        weight_bits: int = option(8, "bits of a weight", low=2, high=8)

The command line makes flags of them (`--weight-bits 4`), the Python API keyword arguments (`weight_bits=4`), and both
refuse a value that the declaration does not allow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.target.protocol import Target
from nervecord.errors import NervecordError, unknown_name

Value: TypeAlias = bool | int | float | str

_KEY = "nervecord option"


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that may be chosen.

    Args:
        name: of the field, such as "weight_bits". default: its type is the option's: bool, int, float or str.
        about: what it is, for help.
        low, high: bounds of a number, both included; None where there is none.
        choices: of a text; empty where any text is allowed.
        of: the field of the target's arithmetic that is its default, and its largest value; "" where there is none.
    """

    name: str
    default: Value
    about: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    of: str = ""

    @property
    def flag(self) -> str:
        """As it is typed on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def allowed(self) -> str:
        """The values it takes, in words."""
        if isinstance(self.default, bool):
            return "true or false"
        if self.choices:
            return "one of " + ", ".join(self.choices)
        kind = {int: "an integer", float: "a number", str: "a text"}[type(self.default)]
        if self.low is not None and self.high is not None:
            return f"{kind} from {self.low:g} to {self.high:g}"
        if self.low is not None:
            return f"{kind} of at least {self.low:g}"
        return kind if self.high is None else f"{kind} of at most {self.high:g}"

    def takes(self, value: object) -> bool:
        """Whether the declaration allows this value."""
        if isinstance(value, bool) or isinstance(self.default, bool):
            return type(value) is type(self.default)
        if isinstance(self.default, str):
            return isinstance(value, str) and (not self.choices or value in self.choices)
        if not isinstance(value, int if isinstance(self.default, int) else (int, float)):
            return False
        # A NaN is in no interval.
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high) and value == value

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        data = {**dataclasses.asdict(self), "type": type(self.default).__name__, "choices": list(self.choices)}
        del data["of"]
        return data

    def of_arithmetic(self, arithmetic: Arithmetic | None) -> Option:
        """The option of a target that computes so: its bounds and default are the arithmetic's."""
        if not self.of or arithmetic is None:
            return self
        most = getattr(arithmetic, self.of)
        return dataclasses.replace(self, default=most, low=min(LEAST, most), high=most)


LEAST = 2
"""Of a number of bits that may be chosen: a sign and a value."""


def option(
    default: Value,
    about: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    of: str = "",
) -> Any:
    """A dataclass field that users may choose; see `Option`."""
    declared = {"default": default, "about": about, "low": low, "high": high, "choices": choices, "of": of}
    return dataclasses.field(default=default, kw_only=True, metadata={_KEY: declared})


def options_of(kind: type | Target[Any]) -> tuple[Option, ...]:
    """What may be chosen of a target, in the order of its fields; nothing of a class that is no dataclass.

    Args:
        kind: a target, whose arithmetic then bounds what is of it; or its class.
    """
    if not dataclasses.is_dataclass(kind):
        return ()
    arithmetic = None if isinstance(kind, type) else kind.spec.integers
    declared = (Option(f.name, **f.metadata[_KEY]) for f in dataclasses.fields(kind) if _KEY in f.metadata)
    return tuple(option.of_arithmetic(arithmetic) for option in declared)


def chosen_options(target: Target[Any]) -> dict[str, Value]:
    """The options of a target that are not as its class leaves them."""
    values = {option: getattr(target, option.name) for option in options_of(type(target))}
    return {option.name: value for option, value in values.items() if value != option.default}


def check_options(kind: type | Target[Any], values: Mapping[str, object], *, of: str) -> None:
    """Refuse values that `kind` does not declare or does not allow.

    Args:
        of: whose options they are, for the message: "target 'lava'".

    Raises:
        NervecordError: an option is unknown (the choices are listed), or its value of another type or out of bounds.
    """
    declared = {option.name: option for option in options_of(kind)}
    for name, value in values.items():
        if name not in declared:
            if not declared:
                raise NervecordError(f"{of} has no options", where=name)
            raise unknown_name("option", name, declared, where=of)
        if not declared[name].takes(value):
            raise NervecordError(f"is {value!r}, {of} takes {declared[name].allowed}", where=name)
