"""Lowering to another arithmetic, and without observations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from graphs import LAVA
from policies import lif, random_policy

import nervecord
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.ops import Affine, Dense, Input, IntegerMembrane, Level, Neuron, Output
from nervecord.compiler.plan.calibrate import calibrate, calibrate_stream
from nervecord.compiler.plan.plan import plan
from nervecord.errors import ContractError


def test_other_arithmetic_lowers_by_the_same_code() -> None:
    """Narrow two's complement weights and states, decay by shift, spikes where the threshold is reached."""
    narrow = dataclasses.replace(
        LAVA,
        weight_signs="twos-complement",
        weight_exponent_low=0,
        weight_exponent_high=0,
        input_shift=0,
        current_bits=16,
        current_overflow="saturate",
        membrane_bits=16,
        membrane_overflow="saturate",
        decay="shift",
        decay_bits=4,
        decay_rounding="at-least-one",
        current_decay_low=0,
        threshold_bits=15,
        threshold_shift=0,
        compare=">=",
        bias_bits=16,
        bias_exponent_high=0,
        readout="membrane",
        graded_bits=0,
        delay_max=1,
    )
    rng = np.random.default_rng(4)
    graph = chain(
        Level.DISCRETE,
        [
            ("in", Input((12,), "spikes")),
            ("fc1", Affine(rng.normal(size=(20, 12)))),
            ("lif1", lif(20, 0.75)),
            ("fc2", Affine(rng.normal(size=(6, 20)) / 2)),
            ("lif2", lif(6, 0.875)),
            ("out", Output((6,))),
        ],
        dt=1e-3,
    )
    x = (rng.random((200, 12)) < 0.3).astype(int)
    integers, report = lower(graph, narrow, calibrate_stream(plan(graph), x))
    assert isinstance(integers, Graph)
    assert report["spikes_different"] < 0.08 * 200 * 6
    for _, op in integers.of_type(Dense):
        assert op.weight.min() >= -128
        assert op.weight.max() <= 127
    for _, op in integers.of_type(Neuron):
        assert isinstance(op.membrane, IntegerMembrane)
        assert narrow.factor(op.membrane.decay) in (0.75, 0.875)


def test_calibration_needs_observations_that_fit() -> None:
    policy = random_policy(recorded=0)
    with pytest.raises(ContractError, match="no recorded observations"):
        calibrate(policy)
    with pytest.raises(ContractError, match=r"\(k, 27\)"):
        calibrate(policy, np.zeros((50, 3)))
    with pytest.raises(ContractError, match=r"\b3\b.*\b16\b"):
        calibrate(policy, np.zeros((3, 27)))
    with pytest.raises(ContractError, match="NaN"):
        calibrate(policy, np.full((50, 27), np.nan))


@pytest.mark.parametrize("target", ["reference", "onnx"])
def test_floats_need_no_observations(target: str) -> None:
    """They have no scale to choose; with observations the report says what they did on them."""
    bare, recorded = random_policy(recorded=0), random_policy()
    program = nervecord.compile(bare, target)
    assert program.graph == nervecord.compile(recorded, target).graph
    assert "spikes_per_action_float" not in program.report
    assert nervecord.compile(bare, target, calibration=recorded.recorded).report["spikes_per_action_float"]
    with pytest.raises(ContractError, match="observations"):
        nervecord.compile(bare, "onnx", form="integer")
