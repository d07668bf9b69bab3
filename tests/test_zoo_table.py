"""docs/zoo.md says what the zoo's evaluations say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from scripts import script

ZOO = Path(__file__).parents[1] / "zoo"


@pytest.fixture(scope="module")
def results() -> ModuleType:
    return script("zoo/results.py")


def test_the_page_is_that_of_the_evaluations(results: ModuleType, stored: Callable[[Path, str], None]) -> None:
    text = results.document()
    stored(results.DOCUMENT, text)
    ant = json.loads((ZOO / "ant" / "seed-2" / "evaluation-fixed.json").read_text())
    assert f"| {ant['return_mean']:,.0f} ± {ant['return_ci95']:,.0f} |" in text
    assert "- Without a policy: none." in text


def test_both_sides_of_a_row_are_the_same_episodes(results: ModuleType) -> None:
    rows = list(results.rows())
    assert {(row.name, row.seed) for row in rows} >= {
        ("ant", 3),
        ("ant", 2),
        ("ant", 4),
        ("halfcheetah", 1),
        ("halfcheetah", 2),
        ("halfcheetah", 3),
        ("hopper", 1),
        ("hopper", 2),
        ("hopper", 3),
        ("humanoid", 1),
        ("humanoid", 2),
        ("walker2d", 1),
        ("walker2d", 2),
    }
    for row in rows:
        for plain, fixed in zip(*row.sides, strict=True):
            assert (plain["seed"], plain["episodes"], plain["env"]) == (fixed["seed"], fixed["episodes"], row.task)
            assert plain["target"] == "reference"


def test_the_ants_episodes_end_where_the_record_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two that end first, played again: above the greatest height, and so once more from a state before."""
    falls = script("zoo/falls.py")
    monkeypatch.setattr(falls, "LANES", 2)
    record = json.loads((falls.TARGET / "falls.json").read_text())
    assert len(record["ends"]) == 87
    assert all(end["height"] > 1.0 for end in record["ends"])
    first = sorted(record["ends"], key=lambda end: end["step"])[:2]
    played = list(falls.replay(record["seed"], record["episodes"], [end["episode"] for end in first]))
    for episode, end in zip(sorted(played, key=lambda each: len(each.states)), first, strict=True):
        assert (episode.number, len(episode.states), episode.ended) == (end["episode"], end["step"], True)
        assert episode.last[2] == pytest.approx(end["height"], abs=1e-3)
    environments = falls.make_environments("Ant-v4", 2, ())
    with falls.nervecord.open(falls.ANT / "ant.nervecord", trace=False) as session:
        session.reset(2)
        assert falls.branch(environments, session.step, played, 3, None) == 1.0
