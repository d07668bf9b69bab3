"""Isaac Gym up to its seam: the real worker in another process, with scripted tasks in place of Isaac Gym's.

`isaac_fakes` stands for isaacgym and isaacgymenvs. NERVECORD_TEST_ISAACGYM_PYTHON may name a Python 3.8 with
numpy and torch, in which the worker then runs; without it the worker runs in this Python.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from simulating import InArrays, make_simulator

import nervecord
from nervecord.cli.command import main
from nervecord.compiler.nir.file import read_nir
from nervecord.errors import ContractError, EngineError, MissingDependencyError, NervecordError
from nervecord.runtime.worker import child as worker_child
from nervecord.targets.lava.environment import python_version
from nervecord.training import run
from nervecord.training.settings.config import TrainConfig
from nervecord.training.settings.tasks import ISAAC_GYM_ANT
from nervecord.training.simulators import isaac_gym
from nervecord.training.simulators.base import shared_seed
from nervecord.training.simulators.isaac_gym import HANDLER, VARIABLE, IsaacGymSimulator

pytestmark = pytest.mark.long

FAKES = Path(__file__).parent / "isaac_fakes"
LENGTHS = (4, 9, 11)
"""Steps of an episode of environment i % 3; the third is cut by the time limit."""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment as Isaac Gym's: its Python, its torch, and the fakes."""
    python = Path(os.environ.get("NERVECORD_TEST_ISAACGYM_PYTHON", sys.executable))
    folder = tmp_path_factory.mktemp("isaac") / "env"
    subprocess.run([str(python), "-m", "venv", "--without-pip", str(folder)], check=True)
    script = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = subprocess.run(
        [str(python), "-c", script], capture_output=True, text=True, check=True
    ).stdout.strip()
    own = next((folder / "lib").glob("python3.*")) / "site-packages"
    (own / "beside.pth").write_text(f"{site_packages}\n{FAKES}\n")
    return folder / "bin" / "python"


@pytest.fixture
def installed(python: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(python))
    return python


def walk(simulator: InArrays, steps: int) -> None:
    for _ in range(steps):
        simulator.step(np.zeros((simulator.num_envs, 8)))


# --------------------------------------------------------------------------------------------------------------------
# The protocol


def test_episodes_end_and_begin_as_the_protocol_says(installed: Path) -> None:
    ant = InArrays(IsaacGymSimulator("Ant", [1, 2, 3, 4, 5], "cpu"))
    assert (ant.num_envs, ant.observation_size) == (5, 60)
    assert (ant.low.tolist(), ant.high.tolist()) == ([-1.0] * 8, [1.0] * 8)
    assert ant.control_period == pytest.approx(0.0166)
    # The first observations are those of a begun episode; `VecTask.reset` itself gives zeros.
    first = ant.reset()
    assert (first.shape, first.dtype) == ((5, 60), np.float64)
    assert first[:, :3].tolist() == [[k, 1, 0] for k in range(5)]
    # What is drawn follows the seeds.
    generator = torch.Generator().manual_seed(shared_seed([1, 2, 3, 4, 5]))
    assert first[:, 4].tolist() == torch.rand(5, generator=generator).double().tolist()
    assert shared_seed([1, 2, 3]) != shared_seed([1, 2, 4])
    episode, progress, resets = np.ones(5), np.zeros(5), np.zeros(5, bool)
    lengths = np.array([LENGTHS[i % 3] for i in range(5)])
    rng = np.random.default_rng(0)
    for _ in range(60):
        actions = rng.uniform(-1, 1, (5, 8))
        result = ant.step(actions)
        episode[resets] += 1
        progress = np.where(resets, 0, progress + 1)
        assert result.observations[:, 1].tolist() == episode.tolist()
        # In the step that ends an episode: its last observation, not the first of the next.
        assert result.observations[:, 2].tolist() == progress.tolist()
        np.testing.assert_allclose(result.observations[:, 3], actions.sum(1), atol=1e-5)
        assert result.rewards.tolist() == np.where(resets, 0.0, 0.5 + progress).tolist()
        ends = progress == lengths
        assert (result.terminated | result.truncated).tolist() == ends.tolist()
        # The time limit cuts environment 2 alone.
        assert result.truncated.tolist() == (ends & (lengths == 11)).tolist()
        assert not (result.terminated & result.truncated).any()
        resets = ends
    ant.close()
    assert episode.tolist() == [13, 7, 6, 13, 7]


