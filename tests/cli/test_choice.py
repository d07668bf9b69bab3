"""The verbs with a task whose action is a choice: preset, compile, run, compare, inspect, refusals, a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nervecord.training.settings.presets import PRESETS


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of CartPole-v1, trained for a moment with the preset, and its program beside it."""
    from nervecord.cli.command import main

    pytest.importorskip("torch")
    out = tmp_path_factory.mktemp("runs")
    flags = ["--steps", "2048", "--validation-episodes", "0", "--test-episodes", "2", "--lr", "2e-3"]
    assert main(["train", "--env", "CartPole-v1", *flags, "--out", str(out), "--name", "run", "--quiet"]) == 0
    folder = out / "run"
    program = str(folder / "cartpole.nervecord")
    assert main(["compile", str(folder / "policy.nir"), "--target", "lava", "-o", program]) == 0
    return folder


def test_train_begins_with_the_preset_and_flags_replace_it(trained: Path) -> None:
    config = json.loads((trained / "config.json").read_text())
    preset = PRESETS["CartPole-v1"]
    assert config["network"]["layers"] == list(preset["layers"])
    assert config["algorithm"]["num_envs"] == preset["num_envs"]
    assert (config["algorithm"]["steps"], config["algorithm"]["lr"]) == (2048, 2e-3)


def test_compile_says_what_rounding_changes(nervecord_cli: Any, trained: Path) -> None:
    answer = nervecord_cli("compile", trained / "policy.nir")
    assert "choice differs" in answer.out
    assert "action error" not in answer.out
    report = nervecord_cli("compile", trained / "policy.nir", "--json").json["report"]["lowering"]
    assert 0 <= report["choices_different"] <= report["observations"] == 2048 // 16 // 2
    assert report["choice_ties"] >= 0


@pytest.mark.parametrize("name", ["policy.nir", "cartpole.nervecord"])
def test_run_and_picture(name: str, nervecord_cli: Any, trained: Path, tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    answer = nervecord_cli("run", trained / name, "--episodes", 2, "--picture", picture, "--json")
    assert answer.code == 0
    assert answer.json["env"] == "CartPole-v1"
    assert answer.json["return_mean"] == answer.json["length_mean"] > 8
    assert answer.json["fail_safe"] == {}
    assert picture.read_bytes().startswith(b"\x89PNG")
    video = nervecord_cli("run", trained / name, "--episodes", 1, "--video", tmp_path / "v.gif")
    assert video.code == 0
    assert "environment; the whole" in video.err
    assert (tmp_path / "v.gif").read_bytes().startswith(b"GIF")


def test_compare_and_inspect(nervecord_cli: Any, trained: Path) -> None:
    pair = (trained / "policy.nir", trained / "cartpole.nervecord")
    data = nervecord_cli("compare", *pair, "--mode", "layers", "--json").json
    assert (data["action_rms"], data["action_max"]) == (None, None)
    assert data["actions_different"] <= data["observations"]
    text = nervecord_cli("compare", *pair).out
    assert f"actions: {data['actions_different']} of {data['observations']} differ\n" in text
    inspected = nervecord_cli("inspect", trained / "policy.nir", "--target", "lava")
    assert "2 actions (push left, push right)" in " ".join(inspected.out.split())
    assert "feasible" in inspected.out
    policy = nervecord_cli("inspect", pair[1], "--target", "lava", "--json").json["graph"]["policy"]
    assert policy["choices"] == ["push left", "push right"]


def test_values_and_choices_do_not_mix(nervecord_cli: Any, files: Path, trained: Path) -> None:
    program = trained / "cartpole.nervecord"
    nervecord_cli("run", program, "--env", "Pendulum-v1").refused("Pendulum-v1: ", "CartPole-v1")
    nervecord_cli("run", program, "--env", "Pendulum-v1", "--allow-other-env").refused("Pendulum-v1: ", "(3,)")
    nervecord_cli("compare", trained / "policy.nir", files / "ant.nervecord").refused("observations: ", "27)")
