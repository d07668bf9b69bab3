"""Every operation of bodies in every engine that reads them, at the ends of what it takes: equal to the definition."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from graphs import LAVA

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.body.bounds import Bounds
from nervecord.compiler.body.expression import COMPARISONS, CONVERSIONS, FLOAT, INTEGER, LOGIC, NUMERIC, SELECTIONS
from nervecord.compiler.body.intervals import over_steps
from nervecord.compiler.body.trace import Tracer, Value
from nervecord.compiler.graph.graph import chain
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops import Dense, Input, Level, Op, Output, fields
from nervecord.compiler.ops.fields import Shape
from nervecord.compiler.ops.op import Role, State
from nervecord.compiler.ops.reach import Reach, Sent
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.runtime.engines.c.session import CStream
from nervecord.runtime.engines.emulator.session import EmulatorStream
from nervecord.runtime.engines.torch.session import BatchedStream
from nervecord.runtime.stream import MachineStream
from nervecord.targets.onnx.engine import OnnxStream

LIMIT = 300
EACH = np.array([-LIMIT, -LIMIT + 1, -8, -7, -1, 0, 1, 7, 8, 9, 127, 128, 129, LIMIT])
"""One number for each neuron, and what enters: ends, and what lies about levels and widths."""
Equations = Callable[[Tracer, Value, Value], Value]
CASES: dict[str, Equations] = {
    "add": lambda do, x, y: x + y,
    "add each": lambda do, x, y: x + do.constant("each", EACH),
    "subtract": lambda do, x, y: x - y,
    "multiply": lambda do, x, y: x * y,
    "minimum": lambda do, x, y: do.minimum(x, y),
    "minimum of a number": lambda do, x, y: do.minimum(x, 7),
    "maximum": lambda do, x, y: do.maximum(x, y),
    "maximum of a number": lambda do, x, y: do.maximum(do.constant("least", -7), x),
    "negate": lambda do, x, y: -x,
    "absolute": lambda do, x, y: abs(x),
    "shift_left": lambda do, x, y: x << 5,
    "shift_right": lambda do, x, y: x >> 3,
    "shift_right far": lambda do, x, y: x >> 20,
    "scaled zero": lambda do, x, y: do.scaled(x, 3000, 12, "zero"),
    "scaled floor": lambda do, x, y: do.scaled(x, 3000, 12, "floor"),
    "scaled by more": lambda do, x, y: do.scaled(x, 5000, 12, "floor"),
    "scaled twice": lambda do, x, y: do.scaled(x, 3000, 12, "zero") + do.scaled(y, 100, 7, "floor"),
    "lose": lambda do, x, y: do.lose(x, 3, at_least_one=False),
    "lose at_least_one": lambda do, x, y: do.lose(x, 3, at_least_one=True),
    "count_levels": lambda do, x, y: do.count_levels(x, 8, 5, reached=False),
    "count_levels reached": lambda do, x, y: do.count_levels(x, 8, 5, reached=True),
    "left_of_levels": lambda do, x, y: do.left_of_levels(x, 8, 5, reached=False),
    "left_of_levels reached": lambda do, x, y: do.left_of_levels(x, 8, 5, reached=True),
    "wrap": lambda do, x, y: do.wrap(x + y, 8),
    "wrap_once": lambda do, x, y: do.wrap_once(x + y, -200, 399),
    "greater": lambda do, x, y: do.as_kind(x > y, "integer"),
    "greater_equal": lambda do, x, y: do.as_kind(x >= y, "integer"),
    "less": lambda do, x, y: do.as_kind(x < y, "integer"),
    "less_equal": lambda do, x, y: do.as_kind(x <= y, "integer"),
    "equal": lambda do, x, y: do.as_kind(x.equals(y), "integer"),
    "equal to each": lambda do, x, y: do.as_kind(x.equals(do.constant("each", EACH)), "integer"),
    "both": lambda do, x, y: do.as_kind((x > 0) & (y > 0), "integer"),
    "either": lambda do, x, y: do.as_kind((x > 7) | (y > 7), "integer"),
    "negated": lambda do, x, y: do.as_kind(~(x > y), "integer"),
    "where": lambda do, x, y: do.where(x > y, x, -y),
    "where of numbers": lambda do, x, y: do.where(x > 7, do.constant("high", 5), do.constant("low", -5)),
    "clip": lambda do, x, y: do.clip(x + y, -128, 127),
    "as_integer used twice": lambda do, x, y: do.as_kind(x > y, "integer") + do.where(x > y, y, x),
}


@dataclass(frozen=True, slots=True, eq=False)
class Calculation(Op):
    """Gives what an operation makes of x and of the x before it."""

    case: str = fields.choice("of `CASES`", tuple(CASES), "add")

    ROLE: ClassVar[Role] = "population"
    LEVELS: ClassVar[frozenset[Level]] = frozenset({Level.INTEGER})
    SHOWN: ClassVar[str] = "value"

    @property
    def in_shape(self) -> Shape:
        return EACH.shape

    def state(self, batch: int) -> State:
        return {name: np.zeros((batch, self.size), dtype=np.int64) for name in ("before", "value")}

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        value = CASES[self.case](do, do.x, do.state("before"))
        do.keep("before", do.x)
        do.keep("value", value)
        do.observe("value", value)
        return value

    def reach(self, arithmetic: Arithmetic, interval: int, entering: Sent) -> Reach:
        reached = over_steps(self.traced(arithmetic), Bounds.of(entering.low, entering.high), interval)
        value = reached.named("value")
        return Reach(
            current=0,
            state=(value.lowest, value.highest),
            sends=None,
            accumulator_limit=1 << 20,
            state_limits=arithmetic.membrane_range,
            exact=False,
            reached=reached,
        )


def network(case: str) -> Plan:
    nodes: list[tuple[str, Op]] = [
        ("in", Input(EACH.shape, "values", float(LIMIT))),
        ("same", Dense(2 * np.eye(EACH.size), -1, 8, 1)),
        ("calculation", Calculation(case)),
        ("out", Output(EACH.shape)),
    ]
    return plan(chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=LAVA), Schedule())


def test_every_operation_of_integers_has_a_case() -> None:
    operations = {case.split()[0] for case in CASES}
    assert operations == {*NUMERIC, *INTEGER, *COMPARISONS, *LOGIC, *SELECTIONS, *CONVERSIONS} - {"as_float", *FLOAT}


ENGINES: list[Any] = [
    EmulatorStream,
    BatchedStream,
    OnnxStream,
    pytest.param(CStream, marks=pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_it_gives_what_the_definition_gives(engine: Any, case: str) -> None:
    network_plan = network(case)
    plain = MachineStream(network_plan)
    with engine(network_plan) as other:
        # Every pair of what enters and what entered before, for each neuron.
        for shift in range(EACH.size):
            for x in (EACH, np.roll(EACH, shift), EACH[::-1]):
                block = {"in": x.astype(np.float64).reshape(1, 1, -1)}
                np.testing.assert_array_equal(other.step(block)["out"], plain.step(block)["out"])
