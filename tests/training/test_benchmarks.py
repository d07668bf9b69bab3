"""The benchmarks of training run, on little, and measure something."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("measure", "train_cost", "fused_update", "warp_speed"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_train_cost_tells_the_simulators_time_from_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    import train_cost  # type: ignore[import-not-found]

    times = train_cost.main(["--updates", "1", "--num-envs", "4", "--minibatch", "64", "--neurons", "8"])
    assert times["simulator"] > 20, "Ant takes longer than that anywhere"
    assert times["outside"] > 1
    assert times["training"] == pytest.approx(times["simulator"] + times["outside"])
    assert "outside it" in capsys.readouterr().out


def test_fused_update_compares_the_two(capsys: pytest.CaptureFixture[str]) -> None:
    import fused_update  # type: ignore[import-not-found]

    times = fused_update.main(["--batch", "16", "--neurons", "8", "--rounds", "2"])
    assert times["fused"] > 0
    assert times["snntorch"] > 0
    assert "largest difference of a weight's gradient" in capsys.readouterr().out


def test_warp_speed_says_what_is_missing_or_measures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import warp_speed  # type: ignore[import-not-found]

    monkeypatch.setattr(sys, "argv", ["warp_speed.py", "--worlds", "2", "--steps", "2", "--device", "cpu"])
    warp_speed.main()
    out = capsys.readouterr().out
    assert "not measured: " in out or out.splitlines()[-1].split()[0] == "2"
