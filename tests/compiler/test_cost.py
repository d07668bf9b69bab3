"""Counting events by hand, and units: an energy must not be a thousand times off."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from policies import li, lif, random_dag, random_policy

from nervecord.compiler.check.cost import Events, count_events, energy_text, estimate
from nervecord.compiler.graph.graph import chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops import Affine, Input, Level, Output
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.compiler.plan.interpret import simulate
from nervecord.errors import NervecordError
from nervecord.targets.catalogue import load_spec

LAVA, LOIHI1, REFERENCE = (load_spec(name) for name in ("lava", "loihi1", "reference"))


def test_worst_case_by_hand(make_policy: Callable[..., Policy]) -> None:
    # 3 -> 4 -> 2, T = 5, dense weights; on a chip with one step of delay per connection 7 steps.
    events = count_events(make_policy((3, 4, 2)), LAVA)
    assert events == Events(steps=7, input_events=5 * 3 * 4, spike_events=7 * 4 * 2, updates=7 * (4 + 2), bound=True)
    assert count_events(make_policy((3, 4, 2))).steps == 5
    assert count_events(make_policy((3, 4, 2), state="carried"), LAVA).steps == 5


def test_measured_activity_by_hand() -> None:
    weight = np.array([[1.0, 1, 0], [1, 0, 0]])
    graph = chain(
        Level.DISCRETE,
        [
            ("input", Input((3,))),
            ("a", Affine(np.eye(3))),
            ("x", lif(3)),
            ("b", Affine(weight)),
            ("y", li(2)),
            ("output", Output((2,))),
        ],
        dt=1e-3,
    )
    # Fan-outs through weights that are not zero: 2, 1, 0.
    assert count_events(graph, spikes={"x": np.array([1.0, 0.0, 1.0])}).spike_events == 2
    assert count_events(graph, spikes={"x": 3}).spike_events == 3
    assert not count_events(graph, spikes={"x": 3}).bound


def test_a_population_code_sends_spikes() -> None:
    # 3 channels of 5 neurons, 4 neurons, 2 actions of 2 neurons, T = 5: the code is silent while the pipeline drains.
    graph = random_policy(sizes=(3, 4, 2), population=5, output_population=2)
    events = count_events(graph, LAVA)
    spikes = 5 * 15 * 4 + 7 * 4 * 4
    assert events == Events(steps=7, input_events=0, spike_events=spikes, updates=7 * 8, bound=True)
    measured = calibrate(graph).spikes_per_action
    assert 0 < measured["encode"] < 5 * 15
    counts = count_events(graph, spikes=measured)
    assert counts.spike_events == pytest.approx(measured["encode"] * 4 + measured["lif1"] * 4)
    with pytest.raises(NervecordError, match="encode: "):
        count_events(graph, spikes={"lif1": 1, "lif2": 1})


def test_measured_events_equal_a_recount_of_the_trace(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy((3, 6, 5, 2))
    graph = policy.graph
    assert policy.recorded is not None
    trace = simulate(policy, policy.recorded[:4])
    spikes = {name: array.sum(axis=(0, 1)) / 4 for name, array in trace.spikes(graph).items()}
    recount = 0.0
    for source, weight in (("lif0", graph.nodes["fc1"]), ("lif1", graph.nodes["fc2"])):
        for step, batch in itertools.product(*map(range, trace.outputs[source].shape[:2])):
            recount += np.count_nonzero(weight.weight[:, trace.outputs[source][step, batch] > 0])  # type: ignore[attr-defined]
    assert recount > 0
    assert count_events(policy, spikes=spikes).spike_events * 4 == pytest.approx(recount)


@pytest.mark.parametrize("seed", range(4))
def test_measured_events_of_a_branched_graph_equal_a_recount(seed: int) -> None:
    """Skips, several populations into one, several readouts and Inputs: every (spike, synapse) pair once."""
    policy = random_dag(seed, carried=seed % 2 == 1, recurrent=seed % 2 == 1)
    graph = policy.graph
    assert policy.recorded is not None
    trace = simulate(policy, policy.recorded[:3])
    spikes = {name: array.sum(axis=(0, 1)) / 3 for name, array in trace.spikes(graph).items()}
    recount = 0.0
    for name, fired in trace.spikes(graph).items():
        for b in graph.destinations(name):
            weight = graph.nodes[b].weight  # type: ignore[attr-defined]
            recount += float(((weight != 0).sum(axis=0) * fired).sum())
    assert recount > 0
    events = count_events(policy, spikes=spikes)
    assert events.spike_events * 3 == pytest.approx(recount)
    entering = sum(
        np.count_nonzero(graph.nodes[b].weight)  # type: ignore[attr-defined]
        for name in graph.of_role("before")
        for b in graph.destinations(name)
    )
    assert events.input_events == policy.contract.steps * entering


def test_a_graph_without_a_contract_counts_per_step_or_per_block() -> None:
    graph = chain(
        Level.DISCRETE,
        [("input", Input((3,), "spikes")), ("a", Affine(np.ones((2, 3)))), ("x", lif(2)), ("output", Output((2,)))],
        dt=1e-3,
    )
    assert count_events(graph, LAVA) == Events(1, input_events=0, spike_events=6, updates=2, bound=True)
    # A window that is cleared takes one step more per connection on the way.
    window = Schedule(4, "reset")
    assert count_events(graph, LAVA, schedule=window) == Events(5, 0, spike_events=4 * 6, updates=5 * 2, bound=True)
    assert count_events(graph, spikes={"input": 2}).spike_events == 2 * 2


@pytest.mark.parametrize(
    ("spikes", "words"),
    [
        ({}, "no activity"),
        ({"lif0": 1, "nobody": 1}, "nobody"),
        ({"lif0": np.ones(3)}, "3 .* 4"),
        ({"lif0": 21}, "0..20"),
        ({"lif0": np.full(4, 6)}, "0..5"),
        ({"lif0": -1}, "0..20"),
        ({"lif0": float("nan")}, "0..20"),
    ],
)
def test_impossible_activity_is_refused(spikes: dict[str, Any], words: str, make_policy: Callable[..., Policy]) -> None:
    with pytest.raises(NervecordError, match=words):
        count_events(make_policy((3, 4, 2)), spikes=spikes)


# --------------------------------------------------------------------------------------------------------------------
# Units


def test_a_thousand_synaptic_events_are_23_6_nanojoules() -> None:
    energy = estimate(Events(1, 400, 600, 0, False), LOIHI1)
    assert energy is not None
    assert energy.high == pytest.approx(23.6e-9, rel=1e-12)
    assert "23.6 nJ" in str(energy)


def test_a_million_updates_are_52_to_81_microjoules() -> None:
    energy = estimate(Events(1, 0, 0, 1_000_000, False), LOIHI1)
    assert energy is not None
    assert (energy.low, energy.high) == (pytest.approx(52e-6), pytest.approx(81e-6))
    assert "52 uJ to 81 uJ" in str(energy)


def test_energy_against_exact_arithmetic_in_integers() -> None:
    # Picojoules as exact fractions, scaled once at the end.
    events = Events(8, 34_560, 540_672, 4_160, True)
    picojoules = Fraction(236, 10) * (34_560 + 540_672) + 81 * 4_160
    energy = estimate(events, LOIHI1)
    assert energy is not None
    assert energy.high == pytest.approx(float(picojoules / 10**12), rel=1e-12)
    assert 13.9e-6 < energy.high < 14e-6


@pytest.mark.parametrize(
    ("joules", "text"),
    [
        (0.0, "0 pJ"),
        (5e-13, "0.5 pJ"),
        (4.6e-12, "4.6 pJ"),
        (999e-12, "999 pJ"),
        (1e-9, "1 nJ"),
        (1.2e-8, "12 nJ"),
        (11.98e-6, "12 uJ"),
        (1e-6, "1 uJ"),
        (2.5e-3, "2.5 mJ"),
        (3.0, "3 J"),
    ],
)
def test_energy_text(joules: float, text: str) -> None:
    assert energy_text(joules) == text


def test_every_estimate_says_what_it_is() -> None:
    events = Events(1, 10, 10, 10, True)
    loihi1, lava = estimate(events, LOIHI1), estimate(events, LAVA)
    for energy in (loihi1, lava):
        text = str(energy)
        assert all(word in text for word in ("estimate", "14 nm", "2018", "not measured", "at most"))
    assert "as if on Loihi 1" in str(lava)
    assert "as if" not in str(loihi1)
    assert estimate(events, REFERENCE) is None
