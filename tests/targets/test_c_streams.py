"""The engine c on streams of every shape: values beside bias sources, several Inputs, channels that carry biases."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from compiled_c import QUICK, assert_same_actions, assert_same_blocks, sanitized, sanitizer
from emulated import observations_of, random_arithmetic
from examples import examples, some
from graphs import LAVA, Case
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import draw_policy, draw_stream, lowered_stream

from nervecord.compiler.graph.contract import Channels, Contract
from nervecord.compiler.graph.graph import Edge, Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import STREAM, Schedule
from nervecord.compiler.ops import (
    BiasChannel,
    Decode,
    Dense,
    Input,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Level,
    Neuron,
    Op,
    Output,
    Quantise,
)
from nervecord.compiler.plan.plan import plan
from nervecord.errors import InfeasibleError
from nervecord.runtime.engines.c import library
from nervecord.runtime.engines.c.core import Core
from nervecord.runtime.engines.c.session import CStream
from nervecord.runtime.engines.c.source import c_source
from nervecord.runtime.engines.emulator.session import EmulatorStream
from nervecord.runtime.stream import MachineStream

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler: apt-get install gcc"
)


def current_neurons(size: int) -> Neuron:
    return Neuron(IntegerMembrane(900, np.zeros(size, dtype=np.int32)), IntegerSynapse(700), IntegerSpike(40))


def beside_bias_sources(inputs: int, *, together: bool = False) -> Graph:
    """Values, each Input's with a bias source, into neurons with a current; `together` through one connection."""
    rng = np.random.default_rng(inputs)
    nodes: dict[str, Op] = {"neurons": current_neurons(4), "out": Output((4,))}
    edges: list[Edge] = [("neurons", "out")]
    for k in range(inputs):
        nodes |= {f"in{k}": Input((3,), "values", 9.0), f"code{k}": Quantise(3, 4.0, 36, 11 + k)}
        edges.append((f"in{k}", f"code{k}"))
        dense = "dense0" if together else f"dense{k}"
        nodes[dense] = Dense(rng.integers(-20, 20, size=(4, 4)) * 4, -3, 7, 1)
        edges += [(f"code{k}", dense), *([(dense, "neurons")] if (dense, "neurons") not in edges else [])]
    return Graph(Level.INTEGER, nodes, tuple(edges), 1e-3, LAVA)


@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("schedule", [STREAM, Schedule(3, "carried"), Schedule(4, "reset")])
def test_a_bias_source_beside_the_values_of_a_stream(inputs: int, together: bool, schedule: Schedule) -> None:
    """It is no part of what a step takes, whatever stands behind that."""
    graph = beside_bias_sources(inputs, together=together)
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=(24, 3)) * 4 for name in graph.inputs}
    network_plan = plan(graph, schedule)
    assert_same_blocks(Case(0, network_plan, values))
    with CStream(network_plan, flags=QUICK) as session, EmulatorStream(network_plan) as fast:
        runs = [session.run(values)["out"] for _ in range(2)]
        expected = fast.run(values)["out"]
    np.testing.assert_array_equal(runs[0], expected)
    np.testing.assert_array_equal(runs[1], expected)
    assert expected.any()


@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("state", ["reset", "carried"])
def test_held_values_with_bias_sources_through_one_connection(inputs: int, state: str) -> None:
    """Several sources: its product is taken in every step, and nothing of them is held beside what the user gives."""
    graph = beside_bias_sources(inputs, together=True)
    one = np.ones(4)
    decode = Decode(one / 1e6, 0 * one, -9 * one, 9 * one)
    readout = {"neurons": current_neurons(4).replace(spike=None), "decode": decode}
    nodes = {**graph.nodes, **readout}
    edges = tuple((a, "decode" if b == "out" else b) for a, b in graph.edges)
    channels = tuple(f"o{k}" for k in range(3 * inputs))
    contract = Contract(
        environment="none",
        steps=3,
        state=state,
        control_period=0.05,  # type: ignore[arg-type]
        observation=Channels(channels, ("",) * len(channels)),
        fail_safe=(0.0,) * 4,
        action=Channels(tuple("abcd"), ("",) * 4, (-9.0,) * 4, (9.0,) * 4),
    )
    policy = Policy(graph.replace(nodes=nodes, edges=(*edges, ("decode", "out"))), contract)
    actions = assert_same_actions(policy, observations_of(policy, 0, 8, 2))
    assert len(np.unique(actions)) > 4


@settings(max_examples=examples(4), deadline=None)
@given(seed=st.integers(0, 10**6), other=st.booleans())
def test_streams_of_every_shape(seed: int, other: bool) -> None:
    assert_same_blocks(draw_stream(seed, random_arithmetic(seed) if other else LAVA))


@settings(max_examples=examples(4), deadline=None)
@given(seed=st.integers(0, 10**6))
def test_lowered_streams(seed: int) -> None:
    """Biases into currents, channels that carry them, second slices, skips, delays."""
    case = lowered_stream(seed)
    if case is not None:
        assert_same_blocks(case)


