"""Lets lava-nc 0.10.0 be imported by Python 3.11 and newer. Runs inside Lava's interpreter.

Its `var_model` gives dataclass fields defaults that are dataclass instances; since 3.11 a default has to be hashable.
An instance of a dataclass with `unsafe_hash` is. Nothing that is computed changes.
"""

import dataclasses
import importlib
from typing import Any


def apply() -> None:
    """Import the one module that needs it while dataclasses are hashable; later imports find it done."""
    original = dataclasses.dataclass

    def hashable(cls: Any = None, **options: Any) -> Any:
        options.setdefault("unsafe_hash", True)
        return original(cls, **options)

    dataclasses.dataclass = hashable  # type: ignore[assignment]
    try:
        importlib.import_module("lava.magma.compiler.var_model")
    finally:
        dataclasses.dataclass = original
