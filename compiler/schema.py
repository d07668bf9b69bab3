"""What comes from a file passes here: typed, bounded, finite, nothing unknown. The door to msgspec.

A record is a type of msgspec with strict fields; `whole`, `real` and `text` are its bounded values. What does not fit
is one sentence that names the file and the field.
"""

from __future__ import annotations

import functools
import json
import operator
import re
import sys
import tomllib
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from nervecord.errors import FileFormatError, NervecordError, escaped

Field: TypeAlias = tuple[str, Any] | tuple[str, Any, Any]
"""Name, type and, where it may be left out, its value then."""

LARGEST = sys.float_info.max
MOST_WHOLE = 10**18
"""Of an integer that a user gives, as a flag or in a study: products of two still have a float."""
LONGEST_TEXT = 1 << 16
"""Characters of a text."""
LONGEST_MESSAGE = 300
MOST_JSON = 20 << 20
"""Bytes of one JSON text: what is made of it takes up to thirty times as much."""
MOST_LISTS = 1 << 20
"""Lists and objects in one JSON text: an empty one takes twenty times its two bytes."""
NESTED = 64
"""JSON that is nested deeper is refused; how deep Python itself can read differs from version to version."""
TARGET_NAME = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,62}[a-z0-9])?", re.ASCII)
"""Of a target, in its spec and in the programs that were compiled for it."""
TARGET_NAME_RULE = "at most 64 of a to z, 0 to 9, '.', '-' and '_'"
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.?)*+(?:"|\Z)', re.DOTALL)
"""A text, to its end or the file's. Nothing is tried twice: else a text of 20 MB would take 2 GB."""
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

# Reading such keys takes quadratic time: (a.)+ sixty-five deep.
_DEEP_KEY = re.compile(r"""(?<![\w-])(?:(?:"[^"\n]*"|'[^'\n]*'|[\w-]++)[ \t]*+\.[ \t]*+){64}""")


def whole(low: int, high: int) -> Any:
    """The type of an integer in low..high."""
    return Annotated[int, Meta(ge=low, le=high)]


def real(low: float = -LARGEST, high: float = LARGEST, above: float | None = None, below: float | None = None) -> Any:
    """The type of a finite number in low..high, above `above` and below `below`."""
    low, high = max(low, -LARGEST), min(high, LARGEST)
    bounds: dict[str, Any] = {"ge": low} if above is None or above < low else {"gt": above}
    bounds |= {"le": high} if below is None or below > high else {"lt": below}
    return Annotated[float, Meta(**bounds)]


def text(longest: int = LONGEST_TEXT, least: int = 0) -> Any:
    """The type of a text."""
    return Annotated[str, Meta(min_length=least, max_length=longest)]


def one_of(words: tuple[str, ...]) -> Any:
    """The type of one of some words."""
    return Literal[words]


def any_of(kinds: Iterable[Any]) -> Any:
    """The type of any of some; records among them are told apart by their kind."""
    return functools.reduce(operator.or_, kinds)


def pair(kind: Any) -> Any:
    """The type of a list of two."""
    return tuple[kind, kind]


def by_name(kind: Any) -> Any:
    """The type of an object whose values are of one type, whatever their names."""
    return dict[str, kind]


def row(kind: Any, longest: int, least: int = 0) -> Any:
    """The type of a list of values of one type."""
    return Annotated[tuple[kind, ...], Meta(min_length=least, max_length=longest)]


def record(name: str, fields: Iterable[Field], *, kind: str | None = None, closed: bool = True) -> Any:
    """A record type, without unknown fields where it is `closed`.

    `kind` is what its field "kind" says, in a union of records.
    """
    return msgspec.defstruct(
        name,
        list(fields),
        kw_only=True,
        forbid_unknown_fields=closed,
        frozen=True,
        tag=kind,
        tag_field=None if kind is None else "kind",
    )


def kind_of(value: Any) -> str:
    """What the field "kind" of a record said."""
    tag: str = type(value).__struct_config__.tag
    return tag


def checked(data: Any, kind: Any, where: str, error: type[NervecordError] = FileFormatError) -> Any:
    """Plain data (of JSON, TOML) as a value of `kind`.

    Raises:
        error: something is missing, unknown, of another type or out of bounds.
    """
    try:
        return msgspec.convert(data, kind, strict=True)
    except msgspec.ValidationError as wrong:
        raise error(sentence(wrong, data), where=where) from None
    except UnicodeEncodeError:  # half of a surrogate pair, of which JSON makes a text
        raise error("holds a text that is none", where=where) from None
    except RecursionError:
        raise error("is nested too deeply", where=where) from None


def fits(value: Any, kind: Any) -> bool:
    """Whether plain data (of JSON, TOML) is a value of `kind`."""
    try:
        msgspec.convert(value, kind, strict=True)
    except (msgspec.ValidationError, RecursionError):
        return False
    return True


def from_json(content: bytes | str, kind: Any, where: str) -> Any:
    """JSON as a value of `kind`.

    Raises:
        FileFormatError: it is no JSON, or not of that kind; NaN and infinities are no JSON.
    """
    if isinstance(content, str):
        try:
            content = content.encode()
        except UnicodeEncodeError as wrong:
            raise FileFormatError(f"is no JSON: {printable(str(wrong))}", where=where) from None
    if len(content) > MOST_JSON:
        raise FileFormatError(f"has {len(content)} bytes of JSON, at most {MOST_JSON} are read", where=where)
    outline = brackets(content)
    if nesting(outline) > NESTED:
        raise FileFormatError(f"is nested more than {NESTED} deep", where=where)
    if outline.count(b"[") > MOST_LISTS:
        raise FileFormatError(
            f"has {outline.count(b'[')} lists and objects, at most {MOST_LISTS} are read", where=where
        )
    try:
        return checked(msgspec.json.decode(content), kind, where)
    except msgspec.ValidationError as wrong:  # a number that no float holds
        raise FileFormatError(sentence(wrong, None), where=where) from None
    except (msgspec.DecodeError, UnicodeError) as wrong:
        reason = str(wrong).removeprefix("JSON is malformed: ")
        raise FileFormatError(f"is no JSON: {printable(reason)}", where=where) from None


def from_toml(content: str, where: str) -> dict[str, Any]:
    """TOML as plain data.

    Raises:
        FileFormatError: it is none, or nested too deeply.
    """
    if _DEEP_KEY.search(content):
        raise FileFormatError("has a key of more than 64 parts", where=where)
    try:
        return tomllib.loads(content)
    except RecursionError:
        raise FileFormatError("is no TOML that can be read: it is nested too deeply", where=where) from None
    except ValueError as error:  # TOMLDecodeError is one, as is a number of 5000 digits
        raise FileFormatError(f"is no TOML: {printable(str(error))}", where=where) from None


def brackets(content: bytes) -> bytes:
    """The brackets of a JSON text outside of its texts, all of one kind."""
    return _TEXT.sub(b"", content).translate(_ONE_KIND, _NO_BRACKETS)


def nesting(outline: bytes) -> int:
    """How deep `brackets` are nested, or a number beyond `NESTED`; those that are never closed count.

    A pair goes at a time from each, all at the same speed as memory is copied: texts of a hostile file have millions.
    """
    depth = 0
    while b"[]" in outline and depth <= NESTED:
        outline = outline.replace(b"[]", b"")
        depth += 1
    return depth + outline.count(b"[")


def sentence(wrong: Exception, data: Any) -> str:
    """msgspec's message, its place in front and the value behind: "steps: expected int <= 10, got 12"."""
    reason, _, path = str(wrong).partition(" - at `$")
    path = path.rstrip("`")
    if field := re.fullmatch(r"Object missing required field `(.*)`", reason, re.DOTALL):
        reason = f"field {field[1]!r} is missing"
    elif field := re.fullmatch(r"Object contains unknown field `(.*)`", reason, re.DOTALL):
        reason = f"unknown field {field[1]!r}"
    elif word := re.fullmatch(r"Invalid (?:enum )?value (.*)", reason, re.DOTALL):
        reason = f"{word[1]} is unknown"
    else:
        reason = reason[:1].lower() + reason[1:].replace("`", "")
        if "got" not in reason:
            reason += _value_at(data, path)
    place = path.lstrip(".")
    return printable(f"{place}: {reason}" if place else reason)


def _value_at(data: Any, path: str) -> str:
    """The value that msgspec's path leads to, for a message; empty where it leads nowhere."""
    for key, index in re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", path):
        try:
            data = data[key] if key else data[int(index)]
        except (KeyError, IndexError, TypeError):
            return ""
    # An integer may have any number of digits.
    if isinstance(data, float) or (type(data) is int and abs(data) < 1 << 64):
        return f", got {data!r}"
    if isinstance(data, (str, list)):
        return f", got a length of {len(data)}"
    return ""


def printable(message: str) -> str:
    """A message that may quote a file: short, on one line, nothing in it that a terminal would obey."""
    if len(message) > LONGEST_MESSAGE:
        message = message[:LONGEST_MESSAGE] + "..."
    return escaped(message).replace("\n", "\\n")


def is_plain(content: bytes) -> bool:
    """Whether a JSON text is printable as it stands, without an escape: then so is each text in it."""
    return content.isascii() and b"\\" not in content and content.decode().isprintable()


def unprintable(data: Any) -> str | None:
    """The first text in plain data, keys included, that cannot be printed; None where all can."""
    left = [data]
    while left:
        value = left.pop()
        if isinstance(value, str) and not value.isprintable():
            return value
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, (list, tuple)):
            left += value
    return None


def canonical(data: Any) -> bytes:
    """JSON with sorted keys and no spaces: the same data, the same bytes.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
