"""The traced graph of a body: nodes in the order in which they were recorded, each an operation on earlier ones.

A body is elementwise: every value stands for one neuron or channel, and a constant is one number, or one for each of
them. What mixes elements (products with a matrix, ordered sums, the first largest) is no body but a primitive of each
engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Kind: TypeAlias = Literal["bool", "integer", "float"]
Rounding: TypeAlias = Literal["zero", "floor"]
Setting: TypeAlias = str | bool

SOURCES = ("input", "state", "constant")
"""Operations without arguments: what enters, what was kept at the end of the step before, a number."""
NUMERIC = ("add", "subtract", "multiply", "minimum", "maximum", "negate", "absolute")
"""Integers in, integers out; floats in, floats out, each rounded on its own."""
INTEGER = ("shift_left", "shift_right", "scaled", "lose", "count_levels", "left_of_levels", "wrap", "wrap_once")
"""On integers alone."""
FLOAT = ("divide", "floor", "rint", "tanh", "expm1", "power_of_two")
"""On floats alone. Of these tanh and expm1 are not the same bits everywhere."""
COMPARISONS = ("greater", "greater_equal", "less", "less_equal", "equal")
LOGIC = ("both", "either", "negated")
"""On truth values."""
SELECTIONS = ("where", "clip")
CONVERSIONS = ("as_integer", "as_float")
MOST_POWER = 32
"""`power_of_two` takes 0 to this."""
OPERATIONS = (*SOURCES, *NUMERIC, *INTEGER, *FLOAT, *COMPARISONS, *LOGIC, *SELECTIONS, *CONVERSIONS)
"""Every operation that a reading may meet:

    add a b, subtract a b, multiply a b, minimum a b, maximum a b, negate a, absolute a, divide a b
    shift_left x k: x * 2^k. shift_right x k: x / 2^k, rounded down
    scaled x factor bits [rounding]: x * factor / 2^bits, rounded towards zero or down
    lose x shift [at_least_one]: x - (x / 2^shift rounded down); with at_least_one at least 1 of what is not 0 is lost
    count_levels v level most [reached]: how often v passes `level` (with `reached`: reaches it), 0..most; level > 0
    left_of_levels v level most [reached]: v - level * count_levels(...)
    wrap x bits: modulo 2^bits, into -2^(bits-1)..2^(bits-1) - 1
    wrap_once x low high: x - (high - low + 1) above high, x + (high - low + 1) below low
    clip x low high: min(max(x, low), high)
    where c a b: a where c, else b
    floor, rint (half to even), tanh, expm1, power_of_two k: 2^-k of a float k that is an integer from 0 to 32
    greater, greater_equal, less, less_equal, equal; both, either, negated: of truth values
    as_integer, as_float: of a truth value or a whole number
"""


class Node(NamedTuple):
    """One operation.

    Args:
        operation: of `OPERATIONS`. arguments: places of earlier nodes.
        kind: of its value. settings: choices that change what is computed, among them.
        name: of a source.
    """

    operation: str
    kind: Kind
    arguments: tuple[int, ...] = ()
    settings: tuple[Setting, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """An op's step.

    Args:
        nodes: in recorded order; all old state is read before any is written.
        values: place of a constant -> its number, or one for each element.
        result: place of what the op gives.
        kept: state -> place of its value after the step, in the order in which engines keep it.
        observed: name -> place of a value that others look at.
        checks: (place of a truth value that must hold, what is wrong where it does not).
    """

    nodes: tuple[Node, ...]
    values: dict[int, Array]
    result: int
    kept: dict[str, int]
    observed: dict[str, int]
    checks: tuple[tuple[int, str], ...] = ()

    @property
    def structure(self) -> tuple[Any, ...]:
        """What two bodies have in common that differ in their constants alone: a key to recognise one by."""
        return self.nodes, self.result, tuple(self.kept.items()), tuple(k for k, _ in self.checks)

    @property
    def state_kinds(self) -> dict[str, Kind]:
        """State -> kind of its value."""
        return {name: self.nodes[place].kind for name, place in self.kept.items()}

    def constant(self, name: str) -> Array:
        """The value of a named constant.

        Raises:
            KeyError: the body has none of this name.
        """
        for place, node in enumerate(self.nodes):
            if node.operation == "constant" and node.name == name:
                return self.values[place]
        raise KeyError(name)


def uniform(values: Array) -> bool:
    """Whether all numbers are one, bit for bit: 0 and -0 are two."""
    flat = values.ravel()
    return flat.tobytes() == flat[:1].tobytes() * flat.size


def dtype_of(kind: Kind) -> type:
    """The numpy type in which the definition holds a kind of value."""
    return {"bool": np.bool_, "integer": np.int64, "float": np.float64}[kind]
