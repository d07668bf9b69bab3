"""Specs: strict reading, a source for every number, and agreement with what the lava target really lowers."""

from __future__ import annotations

import copy
import dataclasses
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies import li, lif, random_dag, random_policy, with_node
from scripts import script

from nervecord.compiler.check.table import findings_of, verdict
from nervecord.compiler.compile import compile_graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import OPS, Affine, CountDecode, Level, Op, Scale, Threshold, is_core
from nervecord.compiler.target.protocol import UNLIMITED, Energy, Fact, TargetSpec
from nervecord.compiler.target.specfile import read_spec, spec_from_dict
from nervecord.errors import FileFormatError, InfeasibleError, NervecordError
from nervecord.targets.catalogue import load_spec, load_specs, target_names
from nervecord.targets.lava.target import LavaTarget

REPOSITORY = Path(__file__).parents[2]
ALL = load_specs()


def raw(name: str) -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "targets" / name / "spec.toml").read_text(encoding="utf-8"))


# --------------------------------------------------------------------------------------------------------------------
# The catalogue


def test_names_and_order() -> None:
    assert target_names() == ("reference", "c", "fpga", "lava", "onnx", "loihi1", "speck", "spinnaker2", "xylo")
    assert tuple(spec.name for spec in ALL) == target_names()


def test_an_unknown_name_lists_the_choices_and_the_nearest() -> None:
    with pytest.raises(NervecordError, match=r"'loihi' .*'loihi1'.*lava.*xylo"):
        load_spec("loihi")


@pytest.mark.parametrize("name", ["../lava", "", "lava/", "."])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(NervecordError, match="unknown target"):
        load_spec(name)


# --------------------------------------------------------------------------------------------------------------------
# What every spec keeps to


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_every_value_has_a_source_and_a_confidence(spec: TargetSpec) -> None:
    for name, about, fact in spec.facts():
        assert about
        assert fact.source, name
        assert (fact.value is None) == (fact.confidence == "unknown"), name
        assert fact.value is None or fact.source != "not published", name


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_nodes_are_legal_at_their_level(spec: TargetSpec) -> None:
    for level in Level:
        assert set(spec.kinds(level)) <= core_kinds(level)


def core_kinds(level: Level) -> set[str]:
    """Kinds of ops that run on a target."""
    return {
        kind for op in OPS.values() if op.ROLE in ("connection", "passing", "population") for kind in op.kinds(level)
    }


def test_kinds_are_those_that_ops_have() -> None:
    """What an op says of its kinds is what its instances are."""
    policy = random_dag(0).graph
    for op in policy.nodes.values():
        assert op.kind in type(op).kinds(Level.DISCRETE)
        assert is_core(op) == (op.kind in core_kinds(Level.DISCRETE))


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_table_shows_every_fact_with_its_source(spec: TargetSpec) -> None:
    table = script("docs/targets.py").spec_table(spec)
    sources = dict(re.findall(r"^(\d+)\. (.*)$", table, re.MULTILINE))
    assert len(set(sources.values())) == len(sources)
    numbers = dict(re.findall(r"^\| `(\w+)` \|.* \| (\d+) \|$", table, re.MULTILINE))
    for name, _, fact in spec.facts():
        assert f"`{name}`" in table
        assert fact.value == float("inf") or sources[numbers[name]] == fact.source


def test_the_document_of_targets_is_current(document: Callable[[str], str]) -> None:
    document("targets")


def test_reference_accepts_every_kind_that_can_be_executed() -> None:
    reference = load_spec("reference")
    for level in Level:
        assert set(reference.kinds(level)) == core_kinds(level)


# --------------------------------------------------------------------------------------------------------------------
# Strictness


def changed(**changes: Any) -> dict[str, Any]:
    """lava's dictionary with dotted keys set, or removed where the value is None."""
    data = copy.deepcopy(raw("lava"))
    for dotted, value in changes.items():
        *path, last = dotted.split("__")
        at = data
        for key in path:
            at = at[key]
        if value is None:
            del at[last]
        else:
            at[last] = value
    return data


