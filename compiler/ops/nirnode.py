"""The fields of one NIR node as a file gives them, each taken with its type checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nervecord.compiler.ops.fields import Array, Shape
from nervecord.errors import FileFormatError

MOST_REPEATED = 1 << 22
"""Values that the scalars of one file may stand for together: a file of a few bytes must not ask for gigabytes."""

MOST_AXES = 64
"""Whole numbers in one field: sizes, strides and the like."""


class Repeats:
    """Counts the values that a file's scalars are repeated to."""

    def __init__(self) -> None:
        self.left = MOST_REPEATED


class Fields:
    """Takes fields out of a node's group; errors name the file, the node and the field.

    Args:
        values: the node's group.
        name: the node's name.
        where: the file's name.
        repeats: what is left of the file's allowance; None gives the node one of its own.
    """

    def __init__(self, values: Mapping[str, Any], name: str, where: str, repeats: Repeats | None = None) -> None:
        self._values = values
        self._taken = {"type", "metadata"}
        self._repeats = repeats or Repeats()
        self._where = f"{where}: node {name!r}"
        self.type: str = values["type"]
        self.origin = (name,)

    def error(self, message: str, hint: str | None = None) -> FileFormatError:
        """The error to raise about this node."""
        text = f"{self.type}: {message}".replace("\n", "\\n")  # the type may be anything
        return FileFormatError(text, where=self._where, hint=hint)

    def has(self, field: str) -> bool:
        """Whether the file gives this field."""
        return field in self._values

    def present(self, field: str) -> bool:
        """Whether the file gives it a value; an empty list, which some tools write for None, is none."""
        value = self._take(field)
        return not (isinstance(value, np.ndarray) and value.size == 0)

    def done(self) -> None:
        """Refuse fields nobody took: they mean something that would be lost."""
        unread = sorted(set(self._values) - self._taken)
        if unread:
            raise self.error(f"field {unread[0]!r} is unknown", "the file is newer than NIR 1.0.8, or edited")

    def array(self, field: str, axes: int | None = None) -> Array:
        """Numbers as float64, of any shape or of `axes` axes."""
        value = self._numbers(field).astype(np.float64)
        if axes is not None and value.ndim != axes:
            raise self.error(f"{field} has shape {value.shape}, {axes} axes are needed")
        return value

    def rounding(self, field: str) -> float:
        """The unit of rounding of the type the field is stored in; 0 for integers."""
        dtype = self._numbers(field).dtype
        return float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0

    def text(self, field: str) -> str | None:
        """The field where it is text, None where it is not."""
        value = self._take(field)
        return value if isinstance(value, str) else None

    def integer(self, field: str, least: int | None = None) -> int:
        """One integer, at least `least`."""
        values = self._integers(field, least)
        if len(values) != 1:
            raise self.error(f"{field} has {len(values)} values, one is needed")
        return values[0]

    def sizes(self, field: str, axes: int, least: int) -> Shape:
        """An integer for each axis; a single one stands for all."""
        values = self._integers(field, least)
        if len(values) not in (1, axes):
            needed = "one is" if axes == 1 else f"1 or {axes} are"
            raise self.error(f"{field} has {len(values)} values, {needed} needed")
        return tuple(values * axes if len(values) == 1 else values)

    def shape(self, field: str) -> Shape:
        """A shape without the batch: at least one axis."""
        values = self._integers(field, 1)
        if not values:
            raise self.error(f"{field} is empty, a shape has at least one axis")
        return tuple(values)

    def fed(self, shape: Shape | None, axes: int | None = None) -> Shape:
        """The shape that feeds the node, for what the file leaves to it."""
        if shape is None:
            raise self.error("its shape stands neither in the file nor can it be taken from what feeds it")
        if axes is not None and len(shape) != axes:
            raise self.error(f"is fed shape {shape}, {axes} axes are needed")
        return shape

    def elementwise(
        self, names: Mapping[str, str], fed: Shape | None, defaults: Mapping[str, float] | None = None
    ) -> dict[str, Array]:
        """Parameters of one shape, as a population has them.

        A scalar takes the shape of the others, and where all are scalars the shape that feeds the node.

        Args:
            names: our name -> the file's.
            fed: the shape that feeds the node, where it is known.
            defaults: the file's name -> what a field stands for that the file may leave out.
        """
        arrays: dict[str, Array] = {}
        for ours, theirs in names.items():
            default = (defaults or {}).get(theirs)
            arrays[ours] = self.array(theirs) if default is None or self.has(theirs) else np.array(default)
        shapes = {value.shape: names[ours] for ours, value in reversed(arrays.items()) if value.ndim}
        if len(shapes) > 1:
            text = ", ".join(f"{field} {shape}" for shape, field in reversed(shapes.items()))
            raise self.error(f"parameters differ in shape: {text}")
        shape = next(iter(shapes)) if shapes else self.fed(fed)
        size = math.prod(shape)
        self._repeats.left -= size * sum(value.ndim == 0 for value in arrays.values())
        if self._repeats.left < 0:
            raise self.error(
                f"its scalars stand for {size} neurons, a file's may stand for {MOST_REPEATED} values together",
                "write the parameters as arrays",
            )
        return {ours: np.broadcast_to(value, shape) for ours, value in arrays.items()}

    def _take(self, field: str) -> Any:
        if field not in self._values:
            raise self.error(f"field {field!r} is missing")
        self._taken.add(field)
        return self._values[field]

    def _numbers(self, field: str) -> Array:
        value = self._take(field)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
            kind = "a group" if isinstance(value, dict) else "text" if isinstance(value, (str, list)) else "booleans"
            raise self.error(f"{field} is {kind} where numbers belong")
        return value

    def _integers(self, field: str, least: int | None) -> list[int]:
        values = self._numbers(field)
        if values.ndim > 1 or values.size > MOST_AXES:
            raise self.error(f"{field} has shape {values.shape}, a list of up to {MOST_AXES} integers is needed")
        if not (np.isfinite(values) & (values == np.floor(values))).all():
            raise self.error(f"{field} holds {values.tolist()}, integers are needed")
        whole = [int(value) for value in values.reshape(-1)]
        if least is not None and any(value < least for value in whole):
            raise self.error(f"{field} holds {min(whole)}, the least is {least}")
        return whole
