"""Placement: counting by hand, nengo_loihi's memory formula, and splitting that keeps to every limit."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import lif

from nervecord.compiler.check.placement import CORE_LIMITS, place, synapse_bits
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.ops import Affine, Conv, Input, Level, Op, Output
from nervecord.compiler.plan.topology import Topology
from nervecord.compiler.target.protocol import Fact, Packing
from nervecord.targets.catalogue import load_spec

LAVA, LOIHI1, REFERENCE = (load_spec(name) for name in ("lava", "loihi1", "reference"))
assert LOIHI1.packing is not None
PACKING = LOIHI1.packing


def layer(weight: Any, name: str = "lif") -> list[tuple[str, Any]]:
    return [(f"fc_{name}", Affine(weight)), (name, lif(len(weight)))]


def network(*weights: Any) -> Graph:
    core = [item for k, weight in enumerate(weights) for item in layer(np.asarray(weight), f"lif{k}")]
    ends = (Input((np.shape(weights[0])[1],)), Output((np.shape(weights[-1])[0],)))
    return chain(Level.DISCRETE, [("input", ends[0]), *core, ("output", ends[1])], dt=1e-3)


def axon_bits(count: int, *, dense: bool, neurons: int, delay_bits: int) -> int:
    """nengo_loihi's SynapseConfig.bits_per_axon, written down again from its description."""
    index = 0 if dense else next(b for b in (6, 7, 8, 9, 10, 11, 12) if neurons <= 2**b)
    total = 0
    while count > 0:
        bits = min(count, 64) * (8 + delay_bits + index) + 4 + 6
        total += 64 * ((bits + 63) // 64)
        count -= 64
    return total


def test_a_dense_axon_of_256_synapses_takes_2304_bits() -> None:
    # Four blocks of 64 * 8 + 10 = 522 bits, each rounded up to nine words of 64.
    assert synapse_bits(np.ones((256, 1)), PACKING, delayed=False) == 4 * 9 * 64


def test_a_sparse_axon_stores_indices_of_its_synapses_only() -> None:
    weight = np.zeros((256, 1))
    weight[7] = weight[200] = 1
    # 2 * (8 + 8 index bits) + 10 = 42 bits: one word.
    assert synapse_bits(weight, PACKING, delayed=False) == 64
    assert synapse_bits(np.zeros((256, 3)), PACKING, delayed=False) == 0


@settings(max_examples=examples(60), deadline=None)
@given(
    neurons=st.integers(1, 300),
    axons=st.integers(1, 4),
    share=st.floats(0, 1),
    delayed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_synapse_bits_equal_the_formula(neurons: int, axons: int, share: float, delayed: bool, seed: int) -> None:
    weight = np.random.default_rng(seed).random((neurons, axons)) < share
    counts = [int(column.sum()) for column in weight.T]
    extra = 6 if delayed else 0
    dense = sum(axon_bits(neurons, dense=True, neurons=neurons, delay_bits=extra) for count in counts if count)
    sparse = sum(axon_bits(count, dense=False, neurons=neurons, delay_bits=extra) for count in counts)
    assert synapse_bits(weight, PACKING, delayed=delayed) == min(dense, sparse)


def test_counts_of_a_small_network() -> None:
    first = np.array([[1.0, 0, 2], [0, 0, 3], [1, 1, 1], [0, 0, 0]])
    placement = place(network(first, np.ones((2, 4))), LOIHI1)
    assert (placement.inputs, placement.neurons, placement.hidden, placement.outputs) == (3, 6, 4, 2)
    assert (placement.synapses, placement.stored) == (6 + 8, 12 + 8)
    assert [item.fan_in for item in placement.layers] == [3, 4]
    assert placement.cores == 2
    assert placement.layers[0].per_core == {
        "neurons_per_core": 4,
        "axons_in_per_core": 3,
        "axons_out_per_core": 4,
        "synapse_bits_per_core": 3 * 64,
    }


def test_reference_has_no_cores() -> None:
    placement = place(network(np.ones((2, 3))), REFERENCE)
    assert placement.cores is None
    assert placement.memory_bits is None
    assert placement.utilisation == {}


def test_split_by_neurons() -> None:
    placement = place(network(np.ones((2000, 2))), LOIHI1)
    assert placement.layers[0].cores == 2
    assert placement.layers[0].per_core["neurons_per_core"] == 1000


def test_split_by_memory() -> None:
    # 2000 axons of 64 neurons take nine words each, 18000 of the 16384 there are; 56 neurons take eight.
    assert -(-(64 * 8 + 10) // 64) == 9
    assert -(-(56 * 8 + 10) // 64) == 8
    placement = place(network(np.ones((1000, 2000))), LOIHI1)
    used = placement.layers[0].per_core["synapse_bits_per_core"]
    cores = placement.layers[0].cores
    assert used is not None
    assert cores is not None
    assert used <= 16384 * 64
    assert cores >= 1000 * 2000 * 8 / (16384 * 64)
    assert not placement.layers[0].exceeded


def test_lava_counts_weights_that_are_not_zero() -> None:
    band = sum(np.eye(1024, k=k) for k in range(-4, 5))
    placed = place(network(band), LAVA)
    # 9 * (8 + 10 index bits) + 10 = 172 bits: three words for each axon, and no more at the ends.
    assert placed.memory_bits is not None
    assert 1016 * 192 <= placed.memory_bits <= 1024 * 192
    assert placed.cores == 1
    assert LAVA.packing is not None
    assert LAVA.packing.confidence == "second-hand"


def test_split_by_output_axons() -> None:
    # Each of 1024 neurons reaches every core of the next layer, 6 of them: 4096 axons carry 682 neurons.
    spec = dataclasses.replace(
        LOIHI1, limits=dataclasses.replace(LOIHI1.limits, synapse_bits_per_core=Fact(10**9, "test", "exact"))
    )
    placement = place(network(np.ones((1024, 1)), np.ones((6 * 1024, 1024))), spec)
    assert [item.cores for item in placement.layers] == [2, 6]


def test_a_neuron_that_fits_no_core_is_reported_and_placing_ends() -> None:
    placement = place(network(np.ones((3, 5000))), LOIHI1)
    assert placement.layers[0].exceeded == ("axons_in_per_core",)
    assert placement.cores == 1


def test_a_bias_into_a_current_takes_a_channel() -> None:
    one, neuron = np.ones(2), lif(2, current=0.5)
    nodes: list[tuple[str, Op]] = [
        ("input", Input((3,))),
        ("a", Affine(np.ones((2, 3)), one)),
        ("x", neuron),
        ("b", Affine(np.ones((2, 2)), one)),
        ("y", neuron),
        ("output", Output((2,))),
    ]
    graph = chain(Level.DISCRETE, nodes, dt=1e-3)
    placement = place(graph, LAVA)
    assert (placement.inputs, placement.bias_inputs) == (4, 1)
    assert (placement.neurons, placement.bias_neurons) == (5, 1)
    assert placement.synapses == 6 + 4 + 2 + 2
    # Several populations share a channel of what feeds them all.
    more = {**graph.nodes, "c": Affine(np.ones((2, 2)), one), "z": neuron, "output2": Output((2,))}
    edges = (*graph.edges, ("x", "c"), ("c", "z"), ("z", "output2"))
    shared = place(graph.replace(nodes=more, edges=edges), LAVA)
    assert (shared.bias_inputs, shared.bias_neurons, shared.neurons) == (1, 1, 7)
    assert shared.synapses == 6 + 4 + 4 + 2 + 2 + 2


def test_confidence_is_that_of_the_least_trusted_limit() -> None:
    graph = network(np.ones((2, 3)))
    assert place(graph, LOIHI1).confidence == "exact"
    assert place(graph, LAVA).confidence == "conflicting"
    assert place(graph, LAVA.override(cores=128)).confidence == "second-hand"
    assert place(graph, LAVA).open_limits == ("axons_in_per_core", "axons_out_per_core")


@settings(max_examples=examples(40), deadline=None)
@given(sizes=st.lists(st.integers(1, 60), min_size=2, max_size=4), caps=st.tuples(*[st.integers(20, 200)] * 4))
def test_no_core_exceeds_a_limit_unless_reported(sizes: list[int], caps: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(sizes))
    graph = network(*[rng.random((b, a)) for a, b in itertools.pairwise(sizes)])
    facts = {
        name: Fact(cap * (100 if "bits" in name else 1), "test", "exact")
        for name, cap in zip(CORE_LIMITS, caps, strict=True)
    }
    spec = dataclasses.replace(LOIHI1, limits=dataclasses.replace(LOIHI1.limits, **facts))  # type: ignore[arg-type]
    placement = place(graph, spec)
    assert placement == place(graph, spec)
    for item in placement.layers:
        assert item.cores is not None
        over = tuple(name for name in CORE_LIMITS if (item.per_core[name] or 0) > facts[name].value)  # type: ignore[operator]
        assert over == item.exceeded
        assert (item.per_core["neurons_per_core"] or 0) * item.cores >= item.neurons


@pytest.mark.parametrize(("stride", "padding", "dilation"), [((1, 1), (0, 0), (1, 1)), ((2, 1), (1, 2), (2, 1))])
def test_convolution_counts_equal_brute_force(
    stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> None:
    node = Conv(np.ones((4, 1, 3, 2)), None, stride, padding, dilation, 2, (7, 6))
    channels, height, width = node.in_shape
    counts = np.zeros((channels, height, width), dtype=int)
    for out in range(4):
        for y in range(node.out_shape[1]):
            for x in range(node.out_shape[2]):
                for ky in range(3):
                    for kx in range(2):
                        row = y * stride[0] - padding[0] + ky * dilation[0]
                        column = x * stride[1] - padding[1] + kx * dilation[1]
                        if 0 <= row < height and 0 <= column < width:
                            counts[out // 2, row, column] += 1
    nodes: list[tuple[str, Op]] = [("input", Input(node.in_shape)), ("conv", node), ("output", Output(node.out_shape))]
    (wire,) = Topology.of(chain(Level.IMPORTED, nodes)).wires
    assert np.array_equal(wire.fan_out, counts.ravel())


def test_packing_of_the_spec_is_the_one_of_the_source() -> None:
    assert Packing(8, 6, 10, 64, 64, (6, 7, 8, 9, 10, 11, 12), PACKING.source, "exact") == PACKING
