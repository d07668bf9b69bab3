"""Bodies: what is traced is what is computed, folding changes no bit, and bounds hold for every value."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from bodies import computed
from examples import examples
from graphs import LAVA
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts import script

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.body.bounds import FAR, HELD, UNBOUNDED, ZERO, Bounds
from nervecord.compiler.body.evaluate import Evaluator, zero_state
from nervecord.compiler.body.expression import Body
from nervecord.compiler.body.fold import folded
from nervecord.compiler.body.intervals import IntervalReading, over_steps
from nervecord.compiler.body.trace import Tracer
from nervecord.compiler.ops import (
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Membrane,
    Neuron,
    SigmaDelta,
    Spike,
    Synapse,
)
from nervecord.compiler.ops.reach import Sent

OVERFLOWS = ("saturate", "saturate-symmetric", "wrap", "wrap-once")


@st.composite
def arithmetics(draw: Any) -> Arithmetic:
    """Any choices of what neurons compute, in narrow registers, so that overflows happen."""
    decay = draw(st.sampled_from(["factor", "shift"]))
    reset = draw(st.sampled_from(["zero", "subtract"]))
    return dataclasses.replace(
        LAVA,
        input_shift=draw(st.integers(0, 3)),
        current_bits=draw(st.integers(8, 12)),
        current_overflow=draw(st.sampled_from(OVERFLOWS)),
        membrane_bits=draw(st.integers(8, 12)),
        membrane_overflow=draw(st.sampled_from(OVERFLOWS)),
        decay=decay,
        decay_bits=4,
        decay_rounding=draw(
            st.sampled_from(["zero", "floor", "half-up"] if decay == "factor" else ["floor", "at-least-one"])
        ),
        order=draw(st.sampled_from(["current-first", "membrane-first"])),
        threshold_shift=draw(st.integers(0, 3)),
        compare=draw(st.sampled_from([">", ">="])),
        reset=reset,
        spikes_per_step=draw(st.integers(1, 5)) if reset == "subtract" else 1,
        bias_enters=draw(st.sampled_from(["membrane", "current"])),
        readout="membrane",
    )


@st.composite
def neurons(draw: Any) -> Neuron:
    """A population of three integer neurons of any composition."""
    bias = np.array(draw(st.lists(st.integers(-40, 40), min_size=3, max_size=3)))
    return Neuron(
        IntegerMembrane(draw(st.integers(0, 15)), bias, draw(st.integers(0, 2))),
        draw(st.one_of(st.none(), st.builds(IntegerSynapse, st.integers(0, 15)))),
        draw(st.one_of(st.none(), st.builds(IntegerSpike, st.integers(0, 60)))),
    )


@settings(max_examples=examples(150), deadline=None)
@given(arithmetics(), neurons(), st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_bounds_hold_and_folding_changes_no_bit(a: Arithmetic, op: Neuron, interval: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    body = op.traced(a)
    low, high = np.sort(rng.integers(-300, 300, (2, 3)), axis=0)
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    reached = over_steps(body, Bounds.of(low, high), interval)
    # Also with what the op proposes of carried state, which is taken only where it holds.
    proposed = op.reach(a, interval, Sent(low, high))
    simple, proved = folded(body), folded(body, reached.values)
    assert len(proved.nodes) <= len(simple.nodes) <= len(body.nodes)
    plain, without_idle, without_clips = (Evaluator(b) for b in (body, simple, proved))
    states = [zero_state(body, (8, 3)) for _ in range(3)]
    for t in range(3 * (interval or 6)):
        if interval and t % interval == 0:
            states = [zero_state(body, (8, 3)) for _ in range(3)]
        x = np.where(rng.random((8, 3)) < 0.5, rng.choice([0, 1], (8, 3)), 2)
        x = np.where(x == 0, low, np.where(x == 1, high, rng.integers(low, high + 1, (8, 3))))
        values = plain.values(states[0], x)
        for place, bounds in reached.values.items():
            assert (values[place] >= bounds.low).all()
            assert (values[place] <= bounds.high).all()
        membrane = values[body.observed["membrane"]]
        assert proposed.state[0] <= membrane.min()
        assert membrane.max() <= proposed.state[1]
        given_ = [run.step(state, x) for run, state in zip((plain, without_idle, without_clips), states, strict=True)]
        for other, state in zip(given_[1:], states[1:], strict=True):
            assert np.array_equal(given_[0], other)
            for name, value in states[0].items():
                assert np.array_equal(value, np.broadcast_to(state[name], value.shape))


@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_bounds_of_an_overflow_are_those_of_every_value(overflow: str) -> None:
    a = dataclasses.replace(LAVA, membrane_bits=8, membrane_overflow=overflow)
    do = Tracer("integer")
    body = do.body(a.membrane(do.x))
    reading = IntervalReading(body)
    for low in range(-400, 400, 23):
        for high in range(low, 400, 23):
            values = computed(a.membrane, np.arange(low, high + 1))
            bounds = reading.step(Bounds.of(low, high), {})[body.result]
            assert bounds.lowest <= values.min()
            assert bounds.highest >= values.max()
            if overflow != "wrap":
                assert (bounds.lowest, bounds.highest) == (values.min(), values.max())


@pytest.mark.parametrize("reached", [True, False])
def test_levels_are_counted_and_left_together(reached: bool) -> None:
    do = Tracer("integer")
    counts = do.count_levels(do.x, 7, 3, reached=reached)
    body = do.body(do.left_of_levels(do.x, 7, 3, reached=reached))
    x = np.arange(-20, 60)
    values = Evaluator(body).values({}, x)
    assert np.array_equal(values[body.result], x - 7 * values[counts.place])
    reading = IntervalReading(body)
    for low in range(-20, 60, 3):
        for high in range(low, 60, 3):
            within = values[body.result][(x >= low) & (x <= high)]
            bounds = reading.step(Bounds.of(low, high), {})[body.result]
            assert bounds.lowest <= within.min()
            assert bounds.highest >= within.max()


def test_a_branch_knows_what_its_condition_says() -> None:
    do = Tracer("integer")
    v = do.x + 1
    body = do.body(do.where((v > 10) | (v < -3), 0, v * 2))
    bounds = IntervalReading(body).step(Bounds.of(-1000, 1000), {})[body.result]
    assert (bounds.lowest, bounds.highest) == (-6, 20)


def test_an_impossible_branch_does_not_count() -> None:
    do = Tracer("integer")
    body = do.body(do.where(do.x > np.array([5, 50]), 1000, do.x))
    bounds = IntervalReading(body).step(Bounds.of([6, 0], [9, 9]), {})[body.result]
    assert bounds.ends.tolist() == [[1000, 0], [1000, 9]]


def test_no_sum_or_product_wraps() -> None:
    do = Tracer("integer")
    body = do.body((do.x * (1 << 40)) << 40)
    bounds = IntervalReading(body).step(Bounds.of(-3, 1 << 50), {})[body.result]
    assert (bounds.lowest, bounds.highest) == (-3 << 80, 1 << 130)


def test_a_sum_that_is_never_cleared_has_no_bound_and_one_that_leaks_has() -> None:
    do = Tracer("integer")
    total = do.state("total") + do.x
    do.keep("total", total)
    reached = over_steps(do.body(total), Bounds.of(0, 3), 0)
    assert reached.state["total"].lowest == 0
    assert reached.state["total"].highest >= FAR
    do = Tracer("integer")
    membrane = do.scaled(do.state("v"), 1, 1, "floor") + do.x
    do.keep("v", membrane)
    reached = over_steps(do.body(membrane), Bounds.of(-3, 3), 0)
    # x = floor(x / 2) - 3 comes to rest at -6, and x = floor(x / 2) + 3 at 5.
    assert (reached.state["v"].lowest, reached.state["v"].highest) == (-6, 5)


def test_proposals_are_taken_only_where_a_step_stays_within_them() -> None:
    do = Tracer("integer")
    membrane = do.scaled(do.state("v"), 1, 1, "floor") + do.x
    do.keep("v", membrane)
    body, x = do.body(membrane), Bounds.of(-3, 3)
    wrong, right = {"v": Bounds.of(-5, 5)}, {"v": Bounds.of(-7, 7)}
    assert over_steps(body, x, 0, proposals=[wrong, right]).state["v"].ends.tolist() == [[-7], [7]]


def test_bounds_beyond_int64_are_pythons_integers_and_come_back() -> None:
    far = Bounds.of(-UNBOUNDED, UNBOUNDED)
    assert far.ends.dtype == object
    assert far.meet(Bounds.of(-5, 5)).ends.dtype == np.int64
    below = IntervalReading(sum_of_two()).step(Bounds.of(0, HELD // 2 - 1), {})
    beyond = IntervalReading(sum_of_two()).step(Bounds.of(0, HELD), {})
    assert {bounds.ends.dtype for bounds in below.values()} == {np.dtype(np.int64)}
    assert max(bounds.highest for bounds in beyond.values()) == 2 * HELD
    assert ZERO.hull(far).same(far)


def sum_of_two() -> Body:
    do = Tracer("integer")
    return do.body(do.x + do.x)


def test_a_traced_value_is_no_truth_value_and_kinds_do_not_mix() -> None:
    do = Tracer("integer")
    with pytest.raises(TypeError, match="where"):
        bool(do.x > 1)
    with pytest.raises(TypeError, match="mixes"):
        do.x + do.state("v", "float")


def test_equal_equations_are_one_node_and_only_constants_differ_between_equal_ops() -> None:
    one = Neuron(IntegerMembrane(3, np.array([1, 2])), None, IntegerSpike(9)).traced(LAVA)
    other = Neuron(IntegerMembrane(7, np.array([1, 5])), None, IntegerSpike(2)).traced(LAVA)
    soft = Neuron(IntegerMembrane(7, np.array([1, 5])), None, IntegerSpike(2)).traced(
        dataclasses.replace(LAVA, reset="subtract")
    )
    assert one.structure == other.structure
    assert one.structure != soft.structure
    assert other.constant("level").item() == 2 << LAVA.threshold_shift


def test_equations_are_printed() -> None:
    ones = np.ones(2)
    op = Neuron(Membrane(ones, ones, ones), Synapse(ones, ones), Spike(ones, ones, "subtract-late"))
    equations = script("docs/ops.py").equations
    assert equations(op.traced(None)) == [
        "u' = (synapse_decay * u) + (synapse_gain * x)",
        "before_spike = (((decay * v) + (gain * u')) + leak) - owed",
        "t = before_spike > threshold",
        "owed' = threshold if t else 0",
        "v' = before_spike",
        "y = t",
    ]
    assert equations(SigmaDelta(np.zeros(2, dtype=int), 3).traced(LAVA))[0] == "sigma' = sigma + x"
