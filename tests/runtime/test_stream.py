"""Streams: graphs without a contract, step by step and block by block, on both engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from examples import examples
from graphs import LAVA, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import lif, random_policy

from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops import Affine, Dense, Input, IntegerMembrane, IntegerSpike, Level, Neuron, Output
from nervecord.compiler.plan.interpret import simulate
from nervecord.compiler.plan.plan import plan
from nervecord.errors import ContractError, GraphError
from nervecord.runtime.engines.emulator.session import EmulatorSession, EmulatorStream
from nervecord.runtime.stream import MachineStream, StreamSession

ENGINES = [MachineStream, EmulatorStream]


def counter() -> Graph:
    """Two inputs added by one neuron each, which spikes when three have come; in integers."""
    nodes = {
        "a": Input((2,), "spikes"),
        "b": Input((2,), "spikes"),
        "from_a": Dense(np.eye(2) * 64, 0, 8, 1),
        "from_b": Dense(np.eye(2) * 64, 0, 8, 1),
        "lif": Neuron(IntegerMembrane(0, np.zeros(2)), None, IntegerSpike(2 * 64)),
        "out": Output((2,)),
    }
    edges = (("a", "from_a"), ("b", "from_b"), ("from_a", "lif"), ("from_b", "lif"), ("lif", "out"))
    return Graph(Level.INTEGER, nodes, edges, 1e-3, LAVA)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_stream_by_hand(engine: Callable[..., Any]) -> None:
    one, none = np.array([1, 0]), np.array([0, 0])
    with engine(counter()) as session:
        assert isinstance(session, StreamSession)
        outputs = [session.step({"a": one, "b": x})["out"].tolist() for x in (one, none, none, none)]
        # Two arrive at the second step, the third spike, one step later, passes the threshold.
        assert outputs == [[0, 0], [0, 0], [1, 0], [0, 0]]
        assert session.counts.actions == 4
        assert session.counts.spikes == {"lif": 1.0}
        assert session.counts.synaptic_events == {"from_a": 4.0, "from_b": 1.0}
        assert session.counts.neuron_updates == 8
        session.reset()
        assert session.step({"a": none, "b": none})["out"].tolist() == [0, 0]
        assert session.state()["lif"]["v"].tolist() == [[0, 0]]
    with pytest.raises(ContractError, match="closed"):
        session.step({"a": one, "b": one})


@settings(max_examples=examples(30), deadline=None)
@given(seed=st.integers(0, 10**6))
def test_runs_equal_simulate(seed: int) -> None:
    """A recording whose length is no multiple of the block's, of one copy and of several."""
    case = draw(seed)
    inputs = {name: np.stack([x, np.roll(x, 2, axis=0)], axis=1)[:-1] for name, x in case.inputs.items()}
    length = len(next(iter(inputs.values())))
    if not length:
        return
    expected = simulate(case.plan.graph, inputs, case.plan.schedule).left
    for engine in ENGINES:
        session = engine(case.plan)
        for _ in range(2):  # from cleared state each time
            actual = session.run(inputs)
            assert list(actual) == list(expected)
            for name, values in expected.items():
                np.testing.assert_array_equal(actual[name], values)
        single = session.run({name: x[:, 0] for name, x in inputs.items()})
        for name, values in expected.items():
            np.testing.assert_array_equal(single[name], values[:, :1])


@pytest.mark.parametrize("state", ["reset", "carried"])
def test_what_is_held_over_a_block_is_simulated_as_a_stream_runs_it(state: Any) -> None:
    """One input for the four steps of a block; what leaves is that of the last."""
    network_plan = plan(counter(), Schedule(4, state, held=True))
    x = {"a": np.array([[1, 0], [0, 0], [1, 1]]), "b": np.array([[0, 0], [1, 0], [1, 1]])}
    trace = simulate(network_plan.graph, x, network_plan.schedule)
    assert trace.outputs["lif"].shape[:2] == (3 * network_plan.window, 1)
    for engine in ENGINES:
        with engine(network_plan) as session:
            assert np.array_equal(session.run(x)["out"], trace.left["out"])


