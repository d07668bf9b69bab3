"""Names and comments in C, made of names that a file brought: nothing of theirs can end a comment or a line."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nervecord.compiler.graph.names import Names
from nervecord.errors import NervecordError

LONGEST = 24
"""Characters of an identifier that are taken from a node's name; C99 tells 31 apart."""
LONGEST_PREFIX = 24
_PREFIX = re.compile(rf"[a-z][a-z0-9_]{{0,{LONGEST_PREFIX - 1}}}", re.ASCII)
_KEYWORDS = frozenset(
    {
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
        "bool",
        "catch",
        "class",
        "delete",
        "false",
        "friend",
        "namespace",
        "new",
        "operator",
        "private",
        "protected",
        "public",
        "template",
        "this",
        "throw",
        "true",
        "try",
        "using",
        "virtual",
    }
)
"""Of C99 and, since the header serves both, of C++."""
_OURS = frozenset(
    {
        "cell",
        "clamp",
        "clear",
        "decode",
        "enter",
        "fail",
        "floored",
        "keep",
        "larger",
        "levels",
        "left",
        "limited",
        "lose",
        "nearest",
        "product",
        "rows",
        "scaled",
        "shift",
        "smaller",
        "wrap",
    }
)
"""First words of the functions' names in the source."""


def checked_prefix(prefix: str) -> str:
    """The prefix of all names and files.

    Raises:
        NervecordError: it is no identifier of C.
    """
    if not _PREFIX.fullmatch(prefix) or prefix in _KEYWORDS or prefix.split("_")[0] in _OURS or prefix[-1] == "_":
        raise NervecordError(
            f"{prefix!r} is no prefix of names in C",
            where="prefix",
            hint=f"at most {LONGEST_PREFIX} of a to z, 0 to 9 and _, a letter first and no _ last; no keyword, and no "
            f"first word of {', '.join(sorted(_OURS))}",
        )
    return prefix


def identifiers(names: Iterable[str]) -> dict[str, str]:
    """Name -> identifier, each another one; what C does not take becomes _."""
    result: dict[str, str] = {}
    fresh = Names(sign="_").fresh
    for name in names:
        start = re.sub(r"[^A-Za-z0-9]+", "_", name)[:LONGEST].strip("_").lower() or "node"
        if not start[0].isalpha():
            start = f"n{start}"
        result[name] = fresh(start)
    return result


def quoted(text: str, more: str = "") -> str:
    """A name as a comment or a document may hold it: letters, digits and a few signs, the others as ?.

    Args:
        more: signs that are kept too; a comment in C must not have a slash.
    """
    return re.sub(rf"[^A-Za-z0-9 ._+:@{re.escape(more)}-]", "?", text)[:80]


def bare(text: str) -> str:
    """An expression without parentheses around the whole; a cast stays."""
    if not (text.startswith("(") and text.endswith(")")) or re.match(r"\((int(32|64)_t|double)\)", text):
        return text
    depth = 0
    for k, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth == 0 and k < len(text) - 1:
            return text
    return text[1:-1]
