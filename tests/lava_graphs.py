"""Random INTEGER graphs within what the chip's arithmetic can hold, for the conformance tests."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.graph import Graph, Level, chain
from nervecord.compiler.interpret import Machine
from nervecord.compiler.node import Array, Node
from nervecord.compiler.ranges import ACCUMULATOR_LIMIT, PRODUCT_LIMIT
from nervecord.errors import GraphError

Recorded = dict[str, Array]


def draw(seed: int) -> tuple[Graph, Array]:
    """A chain of 1 to 3 layers and its input (steps, n)."""
    rng = np.random.default_rng(seed)
    sizes = [int(k) for k in rng.integers(1, 13, size=rng.integers(2, 5))]
    steps = int(rng.integers(20, 60))
    graded = bool(rng.random() < 0.6)
    limit = int(rng.choice([1, 9, 500, 32767])) if graded else 1
    window = int(rng.integers(1, 16)) if rng.random() < 0.6 else 0
    nodes: list[tuple[str, Node]] = [("input", n.Input((sizes[0],)))]
    for k, (fan_in, size) in enumerate(itertools.pairwise(sizes)):
        dense = _dense(rng, fan_in, size, limit if k == 0 else 1, graded=k == 0 and graded)
        last = k == len(sizes) - 2 and rng.random() < 0.7
        nodes += [(f"dense{k}", dense), (f"neurons{k}", _neurons(rng, dense, size, window, readout=last))]
    nodes.append(("output", n.Output((sizes[-1],))))
    x = rng.integers(-limit if graded else 0, limit, endpoint=True, size=(steps, sizes[0]))
    # Stretches of extreme and of no input.
    x[rng.random(steps) < 0.1] = limit
    x[rng.random(steps) < 0.2] = 0
    return chain(Level.INTEGER, nodes, dt=1e-3), x


def _dense(rng: np.random.Generator, fan_in: int, size: int, limit: int, *, graded: bool) -> n.FixedDense:
    mode = rng.choice(["mixed", "excitatory", "inhibitory"], p=[0.6, 0.25, 0.15])
    bits = int(rng.integers(2 if mode == "mixed" else 1, 9))
    step = 1 << (8 - bits + (1 if mode == "mixed" else 0))
    low, high = {"mixed": (-256, 254), "excitatory": (0, 255), "inhibitory": (-255, 0)}[str(mode)]
    weight = rng.integers(-(-low // step), high // step, endpoint=True, size=(size, fan_in)) * step
    while True:
        product = int(np.abs(weight).sum(axis=1).max()) * limit
        if product < PRODUCT_LIMIT:
            break
        weight[:, np.abs(weight).sum(axis=0).argmax()] = 0
    if weight.max() <= 0:  # then the chip takes them for inhibitory, which have no -256
        weight[weight == -256] += step
    # Often the largest exponent whose sum the accumulator still holds.
    exponents = [e for e in range(-8, 8) if (product << e if e > 0 else product >> -e) < ACCUMULATOR_LIMIT - 1]
    if not exponents:
        return n.FixedDense(np.zeros_like(weight), 0, bits, graded)
    exponent = exponents[-1] if rng.random() < 0.5 else int(rng.choice(exponents))
    return n.FixedDense(weight, exponent, bits, graded)


def _neurons(rng: np.random.Generator, dense: n.FixedDense, size: int, window: int, *, readout: bool) -> Node:
    def decay() -> int:
        return int(rng.choice([0, 1, 4094, 4095, rng.integers(4096)]))

    biases = [0, 1, 100, 4095]
    if readout:  # one that does not saturate: its own layer's scale decides
        biases = [0, 1]
    largest = int(rng.choice(biases))
    shared = {
        "du": decay(),
        "dv": decay(),
        "bias_mant": rng.integers(-largest, largest, endpoint=True, size=size),
        "bias_exp": 0 if readout else int(rng.integers(8)),
        "reset_interval": window,
        "reset_offset": int(rng.integers(window)) if window else 0,
    }
    if readout:
        return n.FixedReadout(**shared)
    typical = int(np.abs(dense.weight).max()) << max(dense.weight_exp, 0)
    threshold = int(rng.choice([0, 1, typical, 3 * typical, 131071, rng.integers(131072)]))
    return n.FixedLIF(threshold=min(threshold, 131071), **shared)


def expected(graph: Graph, x: Array) -> tuple[Recorded, Recorded] | None:
    """Spikes and membranes of every layer at every step by definition; None where a readout passes its threshold."""
    machine = Machine(graph)
    names = [name for name, _ in graph.of_type(*n.FIXED_NEURONS)]
    spikes: dict[str, list[Array]] = {name: [] for name in names}
    membranes: dict[str, list[Array]] = {name: [] for name in names}
    try:
        for row in x:
            outputs = machine.step({"input": row[None]})
            for name in names:
                spikes[name].append(outputs[name][0])
                membranes[name].append(machine.state[name]["v"][0])
    except GraphError:
        return None
    return {name: np.stack(v) for name, v in spikes.items()}, {name: np.stack(v) for name, v in membranes.items()}


def usable(first: int, count: int) -> list[tuple[int, Graph, Array, Recorded, Recorded]]:
    """This many graphs whose readouts hold, from this seed on: (seed, graph, input, spikes, membranes)."""
    found = []
    seed = first
    while len(found) < count:
        graph, x = draw(seed)
        wanted = expected(graph, x)
        if wanted is not None:
            found.append((seed, graph, x, *wanted))
        seed += 1
    return found


def expressible(seed: int) -> tuple[Graph, Array]:
    """A random graph within the format: no exponent, biases in steps of 64, staggered resets."""
    graph, x = draw(seed)
    nodes = dict(graph.nodes)
    rng = np.random.default_rng(seed)
    for k, (name, node) in enumerate(graph.of_type(n.FixedLIF, n.FixedReadout)):
        assert isinstance(node, n.FixedLIF | n.FixedReadout)
        offset = (1 + k) % node.reset_interval if node.reset_interval else 0
        bias = np.zeros(node.in_shape) if rng.random() < 0.5 else node.bias_mant
        nodes[name] = dataclasses.replace(node, reset_offset=offset, bias_exp=6, bias_mant=bias)
    for name, node in graph.of_type(n.FixedDense):
        assert isinstance(node, n.FixedDense)
        nodes[name] = dataclasses.replace(node, weight_exp=0)
    return graph.replace(nodes=nodes), np.clip(x, -9, 9)
