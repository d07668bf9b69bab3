"""Isaac Lab and mjlab up to their seam: both adapters and skrl's real loader, on scripted tasks in place of theirs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scripted_labs
import torch
from simulating import FIELDS, make_simulator

from nervecord.compiler.nir.file import read_nir
from nervecord.errors import EngineError, MissingDependencyError, NervecordError
from nervecord.training import run
from nervecord.training.settings.config import TrainConfig
from nervecord.training.simulators import isaac_lab
from nervecord.training.simulators.mjlab import MjlabSimulator

KINDS = {"isaaclab": "Isaac", "mjlab": "Mjlab"}
LENGTHS = (4, 9, 11)
"""Steps of an episode of environment i % 3; the third is cut by the time limit."""
SEEDS = [1, 2, 3, 4, 5]

both = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripted tasks, and a process in which nothing was simulated yet."""
    scripted_labs.install(monkeypatch)
    monkeypatch.setattr(isaac_lab, "_simulation", None)
    monkeypatch.setattr(MjlabSimulator, "_has_spoken", False)


def lab(kind: str, task: str = "Ant", seeds: list[int] = SEEDS) -> Any:
    return make_simulator(f"{KINDS[kind]}-{task}", seeds, kind=kind)


# --------------------------------------------------------------------------------------------------------------------
# The protocol


@both
def test_sizes_limits_and_period_are_the_tasks(kind: str, installed: None) -> None:
    simulator = lab(kind)
    assert simulator.device == torch.device("cpu")
    assert (simulator.num_envs, simulator.observation_size) == (5, 60)
    assert simulator.control_period == pytest.approx(1 / 60)
    # The task has no limits.
    assert simulator.low.tolist() == [-1.0] * 8
    assert simulator.high.tolist() == [1.0] * 8
    assert simulator.state_dict() is None


@both
def test_episodes_end_and_begin_as_the_protocol_says(kind: str, installed: None) -> None:
    simulator = lab(kind)
    first = simulator.reset()
    assert first.shape == (5, 60)
    assert first[:, 2].tolist() == [0.0] * 5
    lengths = np.array([LENGTHS[i % 3] for i in range(5)])
    episode, progress, resets = np.ones(5), np.zeros(5), np.zeros(5, bool)
    rng = np.random.default_rng(0)
    for _ in range(60):
        actions = rng.uniform(-1, 1, (5, 8))
        result = simulator.step(actions)
        episode[resets] += 1
        # The simulator's own count: an unseen step, without action, precedes the first observation of an episode.
        progress = np.where(resets, 1, progress + 1)
        assert result.observations[:, 1].tolist() == episode.tolist()
        assert result.observations[:, 2].tolist() == progress.tolist()
        np.testing.assert_allclose(result.observations[:, 3], np.where(resets, 0.0, actions.sum(1)), atol=1e-5)
        assert result.rewards.tolist() == np.where(resets, 0.0, 0.5 + progress).tolist()
        ends = progress == lengths
        assert (result.terminated | result.truncated).tolist() == ends.tolist()
        assert result.truncated.tolist() == (ends & (lengths == 11)).tolist()
        resets = ends
    assert episode.tolist() == [15, 7, 6, 15, 7]


@both
def test_a_task_keeps_its_own_limits_and_a_fall_at_the_time_limit_is_a_fall(kind: str, installed: None) -> None:
    simulator = lab(kind, "Limited", [1, 2, 3])
    assert simulator.low.tolist() == [0.25] * 8
    assert simulator.high.tolist() == [2.0] * 8
    simulator.reset()
    results = [simulator.step(np.ones((3, 8))) for _ in range(9)]
    assert results[8].terminated.tolist() == [False, True, False]
    assert results[8].truncated.tolist() == [False, True, True]
    # The unseen step takes the allowed action nearest to none: environment 0 ended in its fourth step.
    assert results[4].observations[:, 3].tolist() == [8 * 0.25, 8.0, 8.0]


@both
def test_the_time_limit_of_a_finite_horizon_is_an_end(kind: str, installed: None) -> None:
    simulator = lab(kind, "Finite", [1, 2, 3])
    simulator.reset()
    results = [simulator.step(np.zeros((3, 8))) for _ in range(11)]
    assert results[10].terminated.tolist() == [False, False, True]


