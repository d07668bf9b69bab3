"""Float graphs that targets of integers change before they lower them, and what every such pass keeps to.

Spikes are compared exactly. Of the random networks the sums are the same numbers in another order, and no membrane of
theirs comes within the rounding of its threshold; `dyadic` ones round nothing, so that any order gives the same.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.ops import (
    Affine,
    Conv,
    DelayLine,
    Flatten,
    Input,
    Level,
    Membrane,
    Neuron,
    Op,
    Output,
    Pool,
    Scale,
    Spike,
    Synapse,
)
from nervecord.compiler.plan.interpret import simulate


def dyadic(rng: np.random.Generator, *shape: int) -> Any:
    """Multiples of 1/8 in -2..2."""
    return rng.integers(-16, 16, endpoint=True, size=shape) / 8


def plain_lif(decay: Any, threshold: Any = 1.0, current: Any = None) -> Neuron:
    """Reset to zero, no leak; arrays of the population's shape."""
    decay = np.asarray(decay, dtype=float)
    ones = np.ones(decay.shape)
    synapse = None if current is None else Synapse(ones * current, ones)
    return Neuron(Membrane(decay, ones, 0 * ones), synapse, Spike(ones * threshold, 0 * ones))


def lif(
    rng: np.random.Generator,
    *shape: int,
    decays: int = 1,
    thresholds: bool = False,
    current: bool = False,
    reset: str = "value",
) -> Neuron:
    keep = rng.choice(np.linspace(0.6, 0.95, decays), size=shape)
    level = rng.uniform(0.5, 1.5, size=shape) if thresholds else np.full(shape, 0.8)
    synapse = Synapse(np.full(shape, 0.5), np.ones(shape)) if current else None
    return Neuron(
        Membrane(keep, np.ones(shape), rng.uniform(0, 0.02, size=shape)), synapse, Spike(level, np.zeros(shape), reset)
    )


def conv(rng: np.random.Generator, shape: tuple[int, ...], out: int, bias: bool = True) -> Conv:
    weight = rng.normal(size=(out, shape[0], 3, 3)) * 0.4
    return Conv(weight, rng.normal(size=out) * 0.1 if bias else None, (1, 1), (1, 1), (1, 1), 1, shape[1:])


def network(seed: int) -> Graph:
    """Convolutions, poolings, flattening, scales, matrices in a row, a delay line, a loop, a skip over a population."""
    rng = np.random.default_rng(seed)
    c1, c2 = conv(rng, (2, 6, 6), 3), conv(rng, (3, 3, 3), 4, bias=seed % 2 == 0)
    nodes: dict[str, Op] = {
        "input": Input((2, 6, 6), "spikes"),
        "c1": c1,
        "n1": lif(rng, 3, 6, 6),
        "pool": Pool("average" if seed % 2 else "sum", (2, 2), (2, 2), (0, 0), (3, 6, 6)),
        "c2": c2,
        "scale": Scale(rng.uniform(0.5, 1.5, size=(4, 3, 3))),
        "n2": lif(rng, 4, 3, 3, current=seed % 3 == 0),
        "flat": Flatten((4, 3, 3), 0, -1),
        "line": DelayLine(rng.integers(1, 4, size=36)),
        "fc": Affine(rng.normal(size=(9, 36)) * 0.4),
        "fc2": Affine(rng.normal(size=(7, 9)) * 0.6, rng.normal(size=7)),
        "n3": lif(rng, 7),
        "back": Affine(rng.normal(size=(7, 7)) * 0.3, None, 2),
        "skip": Flatten((3, 6, 6), 0, -1),
        "over": Affine(rng.normal(size=(7, 108)) * 0.1, None, 1),
        "output": Output((7,)),
        "side": Output((4, 3, 3)),
    }
    edges = [
        "input c1",
        "c1 n1",
        "n1 pool",
        "pool c2",
        "c2 scale",
        "scale n2",
        "n2 flat",
        "flat line",
        "line fc",
        "fc fc2",
        "fc2 n3",
        "n3 back",
        "back n3",
        "n1 skip",
        "skip over",
        "over n3",
        "n3 output",
        "n2 side",
    ]
    return Graph(Level.DISCRETE, nodes, tuple((e.split()[0], e.split()[1]) for e in edges), 1e-3)


def raster(seed: int, steps: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).random((steps, 1, *shape)) < 0.3).astype(float)


def same_spikes(before: Graph, after: Graph, steps: int = 60) -> None:
    x = raster(5, steps, *before.nodes["input"].in_shape)
    left = simulate(before, x).left
    right = simulate(after, x.reshape(steps, 1, *after.nodes["input"].in_shape)).left
    assert list(left) == list(right)
    for name in left:
        assert 0 < left[name].sum() < left[name].size
        assert np.array_equal(left[name].reshape(steps, -1), right[name].reshape(steps, -1))


def holds(run: Callable[[Graph], Graph], graph: Graph) -> Graph:
    """The pass's result: pure, deterministic, idempotent, and the same object where nothing changes."""
    snapshot = pickle.dumps(graph)
    result = run(graph)
    assert pickle.dumps(graph) == snapshot
    assert result is not graph
    assert run(graph) == result
    assert run(result) is result
    return result


def layered(seed: int, decays: int) -> Graph:
    """A hidden recurrent population of several decays, heard by another one beside a second source; both are read."""
    rng = np.random.default_rng(seed)
    hidden = lif(rng, 12, decays=decays, current=seed % 2 == 1)
    if isinstance(hidden.synapse, Synapse):
        hidden = hidden.replace(synapse=Synapse(rng.choice([0.3, 0.6], size=12), np.ones(12)))
    nodes: dict[str, Op] = {
        "input": Input((8,), "spikes"),
        "fc": Affine(rng.normal(size=(12, 8)) * 0.5, rng.normal(size=12) * 0.1),
        "hidden": hidden,
        "back": Affine(rng.normal(size=(12, 12)) * 0.3, None, 1),
        "past": Affine(rng.normal(size=(12, 8)) * 0.5),
        "beside": lif(rng, 12),
        "fc2": Affine(rng.normal(size=(5, 12)) * 0.4, rng.normal(size=5) * 0.1),
        "last": lif(rng, 5, decays=decays),
        "output": Output((5,)),
    }
    edges = [
        "input fc",
        "fc hidden",
        "hidden back",
        "back hidden",
        "input past",
        "past beside",
        "hidden fc2",
        "beside fc2",
        "fc2 last",
        "last output",
    ]
    return Graph(Level.DISCRETE, nodes, tuple((e.split()[0], e.split()[1]) for e in edges), 1e-3)


def convolutional(seed: int) -> Graph:
    rng = np.random.default_rng(seed)
    c1 = conv(rng, (1, 6, 6), 2)
    nodes: list[tuple[str, Op]] = [
        ("input", Input((1, 6, 6), "spikes")),
        ("c1", c1),
        ("n1", lif(rng, 2, 6, 6, decays=2, thresholds=True)),
        ("pool", Pool("sum", (2, 2), (2, 2), (0, 0), (2, 6, 6))),
        ("c2", conv(rng, (2, 3, 3), 3)),
        ("n2", lif(rng, 3, 3, 3)),
        ("flat", Flatten((3, 3, 3), 0, -1)),
        ("fc", Affine(rng.normal(size=(4, 27)) * 0.4, rng.normal(size=4) * 0.1)),
        ("n3", lif(rng, 4)),
        ("output", Output((4,))),
    ]
    return chain(Level.DISCRETE, nodes, dt=1e-3)
