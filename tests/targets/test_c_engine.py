"""The engine c against the definition: every graph, every arithmetic, every step, to the bit."""

from __future__ import annotations

import ctypes
import shutil

import numpy as np
import pytest
from emulated import assert_same_state, observations_of, policy_of, random_arithmetic
from graphs import LAVA, Case, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import random_dag, random_policy

from nervecord.compiler.c.source import c_source
from nervecord.compiler.calibrate import calibrate
from nervecord.compiler.interpret import Machine
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.ops import Array
from nervecord.compiler.plan import plan
from nervecord.compiler.policy import Policy
from nervecord.errors import ContractError, InfeasibleError, MissingDependencyError, NervecordError
from nervecord.runtime.c_engine import Compiled, CSession, CStream, entering, left
from nervecord.runtime.c_library import load_library
from nervecord.runtime.emulator import EmulatorSession
from nervecord.runtime.session import MachineSession
from nervecord.runtime.stream import MachineStream

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler: apt-get install gcc"
)

QUICK = ("-O1",)
"""Every graph is compiled; what it computes is not the optimiser's affair."""


def assert_same_blocks(case: Case) -> None:
    """Definition and C on a case: what leaves, every value of every step, and the state after every block.

    And once more the text without what observes it, which is what is emitted: what leaves.
    """
    machine, compiled = Machine(case.plan), Compiled(case.plan, 1, flags=QUICK)
    plain = c_source(case.plan)
    emitted = load_library(plain, flags=QUICK).policy_step_q
    emitted.argtypes = [ctypes.c_void_p] * 3
    state = np.zeros(1, dtype=plain.dtype)
    step = compiled.function("step_q")
    form, steps = compiled.form, case.plan.schedule.steps
    for start in range(0, len(next(iter(case.inputs.values()))), steps):
        block = {name: x[start : start + steps, None] for name, x in case.inputs.items()}
        wanted, values = machine.block(block)
        x = entering(form, machine.entered, 1)
        out, again = np.zeros((2, 1, form.out_dim), dtype=np.int32)
        assert step(compiled.states.ctypes.data, x.ctypes.data, out.ctypes.data) == 0
        assert emitted(state.ctypes.data, x.ctypes.data, again.ctypes.data) == 0
        compiled.after_block()
        found = machine.after.leave(left(form, out))
        for name, rows in wanted.items():
            np.testing.assert_array_equal(found[name], rows, err_msg=f"seed {case.seed}, {start}: {name}")
        np.testing.assert_array_equal(out, again, err_msg=f"seed {case.seed}, {start}: emitted")
        trace = compiled.trace()
        assert list(trace) == list(values[0])
        for name, rows in trace.items():
            told = np.stack([each[name] for each in values])
            np.testing.assert_array_equal(rows, told, err_msg=f"seed {case.seed}, {start}: {name}")
        assert_same_state(machine.state, compiled.state())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_graphs_of_every_shape(seed: int) -> None:
    assert_same_blocks(draw(seed))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_any_arithmetic(seed: int) -> None:
    assert_same_blocks(draw(seed, random_arithmetic(seed)))


def single(values: Array) -> Array:
    """Rounded to float32, as the C takes and gives them."""
    return values.astype(np.float32).astype(np.float64)


class Emitted:
    """The text that is emitted, with one robot's state: observation in, action out."""

    def __init__(self, policy: Policy) -> None:
        source = c_source(plan(policy))
        self.state = np.zeros(1, dtype=source.dtype)
        self.function = load_library(source, flags=QUICK).policy_step
        self.function.argtypes = [ctypes.c_void_p] * 3
        self.size = policy.contract.action.size

    def step(self, row: Array) -> tuple[int, Array]:
        obs, act = np.ascontiguousarray(row, dtype=np.float32), np.full(self.size, np.nan, dtype=np.float32)
        code = self.function(self.state.ctypes.data, obs.ctypes.data, act.ctypes.data)
        return code, act.astype(np.float64)


def assert_same_actions(policy: Policy, observations: Array) -> Array:
    """Definition, engine and emitted text over (count, batch, observations); returns the actions."""
    batch = observations.shape[1]
    plain, session, emitted = MachineSession(policy, batch=batch), CSession(policy, batch, flags=QUICK), Emitted(policy)
    rng = np.random.default_rng(len(observations))
    actions = []
    for k, rows in enumerate(single(observations)):
        active = rng.random(batch) < 0.7
        if k == 3:
            rows[0, 0] = np.nan
        action, found = single(plain.step(rows, active)), session.step(rows, active)
        np.testing.assert_array_equal(found, action)
        code, first = emitted.step(rows[0])
        assert code == int(k == 3)
        np.testing.assert_array_equal(first, action[0])
        trace, told = plain.trace(), session.trace()
        assert list(trace) == list(told)
        for name, values in trace.items():
            np.testing.assert_array_equal(told[name], values, err_msg=f"{k}: {name}")
        assert_same_state(plain.state(), session.state())
        if k == 5 and batch > 1:
            plain.reset(rows=np.array([1]))
            session.reset(rows=np.array([1]))
        actions.append(action)
    assert session.counts == plain.counts
    return np.array(actions)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), choices=st.booleans())
def test_policies_of_every_shape(seed: int, choices: bool) -> None:
    policy = policy_of(draw(seed), choices=choices)
    if policy is not None:
        assert_same_actions(policy, observations_of(policy, seed, 8, 2))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_policies_in_any_arithmetic(seed: int) -> None:
    policy = policy_of(draw(seed, random_arithmetic(seed)))
    if policy is not None:
        assert_same_actions(policy, observations_of(policy, seed, 8, 1))


