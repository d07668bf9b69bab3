"""What a target has beside `compiler.target.protocol.Target` if boards hold its programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from nervecord.compiler.findings import Finding
from nervecord.compiler.ops import Array


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
