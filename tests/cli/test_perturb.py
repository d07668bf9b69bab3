"""compile --certify --perturb: both policies where the world is not as in training."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from policies import random_policy

from nervecord.cli import html as page
from nervecord.errors import NervecordError
from nervecord.runtime.measure.robustness import Perturbation, Perturbed, _World
from nervecord.runtime.worker.environment import make_environment

pytest.importorskip("gymnasium")
# Short episodes: what is compared is the same.
CERTIFIED = ("--env", "Pendulum-v1", "--wrappers", "TimeLimit:20", "--certify", "90%", "--certify-episodes", 50)


def test_a_table_and_a_picture(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    picture = tmp_path / "robustness.png"
    words = ("compile", files / "pendulum.nir", *CERTIFIED, "--perturb", "noise=2", "latency=5", "--picture", picture)
    answer = nervecord_cli(*words, "--json")
    assert answer.code == 0, answer.err
    trained, noise, late = answer.json["robustness"]
    assert [row["perturbation"] for row in (trained, noise, late)] == ["as trained", "noise 2", "latency 5"]
    # As trained, the first fifty pairs are those of the certificate.
    certificate = answer.json["report"]["certificate"]
    assert trained["return_float"] == pytest.approx(certificate["return_float"])
    assert trained["return_compiled"] == pytest.approx(certificate["return_compiled"])
    for row in (noise, late):
        assert row["episodes"] == 50
        assert row["return_float"] != trained["return_float"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_page_shows_them(files: Path, tmp_path: Path) -> None:
    for needed in ("plotly", "jinja2", "networkx"):
        pytest.importorskip(needed)
    floating, compiled = np.array([10.0, 12.0]), np.array([8.0, 9.0])
    rows = [Perturbed(case, floating, compiled).to_dict() for case in (None, Perturbation("noise", 2.0))]
    page.write(tmp_path / "a.html", [files / "pendulum.nervecord"], robustness=rows)
    text = (tmp_path / "a.html").read_text()
    for words in ("return, as trained", "return, noise 2", "loss +22.7% ±", "2 paired episodes"):
        assert words in text


def test_what_cannot_be_perturbed(nervecord_cli: Any, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("compile", files / "pendulum.nir")
    nervecord_cli(*words, "--perturb", "noise=1").refused("--perturb: ", "--certify 1%")
    nervecord_cli(*words, "--picture", "x.png").refused("--picture: ", "--perturb)")
    few = (*words, "--env", "Pendulum-v1", "--certify", "1%", "--certify-episodes", 10)
    nervecord_cli(*few).refused("--certify-episodes: is 10", "50")
    # Before anything is compiled, which may take minutes.
    monkeypatch.setattr("nervecord.compile", lambda *_, **__: pytest.fail("it was compiled"))
    certified = (*words, *CERTIFIED, "--perturb")
    nervecord_cli(*certified, "wind=1").refused("'wind'", "latency")
    nervecord_cli(*certified, "noise").refused("'noise' ", "KIND=NUMBER")
    nervecord_cli(*certified, "latency=0.5").refused("latency ", " 0.5")
    nervecord_cli(*certified, "friction=0.5").refused("friction ", "Pendulum-v1")


def test_the_world_is_what_was_asked_for() -> None:
    pytest.importorskip("mujoco")
    contract = random_policy(sizes=(4, 8, 1)).contract

    def world(kind: str, value: float) -> Any:
        return _World(make_environment("InvertedPendulum-v4"), Perturbation(kind, value), np.full(4, 0.5), contract)

    plain = make_environment("InvertedPendulum-v4")
    for kind, field in (("mass", "body_mass"), ("mass", "body_inertia"), ("friction", "geom_friction")):
        changed = getattr(world(kind, 1.5).unwrapped.model, field)
        np.testing.assert_allclose(changed, 1.5 * getattr(plain.unwrapped.model, field))
    first, _ = plain.reset(seed=3)
    noisy, other = world("noise", 0.1), world("noise", 0.1)
    observation = noisy.reset(seed=3)[0]
    assert 0 < np.abs(observation - first).max() < 0.5
    np.testing.assert_array_equal(observation, other.reset(seed=3)[0])  # both policies see the same noise
    # An action comes two steps late, after the fail-safe one.
    late, direct = world("latency", 2), make_environment("InvertedPendulum-v4")
    late.reset(seed=3)
    direct.reset(seed=3)
    push, idle = np.array([0.4], np.float32), np.array(contract.fail_safe[:1], np.float32)
    for action, due in ((push, idle), (-push, idle), (push, push), (push, -push)):
        np.testing.assert_array_equal(late.step(action)[0], direct.step(due)[0])
    with pytest.raises(NervecordError, match=r"noise .*-1"):
        Perturbation("noise", -1.0)


def test_the_trained_policy_resets_as_was_said(nervecord_cli: Any, tmp_path: Path) -> None:
    """--reset is of both sides: compiled to floats, nothing is lost."""
    rng = np.random.default_rng(3)
    one = np.ones(12)
    nodes = {
        "in": nir.Input({"input": np.array([3])}),
        "fc": nir.Affine(rng.normal(size=(12, 3)), one),
        "lif": nir.LIF(0.004 * one, one, 0 * one, one, 0 * one),
        "fc2": nir.Affine(rng.normal(size=(1, 12)), np.zeros(1)),
        "li": nir.LI(np.full(1, 0.004), np.ones(1), np.zeros(1)),
        "out": nir.Output({"output": np.array([1])}),
    }
    nir.write(tmp_path / "net.nir", nir.NIRGraph(nodes, list(itertools.pairwise(nodes))))
    assert nervecord_cli("contract", "--env", "Pendulum-v1", "-o", tmp_path / "contract.toml").code == 0
    np.savez(tmp_path / "rows.npz", observations=rng.normal(size=(20, 3)))
    words = (
        "compile",
        tmp_path / "net.nir",
        "--dt",
        "1e-3",
        "--contract",
        tmp_path / "contract.toml",
        "--reset",
        "subtract",
        "--target",
        "reference",
        "--calibration",
        tmp_path / "rows.npz",
        *CERTIFIED,
        "--json",
    )
    answer = nervecord_cli(*words)
    assert answer.code == 0, answer.err
    nervecord_cli(*words[:10], *CERTIFIED).refused("--calibration FILE")
    certificate = answer.json["report"]["certificate"]
    assert certificate["action_error"]["max"] == 0
    assert certificate["return_float"] == certificate["return_compiled"]
