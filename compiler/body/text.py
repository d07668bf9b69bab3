"""Prints a body as equations, one line for each state, observed value and result."""

from __future__ import annotations

from collections import Counter

from nervecord.compiler.body.expression import Body, Node

SIGNS = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "shift_left": "<<",
    "shift_right": ">>",
    "greater": ">",
    "greater_equal": ">=",
    "less": "<",
    "less_equal": "<=",
    "equal": "=",
    "both": "and",
    "either": "or",
}
"""Operation -> the sign between its arguments."""
FUNCTIONS = {"minimum": "min", "maximum": "max", "absolute": "abs", "left_of_levels": "left_of_levels"}


def equations(body: Body) -> list[str]:
    """Lines `name = expression`, in the order in which they are computed; v' is a state's value after the step."""
    return _Printer(body).lines()


class _Printer:
    def __init__(self, body: Body) -> None:
        self.body = body
        self.names: dict[int, str] = {}
        uses = Counter(k for node in body.nodes for k in node.arguments)
        for name, place in body.observed.items():
            if name not in body.kept:
                self.names.setdefault(place, name)
        for name, place in body.kept.items():
            self.names.setdefault(place, f"{name}'")
        shared = [
            place
            for place, node in enumerate(body.nodes)
            if uses[place] > 1 and node.arguments and place not in self.names and place != body.result
        ]
        for k, place in enumerate(shared):
            self.names[place] = f"t{k + 1}" if len(shared) > 1 else "t"

    def lines(self) -> list[str]:
        """See `equations`."""
        body = self.body
        lines = [
            f"{self.names[place]} = {self._expression(place, top=True)}"
            for place in sorted(self.names)
            if body.nodes[place].arguments
        ]
        for name, place in body.kept.items():
            if self.names.get(place) != f"{name}'":
                lines.append(f"{name}' = {self._text(place)}")
        result = body.result
        return [*lines, f"y = {self.names[result] if result in self.names else self._expression(result, top=True)}"]

    def _text(self, place: int) -> str:
        return self.names[place] if place in self.names else self._expression(place)

    def _expression(self, place: int, *, top: bool = False) -> str:
        node = self.body.nodes[place]
        match node.operation:
            case "input" | "state":
                return node.name
            case "constant":
                return self._constant(place, node)
            case "negate":
                return f"-{self._text(node.arguments[0])}"
            case "negated":
                return f"not {self._text(node.arguments[0])}"
            case "as_integer" | "as_float":
                inner = node.arguments[0]
                return self._expression(inner, top=top) if inner not in self.names else self.names[inner]
            case "where":
                condition, a, b = (self._text(k) for k in node.arguments)
                text = f"{a} if {condition} else {b}"
                return text if top else f"({text})"
        arguments = [self._text(k) for k in node.arguments]
        if node.operation in SIGNS:
            text = f" {SIGNS[node.operation]} ".join(arguments)
            return text if top else f"({text})"
        if node.operation == "scaled":
            x, factor, bits = arguments
            return f"round_{'down' if node.settings[0] == 'floor' else 'to_zero'}({x} * {factor} / 2^{bits})"
        settings = [str(setting) for setting in node.settings if setting is not False]
        settings = [{"True": "at_least_one" if node.operation == "lose" else "reached"}.get(s, s) for s in settings]
        return f"{FUNCTIONS.get(node.operation, node.operation)}({', '.join([*arguments, *settings])})"

    def _constant(self, place: int, node: Node) -> str:
        if node.name:
            return node.name
        value = self.body.values[place]
        return f"{value.flat[0].item():g}" if value.size == 1 else "constants"
