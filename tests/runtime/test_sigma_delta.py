"""Networks of changes in the emulator, in programs and in Lava: the definition's numbers at every step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from emulated import assert_same_blocks
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from lava_graphs import differences
from sigma_delta_nets import chain_of, draw

import nervecord
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.contract import Channels, Contract
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops import Decode, Input, Normalise, Quantise, Sigma, SigmaDelta
from nervecord.compiler.plan.interpret import simulate
from nervecord.compiler.plan.plan import plan
from nervecord.errors import InfeasibleError
from nervecord.runtime.engines.emulator.session import EmulatorSession
from nervecord.runtime.session import MachineSession
from nervecord.targets.lava.network import runnable, start_worker
from nervecord.targets.lava.netx import export_netx


@settings(max_examples=examples(60), deadline=None)
@given(seed=st.integers(0, 10**6), batch=st.sampled_from([1, 3]))
def test_the_emulator_gives_what_the_definition_gives(seed: int, batch: int) -> None:
    assert_same_blocks(draw(seed), batch)


def test_the_networks_drawn_cover_what_they_should() -> None:
    cases = [draw(seed) for seed in range(40)]
    ops = [op for case in cases for op in case.plan.graph.nodes.values()]
    layers = [op for op in ops if isinstance(op, SigmaDelta)]
    for count in (
        sum(case.plan.schedule.resets for case in cases),
        sum(not case.plan.schedule.resets for case in cases),
        sum(any(len(unit.incoming) > 1 for unit in case.plan.units) for case in cases),
        sum(op.activation == "unit" for op in layers),
        sum(op.threshold > 1 for op in layers),
        sum(op.state_exp > 0 for op in layers),
        sum(op.spike_exp > 0 for op in layers),
        sum(isinstance(op, Sigma) for op in ops),
        sum(op.spikes for op in ops if op.kind == "LIF"),
    ):
        assert count >= 4


def acting() -> Policy:
    """Observation -> normalised, quantised -> changes -> two layers -> sums -> action, in windows of 6 steps."""
    rng = np.random.default_rng(0)
    weights = [2 * rng.integers(-40, 40, size=shape) for shape in ((7, 4), (2, 7))]
    graph = chain_of(weights, [-5, -5], [rng.integers(-60, 60, size=7)], 200)
    nodes = {
        **graph.nodes,
        "input": Input((4,)),
        "normalise": Normalise(np.zeros(4), np.ones(4), 1e-8, 5.0),
        "quantise": Quantise(4, 40.0, 200),
        "decode": Decode(np.full(2, 1 / 500), np.zeros(2), -np.ones(2), np.ones(2)),
    }
    edges = [(a, b) for a, b in graph.edges if a != "input" and b != "output"]
    edges += [
        ("input", "normalise"),
        ("normalise", "quantise"),
        ("quantise", "copy"),
        ("layer1", "decode"),
        ("decode", "output"),
    ]
    contract = Contract(
        environment="none",
        steps=6,
        state="reset",
        control_period=0.05,
        observation=Channels(tuple("abcd"), ("",) * 4),
        action=Channels(tuple("xy"), ("",) * 2, (-1.0,) * 2, (1.0,) * 2),
        fail_safe=(0.0, 0.0),
    )
    return Policy(graph.replace(nodes=nodes, edges=tuple(edges)), contract)


def test_a_policy_acts_alike_in_both_and_counts_its_events() -> None:
    policy = acting()
    emulator, definition = EmulatorSession(policy, 2), MachineSession(policy, batch=2)
    assert emulator.fused
    actions = []
    for row in np.random.default_rng(1).normal(size=(50, 2, 4)) * 2:
        actions.append(emulator.step(row))
        assert np.array_equal(actions[-1], definition.step(row))
    assert np.std(actions) > 0.1
    assert emulator.counts == definition.counts
    events = emulator.counts.synaptic_events
    # A value that is held enters in each of 6 steps, and is one change when it comes, one when it goes.
    assert emulator.counts.spikes == {}
    events_per_step = events["copy"] / 6
    assert 300 < events_per_step <= 4 * 100
    assert 7 * events_per_step <= events["dense0"] <= 2 * 7 * events_per_step


def test_a_program_keeps_it_and_runs_it(tmp_path: Path) -> None:
    case = draw(5, carried=True)
    program = Program(target="lava", graph=case.plan.graph, contract=None, schedule=case.plan.schedule, report={})
    path = tmp_path / "changes.nervecord"
    program.save(path)
    copy = nervecord.load(path)
    assert copy.graph == case.plan.graph
    expected = simulate(case.plan.graph, case.inputs["input"]).left
    for engine in ("emulator", "definition"):
        with nervecord.stream(copy, engine=engine) as stream:
            actual = stream.run(case.inputs["input"])
        assert all(np.array_equal(actual[name], rows) for name, rows in expected.items())
    errors = [f for f in nervecord.inspect(copy.graph).to_dict()["targets"] if f["target"] == "lava"]
    assert errors


def test_what_lava_cannot_clear_or_netx_cannot_say_is_refused_by_name(tmp_path: Path) -> None:
    graph: Graph = chain_of([2 * np.eye(2), 2 * np.eye(2)], [0, 0], [np.zeros(2)], 9)
    runnable(plan(graph))
    with pytest.raises(InfeasibleError, match=r"delta: .*Delta, .*block"):
        runnable(plan(graph, Schedule(4, "reset")))
    with pytest.raises(InfeasibleError, match=r"delta: .*Delta, .*netx"):
        export_netx(plan(graph), tmp_path / "net")


@pytest.mark.lava
def test_stock_lava_gives_what_the_definition_gives() -> None:
    """Messages and sums of every population at every step, by lava-nc's own fixed-point models."""
    message_count = 0
    with start_worker() as worker:
        for seed in range(6):
            wrong, messages = differences(draw(seed, carried=True), worker)
            assert not wrong, f"network {seed}"
            message_count += sum(int(np.count_nonzero(values)) for values in messages.values())
    assert message_count > 500
