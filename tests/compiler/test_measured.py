"""Findings of what a compiled policy did: coarse weights, silent layers; in the program, and when it is inspected."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies import random_policy

import nervecord
from nervecord.compiler.findings import Finding
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.lower import choose
from nervecord.compiler.lower.choose import SEARCH_STEPS
from nervecord.compiler.ops import Affine, Normalise
from nervecord.compiler.plan import calibrate, measured
from nervecord.compiler.plan.calibrate import affordable, batches, in_time
from nervecord.compiler.plan.measured import measured_spikes, silent_layers
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.errors import ContractError, FileFormatError


def codes(program: nervecord.Program) -> list[str]:
    findings = (*program.report["findings"], *program.report["lowering"]["findings"])
    return [finding["code"] for finding in findings]


def deafened() -> Policy:
    """A policy that lives on small weights beside a large one from a channel that is always zero.

    With 2 bits the large one is all that is left of the first layer.
    """
    policy = random_policy(sizes=(4, 16, 2), bias=0.0)
    graph = policy.graph
    first, normalise = graph.nodes["fc1"], graph.nodes["normalise"]
    assert isinstance(first, Affine)
    assert isinstance(normalise, Normalise)
    weight = np.array(first.weight)
    weight[:, 0] = 60.0
    rows = np.random.default_rng(0).normal(size=(64, 4))
    rows[:, 0] = normalise.mean[0]
    nodes = {**graph.nodes, "fc1": dataclasses.replace(first, weight=weight)}
    return Policy(graph.replace(nodes=nodes), policy.contract, rows)


def test_coarse_weights_are_a_warning_and_fine_ones_none() -> None:
    graph = random_policy()
    program = nervecord.compile(graph, weight_bits=2)
    (finding,) = [it for it in program.report["lowering"]["findings"] if it["code"] == "action-error"]
    assert finding["value"] > finding["limit"]
    assert finding["value"] == pytest.approx(program.report["lowering"]["action_error_rms"], rel=1e-5)
    (warning,) = [it for it in program.report["lowering"]["warnings"] if "far from the float policy's" in it]
    assert f"({finding['value']} against {finding['limit']})" in warning
    assert len(str(finding["value"])) < 10
    assert "action-error" not in codes(nervecord.compile(graph, weight_bits=8))


def test_a_layer_that_falls_silent_is_a_warning() -> None:
    program = nervecord.compile(deafened(), weight_bits=2)
    (finding,) = [finding for finding in program.report["findings"] if finding["code"] == "silent-layer"]
    assert (finding["severity"], finding["node"], finding["value"]) == ("warning", "lif1", 0)
    assert program.report["spikes_per_action"] == {"lif1": 0.0}
    assert program.report["spikes_per_action_float"]["lif1"] > 1
    lively = nervecord.compile(random_policy())
    assert "silent-layer" not in codes(lively)
    assert lively.report["spikes_per_action"]["lif1"] > 1


def test_inspecting_a_program_shows_what_was_measured(tmp_path: Path) -> None:
    program = nervecord.compile(random_policy(), weight_bits=2)
    program.save(tmp_path / "a.nervecord")
    report = nervecord.inspect(tmp_path / "a.nervecord", ("lava", "loihi1"))
    by_target = {target.target: [finding.code for finding in target.findings] for target in report.targets}
    assert "action-error" in by_target["lava"]
    assert "action-error" not in by_target["loihi1"]
    assert report.targets[0].verdict == "feasible"


def test_what_is_silent() -> None:
    def silent_codes(floating: float, compiled: float) -> list[str]:
        return [f.code for f in silent_layers({"lif1": floating}, {"lif1": compiled})]

    assert silent_codes(2.0, 0.0) == ["silent-layer"]
    assert silent_codes(2.0, 0.1) == silent_codes(0.0, 0.0) == []


DAMAGED = {
    "no list": {"findings": 3},
    "no object": {"findings": ["action-error"]},
    "a field gone": {"findings": [{"code": "action-error"}]},
    "a field too many": {"findings": [{"code": "a", "severity": "info", "node": "", "message": "", "more": 1}]},
    "no severity": {"findings": [{"code": "a", "severity": "grave", "node": "", "message": ""}]},
    "a severity that cannot be hashed": {"findings": [{"code": "a", "severity": [], "node": "", "message": ""}]},
    "a number for a message": {"findings": [{"code": "a", "severity": "info", "node": "", "message": 3}]},
    "a list for a value": {"findings": [{"code": "a", "severity": "info", "node": "", "message": "", "value": []}]},
}


@pytest.mark.parametrize("report", DAMAGED.values(), ids=DAMAGED)
def test_a_report_that_was_edited_is_refused(report: dict[str, Any]) -> None:
    program = dataclasses.replace(nervecord.compile(random_policy()), report=report)
    with pytest.raises(FileFormatError, match=r"report\.json"):
        nervecord.inspect(program, "lava")


def test_a_finding_comes_back_from_its_data() -> None:
    finding = Finding("a-code", "warning", "lif1", "is so", 3, 2.5, "do", "lava", "a paper")
    assert Finding.from_dict(finding.to_dict()) == finding


def test_actions_of_many_steps_are_calibrated_on_few_observations_or_refused() -> None:
    def plan_of(steps: int, state: str) -> Plan:
        return plan(random_policy(sizes=(3, 4, 2), steps=steps, state=state))

    assert affordable(plan_of(5, "carried"), 2048) == affordable(plan_of(5, "reset"), 2048) == 2048
    assert affordable(plan_of(1 << 14, "carried"), 64) == 4
    assert affordable(plan_of((1 << 16) - 1, "carried"), 64) == 1
    # Independent windows are run side by side, as many as memory takes.
    wide = plan_of(1 << 14, "reset")
    assert affordable(wide, 4096) == 4 * max(map(len, batches(wide, np.zeros((4096, 3)))))
    with pytest.raises(ContractError, match=r"\b8193 steps .*\b8192 "):
        affordable(plan_of((1 << 13) + 1, "carried"), 64, steps=SEARCH_STEPS)
    with pytest.raises(ContractError, match=r"values .*\b134217728 "):
        affordable(plan(random_policy(sizes=(3, 3000, 2), steps=1 << 16)), 64)
    deep = plan(random_policy(sizes=(3, *[2] * 40, 2), steps=1 << 10, state="carried"))
    assert affordable(deep, 4096) == (1 << 16) * 16 // (deep.window * len(deep.core)) < 64


def test_spikes_are_counted_on_few_observations_where_an_action_takes_many_steps(monkeypatch: Any) -> None:
    """Steps of all nodes together are bounded: a file of a few numbers may ask for any."""
    policy = nervecord.compile(random_policy(sizes=(3, 6, 2), steps=50), "lava").policy
    rows = np.random.default_rng(0).normal(size=(30, 3))
    whole = measured_spikes(policy, rows)
    monkeypatch.setattr(measured, "STEPS", 4 * plan(policy).window * len(policy.graph.nodes))
    first = measured_spikes(policy, rows)
    assert first == measured_spikes(policy, rows[:4]) != whole
    monkeypatch.setattr(measured, "STEPS", 1)
    assert measured_spikes(policy, rows) == measured_spikes(policy, rows[:1])


@pytest.mark.long
def test_a_chip_whose_connections_take_many_steps_is_judged_on_few_observations(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """What the integers take of time is the chip's: a float policy of 5 steps becomes one of thousands."""
    (tmp_path / "slow.toml").write_text(
        'name = "slow"\n[arithmetic]\nweight_bits = 8\nmembrane_bits = 24\ndecay_bits = 12\nthreshold_bits = 17\n'
        "graded_bits = 16\nconnection_delay = 300\n"
    )
    policy = random_policy(bias=0.0)
    assert policy.recorded is not None
    monkeypatch.setattr(calibrate, "MEMORY", 1)  # one window after another
    monkeypatch.setattr(choose, "in_time", lambda network_plan: in_time(network_plan, 4000))
    monkeypatch.setattr(choose, "SEARCH_STEPS", 1000)
    monkeypatch.setattr(measured, "STEPS", 50_000)
    program = nervecord.compile(policy, nervecord.target(file=tmp_path / "slow.toml"))
    network_plan = plan(program.policy)
    assert network_plan.window > 600
    assert program.report["lowering"]["observations"] == 4000 // network_plan.window < len(policy.recorded)
    rows = 50_000 // (network_plan.window * len(network_plan.graph.nodes))
    assert 1 < rows < len(policy.recorded)
    monkeypatch.setattr(measured, "STEPS", 1 << 20)
    assert program.report["spikes_per_action"] == measured_spikes(program.policy, policy.recorded[:rows])
