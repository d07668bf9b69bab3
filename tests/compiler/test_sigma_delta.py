"""Delta, SigmaDelta and Sigma: the definition against a transcription of Lava's models, and their proofs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import LAVA, expected
from sigma_delta_nets import chain_of, draw, rectified, walk

from nervecord.compiler.check.table import findings_of
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.lower.ranges import overflows, prove
from nervecord.compiler.ops import Array, Delta, Dense, Input, Level, Op, Output, Sigma, SigmaDelta
from nervecord.compiler.plan.interpret import simulate
from nervecord.compiler.plan.plan import plan
from nervecord.compiler.target.specfile import read_spec
from nervecord.errors import GraphError, InfeasibleError

TARGETS = Path(__file__).parents[2] / "targets"


class LavaModel:
    """`PyDeltaModelFixed`, `PySigmaDeltaModelFixed` and `PySigmaModelFixed` of lava-nc 0.10.0, in int32."""

    def __init__(self, op: Op) -> None:
        self.op = op
        zero = np.zeros(op.size, dtype=np.int32)
        self.sigma, self.act, self.residue = zero, zero, zero

    def run_spk(self, a_in: Array) -> Array:
        op, a_in = self.op, a_in.astype(np.int32)
        if isinstance(op, Sigma):
            self.sigma = a_in + self.sigma
            return self.sigma
        assert isinstance(op, (Delta, SigmaDelta))
        scale = 1 << (op.spike_exp + op.state_exp)
        if isinstance(op, Delta):
            act = np.left_shift(a_in, np.int32(op.spike_exp + op.state_exp))
        else:
            self.sigma = a_in + self.sigma
            act = self.sigma + op.bias * np.int32(scale)
            act = np.maximum(act, 0) if op.activation == "relu" else act
        delta = act - self.act + self.residue
        s_out = np.where(np.abs(delta) >= op.threshold * scale, delta, 0)
        self.residue = delta - s_out
        self.act = act
        return np.right_shift(s_out, np.int32(op.state_exp))


@pytest.mark.parametrize("threshold", [0, 1, 40])
@pytest.mark.parametrize(("spike_exp", "state_exp"), [(0, 0), (3, 0), (0, 4), (7, 7)])
@pytest.mark.parametrize("kind", ["delta", "relu", "unit", "sigma"])
def test_a_step_is_what_lavas_model_computes(kind: str, threshold: int, spike_exp: int, state_exp: int) -> None:
    rng = np.random.default_rng(threshold + spike_exp)
    bias = rng.integers(-2000, 2000, size=5)
    ops: dict[str, Op] = {
        "delta": Delta(5, threshold, spike_exp, state_exp),
        "relu": SigmaDelta(bias, threshold, "relu", spike_exp, state_exp),
        "unit": SigmaDelta(bias, threshold, "unit", spike_exp, state_exp),
        "sigma": Sigma(5),
    }
    op = ops[kind]
    state, model = op.state(1), LavaModel(op)
    message_count = 0
    for x in rng.integers(-3000, 3000, size=(200, 5)) * (rng.random((200, 1)) < 0.7):
        y = op.step(state, x[None], LAVA)
        assert y.dtype == np.int64
        assert np.array_equal(y[0], model.run_spk(x))
        for name, values in state.items():
            assert np.array_equal(values[0], getattr(model, name))
        message_count += int(np.count_nonzero(y))
    assert message_count


@pytest.mark.parametrize("seed", range(30))
def test_nothing_leaves_its_proved_range(seed: int) -> None:
    case = draw(seed)
    reference = expected(case)
    assert reference is not None
    outputs, membranes = reference
    for proved in prove(case.plan):
        total = sum(outputs[name] for name in proved.connections)
        assert np.abs(total).max() <= proved.accumulator
        assert proved.membrane[0] <= membranes[proved.name].min()
        assert membranes[proved.name].max() <= proved.membrane[1]
        if case.plan.step(proved.name).op.messages:
            assert np.abs(outputs[proved.name]).max() <= proved.message


def test_the_ranges_of_a_small_network_are_tight() -> None:
    """3 values up to 10 through weights of 2: sums within 60, messages no larger than what they can change by."""
    graph = chain_of([np.full((1, 3), 2), np.full((1, 1), 2)], [0, 0], [np.array([5])], 10)
    delta, layer, end = prove(plan(graph))
    assert (delta.message, delta.membrane) == (20, (-20, 20))
    assert layer.accumulator == 120
    assert layer.message == 65  # from 0 to 60 + 5
    assert end.membrane == (0, 130)


@pytest.mark.parametrize("threshold", [0, 7])
def test_without_rounding_it_is_the_rectified_network_at_every_step(threshold: int) -> None:
    rng = np.random.default_rng(3)
    weights = [2 * rng.integers(-9, 9, size=shape) for shape in ((8, 5), (6, 8), (3, 6))]
    biases, exponents = [rng.integers(-90, 90, size=8), rng.integers(-90, 90, size=6)], [0, 1, 0]
    graph = chain_of(weights, exponents, biases, 60, threshold)
    x = np.repeat(walk(rng, 60, 5, 60), 6, axis=0)
    outputs = simulate(graph, x).left["output"][:, 0]
    reference = rectified(weights, exponents, biases, x)
    # Four connections are four steps; where messages are held back, what is read is as much away as they may be.
    bound = 0
    if threshold:
        for weight, exponent in zip(weights, exponents, strict=True):
            bound = (np.abs(weight).sum(axis=1).max() * (bound + threshold - 1)) << exponent
        assert not np.array_equal(outputs[4:], reference[:-4])
    assert np.abs(outputs[4:] - reference[:-4]).max() <= bound
    assert np.abs(reference).max() > 1000


def test_an_exponent_that_rounds_lets_sums_drift_within_what_is_proved() -> None:
    rng = np.random.default_rng(4)
    weights = [2 * rng.integers(-60, 60, size=shape) for shape in ((8, 5), (3, 8))]
    biases, exponents = [rng.integers(0, 90, size=8)], [-6, -6]
    graph = chain_of(weights, exponents, biases, 500)
    assert not overflows(prove(plan(graph)), LAVA)
    x = walk(rng, 1000, 5, 500)
    error = np.abs(simulate(graph, x).left["output"][3:, 0] - rectified(weights, exponents, biases, x)[:-3])
    assert error[-100:].mean() > 5 * error[:20].mean() > 0


def loop() -> Graph:
    nodes = [
        ("input", Input((2,), "values", 4.0)),
        ("copy", Dense(np.eye(2), 0, 8, 1)),
        ("delta", Delta(2, 0)),
        ("dense", Dense(2 * np.eye(2), 0, 8, 1)),
        ("layer", SigmaDelta(np.zeros(2), 0)),
        ("out", Dense(2 * np.eye(2), 0, 8, 1)),
        ("end", Sigma(2)),
        ("output", Output((2,))),
    ]
    graph = chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=LAVA)
    back = Dense(2 * np.eye(2), -2, 8, 1)
    return graph.replace(
        nodes={**graph.nodes, "back": back}, edges=(*graph.edges, ("layer", "back"), ("back", "layer"))
    )


def test_what_nothing_bounds_is_refused_by_name() -> None:
    with pytest.raises(InfeasibleError, match="layer: is part of a loop of messages, or behind one"):
        prove(plan(loop()))
    findings = findings_of(loop(), read_spec(TARGETS / "lava" / "spec.toml"))
    (error,) = [finding for finding in findings if finding.severity == "error"]
    assert (error.code, error.node) == ("accumulator-overflow", "layer")
    # Values, not changes, into a sum that is never cleared; in windows it has its limit.
    values = chain(
        Level.INTEGER,
        [
            ("input", Input((2,), "values", 4.0)),
            ("dense", Dense(2 * np.eye(2), 0, 8, 1)),
            ("end", Sigma(2)),
            ("output", Output((2,))),
        ],
        dt=1e-3,
        arithmetic=LAVA,
    )
    (saturates,) = overflows(prove(plan(values)), LAVA)
    assert (saturates.code, saturates.severity, saturates.value) == ("membrane-saturates", "error", "none")
    assert not overflows(prove(plan(values, Schedule(5, "reset"))), LAVA)
    # More than 32 bits hold.
    wide = chain_of([np.full((1, 9), 254), np.full((1, 1), 254)], [7, 7], [np.zeros(1)], 32767)
    assert {finding.code for finding in overflows(prove(plan(wide)), LAVA)} >= {"accumulator-overflow"}


def test_a_sum_sends_nothing() -> None:
    graph = chain_of([2 * np.eye(2), 2 * np.eye(2)], [0, 0], [np.zeros(2)], 9)
    nodes = {**graph.nodes, "layer0": Sigma(2)}
    with pytest.raises(GraphError, match="sends its membrane, not spikes, to dense1"):
        plan(graph.replace(nodes=nodes))