@pytest.mark.parametrize("engine", ENGINES)
def test_arrays_come_back_as_they_were_given(engine: Callable[..., Any]) -> None:
    graph = counter()
    nodes = {name: op for name, op in graph.nodes.items() if name not in ("b", "from_b")}
    graph = graph.replace(nodes=nodes, edges=tuple(e for e in graph.edges if "b" not in e[0]))
    session = engine(graph)
    for shape in ((2,), (1, 2), (1, 1, 2)):
        assert session.step(np.ones(shape)).shape == shape
    session.reset(3)
    for shape in ((3, 2), (1, 3, 2)):
        assert session.step(np.ones(shape)).shape == shape
    assert session.step({"a": np.ones((3, 2))})["out"].shape == (3, 2)
    blocks = engine(plan(graph, Schedule(4, "reset")))
    for shape in ((4, 2), (4, 1, 2)):
        assert blocks.step(np.ones(shape)).shape == shape
    stream = engine(plan(graph, Schedule(3, "reset", held=True)))
    for shape in ((2,), (1, 2)):
        assert stream.step(np.ones(shape)).shape == shape
    assert stream.step(np.ones(2)).tolist() == [1, 1]  # of the last of three steps, and three make a spike
    for wrong in (np.ones(3), np.ones((2, 2)), np.ones((1, 1, 1, 2))):
        with pytest.raises(GraphError, match=r"a: .*shape"):
            stream.step(wrong)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (np.zeros(2), "graph: has 2 inputs"),
        ({"a": np.zeros(2)}, "b: no"),
        ({"a": np.zeros(2), "b": np.zeros(2), "c": np.zeros(2)}, "c: .* a, b"),
        ({"a": np.zeros(2), "b": np.zeros((1, 2))}, "inputs differ"),
        ({"a": np.zeros(2), "b": np.full(2, np.nan)}, "b: "),
        ({"a": np.zeros(2), "b": np.array(["1", "0"])}, "b: .*finite"),
        ({"a": np.zeros(2), "b": np.full(2, 0.5)}, "b: .*0.5"),
    ],
)
def test_wrong_inputs_are_refused(engine: Callable[..., Any], inputs: Any, words: str) -> None:
    with pytest.raises(GraphError, match=words):
        engine(counter()).step(inputs)


def test_a_float_graph_streams_and_a_policy_does_not() -> None:
    nodes = [("in", Input((2,))), ("fc", Affine(np.ones((3, 2)))), ("lif", lif(3)), ("out", Output((3,)))]
    graph = chain(Level.DISCRETE, nodes, dt=1e-3)
    session = MachineStream(graph, batch=2)
    x = np.random.default_rng(0).normal(size=(9, 2, 2)) * 2
    expected = simulate(graph, x).left["out"]
    assert expected.any()
    for k, row in enumerate(x):
        np.testing.assert_array_equal(session.step(row), expected[k])
    session.reset(rows=np.array([1]))
    assert session.state()["lif"]["v"][1].tolist() == [0, 0, 0]
    with pytest.raises(GraphError, match="is a policy"):
        MachineStream(plan(random_policy()))
    with pytest.raises(GraphError, match="integers"):
        EmulatorStream(graph)
    with pytest.raises(ContractError, match="contract"):
        EmulatorSession(plan(counter()))
    with pytest.raises(ContractError, match="batch: is 0"):
        session.reset(0)


@pytest.mark.parametrize("engine", ENGINES)
def test_inactive_copies_are_not_counted(engine: Callable[..., Any]) -> None:
    session = engine(counter(), batch=2)
    ones = {"a": np.ones((2, 2)), "b": np.ones((2, 2))}
    for _ in range(3):
        session.step(ones, np.array([True, False]))
    assert session.counts.actions == 3
    assert session.counts.spikes == {"lif": 2.0}
