"""Writes docs/ops.md from what the ops declare of themselves; `pytest --update-golden` calls it, and a test holds the
document to the declarations."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections import Counter
from collections.abc import Iterator
from typing import get_args

import numpy as np

from nervecord.compiler.body.expression import Body, Node
from nervecord.compiler.ops import (
    OPS,
    PART_TYPES,
    Activation,
    CountArgmaxDecode,
    CountDecode,
    Decode,
    Delta,
    HostOp,
    Input,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Membrane,
    Neuron,
    Normalise,
    PopulationEncode,
    Quantise,
    Rescale,
    Scale,
    Sigma,
    SigmaDelta,
    Spike,
    Synapse,
    Threshold,
)
from nervecord.compiler.ops.activations import Function
from nervecord.compiler.ops.fields import LARGEST_AXIS, Declared, declarations
from nervecord.compiler.ops.level import Level
from nervecord.compiler.ops.neurons import RESETS
from nervecord.compiler.ops.op import Op, Part
from nervecord.compiler.ops.sigma_delta import Rectifier
from nervecord.targets.catalogue import load_spec

ROLES = {
    "input": "an end: where values enter",
    "output": "an end: where values leave",
    "before": "runs on the host, before the core",
    "after": "runs on the host, after the core",
    "connection": "a weighted connection",
    "passing": "passes values on",
    "population": "a population of neurons",
}
"""Role of an op -> in words."""

HEAD = """# Ops

Written by `docs/ops.py` from the declarations in `compiler/ops/`; a test keeps it current.

A graph is named ops and edges; several edges into one op add up. Arrays have the batch first, shapes here leave it out.
Sizes are written in symbols: the same symbol in two fields of an op is the same size, "..." is a whole shape.
[semantics.md](semantics.md) says how graphs are executed.

The *traced body* of an op is what the definition, the proof of ranges and all engines read (`compiler/body/`): x is
what enters, y what it gives, v a state before the step and v' after it; `before_spike`, `current`, `membrane`, `act`
and `delta` are values that others look at.

Levels: *imported* is what a NIR file said, in continuous time; *discrete* has steps of dt and is executed in float64;
*integer* is a target's arithmetic, executed in int64. The *kind* is the name that findings, targets and dumps print.
"""


def document() -> str:
    """docs/ops.md."""
    lines = [HEAD]
    for op in OPS.values():
        lines += _op(op)
    parts = "A `Neuron` is composed of these, all of one level; a `Convolution` is a connection's."
    lines += ["## Parts", "", parts, ""]
    for part in PART_TYPES.values():
        lines += [f"### {part.__name__}", "", f"Level: {_levels(frozenset({part.LEVEL}), part)}.", ""]
        lines += [*_text(part), *_table(part)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _op(op: type[Op]) -> Iterator[str]:
    yield f"## {op.__name__}"
    yield ""
    facts = [f"Role: {ROLES[op.ROLE]}", f"levels: {_levels(op.LEVELS, op)}"]
    kinds = {level: op.kinds(level) for level in Level if op.kinds(level)}
    if any(names != (op.__name__,) for names in kinds.values()):
        by_names: dict[tuple[str, ...], list[str]] = {}
        for level, names in kinds.items():
            by_names.setdefault(names, []).append(level.value)
        facts.append("kinds: " + "; ".join(f"{', '.join(k)} ({', '.join(at)})" for k, at in by_names.items()))
    if op.NIR:
        facts.append(f"in NIR: {', '.join(op.NIR)}")
    yield "; ".join(facts) + "."
    yield ""
    yield from _text(op)
    yield from _equations(op)
    yield from _table(op)


ONE = np.ones(1)
LAVA = load_spec("lava").integers
assert LAVA is not None
EXAMPLE = dataclasses.replace(
    LAVA,
    weight_signs="twos-complement",
    current_overflow="saturate",
    membrane_overflow="saturate",
    current_decay_low=0,
    readout="membrane",
)
"""Of the equations in integers that are printed."""
EXAMPLES: dict[type[Op], dict[str, Op]] = {
    Scale: {"": Scale(ONE)},
    Threshold: {"": Threshold(ONE)},
    Activation: {name: Activation(name, (1,)) for name in get_args(Function)},
    Neuron: {
        "a leaky integrator": Neuron(Membrane(ONE, ONE, ONE)),
        **{
            f"with a current and a spike, reset {rule!r}": Neuron(
                Membrane(ONE, ONE, ONE), Synapse(ONE, ONE), Spike(ONE, ONE, rule)
            )
            for rule in RESETS
        },
        "silent for some steps after a spike": Neuron(Membrane(ONE, ONE, ONE), None, Spike(ONE, ONE, "value", 2)),
        "in integers, where decays are factors rounded to zero, and it saturates and resets to zero": Neuron(
            IntegerMembrane(1, ONE), IntegerSynapse(1), IntegerSpike(1)
        ),
    },
    Input: {"with a limit": Input((1,), "values", 1.0)},
    Normalise: {"": Normalise(ONE, ONE, 0.0, 1.0)},
    Quantise: {"": Quantise(1, 1.0, 1)},
    PopulationEncode: {"": PopulationEncode(np.array([[0.0, 1.0]]), 1.0)},
    Decode: {"": Decode(ONE, ONE, ONE, ONE)},
    Rescale: {"": Rescale(ONE)},
    CountDecode: {"of the sums": CountDecode(ONE[:, None], ONE, ONE, ONE)},
    CountArgmaxDecode: {"of the sums": CountArgmaxDecode(ONE[:, None], ONE)},
    Delta: {"": Delta(1, 1)},
    SigmaDelta: {name: SigmaDelta(ONE, 1, name) for name in get_args(Rectifier)},
    Sigma: {"": Sigma(1)},
}
"""Op with a body -> what is printed of it: title -> one of its choices."""
MOST_NODES = 40
"""Of a body that is printed."""


def _equations(op: type[Op]) -> Iterator[str]:
    """The traced body of each example; v' is a state after the step."""
    for title, example in EXAMPLES.get(op, {}).items():
        integers = example.levels == {Level.INTEGER}
        bodies = {"Traced body": example.traced(EXAMPLE if integers else None)}
        if isinstance(example, HostOp) and example.PULSES:
            bodies["Traced body of each step"] = example.pulse_body
        for about, body in bodies.items():
            if len(body.nodes) > MOST_NODES:
                continue  # the text above says it better
            yield f"{about}{f', {title}' if title else ''}:"
            yield ""
            yield from (f"    {line}" for line in equations(body))
            yield ""


