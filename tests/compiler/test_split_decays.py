"""Populations whose decays differ, split (`compiler.passes.split`), or clustered first (`compiler.passes.cluster`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_graphs import conv, dyadic, holds, layered, lif, plain_lif, raster, same_spikes

import nervecord
from nervecord.cli.show import program_text
from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.check.table import findings_of, verdict
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.text import to_text
from nervecord.compiler.ops import Affine, Input, Level, Membrane, Neuron, Op, Output, SparseAffine, Synapse
from nervecord.compiler.passes.cluster import cluster_decays
from nervecord.compiler.passes.compose import compose
from nervecord.compiler.passes.split import MOST_GROUPS, decay_groups, split_decays
from nervecord.compiler.plan.interpret import simulate
from nervecord.errors import InfeasibleError
from nervecord.targets.catalogue import load_spec

LAVA = load_spec("lava")
assert LAVA.integers is not None
ARITHMETIC: Arithmetic = LAVA.integers


def split(graph: Graph) -> Graph:
    return split_decays(graph, ARITHMETIC)


def layer(neuron: Neuron, weight: np.ndarray, bias: np.ndarray | None = None) -> Graph:
    nodes: list[tuple[str, Op]] = [
        ("input", Input((weight.shape[1],), "spikes")),
        ("fc", Affine(weight, bias)),
        ("lif", neuron),
        ("output", Output((len(weight),))),
    ]
    return chain(Level.DISCRETE, nodes, dt=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_meaning_is_kept(seed: int) -> None:
    graph = layered(seed, 3)
    same_spikes(graph, holds(split, graph))


@settings(deadline=None, max_examples=examples(60))
@given(seed=st.integers(0, 10**6), kinds=st.integers(2, 4), current=st.booleans())
def test_what_rounds_nothing_is_split_to_the_bit(seed: int, kinds: int, current: bool) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(kinds, 9))
    decay = np.array([0.5, 0.25, 0.75, 0.0])[np.concatenate([np.arange(kinds), rng.integers(0, kinds, size - kinds)])]
    graph = layer(plain_lif(decay, 0.75, 0.5 if current else None), dyadic(rng, size, 4), dyadic(rng, size))
    result = split(graph)
    assert result is not graph
    assert split(result) is result
    copies = [op for name, op in result.nodes.items() if name.startswith("lif.")]
    assert len(copies) == kinds
    x = raster(seed, 12, 4)
    np.testing.assert_array_equal(simulate(result, x).left["output"], simulate(graph, x).left["output"])


def test_golden(golden: Callable[[str, str], None]) -> None:
    rng = np.random.default_rng(1)
    graph = layer(plain_lif([0.5, 0.25, 0.5]), dyadic(rng, 3, 4), dyadic(rng, 3))
    golden("passes/split_decays.txt", to_text(graph) + "\nsplit\n\n" + to_text(split(graph)))


def test_one_decay_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    graph = layer(lif(rng, 4), rng.normal(size=(4, 3)))
    assert split(graph) is graph


def test_behind_a_convolution_the_storage_stays() -> None:
    rng = np.random.default_rng(0)
    op = conv(rng, (2, 6, 6), 3)
    nodes: list[tuple[str, Op]] = [
        ("input", Input((2, 6, 6), "spikes")),
        ("c", op),
        ("lif", lif(rng, 3, 6, 6, decays=3)),
        ("output", Output((3, 6, 6))),
    ]
    graph = chain(Level.DISCRETE, nodes, dt=1e-3)
    result = holds(split, compose(graph))
    parts = [op for op in result.nodes.values() if isinstance(op, SparseAffine)]
    assert len(parts) == 3
    # Each weight is in one of them.
    assert sum(int(np.count_nonzero(op.values)) for op in parts) == int(op.synapses().fan_out.sum())
    same_spikes(graph, result)


# --------------------------------------------------------------------------------------------------------------------
# More of them than it can be split by


def many(current: bool = False) -> Graph:
    rng = np.random.default_rng(0)
    neuron = lif(rng, 12 * 4, decays=200)
    if current:
        neuron = neuron.replace(synapse=Synapse(rng.uniform(0.2, 0.8, size=48), np.ones(48)))
    return layer(neuron, rng.normal(size=(48, 3)))


def test_too_many_decays_stay_and_are_named() -> None:
    graph = many()
    assert len(decay_groups(graph.nodes["lif"], ARITHMETIC)) > MOST_GROUPS
    assert split(graph) is graph
    (finding,) = [f for f in findings_of(graph, LAVA) if f.code == "population-parameters"]
    assert finding.fix.endswith("or compile with --allow-clustered-decays")
    assert verdict(findings_of(layered(0, 2), LAVA)) == "feasible"


@pytest.mark.parametrize("current", [False, True])
def test_clustering_gives_as_many_as_can_be_split_by(current: bool) -> None:
    graph = many(current)
    result = holds(lambda it: cluster_decays(it, ARITHMETIC)[0], graph)
    before, after = graph.nodes["lif"], result.nodes["lif"]
    assert isinstance(before, Neuron)
    assert isinstance(after, Neuron)
    assert 1 < len(decay_groups(after, ARITHMETIC)) <= MOST_GROUPS
    _, (change,) = cluster_decays(graph, ARITHMETIC)
    moved = np.abs(after.membrane.decay - before.membrane.decay).max()  # type: ignore[union-attr]
    if current:
        moved = max(moved, np.abs(after.synapse.decay - before.synapse.decay).max())  # type: ignore[union-attr]
    assert change.moved == moved > 0
    assert change.codes == len(decay_groups(before, ARITHMETIC))
    # Nothing but the decays changes.
    original = after.replace(membrane=before.membrane, synapse=before.synapse)
    assert original == before
    spread = float(np.ptp(before.membrane.decay))  # type: ignore[union-attr]
    if not current:
        assert change.moved < spread / MOST_GROUPS


@settings(deadline=None, max_examples=examples(40))
@given(decays=st.lists(st.floats(0, 1), min_size=1, max_size=60), most=st.integers(1, 20))
def test_clusters_lie_among_the_decays(decays: list[float], most: int) -> None:
    values = np.array(decays)
    ones = np.ones(len(values))
    neuron = Neuron(Membrane(values, ones, 0 * ones), None, plain_lif(values).spike)
    graph = layer(neuron, np.ones((len(values), 1)))
    result, changes = cluster_decays(graph, ARITHMETIC, most)
    after = result.nodes["lif"].membrane.decay  # type: ignore[union-attr]
    assert after.min() >= values.min()
    assert after.max() <= values.max()
    assert len(np.unique(after)) <= most or not changes
    assert cluster_decays(result, ARITHMETIC, most)[0] is result


def test_clustering_is_allowed_and_its_error_reported() -> None:
    graph = many()
    x = (np.random.default_rng(1).random((300, 3)) < 0.3).astype(float)
    with pytest.raises(InfeasibleError, match="--allow-clustered-decays"):
        nervecord.compile(graph, "lava", calibration=x)
    program = nervecord.compile(graph, "lava", calibration=x, allow_clustered_decays=True)
    clustered = program.report["lowering"]["clustered"]
    result, (what,) = cluster_decays(graph, ARITHMETIC)
    assert program.allowances == (str(what),)
    expected, actual = (simulate(it, x).left["output"] for it in (graph, result))
    assert clustered["spikes"] == expected.sum() > 100
    assert clustered["spikes_different"] == np.count_nonzero(expected != actual) > 0
    assert clustered["populations"][0]["moved"] == what.moved
    text = program_text(program, None)
    assert f"{clustered['spikes_different']} spikes differ beside {clustered['spikes']:,}" in text.replace("\n", " ")
    assert f"allowed: {what}" in text
    # Without need the permission changes nothing.
    plain = nervecord.compile(layered(0, 2), "lava", allow_clustered_decays=True)
    assert plain.allowances == ()
    assert "clustered" not in plain.report["lowering"]
