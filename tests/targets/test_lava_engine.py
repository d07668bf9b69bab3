"""Engine lava against the definition, to the bit, and against its own death."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from examples import some
from lava_graphs import LAVA, Case, differences, draw, entered, expected, traits
from policies import random_dag, random_policy

from nervecord.compiler.graph.contract import Channels, Contract
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule, StateRule
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.ops import (
    Array,
    CountDecode,
    Decode,
    Dense,
    Input,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Level,
    Neuron,
    Normalise,
    Op,
    Output,
    PopulationEncode,
    Quantise,
)
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.compiler.plan.plan import plan
from nervecord.errors import ContractError, GraphError, InfeasibleError, MissingDependencyError
from nervecord.runtime.answer import NOT_FINITE
from nervecord.runtime.engines.emulator.session import EmulatorSession
from nervecord.runtime.measure.compare import compare
from nervecord.runtime.session import MachineSession, Session
from nervecord.runtime.stream import MachineStream, StreamSession
from nervecord.runtime.worker.parent import Worker
from nervecord.targets.lava import environment
from nervecord.targets.lava.engine_lava import LavaSession, LavaStream
from nervecord.targets.lava.network import LavaNetwork, start_worker

needs_lava = pytest.mark.lava
OBSERVATIONS, ACTIONS, STEPS = 5, 3, 6


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with start_worker() as running:
        yield running
    assert not list(Path("/dev/shm").glob(f"{running.shared_memory_prefix}*"))


def full(size: int, value: float) -> Array:
    return np.full(size, value)


def contract(state: StateRule) -> Contract:
    return Contract(
        environment="test",
        observation=Channels(tuple(f"o{k}" for k in range(OBSERVATIONS)), ("1",) * OBSERVATIONS),
        action=Channels(tuple(f"a{k}" for k in range(ACTIONS)), ("N",) * ACTIONS),
        steps=STEPS,
        state=state,
        control_period=0.05,
        fail_safe=(0.25,) * ACTIONS,
    )


def weights(rng: np.random.Generator, out: int, size: int) -> Array:
    return 2 * rng.integers(-60, 60, size=(out, size))


def neurons(rng: np.random.Generator, size: int, threshold: int | None, *, current: bool = False) -> Neuron:
    membrane = IntegerMembrane(300, rng.integers(-50, 50, size=size), 2)
    synapse = IntegerSynapse(2001) if current else None
    return Neuron(membrane, synapse, None if threshold is None else IntegerSpike(threshold))


def policy(state: StateRule = "reset", seed: int = 0) -> Policy:
    """Two layers and a skip: the readout hears the observation too, as late as it hears the layer between."""
    rng = np.random.default_rng(seed)
    hidden = 12
    nodes: dict[str, Op] = {
        "input": Input((OBSERVATIONS,)),
        "normalise": Normalise(full(OBSERVATIONS, 0.1), full(OBSERVATIONS, 2.0), 1e-8, 5.0),
        "quantise": Quantise(OBSERVATIONS, 16.0, 80, constant=64),
        "fc1": Dense(weights(rng, hidden, OBSERVATIONS + 1), 0, 8, 1),
        "lif1": neurons(rng, hidden, 5000, current=state == "carried"),
        "fc2": Dense(weights(rng, ACTIONS, hidden), 0, 8, 1),
        "skip": Dense(weights(rng, ACTIONS, OBSERVATIONS + 1), -4, 8, 2),
        "readout": neurons(rng, ACTIONS, None),
        "decode": Decode(full(ACTIONS, 1e-5), full(ACTIONS, 0.0), full(ACTIONS, -1.0), full(ACTIONS, 1.0)),
        "output": Output((ACTIONS,)),
    }
    edges = (
        ("input", "normalise"),
        ("normalise", "quantise"),
        ("quantise", "fc1"),
        ("quantise", "skip"),
        ("fc1", "lif1"),
        ("lif1", "fc2"),
        ("skip", "readout"),
        ("fc2", "readout"),
        ("readout", "decode"),
        ("decode", "output"),
    )
    return Policy(Graph(Level.INTEGER, nodes, edges, 0.005, LAVA), contract(state))


def two_ends(state: StateRule) -> Policy:
    """A population code, spike counts of the first layer for one part of the action, a membrane of the second for the
    other: they are read at different steps.
    """
    rng = np.random.default_rng(3)
    size = 4 * OBSERVATIONS
    nodes: dict[str, Op] = {
        "input": Input((OBSERVATIONS,)),
        "encode": PopulationEncode(np.tile(np.linspace(-2, 2, 4), (OBSERVATIONS, 1)), 0.6, always=True),
        "fc1": Dense(weights(rng, 8, size + 1), 0, 8, 1),
        "lif1": neurons(rng, 8, 300),
        "fc2": Dense(weights(rng, 1, 8), 0, 8, 3),
        "readout": neurons(rng, 1, None),
        "counted": CountDecode(rng.normal(size=(2, 4)), full(2, 0.0), full(2, -9.0), full(2, 9.0)),
        "decode": Decode(full(1, 1e-5), full(1, 0.0), full(1, -1.0), full(1, 1.0)),
        "forces": Output((2,)),
        "torque": Output((1,)),
    }
    edges = (
        ("input", "encode"),
        ("encode", "fc1"),
        ("fc1", "lif1"),
        ("lif1", "fc2"),
        ("lif1", "counted"),
        ("fc2", "readout"),
        ("readout", "decode"),
        ("counted", "forces"),
        ("decode", "torque"),
    )
    return Policy(Graph(Level.INTEGER, nodes, edges, 0.005, LAVA), contract(state))


# --------------------------------------------------------------------------------------------------------------------
# The same bits


def assert_equal_to_the_bit(worker: Worker, first: int, count: int) -> None:
    """Spikes and membranes of every population at every step, in Lava's full runtime."""
    fired = 0
    for seed in range(first, first + count):
        wrong, spikes = differences(draw(seed), worker)
        assert not wrong, f"graph {seed}"
        fired += sum(int(values.sum()) for values in spikes.values())
    assert fired