@settings(max_examples=examples(4), deadline=None)
@given(seed=st.integers(0, 10**6), other=st.booleans())
def test_policies_with_bias_sources_and_branches(seed: int, other: bool) -> None:
    policy = draw_policy(seed, random_arithmetic(seed) if other else LAVA, choices=seed % 3 == 0)
    if policy is not None:
        assert_same_actions(policy, observations_of(policy, seed, 8, 2))


def test_what_is_drawn_has_what_this_is_about() -> None:
    """So that equality says something."""
    cases = [draw_stream(seed) for seed in range(24)]
    lowered = [case for seed in range(12) if (case := lowered_stream(seed)) is not None]
    assert len(lowered) > 8
    for group in (cases, lowered):
        ops = [list(case.plan.graph.nodes.values()) for case in group]
        for count in (
            sum(any(isinstance(op, Quantise) and op.constant for op in each) for each in ops),
            sum(any(isinstance(op, BiasChannel) for op in each) for each in ops),
            sum(any(isinstance(op, Neuron) and op.synapse is not None for op in each) for each in ops),
            sum(len(case.plan.graph.inputs) > 1 for case in group),
            sum(case.plan.schedule.resets for case in group),
        ):
            assert count >= 2
    assert any(len(step.taps) > 1 for case in cases for step in case.plan.connections)
    assert any(name.endswith("rest") for case in lowered for name in case.plan.graph.nodes)


PLANTED = {
    "a value behind what a step takes": "block.taken = lambda entry: form.taken(entry) + 1",
    "a list that is too short": """
made = core.Core.members
core.Core.members = lambda self: [
    dataclasses.replace(m, count=m.count - 1) if m.name.endswith("_list") and m.count > 1 else m
    for m in made(self)
]""",
    "a sum that overflows": 'equations.literal = lambda value: "2000000000" if value == 64 else str(value)',
}
"""What a campaign with sanitizers must find, as changes of what prints the C."""


def test_members_are_listed_a_few_times_however_many_rings_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delay of 65,536 steps is a chain of a thousand rings, and the list of members as long."""
    calls = []
    members = Core.members
    monkeypatch.setattr(Core, "members", lambda core: calls.append(core) or members(core))
    size, count = 2, 40
    nodes: dict[str, Op] = {"in": Input((size,), "spikes")}
    for k in range(count):
        nodes |= {f"dense{k}": Dense(np.eye(size, dtype=np.int64) * 64, 0, 7, 3), f"neurons{k}": current_neurons(size)}
    nodes["out"] = Output((size,))
    graph = Graph(Level.INTEGER, nodes, tuple(itertools.pairwise(nodes)), 1e-3, LAVA)
    source = c_source(plan(graph, STREAM))
    assert len(source.layout.rings) >= count
    assert len(calls) < 5


def test_what_was_sent_is_kept_as_long_as_its_own_connections_read_it() -> None:
    """A delay behind it does not keep a wide input for as many steps."""
    nodes: dict[str, Op] = {
        "in": Input((50,), "spikes"),
        "dense": Dense(np.ones((1, 50), dtype=np.int64) * 64, 0, 7, 1),
        "one": current_neurons(1),
        "late": Dense(np.eye(1, dtype=np.int64) * 64, 0, 7, 40),
        "two": current_neurons(1),
        "out": Output((1,)),
    }
    graph = Graph(Level.INTEGER, nodes, tuple(itertools.pairwise(nodes)), 1e-3, LAVA)
    blocks = (np.random.default_rng(3).random((60, 1, 50)) < 0.2).astype(np.float64)
    with CStream(plan(graph, STREAM)) as stream, MachineStream(plan(graph, STREAM)) as definition:
        for block in blocks:
            np.testing.assert_array_equal(stream.step(block), definition.step(block))
            for name, rows in definition.trace().items():
                np.testing.assert_array_equal(stream.trace()[name], rows, err_msg=name)
        assert {name: len(buffer) for name, buffer in stream._machine._sent.items()} == {"in": 2, "one": 41, "two": 1}


@pytest.mark.parametrize("limit", ["MOST_FUNCTIONS", "MOST_TABLES"])
def test_what_would_keep_a_compiler_for_minutes_is_refused(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, limit, 10)
    with pytest.raises(InfeasibleError, match=r"\b10 are"):
        CStream(beside_bias_sources(1))


@pytest.mark.long
@pytest.mark.parametrize("planted", some(PLANTED, 1))
def test_sanitizers_report_what_leaves_an_array_or_the_language(planted: str) -> None:
    library = sanitizer()
    if library is None:
        pytest.skip("needs GCC and its libasan")
    text = f"""
import dataclasses, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from compiled_c import SANITIZED, assert_same_blocks
from nervecord.runtime.engines.c import block
from nervecord.runtime.engines.c import core, equations
from nervecord.runtime.engines.c import layout as form
from streams import draw_stream
{PLANTED[planted]}
assert_same_blocks(draw_stream(7), SANITIZED)
"""
    process = sanitized(["-c", text], library)
    assert process.returncode != 0
    assert any(word in process.stderr for word in ("AddressSanitizer", "runtime error")), process.stderr