MEMORIES = {
    name: {"value": sizes, "source": "x", "confidence": "given"}
    for name, sizes in (("kernel_memory", [64, 64]), ("neuron_memory", [64]))
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "red"}, "colour: "),
        ({"limits__corse": {"value": 1, "source": "x", "confidence": "exact"}}, "limits.corse: "),
        ({"limits__cores__unit": "1"}, "limits.cores.unit: "),
        ({"name": None}, "name: "),
        ({"limits__cores__source": None}, "limits.cores.source: "),
        ({"limits__cores__source": ""}, "limits.cores.source: is ''"),
        ({"limits__cores__confidence": "sure"}, "limits.cores.confidence: is 'sure', "),
        ({"limits__cores__confidence": "unknown"}, "limits.cores: a value is needed, or"),
        ({"limits__cores__value": None}, "limits.cores: "),
        ({"limits__cores__value": "many"}, "limits.cores: is 'many', "),
        ({"limits__cores__value": True}, "limits.cores: is True"),
        ({"limits__cores__value": -1}, "limits.cores: is -1"),
        ({"behaviour__leak__value": "naitive"}, "behaviour.leak: is 'naitive', "),
        ({"packing__word_bits": 0}, "packing.word_bits: is 0, "),
        ({"behaviour__graded_input__value": 1}, "behaviour.graded_input: is 1, "),
        ({"behaviour__resets__value": "value"}, "behaviour.resets: is 'value'"),
        ({"nodes__discrete": ["Afine"]}, "nodes.discrete: 'Afine'"),
        ({"nodes__discrete": ["Graph"]}, "nodes.discrete: 'Graph'"),
        ({"engines": "lava"}, "engines: is 'lava'"),
        ({"energy__process_nm": 14.5}, "energy.process_nm: is 14.5"),
        ({"energy__source": None}, "energy.source: "),
        ({"limits": 3}, "limits: "),
        ({"behaviour__resets__value": []}, "behaviour.resets: is []"),
        ({"packing__index_bits": []}, "packing.index_bits: is []"),
        ({"packing__index_bits": [6, -1]}, "packing.index_bits: is [6, -1]"),
        ({"packing__block": 0}, "packing.block: is 0, "),
        ({"packing__word_bits": 1 << 50}, "packing.word_bits: is 1125899906842624"),
        ({"convolution": MEMORIES}, "convolution.kernel_memory: has 2 layers, and neuron_memory has 1"),
    ],
)
def test_a_wrong_spec_is_refused_by_key(change: dict[str, Any], words: str) -> None:
    with pytest.raises(FileFormatError) as caught:
        spec_from_dict(changed(**change))
    assert words in str(caught.value)


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_bytes(b"name = \xff")
    with pytest.raises(FileFormatError, match=r"spec\.toml"):
        read_spec(path)


def test_what_is_left_out_is_unknown() -> None:
    spec = spec_from_dict(changed(limits__cores=None))
    assert spec.limits.cores == Fact(None, "not published", "unknown")


# --------------------------------------------------------------------------------------------------------------------
# Overriding


def test_override() -> None:
    lava = load_spec("lava")
    mine = lava.override(cores=120, fan_in=4000)
    assert (mine.limits.cores.value, mine.limits.cores.confidence) == (120, "given")
    assert "128" in mine.limits.cores.source
    assert mine.limits.fan_in.value == 4000
    assert lava.limits.cores.value == 128
    assert mine.override(cores=100).limits.cores.value == 100


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"weight_bits": 16}, "exact"),
        ({"corse": 1}, "'corse'.*'cores'"),
        ({"cores": -1}, "cores: -1 "),
        ({"cores": float("nan")}, "cores: nan "),
        ({"cores": 1.5}, "cores: 1.5 "),
    ],
)
def test_override_refuses(values: dict[str, float], words: str) -> None:
    with pytest.raises(NervecordError, match=words):
        load_spec("lava").override(**values)


# --------------------------------------------------------------------------------------------------------------------
# The lava spec and the lava lowering cannot disagree


def part(policy: Policy, which: str, **changes: Any) -> Policy:
    """The policy with fields of a part of its hidden layer changed."""
    op = policy.graph.nodes["lif0"]
    return with_node(policy, "lif0", op.replace(**{which: dataclasses.replace(getattr(op, which), **changes)}))


def wired(policy: Policy, cut: tuple[str, str], *edges: tuple[str, str], **nodes: Op) -> Policy:
    graph = policy.graph
    old_edges = tuple(edge for edge in graph.edges if edge != cut)
    return policy.replace(graph=graph.replace(nodes={**graph.nodes, **nodes}, edges=(*old_edges, *edges)))


def carried(policy: Policy) -> Policy:
    return policy.replace(contract=dataclasses.replace(policy.contract, state="carried"))


def each(low: float, high: float) -> Any:
    return np.linspace(low, high, 24)


