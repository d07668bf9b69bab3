"""The integer definition against an independent scalar transcription of Lava's fixed-point models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import random_policy

from nervecord.compiler import nodes as n
from nervecord.compiler import semantics
from nervecord.compiler.graph import Graph, Level, chain
from nervecord.compiler.interpret import Machine, simulate
from nervecord.errors import GraphError


def scalar_lif(node: n.FixedLIF, k: int, activations: list[int]) -> tuple[list[int], list[int], list[int]]:
    """Neuron k in plain Python integers, as lava-nc 0.10.0's PyLifModelBitAcc computes it."""
    u = v = 0
    spikes, us, vs = [], [], []
    for t, a in enumerate(activations):
        if node.reset_interval and t % node.reset_interval == node.reset_offset:
            u = v = 0
        sign = -1 if u < 0 else 1
        u = sign * ((abs(u) * (4096 - (node.du + 1))) >> 12) + a * 64
        if u > 2**23:
            u -= 2**24
        elif u <= -(2**23):
            u += 2**24
        sign = -1 if v < 0 else 1
        v = sign * ((abs(v) * (4096 - node.dv)) >> 12) + u + int(node.bias_mant[k]) * 2**node.bias_exp
        v = max(-(2**23 - 1), min(2**23 - 1, v))
        spike = int(v > node.threshold * 64)
        if spike:
            v = 0
        spikes.append(spike)
        us.append(u)
        vs.append(v)
    return spikes, us, vs


@settings(max_examples=60, deadline=None)
@given(
    du=st.sampled_from([0, 1, 7, 2048, 4094, 4095]),
    dv=st.sampled_from([0, 1, 655, 4095]),
    bias=st.lists(st.integers(-4096, 4095), min_size=3, max_size=3),
    bias_exp=st.integers(0, 7),
    threshold=st.sampled_from([0, 1, 300, 131071]),
    window=st.sampled_from([(0, 0), (7, 0), (7, 6), (3, 1)]),
    activations=st.lists(
        st.lists(st.integers(-(2**17) + 1, 2**17 - 1), min_size=3, max_size=3), min_size=1, max_size=30
    ),
)
def test_fixed_lif_equals_lava_scalar_code(du, dv, bias, bias_exp, threshold, window, activations) -> None:
    node = n.FixedLIF(du, dv, np.array(bias), bias_exp, threshold, *window)
    state = semantics.initial_state(node, 1)
    spikes, us, vs = [], [], []
    for t, a in enumerate(activations):
        spikes.append(semantics.step(node, state, np.array([a]), t)[0].tolist())
        us.append(state["u"][0].tolist())
        vs.append(state["v"][0].tolist())
    for k in range(3):
        wanted = scalar_lif(node, k, [a[k] for a in activations])
        assert ([s[k] for s in spikes], [u[k] for u in us], [v[k] for v in vs]) == wanted


@pytest.mark.parametrize(("exponent", "expected"), [(0, -5), (2, -20), (-1, -3), (-8, -1)])
def test_dense_shifts_round_down(exponent: int, expected: int) -> None:
    node = n.FixedDense(np.array([[-5]]), exponent, 8, graded=True)
    assert semantics.product(node, np.array([[1]]))[0, 0] == expected


def test_dense_delivers_one_step_later_and_keeps_its_buffer_through_a_reset_window() -> None:
    lif = n.FixedLIF(4095, 4095, np.zeros(1, dtype=int), 0, 5, 2, 1)
    graph = chain(
        Level.INTEGER,
        [
            ("in", n.Input((1,))),
            ("fc", n.FixedDense([[10]], 0, 8, graded=False)),
            ("lif", lif),
            ("out", n.Output((1,))),
        ],
        dt=1e-3,
    )
    trace = simulate(graph, np.array([[1], [0], [1], [0]]))
    assert trace.outputs["fc"][:, 0, 0].tolist() == [0, 10, 0, 10]
    # The spike arrives at step 1, in which the reset window clears: before the update, so it is not lost.
    assert trace.outputs["lif"][:, 0, 0].tolist() == [0, 1, 0, 1]


