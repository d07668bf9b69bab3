"""What `inspect` says is what `compile` does, on random graphs and targets and on those that were once told apart."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from agreement.comparison import outcome_of, run_case
from agreement.draws import LAVA as SPEC
from agreement.draws import Case
from nets import affine, continuous_if, current_lif, entry, lif, net, readout, skip
from policies import random_policy

import nervecord
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Affine, Conv, Input, Level, Neuron, Op, Output, Scale, Synapse
from nervecord.compiler.target.protocol import TargetSpec
from nervecord.compiler.target.specfile import spec_from_dict
from nervecord.errors import FileFormatError
from nervecord.targets.integers import IntegerTarget

SHARE = 12
"""Cases of the default suite."""
MANY = 500


@pytest.mark.parametrize("part", range(4))
def test_inspect_and_compile_agree(part: int) -> None:
    outcomes = [run_case(number) for number in range(part, SHARE, 4)]
    assert len(set(outcomes)) > 1


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_inspect_and_compile_agree_on_many(part: int) -> None:
    outcomes = [run_case(number) for number in range(SHARE + part, MANY, 10)]
    assert sum(outcome.startswith("feasible") for outcome in outcomes) > len(outcomes) // 10


def described(limits: dict[str, int] | None = None, **arithmetic: Any) -> TargetSpec:
    """A chip of a file's: Lava's arithmetic with these changes, and no limits but these."""
    stated = {"value": 0, "source": "made up", "confidence": "exact"}
    return spec_from_dict(
        {
            **{name: SPEC[name] for name in ("title", "summary", "nodes")},
            "name": "mine",
            "engines": [],
            "arithmetic": {**SPEC["arithmetic"], **arithmetic},
            "behaviour": {},
            "limits": {name: {**stated, "value": value} for name, value in (limits or {"neurons": 1000}).items()},
        }
    )


def outcome(subject: Graph | Policy, spec: TargetSpec | None = None, steps: int | None = None, **options: Any) -> str:
    """The codes that refuse it, by `inspect` and `compile` alike, or "feasible"; what compiles is run."""
    return outcome_of(Case(0, IntegerTarget(spec or described(), **options), subject, steps))


# --------------------------------------------------------------------------------------------------------------------
# Time


def looped(*between: tuple[str, Op], dt: float | None = 1e-3) -> Graph:
    """input -> fc -> if -> output in continuous time, and from the neurons through these nodes back to them."""
    names = ["if", *(name for name, _ in between), "if"]
    nodes: dict[str, Op] = {
        "input": Input((2,), "spikes"),
        "fc": affine(),
        "if": continuous_if((2,)),
        **dict(between),
        "output": Output((2,)),
    }
    edges = (("input", "fc"), ("fc", "if"), ("if", "output"), *itertools.pairwise(names))
    return Graph(Level.IMPORTED, nodes, edges, dt)


def test_a_loop_that_no_connection_can_delay_is_refused_by_both() -> None:
    """The Affine of the way back gets the delay only where neurons alone feed it."""
    scaled = ("scale", Scale(np.ones(2))), ("back", affine())
    assert outcome(looped(*scaled)) == "cycle"
    assert outcome(looped(("back", affine()))) == "feasible"
    assert outcome(looped(*reversed(scaled))) == "feasible"
    for spec in (*nervecord.list_targets(), described()):
        for dt in (1e-3, None):
            report = nervecord.inspect(looped(*scaled, dt=dt), spec)
            assert [finding.code for finding in report.findings] == ["cycle"]
            assert report.targets[0].verdict == "infeasible"


def test_a_time_constant_below_the_step_is_found_by_inspecting() -> None:
    graph = looped(("back", affine()))
    fast = graph.nodes["if"]
    assert isinstance(fast, Neuron)
    membrane = dataclasses.replace(fast.membrane, tau=np.full(2, 1e-4))
    assert outcome(graph.replace(nodes={**graph.nodes, "if": fast.replace(membrane=membrane)})) == "time-step"


@pytest.mark.parametrize(
    ("cost", "longest"),
    [
        pytest.param(cost, longest, marks=[] if (cost, longest) in ((0, 0), (1, 1), (2, 5)) else [pytest.mark.slow])
        for cost in (0, 1, 2)
        for longest in (0, 1, 2, 5)
        if cost <= longest
    ],
)
def test_connections_may_cost_no_steps(cost: int, longest: int) -> None:
    spec = described(connection_delay=cost, delay_max=longest)
    for steps in (None, 3):
        assert outcome(net(affine(), lif(), spiking=True), spec, steps) == "feasible"
        waits = "feasible" if 2 * cost <= longest or cost == 0 else "delay-range"
        assert outcome(skip(), spec, steps) == waits
    for delay in range(8):
        spikes = net(affine(delay=delay), lif(), spiking=True)
        hops = -(-delay // longest) if longest else 0
        relayed = delay > longest and longest > 0 and delay // max(hops, 1) >= cost
        expected = "feasible" if delay <= longest or relayed else "delay-range"
        if delay >= cost:
            assert outcome(spikes, spec) == expected


# --------------------------------------------------------------------------------------------------------------------
# Scales


@pytest.mark.parametrize(
    "weight",
    [1e-300, 1e-16, 1e-8, 1.0, *(pytest.param(x, marks=pytest.mark.slow) for x in (1e-30, 1e-18, 1e-12, 1e-4))],
)
@pytest.mark.parametrize("spiking", [False, True])
def test_weights_that_are_tiny_beside_the_bias_are_decided_by_inspecting(weight: float, spiking: bool) -> None:
    """A bias of about 1 into a current, which comes through a channel beside those of the weights."""
    for steps in (None, 4):
        tiny = Affine(np.full((2, 2), weight), np.array([1.0, -0.5]))
        assert outcome(net(tiny, current_lif(), spiking=spiking), steps=steps) == "feasible"
        assert outcome(net(tiny, lif(), spiking=spiking), steps=steps) in ("feasible", "no-scale")


def test_values_that_enter_may_be_limited_to_as_little_as_one_likes() -> None:
    for limit in (0.4, 0.01, 1e-9, 1e-300):
        graph = net(Affine(np.eye(2) / limit), lif(threshold=np.full(2, 0.5)))
        graph = graph.replace(nodes={**graph.nodes, "input": Input((2,), "values", limit)})
        assert outcome(graph) == "feasible"
        program = nervecord.compile(graph, IntegerTarget(described()))
        with nervecord.stream(program) as stream:
            assert stream.run(np.tile([limit, 0.2 * limit], (4, 1)))["output"][:, 0].sum(axis=0).tolist() == [3, 0]


def test_the_largest_value_that_a_message_holds_is_not_exceeded_by_rounding() -> None:
    graph = net(affine(), lif())
    graph = graph.replace(nodes={**graph.nodes, "input": Input((2,), "values", 16383.9)})
    assert outcome(graph) == "feasible"


def test_what_spikes_several_times_in_a_step_is_several_times_as_much() -> None:
    spec = described(reset="subtract", spikes_per_step=255, current_bits=14, membrane_bits=20)
    first, second = lif(threshold=np.full(2, 0.01), reset="subtract"), lif(reset="subtract")
    assert outcome(net(affine(), first, affine(), second, spiking=True), spec) in ("feasible", "no-scale")


def test_no_scale_is_found_also_where_the_size_of_the_chip_is_unknown() -> None:
    far = net(affine(), lif(threshold=np.full(2, 1e-9)), spiking=True)
    assert outcome(far) == "no-scale"
    assert outcome(far, described({"synapses": 1000})) == "no-scale"


def test_the_options_of_a_target_count_when_it_is_inspected() -> None:
    """A threshold below a unit of the accumulator, to which only exponents of a second slice give one."""
    weight = np.full((2, 2), 1e-4)
    weight[0, 0] = 1.0
    graph = net(Affine(weight), lif(threshold=np.full(2, 2e-3)), spiking=True)
    narrow = described(weight_bits=4, weight_exponent_low=0)
    assert [outcome(graph, narrow, weight_slices=slices) for slices in (1, 2)] == ["no-scale", "feasible"]
    assert outcome(graph, narrow, weight_bits=8, weight_slices=2) == "no-scale"


# --------------------------------------------------------------------------------------------------------------------
# What a file may say


@pytest.mark.parametrize("name", ["current_bits", "membrane_bits"])
def test_an_input_shift_beyond_the_width_is_refused(name: str) -> None:
    with pytest.raises(FileFormatError, match="input_shift leaves no bit"):
        described(input_shift=12, **{name: 12})
    assert outcome(net(affine(), lif(), spiking=True), described(input_shift=11, **{name: 12})) == "no-scale"


def test_a_decay_code_that_there_is_not_is_refused() -> None:
    shifts = {"decay": "shift", "decay_rounding": "floor", "decay_bits": 3}
    with pytest.raises(FileFormatError, match="current_decay_low is no code"):
        described(**shifts, current_decay_low=8)
    assert outcome(net(affine(), current_lif(), spiking=True), described(**shifts, current_decay_low=7)) == "feasible"


def test_a_convolution_that_reaches_padding_alone() -> None:
    """Its middle column is zero, and the others never meet a value."""
    weight = np.ones((2, 1, 3, 3))
    weight[..., 1] = 0
    conv = Conv(weight, None, (1, 3), (1, 1), (1, 1), 1, (4, 1))
    neurons = lif(conv.size)
    shaped = {
        name: dataclasses.replace(
            part,
            **{
                field.name: getattr(part, field.name).reshape(conv.out_shape)
                for field in dataclasses.fields(part)
                if isinstance(getattr(part, field.name), np.ndarray)
            },
        )
        for name, part in (("membrane", neurons.membrane), ("spike", neurons.spike))
        if part is not None
    }
    nodes: list[tuple[str, Op]] = [
        ("input", Input((1, 4, 1), "spikes")),
        ("conv", conv),
        ("lif", Neuron(**shaped)),
        ("output", Output(conv.out_shape)),
    ]
    assert outcome(chain(Level.DISCRETE, nodes, dt=1e-3)) == "feasible"


def test_weights_that_differ_by_one_rounding_are_described() -> None:
    for value in (3e30, 0.1, 1e-300, 1e300):
        weight = np.array([[value, np.nextafter(value, 1)]] * 2)
        assert nervecord.inspect(net(Affine(weight), lif()), described()).facts is not None


def test_an_output_may_add_spikes_to_membranes() -> None:
    nodes: dict[str, Op] = {
        "input": entry(),
        "fc": affine(),
        "lif": lif(),
        "fc2": affine(),
        "li": readout(),
        "output": Output((2,)),
    }
    edges = (("input", "fc"), ("fc", "lif"), ("lif", "output"), ("input", "fc2"), ("fc2", "li"), ("li", "output"))
    assert outcome(Graph(Level.DISCRETE, nodes, edges, 1e-3)) == "feasible"


def test_relays_count_as_neurons() -> None:
    waiting = net(affine(delay=9), lif(), spiking=True)
    assert outcome(waiting, described({"neurons": 4}, delay_max=5)) == "feasible"
    assert outcome(waiting, described({"neurons": 3}, delay_max=5)) == "neurons"


@pytest.mark.long
def test_a_thousand_relays_are_the_most() -> None:
    """A file of a few bytes can say delays that take hundreds of thousands."""
    spikes = (affine(delay=200), lif(), affine(), lif())
    assert outcome(net(*spikes, spiking=True), described({}, delay_max=1)) == "feasible"
    assert outcome(net(affine(delay=3000), *spikes[1:], spiking=True), described({}, delay_max=1)) == "delay-range"


def test_products_beyond_float64_are_refused() -> None:
    one = np.ones(2)
    huge = current_lif().replace(synapse=Synapse(0.5 * one, 1e200 * one))
    assert outcome(net(Affine(np.full((2, 2), 1e200)), huge, spiking=True)) == "no-scale"
    unequal = lif(threshold=np.array([1e-200, 1.0]), gain=np.full(2, 1e200))
    assert outcome(net(affine(), unequal, spiking=True)) == "population-parameters"


# --------------------------------------------------------------------------------------------------------------------
# Programs for other targets


@pytest.mark.parametrize("changes", [{"weight_bits": 16, "product_bits": 40}, {"reset": "subtract"}, {"decay_bits": 8}])
def test_a_program_of_an_arithmetic_of_ones_own_goes_to_onnx(changes: dict[str, Any]) -> None:
    pytest.importorskip("onnx")
    policy = random_policy(sizes=(3, 6, 2), recorded=20)
    if "reset" in changes:
        hidden = policy.graph.nodes["lif1"]
        assert isinstance(hidden, Neuron)
        assert hidden.spike is not None
        spiking = hidden.replace(spike=dataclasses.replace(hidden.spike, reset="subtract"))
        policy = policy.replace(graph=policy.graph.replace(nodes={**policy.graph.nodes, "lif1": spiking}))
    program = nervecord.compile(policy, IntegerTarget(described(**changes)))
    moved = nervecord.compile(program, "onnx")
    assert moved.graph.arithmetic == program.graph.arithmetic
    rows = np.random.default_rng(0).normal(size=(8, 3))
    with nervecord.open(program) as a, nervecord.open(moved, engine="definition") as b:
        assert all(np.array_equal(a.step(row), b.step(row)) for row in rows)
