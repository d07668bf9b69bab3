"""A body's equations as ONNX nodes, one step at a time: floats in float32, integers exactly in double.

Every integer is below 2^53, as the proved ranges say, so that double holds it. Products by a power of two are exact, so
that a shift is a product, rounded down by Floor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from nervecord.compiler.body.expression import CONVERSIONS, MOST_POWER, Body, Node
from nervecord.compiler.body.fold import folded
from nervecord.errors import InfeasibleError
from nervecord.targets.onnx.builder import Builder

Value: TypeAlias = str | None
"""The name of a value; None where it is zero: a state before its first step, a delay that nothing has left yet."""
Slots: TypeAlias = dict[str, Value]
"""State of an op: name -> value."""


class Equations:
    """Makes the nodes of a body.

    Args:
        builder: takes them. dtype: of every number.
    """

    def __init__(self, builder: Builder, dtype: type) -> None:
        self.builder, self.dtype = builder, dtype
        self._functions: dict[str, Callable[..., str]] = {
            **{name: self._plain(kind) for name, kind in _PLAIN.items()},
            "minimum": self._plain("Min"),
            "maximum": self._plain("Max"),
            "greater_equal": lambda a, b: self._op("Not", self._op("Less", a, b)),
            "less_equal": lambda a, b: self._op("Not", self._op("Greater", a, b)),
            "clip": lambda x, low, high: self._op("Min", self._op("Max", x, low), high),
            "expm1": lambda x: self._op("Sub", self._op("Exp", x), self._number(1)),
            "power_of_two": self._power_of_two,
        }
        self._scalars: dict[str, Callable[..., str]] = {
            "shift_left": lambda x, bits: self._times(x, 2.0**bits),
            "shift_right": lambda x, bits: self._op("Floor", self._times(x, 2.0**-bits)),
            "scaled": self._scaled,
            "lose": self._lose,
            "count_levels": self._count_levels,
            "left_of_levels": self._left_of_levels,
            "wrap": self._wrap,
            "wrap_once": self._wrap_once,
        }
        self._folded: dict[tuple[int, frozenset[str]], Body] = {}

    def takes(self, body: Body) -> bool:
        """Whether every operation of a body has a form."""
        readable = {"input", "state", "constant", *CONVERSIONS, *self._functions, *self._scalars}
        return all(node.operation in readable for node in body.nodes)

    def step(self, body: Body, size: int, state: Slots, x: Value) -> Value:
        """What a body gives for x, [batch, size]; `state` is updated.

        Raises:
            InfeasibleError: an operation has no form in ONNX here.
        """
        zero = frozenset([name for name, value in {**state, "x": x}.items() if value is None])
        key = (id(body), zero)
        if key not in self._folded:
            self._folded[key] = folded(body, zero=zero, rounding=True)
        simple = self._folded[key]
        values: list[str] = []
        for place, node in enumerate(simple.nodes):
            values.append(self._node(simple, place, node, values, state, x))

        def standing(place: int) -> Value:
            if simple.nodes[place].operation != "constant":
                return values[place]
            value = simple.values[place]
            return self.builder.full(np.broadcast_to(value.ravel(), (size,)), self.dtype) if value.any() else None

        state.update({name: standing(place) for name, place in simple.kept.items()})
        return standing(simple.result)

    def _node(self, body: Body, place: int, node: Node, values: list[str], state: Slots, x: Value) -> str:
        match node.operation:
            case "input":
                return x or ""
            case "state":
                return state[node.name] or ""
            case "constant":
                value = body.values[place]
                return self.builder.row(value.ravel(), np.bool_ if node.kind == "bool" else self.dtype)
        arguments: list[Any] = [values[k] for k in node.arguments]
        if node.operation in CONVERSIONS:
            truth = body.nodes[node.arguments[0]].kind == "bool"
            return self.builder.cast(arguments[0], self.dtype) if truth else arguments[0]
        if node.operation in self._scalars:
            # Widths, shifts and levels are constants.
            numbers = [float(body.values[k].flat[0]) for k in node.arguments[1:]]
            return self._scalars[node.operation](arguments[0], *numbers, *node.settings)
        if node.operation not in self._functions:
            raise InfeasibleError(f"the operation {node.operation!r} has no form in ONNX here", where="onnx")
        return self._functions[node.operation](*arguments)

    # ------------------------------------------------------------------------------------------ operations

    def _op(self, kind: str, *inputs: str) -> str:
        return self.builder.op(kind, *inputs)

    def _plain(self, kind: str) -> Callable[..., str]:
        return lambda *inputs: self._op(kind, *inputs)

    def _number(self, value: float) -> str:
        return self.builder.constant(np.array([[value]], dtype=self.dtype))

    def _times(self, x: str, factor: float) -> str:
        return x if factor == 1 else self._op("Mul", x, self._number(factor))

    def _power_of_two(self, k: str) -> str:
        powers = 2.0 ** -np.arange(MOST_POWER + 1)
        return self._op("Gather", self.builder.constant(powers.astype(self.dtype)), self.builder.cast(k, np.int64))

    def _scaled(self, x: str, factor: float, bits: float, rounding: str) -> str:
        # The product has less than 53 bits, and the power of two moves none of them.
        product = self._times(x, factor * 2.0**-bits)
        if rounding == "floor":
            return self._op("Floor", product)
        return self._op("Mul", self._op("Sign", product), self._op("Floor", self._op("Abs", product)))

    def _lose(self, x: str, shift: float, at_least_one: bool) -> str:
        lost = self._op("Floor", self._times(x, 2.0**-shift))
        if at_least_one:
            lost = self._op("Where", self._op("Equal", lost, self._number(0)), self._op("Sign", x), lost)
        return self._op("Sub", x, lost)

    def _count_levels(self, v: str, level: float, most: float, reached: bool) -> str:
        counts = self._op("Div", v, self._number(level))
        if reached:
            counts = self._op("Floor", counts)
        else:
            counts = self._op("Sub", self._op("Ceil", counts), self._number(1))
        return self.builder.clipped(counts, 0.0, most, self.dtype)

    def _left_of_levels(self, v: str, level: float, most: float, reached: bool) -> str:
        return self._op("Sub", v, self._times(self._count_levels(v, level, most, reached), level))

    def _wrap(self, x: str, bits: float) -> str:
        span = 2.0**bits
        above = self._op("Add", x, self._number(span / 2))
        return self._op("Sub", x, self._times(self._op("Floor", self._times(above, 1 / span)), span))

    def _wrap_once(self, x: str, low: float, high: float) -> str:
        span = self._number(high - low + 1)
        under = self._op("Where", self._op("Less", x, self._number(low)), self._op("Add", x, span), x)
        return self._op("Where", self._op("Greater", x, self._number(high)), self._op("Sub", x, span), under)


_PLAIN = {
    "add": "Add",
    "subtract": "Sub",
    "multiply": "Mul",
    "divide": "Div",
    "negate": "Neg",
    "absolute": "Abs",
    "floor": "Floor",
    "rint": "Round",
    "tanh": "Tanh",
    "greater": "Greater",
    "less": "Less",
    "equal": "Equal",
    "both": "And",
    "either": "Or",
    "negated": "Not",
    "where": "Where",
}
"""Operation -> the operator that is the same."""
