"""One case per finding code, the verdict, and what the rules must agree on with the targets."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import policies
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import (
    ARITHMETIC,
    LAVA,
    LOIHI1,
    REFERENCE,
    SPECK,
    XYLO,
    affine,
    chip,
    continuous_if,
    convolution,
    current_lif,
    entry,
    fact,
    fixed,
    lif,
    net,
    readout,
    recurrent,
    skip,
    two_readouts,
    with_contract,
)

from nervecord.compiler.check.placement import place
from nervecord.compiler.check.table import RULES, errors, findings_of, not_checked, verdict
from nervecord.compiler.findings import Finding
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import (
    Affine,
    ContinuousMembrane,
    Conv,
    Dense,
    Flatten,
    Input,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Level,
    Neuron,
    Op,
    Output,
    Pool,
    Quantise,
    Scale,
    Spike,
    Threshold,
)
from nervecord.compiler.target.protocol import Convolution, Fact, TargetSpec
from nervecord.targets.catalogue import load_specs

REPOSITORY = Path(__file__).parents[2]


def convolving(**values: Any) -> TargetSpec:
    """A chip that convolves, with these limits of Speck changed."""
    assert SPECK.convolution is not None
    facts = {name: fact(value) for name, value in values.items()}
    return dataclasses.replace(SPECK, convolution=dataclasses.replace(SPECK.convolution, **facts))


Case = tuple[Graph | Policy, TargetSpec]


@pytest.fixture(scope="session")
def cases(make_policy: Callable[..., Policy]) -> dict[str, Case]:
    """code -> the smallest graph and target that give it."""
    policy = make_policy((3, 4, 2))
    carried = make_policy((3, 4, 2), state="carried")
    spiking_end = policies.with_node(policy, "readout", lif())
    continuous = chain(
        Level.IMPORTED,
        [
            ("input", entry()),
            ("fc", affine()),
            ("lif", Neuron(ContinuousMembrane(np.ones(2), np.ones(2)), None, Spike(np.ones(2), np.zeros(2)))),
            ("output", Output((2,))),
        ],
    )
    undeclared = net(affine(), lif())
    undeclared = undeclared.replace(nodes={**undeclared.nodes, "input": Input((2,))})
    unlimited = undeclared.replace(nodes={**undeclared.nodes, "input": Input((2,), "values")})
    joined = two_readouts()
    joined = joined.replace(edges=(*joined.edges, ("lif1", "output")))
    two = (affine(), lif(), affine(), lif())
    return {
        "unsupported-node": (net(affine(), Threshold(np.ones(2))), LAVA),
        "reset-rule": (net(affine(), lif(reset="subtract")), LAVA),
        "reset-value": (net(affine(), lif(reset_value=np.array([0.0, 0.25]))), LAVA),
        "refractory": (net(affine(), lif(refractory=3)), LAVA),
        "leak": (net(affine(), lif(leak=np.array([0.1, 0.1])), spiking=True), XYLO_FOR_ZERO_RESET),
        "no-decay": (net(affine(), lif(), spiking=True), SPECK),
        "population-parameters": (net(affine(), lif(threshold=np.array([1.0, 2.0]))), chip(per_neuron=())),
        "bias": (net(affine(bias=True), lif()), chip(bias=False)),
        "bias-channel": (net(affine(bias=True), current_lif()), LAVA),
        "graded-input": (policy, chip(graded_input=False)),
        "undeclared-input": (undeclared, LAVA),
        "unlimited-input": (unlimited, LAVA),
        "free-wiring": (net(affine(), affine(), lif()), chip(free_wiring=False)),
        "analogue-layer": (net(affine(), readout(), affine(), lif()), LAVA),
        "spiking-readout": (spiking_end, LAVA),
        "membrane-readout": (net(affine(), readout()), chip(readout=False)),
        "recurrence": (recurrent(), chip(recurrence=False)),
        "recurrent-readout": (recurrent(), chip(recurrent_readout=False)),
        "delay-range": (net(affine(delay=64), lif()), LAVA),
        "carried-without-delays": (with_contract(policy, state="carried"), LAVA),
        "reset-with-delays": (with_contract(carried, state="reset"), LAVA),
        "loop-delay": (recurrent(delay=1), chip(connection_delay=2)),
        "unbalanced-paths": (skip(), chip(connection_delay=1)),
        "ends-apart": (joined, LAVA),
        "latency": (policy, LAVA),
        "time-step": (continuous, LAVA),
        "no-contract": (net(affine(), lif()), LAVA),
        "inputs": (net(affine(27), lif(), inputs=27, spiking=True), XYLO_FOR_ZERO_RESET),
        "outputs": (net(affine(2, 9), lif(9), outputs=9, spiking=True), XYLO_FOR_ZERO_RESET),
        "neurons": (net(*two), chip(neurons=3)),
        "hidden-neurons": (net(*two), chip(hidden=1)),
        "synapses": (net(*two), chip(synapses=7)),
        "layers": (net(*two), chip(layers=1)),
        "layers-min": (net(affine(), lif()), chip(layers_min=2)),
        "fan-in": (net(affine(5), lif(), inputs=5), chip(fan_in=4)),
        "fan-out": (net(affine(2, 5), lif(5), outputs=5), chip(fan_out=4, input_fan_out=4)),
        "core-limit": (net(affine(5000, 1), lif(1), inputs=5000, outputs=1, spiking=True), LOIHI1),
        "cores": (net(affine(2, 9), lif(9), outputs=9), chip(neurons_per_core=4, cores=2)),
        "layer-split": (net(affine(2, 9), lif(9), outputs=9), chip(neurons_per_core=4)),
        "memory-unknown": (convolution(), LOIHI1),
        "configurations": (
            net(affine(2, 20), lif(20, threshold=1.0 + np.arange(20)), outputs=20, spiking=True),
            LOIHI1,
        ),
        "capacity-unknown": (net(*two), chip(neurons=Fact(), hidden=Fact(), cores=Fact())),
        "weight-resolution": (net(Affine(np.array([[1.0, 0.001], [0.001, 0.002]])), lif()), LAVA),
        "decay-resolution": (net(affine(), lif(decay=np.full(2, 0.9999))), LAVA),
        "threshold-range": (net(affine(), lif(threshold=-np.ones(2))), LAVA),
        "foreign-integers": (fixed().replace(arithmetic=dataclasses.replace(ARITHMETIC, input_shift=5)), LAVA),
        "weight-range": (fixed(weight=200), chip(weight_max=127)),
        "graded-range": (fixed(limit=40_000), chip(message_bits=16)),
        "no-scale": (net(affine(), lif(threshold=np.full(2, 1e-9))), LAVA),
        "product-overflow": (proving(product_bits=12), OPEN_CHIP),
        "accumulator-overflow": (proving(current_bits=16), OPEN_CHIP),
        "current-overflow": (proving(current_bits=26, membrane_bits=32, synapse=IntegerSynapse(1)), OPEN_CHIP),
        "membrane-saturates": (proving(decay=0), OPEN_CHIP),
        "readout-saturates": (proving(spiking=False, decay=0), OPEN_CHIP),
        "convolution": (convolution(kernel=17), convolving(kernel_max=16)),
        "convolution-memory": (
            convolution(features=100),
            convolving(kernel_memory=(800, 850), neuron_memory=(9000, 99999)),
        ),
        "second-hand-limits": (net(affine(), lif()), LAVA),
    }


OPEN_CHIP = chip(neurons=100)
"""It can do everything; what a graph of integers is proved to exceed is its own arithmetic's."""


