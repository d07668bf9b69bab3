"""Isaac Lab up to its seam: skrl's real loader and wrapper, with scripted tasks in place of Isaac Lab's."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from simulating import FIELDS, make_simulator

from nervecord.compiler.nir.file import read_nir
from nervecord.errors import EngineError, MissingDependencyError, NervecordError
from nervecord.training import run
from nervecord.training.config import TrainConfig
from nervecord.training.simulators import isaac_lab
from nervecord.training.simulators.isaac_lab import IsaacLabSimulator

FAKES = Path(__file__).parent / "isaac_fakes" / "lab"
LENGTHS = (4, 9, 11)
"""Steps of an episode of environment i % 3; the third is cut by the time limit."""
SEEDS = [1, 2, 3, 4, 5]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("isaaclab") is not None, reason="the real Isaac Lab is installed"
)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The fakes, and a process in which nothing was simulated yet."""
    import gymnasium

    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.setattr(isaac_lab, "_simulation", None)
    before = dict(gymnasium.registry)
    yield
    gymnasium.registry.clear()
    gymnasium.registry.update(before)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("isaaclab", "isaaclab_tasks")]:
        del sys.modules[name]


def lab(env: str = "Isaac-Ant", seeds: list[int] = SEEDS) -> Any:
    simulator = make_simulator(env, seeds, kind="isaaclab")
    assert isinstance(simulator.inner, IsaacLabSimulator)
    return simulator


# --------------------------------------------------------------------------------------------------------------------
# The protocol


def test_sizes_limits_and_period_are_the_tasks(installed: None) -> None:
    simulator = lab()
    assert simulator.device == torch.device("cpu")
    assert (simulator.num_envs, simulator.observation_size) == (5, 60)
    assert simulator.control_period == pytest.approx(1 / 60)
    # The task has no limits.
    assert simulator.low.tolist() == [-1.0] * 8
    assert simulator.high.tolist() == [1.0] * 8


def test_episodes_end_and_begin_as_the_protocol_says(installed: None) -> None:
    simulator = lab()
    first = simulator.reset()
    assert first.shape == (5, 60)
    assert first.dtype == np.float64
    assert first[:, 2].tolist() == [0.0] * 5
    lengths = np.array([LENGTHS[i % 3] for i in range(5)])
    episode, progress, resets = np.ones(5), np.zeros(5), np.zeros(5, bool)
    drawn = np.random.default_rng(0)
    for _ in range(60):
        actions = drawn.uniform(-1, 1, (5, 8))
        result = simulator.step(actions)
        episode[resets] += 1
        # The simulator's own count: an unseen step, without action, precedes the first observation of an episode.
        progress = np.where(resets, 1, progress + 1)
        assert result.observations[:, 1].tolist() == episode.tolist()
        assert result.observations[:, 2].tolist() == progress.tolist()
        np.testing.assert_allclose(result.observations[:, 3], np.where(resets, 0.0, actions.sum(1)), atol=1e-5)
        assert result.rewards.tolist() == np.where(resets, 0.0, 0.5 + progress).tolist()
        ended = progress == lengths
        assert (result.terminated | result.truncated).tolist() == ended.tolist()
        assert result.truncated.tolist() == (ended & (lengths == 11)).tolist()
        resets = ended
    assert episode.tolist() == [15, 7, 6, 15, 7]


def test_where_the_last_observation_is_lost_the_one_before_it_stands_in_its_place(installed: None) -> None:
    simulator = lab("Isaac-Forgetful", [1, 2, 3])
    before = simulator.reset()
    ends = 0
    for _ in range(30):
        result = simulator.step(np.full((3, 8), 0.1))
        ended = result.terminated | result.truncated
        assert np.array_equal(result.observations[ended], before[ended])
        assert (result.observations[~ended, 2] > 0).all()
        before = result.observations
        ends += int(ended.sum())
    assert ends > 8


def test_a_task_keeps_its_own_limits_and_a_fall_at_the_time_limit_is_a_fall(installed: None) -> None:
    simulator = lab("Isaac-Limited", [1, 2, 3])
    assert simulator.low.tolist() == [0.25] * 8
    assert simulator.high.tolist() == [2.0] * 8
    simulator.reset()
    results = [simulator.step(np.ones((3, 8))) for _ in range(9)]
    assert results[8].terminated.tolist() == [False, True, False]
    assert results[8].truncated.tolist() == [False, True, True]
    # The unseen step takes the allowed action nearest to none: environment 0 ended in its fourth step.
    assert results[4].observations[:, 3].tolist() == [8 * 0.25, 8.0, 8.0]