NOWHERE = ("", "")
COUNT = CountDecode(np.full((8, 1), 0.1), np.zeros(8), np.full(8, -1.0), np.ones(8))
AROUND = Affine(np.full((8, 27), 0.01))
BACK = Affine(np.eye(24) / 4, None, 1)
VARIANTS: dict[str, tuple[Callable[[Policy], Policy], str]] = {
    "as it is": (lambda p: p, ""),
    "leak": (lambda p: part(p, "membrane", leak=np.full(24, 0.1)), ""),
    "threshold 2": (lambda p: part(p, "spike", threshold=np.full(24, 2.0)), ""),
    "reset by subtraction": (lambda p: part(p, "spike", reset="subtract"), "reset-rule"),
    "no reset": (lambda p: part(p, "spike", reset="none"), "reset-rule"),
    "reset to 0.1": (lambda p: part(p, "spike", reset_value=np.full(24, 0.1)), "reset-value"),
    "a refractory period": (lambda p: part(p, "spike", refractory=1), "refractory"),
    "different decays": (lambda p: part(p, "membrane", decay=each(0.5, 0.9)), "population-parameters"),
    "decays that 12 bits cannot tell apart": (lambda p: part(p, "membrane", decay=each(0.5, 0.5001)), ""),
    "different thresholds": (lambda p: part(p, "spike", threshold=each(1, 2)), ""),
    "negative threshold": (lambda p: part(p, "spike", threshold=np.full(24, -1.0)), "threshold-range"),
    "a threshold without a unit": (lambda p: part(p, "spike", threshold=np.full(24, 1e-9)), "no-scale"),
    "a delay": (lambda p: with_node(p, "fc0", p.graph.nodes["fc0"].replace(delay=1)), "reset-with-delays"),
    "carried without delays": (carried, "carried-without-delays"),
    "recurrence in a window": (
        lambda p: wired(p, NOWHERE, ("lif0", "back"), ("back", "lif0"), back=BACK),
        "reset-with-delays",
    ),
    "recurrence where state is carried": (lambda p: random_dag(5, carried=True, recurrent=True), ""),
    "a readout that spikes": (lambda p: with_node(p, "readout", lif(8, 0.5, threshold=0.5)), "spiking-readout"),
    "a hidden layer that does not": (lambda p: with_node(p, "lif0", li(24, 0.5)), "analogue-layer"),
    "scaled weights": (
        lambda p: wired(p, ("fc0", "lif0"), ("fc0", "scale"), ("scale", "lif0"), scale=Scale(np.ones(24))),
        "",
    ),
    "neurons behind neurons": (
        lambda p: wired(p, ("lif0", "fc1"), ("lif0", "more"), ("more", "fc1"), more=lif(24)),
        "",
    ),
    "spikes that are counted": (
        lambda p: with_node(with_node(p, "readout", lif(8, 0.5, threshold=0.5)), "decode", COUNT),
        "",
    ),
    "a skip": (lambda p: wired(p, NOWHERE, ("normalise", "around"), ("around", "readout"), around=AROUND), ""),
    "branches": (lambda p: random_dag(3), ""),
    "a population code": (lambda p: random_policy(sizes=(27, 24, 8), population=4), ""),
    "a population code and counts": (lambda p: random_policy(sizes=(27, 24, 8), population=4, output_population=3), ""),
    "a stateless spike": (lambda p: with_node(p, "lif0", Threshold(np.ones(24))), "unsupported-node"),
}
"""What is done to a policy, and the code of what then speaks against it on lava; none: it compiles."""


@pytest.mark.parametrize("variant", VARIANTS)
def test_inspect_and_compile_agree_about_lava(variant: str, make_policy: Callable[..., Policy]) -> None:
    change, code = VARIANTS[variant]
    policy = change(make_policy((27, 24, 8)))
    findings = findings_of(policy, load_spec("lava"))
    assert {finding.code for finding in findings if finding.severity == "error"} == ({code} if code else set())
    if code:
        assert verdict(findings) == "infeasible"
        with pytest.raises(InfeasibleError) as caught:
            compile_graph(policy, LavaTarget())
        error = next(finding for finding in findings if finding.severity == "error")
        assert error.message in str(caught.value)
        return
    assert verdict(findings) == "feasible"
    lowering: Any = compile_graph(policy, LavaTarget()).report["lowering"]
    assert lowering["action_error_rms"] < 0.2


@pytest.mark.parametrize("state", ["reset", "carried"])
@pytest.mark.parametrize("synaptic", [False, True])
def test_a_lowered_policy_passes_the_check_of_integers(
    state: str, synaptic: bool, make_policy: Callable[..., Policy]
) -> None:
    program = compile_graph(make_policy((27, 24, 8), state=state, synaptic=synaptic), LavaTarget())
    assert program.contract is not None
    findings = findings_of(Policy(program.graph, program.contract), load_spec("lava"))
    assert verdict(findings) == "feasible"
    assert {finding.severity for finding in findings} == {"info"}


def test_energy_constants_are_the_published_ones() -> None:
    for name in ("lava", "loihi1"):
        energy = load_spec(name).energy
        assert isinstance(energy, Energy)
        assert (energy.synaptic_event_pj, energy.update_active_pj, energy.update_inactive_pj) == (23.6, 81, 52)
        assert (energy.process_nm, energy.measured_on) == (14, "Loihi 1")


@pytest.mark.parametrize("name", ["connection_delay", "weight_bits"])
def test_an_amount_cannot_be_unlimited(name: str, tmp_path: Path) -> None:
    """It is computed with: what a weight takes, and what a connection costs."""
    text = (Path(__file__).parents[2] / "targets" / "xylo" / "spec.toml").read_text()
    match = re.search(rf"^{name} = .*$", text, re.MULTILINE)
    entry = f'{name} = {{ value = "unlimited", source = "x", confidence = "exact" }}'
    path = tmp_path / "chip.toml"
    path.write_text(text.replace(match[0], entry) if match else text.replace("[limits]", f"[limits]\n{entry}"))
    with pytest.raises(FileFormatError, match=rf"limits.{name}: is 'unlimited'"):
        read_spec(path)
    with pytest.raises(NervecordError, match=rf"{name}: "):
        load_spec("xylo").override(**{name: UNLIMITED})
