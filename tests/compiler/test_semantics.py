"""The definition of ops, plans and blocks, integers against an independent scalar transcription of Lava's models."""

from __future__ import annotations

import dataclasses
from typing import Any

import graphs
import numpy as np
import pytest
from bodies import computed
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import li, lif, random_dag, random_policy

from nervecord.compiler.arithmetic import BOUNDS, Arithmetic
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops import (
    Affine,
    Conv,
    Dense,
    Input,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Level,
    Membrane,
    Neuron,
    Op,
    Output,
    Pool,
    Quantise,
    Spike,
)
from nervecord.compiler.plan.interpret import Machine, simulate
from nervecord.compiler.plan.plan import plan
from nervecord.errors import GraphError

LAVA = graphs.LAVA


def integer_lif(du: int, dv: int, bias: Any, bias_exp: int, threshold: int) -> Neuron:
    """As Lava's parameters say it: du = 4095 keeps nothing of the current, which is to have no synapse."""
    synapse = None if du == 4095 else IntegerSynapse(du + 1)
    return Neuron(IntegerMembrane(dv, np.array(bias), bias_exp), synapse, IntegerSpike(threshold))


def scalar_lif(
    du: int, dv: int, bias: int, bias_exp: int, threshold: int, activations: list[int], window: tuple[int, int]
) -> tuple[list[int], list[int], list[int]]:
    """One neuron in plain Python integers, as lava-nc 0.10.0's PyLifModelBitAcc computes it; its (interval, offset)."""
    u = v = 0
    spikes, us, vs = [], [], []
    interval, offset = window
    for t, a in enumerate(activations):
        if interval and t % interval == offset:
            u = v = 0
        sign = -1 if u < 0 else 1
        u = sign * ((abs(u) * (4096 - (du + 1))) >> 12) + a * 64
        if u > 2**23:
            u -= 2**24
        elif u <= -(2**23):
            u += 2**24
        sign = -1 if v < 0 else 1
        v = sign * ((abs(v) * (4096 - dv)) >> 12) + u + bias * 2**bias_exp
        v = max(-(2**23 - 1), min(2**23 - 1, v))
        spike = int(v > threshold * 64)
        if spike:
            v = 0
        spikes.append(spike)
        us.append(u)
        vs.append(v)
    return spikes, us, vs


PARAMETERS: dict[str, Any] = {
    "du": st.sampled_from([0, 1, 7, 2048, 4094, 4095]),
    "dv": st.sampled_from([0, 1, 655, 4095]),
    "bias": st.lists(st.integers(-4096, 4095), min_size=3, max_size=3),
    "bias_exp": st.integers(0, 7),
    "threshold": st.sampled_from([0, 1, 300, 131071]),
}


@settings(max_examples=examples(60), deadline=None)
@given(
    **PARAMETERS,
    window=st.sampled_from([(0, 0), (7, 0), (7, 6), (3, 1)]),
    activations=st.lists(
        st.lists(st.integers(-(2**17) + 1, 2**17 - 1), min_size=3, max_size=3), min_size=1, max_size=30
    ),
)
def test_integer_neurons_equal_lavas_scalar_code(du, dv, bias, bias_exp, threshold, window, activations) -> None:
    op = integer_lif(du, dv, bias, bias_exp, threshold)
    state = op.state(1)
    spikes, us, vs = [], [], []
    for t, a in enumerate(activations):
        if window[0] and t % window[0] == window[1]:
            state = op.state(1)
        spikes.append(op.step(state, np.array([a]), LAVA)[0].tolist())
        us.append(state["u"][0].tolist() if "u" in state else None)
        vs.append(state["v"][0].tolist())
    for k in range(3):
        expected = scalar_lif(du, dv, bias[k], bias_exp, threshold, [a[k] for a in activations], window)
        assert [s[k] for s in spikes] == expected[0]
        assert [v[k] for v in vs] == expected[2]
        # Without a synapse the current is what enters, and is kept nowhere.
        assert du == 4095 or [u[k] for u in us if u is not None] == expected[1]