@both
def test_a_later_step_does_not_change_what_an_earlier_one_gave(kind: str, installed: None) -> None:
    simulator = lab(kind).inner
    results = [("observations", simulator.reset())]
    copies = [results[0][1].clone()]
    for k in range(8):
        step = simulator.step(torch.full((5, 8), 0.1 * k))
        results += [(name, getattr(step, name)) for name in FIELDS]
        copies += [getattr(step, name).clone() for name in FIELDS]
    for (name, tensor), copy in zip(results, copies, strict=True):
        assert torch.equal(tensor, copy), name


@both
def test_the_seeds_decide_all_it_draws_and_the_learners_generator_is_left_alone(kind: str, installed: None) -> None:
    def draws(seeds: list[int], noise: int) -> list[float]:
        """Of the first episodes and of the later ones, while the learner draws too."""
        torch.manual_seed(noise)
        expected = torch.rand(12)
        torch.manual_seed(noise)
        simulator = lab(kind, seeds=seeds)
        observations, own = [simulator.reset()[:, 4]], []
        for _ in range(12):
            own.append(torch.rand(1))
            observations.append(simulator.step(np.zeros((3, 8))).observations[:, 4])
        assert torch.equal(torch.cat(own), expected)
        return np.concatenate(observations).tolist()

    one, again, other = draws([1, 2, 3], 77), draws([1, 2, 3], 78), draws([1, 2, 4], 77)
    assert one == again
    # Episodes begun by 12 steps of three environments of 4, 9 and 11 steps: 3, 2 and 2.
    assert len({*one, *other}) == 2 * 7


# --------------------------------------------------------------------------------------------------------------------
# Isaac Lab: the last observation may be lost, and there is one simulation for each process


def test_where_the_last_observation_is_lost_the_one_before_it_stands_in_its_place(installed: None) -> None:
    simulator = lab("isaaclab", "Forgetful", [1, 2, 3])
    before = simulator.reset()
    ends = 0
    for _ in range(30):
        result = simulator.step(np.full((3, 8), 0.1))
        at_end = result.terminated | result.truncated
        assert np.array_equal(result.observations[at_end], before[at_end])
        assert (result.observations[~at_end, 2] > 0).all()
        before = result.observations
        ends += int(at_end.sum())
    assert ends > 8


def test_the_simulation_is_handed_on(installed: None) -> None:
    training = lab("isaaclab")
    training.reset()
    validation = lab("isaaclab", seeds=[8, 9])
    assert validation.reset().shape == (2, 60)
    result = validation.step(np.ones((2, 8)))
    assert result.observations[:, 3].tolist() == [8.0, 8.0]
    # The environments it does not use stand idle.
    inner = validation._held.inner.unwrapped
    assert inner.actions[2:].abs().sum() == 0
    for call in (training.reset, lambda: training.step(np.zeros((5, 8)))):
        with pytest.raises(EngineError, match="another simulator has taken the simulation over"):
            call()
    validation.close()
    assert not inner.closed


def test_what_one_process_cannot_simulate_is_refused(installed: None) -> None:
    lab("isaaclab", seeds=[1, 2])
    with pytest.raises(NervecordError, match=r"3 environments .* 2"):
        lab("isaaclab", seeds=[1, 2, 3])
    with pytest.raises(NervecordError, match=r"Isaac-Ant on cpu, .*Isaac-Limited on cpu"):
        lab("isaaclab", "Limited", [1])


# --------------------------------------------------------------------------------------------------------------------
# mjlab: single environments can be reset, and simulations stand side by side


def test_first_episodes_can_be_cut(installed: None) -> None:
    simulator = lab("mjlab", seeds=[1, 2, 3])
    assert simulator.time_limit == 11
    simulator.reset()
    for _ in range(2):
        simulator.step(np.ones((3, 8)))
    simulator.inner.cut(torch.tensor([False, True, False]))
    result = simulator.step(np.ones((3, 8)))
    assert result.observations[:, 1:4].tolist() == [[1.0, 3.0, 8.0], [2.0, 1.0, 0.0], [1.0, 3.0, 8.0]]
    assert result.rewards.tolist() == [3.5, 0.0, 3.5]
    assert simulator.step(np.ones((3, 8))).rewards.tolist() == [4.5, 2.5, 4.5]


