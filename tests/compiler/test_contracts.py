"""Contracts as JSON: what is malformed is refused, and nothing is lost."""

from __future__ import annotations

import json

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import random_policy

from nervecord.compiler.findings import Finding
from nervecord.compiler.graph.contract import Channels, Contract
from nervecord.errors import ContractError

POLICY = random_policy(sizes=(5, 4, 2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 2.0}, "steps"),
        ({"steps": True}, "steps"),
        ({"latency": -1}, "latency"),
        ({"state": "kept"}, "state"),
        ({"control_period": 0.0}, "period"),
        ({"fail_safe": [0.0]}, "fail-safe"),
        ({"fail_safe": "ab"}, "fail_safe"),
        ({"surprise": 1}, "surprise"),
        ({"observation": {"names": ["a"], "units": []}}, "0 units .*1 "),
        ({"action": None}, "action"),
    ],
)
def test_malformed_contracts_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ContractError, match=words):
        Contract.from_dict({**POLICY.contract.to_dict(), **change})


PRINTABLE = st.text(st.characters(codec="utf-8")).filter(str.isprintable)


@settings(max_examples=examples(50), deadline=None)
@given(
    names=st.lists(PRINTABLE.filter(bool), min_size=1, max_size=4, unique=True),
    steps=st.integers(1, 99),
    period=st.floats(1e-6, 10, allow_nan=False),
    provenance=st.dictionaries(PRINTABLE, PRINTABLE, max_size=3),
)
def test_contracts_survive_their_json(names, steps, period, provenance) -> None:
    count = len(names)
    observed = Channels(tuple(names), ("m",) * count)
    acted = Channels(tuple(names), ("N",) * count, (-1.0,) * count, (1.0,) * count)
    contract = Contract("E", observed, acted, steps, "carried", period, (0.5,) * count, 7, provenance)
    again = Contract.from_dict(json.loads(contract.to_json()))
    assert again == contract
    assert again.to_json() == contract.to_json()
    missing = contract.to_dict()
    del missing["steps"]
    with pytest.raises(ContractError, match="steps"):
        Contract.from_dict(missing)


def test_a_finding_is_one_line_whatever_names_a_file_says() -> None:
    assert str(Finding("shape", "error", "a\nb", "takes what c\nd gives")) == r"a\nb: takes what c\nd gives"