@settings(max_examples=examples(60), deadline=None)
@given(**PARAMETERS, delay=st.integers(1, 4), steps=st.integers(1, 6), resets=st.booleans(), seed=st.integers(0, 99))
def test_a_planned_layer_equals_lavas_scalar_code(
    du, dv, bias, bias_exp, threshold, delay, steps, resets, seed
) -> None:
    """Dense and neurons through plan and machine: when it delivers, when it is cleared, what its buffer keeps."""
    rng = np.random.default_rng(seed)
    weight = 2 * rng.integers(-128, 127, size=(3, 2), endpoint=True)
    nodes: list[tuple[str, Op]] = [
        ("in", Input((2,), "spikes")),
        ("fc", Dense(weight, int(rng.integers(-8, 8)), 8, delay)),
        ("lif", integer_lif(du, dv, bias, bias_exp, threshold)),
        ("out", Output((3,))),
    ]
    graph = chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=LAVA)
    network_plan = plan(graph, Schedule(steps, "reset" if resets else "carried"))
    # Cleared `delay` steps after the inputs begin, every T + delay steps.
    window = (steps + delay, delay) if resets else (0, 0)
    assert network_plan.window == steps + (delay if resets else 0)
    machine = Machine(network_plan)
    x = rng.integers(0, 2, size=(4 * network_plan.window, 1, 2))
    step_values = [machine.step({"in": row}) for row in x]
    exponent = graph.nodes["fc"].weight_exp  # type: ignore[attr-defined]
    for k in range(3):
        sums = [int(row[0] @ weight[k]) for row in x]
        sums = [s << exponent if exponent > 0 else s >> -exponent for s in sums]
        arriving = [0] * delay + sums[: len(sums) - delay]
        spikes, _, _ = scalar_lif(du, dv, bias[k], bias_exp, threshold, arriving, window)
        assert [int(values["fc"][0, k]) for values in step_values] == arriving
        assert [int(values["lif"][0, k]) for values in step_values] == spikes


@pytest.mark.parametrize(("exponent", "expected"), [(0, -5), (2, -20), (-1, -3), (-8, -1)])
def test_dense_shifts_round_down(exponent: int, expected: int) -> None:
    op = Dense(np.array([[-5]]), exponent, 8)
    assert op.step({}, np.array([[1]]), LAVA)[0, 0] == expected


def test_dense_delivers_one_step_later_and_keeps_its_buffer_through_a_reset_window() -> None:
    nodes: list[tuple[str, Op]] = [
        ("in", Input((1,), "spikes")),
        ("fc", Dense([[10]])),  # type: ignore[arg-type]
        ("lif", integer_lif(4095, 4095, [0], 0, 5)),
        ("out", Output((1,))),
    ]
    graph = chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=LAVA)
    machine = Machine(plan(graph, Schedule(1, "reset")))
    assert machine.plan.window == 2
    step_values = [machine.step({"in": np.array([[x]])}) for x in (1, 0, 1, 0)]
    assert [values["fc"][0, 0] for values in step_values] == [0, 10, 0, 10]
    # The spike arrives at step 1, in which the window clears: before the update, so it is not lost.
    assert [values["lif"][0, 0] for values in step_values] == [0, 1, 0, 1]


def test_quantise_rounds_half_to_even_and_clips() -> None:
    op = Quantise(4, 2.0, 5, constant=7)
    assert op.step({}, np.array([[0.25, 0.75, 100.0, -1.26]])).tolist() == [[0, 2, 5, -3, 7]]


def test_a_membrane_that_is_read_may_not_pass_the_chips_largest_threshold() -> None:
    """Lava's readout is a neuron that must not spike; compiling proves that, and the definition holds it."""
    op = Neuron(IntegerMembrane(0, np.zeros(1)))
    state = op.state(1)
    assert op.step(state, np.array([[131071]]), LAVA)[0, 0] == 131071 * 64
    with pytest.raises(GraphError, match="passed its threshold"):
        op.step(state, np.array([[1]]), LAVA)


# --------------------------------------------------------------------------------------------------------------------
# Other arithmetics: each choice by hand


def changed(**changes: Any) -> Arithmetic:
    return dataclasses.replace(LAVA, **changes)