def test_an_episode_that_ends_as_it_begins_is_reported(installed: Path) -> None:
    """Its end comes with the step that resets, and the next step resets again: no such step is taken for a real one."""
    simulator = InArrays(IsaacGymSimulator("Restless", [1, 2, 3], "cpu"))
    simulator.reset()
    resets, twice = np.zeros(3, bool), 0
    for _ in range(40):
        result = simulator.step(np.zeros((3, 8)))
        assert (result.observations[:, 2] == 0).tolist() == resets.tolist()
        assert (result.rewards[resets] == 0).all()
        ends = result.terminated | result.truncated
        twice += int((ends & resets).sum())
        resets = ends
    simulator.close()
    assert twice == 3  # in episodes 2, 4 and 6 of environment 1, which has 9 steps in each other


def test_a_task_that_loses_the_last_observation_is_refused(installed: Path) -> None:
    simulator = InArrays(IsaacGymSimulator("AnymalTerrain", [1, 2, 3], "cpu"))
    simulator.reset()
    with pytest.raises(EngineError, match=r"AnymalTerrain resets"):
        walk(simulator, 20)
    simulator.close()


# --------------------------------------------------------------------------------------------------------------------
# Failures


def test_a_simulation_that_hangs_is_an_error_in_time(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isaac_gym, "STEP_TIMEOUT", 1.0)
    simulator = InArrays(IsaacGymSimulator("Hanging", [1], "cpu"))
    simulator.reset()
    with pytest.raises(EngineError, match=r"1 s .*'step'"):
        walk(simulator, 4)


# --------------------------------------------------------------------------------------------------------------------
# Installations that will not do


def test_without_an_interpreter_the_way_to_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(MissingDependencyError) as refusal:
        make_simulator("Ant", [0], kind="isaacgym")
    text = str(refusal.value)
    for part in (
        "--sim isaacgym: Isaac Gym needs a Python 3.8 of its own",
        "https://developer.nvidia.com/isaac-gym",
        "pip install -e isaacgym/python",
        "https://github.com/isaac-sim/IsaacGymEnvs",
        f"set {VARIABLE}",
    ):
        assert part in text


