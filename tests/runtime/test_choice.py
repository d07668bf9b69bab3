"""Policies that choose an action, in the control loop, compared, and with observations that cannot be trusted."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import LAVA
from policies import random_policy

from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.lower.choose import choice_report
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.errors import ContractError
from nervecord.runtime.answer import NOT_FINITE
from nervecord.runtime.engines.emulator.session import EmulatorSession
from nervecord.runtime.loop import run_policy
from nervecord.runtime.measure.compare import compare
from nervecord.runtime.session import MachineSession
from nervecord.runtime.worker.environment import choices_of, stated_period

gymnasium = pytest.importorskip("gymnasium")


def lowered(policy: Policy) -> tuple[Policy, dict[str, object]]:
    """In Lava's integers, and the report."""
    integers, report = lower(policy, LAVA, calibrate(policy))
    assert isinstance(integers, Policy)
    return integers, report


def cartpole(sizes: tuple[int, ...] = (4, 12, 2), **options: object) -> Policy:
    fields = {"choices": True, "environment": "CartPole-v1", "control_period": 0.02, **options}
    return random_policy(7, sizes=sizes, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("output_population", [0, 3])
def test_the_loop_gives_the_environment_whole_numbers(output_population: int) -> None:
    policy = cartpole(output_population=output_population)
    integers, _ = lowered(policy)
    slow = run_policy(MachineSession(integers), "CartPole-v1", 6, seed=2, environments=3, record=True)
    fast = run_policy(EmulatorSession(integers), "CartPole-v1", 6, seed=2, record=True)
    assert slow.returns.tolist() == fast.returns.tolist() == fast.lengths.tolist()
    assert fast.choices == ("choice 0", "choice 1")
    assert fast.recorded is not None
    assert set(np.unique(fast.recorded.actions)) <= {0.0, 1.0}
    assert fast.fail_safe == {}
    assert fast.deadline_us == pytest.approx(20_000)


@pytest.mark.parametrize(
    ("policy", "environment", "words"),
    [
        (random_policy(sizes=(4, 9, 1)), "CartPole-v1", "2 actions.*1 values"),
        (cartpole((4, 9, 3)), "CartPole-v1", "takes one of 2 actions, and the policy chooses one of 3"),
        (cartpole((3, 9, 2)), "Pendulum-v1", r"takes Box\(.*one of 2"),
        (cartpole(control_period=0.05), "CartPole-v1", " 0.02 s"),
    ],
)
def test_a_choice_and_values_do_not_fit_each_other(policy: Policy, environment: str, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        run_policy(MachineSession(policy), environment, 1, seed=0, allow_other=True)


class FromOne(gymnasium.Wrapper):  # type: ignore[misc, name-defined]
    """CartPole whose actions are numbered from 1."""

    def __init__(self) -> None:
        super().__init__(gymnasium.make("CartPole-v1"))
        self.action_space = gymnasium.spaces.Discrete(2, start=1)


def test_actions_numbered_from_one_are_refused() -> None:
    gymnasium.register("FromOne-v0", entry_point=FromOne)
    try:
        with pytest.raises(ContractError, match=r"from 1, .* 0"):
            run_policy(MachineSession(cartpole()), "FromOne-v0", 1, seed=0, allow_other=True)
    finally:
        del gymnasium.registry["FromOne-v0"]


def test_what_spaces_and_tasks_say() -> None:
    assert choices_of(gymnasium.spaces.Discrete(3)) == 3
    assert choices_of(gymnasium.spaces.Box(-1, 1, (3,))) == 0
    for name, expected in (("CartPole-v1", 0.02), ("Pendulum-v1", 0.05), ("Acrobot-v1", 0.2), ("MountainCar-v0", None)):
        environment = gymnasium.make(name)
        assert stated_period(environment) == expected
        environment.close()


@pytest.mark.parametrize("engine", [MachineSession, EmulatorSession])
def test_a_nan_gives_the_fail_safe_choice(engine: type[MachineSession] | type[EmulatorSession]) -> None:
    policy = cartpole((4, 12, 3))
    integers, _ = lowered(policy)
    assert policy.recorded is not None
    rows = policy.recorded[:4].copy()
    expected = MachineSession(integers, batch=4).step(rows)
    rows[1, 2] = np.nan
    with engine(integers, batch=4) as session:
        actions = session.step(rows)
        assert actions.shape == (4, 1)
        assert actions[1, 0] == 2.0  # the contract's
        assert np.array_equal(actions[[0, 2, 3]], expected[[0, 2, 3]])
        assert session.counts.fail_safe == {NOT_FINITE: 1}
        session.reset(1)
        assert session.step(policy.recorded[0]).shape == (1,)


def test_compare_counts_other_choices() -> None:
    policy = cartpole((4, 12, 3))
    integers, report = lowered(policy)
    assert policy.recorded is not None
    comparison = compare(MachineSession(policy), MachineSession(integers), policy.recorded)
    assert (comparison.action_rms, comparison.action_max) == (None, None)
    assert comparison.actions_different == report["choices_different"]
    readout = comparison.layers[-1]
    assert readout.layer == "readout"
    # In the float policy's units on both sides.
    assert readout.largest < 1
    same = compare(MachineSession(integers), EmulatorSession(integers), policy.recorded)
    assert same.identical
    other = cartpole((4, 12, 2))
    with pytest.raises(ContractError, match="do not choose among the same actions"):
        compare(MachineSession(policy), MachineSession(other), policy.recorded)


def test_the_report_of_choices_by_hand() -> None:
    preferred = np.array([[1.0, 0.5, 0.0], [0.2, 0.9, 0.8], [0.0, 0.0, 3.0], [1.0, 0.6, 0.9]])
    rows = np.array([[1.0, 1.0, 0.0], [0.2, 0.8, 0.9], [0.0, 0.0, 3.0], [0.7, 0.6, 0.9]])
    choices = rows.argmax(axis=1)[:, None].astype(float)
    report = choice_report(preferred, choices, rows)
    assert report["choices_different"] == 2
    assert report["choice_margin_max"] == pytest.approx(0.1)
    assert report["choice_ties"] == 1
    assert report["preference_error_max"] == pytest.approx(0.5)