@pytest.mark.parametrize(
    ("changes", "code", "x", "result"),
    [
        ({}, 1, -4095, -4094),  # towards zero
        ({"decay_rounding": "floor"}, 1, -4095, -4095),
        ({"decay_rounding": "half-up", "decay_bits": 1}, 1, 3, 2),
        ({"decay_rounding": "half-up", "decay_bits": 1}, 1, -3, -1),
        ({"decay_rounding": "half-up", "decay_bits": 2}, 1, 3, 2),
        ({"decay": "shift", "decay_rounding": "floor", "decay_bits": 4}, 2, 7, 6),
        ({"decay": "shift", "decay_rounding": "floor", "decay_bits": 4}, 2, -7, -5),
        ({"decay": "shift", "decay_rounding": "floor", "decay_bits": 4}, 4, 7, 7),
        ({"decay": "shift", "decay_rounding": "at-least-one", "decay_bits": 4}, 4, 7, 6),
        ({"decay": "shift", "decay_rounding": "at-least-one", "decay_bits": 4}, 4, 0, 0),
    ],
)
def test_decays(changes: dict[str, Any], code: int, x: int, result: int) -> None:
    assert computed(lambda value: changed(**changes).decayed(value, code, "v"), [x]).tolist() == [result]


@pytest.mark.parametrize(
    ("overflow", "values"),
    [
        ("saturate", [127, -128, 127, -128]),
        ("saturate-symmetric", [127, -127, 127, -127]),
        ("wrap", [-128, 127, -56, 56]),
        ("wrap-once", [128, 127, -56, 56]),
    ],
)
def test_overflows(overflow: Any, values: list[int]) -> None:
    arithmetic = changed(membrane_bits=8, membrane_overflow=overflow)
    assert computed(arithmetic.membrane, [128, -129, 200, -200]).tolist() == values


@pytest.mark.parametrize(
    ("changes", "v", "spikes", "membranes"),
    [
        ({}, [640, 641], [0, 1], [640, 0]),
        ({"compare": ">="}, [639, 640], [0, 1], [639, 0]),
        ({"reset": "subtract"}, [640, 1500], [0, 1], [640, 860]),
        ({"reset": "subtract", "spikes_per_step": 31}, [640, 641, 1500], [0, 1, 2], [640, 1, 220]),
        ({"reset": "subtract", "spikes_per_step": 31, "compare": ">="}, [640, 1280, 64000], [1, 2, 31], [0, 0, 44160]),
    ],
)
def test_spikes_and_resets(changes: dict[str, Any], v: list[int], spikes: list[int], membranes: list[int]) -> None:
    fired, after = computed(lambda value: changed(**changes).fire(value, 10), v)
    assert (fired.tolist(), after.tolist()) == (spikes, membranes)


def test_order_of_current_and_membrane_and_where_a_bias_enters() -> None:
    op = Neuron(IntegerMembrane(0, np.array([3])), IntegerSynapse(2048), IntegerSpike(131071))

    def trace(arithmetic: Arithmetic) -> list[tuple[int, int]]:
        state, states = op.state(1), []
        for x in (4, 0, 0):
            op.step(state, np.array([[x]]), arithmetic)
            states.append((int(state["u"][0, 0]), int(state["v"][0, 0])))
        return states

    assert trace(LAVA) == [(256, 259), (128, 390), (64, 457)]
    assert trace(changed(order="membrane-first")) == [(256, 3), (128, 262), (64, 393)]
    assert trace(changed(bias_enters="current")) == [(259, 259), (132, 391), (69, 460)]


def test_products_may_be_shifted_each() -> None:
    op = Dense(np.array([[3, 3, -3]]), -1)
    x = np.array([[1, 1, 1]])
    assert op.step({}, x, LAVA)[0, 0] == 1
    assert op.step({}, x, changed(accumulate="shift-each"))[0, 0] == 1 + 1 - 2


def test_the_bounds_of_an_arithmetic_name_its_fields() -> None:
    fields = {f.name for f in dataclasses.fields(Arithmetic)}
    assert set(BOUNDS) <= fields
    assert all(low <= getattr(LAVA, name) <= high for name, (low, high) in BOUNDS.items())


# --------------------------------------------------------------------------------------------------------------------
# Floats


