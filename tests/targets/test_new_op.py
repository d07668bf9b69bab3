"""A neuron that nothing here has: its equations alone make it run in the definition, the proof, torch, ONNX and C."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from graphs import LAVA

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.body.bounds import Bounds
from nervecord.compiler.body.intervals import over_steps
from nervecord.compiler.body.trace import Tracer, Value
from nervecord.compiler.graph.graph import chain
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.lower.ranges import prove
from nervecord.compiler.ops import Array, Dense, Input, Level, Op, Output, Role, Shape, State, fields
from nervecord.compiler.ops.reach import Reach, Sent, spiking
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.runtime.engines.c.session import CStream
from nervecord.runtime.engines.emulator.session import EmulatorStream
from nervecord.runtime.engines.torch.session import BatchedStream
from nervecord.runtime.stream import MachineStream
from nervecord.targets.onnx.engine import OnnxStream


@dataclass(frozen=True, slots=True, eq=False)
class Adaptive(Op):
    """A leaky neuron whose threshold rises by a step at each spike, and decays."""

    threshold: Array = fields.array("mantissas, at rest", "n", dtype=np.int32)
    rise: int = fields.integer("of the threshold at a spike, in the membrane's unit", 0)
    decay: int = fields.integer("code of the membrane's decay", 0)
    recovery: int = fields.integer("code of the threshold's decay", 0)

    ROLE: ClassVar[Role] = "population"
    LEVELS: ClassVar[frozenset[Level]] = frozenset({Level.INTEGER})
    SHOWN: ClassVar[str] = "v"

    @property
    def in_shape(self) -> Shape:
        return (int(self.threshold.size),)

    @property
    def spikes(self) -> bool:
        return True

    def state(self, batch: int) -> State:
        return {name: np.zeros((batch, self.size), dtype=np.int64) for name in ("v", "raised")}

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        assert arithmetic is not None
        a = arithmetic
        raised = a.decayed(do.state("raised"), self.recovery, "raised")
        v = a.membrane(a.decayed(do.state("v"), self.decay, "v") + (do.x << a.input_shift))
        do.observe("membrane", v)
        fired = v > do.constant("threshold", self.threshold.astype(np.int64) << a.threshold_shift) + raised
        do.keep("v", do.where(fired, 0, v))
        do.keep("raised", do.where(fired, raised + do.constant("rise", self.rise), raised))
        return do.as_kind(fired, "integer")

    def reach(self, arithmetic: Arithmetic, interval: int, entering: Sent) -> Reach:
        low, high = arithmetic.membrane_range
        most = arithmetic.settled(Bounds.of(0, self.rise), self.recovery, 0).highest
        proposals = [{"v": Bounds.of(low, high), "raised": Bounds.of(0, most)}]
        x = Bounds.of(entering.low, entering.high)
        reached = over_steps(self.traced(arithmetic), x, interval, proposals=() if interval else proposals)
        membrane = reached.named("membrane")
        return Reach(
            current=0,
            state=(membrane.lowest, membrane.highest),
            sends=spiking(self.size, arithmetic),
            accumulator_limit=arithmetic.accumulator_limit,
            state_limits=(low, high),
            exact=True,
            reached=reached,
        )


def network(seed: int, schedule: Schedule) -> Plan:
    rng = np.random.default_rng(seed)

    def neurons() -> Adaptive:
        return Adaptive(rng.integers(20, 60, 6), 1500, int(rng.integers(100, 2000)), int(rng.integers(200, 900)))

    nodes: list[tuple[str, Op]] = [
        ("in", Input((4,), "values", 30.0)),
        ("first", Dense(2 * rng.integers(-20, 40, (6, 4)), 0, 8, 1)),
        ("a", neurons()),
        ("second", Dense(2 * rng.integers(-20, 60, (6, 6)), -1, 8, 1)),
        ("b", neurons()),
        ("out", Output((6,))),
    ]
    return plan(chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=LAVA), schedule)


ENGINES: list[Any] = [
    EmulatorStream,
    BatchedStream,
    OnnxStream,
    pytest.param(CStream, marks=pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")),
]


@pytest.mark.parametrize("schedule", [Schedule(), Schedule(5, "reset")], ids=["carried", "cleared"])
@pytest.mark.parametrize("engine", ENGINES)
def test_its_equations_run_everywhere(engine: Any, schedule: Schedule) -> None:
    for seed in range(3):
        network_plan = network(seed, schedule)
        rng = np.random.default_rng(seed)
        plain, other = MachineStream(network_plan), engine(network_plan)
        ranges = {proved.name: proved.membrane for proved in prove(network_plan)}
        spikes = 0
        with other:
            for _ in range(8):
                block = {"in": rng.integers(-30, 31, (schedule.steps, 1, 4)).astype(np.float64)}
                expected, actual = plain.step(block)["out"], other.step(block)["out"]
                np.testing.assert_array_equal(actual, expected)
                spikes += int(expected.sum())
                for name, (low, high) in ranges.items():
                    v = plain.state()[name]["v"]
                    assert low <= v.min()
                    assert v.max() <= high
        assert 0 < spikes < 8 * schedule.steps * 6
