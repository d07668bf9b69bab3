"""Constant tables and the members of the state, with the smallest types that hold them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervecord.compiler.ops import Array

WIDTHS = {
    "int8_t": 1,
    "uint8_t": 1,
    "int16_t": 2,
    "uint16_t": 2,
    "int32_t": 4,
    "uint32_t": 4,
    "int64_t": 8,
    "double": 8,
}
"""Bytes of every type that is used."""
_SIGNED = (("int8_t", 7), ("int16_t", 15), ("int32_t", 31), ("int64_t", 63))
_UNSIGNED = (("uint8_t", 8), ("uint16_t", 16), ("uint32_t", 32))
_LINE = 110
INT32 = 1 << 31


def signed(low: int, high: int) -> str:
    """The smallest signed type that holds low..high."""
    return next(name for name, bits in _SIGNED if -(1 << bits) <= low and high < 1 << bits)


def unsigned(high: int) -> str:
    """The smallest unsigned type that holds 0..high."""
    return next(name for name, bits in _UNSIGNED if high < 1 << bits)


def literal(value: int) -> str:
    """A whole number as a constant expression of a type that holds it."""
    if value == -(1 << 63):
        return "INT64_MIN"
    if -INT32 < value < INT32:
        return str(value) if value >= 0 else f"({value})"
    return f"INT64_C({value})" if value >= 0 else f"(-INT64_C({-value}))"


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A constant array. name: without the prefix. about: what it is, for its comment."""

    name: str
    kind: str
    values: Array
    about: str

    @property
    def bytes(self) -> int:
        """What it takes of the flash memory."""
        return WIDTHS[self.kind] * int(self.values.size)

    def declaration(self, prefix: str) -> str:
        """For the header of the tables."""
        return f"extern const {self.kind} {prefix}_{self.name}[{self.values.size}]; /* {self.about} */"

    def definition(self, prefix: str) -> str:
        """The whole array."""
        flat = self.values.ravel()
        if self.kind == "double":
            words = [float(x).hex() for x in flat.tolist()]
        else:
            words = [_word(int(x)) for x in flat.tolist()]
        return f"const {self.kind} {prefix}_{self.name}[{flat.size}] = {{\n{rows(words)}\n}};\n"


def _word(value: int) -> str:
    # -2147483648 is no constant of C, but a sum of them.
    if value == -INT32:
        return "(-2147483647 - 1)"
    return literal(value) if abs(value) > INT32 else str(value)


def rows(words: list[str]) -> str:
    """Words with commas between, in indented lines."""
    lines, line = [], ""
    for word in words:
        if len(line) + len(word) + 2 > _LINE:
            lines.append(f"    {line.rstrip()}")
            line = ""
        line += f"{word}, "
    return "\n".join([*lines, f"    {line.rstrip(', ')}"])


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the state: an array, or one number where count is 0."""

    name: str
    kind: str
    count: int
    about: str

    @property
    def bytes(self) -> int:
        """What it takes of the RAM."""
        return WIDTHS[self.kind] * max(self.count, 1)

    def declaration(self) -> str:
        """A line of the struct."""
        size = f"[{self.count}]" if self.count else ""
        return f"    {self.kind} {self.name}{size}; /* {self.about} */"


def ordered(members: list[Member]) -> list[Member]:
    """Wide types first, so that nothing is padded but the end, which is filled to a multiple of 8 here."""
    largest_first = sorted(members, key=lambda member: -WIDTHS[member.kind])
    total = sum(member.bytes for member in largest_first)
    # Of 8, not of the widest type: a struct of the same size on every machine can be told from another one.
    gap = -total % 8
    return [*largest_first, Member("padding", "uint8_t", gap, "to a multiple of 8 bytes")] if gap else largest_first


def state_dtype(members: list[Member]) -> np.dtype[np.void]:
    """The state as numpy reads it."""
    return np.dtype([(m.name, np.dtype(m.kind.removesuffix("_t")), (m.count,) if m.count else ()) for m in members])
