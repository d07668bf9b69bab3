"""What all nodes share: a frozen value of scalars and read-only arrays."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """What all nodes share: `origin`, the names their maker used, kept through fusions; errors speak in those names."""

    origin: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)

    ARRAYS: ClassVar[tuple[str, ...]] = ()
    """Names of the array fields."""
    DTYPE: ClassVar[type] = np.float64
    """What they are stored in."""

    def __post_init__(self) -> None:
        for name in type(self).ARRAYS:
            value = getattr(self, name)
            if value is not None:
                array: Array = np.array(value, dtype=type(self).DTYPE, order="C")
                array.setflags(write=False)
                object.__setattr__(self, name, array)

    @property
    def kind(self) -> str:
        """The type's name, as findings and text dumps print it."""
        return type(self).__name__

    @property
    def in_shape(self) -> Shape:
        """Shape of x, without the batch."""
        raise TypeError(f"{self.kind} declares no input shape")

    @property
    def out_shape(self) -> Shape:
        """Shape of y, without the batch."""
        return self.in_shape

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))

    __hash__ = None  # type: ignore[assignment]  # nodes hold arrays; key by name instead


@dataclass(frozen=True, slots=True, eq=False)
class Population(Node):
    """A node that maps a shape to itself, elementwise; its first array field has that shape."""

    @property
    def in_shape(self) -> Shape:
        return tuple(getattr(self, type(self).ARRAYS[0]).shape)


def _same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return type(a) is type(b) and a == b
