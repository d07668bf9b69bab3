"""docs/tutorials/foreign-network.md: a network trained in a loop of its owner becomes a policy in fixed point."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nervecord

pytest.importorskip("snntorch")
pytest.importorskip("nirtorch")
pytest.importorskip("gymnasium")
pytestmark = pytest.mark.long
PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "foreign-network.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    (code, inputs), (contract,) = blocks("python"), blocks("toml")
    (folder / "train.py").write_text(code + inputs, encoding="utf-8")
    (folder / "contract.toml").write_text(contract, encoding="utf-8")
    # In a process of its own: it is its owner's script, and its libraries warn as they like.
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "train.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr
    return folder


def test_it_balances_in_fixed_point(folder: Path) -> None:
    program = nervecord.compile(
        folder / "network.nir",
        "lava",
        dt=1e-4,
        contract=folder / "contract.toml",
        calibration=folder / "observations.npz",
    )
    program.save(folder / "cartpole.nervecord")
    assert program.report["lowering"]["choices_different"] <= 5
    with nervecord.open(folder / "cartpole.nervecord") as session:
        result = nervecord.run(session, episodes=5)
    assert result.mean > 450
    assert "500 ± 0" in PAGE.read_text(encoding="utf-8")


def test_it_runs_without_a_contract_on_every_engine(folder: Path) -> None:
    x = np.load(folder / "observations.npz")["observations"] / np.array([1.0, 1.0, 0.1, 1.0])
    for steps in (None, 8):
        program = nervecord.compile(
            folder / "network.nir", "lava", dt=1e-4, inputs=5.0, steps=steps, calibration=x.clip(-5, 5)
        )
        outputs = {}
        for engine in ("emulator", "definition"):
            with nervecord.stream(program, engine=engine) as session:
                outputs[engine] = session.run(x)["output"]
        assert outputs["emulator"].sum() > 0
        assert np.array_equal(outputs["emulator"], outputs["definition"])
        assert program.report["lowering"]["latency"] == 2


def test_the_contract_that_is_written_to_start_from_is_one(folder: Path) -> None:
    nervecord.contract("CartPole-v1", folder / "start.toml")
    program = nervecord.compile(
        folder / "network.nir", "lava", dt=1e-4, contract=folder / "start.toml", calibration=folder / "observations.npz"
    )
    assert program.policy.contract.choices == ("push left", "push right")
    assert program.policy.contract.observation.names[2] == "pole.angle"
