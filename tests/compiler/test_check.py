"""One case per finding code, the verdict, and what the rules must agree on with the targets."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import policies
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nervecord.compiler.calibrate import calibrate
from nervecord.compiler.check.placement import place
from nervecord.compiler.check.table import RULES, errors, findings_doc, findings_of, not_checked, verdict
from nervecord.compiler.check.timing import Timing
from nervecord.compiler.check.topology import Topology
from nervecord.compiler.findings import Finding
from nervecord.compiler.graph import Graph, chain
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.ops import (
    Affine,
    ContinuousMembrane,
    Conv,
    Decode,
    Dense,
    Flatten,
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
    Scale,
    Spike,
    Threshold,
)
from nervecord.compiler.policy import Policy
from nervecord.compiler.schedule import Schedule
from nervecord.compiler.target import Convolution, Fact, TargetSpec
from nervecord.compiler.verify import verify
from nervecord.errors import InfeasibleError
from nervecord.targets.catalogue import load_spec, load_specs

REPOSITORY = Path(__file__).parents[2]
ARITHMETIC = graphs.LAVA
LAVA, LOIHI1, XYLO, SPECK = (load_spec(name) for name in ("lava", "loihi1", "xylo", "speck"))
REFERENCE = load_spec("reference")


def fact(value: Any, confidence: Any = "exact") -> Fact[Any]:
    return Fact(value, "a chip made up for this test", confidence)


def chip(**values: Any) -> TargetSpec:
    """A target that can do everything but what these facts say."""
    behaviour = {name: value for name, value in values.items() if hasattr(REFERENCE.behaviour, name)}
    limits = {name: value for name, value in values.items() if name not in behaviour}
    facts = {name: value if isinstance(value, Fact) else fact(value) for name, value in (behaviour | limits).items()}
    return dataclasses.replace(
        REFERENCE,
        name="chip",
        engines=(),
        behaviour=dataclasses.replace(REFERENCE.behaviour, **{name: facts[name] for name in behaviour}),
        limits=dataclasses.replace(REFERENCE.limits, **{name: facts[name] for name in limits}),
    )


def affine(inputs: int = 2, outputs: int = 2, *, bias: bool = False, delay: int = 0) -> Affine:
    weight = 0.5 + np.arange(inputs * outputs).reshape(outputs, inputs) / (inputs * outputs)
    return Affine(weight, np.ones(outputs) if bias else None, delay)


def lif(size: int = 2, *, origin: tuple[str, ...] = (), **changes: Any) -> Neuron:
    """Spiking neurons; `changes` are fields of the membrane or the spike."""
    one = np.ones(size)
    membrane: dict[str, Any] = {"decay": 0.5 * one, "gain": one, "leak": 0 * one}
    spike: dict[str, Any] = {"threshold": one, "reset_value": 0 * one}
    for name, value in changes.items():
        (membrane if name in membrane else spike)[name] = value
    return Neuron(Membrane(**membrane), None, Spike(**spike), origin=origin)


def current_lif(size: int = 2) -> Neuron:
    return policies.lif(size, 0.5, current=0.5)


def readout(size: int = 2) -> Neuron:
    return policies.li(size, 0.5)


def entry(size: int = 2) -> Input:
    return Input((size,), "values", 1.0)


def net(
    *core: Op | tuple[str, Op], inputs: int = 2, outputs: int = 2, level: Level = Level.DISCRETE, spiking: bool = False
) -> Graph:
    """Input of values or of spikes, these nodes, Output in a row."""
    named = [item if isinstance(item, tuple) else (f"{item.kind.lower()}{k}", item) for k, item in enumerate(core)]
    first = Input((inputs,), "spikes") if spiking else entry(inputs)
    return chain(level, [("input", first), *named, ("output", Output((outputs,)))], dt=1e-3)


def recurrent(delay: int = 1, **nodes: Op) -> Graph:
    """input -> fc -> lif -> output, and lif -> back -> lif."""
    named: dict[str, Op] = {
        "input": entry(),
        "fc": affine(),
        "lif": lif(),
        "back": affine(delay=delay),
        "output": Output((2,)),
    }
    edges = (("input", "fc"), ("fc", "lif"), ("lif", "output"), ("lif", "back"), ("back", "lif"))
    return Graph(Level.DISCRETE, {**named, **nodes}, edges, dt=1e-3)


def skip() -> Graph:
    """Two ways of different length into the last layer."""
    nodes: dict[str, Op] = {
        "input": entry(), "fc1": affine(), "lif1": lif(), "fc2": affine(), "around": affine(), "lif2": lif(),
        "output": Output((2,)),
    }  # fmt: skip
    edges = (
        ("input", "fc1"), ("fc1", "lif1"), ("lif1", "fc2"), ("fc2", "lif2"),
        ("input", "around"), ("around", "lif2"), ("lif2", "output"),
    )  # fmt: skip
    return Graph(Level.DISCRETE, nodes, edges, dt=1e-3)


def fixed(limit: int = 100, weight: int = 2, threshold: int = 1000) -> Graph:
    """An integer graph: Quantise -> Dense -> LIF."""
    neuron = Neuron(IntegerMembrane(4000, np.zeros(2)), None, IntegerSpike(threshold))
    dense = Dense(np.full((2, 2), weight))
    return net(Quantise(2, 1.0, limit), dense, neuron, level=Level.INTEGER).replace(arithmetic=ARITHMETIC)


def continuous_if(shape: tuple[int, ...]) -> Neuron:
    return Neuron(ContinuousMembrane(np.ones(shape)), None, Spike(np.ones(shape), np.zeros(shape)))


def convolution(features: int = 2, kernel: int = 3) -> Graph:
    node = Conv(np.ones((features, 1, kernel, kernel)), None, input_size=(20, 20))
    shape = node.out_shape
    nodes: list[tuple[str, Op]] = [
        ("input", Input((1, 20, 20))), ("conv", node), ("if", continuous_if(shape)), ("output", Output(shape)),
    ]  # fmt: skip
    return chain(Level.IMPORTED, nodes, dt=1e-3)


def with_contract(subject: Policy, **changes: Any) -> Policy:
    return subject.replace(contract=dataclasses.replace(subject.contract, **changes))


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
        "population-parameters": (net(affine(), lif(threshold=np.array([1.0, 2.0]))), LAVA),
        "bias": (net(affine(bias=True), lif()), chip(bias=False)),
        "bias-channel": (net(affine(bias=True), current_lif()), LAVA),
        "graded-input": (policy, chip(graded_input=False)),
        "undeclared-input": (undeclared, LAVA),
        "unlimited-input": (unlimited, LAVA),
        "free-wiring": (net(affine(), affine(), lif()), LAVA),
        "analogue-layer": (net(affine(), readout(), affine(), lif()), LAVA),
        "spiking-readout": (spiking_end, LAVA),
        "membrane-readout": (net(affine(), readout()), chip(readout=False)),
        "recurrence": (recurrent(), chip(recurrence=False)),
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
        "fan-in": (net(affine(5), lif(), inputs=5), chip(fan_in=4)),
        "fan-out": (net(affine(2, 5), lif(5), outputs=5), chip(fan_out=4)),
        "core-limit": (net(affine(5000, 1), lif(1), inputs=5000, outputs=1, spiking=True), LOIHI1),
        "cores": (net(affine(2, 9), lif(9), outputs=9), chip(neurons_per_core=4, cores=2)),
        "layer-split": (net(affine(2, 9), lif(9), outputs=9), chip(neurons_per_core=4)),
        "memory-unknown": (convolution(), LOIHI1),
        "configurations": (
            net(affine(2, 20), lif(20, threshold=1.0 + np.arange(20)), outputs=20, spiking=True), LOIHI1,
        ),
        "capacity-unknown": (net(*two), chip(neurons=Fact(), hidden=Fact(), cores=Fact())),
        "weight-resolution": (net(Affine(np.array([[1.0, 0.001], [0.001, 0.002]])), lif()), LAVA),
        "decay-resolution": (net(affine(), lif(decay=np.full(2, 0.9999))), LAVA),
        "threshold-range": (net(affine(), lif(threshold=-np.ones(2))), LAVA),
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
            convolution(features=100), convolving(kernel_memory=(800, 850), neuron_memory=(9000, 99999)),
        ),
        "second-hand-limits": (net(affine(), lif()), LAVA),
    }  # fmt: skip


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
    "no-contract", "second-hand-limits", "latency", "bias-channel", "layer-split", "graded-input", "recurrence",
    "unbalanced-paths",
)  # fmt: skip
"""Codes that may come along with another one, as infos."""


ALONG = {
    "accumulator-overflow": ("current-overflow", "membrane-saturates"),
    "current-overflow": ("membrane-saturates",),
}
"""What is too much for the accumulator is so for what takes it up."""


def as_text(findings: list[Finding]) -> str:
    blocks = []
    for finding in findings:
        lines = [f"{name}: {value}" for name, value in finding.to_dict().items() if value not in (None, "")]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


@pytest.mark.parametrize("code", [rule.code for rule in RULES])
def test_golden(code: str, cases: dict[str, Case], golden: Callable[[str, str], None]) -> None:
    graph, spec = cases[code]
    found = findings_of(graph, spec)
    own = [finding for finding in found if finding.code == code]
    others = [f for f in found if f.code not in (code, *ALONG.get(code, ())) and not (
        f.code in ASIDE and f.severity == "info"
    )]  # fmt: skip
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


def test_findings_doc_is_current(request: pytest.FixtureRequest) -> None:
    path = REPOSITORY / "docs" / "findings.md"
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(findings_doc(), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == findings_doc()


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
        "reference": "feasible", "lava": "feasible", "loihi1": "infeasible", "speck": "infeasible",
        "spinnaker2": "unknown", "xylo": "infeasible",
    }  # fmt: skip


@pytest.mark.parametrize("state", ["reset", "carried"])
def test_spikes_in_and_out_make_an_ant_policy_feasible_on_loihi1(state: str) -> None:
    """Loihi 1 takes binary spikes: a population code gets in what a current does not, and the finding says so."""
    current = policies.random_policy(sizes=(27, 64, 8), state=state)
    (found,) = errors(current, LOIHI1)
    assert found.code == "graded-input"
    assert "--encoder population" in found.fix
    for output_population in (0, 10):  # a probed membrane, or spikes that are counted
        coded = policies.random_policy(
            sizes=(27, 64, 8), state=state, population=10, output_population=output_population
        )
        assert verdict(findings_of(coded, LOIHI1)) == "feasible"
        assert place(coded.graph, LOIHI1).inputs == 270


def test_spike_counts_need_no_membrane() -> None:
    blind = chip(readout=False)
    (found,) = [f for f in findings_of(policies.random_policy(sizes=(5, 9, 2)), blind) if f.code == "membrane-readout"]
    assert "--decoder count" in found.fix
    counted = policies.random_policy(sizes=(5, 9, 2), output_population=4)
    assert {finding.severity for finding in findings_of(counted, blind)} <= {"info"}


def test_ant_policy_exceeds_the_inputs_of_xylo(make_policy: Any) -> None:
    (found,) = [f for f in findings_of(make_policy((27, 24, 8)), XYLO) if f.code == "inputs"]
    assert (found.value, found.limit, found.severity) == (27, 16, "error")


SOUP: list[Callable[[np.random.Generator], Op]] = [
    lambda draw: Affine(draw.normal(size=(4, 4)), draw.normal(size=4), int(draw.integers(3))),
    lambda draw: lif(4, reset=draw.choice(["value", "subtract", "none"]).item(), decay=draw.random(4)),
    lambda draw: lif(4, leak=draw.normal(size=4), threshold=draw.normal(size=4), reset_value=draw.normal(size=4)),
    lambda draw: current_lif(4),
    lambda draw: readout(4),
    lambda draw: Scale(draw.normal(size=4)),
    lambda draw: Flatten((4,), 0, 0),
    lambda draw: Threshold(draw.normal(size=4)),
]  # fmt: skip


@settings(max_examples=60, deadline=None)
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
    (found,) = [f for f in findings_of(graph, LAVA) if f.code == "reset-rule"]
    assert found.node == "actor.lif"


def test_thresholds_that_differ_by_rounding_only_are_one() -> None:
    graph = net(affine(), lif(threshold=np.array([1.0, 1.0 + 1e-12]), decay=np.array([0.5, 0.5001])))
    assert "population-parameters" not in {f.code for f in findings_of(graph, LAVA)}


def test_equally_long_paths_are_balanced() -> None:
    graph = skip()
    nodes = {name: op.replace(delay=1) if isinstance(op, Affine) else op for name, op in graph.nodes.items()}
    assert [f.node for f in findings_of(graph, chip(connection_delay=1)) if f.code == "unbalanced-paths"] == ["around"]
    assert not [f for f in findings_of(graph.replace(nodes=nodes), chip(connection_delay=1))
                if f.code == "unbalanced-paths"]  # fmt: skip


def test_pooling_is_checked() -> None:
    pool = Pool("average", (3, 3), (3, 3), (0, 0), (1, 20, 20))
    nodes: list[tuple[str, Op]] = [("input", Input((1, 20, 20))), ("pool", pool), ("output", Output((1, 6, 6)))]
    (found,) = [f for f in findings_of(chain(Level.IMPORTED, nodes), SPECK) if f.code == "convolution"]
    assert (found.node, found.value, found.limit) == ("pool", 3, "1, 2, 4")


def test_memory_of_chip_layers_is_shared_out() -> None:
    # The first layer fits both, the second only the first: an assignment in order would fail.
    small, large = (18, 700), (200, 700)
    spec = convolving(kernel_memory=(large[0], small[0]), neuron_memory=(large[1], small[1]))
    shape = (2, 18, 18)
    first = convolution()
    neuron = continuous_if((4, 16, 16))
    conv = Conv(np.ones((4, 2, 3, 3)), None, input_size=shape[1:])
    nodes = {**first.nodes, "conv2": conv, "if2": neuron, "output": Output((4, 16, 16))}
    edges = (("input", "conv"), ("conv", "if"), ("if", "conv2"), ("conv2", "if2"), ("if2", "output"))
    graph = Graph(Level.IMPORTED, nodes, edges, dt=1e-3)
    assert "convolution-memory" in {f.code for f in findings_of(graph, spec)}
    roomy = convolving(kernel_memory=(large[0], small[0]), neuron_memory=(2000, 700))
    assert "convolution-memory" not in {f.code for f in findings_of(graph, roomy)}


def test_a_spec_without_convolution_has_no_such_findings() -> None:
    assert isinstance(SPECK.convolution, Convolution)
    assert not [f for f in findings_of(convolution(kernel=17), REFERENCE) if f.code.startswith("convolution")]


# --------------------------------------------------------------------------------------------------------------------
# What enters, loops and delays, on a target that computes in integers


def codes(subject: Graph | Policy, spec: TargetSpec = LAVA, **given: Any) -> dict[str, str]:
    return {finding.code: finding.severity for finding in findings_of(subject, spec, **given)}


def test_what_enters_is_declared_where_it_must_be() -> None:
    graph = net(affine(), lif())
    unknown = graph.replace(nodes={**graph.nodes, "input": Input((2,))})
    assert verdict(findings_of(graph, LAVA)) == "feasible"
    assert codes(unknown)["undeclared-input"] == "error"
    # In continuous time there is still time to declare it: nothing is known against the graph.
    neuron = Neuron(ContinuousMembrane(np.ones(2), np.ones(2)), None, Spike(np.ones(2), np.zeros(2)))
    imported = chain(Level.IMPORTED, [("input", Input((2,))), ("fc", affine()), ("lif", neuron),
                                      ("output", Output((2,)))], dt=1e-3)  # fmt: skip
    assert codes(imported)["undeclared-input"] == "unknown"
    assert verdict(findings_of(imported, LAVA)) == "unknown"
    # Floats need no limits.
    assert verdict(findings_of(unknown, REFERENCE)) == "feasible"
    spiking = graph.replace(nodes={**graph.nodes, "input": Input((2,), "spikes")})
    assert verdict(findings_of(spiking, LAVA)) == verdict(findings_of(spiking, LOIHI1)) == "feasible"
    assert codes(graph, LOIHI1)["graded-input"] == "error"


def test_a_loop_must_pay_for_all_its_connections() -> None:
    nodes = {"there": affine(), "second": lif(), "back": affine(delay=1)}
    graph = recurrent(**nodes)
    edges = (*graph.edges[:3], ("lif", "there"), ("there", "second"), ("second", "back"), ("back", "lif"))
    long = graph.replace(edges=edges)
    (found,) = errors(long, LAVA)
    assert (found.code, found.value, found.limit) == ("loop-delay", 1, 2)
    assert "back" in found.message
    assert "there" in found.message
    for delays in ((1, 1), (2, 0), (0, 2), (5, 5)):
        paid = {**long.nodes, "there": affine(delay=delays[0]), "back": affine(delay=delays[1])}
        assert errors(long.replace(nodes=paid), LAVA) == []
    assert codes(recurrent(delay=1))["recurrence"] == "info"


def test_loops_and_delays_are_refused_where_state_is_cleared() -> None:
    window = Schedule(5, "reset")
    assert codes(recurrent(), schedule=window)["reset-with-delays"] == "error"
    assert codes(net(affine(delay=1), lif()), schedule=window)["reset-with-delays"] == "error"
    assert codes(skip(), schedule=window) == codes(skip())
    assert verdict(findings_of(skip(), LAVA, window)) == "feasible"


def test_the_shorter_path_waits_and_says_how_long(make_policy: Callable[..., Policy]) -> None:
    (found,) = [finding for finding in findings_of(skip(), LAVA) if finding.code == "unbalanced-paths"]
    assert (found.severity, found.node, found.value) == ("info", "around", 1)
    policy = make_policy((3, 4, 5, 2))
    edges = (*policy.graph.edges, ("normalise", "around"), ("around", "readout"))
    branched = policy.replace(graph=policy.graph.replace(
        nodes={**policy.graph.nodes, "around": affine(3, 2)}, edges=edges
    ))  # fmt: skip
    assert verify(branched) == []
    found, late = [f for f in findings_of(branched, LAVA) if f.code in ("unbalanced-paths", "latency")]
    assert (found.node, found.value) == ("around", 2)
    assert late.value == 5 + 3


def test_spikes_are_relayed_and_values_are_not() -> None:
    relayed = net(affine(), lif(), affine(delay=200), lif())
    (found,) = [finding for finding in findings_of(relayed, LAVA) if finding.code == "delay-range"]
    assert (found.severity, found.node, found.value, found.limit) == ("info", "affine2", 199, 63)
    # The first layer is one step late, which this delay takes back; three populations cut the rest into four.
    assert "3 further populations" in found.message
    assert verdict(findings_of(relayed, LAVA)) == "feasible"
    assert codes(net(affine(delay=64), lif()))["delay-range"] == "error"
    assert "delay-range" not in codes(net(affine(delay=63), lif()))
    assert codes(net(affine(delay=64), lif(), spiking=True))["delay-range"] == "info"
    # A chip that only subtracts has no neuron that forgets.
    subtracting = dataclasses.replace(LAVA, behaviour=dataclasses.replace(LAVA.behaviour, resets=fact(("subtract",))))
    assert codes(relayed, subtracting)["delay-range"] == "error"


def test_a_bias_into_a_current_needs_something_that_can_carry_it() -> None:
    """Spikes that come from outside cannot: nobody knows when they are on."""
    values = net(affine(bias=True), current_lif())
    assert codes(values)["bias-channel"] == "info"
    assert codes(net(affine(bias=True), current_lif(), spiking=True))["bias-channel"] == "error"
    deeper = net(affine(), lif(), affine(bias=True), current_lif(), spiking=True)
    assert codes(deeper)["bias-channel"] == "info"
    # A population that is read has no neuron to spare: its spikes are the output.
    read = deeper.replace(nodes={**deeper.nodes, "output2": Output((2,))}, edges=(*deeper.edges, ("lif1", "output2")))
    assert codes(read)["bias-channel"] == "error"


def test_spikes_and_membranes_are_not_added_at_an_end() -> None:
    graph = net(affine(), lif(), affine(), readout())
    both = graph.replace(edges=(*graph.edges, ("lif1", "output")))
    assert codes(both)["spiking-readout"] == "error"
    assert "spiking-readout" not in codes(graph)
    assert "spiking-readout" not in codes(both, REFERENCE)
    decoded = net(affine(), lif(), Decode(*np.ones((4, 2))))
    assert codes(decoded)["spiking-readout"] == "error"


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 5), cost=st.integers(0, 3))
def test_timing_equals_brute_force(seed: int, count: int, cost: int) -> None:
    """Longest paths and loops that are too short, by trying all walks."""
    draw = np.random.default_rng(seed)
    nodes: dict[str, Op] = {"input": entry(1), "output": Output((1,))}
    edges: dict[tuple[str, str], None] = {}
    late = np.full((count + 1, count + 1), -np.inf)  # by how much b is later than a; the last one is the input
    for k in range(count):
        nodes[f"lif{k}"] = lif(1)
    for k in range(2 * count):
        a, b, delay = draw.integers(count + 1), draw.integers(count), int(draw.integers(4))
        nodes[f"fc{k}"] = affine(1, 1, delay=delay)
        edges |= {("input" if a == count else f"lif{a}", f"fc{k}"): None, (f"fc{k}", f"lif{b}"): None}
        late[a, b] = max(late[a, b], cost - delay)
    names = [str(name) for name in draw.permutation(list(nodes))]
    graph = Graph(Level.DISCRETE, {name: nodes[name] for name in names}, tuple(edges), dt=1e-3)
    timing = Timing.of(graph, Topology.of(graph), cost)
    longest = np.maximum(late, np.where(np.eye(count + 1, dtype=bool), 0, -np.inf))
    for _ in range(count + 2):  # walks of up to 2^k edges
        longest = np.maximum(longest, (longest[:, :, None] + longest[None]).max(axis=1))
    if (np.diag(longest) > 0).any():
        assert timing.loops
        assert all(loop.delay < loop.least == cost * len(loop.wires) for loop in timing.loops)
    else:
        assert timing.loops == ()
        # Nothing works earlier than the graph says, so every population is a start.
        assert [timing.late[f"lif{k}"] for k in range(count)] == longest.max(axis=0)[:count].tolist()


def large(kind: str) -> Graph:
    """10,000 nodes; a ring, a chain, or 90,000 edges at random."""
    draw = np.random.default_rng(0)
    count = 5000
    nodes: dict[str, Op] = {"input": entry(1)}
    nodes |= {f"lif{k}": lif(1) for k in range(count)}
    nodes |= {f"fc{k}": affine(1, 1, delay=2 if kind == "ring" and k % 2 else int(kind == "random"))
              for k in range(count)}  # fmt: skip
    edges = {("input", "fc0"): None, ("lif4999", "output"): None}
    nodes["output"] = Output((1,))
    if kind == "random":
        for a, b, forth in zip(*draw.integers(count, size=(2, 90_000)), draw.random(90_000) < 0.5, strict=True):
            edges[(f"lif{a}", f"fc{b}") if forth else (f"fc{a}", f"lif{b}")] = None
    else:
        for k in range(count):
            edges |= {(f"fc{k}", f"lif{k}"): None, (f"lif{k}", f"fc{k + 1}"): None}
        del edges["lif4999", "fc5000"]
        if kind == "ring":
            edges["lif4999", "fc0"] = None
    return Graph(Level.DISCRETE, nodes, tuple(edges), dt=1e-3)


@pytest.mark.parametrize("kind", ["chain", "ring", "random"])
def test_large_graphs_take_seconds(kind: str) -> None:
    """Measured: 0.5 to 2 s of one core. What grows with the square of the size takes minutes."""
    graph = large(kind)
    start = time.process_time()
    found = findings_of(graph, LAVA)
    assert time.process_time() - start < 20
    assert "loop-delay" not in {finding.code for finding in found}
    assert kind == "random" or Topology.of(graph).depth == (5000 if kind == "chain" else 0)


# --------------------------------------------------------------------------------------------------------------------
# What leaves, and what can be proved


def two_readouts(**nodes: Op) -> Graph:
    """input -> fc1 -> lif1 -> fc2 -> deep -> output."""
    named: dict[str, Op] = {
        "input": entry(), "fc1": affine(), "lif1": lif(), "fc2": affine(), "deep": lif(), "output": Output((2,)),
    }  # fmt: skip
    named |= nodes
    edges = (("input", "fc1"), ("fc1", "lif1"), ("lif1", "fc2"), ("fc2", "deep"), ("deep", "output"))
    return Graph(Level.DISCRETE, named, edges, dt=1e-3)


def test_readouts_that_are_added_wait_for_each_other() -> None:
    graph = two_readouts(deep=readout())
    shallow = graph.replace(
        nodes={**graph.nodes, "around": affine(), "shallow": readout()},
        edges=(*graph.edges, ("input", "around"), ("around", "shallow"), ("shallow", "output")),
    )
    (found,) = [finding for finding in findings_of(shallow, LAVA) if finding.code == "unbalanced-paths"]
    assert (found.node, found.value) == ("around", 1)
    assert verdict(findings_of(shallow, LAVA)) == "feasible"
    # In a window each is read in its own step.
    assert "unbalanced-paths" not in codes(shallow, schedule=Schedule(4, "reset"))
    # One that leads to the other cannot wait for it.
    inner = two_readouts()
    inner = inner.replace(edges=(*inner.edges, ("lif1", "output")))
    assert codes(inner)["ends-apart"] == "error"
    assert "ends-apart" not in codes(inner, schedule=Schedule(4, "reset"))
    apart = inner.replace(
        nodes={**inner.nodes, "output2": Output((2,))}, edges=(*inner.edges[:-1], ("lif1", "output2"))
    )
    assert verdict(findings_of(apart, LAVA)) == "feasible"


def test_a_layer_without_scales_is_found_by_inspecting() -> None:
    """Weights beside a threshold that is a million times smaller: no unit holds both."""
    far = net(affine(), lif(threshold=np.full(2, 1e-9)))
    (found,) = [finding for finding in findings_of(far, LAVA) if finding.severity == "error"]
    assert found.code == "no-scale"
    assert "no weight exponent" in found.message
    with pytest.raises(InfeasibleError, match="no weight exponent"):
        lower(far, ARITHMETIC, None)
    assert "no-scale" not in codes(net(affine(), lif()))
    # Where another rule refuses it, nothing is tried.
    assert "no-scale" not in codes(net(affine(), lif(threshold=np.full(2, 1e-9), reset="none")))


def test_values_that_no_message_carries_are_found_by_inspecting() -> None:
    graph = net(affine(), lif())
    wide = graph.replace(nodes={**graph.nodes, "input": Input((2,), "values", 20_000.0)})
    (found,) = [finding for finding in findings_of(wide, LAVA) if finding.severity == "error"]
    assert (found.code, found.value, found.limit) == ("graded-range", 20_000, 16383.5)
    with pytest.raises(InfeasibleError, match="too large"):
        lower(wide, ARITHMETIC, None)


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_what_no_rule_refuses_is_lowered(seed: int, carried: bool) -> None:
    policy = policies.random_dag(seed, carried=carried, recurrent=carried)
    assert errors(policy, LAVA) == []
    assert verdict(findings_of(policy, LAVA)) == "feasible"
    lowered, _ = lower(policy, ARITHMETIC, calibrate(policy))
    assert {finding.severity for finding in findings_of(lowered, LAVA)} <= {"info", "warning"}
