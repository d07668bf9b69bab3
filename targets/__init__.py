"""The targets, a folder each. `nervecord.targets()` lists them.

Importing any of them makes Python put this package in the place of the function `nervecord.targets`; so the package can
be called as well.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nervecord.compiler.target import TargetSpec


class _Targets(ModuleType):
    def __call__(self) -> tuple[TargetSpec, ...]:
        """The specs of all targets: limits with their sources."""
        from nervecord.targets.catalogue import load_specs

        return load_specs()


sys.modules[__name__].__class__ = _Targets
