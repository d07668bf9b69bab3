"""The population code and the spike-count decoder: worked examples, bounds, and where they may stand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import li, population_code, random_policy

from nervecord.compiler import ops as n
from nervecord.compiler.body.evaluate import Evaluator
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.verify import verify
from nervecord.compiler.ops.population import ONE
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.compiler.plan.host_steps import BeforeCore, split
from nervecord.compiler.plan.interpret import Machine
from nervecord.compiler.plan.plan import plan

FINITE = st.floats(-1e6, 1e6)


def activation(mean: np.ndarray, sigma: float, x: np.ndarray) -> np.ndarray:
    """What each accumulator gains per step, of x (batch, channels)."""
    return n.HostStep(n.PopulationEncode(mean, sigma)).values(x)


def pulses(units: np.ndarray, v: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Spikes of accumulators that gain so much, step by step, and what is left in them."""
    pulse, state = Evaluator(n.PopulationEncode(np.array([[0.0, 1.0]]), 1.0).pulse_body), {"v": v}
    return np.stack([pulse.step(state, units) for _ in range(steps)]), state["v"]


def test_a_worked_example() -> None:
    # Fields at -1, 0, 1; sigma 1. At x = 1: distances 2, 1, 0, so a = e^-2, e^-1/2, 1 = 0.1353, 0.6065, 1.
    mean = np.array([[-1.0, 0.0, 1.0]])
    units = activation(mean, 1.0, np.array([[1.0]]))
    assert units.tolist() == [[round(ONE * math.exp(-2)), round(ONE * math.exp(-0.5)), ONE]]
    train, v = pulses(units, np.zeros((1, 3), np.int64), 5)
    # 0.6065, 1.213 -> spike, 0.2131; 0.8196, 1.4261 -> spike, 0.4261; 1.0327 -> spike.
    assert train[:, 0].T.tolist() == [[0, 0, 0, 0, 0], [0, 1, 0, 1, 1], [1, 1, 1, 1, 1]]
    assert v.tolist() == [[5 * units[0, 0], 5 * units[0, 1] - 3 * ONE, 0]]
    # Beyond the outermost mean is at it.
    assert np.array_equal(activation(mean, 1.0, np.array([[7.0]])), units)


