"""docs/zoo.md says what the zoo's evaluations say."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ZOO = Path(__file__).parents[1] / "zoo"


@pytest.fixture(scope="module")
def results() -> ModuleType:
    """zoo/results.py, which is no package's."""
    spec = importlib.util.spec_from_file_location("zoo_results", ZOO / "results.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_that_of_the_evaluations(results: ModuleType, request: pytest.FixtureRequest) -> None:
    text = results.document()
    if request.config.getoption("--update-golden"):
        results.DOCUMENT.write_text(text, encoding="utf-8")
    assert results.DOCUMENT.read_text(encoding="utf-8") == text, "run with --update-golden"
    ant = json.loads((ZOO / "ant" / "other-seed" / "evaluation-fixed.json").read_text())
    assert f"| {ant['return_mean']:,.0f} ± {ant['return_ci95']:,.0f} |" in text
    assert "- Without a policy: Walker2d-v4, Humanoid-v4." in text


def test_both_sides_of_a_row_are_the_same_episodes(results: ModuleType) -> None:
    rows = list(results.rows())
    assert {(row.name, row.seed) for row in rows} >= {("ant", 3), ("ant", 2), ("halfcheetah", 0), ("hopper", 0)}
    for row in rows:
        for plain, fixed in zip(*row.sides, strict=True):
            assert (plain["seed"], plain["episodes"], plain["env"]) == (fixed["seed"], fixed["episodes"], row.task)
            assert plain["target"] == "reference"