def refusal_of(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    """What the command says, which ends with exit code 2."""
    capfd.readouterr()
    assert main([str(word) for word in words]) == 2
    return capfd.readouterr().err


def test_the_command_line_says_so_too(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    message = refusal_of(capfd, "train", "--sim", "isaacgym", "--env", "Ant", "--out", tmp_path)
    assert "Python 3.8" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("interpreter", ["/nowhere/python", "/dev/shm"])
def test_a_variable_that_names_no_program(interpreter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, interpreter)
    with pytest.raises(MissingDependencyError, match=f"names {interpreter}, "):
        make_simulator("Ant", [0], kind="isaacgym")


def test_a_program_that_is_no_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/bin/true")
    with pytest.raises(EngineError, match=r"Isaac Gym worker: .*starting"):
        make_simulator("Ant", [0], kind="isaacgym")


def test_a_python_that_is_too_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, sys.executable)
    version = ".".join(map(str, sys.version_info[:2]))
    with pytest.raises(NervecordError, match=rf"is Python {version}, .* 3.8 "):
        make_simulator("Ant", [0], kind="isaacgym")


def test_a_python_without_isaac_gym() -> None:
    answer = {"missing": "isaacgym", "reason": "ModuleNotFoundError: No module named 'isaacgym'", "python": [3, 8]}
    sentence = r"isaacgym cannot be imported in /x/python .*\(download Isaac Gym preview 4"
    with pytest.raises(MissingDependencyError, match=sentence):
        isaac_gym._check_opened(answer, "Ant", Path("/x/python"))


def test_an_unknown_task(installed: Path) -> None:
    with pytest.raises(NervecordError, match=r"--env: .*'Ant-v4' .*'Ant'\?"):
        make_simulator("Ant-v4", [0], kind="isaacgym")


# --------------------------------------------------------------------------------------------------------------------
# Python 3.8


def python38() -> Path | None:
    """A Python 3.8 of this machine, with or without anything installed."""
    folders = [*map(Path, os.get_exec_path()), *(Path.home() / ".pyenv" / "versions").glob("3.8.*/bin")]
    return next((path for folder in folders if python_version(path := folder / "python3.8") == (3, 8)), None)


@pytest.mark.parametrize("file", [HANDLER, Path(worker_child.__file__)], ids=lambda file: file.name)
def test_what_runs_there_is_python_3_8(file: Path) -> None:
    ast.parse(file.read_text(), feature_version=(3, 8))


@pytest.mark.skipif(python38() is None, reason="no Python 3.8 on this machine")
def test_a_real_python_3_8_without_isaac_gym(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(python38()))
    with pytest.raises(MissingDependencyError, match=r"isaacgym .*'isaacgym'"):
        make_simulator("Ant", [0], kind="isaacgym")


# --------------------------------------------------------------------------------------------------------------------
# A training


@pytest.fixture(scope="module")
def training(python: Path, tmp_path_factory: pytest.TempPathFactory) -> run.TrainResult:
    config = TrainConfig.of(
        env="Ant",
        sim="isaacgym",
        layers=(16,),
        critic=(8,),
        steps=384,
        num_envs=6,
        rollout=16,
        minibatch=48,
        epochs=2,
        steps_per_action=3,
        checkpoint_every=384,
        validation_episodes=0,
        test_episodes=4,
        record=2048,
        tensorboard=False,
        out=str(tmp_path_factory.mktemp("runs")),
        name="isaac-ant",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(python))
        return run.train(config)


def test_a_training_exports_a_policy_with_the_tasks_observations(training: run.TrainResult) -> None:
    assert training.policy is not None
    graph = read_nir(training.policy)
    contract = graph.contract
    assert contract is not None
    assert contract.environment == "IsaacGym/Ant"
    assert contract.observation.names == ISAAC_GYM_ANT.observation_names
    assert contract.observation.size == 60
    assert contract.observation.names[:2] == ("torso.z", "torso.local_vx")
    assert contract.observation.names[28] == "front_left_foot.force_x"
    assert contract.observation.names[59] == "ankle_4.last_action"
    assert contract.action.size == 8
    assert contract.control_period == pytest.approx(0.0166)
    assert graph.recorded is not None
    assert graph.recorded.shape[1] == 60
    # Where an action was chosen: beginnings of episodes are among them, ends are none.
    place, progress = graph.recorded[:, 0].astype(int), graph.recorded[:, 2]
    assert (progress == 0).any()
    assert (progress < np.array(LENGTHS)[place % 3]).all()
    assert training.test is not None
    # Episodes of 4, 9 and 11 steps with rewards 1.5, 2.5, ...
    assert training.test.lengths == (4, 9, 11, 4)
    assert training.test.returns == tuple(sum(0.5 + step for step in range(1, n + 1)) for n in training.test.lengths)


def test_its_returns_count_whole_episodes(training: run.TrainResult) -> None:
    rows = [json.loads(line) for line in (training.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["episodes"] > 20
    whole = [sum(0.5 + step for step in range(1, n + 1)) for n in LENGTHS]
    assert min(whole) < rows[-1]["train_return"] < max(whole)


@pytest.mark.slow  # tests/training/test_resume.py resumes; the worker is the one of every test here
def test_the_run_goes_on_where_it_stood(training: run.TrainResult, installed: Path) -> None:
    again = run.resume(training.folder, overrides={"steps": 480})
    assert again.config.algorithm.steps == 480
    assert again.test is not None
    assert again.test.lengths == (4, 9, 11, 4)


def test_the_policy_is_refused_by_ant_v4(training: run.TrainResult, capfd: pytest.CaptureFixture[str]) -> None:
    """Its weights belong to 60 observations; the sentence names both tasks."""
    assert training.policy is not None
    with nervecord.open(nervecord.compile(training.policy, "reference")) as session:
        with pytest.raises(ContractError, match=r"Ant-v4: .*IsaacGym/Ant.*60"):
            nervecord.run(session, "Ant-v4", 1)
        with pytest.raises(ContractError, match=r"Ant-v4: .*\(27,\).*60"):
            nervecord.run(session, "Ant-v4", 1, allow_other_env=True)
    message = refusal_of(capfd, "run", training.policy, "--env", "Ant-v4")
    parts = ("Ant-v4: ", "IsaacGym/Ant", "60", "nervecord train --topology-from RUN --env Ant-v4")
    assert [name for name in parts if name not in message] == []
    assert "IsaacGym/Ant: " in refusal_of(capfd, "run", training.policy)