def _text(kind: type[Op] | type[Part]) -> Iterator[str]:
    """The docstring; what is indented in it becomes a block of code."""
    lines = inspect.cleandoc(kind.__doc__ or "").splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("    ") and before and not before.startswith("    "):
            yield ""
        yield line if line.startswith("    ") else _plain(line)
    yield ""


def _plain(text: str) -> str:
    """Text in which no star is taken for emphasis."""
    return text.replace("*", "\\*")


def _table(kind: type[Op] | type[Part]) -> Iterator[str]:
    yield "| field | what it is | allowed | default | meaning |"
    yield "|---|---|---|---|---|"
    defaults = {f.name: f.default for f in dataclasses.fields(kind)}
    for name, declared in declarations(kind):
        default = defaults[name]
        default_text = "" if default is dataclasses.MISSING else "none" if default is None else f"{default}"
        yield f"| `{name}` | {_what(declared)} | {_allowed(declared)} | {default_text} | {_plain(declared.about)} |"
    yield ""


def _what(declared: Declared) -> str:
    optional = ", or none" if declared.optional else ""
    match declared.kind:
        case "array":
            size = _plain(", ".join(declared.symbols))
            return f"{np.dtype(declared.dtype).name} ({size}){optional}"
        case "integer":
            return f"integer{optional}"
        case "number":
            return f"number{optional}"
        case "flag":
            return "true or false"
        case "choice":
            return "word"
        case "shape":
            return "sizes"
        case "part":
            return f"part{optional}"
    return declared.kind


def _allowed(declared: Declared) -> str:
    if declared.options:
        return ", ".join(declared.options)
    bounds = []
    if declared.above > -math.inf:
        bounds.append(f"above {declared.above:g}")
    elif declared.low > -math.inf:
        bounds.append(f"from {_number(declared.low)}")
    if declared.high < math.inf:
        bounds.append(f"to {_number(declared.high)}")
    if declared.infinite:
        bounds.append("or infinite")
    return " ".join(bounds) or ("finite" if declared.kind in ("array", "number") else "")


def _number(value: float) -> str:
    return "2^26" if value == LARGEST_AXIS else f"{value:,.0f}" if float(value).is_integer() else f"{value:g}"


def _levels(levels: frozenset[Level], kind: type) -> str:
    names = [level.value for level in Level if level in levels]
    if kind.__name__ == "Convolution":
        return ", ".join(level.value for level in Level)
    if kind.__name__ == "Spike":
        names = [level.value for level in (Level.IMPORTED, Level.DISCRETE)]
    return ", ".join(names)


# --------------------------------------------------------------------------------------------------------------------
# Equations

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
