"""What looks like a leaky neuron and is none is run by its equations, and what an engine has no form of is refused."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from graphs import LAVA

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.body.bounds import Bounds
from nervecord.compiler.body.intervals import over_steps
from nervecord.compiler.body.trace import Tracer, Value
from nervecord.compiler.graph.graph import chain
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops import Dense, Input, IntegerMembrane, IntegerSpike, Level, Neuron, Op, Output, fields
from nervecord.compiler.ops.fields import Shape
from nervecord.compiler.ops.op import Role, State
from nervecord.compiler.ops.reach import Reach, Sent
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.errors import InfeasibleError
from nervecord.runtime.engines.c.session import CStream
from nervecord.runtime.engines.emulator.session import EmulatorStream
from nervecord.runtime.stream import MachineStream

MODES = ("ternary", "read spikes", "two spikes", "wide scaled", "wide wrap")


@dataclass(frozen=True, slots=True, eq=False)
class Lookalike(Op):
    """Has the equations of a part of a leaky neuron, and sends something else."""

    mode: str = fields.choice("what it is", MODES, "ternary")

    ROLE: ClassVar[Role] = "population"
    LEVELS: ClassVar[frozenset[Level]] = frozenset({Level.INTEGER})
    SHOWN: ClassVar[str] = "v"

    @property
    def in_shape(self) -> Shape:
        return (3,)

    @property
    def messages(self) -> bool:
        return self.mode == "ternary"

    @property
    def spikes(self) -> bool:
        return self.mode == "two spikes"

    def state(self, batch: int) -> State:
        return {"v": np.zeros((batch, 3), dtype=np.int64)}

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        match self.mode:
            case "ternary":
                v = do.clip(do.x, -1, 1)
                result = v
            case "wide scaled":
                v = result = do.clip(do.scaled(do.x << 30, 100, 7, "floor"), -100, 100)
            case "wide wrap":
                v = result = do.clip(do.wrap(do.x << 40, 40), -100, 100)
            case _:
                v = do.clip(do.state("v") + do.x, -1000, 1000)
                fired = v > do.constant("level", 100)
                v, result = do.where(fired, 0, v), do.as_kind(fired, "integer")
                if self.mode == "two spikes":
                    result = result << 1
        do.keep("v", v)
        do.observe("v", v)
        return result

    def reach(self, arithmetic: Arithmetic, interval: int, entering: Sent) -> Reach:
        reached = over_steps(self.traced(arithmetic), Bounds.of(entering.low, entering.high), interval)
        v, one = reached.named("v"), np.ones(3, dtype=np.int64)
        sends = Sent(-one if self.messages else 0 * one, one) if self.sending else None
        return Reach(0, (v.lowest, v.highest), sends, 1 << 20, arithmetic.membrane_range, False, reached)


def dense(size: int = 3) -> Dense:
    return Dense(2 * np.eye(size), -1, 8, 1)


def readout(size: int, decay: int = 4095) -> Neuron:
    return Neuron(IntegerMembrane(decay, np.zeros(size, dtype=np.int32)))


def network(mode: str) -> Plan:
    nodes: list[tuple[str, Op]] = [("in", Input((3,), "values", 300.0)), ("same", dense()), ("it", Lookalike(mode))]
    if mode in ("ternary", "two spikes"):
        nodes += [("behind", dense()), ("read", readout(3))]
    return plan(chain(Level.INTEGER, [*nodes, ("out", Output((3,)))], dt=1e-3, arithmetic=LAVA), Schedule())


@pytest.mark.parametrize("mode", ["ternary", "read spikes"])
def test_what_it_sends_belongs_to_the_fast_form(mode: str) -> None:
    network_plan = network(mode)
    with EmulatorStream(network_plan) as fast, MachineStream(network_plan) as definition:
        for x in [[-5, 0, 5], [60, 60, 60], [60, 300, -300], [60, 60, 60]] * 2:
            block = np.array(x, dtype=np.float64).reshape(1, 1, 3)
            np.testing.assert_array_equal(fast.step(block), definition.step(block))


def test_spikes_that_are_more_than_one_are_refused() -> None:
    with pytest.raises(InfeasibleError, match=r"0 to 2, .*0 to 1"):
        EmulatorStream(network("two spikes"))


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.parametrize(("mode", "words"), [("wide scaled", "'scaled' .*32"), ("wide wrap", "32 bits")])
def test_c_refuses_what_its_forms_do_not_hold(mode: str, words: str) -> None:
    with pytest.raises(InfeasibleError, match=words):
        CStream(network(mode))


def test_a_threshold_at_the_last_number_of_float32() -> None:
    """A membrane one above it rounds to it: such states are kept in 64 bits."""
    arithmetic = dataclasses.replace(
        LAVA,
        membrane_bits=32,
        current_bits=32,
        current_overflow="saturate-symmetric",
        product_bits=53,
        input_shift=0,
        threshold_bits=26,
        threshold_shift=0,
        bias_bits=24,
        bias_exponent_high=16,
        readout="membrane",
    )
    bias = np.array([4193282, 4193283], dtype=np.int32)
    nodes: list[tuple[str, Op]] = [
        ("in", Input((2,), "values", float(1 << 14))),
        ("fc", Dense(np.eye(2) * 96, 3, 8, 1)),
        ("neurons", Neuron(IntegerMembrane(4095, bias), None, IntegerSpike(1 << 24))),
        ("behind", dense(2)),
        ("read", readout(2)),
        ("out", Output((2,))),
    ]
    network_plan = plan(chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=arithmetic), Schedule())
    spikes = 0
    with EmulatorStream(network_plan) as fast, MachineStream(network_plan) as definition:
        for x in [1 << 14, 0, 0, 0, 0]:
            block = np.full((1, 1, 2), float(x))
            np.testing.assert_array_equal(fast.step(block), definition.step(block))
            spikes += int(definition.trace()["neurons"].sum())
    assert spikes > 0


def test_a_state_that_grows_on_one_side_and_then_on_the_other_has_no_bound() -> None:
    do = Tracer("integer")
    s = do.state("s")
    do.keep("s", do.where(s > 1 << 30, s - (1 << 31), s + 1))
    reached = over_steps(do.body(-s), Bounds.of(0, 0), 0)
    assert reached.values[reached.body.result].highest >= -reached.state["s"].lowest
