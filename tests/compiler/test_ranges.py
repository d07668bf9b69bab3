"""Proved ranges hold for every input; what they cannot hold is found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nervecord.compiler import nodes as n
from nervecord.compiler import ranges, semantics
from nervecord.compiler.graph import Graph, Level, chain
from nervecord.compiler.interpret import Machine


def random_layer(rng: np.random.Generator, *, readout: bool, interval: int) -> Graph:
    """encoder -> dense -> neurons, with extremes."""
    inputs, neurons = 4, 3
    weight = 2 * rng.integers(-128, 128, size=(neurons, inputs))
    bias = rng.integers(-4096, 4096, size=neurons)
    shared = {
        "du": int(rng.choice([0, 2048, 4095])),
        "dv": int(rng.choice([0, 600, 4095])),
        "bias_mant": bias,
        "bias_exp": int(rng.integers(0, 8)),
        "reset_interval": interval,
        "reset_offset": min(1, max(interval - 1, 0)),
    }
    neuron = n.FixedReadout(**shared) if readout else n.FixedLIF(threshold=int(rng.integers(0, 5000)), **shared)
    return chain(
        Level.INTEGER,
        [
            ("in", n.Input((inputs,))),
            ("q", n.Quantise(inputs, 1.0, int(rng.integers(1, 40)))),
            ("fc", n.FixedDense(weight, int(rng.integers(-3, 2)), 8, graded=True)),
            ("neurons", neuron),
            ("out", n.Output((neurons,))),
        ],
        dt=1e-3,
    )


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), readout=st.booleans(), interval=st.sampled_from([4, 9]))
def test_nothing_ever_leaves_its_proved_range(seed: int, readout: bool, interval: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_layer(rng, readout=readout, interval=interval)
    (proved,) = ranges.prove(graph)
    if ranges.check([proved]):
        return  # refused; wrapping and saturation are then allowed to break any bound
    limit = graph.nodes["q"].limit  # type: ignore[attr-defined]
    machine = Machine(graph, 16)
    node = graph.nodes["neurons"]
    for t in range(3 * interval):
        # Corners of the input cube drive the extremes; the rest is in between.
        x = rng.choice([-limit, 0, limit], size=(16, 4)) if t % 2 else rng.integers(-limit, limit + 1, size=(16, 4))
        before = {key: value.copy() for key, value in machine.state["neurons"].items()}
        values = machine.step({"q": x})
        assert np.abs(values["fc"]).max() <= proved.accumulator
        assert np.abs(machine.state["neurons"]["u"]).max() <= proved.current
        if node.reset_interval and t % node.reset_interval == node.reset_offset:  # type: ignore[attr-defined]
            before = {key: np.zeros_like(value) for key, value in before.items()}
        v = (
            semantics.decay(before["v"], 4096 - node.dv)  # type: ignore[attr-defined]
            + machine.state["neurons"]["u"]
            + (node.bias_mant.astype(np.int64) << node.bias_exp)  # type: ignore[attr-defined]
        )
        assert proved.membrane is not None
        assert proved.membrane[0] <= v.min()
        assert v.max() <= proved.membrane[1]


def layer(
    weight: int, *, limit: int = 100, exponent: int = 0, dv: int = 4095, readout: bool = False, interval: int = 6
):
    neuron = n.FixedReadout(4095, dv, [0], 0, interval, 0) if readout else n.FixedLIF(4095, dv, [0], 0, 10, interval, 0)
    return chain(
        Level.INTEGER,
        [
            ("in", n.Input((1,))),
            ("q", n.Quantise(1, 1.0, limit)),
            ("fc", n.FixedDense([[weight]], exponent, 8, graded=True)),
            ("neurons", neuron),
            ("out", n.Output((1,))),
        ],
        dt=1e-3,
    )


@pytest.mark.parametrize(
    ("graph", "code"),
    [
        (layer(254, limit=1000), "accumulator-overflow"),
        (layer(254, limit=1 << 24, exponent=-8), "product-overflow"),
        (layer(254, limit=500, dv=0, readout=True), "readout-saturates"),
        (layer(254, limit=500, dv=0), "membrane-saturates"),
        (layer(254, limit=1, dv=0, interval=0), "membrane-unbounded"),
    ],
)
def test_what_does_not_fit_is_found_by_name(graph: Graph, code: str) -> None:
    assert code in {finding.code for finding in ranges.check(ranges.prove(graph))}


def test_carried_state_converges_to_its_fixed_point() -> None:
    (proved,) = ranges.prove(layer(10, limit=1, dv=2048, interval=0, readout=True))
    # v = v / 2 + 640, whose limit is 1280, approached from below.
    assert proved.membrane is not None
    assert 1270 <= proved.membrane[1] <= 1280
