"""Specs: strict reading, a source for every number, and agreement with what the lava target really lowers."""

from __future__ import annotations

import copy
import dataclasses
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies import random_policy

from nervecord.compiler import nodes as n
from nervecord.compiler.calibrate import calibrate
from nervecord.compiler.check import check, verdict
from nervecord.compiler.graph import Graph, Level
from nervecord.compiler.specfile import read_spec, spec_from_dict, spec_table, targets_doc
from nervecord.compiler.target import Energy, Fact, TargetSpec
from nervecord.compiler.verify import LEGAL
from nervecord.errors import FileFormatError, InfeasibleError, NervecordError
from nervecord.targets.catalogue import load_spec, load_specs, target_names
from nervecord.targets.lava.lower import lower

REPOSITORY = Path(__file__).parents[2]
ALL = load_specs()


def raw(name: str) -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "targets" / name / "spec.toml").read_text(encoding="utf-8"))


# --------------------------------------------------------------------------------------------------------------------
# The catalogue


def test_names_and_order() -> None:
    assert target_names() == ("reference", "lava", "loihi1", "speck", "spinnaker2", "xylo")
    assert tuple(spec.name for spec in ALL) == target_names()


def test_an_unknown_name_lists_the_choices_and_the_nearest() -> None:
    with pytest.raises(NervecordError, match=r"unknown target 'loihi' .*did you mean 'loihi1'.*lava.*xylo"):
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
        legal = {kind.__name__ for kind in LEGAL[level]}
        assert set(spec.kinds(level)) <= legal


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_table_shows_every_fact_with_its_source(spec: TargetSpec) -> None:
    table = spec_table(spec)
    for name, _, fact in spec.facts():
        assert f"`{name}`" in table
        assert fact.source in table or fact.value == float("inf")


def test_targets_doc_is_current(request: pytest.FixtureRequest) -> None:
    text = targets_doc(ALL)
    path = REPOSITORY / "docs" / "targets.md"
    if request.config.getoption("--update-golden"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


def test_reference_accepts_every_kind_that_can_be_executed() -> None:
    reference = load_spec("reference")
    ends = {"Input", "Output", *(kind.__name__ for kind in n.HOST_NODES)}
    for level in (Level.DISCRETE, Level.INTEGER):
        assert set(reference.kinds(level)) == {kind.__name__ for kind in LEGAL[level]} - ends


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "red"}, "colour: unknown key"),
        ({"limits__corse": {"value": 1, "source": "x", "confidence": "exact"}}, "limits.corse: unknown key"),
        ({"limits__cores__unit": "1"}, "limits.cores.unit: unknown key"),
        ({"name": None}, "name: is missing"),
        ({"limits__cores__source": None}, "limits.cores.source: is missing"),
        ({"limits__cores__source": ""}, "limits.cores.source: a text is needed"),
        ({"limits__cores__confidence": "sure"}, "limits.cores.confidence: confidence 'sure' is none of"),
        ({"limits__cores__confidence": "unknown"}, "limits.cores: a value is needed, or"),
        ({"limits__cores__value": None}, "limits.cores: a value is needed, or"),
        ({"limits__cores__value": "many"}, 'limits.cores: a number or "unlimited" is needed'),
        ({"limits__cores__value": True}, "limits.cores: a number"),
        ({"behaviour__graded_input__value": 1}, "behaviour.graded_input: true or false is needed"),
        ({"behaviour__resets__value": "value"}, "behaviour.resets: a list of str is needed"),
        ({"nodes__discrete": ["Afine"]}, "nodes.discrete: 'Afine' is no kind of node"),
        ({"nodes__discrete": ["Graph"]}, "nodes.discrete: 'Graph' is no kind of node"),
        ({"engines": "lava"}, "engines: a list of texts is needed"),
        ({"energy__process_nm": 14.5}, "energy.process_nm: a number"),
        ({"energy__source": None}, "energy.source: is missing"),
        ({"limits": 3}, "limits: a table is needed"),
    ],
)
def test_a_wrong_spec_is_refused_by_key(change: dict[str, Any], words: str) -> None:
    with pytest.raises(FileFormatError) as caught:
        spec_from_dict(changed(**change))
    assert words in str(caught.value)


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_bytes(b"name = \xff")
    with pytest.raises(FileFormatError, match="is no TOML file"):
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
    [({"weight_bits": 16}, "exact"), ({"corse": 1}, "unknown limit 'corse'"), ({"cores": -1}, "no limit"),
     ({"cores": float("nan")}, "no limit"),
     ({"cores": 1.5}, "a whole number")],
)  # fmt: skip
def test_override_refuses(values: dict[str, float], words: str) -> None:
    with pytest.raises(NervecordError, match=words):
        load_spec("lava").override(**values)


