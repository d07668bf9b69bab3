"""Weights of two slices: finer, of the same unit, and left out where there is no rest."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from examples import some
from graphs import LAVA
from policies import random_policy

import nervecord
from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.lower import choose
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.lower.ranges import overflows, prove
from nervecord.compiler.lower.slices import rest_exponent
from nervecord.compiler.ops import Affine, IntegerMembrane, Mantissas, Neuron, Sparse
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.compiler.plan.plan import plan
from nervecord.errors import InfeasibleError, NervecordError

TWOS_COMPLEMENT = dataclasses.replace(LAVA, weight_signs="twos-complement")


def lowered(policy: Policy, arithmetic: Arithmetic = LAVA, **options: Any) -> tuple[Policy, dict[str, Any]]:
    integers, report = lower(policy, arithmetic, calibrate(policy), **options)
    assert isinstance(integers, Policy)
    return integers, report


def links(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {link["connection"]: link for one in report["populations"] for link in one["connections"]}


def with_far_weight(policy: Policy, name: str, times: float) -> Policy:
    """One weight of a connection so many times its largest: what makes mantissas of all the others coarse."""
    affine = policy.graph.nodes[name]
    assert isinstance(affine, Affine)
    weight = affine.weight.copy()
    weight[0, 0] = times * np.abs(weight).max()
    return policy.replace(graph=policy.graph.replace(nodes={**policy.graph.nodes, name: affine.replace(weight=weight)}))


def weights(graph: Graph, name: str) -> np.ndarray:
    op = graph.nodes[name]
    assert isinstance(op, Mantissas)
    return np.asarray(op.weight, dtype=np.float64) * 2.0**op.weight_exp


@pytest.mark.parametrize("bits", some([8, 5, 3], 1))
@pytest.mark.parametrize("arithmetic", [LAVA, TWOS_COMPLEMENT], ids=["mode", "twos-complement"])
@pytest.mark.parametrize("current", [False, True])
def test_both_slices_give_the_weights(bits: int, arithmetic: Arithmetic, current: bool) -> None:
    policy = random_policy(3, sizes=(7, 24, 4), current=current, bias=0.1, recorded=48)
    integers, report = lowered(policy, arithmetic, weight_slices=2, weight_bits=bits)
    entries = links(report)
    assert set(entries) == {"fc1", "fc1.rest", "fc2", "fc2.rest"}
    for name in ("fc1", "fc2"):
        first, rest = entries[name], entries[f"{name}.rest"]
        affine = policy.graph.nodes[name]
        assert isinstance(affine, Affine)
        rows, width = affine.weight.shape
        scale = first["weight_scale"] * 2.0 ** first["weight_exp"]
        total = weights(integers.graph, name) + weights(integers.graph, f"{name}.rest")
        error = np.abs(total[:rows, :width] / scale - affine.weight).max()
        step = arithmetic.weight_step(bits, mixed=True)
        assert error <= 0.5001 * step / (rest["weight_scale"])
        for link in (first, rest):
            assert link["weight_error_max"] == pytest.approx(error / np.abs(affine.weight).max())
        finer = 2 ** (first["weight_exp"] - rest["weight_exp"])
        assert finer > 1
        alone = links(lowered(policy, arithmetic, weight_bits=bits)[1])[name]
        assert rest["weight_error_rms"] < 1.5 * alone["weight_error_rms"] / finer
    assert overflows(prove(plan(integers)), arithmetic) == []


def test_a_weight_far_above_the_others_costs_little_then() -> None:
    policy = with_far_weight(random_policy(5, sizes=(27, 64, 8), recorded=128), "fc1", 8.0)
    one, two = (lowered(policy, weight_slices=slices)[1] for slices in (1, 2))
    assert two["action_error_rms"] < 0.6 * one["action_error_rms"]
    thresholds = [
        next(p["threshold"] for p in report["populations"] if p["population"] == "lif1") for report in (one, two)
    ]
    assert thresholds[1] >= thresholds[0]


def stored(policy: Policy, link: str) -> np.ndarray:
    op = policy.graph.nodes[link]
    assert isinstance(op, Mantissas)
    return np.asarray(op.weight)


@pytest.mark.parametrize("arithmetic", [LAVA, TWOS_COMPLEMENT], ids=["mode", "twos-complement"])
@pytest.mark.parametrize(("bits", "spare"), [(8, 0.0), (8, 1.1), (4, 0.0), (4, 1.1)])
def test_a_weight_that_fits_the_finer_slice_is_its_alone(
    arithmetic: Arithmetic, bits: int, spare: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "SPARE_ERROR", spare)
    policy = with_far_weight(random_policy(5, sizes=(27, 64, 8), recorded=128), "fc2", 8.0)
    integers, report = lowered(policy, arithmetic, weight_slices=2, weight_bits=bits)
    step = arithmetic.weight_step(bits, mixed=True)
    most = arithmetic.weight_range(mixed=True)[1] // step * step
    affine = policy.graph.nodes["fc2"]
    assert isinstance(affine, Affine)
    fine = affine.weight * links(report)["fc2.rest"]["weight_scale"]
    rows, width = fine.shape
    first, rest = (stored(integers, link)[:rows, :width] for link in ("fc2", "fc2.rest"))
    beyond = np.abs(fine) > most
    assert 0 < np.count_nonzero(beyond) < beyond.size
    np.testing.assert_array_equal(first != 0, beyond)
    np.testing.assert_allclose(rest[~beyond], fine[~beyond], rtol=0, atol=0.5001 * step)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_weights_that_all_inhibit_have_slices(bits: int) -> None:
    policy = random_policy(0, sizes=(6, 4, 4), recorded=32)
    affine = policy.graph.nodes["fc2"]
    assert isinstance(affine, Affine)
    # The second is a mantissa of -256 in a rest of 8 bits, which a matrix of both signs holds and this one does not.
    negative = affine.replace(weight=-0.05 * np.array([[1, 0.503, 0.2, 0.1]] * 4))
    policy = policy.replace(graph=policy.graph.replace(nodes={**policy.graph.nodes, "fc2": negative}))
    integers, report = lowered(policy, weight_slices=2, weight_bits=bits)
    assert overflows(prove(plan(integers)), LAVA) == []
    one = lowered(policy, weight_bits=bits)[1]
    assert report["action_error_rms"] <= 1.1 * one["action_error_rms"]


def test_slices_that_are_of_no_use_are_left_out() -> None:
    narrow = dataclasses.replace(LAVA, current_bits=16, membrane_bits=16, product_bits=24, threshold_bits=10)
    policy = random_policy(1, sizes=(9, 20, 4), population=4)
    affine = policy.graph.nodes["fc2"]
    assert isinstance(affine, Affine)
    larger = affine.replace(weight=10 * affine.weight)
    policy = policy.replace(graph=policy.graph.replace(nodes={**policy.graph.nodes, "fc2": larger}))
    one, two = (lowered(policy, narrow, weight_slices=slices)[1] for slices in (1, 2))
    assert two["action_error_rms"] <= one["action_error_rms"]
    assert two["warnings"][-1].endswith("with one the recorded input gives hardly a smaller error")


@pytest.mark.parametrize("spare", [0.0, 1.1])
def test_a_row_that_a_connection_leaves_alone_gets_no_bias_back_for_it(
    spare: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "SPARE_ERROR", spare)
    policy = with_far_weight(random_policy(0, sizes=(27, 8), recorded=256, bias=0.0), "fc1", 40.0)
    integers, report = lowered(policy, weight_slices=2)
    assert stored(integers, "fc1")[0, 0] != 0
    assert not stored(integers, "fc1")[1:].any()
    entries = links(report)
    assert entries["fc1"]["weight_exp"] < 0
    readout = integers.graph.nodes["readout"]
    assert isinstance(readout, Neuron)
    assert isinstance(readout.membrane, IntegerMembrane)
    bias = (readout.membrane.bias.astype(np.int64) << readout.membrane.bias_exp) / (1 << LAVA.input_shift)
    first, rest = (0.5 * (1 - 2.0 ** entries[link]["weight_exp"]) for link in ("fc1", "fc1.rest"))
    assert bias[1:] == pytest.approx(rest, abs=0.02)
    assert bias[0] == pytest.approx(first + rest, abs=0.02)


def test_a_few_large_weights_cost_a_few_synapses(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = with_far_weight(random_policy(5, sizes=(27, 64, 8), recorded=128), "fc1", 8.0)

    def cost(**options: Any) -> tuple[int, float]:
        integers, report = lowered(policy, **options)
        matrices = [op for op in integers.graph.nodes.values() if isinstance(op, Mantissas)]
        return sum(np.count_nonzero(op.weight) for op in matrices), report["action_error_rms"]

    one, two = cost(), cost(weight_slices=2)
    monkeypatch.setattr(choose, "SPARE_ERROR", 0.0)
    finest = cost(weight_slices=2)
    monkeypatch.setattr(choose, "SPARE_ERROR", np.inf)
    sparest = cost(weight_slices=2)
    assert one[0] <= sparest[0] < finest[0]
    assert sparest[0] <= two[0] < 1.3 * one[0]
    assert two[1] <= 1.1 * finest[1] < 0.6 * one[1]


def test_without_recorded_input_slices_are_as_fine_as_they_can_be() -> None:
    policy = random_policy(5, sizes=(27, 64, 8), recorded=128)
    _, report = lower(policy, LAVA, None, weight_slices=2)
    entries = links(report)
    assert entries["fc2.rest"]["weight_exp"] == rest_exponent(LAVA, entries["fc2"]["weight_exp"], 2)


def test_a_coarse_threshold_names_the_slices() -> None:
    policy = random_policy(5, sizes=(27, 64, 48, 8), recorded=128)
    policy = with_far_weight(policy, "fc2", 40.0)
    warnings = [lowered(policy, weight_slices=slices)[1]["warnings"] for slices in (1, 2)]
    coarse = [[text for text in of if text.startswith("lif2: the threshold is only")] for of in warnings]
    assert len(coarse[0]) == 1
    assert coarse[0][0].endswith("so rounding is coarse: two weight slices may make it finer")
    assert not any("slices" in text for text in coarse[1])


def test_the_unit_may_be_finer_than_the_first_slice() -> None:
    _, report = lowered(random_policy(5, sizes=(27, 64, 8), recorded=128), weight_slices=2)
    entries = links(report)
    assert entries["fc2"]["weight_exp"] > 0
    assert entries["fc2.rest"]["weight_exp"] < entries["fc2"]["weight_exp"]


def test_weights_that_are_exact_have_no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "SPARE_ERROR", 0.0)
    policy = random_policy(5, sizes=(6, 12, 4), recorded=48)
    affine = policy.graph.nodes["fc2"]
    assert isinstance(affine, Affine)
    signs = affine.replace(weight=np.where(affine.weight > 0, 1.0, -1.0))
    policy = policy.replace(graph=policy.graph.replace(nodes={**policy.graph.nodes, "fc2": signs}))
    integers, report = lowered(policy, weight_slices=2)
    assert set(links(report)) == {"fc1", "fc1.rest", "fc2"}
    assert "fc2.rest" not in integers.graph.nodes


def test_an_arithmetic_without_exponents_has_no_rests() -> None:
    whole = dataclasses.replace(TWOS_COMPLEMENT, weight_exponent_low=0, weight_exponent_high=0)
    policy = random_policy(5, sizes=(6, 12, 4), recorded=48)
    (one, _), (two, report) = (lowered(policy, whole, weight_slices=slices) for slices in (1, 2))
    assert two.graph == one.graph
    assert "no weight has a second slice" in report["warnings"][-1]


def test_a_name_that_is_taken_gets_a_mark() -> None:
    policy = random_policy(5, sizes=(6, 12, 4), recorded=48)
    nodes = {("fc1.rest" if name == "lif1" else name): op for name, op in policy.graph.nodes.items()}
    edges = tuple(tuple("fc1.rest" if end == "lif1" else end for end in edge) for edge in policy.graph.edges)
    renamed = policy.replace(graph=policy.graph.replace(nodes=nodes, edges=edges))
    integers, report = lowered(renamed, weight_slices=2)
    assert "fc1.rest'" in links(report)
    assert integers.graph.sources("fc1.rest'") == integers.graph.sources("fc1")


def test_convolutions_keep_their_form() -> None:
    from conformance.cases import CASES

    case = CASES["convolution in 2-D"]
    program = nervecord.compile(case.make(), "lava", weight_slices=2)
    sparse = {name: op for name, op in program.graph.nodes.items() if isinstance(op, Sparse)}
    rests = {name: op for name, op in sparse.items() if name.endswith(".rest")}
    assert rests
    assert all(op.convolution is not None for op in sparse.values())


@pytest.mark.parametrize("step", [1, 2, 16, 64])
def test_half_a_step_stays_a_mantissa(step: int) -> None:
    bits = 7 - rest_exponent(LAVA, 7, step)
    largest = LAVA.weight_largest // step * step
    assert step / 2 * 2**bits <= largest < step / 2 * 2 ** (bits + 1)
    assert rest_exponent(LAVA, -6, 2) == LAVA.weight_exponent_low


def test_a_bias_that_a_connection_carries_has_its_rest_too() -> None:
    policy = random_policy(3, sizes=(7, 24, 4), current=True, bias=0.4, recorded=64)
    integers, report = lowered(policy, weight_slices=2)
    entries, population = links(report), next(p for p in report["populations"] if p["population"] == "lif1")
    affine = policy.graph.nodes["fc1"]
    assert isinstance(affine, Affine)
    (entry,) = report["entries"]
    total = weights(integers.graph, "fc1") + weights(integers.graph, "fc1.rest")
    assert total.shape[1] == affine.weight.shape[1] + 1
    real = total[: len(affine.weight), -1] * entry["bias_channel"] * population["unit"]
    neuron = policy.graph.nodes["lif1"]
    assert isinstance(neuron, Neuron)
    assert neuron.synapse is not None
    expected = neuron.membrane.gain * neuron.synapse.gain * affine.bias
    finest = 2.0 ** entries["fc1.rest"]["weight_exp"] * entry["bias_channel"] * population["unit"]
    assert np.abs(real - expected).max() <= 1.01 * finest
    coarse = weights(integers.graph, "fc1")[: len(affine.weight), -1] * entry["bias_channel"] * population["unit"]
    assert np.abs(coarse - expected).max() > 2 * finest


def two_readouts(times: float) -> Policy:
    """A second readout, of weights that many times as large, added to the first by the decoder."""
    policy = random_policy(5, sizes=(6, 80, 4), recorded=96)
    nodes, edges = dict(policy.graph.nodes), list(policy.graph.edges)
    affine = nodes["fc2"]
    assert isinstance(affine, Affine)
    nodes["fc3"] = affine.replace(weight=times * affine.weight[::-1].copy(), bias=None)
    nodes["more"] = nodes["readout"]
    edges += [("lif1", "fc3"), ("fc3", "more"), ("more", "decode")]
    return policy.replace(graph=policy.graph.replace(nodes=nodes, edges=tuple(edges)))


@pytest.mark.parametrize("times", [1.0, 0.3, 0.05])
@pytest.mark.parametrize("bits", [8, 4, 3])
def test_readouts_that_share_a_unit_keep_their_weights(bits: int, times: float) -> None:
    policy = two_readouts(times)
    one, two = (lowered(policy, weight_slices=slices, weight_bits=bits)[1] for slices in (1, 2))
    assert two["action_error_rms"] < 1.1 * one["action_error_rms"]
    worst = [max(link["weight_error_rms"] for link in links(report).values()) for report in (one, two)]
    assert worst[1] < 0.5 * worst[0]


def test_where_each_product_is_rounded_a_rest_stays_at_exponent_zero() -> None:
    each = dataclasses.replace(LAVA, accumulate="shift-each")
    ratios = []
    for seed in range(4):
        policy = random_policy(seed, sizes=(27, 64, 8), recorded=96)
        one, two = (lowered(policy, each, weight_slices=slices)[1] for slices in (1, 2))
        ratios.append(two["action_error_rms"] / one["action_error_rms"])
        for name, link in links(two).items():
            if name.endswith(".rest"):
                assert link["weight_exp"] >= min(0, links(two)[name.removesuffix(".rest")]["weight_exp"])
    assert np.prod(ratios) ** (1 / 4) < 1.1


def test_a_rest_is_told_from_its_connection() -> None:
    program = nervecord.compile(random_policy(5, sizes=(6, 12, 4), recorded=48), "lava", weight_slices=2)
    labels = [program.graph.nodes[name].label for name in ("fc1", "fc1.rest")]
    assert labels == ["fc1", "fc1 (rest)"]


def test_the_name_of_what_sends_an_entry_is_taken_too() -> None:
    policy = random_policy(5, sizes=(6, 12, 4), recorded=48)
    new = {"fc1": "quantise"}
    nodes = {new.get(name, name): op for name, op in policy.graph.nodes.items()}
    edges = tuple((new.get(a, a), new.get(b, b)) for a, b in policy.graph.edges)
    one = policy.replace(graph=policy.graph.replace(nodes=nodes, edges=edges))
    integers, _ = lowered(one, weight_slices=2)
    assert {"quantise", "quantise.rest", "quantise'"} <= set(integers.graph.nodes)


def test_what_cannot_have_slices_says_so() -> None:
    policy = random_policy(5, sizes=(6, 12, 4), recorded=48)
    with pytest.raises(NervecordError, match="netx has one connection") as caught:
        nervecord.compile(policy, "lava", weight_slices=2, netx=True)
    assert caught.value.where == "weight_slices"
    with pytest.raises(NervecordError, match="float") as caught:
        nervecord.compile(policy, "onnx", weight_slices=2)
    assert caught.value.where == "weight_slices"
    with pytest.raises(NervecordError, match="from 1 to 2"):
        nervecord.compile(policy, "lava", weight_slices=3)
    program = nervecord.compile(policy, "lava", weight_slices=2)
    for options in ({"weight_slices": 2}, {"weight_bits": 4}):
        with pytest.raises(NervecordError, match="the weights are integers already") as caught:
            nervecord.compile(program.subject, "onnx", form="integer", **options)
        with pytest.raises(NervecordError, match="integers") as caught:
            nervecord.compile(program.subject, "c", **options)
        assert caught.value.where == next(iter(options))
    for slices in (0, 3):
        with pytest.raises(InfeasibleError, match="1 or 2"):
            lower(policy, LAVA, calibrate(policy), weight_slices=slices)
    with pytest.raises(InfeasibleError, match="second slice"):
        lower(policy, LAVA, calibrate(policy), weight_slices=2, whole=True)
