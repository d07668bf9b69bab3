"""A learner is two files and a simulator a file and its declaration: all else follows, and no other file is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
ADDITIONS = Path(__file__).parent / "additions"
KIND = """
    SimulatorKind(
        "cart",
        "carts of a test",
        f"{_HERE}.cart:CartSimulator",
        (),
        ("numpy",),
        "",
        title="Carts",
        tasks=("Cart-v0",),
        knows_gymnasium=False,
        trial="print('rolls')",
    ),
"""
PROBE = """
import contextlib, importlib.util, io, json, sys
from pathlib import Path
from nervecord.cli.command import main
from nervecord.cli.doctor import PARTS, try_part

def run(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}

runs, reference = Path(sys.argv[1]), sys.argv[2]
small = ["--sim", "cart", "--env", "Cart-v0", "--num-envs", "4", "--checkpoint-every", "128", "--quiet", "--json",
         "--validation-episodes", "2", "--test-episodes", "4", "--no-tensorboard", "--out", str(runs)]
climb = ["train", "--algorithm", "climb", *small]
spiking = ["--layers", "8", "--rollout", "16", "--minibatch", "32", "--epochs", "1", "--steps", "128", *small]
spec = importlib.util.spec_from_file_location("reference", reference)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
(part,) = [part for part in PARTS if part.name == "Carts"]
print(json.dumps({
    "help": run("train", "--help"),
    "bounds": run(*climb, "--stride", "0", "--name", "none"),
    "another's": run("train", "--stride", "1", "--name", "none"),
    "task": run(*climb, "--env", "Ant-v4", "--name", "none"),
    "trained": run(*climb, "--stride", "0.3", "--steps", "1024", "--name", "climb"),
    "resumed": run("train", "--resume", str(runs / "climb"), "--steps", "1536", "--stride", "0.1", "--quiet", "--json"),
    "distilled": run("distill", str(runs / "climb"), *spiking, "--name", "student"),
    "copied": run("distill", str(runs / "climb"), *spiking, "--algorithm", "copy", "--name", "copy"),
    "spiking": run("train", *spiking, "--name", "spiking"),
    "reference": module.document(),
    "doctor": try_part(part).to_dict(),
}))
"""


def link(source: Path, target: Path, *real: str) -> None:
    """The folder `source` as links, but for the folders `real`, which are created and stay empty."""
    target.mkdir()
    for path in source.iterdir():
        if path.name not in (*real, "__pycache__", ".git"):
            (target / path.name).symlink_to(path)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command line says in a copy of the package that has two more files for a learner, and a simulator."""
    folder = tmp_path_factory.mktemp("additions")
    package = folder / "nervecord"
    link(ROOT, package, "training")
    link(ROOT / "training", package / "training", "algorithms", "learners", "simulators")
    for name in ("algorithms", "learners", "simulators"):
        link(ROOT / "training" / name, package / "training" / name)
    shutil.copy(ADDITIONS / "climb.py", package / "training/algorithms/climb.py")
    shutil.copy(ADDITIONS / "climb_learner.py", package / "training/learners/climb.py")
    shutil.copy(ADDITIONS / "cart.py", package / "training/simulators/cart.py")
    kinds = package / "training/simulators/kinds.py"
    text = kinds.read_text()
    kinds.unlink()
    before, end, after = text.partition("\n)\n\nKINDS: ")
    kinds.write_text(before + KIND.rstrip() + end + after)
    process = subprocess.run(
        [sys.executable, "-c", PROBE, folder / "runs", ROOT / "docs/training_reference.py"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(folder)},
        cwd=folder,
    )
    assert process.returncode == 0, process.stderr
    answers: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return {**answers, "runs": folder / "runs"}


def test_flags_checks_and_documents_follow(answers: dict[str, Any]) -> None:
    text = " ".join(answers["help"]["out"].split())
    for words in ("climb, random search for a linear policy", "--stride", "cart (carts of a test)"):
        assert words in text
    for case, words in (
        ("bounds", "--stride"),
        ("another's", "--stride: has no meaning with --algorithm ppo, only with climb"),
        ("task", "Ant-v4 is no task of the simulator cart"),
    ):
        assert answers[case]["code"] == 2
        assert words in answers[case]["err"]
    assert "| `climb` | random search for a linear policy | nothing | its own network" in answers["reference"]
    assert "| `--stride` | 0.1 | number, above 0 | yes |" in answers["reference"]
    assert "| `cart` | carts of a test | none |" in answers["reference"]


def test_it_trains_resumes_and_is_imitated(answers: dict[str, Any]) -> None:
    for case in ("trained", "resumed", "distilled", "copied", "spiking"):
        assert answers[case]["code"] == 0, answers[case]["err"]
    training, resumption, distillation = (
        json.loads(answers[name]["out"]) for name in ("trained", "resumed", "distilled")
    )
    assert training["policy"] is None  # as it declares that its networks are its own
    assert training["test"]["episodes"] == 4
    assert resumption["config"]["algorithm"]["stride"] == 0.1
    rows = [json.loads(line) for line in (answers["runs"] / "climb" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 1536
    assert rows[-1]["best_reward"] > rows[0]["best_reward"]
    assert distillation["config"]["algorithm"]["teacher"] == str(answers["runs"] / "climb")
    assert [json.loads(answers[name]["out"])["config"]["algorithm"]["name"] for name in ("distilled", "copied")] == [
        "distill",
        "copy",
    ]


def test_the_simulator_is_recorded_tried_and_exported_from(answers: dict[str, Any]) -> None:
    versions = json.loads((answers["runs"] / "spiking" / "versions.json").read_text())
    assert versions["simulator"] == "cart"
    assert answers["doctor"]["status"] == "works"
    assert answers["doctor"]["note"] == "rolls"
    assert Path(json.loads(answers["spiking"]["out"])["policy"]).is_file()
