"""Sessions: state, batches, counting, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from policies import random_policy

from nervecord.compiler import nodes as n
from nervecord.compiler.calibrate import calibrate
from nervecord.compiler.interpret import simulate
from nervecord.errors import ContractError
from nervecord.runtime.session import MachineSession, Session
from nervecord.targets.lava.lower import lower


def test_a_session_answers_what_simulate_does_and_is_a_session() -> None:
    policy = random_policy(state="carried")
    assert policy.recorded is not None
    session = MachineSession(policy)
    assert isinstance(session, Session)
    actions = np.stack([session.step(row) for row in policy.recorded[:9]])
    wanted = simulate(policy, policy.recorded[:9]).actions
    assert wanted is not None
    assert np.array_equal(actions, wanted[:, 0])
    session.reset()
    assert np.array_equal(session.step(policy.recorded[0]), actions[0])


def test_counts_are_spikes_times_the_synapses_they_reach() -> None:
    policy = random_policy(sizes=(3, 4, 2), steps=3)
    nodes = dict(policy.nodes)
    weight = np.array([[1.0, 0.0, 2.0]] * 4)
    nodes["fc1"] = n.Affine(weight, np.full(4, 5.0))  # every neuron spikes at every step
    nodes["normalise"] = n.Normalise(np.zeros(3), np.ones(3), 0.0, 10.0)
    session = MachineSession(policy.replace(nodes=nodes))
    session.step(np.array([1.0, 1.0, 0.0]))  # one non-zero channel with weights, one without, one silent
    assert session.counts.spikes == {"lif1": 12.0}
    assert session.counts.synaptic_events == {"fc1": 1 * 4 * 3, "fc2": 12 * 2}
    assert session.counts.per_action() == {"spikes": 12, "synaptic_events": 36, "neuron_updates": 6 * 3}


def test_integer_counts_include_what_the_pipeline_does() -> None:
    policy = random_policy()
    graph, _ = lower(policy, calibrate(policy))
    session = MachineSession(graph)
    assert policy.recorded is not None
    session.step(policy.recorded[0])
    assert graph.contract is not None
    assert session.counts.neuron_updates == (32 + 8) * (5 + 2)
    assert session.trace()["lif1"].shape == (7, 1, 32)


def test_a_bad_row_gets_the_fail_safe_action_alone() -> None:
    policy = random_policy(state="carried")
    session, clean = MachineSession(policy, batch=2), MachineSession(policy, batch=2)
    assert policy.recorded is not None
    rows = policy.recorded[:2].copy()
    rows[1, 0] = np.inf
    action = session.step(rows)
    assert np.array_equal(action[0], clean.step(policy.recorded[:2])[0])
    assert np.array_equal(action[1], np.zeros(8))
    assert session.counts.fail_safe == {"observation not finite": 1}
    assert np.isfinite(session.step(policy.recorded[:2])).all()


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        (np.zeros(26), r"shape \(26,\)"),
        (np.zeros((2, 27)), r"takes \(1, 27\)"),
        (np.array([None] * 27), "object, not numbers"),
        (np.zeros(27, dtype=bool), "bool, not numbers"),
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
    with pytest.raises(ContractError, match="no contract"):
        MachineSession(policy.replace(contract=None))
    with pytest.raises(ContractError, match="batch: is 0"):
        MachineSession(policy).reset(0)
