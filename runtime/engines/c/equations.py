"""A population's equations as lines of C: one element at a time, each value in the type that its proved range needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from nervecord.compiler.body.bounds import Bounds
from nervecord.compiler.body.expression import Body, Node
from nervecord.compiler.graph.names import Names
from nervecord.errors import InfeasibleError
from nervecord.runtime.engines.c.constants import INT32, Table, literal, signed
from nervecord.runtime.engines.c.names import bare
from nervecord.runtime.engines.c.routines import Helpers

SIGNS = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "greater": ">",
    "greater_equal": ">=",
    "less": "<",
    "less_equal": "<=",
    "equal": "==",
    "both": "&&",
    "either": "||",
}
"""Operation -> the sign between its arguments."""


class Equations:
    """The equations of one population, and the tables of their constants.

    Args:
        name: identifier of the population. body: folded. bounds: of each of its values. label: for messages.

    Raises:
        InfeasibleError: a state needs more than 32 bits.
    """

    def __init__(self, name: str, body: Body, bounds: list[Bounds], label: str) -> None:
        self.name, self.body, self.bounds = name, body, bounds
        for state, place in self.body.kept.items():
            if not self.narrow(place):
                raise InfeasibleError(
                    f"may hold more than 32 bits in {state}", where=label, hint="scale the weights down"
                )
        self.tables: dict[int, Table] = {}
        for place, value in self.body.values.items():
            if value.size > 1 and (value != value.flat[0]).any():
                kind = signed(int(value.min()), int(value.max()))
                about = self.body.nodes[place].name or f"constant{len(self.tables)}"
                self.tables[place] = Table(f"{name}_{about}", kind, value.ravel(), f"{about}, one for each")

    @property
    def states(self) -> tuple[str, ...]:
        """Names of what is kept, each an int32_t array of the state."""
        return tuple(self.body.kept)

    @property
    def result(self) -> Bounds:
        """What it gives."""
        return self.bounds[self.body.result]

    @property
    def silent(self) -> bool:
        """Whether it never gives anything but 0."""
        return self.result.lowest == self.result.highest == 0

    @property
    def fires_to_zero(self) -> tuple[str, str, int] | None:
        """(state, comparison, level) where a spike is a state that passes a level and is set to 0 then."""
        body = self.body
        result = body.nodes[body.result]
        if result.operation != "as_integer":
            return None
        condition = body.nodes[result.arguments[0]]
        if condition.operation not in ("greater", "greater_equal") or condition.arguments[1] not in body.values:
            return None
        level = body.values[condition.arguments[1]]
        for state, place in body.kept.items():
            node = body.nodes[place]
            if node.operation != "where" or node.arguments[0] != result.arguments[0] or level.size > 1:
                continue
            at_zero = body.values.get(node.arguments[1])
            if node.arguments[2] == condition.arguments[0] and at_zero is not None and not at_zero.any():
                return state, SIGNS[condition.operation], int(level.item())
        return None

    def narrow(self, place: int) -> bool:
        """Whether 32 bits hold a value."""
        return self.bounds[place].lowest >= -INT32 and self.bounds[place].highest < INT32

    def lines(
        self, x: str, prefix: str, helpers: Helpers, *, result: bool, before_spike: bool
    ) -> tuple[list[str], str]:
        """The lines that update the state of element i, and the expression of what it gives.

        Args:
            x: expression of what enters. prefix: of all names. helpers: the functions that are printed as well.
            result: whether what it gives is wanted; else the expression is empty.
            before_spike: the state as it is before spikes set it to 0: see `fires_to_zero`.
        """
        return _Lines(self, x, prefix, helpers).printed(result, before_spike)


class _Lines:
    def __init__(self, equations: Equations, x: str, prefix: str, helpers: Helpers) -> None:
        self.of, self.body, self.x, self.prefix, self.helpers = equations, equations.body, x, prefix, helpers
        self.text: dict[int, str] = {}
        self.names = Names()
        self._functions: dict[str, Callable[[Node, list[str]], str]] = {
            "shift_left": lambda node, a: f"{a[0]} * {literal(1 << self._number(node, 1))}",
            "shift_right": self._shift_right,
            "negate": lambda node, a: f"-{a[0]}",
            "negated": lambda node, a: f"!{a[0]}",
            "where": lambda node, a: f"{a[0]} ? {a[1]} : {a[2]}",
            "as_integer": lambda node, a: a[0],
            "minimum": lambda node, a: f"{a[0]} < {a[1]} ? {a[0]} : {a[1]}",
            "maximum": lambda node, a: f"{a[0]} > {a[1]} ? {a[0]} : {a[1]}",
            "absolute": lambda node, a: f"{a[0]} < 0 ? -{a[0]} : {a[0]}",
            "clip": self._clip,
            "scaled": self._scaled,
            "lose": self._lose,
            "count_levels": lambda node, a: self._levels(node, a, left=False),
            "left_of_levels": lambda node, a: self._levels(node, a, left=True),
            "wrap": self._wrap,
            "wrap_once": self._wrap_once,
        }

    def printed(self, result: bool, before_spike: bool) -> tuple[list[str], str]:
        """See `Equations.lines`."""
        body, fires = self.body, self.of.fires_to_zero if before_spike else None
        ends = dict(body.kept)
        if fires is not None:
            ends[fires[0]] = body.nodes[ends[fires[0]]].arguments[2]
        needed = self._needed([*ends.values(), *([body.result] if result else [])])
        uses = Counter(k for place in needed for k in body.nodes[place].arguments)
        uses.update(ends.values())
        uses.update([body.result] if result else [])
        # Old state is read before it is written: where there are several, each stands in a name of its own.
        several = len(ends) > 1
        lines: list[str] = []
        names = {place: name for name, place in body.observed.items()}
        for place in sorted(needed):
            node = body.nodes[place]
            text = self._expression(place, node)
            named = uses[place] > 1 and bool(node.arguments) and node.operation != "as_integer"
            named |= several and node.operation == "state"
            named |= result and place == body.result and node.operation != "constant"
            if named:
                kind = "int32_t" if self.of.narrow(place) else "int64_t"
                label = "given" if place == body.result else names.get(place, node.name or "value")
                name = self.names.fresh(f"old_{label}" if node.operation == "state" else label)
                lines.append(f"const {kind} {name} = {bare(text)};")
                self.text[place] = name
            else:
                atom = not node.arguments or node.operation == "as_integer" or node.operation in _CALLS
                self.text[place] = text if atom else f"({text})"
        for state, place in ends.items():
            text = bare(self.text[place])
            if text != f"s->{self.of.name}_{state}[i]":
                lines.append(f"s->{self.of.name}_{state}[i] = {text};")
        return lines, "" if not result else bare(self.text[body.result])

    def _needed(self, ends: list[int]) -> set[int]:
        needed: set[int] = set()
        waiting = list(ends)
        while waiting:
            place = waiting.pop()
            if place not in needed:
                needed.add(place)
                waiting += self.body.nodes[place].arguments
        return needed

    def _number(self, node: Node, k: int) -> int:
        return int(self.body.values[node.arguments[k]].flat[0])

    def _expression(self, place: int, node: Node) -> str:
        match node.operation:
            case "input":
                return self.x
            case "state":
                return f"s->{self.of.name}_{node.name}[i]"
            case "constant":
                if place in self.of.tables:
                    return f"{self.prefix}_{self.of.tables[place].name}[i]"
                value = self.body.values[place].flat[0].item()
                return ("1" if value else "0") if node.kind == "bool" else _limit(int(value))
        arguments = [self.text[k] for k in node.arguments]
        wide = any(not self.of.narrow(k) for k in node.arguments)
        if node.operation in _GROWING and not wide and not self.of.narrow(place):
            arguments[0] = f"(int64_t){arguments[0]}"
        if node.operation in SIGNS:
            text = f" {SIGNS[node.operation]} ".join(arguments)
        elif node.operation in self._functions:
            text = self._functions[node.operation](node, arguments)
        else:
            raise InfeasibleError(f"the operation {node.operation!r} has no form in C", where=self.of.name)
        if node.operation in _EXACT and not self.of.narrow(place):
            raise InfeasibleError(
                f"the operation {node.operation!r} may give more than 32 bits, and C has a form of 32",
                where=self.of.name,
                hint="scale the weights down",
            )
        if wide and node.kind == "integer" and self.of.narrow(place) and node.operation not in ("clip", *_EXACT):
            return f"(int32_t)({text})"
        return text

    # ------------------------------------------------------------------------------------------------ operations

    def _wide(self, node: Node) -> bool:
        return not self.of.narrow(node.arguments[0])

    def _shift_right(self, node: Node, arguments: list[str]) -> str:
        return f"{self.helpers.shift(wide=self._wide(node))}({arguments[0]}, {self._number(node, 1)}u)"

    def _clip(self, node: Node, arguments: list[str]) -> str:
        return f"{self.helpers.clamp(wide=self._wide(node))}({', '.join(bare(a) for a in arguments)})"

    def _scaled(self, node: Node, arguments: list[str]) -> str:
        factor, bits, towards = self._number(node, 1), self._number(node, 2), str(node.settings[0])
        if self.of.bounds[node.arguments[0]].largest * factor >= 1 << 63:
            raise InfeasibleError("a product of 'scaled' may need more than 64 bits", where=self.of.name)
        if self._wide(node) or factor > 1 << bits or bits > 16:
            return f"{self.helpers.scaled(towards)}({bare(arguments[0])}, {literal(factor)}, {bits}u)"
        return f"{self.helpers.keep(bits, towards)}({bare(arguments[0])}, {factor}u)"

    def _lose(self, node: Node, arguments: list[str]) -> str:
        self._require_narrow(node)
        shift = min(self._number(node, 1), 31)
        return f"{self.helpers.lose(at_least_one=bool(node.settings[0]))}({bare(arguments[0])}, {shift}u)"

    def _levels(self, node: Node, arguments: list[str], *, left: bool) -> str:
        self._require_narrow(node)
        helper = self.helpers.levels(reached=bool(node.settings[0]), left=left)
        return f"{helper}({', '.join(bare(a) for a in arguments)})"

    def _wrap(self, node: Node, arguments: list[str]) -> str:
        if self._number(node, 1) > 32:
            raise InfeasibleError("wraps at more than 32 bits, and C has a form of 32", where=self.of.name)
        return f"{self.helpers.wrap()}({bare(arguments[0])}, {self._number(node, 1)}u)"

    def _wrap_once(self, node: Node, arguments: list[str]) -> str:
        return f"{self.helpers.wrap_once()}({', '.join(bare(a) for a in arguments)})"

    def _require_narrow(self, node: Node) -> None:
        if any(not self.of.narrow(k) for k in node.arguments):
            raise InfeasibleError(
                f"the operation {node.operation!r} takes more than 32 bits, and C has a form of 32",
                where=self.of.name,
                hint="scale the weights down",
            )


_GROWING = ("add", "subtract", "multiply", "shift_left", "negate")
"""Operations whose result may need more bits than their arguments."""
_EXACT = ("scaled", "lose", "count_levels", "left_of_levels", "wrap", "wrap_once", "as_integer")
"""Operations that give 32 bits whatever they take."""
_CALLS = ("clip", "scaled", "lose", "count_levels", "left_of_levels", "wrap", "wrap_once", "shift_right")
"""Operations that are calls of functions."""


def _limit(value: int) -> str:
    return "INT32_MIN" if value == -INT32 else literal(value)
