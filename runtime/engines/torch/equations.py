"""A body's equations on tensors of a device: what its op defines, for a batch.

Floats are computed in the core's type, operation by operation. Integers are float64 tensors of whole numbers, which is
exact: every value and every product of a body is below 2^53 in magnitude. A state's widest product with a decay factor
is 2^33 * 2^16, and the engine proves a plan's ranges before it runs it. What must be rounded is an exact quotient by a
power of two, rounded by floor or trunc.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nervecord.compiler.body.expression import Body, Node
from nervecord.errors import GraphError
from nervecord.runtime.engines.torch.place import Place

Function: TypeAlias = Callable[..., Any]
Number: TypeAlias = "float | Tensor"


def _scaled(x: Tensor, factor: float, bits: float, rounding: str) -> Tensor:
    product = x * (factor / 2.0**bits)
    return torch.floor(product) if rounding == "floor" else torch.trunc(product)


def _lose(x: Tensor, shift: float, at_least_one: bool) -> Tensor:
    lost = torch.floor(x * 2.0**-shift)
    return x - (torch.where(lost == 0, torch.sign(x), lost) if at_least_one else lost)


def _count_levels(v: Tensor, level: float, most: float, reached: bool) -> Tensor:
    # The quotient of integers below 2^33 is no nearer to an integer than 2^-33, unless it is one: floor and ceil of its
    # rounding to 53 bits are those of itself.
    counts = torch.floor(v / level) if reached else torch.ceil(v / level) - 1
    return counts.clamp(0, most)


def _left_of_levels(v: Tensor, level: float, most: float, reached: bool) -> Tensor:
    return v - level * _count_levels(v, level, most, reached)


def _wrap(x: Tensor, bits: float) -> Tensor:
    span = 2.0**bits
    return x - span * torch.floor((x + span / 2) / span)


def _wrap_once(x: Tensor, low: float, high: float) -> Tensor:
    span = high - low + 1
    return torch.where(x > high, x - span, torch.where(x < low, x + span, x))


def _minimum(a: Number, b: Number) -> Tensor:
    a, b = (a, b) if isinstance(a, Tensor) else (b, a)
    assert isinstance(a, Tensor)  # two numbers are folded
    return torch.minimum(a, b) if isinstance(b, Tensor) else a.clamp(max=b)


def _maximum(a: Number, b: Number) -> Tensor:
    a, b = (a, b) if isinstance(a, Tensor) else (b, a)
    assert isinstance(a, Tensor)
    return torch.maximum(a, b) if isinstance(b, Tensor) else a.clamp(min=b)


def _power_of_two(k: Tensor) -> Tensor:
    # Its bits, as torch.pow need not be exact.
    if k.dtype is torch.float32:
        return ((127 - k.int()) << 23).view(torch.float32)
    return ((1023 - k.long()) << 52).view(torch.float64)


SHARED: dict[str, Function] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "minimum": _minimum,
    "maximum": _maximum,
    "negate": lambda a: -a,
    "absolute": torch.abs,
    "greater": lambda a, b: a > b,
    "greater_equal": lambda a, b: a >= b,
    "less": lambda a, b: a < b,
    "less_equal": lambda a, b: a <= b,
    "equal": lambda a, b: a == b,
    "both": torch.logical_and,
    "either": torch.logical_or,
    "negated": torch.logical_not,
    "where": torch.where,
    # Which zero a minimum of 0 and -0 gives depends on the length of a row.
    "clip": lambda x, low, high: torch.where(x < low, low, torch.where(x > high, high, x)),
    "shift_left": lambda x, bits: x * 2.0**bits,
    "shift_right": lambda x, bits: torch.floor(x * 2.0**-bits),
    "scaled": _scaled,
    "lose": _lose,
    "count_levels": _count_levels,
    "left_of_levels": _left_of_levels,
    "wrap": _wrap,
    "wrap_once": _wrap_once,
    "divide": lambda a, b: a / b,
    "floor": torch.floor,
    "rint": torch.round,
    "tanh": torch.tanh,
    "expm1": torch.expm1,
    "power_of_two": _power_of_two,
}
"""Operation -> what computes it. Conversions depend on the type, and are made by `equations`."""


def equations(body: Body, place: Place, label: str) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """One step of a body: state and x in, what it gives out; tensors are replaced in the state, never written into.

    Args:
        body: folded. place: device and type. label: of the op, for messages.

    Raises:
        GraphError: an operation has no reading here.
    """

    def converted(value: Tensor) -> Tensor:
        return value.to(place.dtype)

    steps: list[tuple[int, Function, tuple[int, ...], tuple[Any, ...]]] = []
    constants: dict[int, Number] = {}
    states: list[tuple[int, str]] = []
    entering: int | None = None
    for k, node in enumerate(body.nodes):
        match node.operation:
            case "input":
                entering = k
            case "state":
                states.append((k, node.name))
            case "constant":
                constants[k] = _constant(body, k, node, place)
            case "as_integer" | "as_float":
                steps.append((k, converted, node.arguments, ()))
            case operation if operation in SHARED:
                steps.append((k, SHARED[operation], node.arguments, node.settings))
            case operation:
                raise GraphError(
                    f"engine torch has no reading of the operation {operation!r}",
                    where=label,
                    hint="the definition runs every op",
                )
    kept_places, result, count = tuple(body.kept.items()), body.result, len(body.nodes)

    def run(state: dict[str, Tensor], x: Tensor) -> Tensor:
        values: list[Any] = [None] * count
        for k, value in constants.items():
            values[k] = value
        if entering is not None:
            values[entering] = x
        for k, name in states:
            values[k] = state[name]
        for k, function, arguments, settings in steps:
            values[k] = function(*[values[a] for a in arguments], *settings)
        for name, k in kept_places:
            state[name] = _standing(values[k], x)
        return _standing(values[result], x)

    return run


def _constant(body: Body, k: int, node: Node, place: Place) -> Number:
    """A number where `where` needs no tensor of it, else a tensor."""
    value = body.values[k]
    chosen = any(other.operation == "where" and k in other.arguments[1:] for other in body.nodes)
    if node.kind == "bool":
        return torch.as_tensor(value, device=place.device)
    return value.item() if value.size == 1 and not chosen else place.tensor(value)


def _standing(value: Number, x: Tensor) -> Tensor:
    """A value of x's shape, which a constant alone is not."""
    if isinstance(value, Tensor) and value.shape == x.shape:
        return value
    return torch.as_tensor(value, dtype=x.dtype, device=x.device).expand(x.shape).clone()
