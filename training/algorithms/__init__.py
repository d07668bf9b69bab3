"""How a policy can learn: each algorithm declares itself in a file of this folder, and is found here by its name."""

from __future__ import annotations

import importlib
import pkgutil

from nervecord.training.algorithms.base import Algorithm, Asset
from nervecord.training.fields import flag_name

DEFAULT = "ppo"
"""What trains where nobody says."""


def _declared() -> dict[str, type[Algorithm]]:
    """The algorithms that the files of this folder declare: classes with a name of their own."""
    algorithms: dict[str, type[Algorithm]] = {}
    for module in pkgutil.iter_modules(__path__):
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Algorithm) and "name" in vars(value):
                algorithms[value.name] = value
    return dict(sorted(algorithms.items(), key=lambda item: (item[0] != DEFAULT, item[0])))


ALGORITHMS = _declared()
"""By name, the default first."""


def of_verb(verb: str) -> list[type[Algorithm]]:
    """The algorithms that a verb of the command line trains with, its default (of its name, or `DEFAULT`) first."""
    kinds = [kind for kind in ALGORITHMS.values() if kind.verb == verb]
    return sorted(kinds, key=lambda kind: kind.name not in (verb, DEFAULT))


def holders(assets: frozenset[Asset]) -> list[str]:
    """Names of the algorithms whose runs hold these assets."""
    return [name for name, kind in ALGORITHMS.items() if assets <= kind.assets]


def starts_from(assets: frozenset[Asset]) -> list[str]:
    """Commands that start a training from a run that holds these assets."""
    able = [(kind, source) for kind in ALGORITHMS.values() for source in kind.sources if source.assets <= assets]
    words = []
    for kind, source in able:
        run = "RUN" if source.field == kind.positional else f"{flag_name(source.field)} RUN"
        algorithm = "" if kind is of_verb(kind.verb)[0] else f"--algorithm {kind.name} "
        words.append(f"nervecord {kind.verb} {algorithm}{run}")
    return list(dict.fromkeys(words))
