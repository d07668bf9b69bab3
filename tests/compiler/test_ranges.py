"""Proved ranges hold for every input; what they cannot hold is found."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from bodies import computed
from examples import examples
from graphs import LAVA, draw, expected
from hypothesis import given, settings
from hypothesis import strategies as st

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.lower.ranges import UnitRange, op_range, overflows, prove
from nervecord.compiler.ops import (
    Affine,
    Decode,
    Dense,
    HostStep,
    Input,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Level,
    Neuron,
    Normalise,
    Op,
    Output,
    PopulationEncode,
    Quantise,
)
from nervecord.compiler.ops.reach import LARGEST_SUM
from nervecord.compiler.plan.interpret import Machine
from nervecord.compiler.plan.plan import plan
from nervecord.errors import GraphError


def random_layer(rng: np.random.Generator, *, readout: bool) -> Graph:
    """values -> dense -> neurons, with extremes."""
    inputs, neurons = 4, 3
    weight = 2 * rng.integers(-128, 128, size=(neurons, inputs))
    membrane = IntegerMembrane(
        int(rng.choice([0, 600, 4095])), rng.integers(-4096, 4096, size=neurons), int(rng.integers(0, 8))
    )
    synapse = [None, IntegerSynapse(1), IntegerSynapse(2049)][int(rng.integers(3))]
    spike = None if readout else IntegerSpike(int(rng.integers(0, 5000)))
    return chain(
        Level.INTEGER,
        [
            ("in", Input((inputs,), "values", float(rng.integers(1, 40)))),
            ("fc", Dense(weight, int(rng.integers(-3, 2)), 8, 1)),
            ("neurons", Neuron(membrane, synapse, spike)),
            ("out", Output((neurons,))),
        ],
        dt=1e-3,
        arithmetic=LAVA,
    )


def proof_and_machine(graph: Graph, steps: int) -> tuple[UnitRange, Machine]:
    network_plan = plan(graph, Schedule(steps, "reset"))
    (proved,) = prove(network_plan)
    return proved, Machine(network_plan, 16)


@settings(max_examples=examples(80), deadline=None)
@given(seed=st.integers(0, 10**6), readout=st.booleans(), steps=st.sampled_from([3, 8]))
def test_nothing_ever_leaves_its_proved_range(seed: int, readout: bool, steps: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_layer(rng, readout=readout)
    proved, machine = proof_and_machine(graph, steps)
    if overflows([proved], LAVA):
        return  # refused or saturating; any bound before overflow is then of no meaning after it
    source, neurons = graph.nodes["in"], graph.nodes["neurons"]
    assert isinstance(source, Input)
    assert isinstance(neurons, Neuron)
    assert isinstance(neurons.membrane, IntegerMembrane)
    limit = int(source.limit or 0)
    for t in range(3 * machine.plan.window):
        # Corners of the input cube drive the extremes; the rest is in between.
        x = rng.choice([-limit, 0, limit], size=(16, 4)) if t % 2 else rng.integers(-limit, limit + 1, size=(16, 4))
        cleared = machine.plan.clears(machine.plan.step("neurons"), machine.t)
        before = np.zeros((16, 3), dtype=np.int64) if cleared else machine.state["neurons"]["v"].copy()
        values = machine.step({"in": x})
        assert np.abs(values["fc"]).max() <= proved.accumulator
        current = machine.state["neurons"]["u"] if neurons.synapse is not None else values["fc"] << 6
        assert np.abs(current).max() <= proved.current
        bias = neurons.membrane.bias.astype(np.int64) << neurons.membrane.bias_exp
        factor = 4096 - neurons.membrane.decay
        v = np.sign(before) * ((np.abs(before) * factor) >> 12) + current + bias
        assert proved.membrane[0] <= v.min()
        assert v.max() <= proved.membrane[1]


@pytest.mark.parametrize("seed", range(40))
def test_ranges_hold_in_graphs_of_any_shape(seed: int) -> None:
    case = draw(seed)
    reference = expected(case)
    assert reference is not None
    outputs, membranes = reference
    for proved in prove(case.plan):
        total = sum(outputs[name] for name in proved.connections)
        assert np.abs(total).max() <= proved.accumulator
        low, high = LAVA.membrane_range
        assert membranes[proved.name].min() >= max(proved.membrane[0], low)
        assert membranes[proved.name].max() <= min(proved.membrane[1], high)


def layer(weight: int, *, limit: int = 100, exponent: int = 0, decay: int = 4095, readout: bool = False) -> Graph:
    spike = None if readout else IntegerSpike(10)
    return chain(
        Level.INTEGER,
        [
            ("in", Input((1,), "values", float(limit))),
            ("fc", Dense([[weight]], exponent, 8, 1)),
            ("neurons", Neuron(IntegerMembrane(decay, [0]), None, spike)),
            ("out", Output((1,))),
        ],
        dt=1e-3,
        arithmetic=dataclasses.replace(LAVA, graded_bits=24),
    )


@pytest.mark.parametrize(
    ("graph", "steps", "code", "severity"),
    [
        (layer(254, limit=1000), 5, "accumulator-overflow", "error"),
        (layer(254, limit=(1 << 23) - 1, exponent=-8), 5, "accumulator-overflow", "error"),
        (layer(254, limit=500, decay=0, readout=True), 5, "readout-saturates", "error"),
        (layer(254, limit=500, decay=0), 5, "membrane-saturates", "warning"),
        (layer(254, limit=1, decay=0), 0, "membrane-saturates", "warning"),
        (layer(254, limit=1, decay=0, readout=True), 0, "readout-saturates", "error"),
    ],
)
def test_what_does_not_fit_is_found_by_name(graph: Graph, steps: int, code: str, severity: str) -> None:
    schedule = Schedule(steps, "reset") if steps else Schedule()
    severities = {finding.code: finding.severity for finding in overflows(prove(plan(graph, schedule)), LAVA)}
    assert severities[code] == severity


def test_products_beyond_their_width_are_found() -> None:
    graph = layer(254, limit=(1 << 23) - 1, exponent=-8)
    narrow = dataclasses.replace(LAVA, product_bits=31)
    codes = {finding.code for finding in overflows(prove(plan(graph)), narrow)}
    assert "product-overflow" in codes


def test_a_current_of_half_its_range_is_refused_as_its_negative_wraps() -> None:
    """Lava's register holds 2^23 and wraps -2^23 to it: of a magnitude alone nobody knows which of the two it is."""
    half = 1 << (LAVA.current_bits - 1)
    assert computed(LAVA.current, [-half, 1 - half, half, half + 1]).tolist() == [half, 1 - half, half, 1 - half]
    graph = random_layer(np.random.default_rng(0), readout=False)
    (proved,) = prove(plan(graph, Schedule(4, "reset")))
    for current, codes in ((half - 1, set()), (half, {"current-overflow"})):
        findings = overflows([dataclasses.replace(proved, current=current, accumulator=1, product=1)], LAVA)
        assert {finding.code for finding in findings if finding.severity == "error"} == codes


