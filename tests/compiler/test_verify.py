"""Every rule of a level is broken once, and found by its code and node; what is not refused, runs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import graphs
import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import li, lif, population_code, random_policy, with_node

from nervecord.compiler.graph.contract import Channels
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.verify import require, verify
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.ops import (
    Affine,
    ArgmaxDecode,
    BiasChannel,
    ContinuousMembrane,
    Conv,
    CountDecode,
    Decode,
    Dense,
    Flatten,
    Input,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Level,
    Membrane,
    Neuron,
    Normalise,
    Op,
    Output,
    Pool,
    Quantise,
    Scale,
    Spike,
    Threshold,
)
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.compiler.plan.interpret import Machine
from nervecord.compiler.plan.plan import plan
from nervecord.errors import GraphError

POLICY = random_policy(sizes=(5, 4, 2))
LOWERED = lower(POLICY, graphs.LAVA, calibrate(POLICY))[0]
assert isinstance(LOWERED, Policy)
INTEGER: Policy = LOWERED


def put(subject: Policy, name: str, op: Op | None = None, **changes: Any) -> Policy:
    """The policy with another op of this name, or with fields of it changed."""
    return with_node(subject, name, op if op is not None else subject.graph.nodes[name].replace(**changes))


def part(subject: Policy, name: str, which: str, **changes: Any) -> Policy:
    """The same for fields of a part."""
    array = getattr(subject.graph.nodes[name], which)
    return put(subject, name, **{which: dataclasses.replace(array, **changes)})


def wired(
    subject: Policy,
    *edges: tuple[str, str],
    without: tuple[str, ...] = (),
    cut: tuple[str, str] | None = None,
    **nodes: Op,
) -> Policy:
    """The policy with more nodes and edges, and without some nodes or an edge."""
    graph = subject.graph
    old_nodes = {name: op for name, op in graph.nodes.items() if name not in without}
    old_edges = tuple(edge for edge in graph.edges if not {*edge} & {*without} and edge != cut)
    return subject.replace(graph=graph.replace(nodes={**old_nodes, **nodes}, edges=old_edges + edges))


def on_graph(subject: Policy, **changes: Any) -> Policy:
    return subject.replace(graph=subject.graph.replace(**changes))


def poisoned(values: Any, value: float) -> np.ndarray:
    array = np.array(values)
    array.flat[0] = value
    return array


NODES, EDGES = POLICY.graph.nodes, POLICY.graph.edges
BROKEN: dict[str, tuple[Policy, str]] = {
    "not-finite": (put(POLICY, "fc1", weight=poisoned(NODES["fc1"].weight, np.nan)), "fc1"),  # type: ignore[attr-defined]
    "illegal-node": (put(POLICY, "lif1", Neuron(ContinuousMembrane(np.ones(4)))), "lif1"),
    "shape": (put(POLICY, "fc1", Affine(np.ones((3, 5)))), "lif1"),
    "decay": (part(POLICY, "lif1", "membrane", decay=np.full(4, 1.5)), "lif1"),
    "part": (put(POLICY, "lif1", synapse=IntegerSynapse(5)), "lif1"),
    "choice": (part(POLICY, "lif1", "spike", reset="halve"), "lif1"),
    "refractory": (part(POLICY, "lif1", "spike", refractory=-1), "lif1"),
    "missing": (put(POLICY, "lif1", membrane=None), "lif1"),
    "delay": (put(POLICY, "fc1", delay=-1), "fc1"),
    "type": (put(POLICY, "fc1", delay=1.5), "fc1"),
    "variance": (put(POLICY, "normalise", variance=poisoned(np.ones(5), -1.0)), "normalise"),
    "clip": (put(POLICY, "normalise", clip=0.0), "normalise"),
    "epsilon": (put(POLICY, "normalise", variance=np.zeros(5), epsilon=0.0), "normalise"),
    "limits": (put(POLICY, "decode", low=np.full(2, 3.0)), "decode"),
    "dt": (on_graph(POLICY, dt=None), "graph"),
    "no-end": (wired(POLICY, without=("action",)), "graph"),
    "disconnected": (on_graph(POLICY, edges=EDGES[1:]), "normalise"),
    "end": (wired(POLICY, ("decode", "observation")), "observation"),
    "contract": (put(POLICY, "observation", Input((6,))), "observation"),
    "misplaced": (
        wired(POLICY, ("readout", "late"), ("late", "decode"), late=Normalise(*np.ones((2, 2)), 1e-8, 1.0)),
        "late",
    ),
    "decoder": (wired(POLICY, ("readout", "action"), without=("decode",)), "action"),
    "cycle": (wired(POLICY, ("lif1", "back"), ("back", "lif1"), back=Affine(np.eye(4))), "lif1"),
    "range": (part(INTEGER, "lif1", "membrane", decay=4096), "lif1"),
    "weight-grid": (put(INTEGER, "fc1", weight=INTEGER.graph.nodes["fc1"].weight + 1), "fc1"),  # type: ignore[attr-defined]
    "arithmetic": (on_graph(INTEGER, arithmetic=None), "graph"),
    "readout": (on_graph(INTEGER, arithmetic=dataclasses.replace(graphs.LAVA, readout="none")), "readout"),
    "limit": (put(INTEGER, "quantise", limit=1 << 20), "quantise"),
    "wiring": (wired(INTEGER, ("lif1", "decode"), ("fc1", "fc2")), "fc2"),
    "analogue-layer": (put(INTEGER, "lif1", spike=None), "lif1"),
    "empty": (put(POLICY, "fc1", Affine(np.ones((0, 5)))), "fc1"),
}


@pytest.mark.parametrize("code", BROKEN)
def test_each_violation_is_found_where_it_is(code: str) -> None:
    subject, node = BROKEN[code]
    assert (code, node) in {(finding.code, finding.node) for finding in verify(subject)}
    with pytest.raises(GraphError, match=node):
        require(subject, where="file.nir")


def test_a_bias_channels_value_is_one_that_the_arithmetic_takes() -> None:
    beyond = graphs.LAVA.graded_limit + 1
    findings = verify(put(INTEGER, "quantise", constant=beyond))
    assert [(f.value, f.limit) for f in findings if f.code == "limit"] == [(beyond, beyond - 1)]


@pytest.mark.parametrize("carries", ["values", "unknown"])
def test_a_bias_channel_stands_beside_spikes_alone(carries: Any) -> None:
    """Of values engines would take it at its word, that what it sends are spikes."""
    nodes: list[tuple[str, Op]] = [
        ("in", Input((3,), carries, 1.0)),
        ("always", BiasChannel(3)),
        ("fc", Dense(np.ones((2, 4)), 0, 8, 1)),
        ("lif", Neuron(IntegerMembrane(5, np.zeros(2)), None, IntegerSpike(3))),
        ("out", Output((2,))),
    ]
    graph = chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=graphs.LAVA)
    assert [(finding.code, finding.node) for finding in verify(graph)] == [("wiring", "always")]
    spiking = graph.replace(nodes={**graph.nodes, "in": Input((3,), "spikes")})
    assert verify(spiking) == []


def test_every_violation_is_listed_at_once() -> None:
    worse = put(put(POLICY, "fc1", weight=poisoned(NODES["fc1"].weight, np.inf)), "normalise", clip=-1.0)  # type: ignore[attr-defined]
    assert {"not-finite", "clip", "dt"} <= {finding.code for finding in verify(on_graph(worse, dt=0.0))}


def test_time_constants_are_positive_and_levels_are_kept() -> None:
    one = np.ones(1)
    neuron = Neuron(ContinuousMembrane(one, -one, 0 * one), None, Spike(one, 0 * one))
    graph = chain(Level.IMPORTED, [("in", Input((1,))), ("lif", neuron), ("out", Output((1,)))])
    assert [finding.code for finding in verify(graph)] == ["tau"]
    assert "level" in {finding.code for finding in verify(graph, Level.DISCRETE)}
    assert verify(POLICY) == verify(INTEGER) == []


def test_cycles_need_a_delay_where_they_are_executed() -> None:
    edges = (("in", "lif"), ("lif", "loop"), ("loop", "lif"), ("lif", "out"))
    nodes: dict[str, Op] = {"in": Input((1,)), "lif": lif(1), "loop": Affine([[1.0]]), "out": Output((1,))}  # type: ignore[arg-type]
    graph = Graph(Level.DISCRETE, nodes, edges, dt=1e-3)
    assert [finding.code for finding in verify(graph)] == ["cycle"]
    assert graph.order()[1] == ("lif", "loop", "out")
    with pytest.raises(GraphError, match="no delay"):
        plan(graph)
    delayed = graph.replace(nodes={**nodes, "loop": Affine([[1.0]], None, 1)})  # type: ignore[arg-type]
    assert verify(delayed) == []


def test_too_many_nodes_are_refused_before_they_are_looked_at() -> None:
    nodes: dict[str, Op] = {f"n{k}": Input((1,)) for k in range((1 << 16) + 1)}
    assert [finding.code for finding in verify(Graph(Level.DISCRETE, nodes, (), 1e-3))] == ["size"]


def test_graphs_and_ops_are_values() -> None:
    op = POLICY.graph.nodes["fc1"]
    with pytest.raises(ValueError, match="read-only"):
        op.weight[0, 0] = 1.0  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="read-only"):
        POLICY.graph.nodes["lif1"].membrane.decay[0] = 1.0  # type: ignore[attr-defined]
    with pytest.raises(dataclasses.FrozenInstanceError):
        op.delay = 3  # type: ignore[attr-defined,misc]
    with pytest.raises(TypeError):
        POLICY.graph.nodes["x"] = op  # type: ignore[index]
    with pytest.raises(GraphError, match="nowhere"):
        POLICY.graph.replace(edges=(("observation", "nowhere"),))
    with pytest.raises(GraphError, match="twice"):
        POLICY.graph.replace(edges=EDGES + EDGES[:1])
    assert POLICY == random_policy(sizes=(5, 4, 2)) != random_policy(seed=1, sizes=(5, 4, 2))


# --------------------------------------------------------------------------------------------------------------------
# Ill-formed graphs: refused by name, or run; there is no third case


SKIP = Affine(np.ones((2, 5)))
ILL_FORMED: dict[str, tuple[Policy, str | None]] = {
    "edges in another order": (on_graph(POLICY, edges=EDGES[::-1]), None),
    "edges in another order, integers": (on_graph(INTEGER, edges=INTEGER.graph.edges[::-1]), None),
    "two edges swapped": (on_graph(INTEGER, edges=(*INTEGER.graph.edges[3::-1], *INTEGER.graph.edges[4:])), None),
    "nodes in another order": (on_graph(INTEGER, nodes=dict(reversed(INTEGER.graph.nodes.items()))), None),
    "skip": (wired(POLICY, ("normalise", "around"), ("around", "readout"), around=SKIP), None),
    "skip, integers": (
        wired(INTEGER, ("quantise", "around"), ("around", "readout"), around=Dense(np.full((2, 5), 2), delay=2)),
        None,
    ),
    "skip, integers, not delayed": (
        wired(INTEGER, ("quantise", "around"), ("around", "readout"), around=Dense(np.full((2, 5), 2))),
        "unbalanced-paths",
    ),
    "feedback edge": (wired(POLICY, ("readout", "lif1")), "shape"),
    "feedback connection": (wired(POLICY, ("lif1", "back"), ("back", "lif1"), back=Affine(np.eye(4), None, 1)), None),
    "feedback connection without a delay": (
        wired(POLICY, ("lif1", "back"), ("back", "lif1"), back=Affine(np.eye(4))),
        "cycle",
    ),
    "feedback in a window of integers": (
        wired(INTEGER, ("lif1", "back"), ("back", "lif1"), back=Dense(np.full((4, 4), 2))),
        "recurrent-window",
    ),
    "feedback edge in integers": (wired(INTEGER, ("lif1", "fc1")), "shape"),
    "two populations into one connection": (
        wired(POLICY, ("normalise", "fc3"), ("fc3", "lif3"), ("lif3", "fc2"), fc3=Affine(np.ones((4, 5))), lif3=lif(4)),
        None,
    ),
    "two populations into one connection, integers": (
        wired(
            INTEGER,
            ("quantise", "fc3"),
            ("fc3", "lif3"),
            ("lif3", "fc2"),
            fc3=Dense(np.full((4, 5), 2)),
            lif3=INTEGER.graph.nodes["lif1"],
        ),
        None,
    ),
    "two readouts into one decoder": (
        wired(POLICY, ("lif1", "fc3"), ("fc3", "more"), ("more", "decode"), fc3=Affine(np.ones((2, 4))), more=li(2)),
        None,
    ),
    "two readouts into one decoder, integers": (
        wired(
            INTEGER,
            ("lif1", "fc3"),
            ("fc3", "more"),
            ("more", "decode"),
            fc3=Dense(np.full((2, 4), 2)),
            more=INTEGER.graph.nodes["readout"],
        ),
        None,
    ),
    "an unconnected connection and its neurons": (
        wired(POLICY, ("fc9", "lif9"), fc9=Affine(np.ones((4, 5))), lif9=lif(4)),
        "disconnected",
    ),
    "an island that is a loop": (
        wired(POLICY, ("fc9", "lif9"), ("lif9", "fc9"), fc9=Affine(np.eye(4), None, 1), lif9=lif(4)),
        None,
    ),
    "a readout in mid-chain": (put(POLICY, "lif1", spike=None), None),
    "a readout in mid-chain, integers": (put(INTEGER, "lif1", spike=None), "analogue-layer"),
    "no Normalise": (wired(POLICY, ("observation", "fc1"), without=("normalise",)), None),
    "no Normalise, integers": (wired(INTEGER, ("observation", "quantise"), without=("normalise",)), None),
    "two Normalise in a row": (
        wired(POLICY, ("normalise", "again"), ("again", "fc1"), cut=("normalise", "fc1"), again=NODES["normalise"]),
        None,
    ),
    "two Normalise side by side": (
        wired(POLICY, ("observation", "again"), ("again", "fc1"), again=NODES["normalise"]),
        None,
    ),
    "two encoders": (
        wired(
            INTEGER,
            ("normalise", "coarse"),
            ("coarse", "fc3"),
            ("fc3", "lif1"),
            coarse=Quantise(5, 2.0, 20),
            fc3=Dense(np.full((4, 5), 2)),
        ),
        None,
    ),
    "two encoders into one connection": (
        wired(INTEGER, ("normalise", "coarse"), ("coarse", "fc1"), coarse=Quantise(5, 2.0, 20)),
        "shape" if INTEGER.graph.nodes["quantise"].out_shape != (5,) else None,
    ),
    "a decoder fed twice by one population": (
        wired(POLICY, ("readout", "decode2"), ("decode2", "action"), decode2=Decode(*np.zeros((4, 2)))),
        None,
    ),
    "a decoder behind a decoder": (
        wired(POLICY, ("decode", "decode2"), ("decode2", "action"), decode2=NODES["decode"]),
        "misplaced",
    ),
    "normalise -> fc1, in integers": (wired(INTEGER, ("normalise", "fc1"), without=("quantise",)), "wiring"),
    "an encoder of integers into a connection that has binary spikes": (
        wired(INTEGER, ("quantise", "fc3"), ("fc3", "readout"), fc3=Dense(np.full((2, 5), 2), delay=2)),
        None,
    ),
    "Input -> Output": (wired(POLICY, ("observation", "action2"), action2=Output((5,))), "misplaced"),
    "a population that is read and counted": (
        wired(
            POLICY,
            ("lif1", "count"),
            ("lif1", "last"),
            ("count", "action2"),
            ("last", "action2"),
            count=CountDecode(np.ones((4, 1)), *np.zeros((3, 4))),
            last=Decode(*np.zeros((4, 4))),
            action2=Output((4,)),
        ),
        "read-twice",
    ),
    "an encoder of spikes behind the core": (
        wired(
            POLICY,
            ("readout", "encode"),
            ("encode", "fc9"),
            ("fc9", "readout"),
            encode=population_code(2, 4),
            fc9=Affine(np.ones((2, 8))),
        ),
        "misplaced",
    ),
    "neurons into neurons": (
        wired(POLICY, ("lif1", "again"), ("again", "fc2"), cut=("lif1", "fc2"), again=lif(4)),
        None,
    ),
    "neurons into neurons, integers": (
        wired(INTEGER, ("lif1", "again"), ("again", "fc2"), again=INTEGER.graph.nodes["lif1"]),
        "wiring",
    ),
}


def two_choices() -> Policy:
    """Both of them right by itself; their sum would be a choice that is none."""
    policy = random_policy(sizes=(5, 4, 2), choices=True)
    return wired(policy, ("readout", "decode2"), ("decode2", "action"), decode2=ArgmaxDecode(2))


ILL_FORMED["two choices into one Output"] = (two_choices(), "misplaced")


PLAN_SAYS = {"unbalanced-paths": "paths of different length", "recurrent-window": "part of a loop"}
"""Code -> words of what the plan refuses, since only the schedule tells."""


def outcome(subject: Graph | Policy, rng: np.random.Generator) -> set[str]:
    """Codes with which it is refused; empty where it runs two blocks and gives finite numbers."""
    codes = {finding.code for finding in verify(subject) if finding.severity == "error"}
    if codes:
        return codes
    try:
        machine = Machine(subject, 2)
    except GraphError as error:
        return {code for code, words in PLAN_SAYS.items() if words in str(error)} or {str(error)}
    graph = machine.graph
    steps = machine.plan.schedule.steps
    for _ in range(2):
        if isinstance(subject, Policy):
            action, _ = machine.window(rng.normal(size=(2, subject.contract.observation.size)))
            assert action.shape == (2, subject.contract.action.size)
            assert np.isfinite(action).all()
            continue
        x = {name: rng.integers(0, 2, size=(steps, 2, *graph.nodes[name].in_shape)) for name in graph.inputs}
        inputs = x if not machine.plan.schedule.held else {name: rows[0] for name, rows in x.items()}
        for name, output in machine.block(inputs)[0].items():
            assert output.shape[-len(graph.nodes[name].in_shape) :] == graph.nodes[name].in_shape
    return set()


@pytest.mark.parametrize("what", ILL_FORMED)
def test_what_is_ill_formed_is_refused_by_name_or_runs(what: str) -> None:
    subject, code = ILL_FORMED[what]
    codes = outcome(subject, np.random.default_rng(0))
    assert (code in codes) if code else (codes == set())


Maker = Callable[[np.random.Generator], Op]
CORE: list[Maker] = [
    lambda draw: Affine(draw.normal(size=(4, 4)), draw.normal(size=4), int(draw.integers(3))),
    lambda draw: lif(4, draw.random()),
    lambda draw: li(4, current=0.5),
    lambda draw: Scale(draw.normal(size=4)),
    lambda draw: Flatten((4,), 0, 0),
    lambda draw: Threshold(draw.normal(size=4)),
]
DENSE: list[Maker] = [
    lambda draw: Dense(2 * draw.integers(-9, 9, size=(4, 4)), int(draw.integers(-2, 2)), 8, int(draw.integers(1, 4)))
]
NEURONS: list[Maker] = [
    lambda draw: Neuron(
        IntegerMembrane(int(draw.integers(4096)), draw.integers(9, size=4)), None, IntegerSpike(int(draw.integers(200)))
    ),
    lambda draw: Neuron(IntegerMembrane(400, np.zeros(4)), IntegerSynapse(100), IntegerSpike(9)),
]
ODD: list[Maker] = [
    lambda draw: Normalise(np.zeros(4), np.ones(4), 1e-8, 3.0),
    lambda draw: Decode(np.ones(4), np.zeros(4), -np.ones(4), np.ones(4)),
    lambda draw: CountDecode(draw.normal(size=(4, 1)), np.zeros(4), -np.ones(4), np.ones(4)),
    lambda draw: ArgmaxDecode(4),
    lambda draw: population_code(4, 2),
    lambda draw: Conv(draw.normal(size=(1, 1, 3)), None, (1,), (1,), (1,), input_size=(4,)),
    lambda draw: Pool("sum", (2, 2), (2, 2), (0, 0), (1, 2, 2)),
    lambda draw: Neuron(IntegerMembrane(400, np.zeros(4)), IntegerSynapse(100)),
    lambda draw: Neuron(Membrane(np.ones(4), np.ones(4), np.zeros(4))),
    lambda draw: Dense(np.ones((4, 4)), 0, 8, int(draw.integers(2))),
    lambda draw: Quantise(4, 2.0, int(draw.choice([9, 1 << 20]))),
    lambda draw: Input((4,), "values", draw.choice([None, 30.0])),
    lambda draw: Output((4,)),
]


def tangle(draw: np.random.Generator, level: Level) -> Graph:
    """A walk through some ops, or several that share ends, most of them where they belong; more edges at random."""
    nodes: dict[str, Op] = {"input": Input((4,), "spikes"), "output": Output((4,))}
    pairs: dict[tuple[str, str], None] = {}
    for _ in range(int(draw.integers(1, 3))):
        walk = ["input"]
        for k in range(int(draw.integers(1, 5)) * 2):
            soup = CORE if level is Level.DISCRETE else (DENSE, NEURONS)[k % 2]
            if draw.random() < 0.06:
                soup = ODD
            walk.append(f"n{len(nodes)}")
            nodes[walk[-1]] = soup[draw.integers(len(soup))](draw)
        pairs |= dict.fromkeys(itertools.pairwise([*walk, "output"]))
    names = [str(name) for name in draw.permutation(list(nodes))]
    for _ in range(int(draw.integers(3))):
        pairs[names[draw.integers(len(names))], names[draw.integers(len(names))]] = None
    edges = list(pairs)
    shuffled = tuple(edges[int(k)] for k in draw.permutation(len(edges)))
    arithmetic = graphs.LAVA if level is Level.INTEGER else None
    return Graph(level, {name: nodes[name] for name in names}, shuffled, 1e-3, arithmetic)


@settings(max_examples=examples(200), deadline=None)
@given(seed=st.integers(0, 1_000_000), level=st.sampled_from([Level.DISCRETE, Level.INTEGER]))
def test_any_wiring_of_any_ops_is_refused_by_name_or_runs(seed: int, level: Level) -> None:
    """As a graph and as a policy, in windows and carried: verified, planned and run, or a GraphError that says why.

    Of 8,000 such subjects a third run; each code above that wiring can break refuses some.
    """
    draw = np.random.default_rng(seed)
    graph = tangle(draw, level)
    one = ("",) * 4
    contract = dataclasses.replace(
        POLICY.contract,
        observation=Channels(tuple("abcd"), one),
        action=Channels(tuple("abcd"), one),
        fail_safe=(0.0,) * 4,
        state=draw.choice(["reset", "carried"]).item(),
    )
    outcome(graph, draw)
    decode = Decode(np.ones(4), np.zeros(4), -np.ones(4), np.ones(4))
    edges = tuple((a, "decode" if b == "output" else b) for a, b in graph.edges)
    decoded = graph.replace(nodes={**graph.nodes, "decode": decode}, edges=(*edges, ("decode", "output")))
    outcome(Policy(decoded, contract), draw)