def proving(*, spiking: bool = True, synapse: IntegerSynapse | None = None, decay: int = 4095, **widths: int) -> Graph:
    """Weights and inputs of one size, in an arithmetic of these widths."""
    spike = IntegerSpike(131071) if spiking else None
    neuron = Neuron(IntegerMembrane(decay, np.zeros(2)), synapse, spike)
    core = (Quantise(2, 1.0, 100), Dense(np.full((2, 2), 254)), neuron)
    return net(*core, level=Level.INTEGER).replace(arithmetic=dataclasses.replace(ARITHMETIC, **widths))


XYLO_FOR_ZERO_RESET = dataclasses.replace(
    XYLO, behaviour=dataclasses.replace(XYLO.behaviour, resets=fact(("value", "subtract")))
)
"""Xylo, but for its reset, so that a case can be about something else."""

ASIDE = (
    "no-contract",
    "second-hand-limits",
    "latency",
    "bias-channel",
    "layer-split",
    "graded-input",
    "recurrence",
    "unbalanced-paths",
)
"""Codes that may come along with another one, as infos."""


ALONG = {
    "accumulator-overflow": ("current-overflow", "membrane-saturates"),
    "current-overflow": ("membrane-saturates",),
    **dict.fromkeys(("leak", "inputs", "outputs"), ("layers-min",)),
    **dict.fromkeys(("memory-unknown", "convolution", "convolution-memory"), ("undeclared-input",)),
}
"""What is too much for the accumulator is so for what takes it up; one layer is too little for Xylo; the inputs of some
nets are declared by nobody."""


