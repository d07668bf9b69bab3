"""A user's own task, from training to the loop; spaces that a wrapper makes fit; environments made in Python."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import gymnasium
import own_task
import pytest

import nervecord
from nervecord.cli.command import main
from nervecord.errors import MissingDependencyError, NervecordError
from nervecord.training.simulators.make import make_simulator

SHORT = [
    "--steps", "512", "--num-envs", "4", "--rollout", "32", "--minibatch", "64", "--layers", "8", "--critic", "8",
    "--validation-episodes", "1", "--test-episodes", "2", "--no-tensorboard", "--quiet",
]  # fmt: skip


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
    assert "the time between actions is unknown (give the environment an attribute dt" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    # A network that no NIR file holds needs none; and what goes wrong in the task is not said to be ours.
    assert main([*words, "--policy", "ann"]) == 2
    said = capsys.readouterr().err
    assert re.search(r"TypeError: unsupported operand .* \(in .*own_task.py, line \d+; --debug", said), said


def test_environments_made_in_python(policy: Path) -> None:
    def make() -> Any:
        return gymnasium.wrappers.TimeLimit(own_task.Point(), 50)

    with nervecord.open(policy) as session:
        by_name = nervecord.run(session, "own_task:Point-v0", 3, 7)
        by_function = nervecord.run(session, make, 3, 7, environments=2)
        by_object = nervecord.run(session, make(), 3, 7)
        assert by_name.returns.tolist() == by_function.returns.tolist() == by_object.returns.tolist()
        assert by_function.environment == "make"
        with pytest.raises(NervecordError, match="is one environment, and 2 run side by side"):
            nervecord.run(session, make(), 3, environments=2)
        with pytest.raises(TypeError, match="env is of type int"):
            nervecord.run(session, 3, 3)
        with pytest.raises(NervecordError, match=r"observations have shape \(4,\), the policy takes 2"):
            nervecord.run(session, lambda: gymnasium.make("CartPole-v1"), 1)


def test_spaces_that_do_not_fit_name_the_wrapper_that_helps() -> None:
    with pytest.raises(NervecordError, match=r"own_task:DictPoint-v0: its observation space is Dict.*FlattenObs"):
        make_simulator("own_task:DictPoint-v0", [0])
    flat = make_simulator("own_task:DictPoint-v0", [0, 1], wrappers=("FlattenObservation",))
    assert flat.observation_size == 2
    assert flat.reset().shape == (2, 2)
    with pytest.raises(NervecordError, match="these are images"):
        make_simulator("own_task:ImagePoint-v0", [0])
    small = make_simulator("own_task:ImagePoint-v0", [0], wrappers=("FlattenObservation",))
    assert small.observation_size == 24 * 24 * 3
    if importlib.util.find_spec("cv2") is None:
        with pytest.raises(MissingDependencyError, match=r"something that it needs, is not installed .*opencv"):
            make_simulator("own_task:ImagePoint-v0", [0], wrappers=("ResizeObservation:4,4", "FlattenObservation"))
    with pytest.raises(NervecordError, match=r"its actions have no limits.*--wrappers module:Class"):
        make_simulator("own_task:FreePoint-v0", [0])
    limited = make_simulator("own_task:FreePoint-v0", [0], wrappers=("own_task:Limited",))
    assert limited.high.tolist() == [1.0]
    for simulator in (flat, small, limited):
        simulator.close()


def test_names_that_are_not_there() -> None:
    with pytest.raises(NervecordError, match="own_tusk:Point-v0: no module 'own_tusk' is found"):
        make_simulator("own_tusk:Point-v0", [0])
    with pytest.raises(NervecordError, match="unknown Gymnasium task 'own_task:Pint-v0'"):
        make_simulator("own_task:Pint-v0", [0])
    with pytest.raises(NervecordError, match=r"unknown wrapper 'FlatenObservation'.*did you mean 'FlattenObservation'"):
        make_simulator("own_task:Point-v0", [0], wrappers=("FlatenObservation",))
    with pytest.raises(NervecordError, match="module own_task has no Wrap"):
        make_simulator("own_task:Point-v0", [0], wrappers=("own_task:Wrap",))
    with pytest.raises(NervecordError, match="around Gymnasium's environments, and --sim envpool has none"):
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
