"""How a policy can learn: each algorithm declares itself in a file of this folder, and is found here by its name."""

from __future__ import annotations

import importlib
import pkgutil

from nervecord.training.algorithms.base import Algorithm

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