def as_text(findings: list[Finding]) -> str:
    blocks = []
    for finding in findings:
        lines = [f"{name}: {value}" for name, value in finding.to_dict().items() if value not in (None, "")]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


@pytest.mark.parametrize("code", [rule.code for rule in RULES])
def test_golden(code: str, cases: dict[str, Case], golden: Callable[[str, str], None]) -> None:
    graph, spec = cases[code]
    findings = findings_of(graph, spec)
    own = [finding for finding in findings if finding.code == code]
    others = [
        f
        for f in findings
        if f.code not in (code, *ALONG.get(code, ())) and not (f.code in ASIDE and f.severity == "info")
    ]
    assert own
    assert not others
    golden(f"findings/{code}.txt", as_text(own))


def test_codes_are_stable_words() -> None:
    codes = [rule.code for rule in RULES]
    assert len(set(codes)) == len(codes)
    assert all(code == code.lower() and code.replace("-", "").isalpha() for code in codes)


def test_every_error_and_unknown_names_limit_source_and_fix(cases: dict[str, Case]) -> None:
    for graph, spec in cases.values():
        for finding in findings_of(graph, spec):
            if finding.severity in ("error", "unknown"):
                assert finding.fix, finding
                assert finding.source, finding


def test_the_document_of_findings_is_current(document: Callable[[str], str]) -> None:
    document("findings")


# --------------------------------------------------------------------------------------------------------------------
# Verdict


def test_second_hand_limit_exceeded_is_unknown_and_exact_is_an_error() -> None:
    graph = net(affine(), lif())
    assert verdict(findings_of(graph, chip(neurons=fact(1, "second-hand")))) == "unknown"
    assert verdict(findings_of(graph, chip(neurons=fact(1, "conflicting")))) == "unknown"
    assert verdict(findings_of(graph, chip(neurons=fact(1)))) == "infeasible"
    assert verdict(findings_of(graph, chip(neurons=fact(2, "second-hand")))) == "feasible"


def test_a_limit_nobody_published_is_never_ok() -> None:
    spec = chip(fan_in=Fact())
    assert any("fan in" in item for item in not_checked(spec))
    assert verdict(findings_of(net(affine(), lif()), spec)) == "feasible"


@pytest.mark.parametrize("name", ["resets", "nonzero_reset", "leak", "bias", "graded_input", "recurrence"])
def test_an_unknown_capability_that_is_needed_makes_the_verdict_unknown(name: str) -> None:
    core = {"lif": lif(leak=np.ones(2), reset_value=np.ones(2)), "fc": affine(bias=True)}
    graph = recurrent(**core)
    assert verdict(findings_of(graph, chip())) == "feasible"
    assert verdict(findings_of(graph, chip(**{name: Fact()}))) == "unknown"


def test_override_turns_unknown_into_a_decision() -> None:
    graph = net(affine(2, 20_000), lif(20_000), outputs=20_000)
    wide = LAVA.override(neurons_per_core=100)
    codes = {f.code: f.severity for f in findings_of(graph, wide)}
    assert codes["cores"] == "unknown"
    codes = {f.code: f.severity for f in findings_of(graph, wide.override(cores=128))}
    assert codes["cores"] == "error"


# --------------------------------------------------------------------------------------------------------------------
# Targets


