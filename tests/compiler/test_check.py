"""One case per finding code, the verdict, and what the rules must agree on with the targets."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import policies
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nervecord.compiler import nodes as n
from nervecord.compiler.check import RULES, check, findings_doc, not_checked, verdict
from nervecord.compiler.findings import Finding
from nervecord.compiler.graph import Graph, Level, chain
from nervecord.compiler.node import Node
from nervecord.compiler.place import place
from nervecord.compiler.target import Convolution, Fact, TargetSpec
from nervecord.targets.catalogue import load_spec, load_specs

REPOSITORY = Path(__file__).parents[2]
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


def affine(inputs: int = 2, outputs: int = 2, *, bias: bool = False, delay: int = 0) -> n.Affine:
    weight = 0.5 + np.arange(inputs * outputs).reshape(outputs, inputs) / (inputs * outputs)
    return n.Affine(weight, np.ones(outputs) if bias else None, delay)


def lif(size: int = 2, **changes: Any) -> n.DiscreteLIF:
    one = np.ones(size)
    values: dict[str, Any] = {
        "decay": 0.5 * one, "gain": one, "leak": 0 * one, "threshold": one, "reset_value": 0 * one, **changes,
    }  # fmt: skip
    return n.DiscreteLIF(**values)


def current_lif(size: int = 2) -> n.DiscreteCubaLIF:
    one = np.ones(size)
    return n.DiscreteCubaLIF(0.5 * one, one, 0.5 * one, one, 0 * one, one, 0 * one)


def readout(size: int = 2) -> n.DiscreteLI:
    return n.DiscreteLI(np.full(size, 0.5), np.ones(size), np.zeros(size))


def net(*core: Node | tuple[str, Node], inputs: int = 2, outputs: int = 2, level: Level = Level.DISCRETE) -> Graph:
    """Input, these nodes, Output in a row."""
    named = [item if isinstance(item, tuple) else (f"{item.kind.lower()}{k}", item) for k, item in enumerate(core)]
    nodes = [("input", n.Input((inputs,))), *named, ("output", n.Output((outputs,)))]
    return chain(level, nodes, dt=1e-3)


def recurrent(delay: int = 1, **nodes: Node) -> Graph:
    """input -> fc -> lif -> output, and lif -> back -> lif."""
    named = {
        "input": n.Input((2,)),
        "fc": affine(),
        "lif": lif(),
        "back": affine(delay=delay),
        "output": n.Output((2,)),
    }
    edges = (("input", "fc"), ("fc", "lif"), ("lif", "output"), ("lif", "back"), ("back", "lif"))
    return Graph(Level.DISCRETE, {**named, **nodes}, edges, dt=1e-3)


def skip() -> Graph:
    """Two ways of different length into the last layer."""
    nodes = {
        "input": n.Input((2,)), "fc1": affine(), "lif1": lif(), "fc2": affine(), "around": affine(), "lif2": lif(),
        "output": n.Output((2,)),
    }  # fmt: skip
    edges = (
        ("input", "fc1"), ("fc1", "lif1"), ("lif1", "fc2"), ("fc2", "lif2"),
        ("input", "around"), ("around", "lif2"), ("lif2", "output"),
    )  # fmt: skip
    return Graph(Level.DISCRETE, nodes, edges, dt=1e-3)


def fixed(limit: int = 100, weight: int = 2) -> Graph:
    """An integer graph: Quantise -> FixedDense -> FixedLIF."""
    neuron = n.FixedLIF(4095, 100, np.zeros(2), 0, 1000)
    dense = n.FixedDense(np.full((2, 2), weight), 0, 8, True)
    return net(n.Quantise(2, 1.0, limit), dense, neuron, level=Level.INTEGER)


def convolution(features: int = 2, kernel: int = 3) -> Graph:
    node = n.Conv2d(np.ones((features, 1, kernel, kernel)), None, (1, 1), (0, 0), (1, 1), 1, (20, 20))
    shape = node.out_shape
    neuron = n.ContinuousIF(np.ones(shape), np.ones(shape), np.zeros(shape))
    nodes = [("input", n.Input((1, 20, 20))), ("conv", node), ("if", neuron), ("output", n.Output(shape))]
    return chain(Level.IMPORTED, nodes, dt=1e-3)


def with_contract(graph: Graph, contract: Any, **changes: Any) -> Graph:
    return graph.replace(contract=dataclasses.replace(contract, **changes))


def convolving(**values: Any) -> TargetSpec:
    """A chip that convolves, with these limits of Speck changed."""
    assert SPECK.convolution is not None
    facts = {name: fact(value) for name, value in values.items()}
    return dataclasses.replace(SPECK, convolution=dataclasses.replace(SPECK.convolution, **facts))


Case = tuple[Graph, TargetSpec]


@pytest.fixture(scope="session")
def cases(make_policy: Callable[..., Graph]) -> dict[str, Case]:
    """code -> the smallest graph and target that give it."""
    policy = make_policy((3, 4, 2))
    carried = make_policy((3, 4, 2), state="carried")
    assert policy.contract is not None
    spiking_end = policy.replace(nodes={**policy.nodes, "readout": lif()})
    undelayed = policy.replace(contract=dataclasses.replace(policy.contract, state="carried"))
    delayed = carried.replace(contract=dataclasses.replace(policy.contract, state="reset"))
    continuous = chain(
        Level.IMPORTED,
        [
            ("input", n.Input((2,))),
            ("fc", affine()),
            ("lif", n.ContinuousLIF(np.ones(2), np.ones(2), np.zeros(2), np.ones(2), np.zeros(2))),
            ("output", n.Output((2,))),
        ],
    )
    two = (affine(), lif(), affine(), lif())
    return {
        "unsupported-node": (net(affine(), n.Threshold(np.ones(2))), LAVA),
        "reset-rule": (net(affine(), lif(reset="subtract")), LAVA),
        "reset-value": (net(affine(), lif(reset_value=np.array([0.0, 0.25]))), LAVA),
        "leak": (net(affine(), lif(leak=np.array([0.1, 0.1]))), XYLO_FOR_ZERO_RESET),
        "no-decay": (net(affine(), lif()), SPECK),
        "population-parameters": (net(affine(), lif(threshold=np.array([1.0, 2.0]))), LAVA),
        "bias": (net(affine(bias=True), lif()), chip(bias=False)),
        "bias-channel": (net(affine(bias=True), current_lif()), LAVA),
        "graded-input": (policy, chip(graded_input=False)),
        "free-wiring": (net(affine(), affine(), lif()), LAVA),
        "analogue-layer": (net(affine(), readout(), affine(), lif()), LAVA),
        "spiking-readout": (spiking_end, LAVA),
        "membrane-readout": (net(affine(), readout()), chip(readout=False)),
        "recurrence": (recurrent(), LAVA),
        "not-a-chain": (skip(), chip(topology="chain")),
        "delay-range": (net(affine(delay=3), lif()), LAVA),
        "carried-without-delays": (undelayed, LAVA),
        "reset-with-delays": (delayed, LAVA),
        "loop-delay": (recurrent(delay=1), chip(connection_delay=2)),
        "unbalanced-paths": (skip(), chip(connection_delay=1)),
        "latency": (policy, LAVA),
        "time-step": (continuous, LAVA),
        "no-contract": (net(affine(), lif()), LAVA),
        "inputs": (net(affine(27), lif(), inputs=27), XYLO_FOR_ZERO_RESET),
        "outputs": (net(affine(2, 9), lif(9), outputs=9), XYLO_FOR_ZERO_RESET),
        "neurons": (net(*two), chip(neurons=3)),
        "hidden-neurons": (net(*two), chip(hidden=1)),
        "synapses": (net(*two), chip(synapses=7)),
        "layers": (net(*two), chip(layers=1)),
        "fan-in": (net(affine(5), lif(), inputs=5), chip(fan_in=4)),
        "fan-out": (net(affine(2, 5), lif(5), outputs=5), chip(fan_out=4)),
        "core-limit": (net(affine(5000, 1), lif(1), inputs=5000, outputs=1), LOIHI1),
        "cores": (net(affine(2, 9), lif(9), outputs=9), chip(neurons_per_core=4, cores=2)),
        "layer-split": (net(affine(2, 9), lif(9), outputs=9), chip(neurons_per_core=4)),
        "memory-unknown": (convolution(), LOIHI1),
        "configurations": (net(affine(2, 20), lif(20, threshold=1.0 + np.arange(20)), outputs=20), LOIHI1),
        "capacity-unknown": (net(*two), chip(neurons=Fact(), hidden=Fact(), cores=Fact())),
        "weight-resolution": (net(n.Affine(np.array([[1.0, 0.001], [0.001, 0.002]])), lif()), LAVA),
        "decay-resolution": (net(affine(), lif(decay=np.full(2, 0.9999))), LAVA),
        "threshold-range": (net(affine(), lif(threshold=-np.ones(2))), LAVA),
        "weight-range": (fixed(weight=200), chip(weight_max=127)),
        "graded-range": (fixed(limit=40_000), chip(message_bits=16)),
        "convolution": (convolution(kernel=17), convolving(kernel_max=16)),
        "convolution-memory": (
            convolution(features=100), convolving(kernel_memory=(800, 850), neuron_memory=(9000, 99999)),
        ),
        "second-hand-limits": (net(affine(), lif()), LAVA),
    }  # fmt: skip


XYLO_FOR_ZERO_RESET = dataclasses.replace(
    XYLO, behaviour=dataclasses.replace(XYLO.behaviour, resets=fact(("value", "subtract")))
)
"""Xylo, but for its reset, so that a case can be about something else."""

ASIDE = ("no-contract", "second-hand-limits", "latency", "bias-channel", "layer-split", "graded-input", "recurrence")
"""Codes that may come along with another one, as infos."""


def as_text(findings: list[Finding]) -> str:
    blocks = []
    for finding in findings:
        lines = [f"{name}: {value}" for name, value in finding.to_dict().items() if value not in (None, "")]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


@pytest.mark.parametrize("code", [rule.code for rule in RULES])
def test_golden(code: str, cases: dict[str, Case], golden: Callable[[str, str], None]) -> None:
    graph, spec = cases[code]
    found = check(graph, spec)
    own = [finding for finding in found if finding.code == code]
    others = [f for f in found if f.code != code and not (f.code in ASIDE and f.severity == "info")]
    assert own
    assert not others
    golden(f"findings/{code}.txt", as_text(own))


def test_codes_are_stable_words() -> None:
    codes = [rule.code for rule in RULES]
    assert len(set(codes)) == len(codes)
    assert all(code == code.lower() and code.replace("-", "").isalpha() for code in codes)


def test_every_error_and_unknown_names_limit_source_and_fix(cases: dict[str, Case]) -> None:
    for graph, spec in cases.values():
        for finding in check(graph, spec):
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
    assert verdict(check(graph, chip(neurons=fact(1, "second-hand")))) == "unknown"
    assert verdict(check(graph, chip(neurons=fact(1, "conflicting")))) == "unknown"
    assert verdict(check(graph, chip(neurons=fact(1)))) == "infeasible"
    assert verdict(check(graph, chip(neurons=fact(2, "second-hand")))) == "feasible"


def test_a_limit_nobody_published_is_never_ok() -> None:
    spec = chip(fan_in=Fact())
    assert any("fan in" in item for item in not_checked(spec))
    assert verdict(check(net(affine(), lif()), spec)) == "feasible"


@pytest.mark.parametrize("name", ["resets", "nonzero_reset", "leak", "bias", "graded_input", "recurrence"])
def test_an_unknown_capability_that_is_needed_makes_the_verdict_unknown(name: str, make_policy: Any) -> None:
    contract = make_policy((2, 2)).contract
    core = {"lif": lif(leak=np.ones(2), reset_value=np.ones(2)), "fc": affine(bias=True)}
    graph = with_contract(recurrent(**core), contract, state="carried")
    assert verdict(check(graph, chip())) == "feasible"
    assert verdict(check(graph, chip(**{name: Fact()}))) == "unknown"


def test_override_turns_unknown_into_a_decision() -> None:
    graph = net(affine(2, 20_000), lif(20_000), outputs=20_000)
    wide = LAVA.override(neurons_per_core=100)
    codes = {f.code: f.severity for f in check(graph, wide)}
    assert codes["cores"] == "unknown"
    codes = {f.code: f.severity for f in check(graph, wide.override(cores=128))}
    assert codes["cores"] == "error"


# --------------------------------------------------------------------------------------------------------------------
# Targets


@pytest.mark.parametrize("synaptic", [False, True])
@pytest.mark.parametrize("state", ["reset", "carried"])
def test_ant_policy(make_policy: Any, synaptic: bool, state: str) -> None:
    graph = make_policy((27, 24, 8), synaptic=synaptic, state=state)
    verdicts = {spec.name: verdict(check(graph, spec)) for spec in load_specs()}
    assert verdicts == {
        "reference": "feasible", "lava": "feasible", "loihi1": "infeasible", "speck": "infeasible",
        "spinnaker2": "unknown", "xylo": "infeasible",
    }  # fmt: skip


@pytest.mark.parametrize("state", ["reset", "carried"])
def test_spikes_in_and_out_make_an_ant_policy_feasible_on_loihi1(state: str) -> None:
    """Loihi 1 takes binary spikes: a population code gets in what a current does not, and the finding says so."""
    current = policies.random_policy(sizes=(27, 64, 8), state=state)
    (found,) = [finding for finding in check(current, LOIHI1) if finding.severity == "error"]
    assert found.code == "graded-input"
    assert "--encoder population" in found.fix
    for output_population in (0, 10):  # a probed membrane, or spikes that are counted
        coded = policies.random_policy(
            sizes=(27, 64, 8), state=state, population=10, output_population=output_population
        )
        assert verdict(check(coded, LOIHI1)) == "feasible"
        assert place(coded, LOIHI1).inputs == 270


def test_spike_counts_need_no_membrane() -> None:
    blind = chip(readout=False)
    (found,) = [f for f in check(policies.random_policy(sizes=(5, 9, 2)), blind) if f.code == "membrane-readout"]
    assert "--decoder count" in found.fix
    counted = policies.random_policy(sizes=(5, 9, 2), output_population=4)
    assert {finding.severity for finding in check(counted, blind)} <= {"info"}


def test_ant_policy_exceeds_the_inputs_of_xylo(make_policy: Any) -> None:
    (found,) = [f for f in check(make_policy((27, 24, 8)), XYLO) if f.code == "inputs"]
    assert (found.value, found.limit, found.severity) == (27, 16, "error")


SOUP: list[Callable[[np.random.Generator], Node]] = [
    lambda draw: n.Affine(draw.normal(size=(4, 4)), draw.normal(size=4), int(draw.integers(3))),
    lambda draw: lif(4, reset=draw.choice(["value", "subtract", "none"]).item(), decay=draw.random(4)),
    lambda draw: lif(4, leak=draw.normal(size=4), threshold=draw.normal(size=4), reset_value=draw.normal(size=4)),
    lambda draw: current_lif(4),
    lambda draw: readout(4),
    lambda draw: n.Scale(draw.normal(size=4)),
    lambda draw: n.Flatten((4,), 0, 0),
    lambda draw: n.Threshold(draw.normal(size=4)),
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 9))
def test_no_graph_makes_a_rule_fail(seed: int, count: int) -> None:
    """Cycles, islands, several ends, anything fed by anything: findings, never an exception."""
    draw = np.random.default_rng(seed)
    nodes: dict[str, Node] = {"input": n.Input((4,)), "output": n.Output((4,))}
    nodes |= {f"n{k}": SOUP[draw.integers(len(SOUP))](draw) for k in range(count)}
    names = list(nodes)
    pairs = {(names[draw.integers(len(names))], names[draw.integers(len(names))]): None for _ in range(2 * count)}
    graph = Graph(Level.DISCRETE, nodes, tuple(pairs), dt=1e-3)
    for spec in load_specs():
        findings = check(graph, spec)
        assert findings == check(graph, spec)
        json.dumps([finding.to_dict() for finding in findings], allow_nan=False)


def test_findings_speak_in_the_makers_names() -> None:
    graph = net(("a", affine()), ("b", lif(reset="none", origin=("actor.lif",))))
    (found,) = [f for f in check(graph, LAVA) if f.code == "reset-rule"]
    assert found.node == "actor.lif"


def test_thresholds_that_differ_by_rounding_only_are_one() -> None:
    graph = net(affine(), lif(threshold=np.array([1.0, 1.0 + 1e-12]), decay=np.array([0.5, 0.5001])))
    assert "population-parameters" not in {f.code for f in check(graph, LAVA)}


def test_equally_long_paths_are_balanced() -> None:
    graph = skip()
    nodes = {name: dataclasses.replace(node, delay=1) if isinstance(node, n.Affine) else node
             for name, node in graph.nodes.items()}  # fmt: skip
    delayed = graph.replace(nodes=nodes)
    assert not [f for f in check(delayed, chip(connection_delay=1)) if f.code == "unbalanced-paths"]


def test_pooling_is_checked() -> None:
    pool = n.Pool2d("average", (3, 3), (3, 3), (0, 0), (1, 20, 20))
    nodes = [("input", n.Input((1, 20, 20))), ("pool", pool), ("output", n.Output((1, 6, 6)))]
    (found,) = [f for f in check(chain(Level.IMPORTED, nodes), SPECK) if f.code == "convolution"]
    assert (found.node, found.value, found.limit) == ("pool", 3, "1, 2, 4")


def test_memory_of_chip_layers_is_shared_out() -> None:
    # The first layer fits both, the second only the first: an assignment in order would fail.
    small, large = (18, 700), (200, 700)
    spec = convolving(kernel_memory=(large[0], small[0]), neuron_memory=(large[1], small[1]))
    shape = (2, 18, 18)
    first = convolution()
    neuron = n.ContinuousIF(np.ones((4, 16, 16)), np.ones((4, 16, 16)), np.zeros((4, 16, 16)))
    conv = n.Conv2d(np.ones((4, 2, 3, 3)), None, (1, 1), (0, 0), (1, 1), 1, shape[1:])
    nodes = {**first.nodes, "conv2": conv, "if2": neuron, "output": n.Output((4, 16, 16))}
    edges = (("input", "conv"), ("conv", "if"), ("if", "conv2"), ("conv2", "if2"), ("if2", "output"))
    graph = Graph(Level.IMPORTED, nodes, edges, dt=1e-3)
    assert "convolution-memory" in {f.code for f in check(graph, spec)}
    roomy = convolving(kernel_memory=(large[0], small[0]), neuron_memory=(2000, 700))
    assert "convolution-memory" not in {f.code for f in check(graph, roomy)}


def test_a_spec_without_convolution_has_no_such_findings() -> None:
    assert isinstance(SPECK.convolution, Convolution)
    assert not [f for f in check(convolution(kernel=17), REFERENCE) if f.code.startswith("convolution")]