def test_delayed_affine_delays_products_not_bias() -> None:
    nodes: list[tuple[str, Op]] = [
        ("in", Input((1,))),
        ("fc", Affine([[2.0]], [1.0], delay=2)),
        ("out", Output((1,))),  # type: ignore[arg-type]
    ]
    graph = chain(Level.DISCRETE, nodes, dt=1e-3)
    assert simulate(graph, np.array([[1.0], [2.0], [3.0], [4.0]])).outputs["fc"][:, 0, 0].tolist() == [1, 1, 3, 5]


def neuron(decay: float, reset: str = "value", value: float = 0.0, refractory: int = 0) -> Neuron:
    spike = Spike([1.0], [value], reset, refractory)  # type: ignore[arg-type]
    return Neuron(Membrane([decay], [1.0], [0.0]), None, spike)  # type: ignore[arg-type]


@pytest.mark.parametrize(("reset", "expected"), [("value", -0.5), ("subtract", 0.7), ("none", 1.7)])
def test_reset_rules(reset: str, expected: float) -> None:
    op = neuron(0.9, reset, -0.5)
    state = op.state(1)
    assert op.step(state, np.array([[1.7]]))[0, 0] == 1.0
    assert state["v"][0, 0] == pytest.approx(expected)


def test_threshold_is_strict() -> None:
    op = neuron(0.0)
    assert op.step(op.state(1), np.array([[1.0]]))[0, 0] == 0.0


def test_a_refractory_neuron_is_silent_and_stands_still() -> None:
    op = neuron(1.0, refractory=2)
    state = op.state(1)
    spikes, vs = [], []
    for _ in range(8):
        spikes.append(op.step(state, np.array([[0.6]]))[0, 0])
        vs.append(float(state["v"][0, 0]))
    # 0.6, 1.2 spikes; two steps at its reset value without taking anything in; again.
    assert spikes == [0, 1, 0, 0, 0, 1, 0, 0]
    assert vs == [0.6, 0, 0, 0, 0.6, 0, 0, 0]


def test_a_synapse_is_updated_first_and_not_reset() -> None:
    op = lif(1, 1.0, current=0.5)
    state = op.state(1)
    assert [op.step(state, np.array([[x]]))[0, 0] for x in (0.9, 0.0, 0.0)] == [0, 1, 0]
    assert float(state["u"][0, 0]) == 0.9 / 4
    assert float(state["v"][0, 0]) == 0.9 / 4


def test_recurrent_graph_runs_through_its_delay() -> None:
    graph = Graph(
        Level.DISCRETE,
        {
            "in": Input((1,)),
            "lif": lif(1, 1.0, threshold=0.5),
            "loop": Affine([[1.0]], delay=1),  # type: ignore[arg-type]
            "out": Output((1,)),
        },
        (("in", "lif"), ("lif", "loop"), ("loop", "lif"), ("lif", "out")),
        dt=1e-3,
    )
    spikes = simulate(graph, np.array([[1.0], [0.0], [0.0]])).outputs["lif"][:, 0, 0]
    assert spikes.tolist() == [1, 1, 1]


