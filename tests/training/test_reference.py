"""The reference of trainings is what the declarations make of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nervecord.training.algorithms import ALGORITHMS
from nervecord.training.fields import flag_name
from nervecord.training.settings.config import all_fields
from nervecord.training.settings.reference import reference
from nervecord.training.simulators.kinds import KINDS

DOCUMENT = Path(__file__).parents[2] / "docs" / "training-reference.md"


def test_the_document_is_that_of_the_declarations(request: pytest.FixtureRequest) -> None:
    text = reference()
    for name in (*ALGORITHMS, *KINDS):
        assert f"| `{name}` |" in text
    for name in all_fields():
        assert f"| `{flag_name(name)}` |" in text
    if request.config.getoption("--update-golden"):
        DOCUMENT.write_text(text, encoding="utf-8")
    assert text == DOCUMENT.read_text(encoding="utf-8"), "run with --update-golden"