@needs_lava
def test_random_graphs_equal_the_definition(worker: Worker) -> None:
    assert_equal_to_the_bit(worker, 0, 4)


@needs_lava
@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_many_random_graphs_equal_the_definition(worker: Worker, part: int) -> None:
    assert_equal_to_the_bit(worker, 1000 * (part + 1), 25)


def test_the_graphs_drawn_cover_what_they_should() -> None:
    counts: dict[str, int] = collections.Counter()
    for seed in range(60):
        for what, has in traits(draw(seed)).items():
            counts[what] += has
    assert min(counts.values()) >= 3, counts


def delayed(mode: str, delay: int, exponent: int, bits: int, graded: bool, seed: int) -> Case:
    """One connection alone into neurons that do nothing but show what arrives."""
    rng = np.random.default_rng(seed)
    mixed = mode == "mixed"
    step = LAVA.weight_step(bits, mixed=mixed)
    low, high = {"mixed": (-256, 254), "excitatory": (0, 255), "inhibitory": (-255, 0)}[mode]
    weight = rng.integers(-(-low // step), high // step, endpoint=True, size=(4, 3)) * step
    weight[0, 0], weight[0, 1] = low // step * step if mixed else -(-low // step) * step, high // step * step
    entering = Input((3,), "values", 100.0) if graded else Input((3,), "spikes")
    readout = Neuron(IntegerMembrane(4095, np.zeros(4), 0), None, None)
    graph = chain(
        Level.INTEGER,
        [("in", entering), ("dense", Dense(weight, exponent, bits, delay)), ("shown", readout), ("out", Output((4,)))],
        dt=1e-3,
        arithmetic=LAVA,
    )
    x = rng.integers(-100 if graded else 0, 100 if graded else 1, endpoint=True, size=(delay + 12, 3))
    return Case(seed, plan(graph), {"in": x})


@needs_lava
@pytest.mark.parametrize("mode", some(["mixed", "excitatory", "inhibitory"], 1))
@pytest.mark.parametrize("graded", [False, True])
def test_a_connection_of_any_delay_rounds_as_the_definition_does(worker: Worker, mode: str, graded: bool) -> None:
    """Lava's DelayDense is a model of its own: its truncation, its shifts and its buffer are not those of Dense."""
    for k, (delay, exponent, bits) in enumerate([(2, -8, 8), (63, -1, 5), (2, 0, 8), (5, 1, 2), (1, -3, 8)]):
        if mode == "mixed" or bits > 1:
            wrong, _ = differences(delayed(mode, delay, exponent, bits, graded, k), worker)
            assert not wrong, (delay, exponent, bits)


@needs_lava
@pytest.mark.parametrize("delay", [1, 4])
def test_a_connection_with_several_sources_and_several_destinations(worker: Worker, delay: int) -> None:
    """Their spikes add up before the weights: two at once are a 2, which is no binary spike any more."""
    rng = np.random.default_rng(5)

    def dense(delay: int = 1) -> Dense:
        return Dense(weights(rng, 4, 4), 0, 8, delay)

    nodes: dict[str, Op] = {
        "in": Input((4,), "values", 9.0),
        "also": Input((4,), "spikes"),
        "a": dense(),
        "b": dense(),
        "one": neurons(rng, 4, 100),
        "two": neurons(rng, 4, 90),
        "joined": dense(delay),
        "left": neurons(rng, 4, 200),
        "right": neurons(rng, 4, 150, current=True),
        "out": Output((4,)),
        "other": Output((4,)),
    }
    edges = (
        ("in", "a"),
        ("also", "b"),
        ("a", "one"),
        ("b", "two"),
        ("one", "joined"),
        ("also", "joined"),
        ("two", "joined"),
        ("joined", "left"),
        ("joined", "right"),
        ("left", "out"),
        ("right", "other"),
    )
    network_plan = plan(Graph(Level.INTEGER, nodes, edges, 1e-3, LAVA))
    x = {"in": rng.integers(-9, 10, size=(40, 4)), "also": rng.integers(0, 2, size=(40, 4))}
    case = Case(0, network_plan, x)
    outputs, _ = expected(case) or ({}, {})
    assert (outputs["one"] + outputs["two"] + x["also"]).max() > 1
    wrong, spikes = differences(case, worker)
    assert not wrong
    assert min(int(values.sum()) for values in spikes.values()) > 0


@needs_lava
@pytest.mark.parametrize("state", some(["carried", "reset"], 1))
@pytest.mark.parametrize("make", [policy, two_ends])
def test_a_policy_acts_as_the_definition_does(worker: Worker, state: StateRule, make) -> None:
    rng = np.random.default_rng(1)
    subject = make(state)
    with (
        LavaSession(subject) as lava,
        LavaSession(subject, full_trace=False) as quick,
        MachineSession(subject) as plain,
    ):
        assert isinstance(lava, Session)
        for _ in range(2):
            for _ in range(3):
                observation = rng.normal(size=OBSERVATIONS) * 2
                action = plain.step(observation)
                np.testing.assert_array_equal(lava.step(observation), action)
                np.testing.assert_array_equal(quick.step(observation), action)
                trace, reference_trace = lava.trace(), plain.trace()
                assert set(trace) == {"lif1", "readout"}
                for name in trace:
                    np.testing.assert_array_equal(trace[name], reference_trace[name])
            for session in (lava, quick, plain):
                session.reset(1)
        assert lava.counts == plain.counts == quick.counts
        assert lava.counts.spikes["lif1"] > 0
        shim = environment.status().shim
        assert lava.provenance == {"python": lava.worker.versions.python, "lava": "0.10.0", "shim": str(shim)}


@needs_lava
@pytest.mark.parametrize(
    "make",
    [
        lambda: random_policy(4, sizes=(5, 12, 3), state="carried", current=True, population=4),
        lambda: random_policy(4, sizes=(5, 12, 3), current=True, output_population=3),
        lambda: random_dag(1),
        lambda: random_dag(2, carried=True, recurrent=True),
    ],
    ids=["population code, carried", "spike counts", "branches", "loops"],
)
def test_compiled_policies_act_as_the_emulator_does(worker: Worker, make) -> None:
    """With counts Lava reads no membrane at all. The bias of a synaptic current is a channel, or a neuron more."""
    policy = make()
    integer, _ = lower(policy, LAVA, calibrate(policy))
    with LavaSession(integer) as lava, EmulatorSession(integer) as fast:
        assert compare(lava, fast, policy.recorded[:5]).identical
        assert lava.counts == fast.counts
        assert sum(lava.counts.spikes.values()) > 0


@needs_lava
def test_an_observation_that_cannot_be_trusted(worker: Worker) -> None:
    subject = policy("carried")
    rows = np.random.default_rng(2).normal(size=(3, OBSERVATIONS))
    rows[1, 2] = np.nan
    with LavaSession(subject, full_trace=False) as lava, MachineSession(subject) as plain:
        for row in rows:
            np.testing.assert_array_equal(lava.step(row[None]), plain.step(row[None]))
        assert lava.counts.fail_safe == {NOT_FINITE: 1}
        with pytest.raises(ContractError, match="full_trace"):
            lava.trace()
        with pytest.raises(ContractError, match="batch: is 2"):
            lava.reset(2)
        lava.reset(rows=np.array([False]))
        np.testing.assert_array_equal(lava.step(rows[0]), plain.step(rows[0]))
        lava.reset(rows=np.array([0]))
        plain.reset()
        np.testing.assert_array_equal(lava.step(rows[0]), plain.step(rows[0]))
        with pytest.raises(ContractError, match="shape"):
            lava.step(rows[0, :3])
    with pytest.raises(ContractError, match="closed"):
        lava.step(rows[0])


# --------------------------------------------------------------------------------------------------------------------
# Streams


@needs_lava
@pytest.mark.parametrize("state", ["reset", "carried"])
def test_a_stream_gives_what_the_definition_gives(worker: Worker, state: StateRule) -> None:
    """Of a graph that is no policy: step by step with its state carried, or in blocks with windows of its own."""
    case = next(
        c
        for c in map(draw, range(100))
        if c.plan.schedule.state == state and len(c.plan.reads) > 1 and traits(c)["readouts"]
    )
    steps = case.plan.schedule.steps
    x = {name: values[: 4 * steps] for name, values in case.inputs.items()}
    with LavaStream(case.plan) as lava, MachineStream(case.plan) as plain:
        assert isinstance(lava, StreamSession)
        reference_outputs = plain.run(x)
        for name, values in lava.run(x).items():
            np.testing.assert_array_equal(values, reference_outputs[name])
        block = {name: values[:steps] for name, values in x.items()}
        for session in (lava, plain):
            session.reset()
            session.step(block)
        for name, values in lava.trace().items():
            np.testing.assert_array_equal(values, plain.trace()[name])
        assert lava.counts == plain.counts
        with pytest.raises(ContractError, match="batch: is 2"):
            lava.reset(2)


@needs_lava
def test_a_stream_takes_what_it_says(worker: Worker) -> None:
    nodes: list[tuple[str, Op]] = [
        ("in", Input((2,), "spikes")),
        ("dense", Dense(np.array([[254, 100]]), 0, 8, 1)),
        ("lif", Neuron(IntegerMembrane(10, np.zeros(1), 0), None, IntegerSpike(200))),
        ("out", Output((1,))),
    ]
    with LavaStream(chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=LAVA), full_trace=False) as lava:
        assert [int(lava.step(np.array([1, 0]))[0]) for _ in range(3)] == [0, 1, 1]
        with pytest.raises(GraphError, match=r"in: .*2"):
            lava.step(np.array([2, 0]))
        with pytest.raises(ContractError, match="full_trace"):
            lava.trace()
        assert lava.provenance["lava"] == "0.10.0"
    with pytest.raises(GraphError, match="a policy"):
        LavaStream(plan(policy()))


# --------------------------------------------------------------------------------------------------------------------
# Refusals, which need no Lava


def test_without_an_environment_it_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERVECORD_HOME", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="nervecord targets install lava"):
        LavaSession(policy())


@pytest.mark.parametrize(
    ("changes", "phrases"),
    [
        ({"current_bits": 16}, {"current_bits is 16"}),
        ({"compare": ">=", "reset": "subtract"}, {"compare is >=", "reset is subtract"}),
        ({"readout": "membrane"}, {"readout is membrane"}),
    ],
)
def test_another_arithmetic_is_refused_by_name(changes: dict[str, object], phrases: set[str]) -> None:
    case = draw(0)
    other = dataclasses.replace(LAVA, **changes)  # type: ignore[arg-type]
    network_plan = plan(case.plan.graph.replace(arithmetic=other), case.plan.schedule)
    with pytest.raises(InfeasibleError) as caught:
        LavaNetwork(network_plan)
    assert all(words in str(caught.value) for words in phrases)


def test_what_cannot_be_proved_is_refused_by_name() -> None:
    """A membrane that is read may pass Lava's largest threshold, where its neurons spike."""
    nodes: list[tuple[str, Op]] = [
        ("in", Input((1,), "spikes")),
        ("dense", Dense(np.array([[254]]), 0, 8, 1)),
        ("read", Neuron(IntegerMembrane(0, np.array([4095]), 7), None, None)),
        ("out", Output((1,))),
    ]
    with pytest.raises(InfeasibleError, match=r"read.*spike"):
        LavaNetwork(plan(chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=LAVA)))


def test_what_enters_a_case_fills_its_blocks() -> None:
    case = next(c for c in map(draw, range(50)) if c.plan.schedule.resets and c.plan.latency)
    x = entered(case)
    assert isinstance(case.plan.schedule, Schedule)
    assert {len(rows) % case.plan.window for rows in x.values()} == {0}