def test_carried_state_converges_to_its_fixed_point() -> None:
    (proved,) = prove(plan(layer(10, limit=1, decay=2048, readout=True)))
    # v = v / 2 + 640, whose limit is 1280, approached from below.
    assert 1270 <= proved.membrane[1] <= 1280


def test_a_window_of_many_steps_does_not_take_long_to_prove() -> None:
    (proved,) = prove(plan(layer(10, limit=1, decay=2048, readout=True), Schedule(1 << 16, "reset")))
    assert 1270 <= proved.membrane[1] <= 1280
    (still,) = prove(plan(layer(0, limit=1, decay=0, readout=True)))
    assert still.membrane == (0, 0)


@pytest.mark.parametrize(
    "op",
    [
        Input((3,), "spikes"),
        Input((3,), "values", 6.5),
        Quantise(3, 100.0, 250),
        Quantise(3, 100.0, 250, 30),
        PopulationEncode(np.linspace(-2, 2, 12).reshape(3, 4), 0.4),
        PopulationEncode(np.linspace(-2, 2, 12).reshape(3, 4), 0.4, always=True),
    ],
)
def test_what_enters_stays_within_the_range_that_proofs_take(op: Op) -> None:
    low, high = op_range(op)
    assert low.shape == high.shape == (op.size,)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, size=(200, 3)) if op.spikes else rng.choice([-1e6, -3.0, 0.0, 2.5, 1e6], size=(200, 3))
    values = HostStep(op).train(op.state(200), x, 5) if isinstance(op, PopulationEncode) else op.step(op.state(200), x)
    values = values.astype(np.int64).reshape(-1, op.size)
    assert (values >= low).all()
    assert (values <= high).all()
    assert (values == low).any()
    assert (values == high).any()


@pytest.mark.parametrize(
    "op",
    [
        Normalise(np.zeros(3), np.ones(3), 1e-8, 5.0),
        Input((3,), "values"),
        Input((3,)),
        Affine(np.ones((3, 3))),
        Decode(np.ones(3), np.zeros(3), -np.ones(3), np.ones(3)),
    ],
)
def test_what_sends_no_integers_has_no_range_that_could_be_proved(op: Op) -> None:
    with pytest.raises(GraphError, match="no range in integers"):
        op_range(op, "node")