# --------------------------------------------------------------------------------------------------------------------
# The lava spec and the lava lowering cannot disagree


def lif_with(graph: Graph, **changes: Any) -> Graph:
    return graph.replace(nodes={**graph.nodes, "lif0": dataclasses.replace(graph.nodes["lif0"], **changes)})


def per_neuron(low: float, high: float) -> Any:
    return np.linspace(low, high, 24)


VARIANTS: dict[str, Callable[[Graph], Graph]] = {
    "as it is": lambda g: g,
    "leak": lambda g: lif_with(g, leak=np.full(24, 0.1)),
    "threshold 2": lambda g: lif_with(g, threshold=np.full(24, 2.0)),
    "reset by subtraction": lambda g: lif_with(g, reset="subtract"),
    "no reset": lambda g: lif_with(g, reset="none"),
    "reset to 0.1": lambda g: lif_with(g, reset_value=np.full(24, 0.1)),
    "different decays": lambda g: lif_with(g, decay=per_neuron(0.5, 0.9)),
    "decays that 12 bits cannot tell apart": lambda g: lif_with(g, decay=per_neuron(0.5, 0.5001)),
    "different thresholds": lambda g: lif_with(g, threshold=per_neuron(1, 2)),
    "negative threshold": lambda g: lif_with(g, threshold=np.full(24, -1.0)),
    "a delay": lambda g: g.replace(nodes={**g.nodes, "fc0": dataclasses.replace(g.nodes["fc0"], delay=1)}),  # type: ignore[call-arg]
    "carried without delays": lambda g: g.replace(contract=dataclasses.replace(g.contract, state="carried")),  # type: ignore[type-var]
    "a readout that spikes": lambda g: g.replace(
        nodes={**g.nodes, "readout": n.DiscreteLIF(*np.full((5, 8), 0.5))}  # type: ignore[misc]
    ),
    "a hidden layer that does not": lambda g: g.replace(
        nodes={**g.nodes, "lif0": n.DiscreteLI(*np.full((3, 24), 0.5))}  # type: ignore[misc]
    ),
    "scaled weights": lambda g: g.replace(
        nodes={**g.nodes, "scale": n.Scale(np.ones(24))},
        edges=tuple(e for e in g.edges if e != ("fc0", "lif0")) + (("fc0", "scale"), ("scale", "lif0")),
    ),
    "spikes that are counted": lambda g: g.replace(
        nodes={
            **g.nodes,
            "readout": n.DiscreteLIF(*np.full((4, 8), 0.5), np.zeros(8)),  # type: ignore[misc]
            "decode": n.CountDecode(np.full((8, 1), 0.1), np.zeros(8), np.full(8, -1.0), np.ones(8)),
        }
    ),
    "a population code": lambda g: random_policy(sizes=(27, 24, 8), population=4),
    "a population code and counts": lambda g: random_policy(sizes=(27, 24, 8), population=4, output_population=3),
    "a stateless spike": lambda g: g.replace(nodes={**g.nodes, "lif0": n.Threshold(np.ones(24))}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_inspect_and_lower_agree_about_lava(variant: str, make_policy: Callable[..., Graph]) -> None:
    graph = VARIANTS[variant](make_policy((27, 24, 8)))
    feasible = verdict(check(graph, load_spec("lava"))) == "feasible"
    calibration = calibrate(make_policy((27, 24, 8)), None)
    try:
        lower(graph, calibration)
        lowered = True
    except InfeasibleError:
        lowered = False
    assert feasible == lowered


@pytest.mark.parametrize("state", ["reset", "carried"])
@pytest.mark.parametrize("synaptic", [False, True])
def test_a_lowered_policy_passes_the_check_of_integers(
    state: str, synaptic: bool, make_policy: Callable[..., Graph]
) -> None:
    graph = make_policy((27, 24, 8), state=state, synaptic=synaptic)
    lowered, _ = lower(graph, calibrate(graph, None))
    findings = check(lowered, load_spec("lava"))
    assert verdict(findings) == "feasible"
    assert {finding.severity for finding in findings} == {"info"}


def test_energy_constants_are_the_published_ones() -> None:
    for name in ("lava", "loihi1"):
        energy = load_spec(name).energy
        assert isinstance(energy, Energy)
        assert (energy.synaptic_event_pj, energy.update_active_pj, energy.update_inactive_pj) == (23.6, 81, 52)
        assert (energy.process_nm, energy.measured_on) == (14, "Loihi 1")
