"""A chip that its arithmetic describes: from a user's file, from a package, or known from a program alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nervecord.compiler.files.program import Program
from nervecord.compiler.target.protocol import Emitted
from nervecord.compiler.target.specfile import spec_from_dict
from nervecord.errors import FileFormatError
from nervecord.targets.base import ArithmeticTarget
from nervecord.targets.c.target import CTarget

ENGINES = ("emulator", "definition", "torch", "c")
"""What runs integers of any arithmetic: the compiled loop, the ops' own steps, batches on any device, and the C that
the target c emits."""


@dataclass(frozen=True)
class IntegerTarget(ArithmeticTarget):
    """A chip that computes in integers, its arithmetic as data: all that a file describes, and base of such targets.

    A package that adds one declares a subclass with a spec of its own:

        @dataclass(frozen=True)
        class MyChip(nervecord.IntegerTarget):
            spec: nervecord.TargetSpec = nervecord.spec_beside(__file__)

    Args:
        spec: with an arithmetic; where it names no engines, all that run any arithmetic are its.
        weight_bits: bits of a weight's mantissa; 0: all that the arithmetic has.
        weight_slices: mantissas that make up a weight, 1 or 2.

    Raises:
        FileFormatError: the spec states no arithmetic.
    """

    def __post_init__(self) -> None:
        if self.spec.integers is None:
            raise FileFormatError("states no [arithmetic], so nothing can be computed", where=self.spec.name)
        if not self.spec.engines:
            object.__setattr__(self, "spec", dataclasses.replace(self.spec, engines=ENGINES))

    @classmethod
    def of(cls, program: Program) -> IntegerTarget:
        """What runs a program whose target is not installed: as the file that it was compiled with describes it, or its
        arithmetic alone.

        Raises:
            FileFormatError: what the program says of its target is malformed.
        """
        assert program.graph.arithmetic is not None
        carried: Any = program.report.get("target", {"file": "", "spec": None})
        where = f"the target that the program of {program.target} describes"
        if not isinstance(carried, Mapping) or not isinstance(carried.get("file"), str):
            raise FileFormatError("is malformed", where=where)
        described, file = carried.get("spec"), carried["file"]
        if described is None:
            words = {"summary": "as the program carries it", "source": "the program"}
            described = {"name": program.target, "arithmetic": {**program.graph.arithmetic.to_dict(), **words}}
        elif not isinstance(described, Mapping):
            raise FileFormatError("is malformed", where=where)
        spec = spec_from_dict(described, where=where, file=file or "the program")
        if spec.integers != program.graph.arithmetic or spec.name != program.target:
            raise FileFormatError("is another one than that of its integers", where=where)
        return cls(spec)

    def emit(self, program: Program, folder: Path) -> tuple[Emitted, ...]:
        """The C of its integers, which any controller computes as the chip does; see `targets.c.package`.

        Raises:
            InfeasibleError: an op has no form in C.
        """
        return CTarget().emit(program, folder)
