"""The one exception family of Nervecord.

Every refusal a user can meet is a `NervecordError`: what is wrong, where, and what to do about it. The command line
prints it as one sentence and exits with 2; a traceback means an internal error (exit 1).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from importlib import metadata
from typing import TYPE_CHECKING, Never

if TYPE_CHECKING:
    from nervecord.compiler.findings import Finding

_LONG_WORD = re.compile(r"\S{301,}")


class NervecordError(Exception):
    """Something about the input is wrong and nothing was done.

    Args:
        message: what is wrong, with the value and its limit.
        where: the file, node, flag or step it concerns; put in front of the message.
        hint: what the user can do about it.
    """

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint
        self.findings: tuple[Finding, ...] = ()
        """What was found, where the refusal is of findings: `code` of each is stable."""

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of its findings, each once."""
        return tuple(dict.fromkeys(finding.code for finding in self.findings))

    def __str__(self) -> str:
        message = cut(_LONG_WORD.sub(lambda word: cut(word[0], LONGEST_WORD), self.message))
        text = f"{one_line(self.where)}: {message}" if self.where else message
        return escaped(f"{text} ({cut(self.hint)})" if self.hint else text)


LONGEST = 8000
"""Characters of one part of a message: where there is more, a file put it there."""
LONGEST_WORD = 300


def cut(text: str, longest: int = LONGEST) -> str:
    """A text, its middle left out where it is too long."""
    if len(text) <= longest:
        return text
    half = longest // 2 - 10
    return f"{text[:half]}... ({len(text)} characters) ...{text[-half:]}"


def one_line(text: str) -> str:
    """A name of a file or node, cut, its line breaks written out."""
    return cut(text, 1000).replace("\n", "\\n")


def escaped(text: str) -> str:
    """Text that may quote a file, with nothing in it that a terminal would obey: `\\x1b` for an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


class FileFormatError(NervecordError, ValueError):
    """A file is damaged, of another kind, or newer than this version reads."""


class GraphError(NervecordError, ValueError):
    """A graph breaks the rules of its level."""


class InfeasibleError(NervecordError, ValueError):
    """A graph is sound, and the target cannot hold or express it."""


class ContractError(NervecordError, ValueError):
    """A policy and the world it is asked to act in do not match."""


class ArgumentError(NervecordError, TypeError):
    """An argument of the Python API is missing, unknown, or of another type than its function takes."""


class MissingDependencyError(NervecordError, ImportError):
    """An optional part of the installation is needed and absent."""


class EngineError(NervecordError, RuntimeError):
    """An engine died, hung, or answered something that is not an answer."""


def install_command(extra: str) -> str:
    """The command that installs what an extra (or several, comma between) brings; "" is the core.

    There is no release yet: what exists is a checkout or a wheel, which the installation remembers (PEP 610).
    """
    from pathlib import Path
    from urllib.parse import unquote, urlparse

    folder = Path(".")
    try:
        origin = json.loads(metadata.distribution("nervecord").read_text("direct_url.json") or "{}")
        found = Path(unquote(urlparse(origin["url"]).path))
        if found.is_file() or ((found / "pyproject.toml").is_file() and found != Path.cwd()):
            folder = found
    except (metadata.PackageNotFoundError, KeyError, ValueError, OSError):
        pass
    return f"pip install '{folder}[{extra}]'" if extra else f"pip install '{folder}'"


def no_case(value: Never, choice: str, where: str) -> InfeasibleError:
    """The error that ends the cases of a declared choice: what has none is refused by name, never computed as another.

    No type is left for its value, so that a value which is declared and has no case is an error of types as well.

    Args:
        value: of the choice. choice: its field. where: the engine or op that reads it.
    """
    return InfeasibleError(f"has no case for {choice} {value!r}", where=where, hint="another engine may have one")


MANY_CHOICES = 50
"""More are not listed in an error."""


def unknown_name(kind: str, name: str, choices: Iterable[str], *, where: str | None = None) -> NervecordError:
    """The error for a name that is none of `choices`: points at the nearest and lists them, of many the nearest ten."""
    known = sorted(choices)
    near = cut(str(name), 200)
    close = difflib.get_close_matches(near, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    shown = known
    if len(known) > MANY_CHOICES:
        shown = difflib.get_close_matches(near, known, n=10, cutoff=0.0)
    more = f" and {len(known) - len(shown)} more" if len(shown) < len(known) else ""
    return NervecordError(f"unknown {kind} {name!r}", where=where, hint=f"{hint}choose from: {', '.join(shown)}{more}")