@pytest.mark.parametrize("synaptic", [False, True])
@pytest.mark.parametrize("state", ["reset", "carried"])
def test_ant_policy(make_policy: Any, synaptic: bool, state: str) -> None:
    graph = make_policy((27, 24, 8), synaptic=synaptic, state=state)
    verdicts = {spec.name: verdict(findings_of(graph, spec)) for spec in load_specs()}
    assert verdicts == {
        "reference": "feasible",
        "c": "feasible",
        "fpga": "feasible",
        "lava": "feasible",
        "onnx": "feasible",
        "loihi1": "infeasible",
        "speck": "infeasible",
        "spinnaker2": "infeasible",
        "xylo": "infeasible",
    }


@pytest.mark.parametrize("state", ["reset", "carried"])
def test_spikes_in_and_out_make_an_ant_policy_feasible_on_loihi1(state: str) -> None:
    """Loihi 1 takes binary spikes: a population code gets in what a current does not, and the finding says so."""
    current = policies.random_policy(sizes=(27, 64, 8), state=state)
    (finding,) = errors(current, LOIHI1)
    assert finding.code == "graded-input"
    assert "--encoder population" in finding.fix
    for output_population in (0, 10):  # a probed membrane, or spikes that are counted
        coded = policies.random_policy(
            sizes=(27, 64, 8), state=state, population=10, output_population=output_population
        )
        assert verdict(findings_of(coded, LOIHI1)) == "feasible"
        assert place(coded.graph, LOIHI1).inputs == 270


def test_spike_counts_need_no_membrane() -> None:
    blind = chip(readout=False)
    (finding,) = [
        f for f in findings_of(policies.random_policy(sizes=(5, 9, 2)), blind) if f.code == "membrane-readout"
    ]
    assert "--decoder count" in finding.fix
    counted = policies.random_policy(sizes=(5, 9, 2), output_population=4)
    assert {finding.severity for finding in findings_of(counted, blind)} <= {"info"}


def test_ant_policy_exceeds_the_inputs_of_xylo(make_policy: Any) -> None:
    (finding,) = [f for f in findings_of(make_policy((27, 24, 8)), XYLO) if f.code == "inputs"]
    assert (finding.value, finding.limit, finding.severity) == (27, 16, "error")


SOUP: list[Callable[[np.random.Generator], Op]] = [
    lambda draw: Affine(draw.normal(size=(4, 4)), draw.normal(size=4), int(draw.integers(3))),
    lambda draw: lif(4, reset=draw.choice(["value", "subtract", "none"]).item(), decay=draw.random(4)),
    lambda draw: lif(4, leak=draw.normal(size=4), threshold=draw.normal(size=4), reset_value=draw.normal(size=4)),
    lambda draw: current_lif(4),
    lambda draw: readout(4),
    lambda draw: Scale(draw.normal(size=4)),
    lambda draw: Flatten((4,), 0, 0),
    lambda draw: Threshold(draw.normal(size=4)),
]


@settings(max_examples=examples(60), deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 9))
def test_no_graph_makes_a_rule_fail(seed: int, count: int) -> None:
    """Cycles, islands, several ends, anything fed by anything: findings, never an exception."""
    draw = np.random.default_rng(seed)
    nodes: dict[str, Op] = {"input": Input((4,)), "output": Output((4,))}
    nodes |= {f"n{k}": SOUP[draw.integers(len(SOUP))](draw) for k in range(count)}
    names = list(nodes)
    pairs = {(names[draw.integers(len(names))], names[draw.integers(len(names))]): None for _ in range(2 * count)}
    graph = Graph(Level.DISCRETE, nodes, tuple(pairs), dt=1e-3)
    for spec in load_specs():
        findings = findings_of(graph, spec)
        assert findings == findings_of(graph, spec)
        json.dumps([finding.to_dict() for finding in findings], allow_nan=False)


def test_findings_speak_in_the_makers_names() -> None:
    graph = net(("a", affine()), ("b", lif(reset="none", origin=("actor.lif",))))
    (finding,) = [f for f in findings_of(graph, LAVA) if f.code == "reset-rule"]
    assert finding.node == "actor.lif"


def test_thresholds_that_differ_by_rounding_only_are_one() -> None:
    graph = net(affine(), lif(threshold=np.array([1.0, 1.0 + 1e-12]), decay=np.array([0.5, 0.5001])))
    assert "population-parameters" not in {f.code for f in findings_of(graph, LAVA)}


