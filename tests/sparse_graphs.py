"""Random graphs of integers whose connections are stored in compressed rows: unrolled convolutions and others."""

from __future__ import annotations

from typing import Any

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.ops import (
    Csr,
    Input,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Level,
    Neuron,
    Op,
    Output,
    Sparse,
)
from nervecord.compiler.ops.sparse import Convolution


def convolution(rng: np.random.Generator, axes: int) -> Convolution:
    """Settings that fit: strides, paddings, dilations and groups differ by axis."""
    while True:
        groups = int(rng.integers(1, 3))
        convolution = Convolution(
            features=groups * int(rng.integers(1, 4)),
            input_shape=(groups * int(rng.integers(1, 3)), *(int(k) for k in rng.integers(3, 8, axes))),
            groups=groups,
            **{
                name: tuple(int(k) for k in rng.integers(low, high, axes))
                for name, low, high in (("kernel", 1, 4), ("stride", 1, 3), ("padding", 0, 3), ("dilation", 1, 3))
            },
        )
        if not list(convolution.violations()):
            return convolution


def mantissas(rng: np.random.Generator, count: int, arithmetic: Arithmetic) -> Any:
    """Of mixed signs, some of them zero."""
    low, high = arithmetic.weight_range(mixed=True)
    step = arithmetic.weight_step(8, mixed=True)
    values = rng.integers(low // step, high // step, endpoint=True, size=count) * step
    values[rng.random(count) < 0.1] = 0
    return values.astype(np.int32)


def matrix(rng: np.random.Generator, rows: int, inputs: int, arithmetic: Arithmetic) -> Csr:
    """A tenth of its weights or more, and a row without any."""
    places = rng.random((rows, inputs)) < rng.choice([0.1, 0.4])
    places[rng.integers(rows)] = False
    places[0, 0] = True
    pattern = Csr.of(places.astype(np.int32))
    return pattern.with_values(mantissas(rng, len(pattern.values), arithmetic))


def neurons(rng: np.random.Generator, size: int) -> Neuron:
    membrane = IntegerMembrane(
        int(rng.integers(0, 2000)), rng.integers(-200, 800, size).astype(np.int32), int(rng.integers(0, 3))
    )
    synapse = IntegerSynapse(int(rng.integers(1, 4096))) if rng.random() < 0.5 else None
    return Neuron(membrane, synapse, IntegerSpike(int(rng.integers(5, 200))))


def sparse_stream(seed: int, arithmetic: Arithmetic) -> tuple[Graph, Any]:
    """(graph, spikes or values of 30 steps): a convolution, then a matrix; exponents and delays of all kinds."""
    rng = np.random.default_rng(seed)
    form = convolution(rng, int(rng.integers(1, 3)))
    kernel = mantissas(
        rng, int(form.features * np.prod(form.input_shape[0] // form.groups) * np.prod(form.kernel)), arithmetic
    )
    rows = form.unrolled(kernel)
    plain, late = rng.random() < 0.5, rng.random() < 0.3
    first = Sparse(
        rows.values,
        rows.columns,
        rows.starts,
        rows.inputs,
        0 if plain else int(rng.integers(-4, 2)),
        8,
        int(rng.integers(2, 6)) if late else 1,
        form,
    )
    second = matrix(rng, int(rng.integers(2, 9)), first.size, arithmetic)
    values = bool(rng.random() < 0.4)
    nodes: list[tuple[str, Op]] = [
        ("input", Input((rows.inputs,), "values" if values else "spikes", 9.0 if values else None)),
        ("conv", first),
        ("neurons", neurons(rng, first.size)),
        (
            "rows",
            Sparse(
                second.values,
                second.columns,
                second.starts,
                second.inputs,
                int(rng.integers(-3, 1)),
                8,
                int(rng.choice([1, 1, 3])),
            ),
        ),
        ("last", neurons(rng, second.shape[0])),
        ("output", Output((second.shape[0],))),
    ]
    x = rng.integers(-9, 9, size=(30, rows.inputs)) if values else (rng.random((30, rows.inputs)) < 0.4)
    return chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=arithmetic), x.astype(np.float64)
