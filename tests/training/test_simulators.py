"""Both simulators keep one protocol: seeds, NEXT_STEP autoreset, shapes, refusals."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from simulating import make_simulator

from nervecord.errors import NervecordError
from nervecord.training.simulators.base import TEST, TRAINING, VALIDATION, environment_seeds
from nervecord.training.simulators.make import resolve_kind
from nervecord.training.simulators.spaces import limits

KINDS = ["envpool", "gymnasium", "gymnasium-async"]
ENV = "InvertedPendulum-v4"


@pytest.mark.parametrize("kind", KINDS)
def test_the_step_after_an_end_only_resets(kind: str) -> None:
    simulator = make_simulator(ENV, [3, 4, 5], kind=kind)
    first = simulator.reset()
    assert first.shape == (3, simulator.observation_size)
    assert first.dtype == np.float64
    ends = 0
    at_end = np.zeros(3, bool)
    for _ in range(80):
        result = simulator.step(np.full((3, 1), simulator.high[0]))
        assert result.rewards.shape == result.terminated.shape == result.truncated.shape == (3,)
        # Where the step before ended an episode: no reward, not ended again, and a pole near upright at rest.
        assert (result.rewards[at_end] == 0).all()
        assert not (result.terminated | result.truncated)[at_end].any()
        assert (np.abs(result.observations[at_end]) < 0.02).all()
        assert (result.rewards[~at_end & ~result.terminated] == 1).all()
        at_end = result.terminated | result.truncated
        # The observation of the ending step is the last of the old episode: the pole has fallen beyond 0.2.
        assert (np.abs(result.observations[at_end, 1]) > 0.2).all()
        ends += int(at_end.sum())
    simulator.close()
    assert ends > 6


@pytest.mark.parametrize("kind", KINDS)
def test_truncation_is_told_from_termination(kind: str) -> None:
    simulator = make_simulator("HalfCheetah-v4", [1], kind=kind)
    simulator.reset()
    results = [simulator.step(np.zeros((1, 6))) for _ in range(1000)]
    simulator.close()
    assert [bool(r.truncated[0]) for r in results] == [False] * 999 + [True]
    assert not any(r.terminated[0] for r in results)


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_belong_to_environments(kind: str) -> None:
    """An environment's first observation depends on its own seed, not on its place or company."""

    def firsts(seeds: list[int]) -> np.ndarray:
        simulator = make_simulator(ENV, seeds, kind=kind)
        observations = simulator.reset()
        simulator.close()
        return observations

    together, reverse, alone = firsts([11, 12, 13]), firsts([13, 12, 11]), firsts([12])
    assert np.array_equal(together, reverse[::-1])
    assert np.array_equal(together[1:2], alone)
    assert len(np.unique(together, axis=0)) == 3


def test_purposes_and_generations_have_seeds_of_their_own() -> None:
    lists = [
        environment_seeds(seed, purpose, generation, 64)
        for seed, purpose, generation in itertools.product((0, 1), (TRAINING, VALIDATION, TEST), (0, 1))
    ]
    everything = [seed for part in lists for seed in part]
    assert len(set(everything)) == len(everything)
    assert all(0 <= seed < 2**31 for seed in everything)
    assert environment_seeds(0, TRAINING, 0, 4) == lists[0][:4]


def test_ant_is_the_same_task_in_both() -> None:
    simulators = [make_simulator("Ant-v4", [0, 1], kind=kind) for kind in KINDS]
    for simulator in simulators:
        assert simulator.observation_size == 27
        assert simulator.low.tolist() == [-1.0] * 8
        assert simulator.high.tolist() == [1.0] * 8
        simulator.reset()
        result = simulator.step(np.zeros((2, 8)))
        assert result.observations.shape == (2, 27)
        simulator.close()


@pytest.mark.parametrize("kind", [*KINDS, "auto"])
def test_unknown_and_unfit_tasks_are_refused(kind: str) -> None:
    with pytest.raises(NervecordError, match=r"'Ant-v44'.*'Ant-v4'"):
        make_simulator("Ant-v44", [0], kind=kind)
    with pytest.raises(NervecordError, match=r"FrozenLake-v1: .*observation.*\bBox\b"):
        make_simulator("FrozenLake-v1", [0], kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_choice_is_one_whole_number(kind: str) -> None:
    simulator = make_simulator("CartPole-v1", [0, 1, 2], kind=kind)
    assert simulator.choices == 2
    assert (simulator.low.tolist(), simulator.high.tolist()) == ([0.0], [1.0])
    first = simulator.reset()
    result = simulator.step(np.array([[0.0], [1.0], [1.0]]))
    # Pushed left, the cart gains velocity to the left.
    assert ((result.observations - first)[:, 1] > 0).tolist() == [False, True, True]
    simulator.close()
    values = make_simulator("InvertedPendulum-v4", [0], kind=kind)
    assert values.choices == 0
    values.close()


def test_spaces_that_cannot_be_trained() -> None:
    from gymnasium.spaces import Box, Discrete, MultiDiscrete

    flat = Box(-1, 1, (3,))
    assert limits("Toy-v0", flat, Discrete(4))[3] == 4
    with pytest.raises(NervecordError, match="from 1, 0 "):
        limits("Toy-v0", flat, Discrete(4, start=1))
    with pytest.raises(NervecordError, match=r"action .*MultiDiscrete.* Box or Discrete"):
        limits("Toy-v0", flat, MultiDiscrete([2, 3]))
    with pytest.raises(NervecordError, match="--wrappers"):
        limits("Toy-v0", flat, Box(-np.inf, np.inf, (2,)))


def test_closing_ends_envpools_threads() -> None:
    pytest.importorskip("envpool")

    def thread_count() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    before = thread_count()
    simulator = make_simulator("CartPole-v1", [1, 2, 3], kind="envpool", threads=3)
    simulator.reset()
    assert thread_count() >= before + 3
    simulator.close()
    assert thread_count() == before


def test_auto_takes_envpool_where_it_knows_the_task() -> None:
    assert resolve_kind("Ant-v4") == "envpool"
    assert resolve_kind("NoSuchTask-v0") == "gymnasium"
    with pytest.raises(NervecordError, match=r"'isaac'.*auto, envpool, gymnasium"):
        make_simulator("Ant-v4", [0], kind="isaac")
