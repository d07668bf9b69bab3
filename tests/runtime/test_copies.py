"""Sessions in several threads, and copies of sessions, programs and graphs."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from policies import random_policy

import nervecord
from nervecord.compiler.compile import compile_graph
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.runtime.answer import ACTION_NOT_FINITE
from nervecord.targets.lava.target import LavaTarget
from nervecord.targets.reference.target import ReferenceTarget

WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}
ENGINES = ("emulator", "definition", "floats")


@pytest.fixture(scope="module")
def programs() -> dict[str, Program]:
    policy = random_policy(sizes=(3, 8, 2), steps=3, state="carried")
    return {"integers": compile_graph(policy, LavaTarget()), "floats": compile_graph(policy, ReferenceTarget())}


def opened(programs: dict[str, Program], engine: str) -> Any:
    if engine == "floats":
        return nervecord.open(programs["floats"])
    return nervecord.open(programs["integers"], engine=engine)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_copied_session_goes_on_alone_from_where_the_first_one_stood(
    programs: dict[str, Program], engine: str, way: str
) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 3))
    first = opened(programs, engine)
    for observation in rows[:5]:
        first.step(observation)
    second = WAYS[way](first)
    copied = [second.step(observation) for observation in rows[5:15]]  # carried state: it must be its own
    original = [first.step(observation) for observation in rows[5:15]]
    assert np.array_equal(original, copied)
    assert (first.counts.actions, second.counts.actions) == (15, 15)
    first.close()
    second.step(rows[0])


@pytest.mark.parametrize("way", WAYS)
def test_programs_graphs_and_plans_are_the_same_after_it(programs: dict[str, Program], way: str) -> None:
    for program in programs.values():
        again = WAYS[way](program)
        assert isinstance(again, Program)
        assert again.to_bytes() == program.to_bytes()
        graph = WAYS[way](program.graph)
        assert isinstance(graph, Graph)
        assert graph == program.graph
        assert WAYS[way](program.policy) == program.policy
        assert WAYS[way](program.contract) == program.contract
        session = WAYS[way](plan(program.policy))
        assert isinstance(session, Plan)
        assert session.window == plan(program.policy).window


@pytest.mark.parametrize("engine", ENGINES)
def test_a_session_in_two_threads_gives_every_thread_its_own_actions(programs: dict[str, Program], engine: str) -> None:
    """Without carried state an action depends on its observation alone, whoever asked before."""
    policy = random_policy(sizes=(3, 8, 2), steps=3, state="reset")
    program = compile_graph(policy, ReferenceTarget() if engine == "floats" else LavaTarget())
    session = nervecord.open(program, engine=None if engine == "floats" else engine)
    observations = np.random.default_rng(0).normal(size=(2, 50, 3))
    expected = [[session.step(observation) for observation in rows] for rows in observations]
    wrong: list[int] = []
    times = 40 if engine == "emulator" else 3

    def ask(k: int) -> None:
        for _ in range(times):
            for observation, action in zip(observations[k], expected[k], strict=True):
                if not np.array_equal(session.step(observation), action):
                    wrong.append(k)

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert session.counts.actions == 100 + 100 * times


def test_an_action_that_is_not_finite_is_replaced_and_counted(programs: dict[str, Program]) -> None:
    """Weights of a decoder at the edge of float64: their products are infinite, and no limits stand behind them."""
    policy = random_policy(sizes=(3, 8, 2), steps=3, output_population=2)
    weight = np.tile([1.7e308, -1.7e308], (2, 1))
    action = dataclasses.replace(policy.contract.action, low=None, high=None)
    contract = dataclasses.replace(policy.contract, action=action, fail_safe=(0.25, -0.5))
    for target in (ReferenceTarget(), LavaTarget()):
        # Compiling refuses such weights, but a program may be anybody's.
        program = compile_graph(policy.replace(contract=contract), target)
        decode = program.graph.nodes["decode"]
        graph = program.graph.replace(nodes={**program.graph.nodes, "decode": decode.replace(weight=weight)})
        wild = Program(program.target, graph, contract, report=program.report)
        with np.errstate(all="ignore"), nervecord.open(wild) as session:
            actions = [session.step(observation) for observation in np.random.default_rng(1).normal(size=(30, 3))]
            assert np.isfinite(actions).all()
            replaced = sum(np.array_equal(action, (0.25, -0.5)) for action in actions)
            assert replaced > 0
            assert session.counts.fail_safe == {ACTION_NOT_FINITE: replaced}
