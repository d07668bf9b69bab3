"""A user's own task, from training to the loop; spaces that a wrapper makes fit; environments made in Python."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import own_task
import pytest

import nervecord
from nervecord.cli.command import main
from nervecord.compiler.files.contractfile import read_contract
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.nir.file import write_nir
from nervecord.errors import MissingDependencyError, NervecordError
from nervecord.training.simulators.make import make_simulator

SHORT = [
    "--steps",
    "512",
    "--num-envs",
    "4",
    "--rollout",
    "32",
    "--layers",
    "8",
    "--critic",
    "8",
    "--validation-episodes",
    "1",
    "--test-episodes",
    "2",
    "--no-tensorboard",
    "--quiet",
]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy for own_task:Point-v0, trained by the command line."""
    out = tmp_path_factory.mktemp("runs")
    assert main(["train", "--env", "own_task:Point-v0", *SHORT, "--out", str(out)]) == 0
    return out / "Point-v0-snn-8-seed0" / "policy.nir"


def test_a_task_of_ones_own_trains_and_runs(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contract = nervecord.read(policy).contract
    assert contract is not None
    assert contract.environment == "own_task:Point-v0"
    assert contract.control_period == pytest.approx(0.1)
    assert main(["run", str(policy), "--env", "own_task:Point-v0", "--episodes", "2", "--json"]) == 0
    assert '"episodes": 2' in capsys.readouterr().out


def test_a_task_without_a_period_is_refused_before_it_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--env", "own_task:Timeless-v0", *SHORT, "--out", str(tmp_path)]
    assert main(words) == 2
    assert "attribute dt" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    # A network that no NIR file holds needs none; and what goes wrong in the task is not said to be ours.
    assert main([*words, "--policy", "ann"]) == 2
    log = capsys.readouterr().err
    assert re.search(r"TypeError: .* \(in .*own_task.py, line \d+; --debug", log), log


def test_environments_made_in_python(policy: Path) -> None:
    def make() -> Any:
        return gymnasium.wrappers.TimeLimit(own_task.Point(), 50)

    with nervecord.open(policy) as session:
        by_name = nervecord.run(session, "own_task:Point-v0", 3, 7)
        by_function = nervecord.run(session, make, 3, 7, environments=2)
        by_object = nervecord.run(session, make(), 3, 7)
        assert by_name.returns.tolist() == by_function.returns.tolist() == by_object.returns.tolist()
        assert by_function.environment == "make"
        with pytest.raises(NervecordError, match=r"one .* 2 run"):
            nervecord.run(session, make(), 3, environments=2)
        with pytest.raises(NervecordError, match=r"env: .*int"):
            nervecord.run(session, 3, 3)
        with pytest.raises(NervecordError, match=r"\(4,\).*takes 2"):
            nervecord.run(session, lambda: gymnasium.make("CartPole-v1"), 1)


def test_spaces_that_do_not_fit_name_the_wrapper_that_helps() -> None:
    with pytest.raises(NervecordError, match=r"own_task:DictPoint-v0: .*Dict.*FlattenObs"):
        make_simulator("own_task:DictPoint-v0", [0])
    flat = make_simulator("own_task:DictPoint-v0", [0, 1], wrappers=("FlattenObservation",))
    assert flat.observation_size == 2
    assert flat.reset().shape == (2, 2)
    with pytest.raises(NervecordError, match="images"):
        make_simulator("own_task:ImagePoint-v0", [0])
    small = make_simulator("own_task:ImagePoint-v0", [0], wrappers=("FlattenObservation",))
    assert small.observation_size == 24 * 24 * 3
    if importlib.util.find_spec("cv2") is None:
        with pytest.raises(MissingDependencyError, match="opencv"):
            make_simulator("own_task:ImagePoint-v0", [0], wrappers=("ResizeObservation:4,4", "FlattenObservation"))
    with pytest.raises(NervecordError, match=r"FreePoint-v0: .*--wrappers module:Class"):
        make_simulator("own_task:FreePoint-v0", [0])
    narrow = make_simulator("own_task:FreePoint-v0", [0], wrappers=("own_task:Limited",))
    assert narrow.high.tolist() == [1.0]
    for simulator in (flat, small, narrow):
        simulator.close()


@pytest.fixture(scope="module")
def wrapped_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy trained on dicts of observations, which a wrapper makes one row of."""
    out = tmp_path_factory.mktemp("runs")
    words = ["train", "--env", "own_task:DictPoint-v0", "--wrappers", "FlattenObservation", "own_task:Limited"]
    assert main([*words, *SHORT, "--out", str(out)]) == 0
    return out / "DictPoint-v0-snn-8-seed0" / "policy.nir"


WRAPPED = ["--env", "own_task:DictPoint-v0", "--wrappers", "FlattenObservation", "own_task:Limited"]


@pytest.mark.long
def test_wrappers_travel_with_the_policy(
    wrapped_policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, program, short = str(wrapped_policy), str(tmp_path / "p.nervecord"), ["--episodes", "2", "--json"]
    contract = nervecord.read(policy).contract
    assert contract is not None
    assert contract.wrappers == ("FlattenObservation", "own_task:Limited")
    words = ["compile", policy, *WRAPPED, "--certify", "20%", "--certify-episodes", "50", "-o", program, "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["report"]["certificate"]["pairs"] == 50
    for file in (policy, program):
        assert main(["run", file, *WRAPPED, *short]) == 0
        assert json.loads(capsys.readouterr().out)["wrappers"] == list(contract.wrappers)
    assert main(["compare", policy, program, "--tolerance", "10"]) == 0
    capsys.readouterr()
    assert main(["compare", program, program, *WRAPPED, "--json"]) == 0  # programs carry no observations
    report = json.loads(capsys.readouterr().out)
    assert (report["observations"], report["identical"]) == (50, True)
    assert main(["compare", program, program, *WRAPPED[:2]]) == 2
    assert "--wrappers FlattenObservation own_task:Limited" in capsys.readouterr().err
    assert main(["compare", policy, program, *WRAPPED[2:]]) == 2
    assert re.search("--wrappers: .*--env ID", capsys.readouterr().err)
    assert main(["run", program, *WRAPPED, "--episodes", "1", "--video", str(tmp_path / "film.mp4")]) == 0
    assert (tmp_path / "film.mp4").stat().st_size > 1000
    capsys.readouterr()
    assert main(["inspect", program]) == 0
    assert "FlattenObservation, own_task:Limited" in " ".join(capsys.readouterr().out.split())


def test_wrappers_that_are_missing_are_named(
    wrapped_policy: Path,
    policy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need = "--wrappers FlattenObservation own_task:Limited"
    for words in (WRAPPED[:2], [*WRAPPED[:2], "--wrappers", "FlattenObservation"]):
        assert main(["run", str(wrapped_policy), *words, "--episodes", "1"]) == 2
        assert need in capsys.readouterr().err
    assert main(["compile", str(wrapped_policy), *WRAPPED[:2], "--certify", "1%"]) == 2
    assert need in capsys.readouterr().err
    # What a file names is never imported, also where it could be.
    (tmp_path / "eager_wrappers.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    task_policy = nervecord.read(wrapped_policy)
    assert isinstance(task_policy, Policy)
    write_nir(
        task_policy.replace(contract=dataclasses.replace(task_policy.contract, wrappers=("eager_wrappers:Any",))),
        "p.nir",
    )
    assert main(["run", "p.nir", *WRAPPED[:2], "--episodes", "1"]) == 2
    assert "--wrappers eager_wrappers:Any" in capsys.readouterr().err
    # A policy of an earlier version says nothing of wrappers; what its task gives says that one is missing.
    assert main(["run", str(policy), "--env", "own_task:DictPoint-v0", "--allow-other-env"]) == 2
    log = capsys.readouterr().err
    assert "Dict(" in log
    assert "--wrappers FlattenObservation" in log


def test_training_says_how_a_policy_of_ones_own_task_is_run(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from nervecord.cli.training import trained
    from nervecord.training.run import TrainResult
    from nervecord.training.settings.config import TrainConfig

    config = TrainConfig.of(env="own_task:DictPoint-v0", wrappers=("FlattenObservation",))
    outcome = trained(TrainResult(policy.parent, config, 512, None, None, policy))
    assert "nervecord run dictpoint.nervecord --env own_task:DictPoint-v0 --wrappers FlattenObservation" in str(
        outcome.text
    )
    plain = trained(TrainResult(policy.parent, TrainConfig.of(), 512, None, None, policy))
    assert "nervecord run" not in str(plain.text)


def test_a_contract_of_a_wrapped_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "contract.toml"
    assert main(["contract", *WRAPPED[:2]]) == 2
    assert "Dict('place'" in capsys.readouterr().err
    assert main(["contract", *WRAPPED, "-o", str(path)]) == 0
    assert read_contract(path).contract.wrappers == ("FlattenObservation", "own_task:Limited")


FILMED = """
import gymnasium, numpy
class Dot(gymnasium.Env):
    dt = 0.05
    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    observation_space = gymnasium.spaces.Box(-9, 9, (3,), numpy.float64)
    action_space = gymnasium.spaces.Box(-2, 2, (1,), numpy.float32)
    def __init__(self, render_mode=None):
        self.render_mode = render_mode
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.normal(size=3)
        return self.x, {}
    def step(self, action):
        self.x = self.x + float(action[0])
        return numpy.clip(self.x, -9, 9), 1.0, False, False, {}
    def render(self):
        return numpy.full((64, 64, 3), 128, numpy.uint8)
gymnasium.register("Reach-v0", "reach2:Dot", max_episode_steps=8)
"""


@pytest.mark.long
def test_a_module_in_the_working_directory_is_found_when_filming(policy: Path, tmp_path: Path) -> None:
    from policies import random_policy

    (tmp_path / "reach2.py").write_text(FILMED)
    robot = random_policy(sizes=(3, 8, 1), environment="reach2:Reach-v0", control_period=0.05)
    action = dataclasses.replace(robot.contract.action, low=(-2.0,), high=(2.0,))
    write_nir(robot.replace(contract=dataclasses.replace(robot.contract, action=action)), tmp_path / "p.nir")
    # As the command's script starts: the working directory is not on the path.
    start = (
        "import sys; sys.path[:1] = ['/nowhere']; from nervecord.cli.command import main; sys.exit(main(sys.argv[1:]))"
    )

    def nervecord_script(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", start, "run", "p.nir", "--episodes", "1", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )

    process = nervecord_script("--env", "reach2:Reach-v0", "--video", "film.mp4")
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "film.mp4").exists()
    process = nervecord_script("--env", "reach2:Nope-v0", "--video", "film2.mp4")
    assert process.returncode == 2
    assert "reach2:Reach-v0" in process.stderr


def test_names_that_are_not_there() -> None:
    with pytest.raises(NervecordError, match=r"own_tusk:Point-v0: .*'own_tusk'"):
        make_simulator("own_tusk:Point-v0", [0])
    with pytest.raises(NervecordError, match="'own_task:Pint-v0'"):
        make_simulator("own_task:Pint-v0", [0])
    with pytest.raises(NervecordError, match=r"'FlatenObservation'.*'FlattenObservation'"):
        make_simulator("own_task:Point-v0", [0], wrappers=("FlatenObservation",))
    with pytest.raises(NervecordError, match=r"own_task 'Limitet'.*'Limited'"):
        make_simulator("own_task:Point-v0", [0], wrappers=("own_task:Limitet",))
    with pytest.raises(NervecordError, match="own_task 'Wrap'"):
        make_simulator("own_task:Point-v0", [0], wrappers=("own_task:Wrap",))
    with pytest.raises(NervecordError, match="--sim envpool"):
        make_simulator("Ant-v4", [0], kind="envpool", wrappers=("FlattenObservation",))


def test_its_own_state_is_saved() -> None:
    import torch

    one, other = (make_simulator("own_task:Point-v0", seeds) for seeds in ([1, 2], [5, 6]))
    one.reset()
    for _ in range(20):
        one.step(torch.ones(2, 1))
    state = one.state_dict()
    assert state is not None
    other.load_state_dict(state)
    for _ in range(60):
        a, b = one.step(-torch.ones(2, 1)), other.step(-torch.ones(2, 1))
        assert torch.equal(a.observations, b.observations)
        assert torch.equal(a.truncated, b.truncated)
