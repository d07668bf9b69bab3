"""The report: stable keys, JSON, graph-level findings, the two published graphs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies import lif, random_dag

from nervecord.compiler.graph.graph import chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.inspect import Report, inspect
from nervecord.compiler.nir.file import read_nir
from nervecord.compiler.ops import Affine, Input, Level, Output
from nervecord.targets.catalogue import load_spec, load_specs, target_names

PUBLISHED = Path(__file__).parents[1] / "data" / "nir"


def by_target(report: Report) -> dict[str, Any]:
    return {target["target"]: target for target in report.to_dict()["targets"]}


def test_keys_are_stable(make_policy: Callable[..., Policy]) -> None:
    data = inspect(make_policy(), load_specs()).to_dict()
    assert list(data) == ["format", "graph", "findings", "targets"]
    assert data["format"] == 2
    assert list(data["graph"]) == [
        "level",
        "dt",
        "nodes",
        "edges",
        "neurons",
        "synapses",
        "parameters",
        "depth",
        "recurrent",
        "policy",
        "contract",
        "hashes",
    ]
    assert list(data["graph"]["nodes"][0]) == [
        "id",
        "name",
        "kind",
        "shape",
        "parameters",
        "side",
        "recurrent",
        "weights",
    ]
    lava = next(target for target in data["targets"] if target["target"] == "lava")
    assert list(lava) == [
        "target",
        "title",
        "verdict",
        "findings",
        "resources",
        "events",
        "energy",
        "not_checked",
        "limits_given",
        "limits",
        "file",
    ]
    assert list(lava["limits"]["cores"]) == ["value", "source", "confidence", "about"]
    assert lava["energy"]["constants"]["synaptic event"] == 23.6
    assert list(lava["findings"][0]) == [
        "code",
        "severity",
        "node",
        "message",
        "value",
        "limit",
        "fix",
        "target",
        "source",
    ]
    assert {"neurons", "synapses", "cores", "memory_bits", "inputs", "outputs", "layers", "utilisation"} <= set(
        lava["resources"]
    )
    assert {"steps", "input_events", "spike_events", "synaptic_events", "updates", "bound"} == set(lava["events"])
    assert lava["energy"]["kind"] == "estimate"


def test_json_round_trip(make_policy: Callable[..., Policy]) -> None:
    data = inspect(make_policy(), load_specs()).to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data == inspect(make_policy(), load_specs()).to_dict()


def test_facts_of_a_policy(make_policy: Callable[..., Policy]) -> None:
    facts = inspect(make_policy((3, 4, 2)), ()).facts
    assert facts is not None
    assert (facts.level, facts.dt, facts.neurons, facts.synapses, facts.depth) == ("discrete", 1e-3, 6, 20, 2)
    # Normalise 2 * 3, Affine 12 + 4 and 8 + 2, LIF 5 * 4, LI 3 * 2, Decode 4 * 2.
    assert facts.parameters == 6 + 16 + 10 + 20 + 6 + 8
    assert facts.policy is not None
    assert facts.policy["steps"] == 5


def test_the_contracts_channels_come_in_order(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy((3, 4, 2))
    channels = dataclasses.replace(policy.contract.observation, names=("z", "roll", "speed"), units=("m", "rad", "m/s"))
    report = inspect(policy.replace(contract=dataclasses.replace(policy.contract, observation=channels)), ())
    assert report.facts is not None
    assert report.facts.policy is not None
    assert [(c["name"], c["unit"], c["low"]) for c in report.facts.policy["observation"]] == [
        ("z", "m", None),
        ("roll", "rad", None),
        ("speed", "m/s", None),
    ]
    assert report.facts.policy["action"][1] == {"name": "a1", "unit": "", "low": -1.0, "high": 1.0}
    text = report.to_text()
    assert "  observation: z m, roll rad, speed m/s\n" in text
    assert "  action: a0 -1..1, a1 -1..1\n" in text


def test_a_branched_policy_is_inspected() -> None:
    report = inspect(random_dag(1, carried=True, recurrent=True), load_specs(("reference", "lava")))
    assert report.feasible
    assert report.facts is not None
    assert report.facts.recurrent == ("back",)
    assert inspect(random_dag(0), load_specs(("reference", "lava"))).feasible


def test_a_window_of_a_graph_is_looked_at(make_policy: Callable[..., Policy]) -> None:
    nodes = [
        ("input", Input((2,), "spikes")),
        ("fc", Affine(np.ones((2, 2)))),
        ("lif", lif(2)),
        ("output", Output((2,))),
    ]
    graph = chain(Level.DISCRETE, nodes, dt=1e-3)
    (stream,) = inspect(graph, load_specs(("lava",))).targets
    (window,) = inspect(graph, load_specs(("lava",)), Schedule(6, "reset")).targets
    assert stream.events is not None
    assert window.events is not None
    assert (stream.events.steps, window.events.steps) == (1, 7)
    assert any("7 chip steps per block" in finding.message for finding in window.findings)


def test_verdicts_and_feasible(make_policy: Callable[..., Policy]) -> None:
    assert inspect(make_policy(), load_specs(("reference", "lava"))).feasible
    assert not inspect(make_policy(), load_specs(("lava", "xylo"))).feasible
    assert not inspect(make_policy(), load_specs(("spinnaker2",))).feasible


def test_graph_problems_make_every_verdict_infeasible(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy()
    report = inspect(policy.replace(graph=policy.graph.replace(dt=None)), load_specs())
    assert [finding.code for finding in report.findings] == ["dt"]
    assert {target.verdict for target in report.targets} == {"infeasible"}
    assert report.facts is not None


@pytest.mark.parametrize(
    "weight", [np.full((2, 2), np.nan), np.ones((2, 3)), np.ones((0, 2))], ids=["nan", "wide", "empty"]
)
def test_damaged_arrays_are_reported_and_raise_nothing(weight: Any) -> None:
    nodes = [("input", Input((2,))), ("fc", Affine(weight)), ("lif", lif(2)), ("output", Output((2,)))]
    graph = chain(Level.DISCRETE, nodes, dt=1e-3)
    report = inspect(graph, load_specs())
    assert report.findings
    assert report.facts is None
    assert {target.verdict for target in report.targets} == {"infeasible"}
    assert "fc" in report.to_text()
    json.dumps(report.to_dict(), allow_nan=False)


def test_text_names_what_decides(make_policy: Callable[..., Policy]) -> None:
    text = inspect(make_policy((27, 24, 8)), load_specs(("xylo", "lava"))).to_text()
    assert "xylo (XyloAudio 2): infeasible" in text
    assert "inputs: normalise: has more input channels than the chip (27 against 16)" in text
    assert "le_16_input_channels" in text
    assert "estimate, at most" in text
    assert "not measured" in text
    xylo = text.split("lava (")[0]
    assert xylo.index("  error") < xylo.index("  info") if "  info" in xylo else True


def test_more_cores_than_the_chip_has() -> None:
    # Loihi 1: 1024 neurons per core and 128 cores; a layer of 132000 with one input fits no chip.
    size = 132_000
    wide = Affine(np.ones((size, 1)))
    nodes = [("input", Input((1,), "spikes")), ("fc", wide), ("lif", lif(size)), ("output", Output((size,)))]
    report = by_target(inspect(chain(Level.DISCRETE, nodes, dt=1e-3), load_specs(("loihi1",))))["loihi1"]
    assert report["resources"]["cores"] == 129
    assert {"cores", "neurons"} <= {finding["code"] for finding in report["findings"]}


# --------------------------------------------------------------------------------------------------------------------
# Published graphs


@pytest.mark.parametrize("dt", [None, 1e-4])
def test_norse_graph(dt: float | None, golden: Callable[[str, str], None]) -> None:
    report = inspect(read_nir(PUBLISHED / "lif_norse.nir", dt=dt), load_specs())
    verdicts = {target.target: target.verdict for target in report.targets}
    assert verdicts == {
        "reference": "feasible",
        "c": "unknown",
        "fpga": "unknown",
        "lava": "unknown",
        "onnx": "feasible",
        "loihi1": "unknown",
        "speck": "infeasible",
        "spinnaker2": "unknown",
        "xylo": "infeasible",
    }
    lava = next(target for target in report.targets if target.target == "lava")
    assert [f.code for f in lava.findings if f.severity == "unknown"] == ["undeclared-input"]
    golden(f"inspect/lif_norse-{'undated' if dt is None else 'dated'}.txt", report.to_text())


def test_braille_graph(golden: Callable[[str, str], None]) -> None:
    report = inspect(read_nir(PUBLISHED / "braille_noDelay_bias_zero.nir", dt=1e-4), load_specs())
    targets = {target.target: target for target in report.targets}
    assert {name: target.verdict for name, target in targets.items()} == {
        "reference": "feasible",
        "c": "unknown",
        "fpga": "unknown",
        "lava": "unknown",
        "onnx": "feasible",
        "loihi1": "unknown",
        "speck": "infeasible",
        "spinnaker2": "unknown",
        "xylo": "infeasible",
    }
    assert [f.code for f in targets["lava"].findings if f.severity == "unknown"] == ["undeclared-input"]
    assert report.facts is not None
    # 12 x 38, 38 x 38 and 38 x 7.
    assert report.facts.synapses == 456 + 1444 + 266
    assert report.facts.recurrent == ("lif1.w_rec",)
    golden("inspect/braille.txt", report.to_text())


def test_inspecting_all_targets_covers_the_catalogue(make_policy: Callable[..., Policy]) -> None:
    assert tuple(by_target(inspect(make_policy(), load_specs()))) == target_names()


def test_overridden_limits_are_used(make_policy: Callable[..., Policy]) -> None:
    spec = load_spec("lava").override(neurons_per_core=10)
    placement = inspect(make_policy((27, 24, 8)), [spec]).targets[0].placement
    assert placement is not None
    assert placement.layers[0].cores == 3


def test_a_report_is_a_value(make_policy: Callable[..., Policy]) -> None:
    report = inspect(make_policy(), load_specs(("lava",)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.targets = ()  # type: ignore[misc]
