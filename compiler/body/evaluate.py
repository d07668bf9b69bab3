"""Runs a body with numpy: the definition of what an op computes, in int64 and float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from nervecord.compiler.body.expression import Array, Body, Node, dtype_of

State: TypeAlias = dict[str, Array]
Function: TypeAlias = Callable[..., Any]


def sign(x: Any) -> Any:
    """-1, 0 or 1, of an array or of one of Python's integers."""
    return (x > 0) - (x < 0) if isinstance(x, int) else np.sign(x)


def select(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, else b; of one truth value the one or the other as it is."""
    return (a if condition else b) if isinstance(condition, bool) else np.where(condition, a, b)


def _scaled(x: Any, factor: Any, bits: Any, rounding: str) -> Any:
    if rounding == "floor":
        return (x * factor) >> bits
    return sign(x) * ((abs(x) * factor) >> bits)


def _lose(x: Any, shift: Any, at_least_one: bool) -> Any:
    lost = x >> shift
    return x - (select(lost == 0, sign(x), lost) if at_least_one else lost)


def _count_levels(v: Any, level: Any, most: Any, reached: bool) -> Any:
    return _clip(v // level if reached else -(-v // level) - 1, 0, most)


def _clip(x: Any, low: Any, high: Any) -> Any:
    # Which zero a minimum of 0 and -0 gives depends on the library; a comparison leaves what lies within as it is.
    return min(max(x, low), high) if isinstance(x, int) else np.where(x < low, low, np.where(x > high, high, x))


def _left_of_levels(v: Any, level: Any, most: Any, reached: bool) -> Any:
    return v - level * _count_levels(v, level, most, reached)


def _wrap(x: Any, bits: Any) -> Any:
    half = np.int64(1) << (bits - 1)
    return ((x + half) & (2 * half - 1)) - half


def _wrap_once(x: Any, low: Any, high: Any) -> Any:
    span = high - low + 1
    return np.where(x > high, x - span, np.where(x < low, x + span, x))


def _power_of_two(k: Any) -> Any:
    return np.ldexp(1.0, -k.astype(np.int64))


FUNCTIONS: dict[str, Function] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "negate": np.negative,
    "absolute": np.abs,
    "divide": np.divide,
    "shift_left": np.left_shift,
    "shift_right": np.right_shift,
    "scaled": _scaled,
    "lose": _lose,
    "count_levels": _count_levels,
    "left_of_levels": _left_of_levels,
    "wrap": _wrap,
    "wrap_once": _wrap_once,
    "floor": np.floor,
    "rint": np.rint,
    "tanh": np.tanh,
    "expm1": np.expm1,
    "power_of_two": _power_of_two,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "equal": np.equal,
    "both": np.logical_and,
    "either": np.logical_or,
    "negated": np.logical_not,
    "where": np.where,
    "clip": _clip,
    "as_integer": lambda x: x.astype(np.int64),
    "as_float": lambda x: x.astype(np.float64),
}
"""Operation -> what computes it."""


class Evaluator:
    """A body, ready to run.

    Args:
        body: what to run.
    """

    def __init__(self, body: Body) -> None:
        self.body = body
        self._steps: list[tuple[int, Function, tuple[int, ...], tuple[Any, ...]]] = []
        self._states: list[tuple[int, str]] = []
        self._input: int | None = None
        for place, node in enumerate(body.nodes):
            if node.operation == "input":
                self._input = place
            elif node.operation == "state":
                self._states.append((place, node.name))
            elif node.operation != "constant":
                self._steps.append((place, FUNCTIONS[node.operation], node.arguments, node.settings))

    def __reduce__(self) -> tuple[type[Evaluator], tuple[Body]]:
        return Evaluator, (self.body,)  # its functions cannot all be pickled, and follow from the body

    def values(self, state: State, x: Array) -> list[Any]:
        """The value of every node in one step; the state stays as it is."""
        values: list[Any] = [None] * len(self.body.nodes)
        for place, value in self.body.values.items():
            values[place] = value
        if self._input is not None:
            values[self._input] = x
        for place, name in self._states:
            values[place] = state[name]
        for place, function, arguments, settings in self._steps:
            values[place] = function(*(values[k] for k in arguments), *settings)
        return values

    def step(self, state: State, x: Array) -> Array:
        """What the op gives for x, (batch, ...); the state goes on.

        Raises:
            ArithmeticError: a check of the body does not hold; the state stays as it was.
        """
        values = self.values(state, x)
        for place, message in self.body.checks:
            if not np.all(values[place]):
                raise ArithmeticError(message)
        for name, place in self.body.kept.items():
            state[name] = self._standing(values[place], x)
        return self._standing(values[self.body.result], x)

    def _standing(self, value: Any, x: Array) -> Array:
        """A value as an array of x's shape, which a constant alone is not."""
        return value if value.shape == x.shape else np.broadcast_to(value, x.shape).copy()

    def observed(self, name: str, state: State, x: Array) -> Array:
        """The value that is observed under a name in a step; the state stays as it is."""
        value: Array = self.values(state, x)[self.body.observed[name]]
        return value


def zero_state(body: Body, shape: tuple[int, ...]) -> State:
    """The state before the first step: zeros of this shape, the batch included."""
    return {name: np.zeros(shape, dtype=dtype_of(kind)) for name, kind in body.state_kinds.items()}


def constant_value(node: Node, arguments: list[Any]) -> Array:
    """The value of an operation on constants."""
    value: Array = np.asarray(FUNCTIONS[node.operation](*arguments, *node.settings), dtype=dtype_of(node.kind))
    return value
