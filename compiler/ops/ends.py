"""Where values enter and leave a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.body.trace import Tracer, Value
from nervecord.compiler.ops import fields
from nervecord.compiler.ops.fields import Array, Shape
from nervecord.compiler.ops.hostop import HostOp
from nervecord.compiler.ops.level import EVERY_LEVEL, Level
from nervecord.compiler.ops.nirnode import Fields
from nervecord.compiler.ops.op import NirForm, Op, Role
from nervecord.errors import no_case

Carried: TypeAlias = Literal["unknown", "spikes", "values"]


@dataclass(frozen=True, slots=True, eq=False)
class Input(HostOp):
    """Where values enter: y = x, clipped to -limit..limit where there is a limit.

    What enters is not known from the network alone, and integers need to know it: `carries` says "spikes" (0 or 1) or
    "values"; "unknown" until somebody has said it.
    """

    shape: Shape = fields.shape("shape of what enters, without the batch")
    carries: Carried = fields.choice("what enters", get_args(Carried), "unknown")
    limit: float | None = fields.number("values are clipped to -limit..limit", None, above=0)

    ROLE: ClassVar[Role] = "input"
    LEVELS: ClassVar[frozenset[Level]] = EVERY_LEVEL
    NIR: ClassVar[tuple[str, ...]] = ("Input",)

    @property
    def in_shape(self) -> Shape:
        return self.shape

    @property
    def spikes(self) -> bool:
        match self.carries:
            case "spikes":
                return True
            case "values" | "unknown":
                return False
            case other:
                raise no_case(other, "carries", self.label)

    @property
    def bound(self) -> float | None:
        return 1.0 if self.spikes else self.limit

    @property
    def sends(self) -> tuple[Array, Array] | None:
        most = self.bound
        if most is None:
            return None
        high = np.full(self.size, int(most), dtype=np.int64)
        return (np.zeros_like(high) if self.spikes else -high), high

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        if self.limit is None or self.spikes:
            return do.x
        return do.clip(do.x, do.constant("low", -self.limit), do.constant("high", self.limit))

    @classmethod
    def from_nir(cls, nir_fields: Fields, fed: Shape | None) -> Op:
        return cls(nir_fields.shape("shape"), origin=nir_fields.origin)

    def to_nir(self, dt: float, name: str) -> NirForm:
        return "Input", {"shape": np.array(self.shape)}


@dataclass(frozen=True, slots=True, eq=False)
class Output(HostOp):
    """Where values leave: y = x."""

    shape: Shape = fields.shape("shape of what leaves, without the batch")

    ROLE: ClassVar[Role] = "output"
    LEVELS: ClassVar[frozenset[Level]] = EVERY_LEVEL
    NIR: ClassVar[tuple[str, ...]] = ("Output",)

    @property
    def in_shape(self) -> Shape:
        return self.shape

    @classmethod
    def from_nir(cls, nir_fields: Fields, fed: Shape | None) -> Op:
        shape = nir_fields.shape("shape") if nir_fields.has("shape") else nir_fields.fed(fed)
        return cls(shape, origin=nir_fields.origin)

    def to_nir(self, dt: float, name: str) -> NirForm:
        return "Output", {"shape": np.array(self.shape)}
