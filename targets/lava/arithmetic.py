"""Lava's fixed point as data: the section [arithmetic] of spec.toml."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.target.specfile import read_spec


@cache
def lava_arithmetic() -> Arithmetic:
    """Widths, rounding, overflow and order of lava-nc 0.10.0."""
    arithmetic = read_spec(Path(__file__).with_name("spec.toml")).integers
    assert arithmetic is not None
    return arithmetic
