"""The equations of a host op as lines of C in doubles: one channel at a time, each operation rounded on its own.

Nothing of the C library is called, so that every machine gives the same bits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from nervecord.compiler.body.expression import MOST_POWER, Body, Node, uniform
from nervecord.compiler.body.fold import folded
from nervecord.compiler.ops import Array
from nervecord.errors import InfeasibleError
from nervecord.runtime.engines.c.constants import Table
from nervecord.runtime.engines.c.names import bare

SIGNS = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "greater": ">",
    "greater_equal": ">=",
    "less": "<",
    "less_equal": "<=",
    "equal": "==",
    "both": "&&",
    "either": "||",
}
"""Operation -> the sign between its arguments."""
LONGEST = 90
"""Characters of an expression that gets no name."""
LIMITED = """\
static double limited(double x, double low, double high)
{
    return x < low ? low : (x > high ? high : x);
}
"""
EITHER = """\
static double {name}(double a, double b)
{{
    return a {sign} b ? a : b;
}}
"""
NEAREST = """\
/* The whole number nearest to x, of two the even one: a sum with 2^52 has no digits behind the point. */
static double nearest(double x)
{
    const double whole = 4503599627370496.0;
    if (x >= whole || x <= -whole) {
        return x;
    }
    return x < 0.0 ? (x - whole) + whole : (x + whole) - whole;
}
"""
FLOORED = """\
static double floored(double x)
{
    const double whole = nearest(x);
    return whole > x ? whole - 1.0 : whole;
}
"""


def real(value: float) -> str:
    """A number with all its bits."""
    text = float(value).hex()
    return f"({text})" if text.startswith("-") else text


class Doubles:
    """The functions and the tables that equations in doubles need.

    Args:
        prefix: of the names of tables.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.tables: list[Table] = []
        self.helpers: dict[str, str] = {}

    def table(self, name: str, values: Array, about: str) -> str:
        """The name of a constant table of doubles; of the same numbers there is one."""
        array = np.asarray(values, dtype=np.float64).ravel()
        for table in self.tables:
            if table.values.tobytes() == array.tobytes():
                return f"{self.prefix}_{table.name}"
        self.tables.append(Table(name, "double", array, about))
        return f"{self.prefix}_{name}"

    def lines(self, body: Body, name: str, x: str, label: str, *, spread: int = 1) -> tuple[list[str], str]:
        """The lines that compute a body for channel i, and the expression of what it gives.

        Args:
            name: of the op, an identifier: begins the names of its tables. x: expression of what enters.
            label: of the op, for messages.
            spread: values of each channel; they are counted by j.

        Raises:
            InfeasibleError: an operation has no form in C.
        """
        return _Lines(self, folded(body), name, x, label, spread).printed()

    # ------------------------------------------------------------------------------------------------ functions

    def limited(self, x: str, low: str, high: str) -> str:
        """x within limits."""
        self.helpers.setdefault("limited", LIMITED)
        return f"limited({x}, {low}, {high})"

    def smaller(self, a: str, b: str) -> str:
        """The smaller one."""
        self.helpers.setdefault("smaller", EITHER.format(name="smaller", sign="<"))
        return f"smaller({a}, {b})"

    def larger(self, a: str, b: str) -> str:
        """The larger one."""
        self.helpers.setdefault("larger", EITHER.format(name="larger", sign=">"))
        return f"larger({a}, {b})"

    def nearest(self, x: str) -> str:
        """The nearest whole number."""
        self.helpers.setdefault("nearest", NEAREST)
        return f"nearest({x})"

    def floored(self, x: str) -> str:
        """The whole number below."""
        self.helpers.setdefault("nearest", NEAREST)
        self.helpers.setdefault("floored", FLOORED)
        return f"floored({x})"

    def power_of_two(self, k: str) -> str:
        """2^-k."""
        powers = self.table("powers", 2.0 ** -np.arange(MOST_POWER + 1), "2^-k")
        return f"{powers}[(int32_t){k}]"


class _Lines:
    def __init__(self, of: Doubles, body: Body, name: str, x: str, label: str, spread: int) -> None:
        self.of, self.body, self.name, self.x, self.label, self.spread = of, body, name, x, label, spread
        self.text: list[str] = []
        self.functions: dict[str, Callable[..., str]] = {
            "minimum": of.smaller,
            "maximum": of.larger,
            "clip": of.limited,
            "rint": of.nearest,
            "floor": of.floored,
            "power_of_two": of.power_of_two,
        }

    def printed(self) -> tuple[list[str], str]:
        """See `Doubles.lines`."""
        uses = Counter(k for node in self.body.nodes for k in node.arguments)
        lines: list[str] = []
        named = 0
        for place, node in enumerate(self.body.nodes):
            text = self._expression(place, node)
            if node.arguments and place != self.body.result and (uses[place] > 1 or len(text) > LONGEST):
                named += 1
                name = f"{self.name}_t{named}"
                lines.append(f"const {_KINDS[node.kind]} {name} = {text};")
                text = name
            atom = not node.arguments or node.operation in self.functions or text.isidentifier()
            self.text.append(text if atom or place == self.body.result else f"({text})")
        return lines, self.text[self.body.result]

    def _expression(self, place: int, node: Node) -> str:
        match node.operation:
            case "input":
                return self.x
            case "constant":
                return self._constant(place, node)
        arguments = [self.text[k] for k in node.arguments]
        if node.operation in SIGNS:
            return f" {SIGNS[node.operation]} ".join(arguments)
        if node.operation in self.functions:
            return self.functions[node.operation](*(bare(text) for text in arguments))
        match node.operation, arguments:
            case "where", [condition, a, b]:
                return f"{condition} ? {a} : {b}"
            case "negate", [a]:
                return f"-{a}"
            case "absolute", [a]:
                return f"{a} < 0.0 ? -{a} : {a}"
            case "negated", [a]:
                return f"!{a}"
            case "as_integer" | "as_float", [a]:
                return f"({_KINDS[node.kind]}){a}"
        raise InfeasibleError(f"the operation {node.operation!r} has no form in C", where=self.label)

    def _constant(self, place: int, node: Node) -> str:
        value = self.body.values[place]
        if uniform(value):
            return real(value.flat[0]) if node.kind == "float" else str(int(value.flat[0]))
        rows, index = value.reshape(-1, self.spread), "i"
        if self.spread > 1 and not (rows == rows[:, :1]).all():
            index = f"{self.spread} * i + j"
        elif self.spread > 1:
            value = rows[:, 0]
        about = node.name or f"constant{place}"
        text = f"{self.of.table(f'{self.name}_{about}', value, about)}[{index}]"
        return text if node.kind == "float" else f"(int32_t){text}"


_KINDS = {"bool": "int", "integer": "int32_t", "float": "double"}
"""Kind of a value -> its type in C."""
