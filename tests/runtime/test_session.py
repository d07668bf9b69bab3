"""Sessions: state, batches, counting, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from graphs import LAVA
from policies import random_policy, with_node

from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.ops import Affine, Normalise
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.compiler.plan.interpret import simulate
from nervecord.compiler.plan.plan import plan
from nervecord.errors import ContractError
from nervecord.runtime.answer import NOT_FINITE
from nervecord.runtime.engines.emulator.session import EmulatorSession
from nervecord.runtime.session import Counts, MachineSession, Session


def test_a_session_answers_what_simulate_does_and_is_a_session() -> None:
    policy = random_policy(state="carried")
    assert policy.recorded is not None
    session = MachineSession(policy)
    assert isinstance(session, Session)
    actions = np.stack([session.step(row) for row in policy.recorded[:9]])
    expected = simulate(policy, policy.recorded[:9]).actions
    assert expected is not None
    assert np.array_equal(actions, expected[:, 0])
    session.reset()
    assert np.array_equal(session.step(policy.recorded[0]), actions[0])


def integer(policy: Policy) -> Policy:
    """The policy in Lava's integers."""
    integers, _ = lower(policy, LAVA, calibrate(policy))
    assert isinstance(integers, Policy)
    return integers


def test_counts_are_spikes_times_the_synapses_they_reach() -> None:
    policy = random_policy(sizes=(3, 4, 2), steps=3)
    weight = np.array([[1.0, 0.0, 2.0]] * 4)
    policy = with_node(policy, "fc1", Affine(weight, np.full(4, 5.0)))  # every neuron spikes at every step
    policy = with_node(policy, "normalise", Normalise(np.zeros(3), np.ones(3), 0.0, 10.0))
    session = MachineSession(policy)
    session.step(np.array([1.0, 1.0, 0.0]))  # one non-zero channel with weights, one without, one silent
    assert session.counts.spikes == {"lif1": 12.0}
    assert session.counts.synaptic_events == {"fc1": 1 * 4 * 3, "fc2": 12 * 2}
    assert session.counts.per_action() == {"spikes": 12, "synaptic_events": 36, "neuron_updates": 6 * 3}


def test_integer_counts_include_what_the_pipeline_does() -> None:
    policy = random_policy()
    session = MachineSession(integer(policy))
    assert policy.recorded is not None
    session.step(policy.recorded[0])
    assert session.counts.neuron_updates == (32 + 8) * (5 + 2)
    assert session.trace()["lif1"].shape == (7, 1, 32)


@pytest.mark.parametrize("engine", [MachineSession, EmulatorSession])
def test_counts_are_of_active_robots_and_can_be_read_as_a_difference(engine: Callable[..., Session]) -> None:
    """Two robots of three, and one alone after them: as sessions of one robot each count."""
    policy = integer(random_policy(state="carried"))
    rows = np.random.default_rng(1).normal(size=(3, 27))
    alone = [engine(policy, batch=1) for _ in range(3)]
    for session, row in zip(alone, rows, strict=True):
        session.step(row)
    singles = [session.counts for session in alone]
    session = engine(policy, batch=3)
    session.step(rows, np.array([True, False, True]))
    first = session.counts
    assert first.actions == 2
    assert first.spikes["lif1"] == singles[0].spikes["lif1"] + singles[2].spikes["lif1"]
    assert first.synaptic_events["fc2"] == singles[0].synaptic_events["fc2"] + singles[2].synaptic_events["fc2"]
    session.reset()
    session.step(rows, np.array([False, True, False]))
    difference = session.counts.since(first)
    assert difference == singles[1]
    assert difference.per_action() == singles[1].per_action()
    assert first.since(Counts()) == first
    with pytest.raises(ContractError, match="active: "):
        session.step(rows, np.ones(2, dtype=bool))


def test_a_difference_of_counts_names_the_failures_of_its_own() -> None:
    session = MachineSession(random_policy())
    session.step(np.full(27, np.nan))
    before = session.counts
    session.step(np.zeros(27))
    assert session.counts.since(before).fail_safe == {}
    session.step(np.full(27, np.inf))
    assert session.counts.since(before).fail_safe == {NOT_FINITE: 1}


def test_a_bad_row_gets_the_fail_safe_action_alone() -> None:
    policy = random_policy(state="carried")
    session, clean = MachineSession(policy, batch=2), MachineSession(policy, batch=2)
    assert policy.recorded is not None
    rows = policy.recorded[:2].copy()
    rows[1, 0] = np.inf
    action = session.step(rows)
    assert np.array_equal(action[0], clean.step(policy.recorded[:2])[0])
    assert np.array_equal(action[1], np.zeros(8))
    assert session.counts.fail_safe == {NOT_FINITE: 1}
    assert np.isfinite(session.step(policy.recorded[:2])).all()


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        (np.zeros(26), r"shape \(26,\)"),
        (np.zeros((2, 27)), r"takes \(1, 27\)"),
        (np.array([None] * 27), "object, "),
        (np.zeros(27, dtype=bool), "bool"),
    ],
)
def test_wrong_observations_are_refused(observation: np.ndarray, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        MachineSession(random_policy()).step(observation)


def test_closed_and_contractless_sessions_are_refused() -> None:
    policy = random_policy()
    with MachineSession(policy) as session:
        session.step(np.zeros(27))
    with pytest.raises(ContractError, match="closed"):
        session.step(np.zeros(27))
    with pytest.raises(ContractError, match="contract"):
        MachineSession(plan(policy.graph))
    with pytest.raises(ContractError, match="batch: is 0"):
        MachineSession(policy).reset(0)
    with pytest.raises(ContractError, match=r"rows: .* 1 "):
        MachineSession(policy).reset(rows=np.array([3]))