def test_a_later_step_does_not_change_what_an_earlier_one_gave(installed: None) -> None:
    simulator = lab().inner
    results = [("observations", simulator.reset())]
    kept = [results[0][1].clone()]
    for k in range(8):
        step = simulator.step(torch.full((5, 8), 0.1 * k))
        results += [(name, getattr(step, name)) for name in FIELDS]
        kept += [getattr(step, name).clone() for name in FIELDS]
    for (name, given), copy in zip(results, kept, strict=True):
        assert torch.equal(given, copy), name


def test_the_seeds_decide_the_first_states_and_leave_the_learners_generator_alone(installed: None) -> None:
    torch.manual_seed(77)
    wanted = torch.rand(3)
    torch.manual_seed(77)
    one = lab(seeds=[1, 2, 3]).reset()[:, 4]
    assert torch.equal(torch.rand(3), wanted)
    again, other = (lab(seeds=seeds).reset()[:, 4] for seeds in ([1, 2, 3], [1, 2, 4]))
    assert np.array_equal(one, again)
    assert len({*one.tolist(), *other.tolist()}) == 6


# --------------------------------------------------------------------------------------------------------------------
# One simulation for each process


def test_the_simulation_is_handed_on(installed: None) -> None:
    training = lab()
    training.reset()
    validation = lab(seeds=[8, 9])
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
    lab(seeds=[1, 2])
    with pytest.raises(NervecordError, match="3 environments are needed, and Isaac Lab was begun with 2"):
        lab(seeds=[1, 2, 3])
    with pytest.raises(
        NervecordError, match=r"simulates Isaac-Ant on cpu already, .*Isaac-Limited on cpu in a process"
    ):
        lab("Isaac-Limited", [1])


# --------------------------------------------------------------------------------------------------------------------
# Loading


def test_the_loader_sees_its_own_command_line_and_stdout_stays_clean(
    installed: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = ["nervecord", "train", "--num-envs", "7", "--seed", "5", "--device", "cuda:3"]
    monkeypatch.setattr(sys, "argv", list(ours))
    simulator = lab()
    assert sys.argv == ours
    cfg = simulator._held.inner.unwrapped.cfg
    assert (cfg.scene.num_envs, cfg.sim.device, cfg.compute_final_obs) == (5, "cpu", True)
    assert cfg.seed not in (None, 5)
    said = capsys.readouterr()
    assert said.out == ""
    assert "launched, on the standard output" in said.err


def test_an_unknown_task(installed: None) -> None:
    with pytest.raises(NervecordError, match=r"Isaac-Antt: no task of Isaac Lab .*Did you mean: `Isaac-Ant`"):
        lab("Isaac-Antt")
    assert isaac_lab._simulation is None


def test_without_isaac_lab_the_way_to_it_is_told() -> None:
    with pytest.raises(MissingDependencyError) as caught:
        make_simulator("Isaac-Ant", [0], kind="isaaclab")
    text = str(caught.value)
    for part in ("--sim isaaclab: Isaac Lab is not installed here", "Python 3.12", "[isaaclab]'"):
        assert part in text


# --------------------------------------------------------------------------------------------------------------------
# A training


def test_a_training_in_tensors_exports_a_policy(installed: None, tmp_path: Path) -> None:
    """Validation and test borrow the training's simulation, in as many turns as its environments need."""
    config = TrainConfig.of(
        env="Isaac-Ant", sim="isaaclab", layers=(16,), critic=(8,), steps=384, num_envs=6, rollout=16, minibatch=48,
        epochs=2, steps_per_action=3, checkpoint_every=192, validation_episodes=3, test_episodes=8, tensorboard=False,
        out=str(tmp_path), name="lab",
    )  # fmt: skip
    result = run.train(config)
    assert result.test is not None
    assert result.test.lengths == (4, 9, 11, 4, 9, 11, 4, 9)
    assert result.test.returns == tuple(sum(0.5 + step for step in range(1, n + 1)) for n in result.test.lengths)
    assert result.policy is not None
    graph = read_nir(result.policy)
    assert graph.contract is not None
    assert graph.contract.environment == "Isaac-Ant"
    assert graph.contract.observation.size == 60
    assert graph.contract.control_period == pytest.approx(1 / 60)
    assert graph.recorded is not None
    # Where an action was chosen: the ends of episodes are none of them.
    place, progress = graph.recorded[:, 0].astype(int), graph.recorded[:, 2]
    assert (progress < np.array(LENGTHS)[place % 3]).all()