def test_a_second_simulation_leaves_the_first_alone_and_says_nothing(
    installed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    training = lab("mjlab")
    training.reset()
    assert capsys.readouterr().err == "made, on the standard output\n"
    validation = lab("mjlab", "Limited", [8, 9])
    validation.reset()
    validation.step(np.ones((2, 8)))
    assert training.step(np.zeros((5, 8))).observations[:, 2].tolist() == [1.0] * 5
    inner = validation._inner
    validation.close()
    assert inner.closed
    output = capsys.readouterr()
    assert output.out + output.err == ""


# --------------------------------------------------------------------------------------------------------------------
# Loading


@both
def test_loaders_see_no_command_line_of_ours_and_stdout_stays_clean(
    kind: str, installed: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["nervecord", "train", "--num-envs", "7", "--seed", "5", "--device", "cuda:3"]
    monkeypatch.setattr(sys, "argv", list(own))
    task = lab(kind)._inner.unwrapped
    assert sys.argv == own
    assert (task.num_envs, task.device) == (5, torch.device("cpu"))
    assert task.cfg.seed not in (None, 5)
    # Isaac Lab is asked to keep last observations, mjlab to leave resets to us.
    assert task.cfg.compute_final_obs == task.cfg.auto_reset == (kind == "isaaclab")
    output = capsys.readouterr()
    assert output.out == ""
    assert "made, " in output.err


def test_an_unknown_task(installed: None) -> None:
    with pytest.raises(NervecordError, match=r"Isaac-Antt: .*`Isaac-Ant`"):
        lab("isaaclab", "Antt")
    assert isaac_lab._simulation is None
    with pytest.raises(NervecordError, match=r"--env: .*'Mjlab-Antt'.*'Mjlab-Ant'"):
        lab("mjlab", "Antt")


@both
def test_a_task_that_observes_no_flat_box_is_refused(kind: str, installed: None) -> None:
    with pytest.raises(NervecordError, match=r"-Images: .*Box"):
        lab(kind, "Images")


def test_what_of_mjlab_cannot_be_trained_is_refused(installed: None) -> None:
    with pytest.raises(NervecordError, match=r"Mjlab-Two: .* 2 groups \(actor, camera\)"):
        lab("mjlab", "Two")
    with pytest.raises(NervecordError, match=r"Mjlab-Broken: .*\(no file ''\)"):
        lab("mjlab", "Broken")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("isaaclab", ("--sim isaaclab: ", "Python 3.12", "[isaaclab]'")),
        ("mjlab", ("--sim mjlab: ", "environment", "[mjlab]'")),
    ],
)
def test_where_it_is_not_installed_the_way_to_it_is_told(kind: str, words: tuple[str, ...]) -> None:
    if importlib.util.find_spec(kind) is not None:
        pytest.skip("it is installed")
    with pytest.raises(MissingDependencyError) as refusal:
        lab(kind)
    for word in words:
        assert word in str(refusal.value)


# --------------------------------------------------------------------------------------------------------------------
# A training


@both
def test_a_training_in_tensors_exports_a_policy(kind: str, installed: None, tmp_path: Path) -> None:
    """With Isaac Lab validation and test borrow the training's simulation, in as many turns as they need."""
    env = f"{KINDS[kind]}-Ant"
    config = TrainConfig.of(
        env=env,
        sim=kind,
        layers=(16,),
        critic=(8,),
        steps=384,
        num_envs=6,
        rollout=16,
        minibatch=48,
        epochs=2,
        steps_per_action=3,
        checkpoint_every=192,
        validation_episodes=3,
        test_episodes=8,
        tensorboard=False,
        out=str(tmp_path),
        name="lab",
    )
    result = run.train(config)
    assert result.test is not None
    assert result.test.lengths == (4, 9, 11, 4, 9, 11, 4, 9)
    assert result.test.returns == tuple(sum(0.5 + step for step in range(1, n + 1)) for n in result.test.lengths)
    assert result.policy is not None
    graph = read_nir(result.policy)
    assert graph.contract is not None
    assert graph.contract.environment == env
    assert graph.contract.observation.size == 60
    assert graph.contract.control_period == pytest.approx(1 / 60)
    assert graph.recorded is not None
    # Where an action was chosen: the ends of episodes are none of them.
    place, progress = graph.recorded[:, 0].astype(int), graph.recorded[:, 2]
    assert (progress < np.array(LENGTHS)[place % 3]).all()
