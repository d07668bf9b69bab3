"""The verb `compare`: where two policies part, and whether they agree as closely as was asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nervecord.runtime.compare import Comparison, LayerComparison


@pytest.mark.parametrize("mode", ["free", "layers"])
def test_compare_a_policy_with_its_program(mode: str, nervecord_cli: Any, files: Path) -> None:
    answer = nervecord_cli("compare", files / "ant.nir", files / "ant.nervecord", "--mode", mode, "--json")
    assert (answer.code, answer.err) == (0, "")
    data = answer.json
    assert (data["mode"], data["observations"], data["b"]) == (mode, 64, "emulator")
    assert [layer["layer"] for layer in data["layers"]] == ["lif1", "readout"]
    assert data["identical"] is False
    assert {"action", "step", "layer", "neuron", "a", "b"} == set(data["first"])
    assert 0 < data["action_rms"] < data["action_max"]
    text = nervecord_cli("compare", files / "ant.nir", files / "ant.nervecord", "--mode", mode).out
    assert f"they part at action {data['first']['action']}, step" in text


def test_compare_engines_on_rows_of_a_file(nervecord_cli: Any, files: Path) -> None:
    path = files / "ant.nervecord"
    answer = nervecord_cli(
        "compare", path, path, "--engine-b", "definition", "--observations", files / "rows.npz", "--json"
    )
    assert (answer.json["identical"], answer.json["observations"], answer.json["first"]) == (True, 10, None)
    assert (answer.json["a"], answer.json["b"]) == ("emulator", "definition")


@pytest.mark.parametrize("mode", ["free", "layers"])
def test_compare_within_a_tolerance(mode: str, nervecord_cli: Any, files: Path) -> None:
    words = ("compare", files / "ant.nir", files / "ant.nervecord", "--mode", mode, "--json", "--tolerance")
    loose, tight, nothing = (nervecord_cli(*words, value) for value in (10, 1e-9, 0))
    assert [answer.code for answer in (loose, tight, nothing)] == [0, 2, 2]
    assert [answer.json["agrees"] for answer in (loose, tight, nothing)] == [True, False, False]
    # Spikes differ within any tolerance, and are named all the same.
    assert loose.json["identical"] is False
    assert loose.json["first"] is not None
    assert loose.json["tolerance"] == 10
    assert nervecord_cli(*words[:-2], "--tolerance", 10).out.endswith("\nwithin the tolerance of 10\n")
    assert nervecord_cli(*words[:-2], "--tolerance", 0).out.endswith("\nbeyond the tolerance of 0\n")


def test_compare_asks_for_everything_with_a_tolerance_of_zero(nervecord_cli: Any, files: Path) -> None:
    path, rows = files / "ant.nervecord", files / "rows.npz"
    words = ("compare", path, path, "--engine-b", "definition", "--observations", rows, "--tolerance", 0)
    assert nervecord_cli(*words).code == 0
    assert nervecord_cli(*words[:-2], "--json").json["agrees"] is True


def compared(**changes: Any) -> Comparison:
    """A comparison of a policy with one layer of spikes and a readout; equal but for the changes."""
    return Comparison(**{
        "a": "x", "b": "y", "mode": "free", "observations": 5, "epsilon": 0.0, "tolerance": 0.5, "alone": (),
        "layers": (
            LayerComparison("lif", True, 10, changes.pop("spikes", 0), None, 1.0, None),
            LayerComparison("readout", False, 10, changes.pop("membranes", 0), None, 0.4, None),
        ),
        "action_rms": 0.1, "action_max": 0.4, "actions_different": 3, "actions_beyond": 0, "first": None, **changes,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("comparison", "within"),
    [
        (compared(actions_different=0), True),
        (compared(), True),
        (compared(spikes=4), True),
        (compared(actions_beyond=1), False),
        (compared(membranes=1), False),
        (compared(tolerance=0.0, actions_different=0), True),
        (compared(tolerance=0.0, actions_beyond=3), False),
        (compared(tolerance=0.0, actions_different=0, spikes=1), False),
        (compared(action_max=None, action_rms=None, actions_beyond=3), False),
    ],
)
def test_what_lies_within_a_tolerance(comparison: Comparison, within: bool) -> None:
    assert comparison.agrees is within


def test_compare_without_observations(nervecord_cli: Any, files: Path) -> None:
    path = files / "ant.nervecord"
    nervecord_cli("compare", path, path).refused("observations: none of these policies carries recorded ones")
    nervecord_cli("compare", files / "ant.nir", files / "pendulum.nir").refused("observations: have shape (64, 27)")
