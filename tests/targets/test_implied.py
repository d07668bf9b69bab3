"""Facts that follow from an arithmetic, contradictions, and chips that a user describes by their arithmetic alone."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies import random_policy, with_node

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.check.table import errors, findings_of, verdict
from nervecord.compiler.compile import compile_graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Neuron
from nervecord.compiler.target import implied
from nervecord.compiler.target.protocol import TargetSpec
from nervecord.compiler.target.specfile import spec_from_dict
from nervecord.errors import FileFormatError, InfeasibleError
from nervecord.targets.catalogue import load_specs
from nervecord.targets.integers import IntegerTarget

LAVA = tomllib.loads((Path(__file__).parents[2] / "targets" / "lava" / "spec.toml").read_text(encoding="utf-8"))


def described(**arithmetic: Any) -> TargetSpec:
    """A chip of which nothing is said but its arithmetic: Lava's, with these changes."""
    return spec_from_dict(bare(**arithmetic))


def bare(**arithmetic: Any) -> dict[str, Any]:
    header = {name: LAVA[name] for name in ("title", "summary", "nodes")}
    open_end = {
        "cores": {"value": "unlimited", "source": "made up", "confidence": "exact"},
        "neurons": {"value": 10_000, "source": "made up", "confidence": "exact"},
    }
    return {
        **header,
        "name": "mine",
        "engines": [],
        "arithmetic": {**LAVA["arithmetic"], **arithmetic},
        "behaviour": {},
        "limits": open_end,
    }


@pytest.mark.parametrize("spec", [spec for spec in load_specs() if spec.integers is not None], ids=lambda s: s.name)
def test_what_a_spec_says_is_what_its_arithmetic_says(spec: TargetSpec) -> None:
    assert isinstance(spec.integers, Arithmetic)
    implied_facts = {**implied.behaviour(spec.integers), **implied.limits(spec.integers)}
    facts = {name: fact.value for name, _, fact in spec.facts()}
    assert {name: facts[name] for name in implied_facts if name not in implied.FREE} == {
        name: value for name, value in implied_facts.items() if name not in implied.FREE
    }
    # Less than a message could carry is used, so that sums stay small.
    assert spec.integers.graded_bits <= facts["message_bits"]


def test_what_is_left_open_follows() -> None:
    spec = described(reset="subtract", spikes_per_step=1, bias_bits=0, graded_bits=0, delay_max=7)
    assert spec.behaviour.resets.value == ("subtract",)
    assert (spec.behaviour.bias.value, spec.behaviour.graded_input.value, spec.behaviour.leak.value) == (
        False,
        False,
        "no",
    )
    assert (spec.limits.delay_max.value, spec.limits.message_bits.value) == (7, 1)
    assert spec.limits.delay_max.source.startswith("[arithmetic]: lava-nc")
    # Nothing follows about what no arithmetic says.
    assert spec.limits.fan_in.value is None


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("behaviour", "resets", ["subtract"]),
        ("behaviour", "clears_buffers", True),
        ("behaviour", "decays", "shift"),
        ("behaviour", "per_neuron", ["threshold"]),
        ("limits", "weight_bits", 4),
        ("limits", "delay_max", 62),
    ],
)
def test_a_fact_that_contradicts_is_refused_by_key(section: str, name: str, value: Any) -> None:
    data = bare()
    data[section] = {**data[section], name: {"value": value, "source": "made up", "confidence": "exact"}}
    with pytest.raises(FileFormatError, match=rf"{section}\.{name}: says .* follows"):
        spec_from_dict(data)


def test_a_chip_may_have_less_than_its_arithmetic_can() -> None:
    data = bare()
    data["behaviour"] = {"recurrence": {"value": False, "source": "made up", "confidence": "exact"}}
    assert spec_from_dict(data).behaviour.recurrence.value is False


def spike(policy: Policy, **changes: Any) -> Policy:
    """The policy with its hidden neurons' spike changed."""
    op = policy.graph.nodes["lif1"]
    assert isinstance(op, Neuron)
    assert op.spike is not None
    return with_node(policy, "lif1", op.replace(spike=dataclasses.replace(op.spike, **changes)))


def shifted(policy: Policy) -> Policy:
    """The policy with decays of one half, which every arithmetic has."""
    for name in ("lif1", "readout"):
        op = policy.graph.nodes[name]
        assert isinstance(op, Neuron)
        membrane = dataclasses.replace(op.membrane, decay=np.full(op.size, 0.5))
        policy = with_node(policy, name, op.replace(membrane=membrane))
    return policy


CHIPS: dict[str, tuple[dict[str, Any], Callable[[Policy], Policy], str]] = {
    "Lava's": ({}, lambda p: p, ""),
    "reset by subtraction": ({"reset": "subtract"}, lambda p: spike(p, reset="subtract"), ""),
    "reset by subtraction, of a network that resets to zero": ({"reset": "subtract"}, lambda p: p, "reset-rule"),
    "fires at equality": ({"compare": ">="}, lambda p: p, ""),
    "no bias": ({"bias_bits": 0}, lambda p: p, "bias"),
    "binary spikes": ({"graded_bits": 0}, lambda p: p, "graded-input"),
    "membranes that nobody reads": ({"readout": "none"}, lambda p: p, "membrane-readout"),
    "decays by shifts": (
        {"decay": "shift", "decay_bits": 4, "decay_rounding": "floor", "current_decay_low": 0},
        shifted,
        "",
    ),
    "narrow membranes": ({"membrane_bits": 16, "current_bits": 16, "threshold_bits": 9}, lambda p: p, ""),
    "a bias that enters the current": (
        {"bias_enters": "current"},
        lambda p: random_policy(sizes=(5, 8, 2), current=True),
        "",
    ),
}
"""What is changed in Lava's arithmetic, what in a policy, and the code that then speaks against it."""


@pytest.mark.parametrize("what", CHIPS)
def test_rules_and_lowering_agree_about_a_chip_that_is_described(what: str) -> None:
    changes, change, code = CHIPS[what]
    spec = described(**changes)
    policy = change(random_policy(sizes=(5, 8, 2)))
    findings = findings_of(policy, spec)
    assert {finding.code for finding in findings if finding.severity == "error"} == ({code} if code else set())
    if code:
        assert [finding.code for finding in errors(policy, spec)] == [code] * len(errors(policy, spec))
        with pytest.raises(InfeasibleError):
            compile_graph(policy, IntegerTarget(spec))
        return
    assert verdict(findings) == "feasible"
    lowering: Any = compile_graph(policy, IntegerTarget(spec)).report["lowering"]
    assert lowering["action_error_rms"] < 0.2
