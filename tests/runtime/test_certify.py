"""The certificate: its interval, its verdict, and that it plays until the interval is narrow enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nervecord
from nervecord.errors import NervecordError
from nervecord.runtime.measure.certify import LEAST, Certificate
from nervecord.runtime.result import interval95

pytest.importorskip("gymnasium")
ZOO = Path(__file__).parents[2] / "zoo" / "cartpole"


def certificate(floating: list[float], compiled: list[float], tolerance: float = 0.01) -> Certificate:
    return Certificate(tolerance, {"max": 0.1}, 10, "CartPole-v1", 0, np.array(floating), np.array(compiled))


def test_the_loss_is_that_of_the_pairs() -> None:
    floating, compiled = np.array([100.0, 300.0, 200.0]), np.array([99.0, 294.0, 201.0])
    result = certificate(floating.tolist(), compiled.tolist())
    assert result.loss == pytest.approx((1 + 6 - 1) / 3 / 200)
    # Over the pairs: the spread of the returns themselves is not in it.
    assert result.half == pytest.approx(interval95(floating - compiled) / 200)
    assert result.half < interval95(floating) / 200 / 10


def test_its_verdict_has_three_values() -> None:
    same = [100.0] * 5
    assert certificate(same, [99.5] * 5).verdict == "holds"
    assert certificate(same, [95.0] * 5).verdict == "fails"
    assert certificate(same, [99.9, 95.0, 104.0, 99.0, 98.0]).verdict == "open"
    # A return below zero: less is worse all the same.
    assert certificate([-100.0] * 5, [-105.0] * 5).verdict == "fails"
    assert certificate([-100.0] * 5, [-95.0] * 5).verdict == "holds"


def test_it_plays_until_the_interval_is_narrow() -> None:
    rounds: list[tuple[int, int, float]] = []
    result = nervecord.certify(
        ZOO / "cartpole.nervecord",
        ZOO / "policy.nir",
        progress=lambda *row: rounds.append(row),
        most=100,
        wrappers=("TimeLimit:40",),
    )
    assert result.verdict == "holds"
    assert (result.environment, len(result.floating), result.observations) == ("CartPole-v1", LEAST, 2048)
    assert rounds == [(LEAST, 100, result.half)]
    assert 0 < result.error["different"] < 0.05


@pytest.mark.long
def test_it_plays_more_where_the_returns_spread(tmp_path: Path) -> None:
    weak = nervecord.compile(ZOO / "policy.nir", "lava", weight_bits=2)
    rounds: list[tuple[int, int, float]] = []
    result = nervecord.certify(
        weak, ZOO / "policy.nir", tolerance=0.002, most=100, environments=50, progress=lambda *row: rounds.append(row)
    )
    played = len(result.floating)
    assert played == 100 or (played < 100 and result.half <= 0.002)
    assert [row[0] for row in rounds] == list(range(50, played + 1, 50))
    assert np.isfinite(result.loss)


def test_what_makes_no_sense_is_refused() -> None:
    for value in (0.0, -1.0, float("nan")):
        with pytest.raises(NervecordError, match="above 0"):
            nervecord.certify(ZOO / "cartpole.nervecord", ZOO / "policy.nir", tolerance=value)
    with pytest.raises(NervecordError, match=r"\b50\b"):
        nervecord.certify(ZOO / "cartpole.nervecord", ZOO / "policy.nir", most=3)