def test_convolutions_and_pools_against_loops() -> None:
    rng = np.random.default_rng(0)
    op = Conv(rng.normal(size=(4, 1, 3, 2)), rng.normal(size=4), (2, 1), (1, 2), (2, 1), 2, (7, 6))
    x = rng.normal(size=(1, *op.in_shape))
    y = op.step({}, x)[0]
    assert y.shape == op.out_shape
    for out, row, column in np.ndindex(*op.out_shape):
        total = float(op.bias[out])  # type: ignore[index]
        for ky, kx in np.ndindex(3, 2):
            i, j = row * 2 - 1 + ky * 2, column - 2 + kx
            if 0 <= i < 7 and 0 <= j < 6:
                total += float(op.weight[out, 0, ky, kx]) * float(x[0, out // 2, i, j])
        assert y[out, row, column] == pytest.approx(total, abs=1e-12)
    for mode, divide in (("sum", 1), ("average", 6)):
        pool = Pool(mode, (3, 2), (2, 2), (1, 0), (2, 5, 4))
        x = rng.normal(size=(1, *pool.in_shape))
        padded = np.pad(x[0], [(0, 0), (1, 1), (0, 0)])
        y = pool.step({}, x)[0]
        assert y.shape == pool.out_shape
        for c, row, column in np.ndindex(*pool.out_shape):
            window = padded[c, 2 * row : 2 * row + 3, 2 * column : 2 * column + 2]
            assert y[c, row, column] == pytest.approx(window.sum() / divide, abs=1e-12)


# --------------------------------------------------------------------------------------------------------------------
# Blocks, batches, branches


def test_reset_state_makes_actions_independent_of_history() -> None:
    policy = random_policy(current=True)
    rows = policy.recorded
    assert rows is not None
    machine = Machine(policy)
    first = machine.window(rows[:1])[0]
    machine.window(rows[1:2])
    assert np.array_equal(machine.window(rows[:1])[0], first)
    carried = Machine(random_policy(state="carried"))
    first = carried.window(rows[:1])[0]
    carried.window(rows[1:2])
    assert not np.array_equal(carried.window(rows[:1])[0], first)


@pytest.mark.parametrize(
    "policy", [random_policy(state="carried"), random_dag(1, carried=True, recurrent=True)], ids=["chain", "branched"]
)
def test_batch_rows_do_not_touch_each_other_and_clear_alone(policy: Policy) -> None:
    rows = policy.recorded
    assert rows is not None
    together, alone = Machine(policy, 3), Machine(policy, 1)
    for k in range(4):
        both = together.window(rows[3 * k : 3 * k + 3])[0]
        single = alone.window(rows[3 * k : 3 * k + 1])[0]
        assert np.allclose(both[0], single[0], rtol=0, atol=1e-12)
    together.clear(np.array([1]))
    fresh = Machine(policy, 1)
    again = together.window(np.repeat(rows[:1], 3, axis=0))[0]
    assert np.allclose(again[1], fresh.window(rows[:1])[0][0], rtol=0, atol=1e-12)
    assert not np.allclose(again[0], again[1])


@pytest.mark.parametrize("seed", range(6))
def test_the_order_of_nodes_and_edges_means_nothing(seed: int) -> None:
    """Only that of the Inputs and the Outputs, which share observation and action in it, is meant."""
    policy = random_dag(seed, carried=seed % 2 == 1, recurrent=seed % 2 == 1)
    rng = np.random.default_rng(seed)
    graph = policy.graph
    ends = {"input": list(graph.inputs), "output": list(graph.outputs)}
    names = [str(name) for name in rng.permutation(list(graph.nodes))]
    names = [ends[type(graph.nodes[n]).ROLE].pop(0) if type(graph.nodes[n]).ROLE in ends else n for n in names]
    edges = tuple(graph.edges[int(k)] for k in rng.permutation(len(graph.edges)))
    turned = policy.replace(graph=graph.replace(nodes={name: graph.nodes[name] for name in names}, edges=edges))
    assert policy.recorded is not None
    one, other = (simulate(p, policy.recorded[:8]).actions for p in (policy, turned))
    assert one is not None
    assert np.allclose(one, other, rtol=0, atol=1e-9)


def test_several_edges_into_an_op_add_up() -> None:
    nodes: dict[str, Op] = {
        "a": Input((2,)),
        "b": Input((2,)),
        "fc": Affine(np.eye(2)),
        "li": li(2, 0.0),
        "out": Output((2,)),
    }
    edges = (("a", "fc"), ("b", "fc"), ("fc", "li"), ("a", "li"), ("li", "out"))
    graph = Graph(Level.DISCRETE, nodes, edges, 1e-3)
    outputs = simulate(graph, {"a": np.array([[1.0, 2.0]]), "b": np.array([[10.0, 20.0]])}).left["out"]
    assert outputs[0, 0].tolist() == [12.0, 24.0]


@pytest.mark.parametrize(
    "values", [np.zeros((3, 5)), np.full((3, 27), np.nan), np.array([["a"] * 27]), np.zeros((2, 2, 2, 27))]
)
def test_simulate_refuses_input_that_does_not_fit(values: np.ndarray) -> None:
    with pytest.raises(GraphError, match="observation"):
        simulate(random_policy(), values)