@pytest.mark.parametrize("bits", [10, 53, 1000, 1001, 1100, 10**6, math.inf])
def test_decays_of_any_number_of_bits_are_told_apart(bits: float) -> None:
    """A step of 2^-bits is no float for many of them."""
    graph = net(affine(), lif(decay=np.array([0.5, 0.501])))
    findings = {f.code: f for f in findings_of(graph, chip(decay_bits=bits, decays_per_core=1))}
    assert (findings["configurations"].value, findings["configurations"].limit) == (2, 1)
    assert "decay-resolution" not in findings


def test_a_decay_that_rounds_to_one_is_told_from_one() -> None:
    graph = net(affine(), lif(decay=np.full(2, 1 - 2.0**-22)))
    (finding,) = [f for f in findings_of(graph, LAVA) if f.code == "decay-resolution"]
    assert "1 - 2.38e-07 becomes 1 in" in finding.message


def test_equally_long_paths_are_balanced() -> None:
    graph = skip()
    nodes = {name: op.replace(delay=1) if isinstance(op, Affine) else op for name, op in graph.nodes.items()}
    assert [f.node for f in findings_of(graph, chip(connection_delay=1)) if f.code == "unbalanced-paths"] == ["around"]
    assert not [
        f for f in findings_of(graph.replace(nodes=nodes), chip(connection_delay=1)) if f.code == "unbalanced-paths"
    ]


def test_an_inputs_fan_out_may_be_another_limit() -> None:
    graph = net(affine(2, 5), lif(5), outputs=5)
    assert "fan-out" in {f.code for f in findings_of(graph, chip(fan_out=4, input_fan_out=4))}
    assert "fan-out" not in {f.code for f in findings_of(graph, chip(fan_out=4, input_fan_out=5))}
    wide = net(affine(2, 5), lif(5), affine(5, 6), lif(6), outputs=6)
    (finding,) = [f for f in findings_of(wide, chip(fan_out=4, input_fan_out=5)) if f.code == "fan-out"]
    assert (finding.node, finding.value, finding.limit) == ("lif1", 6, 4)


def test_pooling_is_checked() -> None:
    pool = Pool("average", (3, 3), (3, 3), (0, 0), (1, 20, 20))
    nodes: list[tuple[str, Op]] = [("input", Input((1, 20, 20))), ("pool", pool), ("output", Output((1, 6, 6)))]
    (finding,) = [f for f in findings_of(chain(Level.IMPORTED, nodes), SPECK) if f.code == "convolution"]
    assert (finding.node, finding.value, finding.limit) == ("pool", 3, "1, 2, 4")


def test_memory_of_chip_layers_is_shared_out() -> None:
    # The first layer fits both, the second only the first: an assignment in order would fail.
    # In powers of two they take 32 weights and 2,048 neurons, 128 weights and 1,024 neurons.
    small, large = (32, 2048), (128, 1023)
    spec = convolving(kernel_memory=(large[0], small[0]), neuron_memory=(large[1], small[1]))
    shape = (2, 18, 18)
    first = convolution()
    neuron = continuous_if((4, 16, 16))
    conv = Conv(np.ones((4, 2, 3, 3)), None, input_size=shape[1:])
    nodes = {**first.nodes, "conv2": conv, "if2": neuron, "output": Output((4, 16, 16))}
    edges = (("input", "conv"), ("conv", "if"), ("if", "conv2"), ("conv2", "if2"), ("if2", "output"))
    graph = Graph(Level.IMPORTED, nodes, edges, dt=1e-3)
    assert "convolution-memory" in {f.code for f in findings_of(graph, spec)}
    roomy = convolving(kernel_memory=(large[0], small[0]), neuron_memory=(2048, small[1]))
    assert "convolution-memory" not in {f.code for f in findings_of(graph, roomy)}


def test_a_spec_without_convolution_has_no_such_findings() -> None:
    assert isinstance(SPECK.convolution, Convolution)
    assert not [f for f in findings_of(convolution(kernel=17), REFERENCE) if f.code.startswith("convolution")]
