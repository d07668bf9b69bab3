"""Engine torch reads bodies: every operation has a reading or is refused, and every choice is the definition."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import sigma_delta_nets
from batched import assert_same_stream

from nervecord.compiler.body.expression import CONVERSIONS, OPERATIONS, SOURCES
from nervecord.compiler.body.trace import Tracer
from nervecord.compiler.graph.graph import chain
from nervecord.compiler.ops import Affine, Input, Level, Membrane, Neuron, Op, Output, Scale, Spike, Synapse
from nervecord.compiler.ops.neurons import RESETS
from nervecord.compiler.plan.plan import plan
from nervecord.errors import GraphError
from nervecord.runtime.engines.torch import equations
from nervecord.runtime.engines.torch.machine import BatchedMachine
from nervecord.runtime.engines.torch.place import Place
from nervecord.runtime.engines.torch.session import BatchedStream
from nervecord.runtime.stream import MachineStream


def test_an_operation_without_a_reading_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(equations.SHARED, "multiply")
    nodes = [("in", Input((2,))), ("scaled", Scale(np.array([2.0, 3.0]))), ("out", Output((2,)))]
    with pytest.raises(GraphError, match="no reading of the operation 'multiply'"):
        BatchedMachine(chain(Level.DISCRETE, nodes, dt=1e-3))


def test_a_number_may_stand_before_the_value_that_it_is_compared_with() -> None:
    do = Tracer("float")
    body = do.body(do.minimum(do.constant("most", 2.0), do.maximum(do.constant("least", -1.0), do.x)))
    step = equations.equations(body, Place(torch.device("cpu"), torch.float64), "node")
    assert step({}, torch.tensor([[-3.0, 0.5, 7.0]], dtype=torch.float64)).tolist() == [[-1.0, 0.5, 2.0]]


def test_every_operation_has_a_reading() -> None:
    assert set(OPERATIONS) == {*equations.SHARED, *SOURCES, *CONVERSIONS}


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_powers_of_two_are_exact(precision: torch.dtype) -> None:
    do = Tracer("float")
    step = equations.equations(do.body(do.power_of_two(do.x)), Place(torch.device("cpu"), precision), "node")
    assert step({}, torch.arange(33, dtype=precision)).tolist() == [2.0**-k for k in range(33)]


@pytest.mark.parametrize("seed", range(12))
def test_networks_of_changes_are_the_definition_to_the_bit(seed: int) -> None:
    assert_same_stream(sigma_delta_nets.draw(seed), 3, "cpu")


@pytest.mark.parametrize("rule", RESETS)
@pytest.mark.parametrize("refractory", [0, 2])
def test_every_reset_rule_is_the_definition(rule: str, refractory: int) -> None:
    rng, one = np.random.default_rng(3), np.ones(6)
    lif = Neuron(
        Membrane(0.8 * one, one, 0.1 * one), Synapse(0.5 * one, one), Spike(0.9 * one, 0.25 * one, rule, refractory)
    )
    nodes: list[tuple[str, Op]] = [
        ("in", Input((4,))),
        ("fc", Affine(rng.normal(size=(6, 4)))),
        ("lif", lif),
        ("out", Output((6,))),
    ]
    network_plan = plan(chain(Level.DISCRETE, nodes, dt=1e-3))
    x = {"in": rng.normal(size=(40, 1, 4))}
    plain, engine = MachineStream(network_plan), BatchedStream(network_plan)
    for t in range(40):
        block = {"in": x["in"][t : t + 1]}
        np.testing.assert_array_equal(engine.step(block)["out"], plain.step(block)["out"])
