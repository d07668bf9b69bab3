"""Names that nothing has yet, of nodes, tensors and identifiers: deterministic, from the name that was wanted."""

from __future__ import annotations

from collections.abc import Container, Iterable


def unused(name: str, taken: Container[str], sign: str = "'") -> str:
    """The name, with as many signs behind it as it takes until nothing has it."""
    while name in taken:
        name += sign
    return name


def fresh(name: str, taken: set[str], sign: str = "'") -> str:
    """The same, taken from now on."""
    name = unused(name, taken, sign)
    taken.add(name)
    return name


class Names:
    """Names that are given out, each once: where one is taken, a number follows it, from 2 on.

    Args:
        taken: names that something has. sign: between name and number.
    """

    def __init__(self, taken: Iterable[str] = (), sign: str = "") -> None:
        self._taken = set(taken)
        self._sign = sign
        self._next: dict[str, int] = {}

    def take(self, name: str) -> None:
        """Give this name to nothing else."""
        self._taken.add(name)

    def fresh(self, base: str) -> str:
        """The name, or the first of it with a number that is not taken; taken from now on."""
        name = base
        # From where the last search for it ended: else many of one name would take quadratic time.
        number = self._next.get(base, 2)
        while name in self._taken:
            name = f"{base}{self._sign}{number}"
            number += 1
        self._next[base] = number
        self.take(name)
        return name