def test_quantise_rounds_half_to_even_and_clips() -> None:
    node = n.Quantise(4, 2.0, 5, constant=7)
    assert semantics.quantise(node, np.array([[0.25, 0.75, 100.0, -1.26]])).tolist() == [[0, 2, 5, -3, 7]]


def test_delayed_affine_delays_products_not_bias() -> None:
    graph = chain(
        Level.DISCRETE,
        [("in", n.Input((1,))), ("fc", n.Affine([[2.0]], [1.0], delay=2)), ("out", n.Output((1,)))],
        dt=1e-3,
    )
    assert simulate(graph, np.array([[1.0], [2.0], [3.0], [4.0]])).outputs["fc"][:, 0, 0].tolist() == [1, 1, 3, 5]


@pytest.mark.parametrize(("reset", "expected"), [("value", -0.5), ("subtract", 0.7), ("none", 1.7)])
def test_reset_rules(reset: str, expected: float) -> None:
    node = n.DiscreteLIF([0.9], [1.0], [0.0], [1.0], [-0.5], reset)  # type: ignore[arg-type]
    state = semantics.initial_state(node, 1)
    assert semantics.step(node, state, np.array([[1.7]]), 0)[0, 0] == 1.0
    assert state["v"][0, 0] == pytest.approx(expected)


def test_threshold_is_strict() -> None:
    node = n.DiscreteLIF([0.0], [1.0], [0.0], [1.0], [0.0])
    assert semantics.step(node, semantics.initial_state(node, 1), np.array([[1.0]]), 0)[0, 0] == 0.0


def test_recurrent_graph_runs_through_its_delay() -> None:
    graph = Graph(
        Level.DISCRETE,
        {
            "in": n.Input((1,)),
            "lif": n.DiscreteLIF([1.0], [1.0], [0.0], [0.5], [0.0]),
            "loop": n.Affine([[1.0]], delay=1),
            "out": n.Output((1,)),
        },
        (("in", "lif"), ("lif", "loop"), ("loop", "lif"), ("lif", "out")),
        dt=1e-3,
    )
    spikes = simulate(graph, np.array([[1.0], [0.0], [0.0]])).outputs["lif"][:, 0, 0]
    assert spikes.tolist() == [1, 1, 1]


def test_reset_state_makes_actions_independent_of_history() -> None:
    graph = random_policy(current=True)
    rows = graph.recorded
    assert rows is not None
    machine = Machine(graph)
    first = machine.window(rows[:1])[0]
    machine.window(rows[1:2])
    assert np.array_equal(machine.window(rows[:1])[0], first)
    carried = Machine(random_policy(state="carried"))
    first = carried.window(rows[:1])[0]
    carried.window(rows[1:2])
    assert not np.array_equal(carried.window(rows[:1])[0], first)


def test_batch_rows_do_not_touch_each_other_and_clear_alone() -> None:
    graph = random_policy(state="carried")
    rows = graph.recorded
    assert rows is not None
    together, alone = Machine(graph, 3), Machine(graph, 1)
    for k in range(4):
        both = together.window(rows[3 * k : 3 * k + 3])[0]
        single = alone.window(rows[3 * k : 3 * k + 1])[0]
        assert np.allclose(both[0], single[0], rtol=0, atol=1e-12)
    together.clear(np.array([1]))
    fresh = Machine(graph, 1)
    again = together.window(np.repeat(rows[:1], 3, axis=0))[0]
    assert np.allclose(again[1], fresh.window(rows[:1])[0][0], rtol=0, atol=1e-12)
    assert not np.allclose(again[0], again[1])


@pytest.mark.parametrize(
    "values", [np.zeros((3, 5)), np.full((3, 27), np.nan), np.array([["a"] * 27]), np.zeros((2, 2, 2, 27))]
)
def test_simulate_refuses_input_that_does_not_fit(values: np.ndarray) -> None:
    with pytest.raises(GraphError, match="observation"):
        simulate(random_policy(), values)