def test_an_accumulator_that_reaches_one_spikes() -> None:
    train, v = pulses(np.array([[ONE // 2, ONE]]), np.zeros((1, 2), np.int64), 4)
    assert train[:, 0].T.tolist() == [[0, 1, 0, 1], [1, 1, 1, 1]]
    assert not v.any()


@settings(max_examples=examples(200), deadline=None)
@given(x=FINITE, low=st.floats(-5, 5), gap=st.floats(1e-3, 3), sigma=st.floats(1e-3, 50), count=st.integers(2, 12))
def test_activations_are_the_exponential_to_a_unit(x: float, low: float, gap: float, sigma: float, count: int) -> None:
    mean = low + gap * np.arange(count)[None]
    units = activation(mean, sigma, np.array([[x]]))[0]
    clipped = np.clip(x, mean[0, 0], mean[0, -1])
    expected = np.exp(-((clipped - mean[0]) ** 2) / (2 * sigma**2)) * ONE
    assert units.shape == (count,)
    assert ((units >= 0) & (units <= ONE) & (units == np.rint(units))).all()
    assert np.abs(units - expected).max() <= 0.5 + 1e-6


@settings(max_examples=examples(100), deadline=None)
@given(units=st.lists(st.integers(0, ONE), min_size=1, max_size=5), start=st.integers(0, ONE - 1), t=st.integers(1, 40))
def test_spikes_are_the_whole_part_of_the_sum(units: list[int], start: int, t: int) -> None:
    """Closed form of the accumulators: after k steps there were (start + k a) >> 20 spikes."""
    train, v = pulses(np.array(units), np.full(len(units), start), t)
    total = start + np.arange(1, t + 1)[:, None] * np.array(units)
    assert np.array_equal(train.cumsum(axis=0), total >> 20)
    assert np.array_equal(v, total[-1] % ONE)


def test_a_field_narrower_than_floats_can_square() -> None:
    assert activation(np.array([[0.0, 1.0]]), 1e-200, np.array([[0.0], [0.5]])).tolist() == [[ONE, 0], [0, 0]]


def test_the_bias_source_spikes_in_each_useful_step() -> None:
    node = n.PopulationEncode(np.zeros((2, 3)) + [0, 1, 2], 1.0, always=True)
    assert node.out_shape == (7,)
    train = n.HostStep(node).train(node.state(4), np.zeros((4, 2)), 3)
    assert train.shape == (3, 4, 7)
    assert (train[..., -1] == 1).all()


def test_an_encoder_of_spikes_has_no_single_step() -> None:
    with pytest.raises(TypeError, match="PopulationEncode"):
        n.PopulationEncode(np.array([[0.0, 1.0]]), 1.0).step({}, np.zeros((1, 1)))


def test_counts_are_decoded_in_order() -> None:
    # 0.1 * 3 + 0.2 * 1 + 0.3 * 2, then the offset; other orders give other bits.
    node = n.CountDecode([[0.1, 0.2, 0.3], [9.0, 0.0, 0.0]], [0.05, 0.0], [-2.0, -2.0], [2.0, 2.0])
    y = node.step({}, np.array([[3, 1, 2, 4, 0, 0]]))
    assert y.tolist() == [[((0.1 * 3 + 0.2 * 1) + 0.3 * 2) + 0.05, 2.0]]
    assert (node.in_shape, node.out_shape) == ((6,), (2,))


def by_hand(policy: Policy, rows: np.ndarray) -> np.ndarray:
    """Actions of a policy with encoder and counts, one neuron layer after the other, written out once more."""
    contract, graph = policy.contract, policy.graph
    code, normalise, decode = (graph.nodes[name] for name in ("encode", "normalise", "decode"))
    pairs = [(graph.nodes[a], graph.nodes[b]) for a, b in graph.edges if isinstance(graph.nodes[a], n.Affine)]
    v = [np.zeros(neuron.in_shape) for _, neuron in pairs]
    late = [np.zeros(affine.in_shape) for affine, _ in pairs]
    phase = np.zeros(code.mean.size)  # type: ignore[attr-defined]
    actions = []
    for row in rows:
        if contract.state == "reset":
            v = [0 * part for part in v]
            phase = 0 * phase
        gain = activation(code.mean, code.sigma, normalise.step({}, row[None]))[0]  # type: ignore[attr-defined]
        counts = np.zeros(pairs[-1][1].in_shape)
        for _ in range(contract.steps):
            phase = phase + gain
            s = (phase >= ONE).astype(float)
            phase = phase - ONE * s
            for k, (affine, neuron) in enumerate(pairs):
                arrived, late[k] = (late[k], s) if affine.delay else (s, s)  # type: ignore[attr-defined]
                v[k] = neuron.membrane.decay * v[k] + affine.weight @ arrived + affine.bias  # type: ignore[attr-defined]
                s = (v[k] > neuron.spike.threshold).astype(float)  # type: ignore[attr-defined]
                v[k] = np.where(s > 0, 0, v[k])
            counts += s
        y = (decode.weight * counts.reshape(decode.weight.shape)).sum(axis=1) + decode.offset  # type: ignore[attr-defined]
        actions.append(np.clip(y, decode.low, decode.high))  # type: ignore[attr-defined]
    return np.array(actions)


@pytest.mark.parametrize("state", ["reset", "carried"])
def test_a_policy_does_what_its_nodes_say(state: str) -> None:
    policy = random_policy(2, sizes=(4, 20, 3), state=state, population=6, output_population=5)
    assert verify(policy) == []
    assert policy.recorded is not None
    machine = Machine(policy)
    actions = np.concatenate([machine.window(row[None])[0] for row in policy.recorded[:12]])
    np.testing.assert_allclose(actions, by_hand(policy, policy.recorded[:12]), rtol=0, atol=1e-12)
    assert np.ptp(actions) > 0.1


def test_state_of_the_accumulators() -> None:
    """Cleared for each action, or carried from action to action and cleared by copy."""
    rows = np.random.default_rng(0).normal(size=(3, 4))
    plain = BeforeCore(plan(random_policy(sizes=(4, 5, 3), population=6)))
    first = core_input(plain, rows)
    assert np.array_equal(core_input(plain, rows), first)
    host = BeforeCore(plan(random_policy(sizes=(4, 5, 3), state="carried", population=6)))
    host.reset(3)
    assert np.array_equal(core_input(host, rows), first)
    later = core_input(host, rows)
    assert not np.array_equal(later, first)
    host.clear(np.array([True, False, False]))
    cleared = core_input(host, rows)
    assert np.array_equal(cleared[:, 0], first[:, 0])
    assert not np.array_equal(cleared[:, 1:], first[:, 1:])
    host.reset(3)
    assert np.array_equal(core_input(host, rows), first)


def core_input(host: BeforeCore, rows: np.ndarray) -> np.ndarray:
    """What enters the core in one action."""
    return host.enter(split(host.plan, rows))["encode"]


def test_calibration_knows_the_clip_behind_the_code() -> None:
    policy = random_policy(sizes=(4, 5, 3), population=6)
    far = np.full((20, 4), 1e5)
    assert calibrate(policy, far).saturated == 1.0
    assert calibrate(policy).saturated == 0.0


def changed(policy: Policy, **nodes: n.Op) -> Policy:
    return policy.replace(graph=policy.graph.replace(nodes={**policy.graph.nodes, **nodes}))


def test_what_is_refused() -> None:
    policy = random_policy(sizes=(2, 5, 3), population=3, output_population=2)
    code, decode = policy.graph.nodes["encode"], policy.graph.nodes["decode"]
    assert isinstance(code, n.PopulationEncode)
    assert isinstance(decode, n.CountDecode)

    def codes(subject: Policy | Graph) -> list[str]:
        return [finding.code for finding in verify(subject)]

    assert codes(changed(policy, encode=n.PopulationEncode(code.mean[:, ::-1], 0.5))) == ["means"]
    assert codes(changed(policy, encode=n.PopulationEncode(code.mean, 0.0))) == ["sigma"]
    assert codes(changed(policy, encode=n.PopulationEncode(code.mean, math.nan))) == ["not-finite"]
    assert codes(changed(policy, encode=n.PopulationEncode(code.mean, 0.5, always=True))) == ["shape", "bias-source"]
    assert "shape" in codes(changed(policy, encode=n.PopulationEncode(code.mean[:, :1], 0.5)))
    assert "shape" in codes(changed(policy, decode=n.CountDecode(decode.weight, [0.0], decode.low, decode.high)))
    assert codes(changed(policy, decode=n.CountDecode(decode.weight, 0 * decode.low, decode.high, decode.low))) == [
        "limits"
    ]
    assert codes(policy.graph) == ["contract", "contract"]
    assert codes(changed(policy, lif2=li(6))) == ["misplaced"]
    for damaged in (code.mean[0], code.mean[0, 0]):
        assert "shape" in codes(changed(policy, encode=n.PopulationEncode(damaged, 0.5)))
    for damaged in (decode.weight[0], decode.weight[0, 0]):
        assert "shape" in codes(changed(policy, decode=n.CountDecode(damaged, decode.offset, decode.low, decode.high)))
    order = ["observation", "encode", "normalise", *list(policy.graph.nodes)[3:]]
    edges = tuple(itertools.pairwise(order))
    assert "misplaced" in codes(policy.replace(graph=policy.graph.replace(edges=edges)))
    bypass = policy.graph.replace(edges=(*policy.graph.edges, ("normalise", "fc1")))
    assert codes(policy.replace(graph=bypass)) == ["shape"]


def test_shapes_of_a_code() -> None:
    code = population_code(5, 4)
    assert (code.in_shape, code.out_shape) == ((5,), (20,))
