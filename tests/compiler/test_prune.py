"""Neurons that nothing reaches, taken out (`compiler.passes.prune`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_graphs import conv, dyadic, holds, layered, lif, plain_lif, raster, same_spikes

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.text import to_text
from nervecord.compiler.ops import Affine, Flatten, Input, Level, Membrane, Op, Output, SparseAffine
from nervecord.compiler.passes.compose import compose
from nervecord.compiler.passes.prune import prune
from nervecord.compiler.passes.split import split_decays
from nervecord.compiler.plan.interpret import simulate
from nervecord.targets.catalogue import load_spec

LAVA = load_spec("lava")
assert LAVA.integers is not None
ARITHMETIC: Arithmetic = LAVA.integers


def two_layers(first: Affine, second: Affine) -> Graph:
    nodes: list[tuple[str, Op]] = [
        ("input", Input(first.in_shape, "spikes")),
        ("fc", first),
        ("lif", plain_lif(np.full(first.out_shape, 0.5))),
        ("fc2", second),
        ("last", plain_lif(np.full(second.out_shape, 0.5))),
        ("output", Output(second.out_shape)),
    ]
    return chain(Level.DISCRETE, nodes, dt=1e-3)


def test_silent_neurons_go() -> None:
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(6, 4))
    weight[[1, 4]] = 0
    neuron = lif(rng, 6)
    neuron = neuron.replace(membrane=Membrane(neuron.membrane.decay, np.ones(6), np.zeros(6)))  # type: ignore[union-attr]
    nodes: list[tuple[str, Op]] = [
        ("input", Input((4,), "spikes")),
        ("fc", Affine(weight)),
        ("lif", neuron),
        ("fc2", Affine(rng.normal(size=(3, 6)))),
        ("last", lif(rng, 3)),
        ("output", Output((3,))),
    ]
    graph = chain(Level.DISCRETE, nodes, dt=1e-3)
    result = holds(prune, graph)
    assert result.nodes["lif"].size == 4
    same_spikes(graph, result)


@pytest.mark.parametrize("seed", range(6))
def test_what_splitting_left_silent_goes(seed: int) -> None:
    graph = layered(seed, 3)
    result = holds(prune, split_decays(graph, ARITHMETIC))
    same_spikes(graph, result)
    hidden = [op for name, op in result.nodes.items() if name.startswith("hidden.")]
    # Each hidden neuron is in one population; what is read is there whole in each.
    assert sum(op.size for op in hidden) == 12
    assert len(hidden) > 1
    assert {op.size for name, op in result.nodes.items() if name.startswith("last")} == {5}


@settings(deadline=None, max_examples=examples(60))
@given(seed=st.integers(0, 10**6), silent=st.sets(st.integers(0, 6), max_size=7), biased=st.booleans())
def test_what_rounds_nothing_is_pruned_to_the_bit(seed: int, silent: set[int], biased: bool) -> None:
    rng = np.random.default_rng(seed)
    weight, bias = dyadic(rng, 7, 4), dyadic(rng, 7)
    weight[:, 0] = np.where(weight.any(axis=1), weight[:, 0], 1.0)
    weight[sorted(silent)], bias[sorted(silent)] = 0.0, 0.0
    graph = two_layers(Affine(weight, bias if biased else None), Affine(dyadic(rng, 3, 7), dyadic(rng, 3)))
    result = prune(graph)
    if 0 < len(silent) < 7:
        assert result.nodes["lif"].size == 7 - len(silent)
        assert prune(result) is result
    else:
        assert result is graph
    x = raster(seed, 12, 4)
    np.testing.assert_array_equal(simulate(result, x).left["output"], simulate(graph, x).left["output"])


def test_golden(golden: Callable[[str, str], None]) -> None:
    rng = np.random.default_rng(1)
    weight = dyadic(rng, 4, 3)
    weight[1] = 0
    graph = two_layers(Affine(weight), Affine(dyadic(rng, 2, 4), dyadic(rng, 2)))
    golden("passes/prune.txt", to_text(graph) + "\npruned\n\n" + to_text(prune(graph)))


def test_what_is_heard_in_compressed_rows_is_pruned_too() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(36, 8))
    weight[[0, 7, 8]] = 0
    spiking = plain_lif(np.full(36, 0.5), 0.8)
    rows = compose(_convolved(rng)).nodes["c"]
    assert isinstance(rows, SparseAffine)
    graph = chain(
        Level.DISCRETE,
        [
            ("input", Input((8,), "spikes")),
            ("fc", Affine(weight)),
            ("lif", spiking),
            ("rows", rows),
            ("last", plain_lif(np.full(rows.out_shape, 0.5), 0.3)),
            ("output", Output(rows.out_shape)),
        ],
        dt=1e-3,
    )
    result = holds(prune, graph)
    assert isinstance(result.nodes["rows"], SparseAffine)
    assert result.nodes["rows"].in_shape == (33,)
    same_spikes(graph, result)


def _convolved(rng: np.random.Generator) -> Graph:
    op = conv(rng, (1, 6, 6), 2, bias=False)
    nodes: list[tuple[str, Op]] = [
        ("input", Input((1, 6, 6), "spikes")),
        ("c", op),
        ("flat", Flatten(op.out_shape, 0, -1)),
        ("lif", lif(rng, 72)),
        ("output", Output((72,))),
    ]
    return chain(Level.DISCRETE, nodes, dt=1e-3)