def exact(dense: Dense, arithmetic: Arithmetic, limit: int) -> int:
    """Largest sum that enters, in integers of Python: every input at the limit of its sign."""
    each = arithmetic.accumulate == "shift-each" and dense.weight_exp < 0
    largest = 0
    for row in dense.weight.tolist():
        for sign in (-1, 1):
            products = [abs(w) * limit * sign for w in row]
            if each:
                total = sum(product >> -dense.weight_exp for product in products)
            else:
                total = sum(products)
                total = total << dense.weight_exp if dense.weight_exp > 0 else total >> -dense.weight_exp
            largest = max(largest, abs(total))
    return largest


@pytest.mark.parametrize("seed", range(60))
def test_sums_of_wide_arithmetics_are_proved_in_integers_without_end(seed: int) -> None:
    """Weights of 16 bits, values of 24, exponents to 24: the product of the three goes beyond 64 bits."""
    rng = np.random.default_rng(seed)
    bits = int(rng.integers(2, 25))
    arithmetic = dataclasses.replace(
        LAVA,
        weight_bits=16,
        weight_signs="twos-complement",
        weight_exponent_low=-24,
        weight_exponent_high=24,
        accumulate=str(rng.choice(["sum-then-shift", "shift-each"])),
        product_bits=53,
        graded_bits=24,
        input_shift=int(rng.integers(0, 17)),
        current_bits=32,
        membrane_bits=32,
    )
    limit = (1 << (bits - 1)) - 1
    size = int(rng.integers(1, 60))
    weight = rng.integers(-(1 << 15), 1 << 15, size=(3, size)) // int(rng.choice([1, 1 << 12]))
    dense = Dense(weight, int(rng.integers(-24, 25)), 16, 1)
    graph = chain(
        Level.INTEGER,
        [
            ("in", Input((size,), "values", float(limit))),
            ("fc", dense),
            ("neurons", Neuron(IntegerMembrane(100, np.zeros(3)), None, IntegerSpike(10))),
            ("out", Output((3,))),
        ],
        dt=1e-3,
        arithmetic=arithmetic,
    )
    for schedule in (Schedule(), Schedule(3, "reset")):
        (proved,) = prove(plan(graph, schedule))
        largest = exact(dense, arithmetic, limit)
        assert proved.accumulator == min(largest, LARGEST_SUM)
        assert proved.current == proved.accumulator << arithmetic.input_shift
        refused = {f.code for f in overflows([proved], arithmetic) if f.severity == "error"}
        assert ("accumulator-overflow" in refused) == (largest >= arithmetic.accumulator_limit)


@pytest.mark.parametrize("seed", range(40))
def test_state_stays_within_its_proved_range_whatever_the_widths(seed: int) -> None:
    """Every input at its limit, in arithmetics up to 32 bits, whose accumulators hold more than 30."""
    rng = np.random.default_rng(seed)
    decay = str(rng.choice(["factor", "shift"]))
    arithmetic = dataclasses.replace(
        LAVA,
        weight_bits=16,
        weight_signs="twos-complement",
        weight_exponent_high=24,
        product_bits=53,
        graded_bits=24,
        input_shift=int(rng.integers(0, 4)),
        current_bits=32,
        membrane_bits=32,
        current_overflow="saturate",
        membrane_overflow="saturate",
        decay=decay,
        decay_bits=5 if decay == "shift" else 16,
        decay_rounding="floor",
        threshold_bits=31,
        threshold_shift=0,
        readout="membrane",
    )
    sign = int(rng.choice([-1, 1]))
    graph = chain(
        Level.INTEGER,
        [
            ("in", Input((1,), "values", float((1 << 14) - 1))),
            ("fc", Dense([[sign * 32767]], 2, 16, 1)),
            ("neurons", Neuron(IntegerMembrane(int(rng.integers(0, arithmetic.decay_codes)), [0]), None, None)),
            ("out", Output((1,))),
        ],
        dt=1e-3,
        arithmetic=arithmetic,
    )
    for schedule in (Schedule(), Schedule(4, "reset")):
        (proved,) = prove(plan(graph, schedule))
        findings = overflows([proved], arithmetic)
        if any(f.code == "accumulator-overflow" for f in findings):
            continue
        machine = Machine(plan(graph, schedule))
        for _ in range(40):
            machine.block({"in": np.full((schedule.steps, 1, 1), float((1 << 14) - 1))})
            v = int(machine.state["neurons"]["v"][0, 0])
            low, high = arithmetic.membrane_range
            assert max(proved.membrane[0], low) <= v <= min(proved.membrane[1], high)