def compiled(policy: Policy) -> Policy:
    made, _ = lower(policy, LAVA, calibrate(policy))
    assert isinstance(made, Policy)
    return made.replace(recorded=policy.recorded)


@pytest.mark.parametrize(("state", "current"), [("reset", False), ("carried", True)])
@pytest.mark.parametrize(("population", "output_population"), [(0, 0), (6, 0), (0, 4), (6, 4)])
@pytest.mark.parametrize("choices", [False, True])
def test_compiled_policies(state: str, current: bool, population: int, output_population: int, choices: bool) -> None:
    policy = compiled(random_policy(
        5, sizes=(9, 20, 12, 3), state=state, current=current, population=population,
        output_population=output_population, choices=choices,
    ))  # fmt: skip
    assert policy.recorded is not None
    actions = assert_same_actions(policy, policy.recorded[:24].reshape(12, 2, -1).copy())
    assert len(np.unique(actions)) > 1


@pytest.mark.parametrize(("carried", "recurrent"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("seed", range(4))
def test_policies_that_branch(seed: int, carried: bool, recurrent: bool) -> None:
    policy = compiled(random_dag(seed, carried=carried, recurrent=recurrent))
    assert policy.recorded is not None
    assert_same_actions(policy, policy.recorded[:10, None].copy())


def test_streams_go_through_the_host_in_numpy() -> None:
    case = draw(7)
    a, b = MachineStream(case.plan, batch=1), CStream(case.plan, flags=QUICK)
    wanted, found = a.run(case.inputs), b.run(case.inputs)
    assert list(wanted) == list(found)
    for name, rows in wanted.items():
        np.testing.assert_array_equal(found[name], rows)
    assert a.counts == b.counts


def test_what_cannot_be_trusted_spoils_nothing() -> None:
    """NaN, infinity, what float32 cannot hold: the fail-safe action, counted; the core saw the mean."""
    policy = compiled(random_policy(5, sizes=(9, 20, 3), state="carried"))
    assert policy.recorded is not None
    rows = single(policy.recorded[:2])
    plain, session = MachineSession(policy), CSession(policy, flags=QUICK)
    for bad in (np.nan, np.inf, -np.inf, 1e39):
        broken, seen = rows[0].copy(), rows[0].copy()
        broken[2], seen[2] = bad, np.nan
        assert np.array_equal(session.step(broken), plain.step(seen))
        assert np.array_equal(session.step(rows[1]), single(plain.step(rows[1])))
    assert session.counts.fail_safe == {"observation not finite": 4}


def test_the_session_refuses_as_the_others_do() -> None:
    policy = compiled(random_policy(5, sizes=(9, 20, 3)))
    session = CSession(policy, flags=QUICK)
    with pytest.raises(ContractError, match="observation"):
        session.step(np.zeros(8))
    session.close()
    with pytest.raises(ContractError, match="closed"):
        session.step(np.zeros(9))
    graph = policy.graph
    nodes = {k: op.replace(weight_exp=7) if op.kind == "Dense" else op for k, op in graph.nodes.items()}
    beyond = policy.replace(graph=graph.replace(nodes=nodes))
    with pytest.raises(InfeasibleError, match="overflow"):
        CSession(beyond)


def test_integers_out_of_range_change_nothing() -> None:
    policy = compiled(random_policy(5, sizes=(9, 20, 3), state="carried"))
    source = c_source(plan(policy))
    step = load_library(source, flags=QUICK).policy_step_q
    step.argtypes = [ctypes.c_void_p] * 3
    state, out = np.zeros(1, dtype=source.dtype), np.full(source.form.out_dim, 77, dtype=np.int32)
    x = np.zeros(source.form.in_dim, dtype=np.int32)
    x[3] = 1 << 20
    assert step(state.ctypes.data, x.ctypes.data, out.ctypes.data) == 2
    assert not state.view(np.uint8).any()
    assert (out == 77).all()


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = compiled(random_policy(6, sizes=(4, 5, 2)))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(MissingDependencyError, match=r"needs a C compiler.*install gcc or clang"):
        CSession(policy)
    monkeypatch.setenv("CC", "no-such-compiler -m32")
    with pytest.raises(MissingDependencyError, match="names 'no-such-compiler'"):
        CSession(policy)


def test_a_compiler_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "false")
    with pytest.raises(NervecordError, match="false failed: exit code 1"):
        CSession(compiled(random_policy(7, sizes=(4, 5, 2))))


def test_it_needs_no_numba() -> None:
    import subprocess
    import sys

    text = (
        "import sys; sys.modules['numba'] = None\n"
        "import nervecord.runtime.c_engine, nervecord.compiler.c.source, nervecord.targets.integers\n"
        "assert 'nervecord.runtime.kernel' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", text], check=True)


def test_the_emulator_agrees_over_an_episode() -> None:
    """Observations that depend on the actions before: a loop that one different bit would part."""
    policy = compiled(random_policy(5, sizes=(9, 20, 3), state="carried"))
    fast, session = EmulatorSession(policy), CSession(policy, trace=False)
    mixing = np.random.default_rng(0).normal(size=(3, 9))
    states = [np.zeros(9), np.zeros(9)]
    for k in range(1000):
        for j, engine in enumerate((fast, session)):
            action = single(engine.step(single(states[j])))
            states[j] = np.sin(1.7 * states[j] + action @ mixing + 0.01 * k)
        assert np.array_equal(*states), k
