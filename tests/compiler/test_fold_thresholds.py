"""Thresholds that differ, folded into what enters (`compiler.passes.thresholds`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_graphs import dyadic, holds, lif, plain_lif, raster, same_spikes

from nervecord.compiler.check.table import findings_of, verdict
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.text import to_text
from nervecord.compiler.ops import Affine, ContinuousMembrane, Input, Level, Neuron, Op, Output, Spike
from nervecord.compiler.ops.neurons import RESETS
from nervecord.compiler.passes.discretise import discretise
from nervecord.compiler.passes.thresholds import fold_thresholds
from nervecord.compiler.plan.interpret import simulate
from nervecord.targets.catalogue import load_spec

LAVA = load_spec("lava")


def layer(neuron: Neuron, weight: np.ndarray, level: Level = Level.DISCRETE, dt: float | None = 1e-3) -> Graph:
    nodes: list[tuple[str, Op]] = [
        ("input", Input((weight.shape[1],), "spikes")),
        ("fc", Affine(weight)),
        ("lif", neuron),
        ("output", Output((len(weight),))),
    ]
    return chain(level, nodes, dt=dt)


@pytest.mark.parametrize("reset", RESETS)
def test_meaning_is_kept(reset: str) -> None:
    rng = np.random.default_rng(1)
    neuron = lif(rng, 12, thresholds=True, reset=reset)
    neuron = neuron.replace(spike=Spike(neuron.spike.threshold, rng.uniform(-0.2, 0, size=12), reset))  # type: ignore[union-attr]
    graph = layer(neuron, rng.normal(size=(12, 8)) * 0.5)
    result = holds(fold_thresholds, graph)
    assert (result.nodes["lif"].spike.threshold == 1).all()  # type: ignore[attr-defined]
    same_spikes(graph, result)


@settings(deadline=None, max_examples=examples(60))
@given(seed=st.integers(0, 10**6), reset=st.sampled_from(RESETS), current=st.booleans())
def test_thresholds_of_powers_of_two_fold_to_the_bit(seed: int, reset: str, current: bool) -> None:
    rng = np.random.default_rng(seed)
    level = 2.0 ** rng.integers(-2, 3, size=5)
    level[:2] = 1.0, 2.0
    neuron = plain_lif(np.full(5, 0.5), level, 0.5 if current else None)
    neuron = neuron.replace(spike=Spike(level, dyadic(rng, 5) if reset == "value" else 0 * level, reset))
    graph = layer(neuron, dyadic(rng, 5, 4))
    result = fold_thresholds(graph)
    assert result is not graph
    assert fold_thresholds(result) is result
    x = raster(seed, 15, 4)
    np.testing.assert_array_equal(simulate(result, x).left["output"], simulate(graph, x).left["output"])


def test_golden(golden: Callable[[str, str], None]) -> None:
    rng = np.random.default_rng(1)
    graph = layer(plain_lif(np.full(3, 0.5), np.array([0.5, 1.0, 2.0])), dyadic(rng, 3, 4))
    golden("passes/fold_thresholds.txt", to_text(graph) + "\nfolded\n\n" + to_text(fold_thresholds(graph)))


def test_one_threshold_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    graph = layer(lif(rng, 4), rng.normal(size=(4, 3)))
    assert fold_thresholds(graph) is graph


def test_what_compiles_in_steps_is_feasible_in_continuous_time() -> None:
    """The verdict on a file does not turn with --dt: thresholds fold at once, decays will be split."""
    rng = np.random.default_rng(0)
    ones = np.ones(4)
    spike = Spike(rng.uniform(0.5, 1.5, size=4), 0 * ones)
    neuron = Neuron(ContinuousMembrane(10 * ones, np.array([0.01, 0.02, 0.02, 0.01]), 0 * ones), None, spike)
    graph = layer(neuron, rng.normal(size=(4, 3)), Level.IMPORTED, None)
    folded = fold_thresholds(graph)
    assert (folded.nodes["lif"].spike.threshold == 1).all()  # type: ignore[attr-defined]
    same_spikes(discretise(graph, dt=1e-3), discretise(folded, dt=1e-3))
    for given_ in (graph, discretise(graph, dt=1e-3)):
        findings = findings_of(given_, LAVA)
        assert verdict(findings) == "feasible"
        assert ("population-parameters" in {f.code for f in findings}) == (given_ is graph)
