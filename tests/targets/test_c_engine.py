"""The engine c against the definition: every graph, every arithmetic, every step, to the bit."""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sigma_delta_nets
from compiled_c import QUICK, Emitted, assert_same_actions, assert_same_blocks, single
from emulated import observations_of, policy_of, random_arithmetic
from examples import ALL, examples, some
from graphs import LAVA, Case, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import random_dag, random_policy

from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.ops import (
    Dense,
    HostStep,
    Input,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Level,
    Neuron,
    Normalise,
    Op,
    Output,
    PopulationEncode,
    Quantise,
)
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.compiler.plan.plan import plan
from nervecord.errors import ContractError, EngineError, InfeasibleError, MissingDependencyError, NervecordError
from nervecord.runtime.answer import NOT_FINITE
from nervecord.runtime.checks import MOST_COPIES
from nervecord.runtime.engines.c import library
from nervecord.runtime.engines.c.library import load_library
from nervecord.runtime.engines.c.session import CSession, CStream
from nervecord.runtime.engines.c.source import c_source
from nervecord.runtime.engines.emulator.session import EmulatorSession
from nervecord.runtime.session import MachineSession
from nervecord.runtime.stream import MachineStream

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler: apt-get install gcc"
)


@settings(max_examples=examples(20), deadline=None)
@given(seed=st.integers(0, 10**6))
def test_graphs_of_every_shape(seed: int) -> None:
    assert_same_blocks(draw(seed))


@settings(max_examples=examples(20), deadline=None)
@given(seed=st.integers(0, 10**6))
def test_any_arithmetic(seed: int) -> None:
    assert_same_blocks(draw(seed, random_arithmetic(seed)))


@settings(max_examples=examples(15), deadline=None)
@given(seed=st.integers(0, 10**6), choices=st.booleans())
def test_policies_of_every_shape(seed: int, choices: bool) -> None:
    policy = policy_of(draw(seed), choices=choices)
    if policy is not None:
        assert_same_actions(policy, observations_of(policy, seed, 8, 2))


@settings(max_examples=examples(8), deadline=None)
@given(seed=st.integers(0, 10**6))
def test_policies_in_any_arithmetic(seed: int) -> None:
    policy = policy_of(draw(seed, random_arithmetic(seed)))
    if policy is not None:
        assert_same_actions(policy, observations_of(policy, seed, 8, 1))


def compiled(policy: Policy) -> Policy:
    integers, _ = lower(policy, LAVA, calibrate(policy))
    assert isinstance(integers, Policy)
    return integers.replace(recorded=policy.recorded)


@pytest.mark.parametrize(("state", "current"), [("reset", False), ("carried", True)])
@pytest.mark.parametrize(("population", "output_population"), [(0, 0), (6, 0), (0, 4), (6, 4)])
@pytest.mark.parametrize("choices", some([False, True], 1))  # tests/conformance has choices
def test_compiled_policies(state: str, current: bool, population: int, output_population: int, choices: bool) -> None:
    policy = compiled(
        random_policy(
            5,
            sizes=(9, 20, 12, 3),
            state=state,
            current=current,
            population=population,
            output_population=output_population,
            choices=choices,
        )
    )
    assert policy.recorded is not None
    actions = assert_same_actions(policy, policy.recorded[:24].reshape(12, 2, -1).copy())
    assert len(np.unique(actions)) > 1


@pytest.mark.parametrize(("carried", "recurrent"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("seed", some(range(4), 1))  # tests/conformance has seven others
def test_policies_that_branch(seed: int, carried: bool, recurrent: bool) -> None:
    policy = compiled(random_dag(seed, carried=carried, recurrent=recurrent))
    assert policy.recorded is not None
    assert_same_actions(policy, policy.recorded[:10, None].copy())


def test_streams_go_through_the_host_in_numpy() -> None:
    case = draw(7)
    a, b = MachineStream(case.plan, batch=1), CStream(case.plan, flags=QUICK)
    expected, actual = a.run(case.inputs), b.run(case.inputs)
    assert list(expected) == list(actual)
    for name, rows in expected.items():
        np.testing.assert_array_equal(actual[name], rows)
    assert a.counts == b.counts


def test_what_cannot_be_trusted_spoils_nothing() -> None:
    """NaN, infinity, what float32 cannot hold: the fail-safe action, counted; the core saw the mean."""
    policy = compiled(random_policy(5, sizes=(9, 20, 3), state="carried"))
    assert policy.recorded is not None
    rows = single(policy.recorded[:2])
    plain, session = MachineSession(policy), CSession(policy, flags=QUICK)
    for bad in (np.nan, np.inf, -np.inf, 1e39):
        broken, substitute = rows[0].copy(), rows[0].copy()
        broken[2], substitute[2] = bad, np.nan
        assert np.array_equal(session.step(broken), plain.step(substitute))
        assert np.array_equal(session.step(rows[1]), single(plain.step(rows[1])))
    assert session.counts.fail_safe == {NOT_FINITE: 4}


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
    state, out = np.zeros(1, dtype=source.dtype), np.full(source.layout.out_dim, 77, dtype=np.int32)
    x = np.zeros(source.layout.in_dim, dtype=np.int32)
    x[3] = 1 << 20
    assert step(state.ctypes.data, x.ctypes.data, out.ctypes.data) == 2
    assert not state.view(np.uint8).any()
    assert (out == 77).all()


def test_a_reset_for_more_robots_than_there_is_memory_for_counts_nothing_twice() -> None:
    policy = compiled(random_policy(6, sizes=(4, 3000, 2), recorded=16))
    with CSession(policy, trace=False, flags=("-O0",)) as session:
        expected = session.step(np.ones(4))
        counts = session.counts
        assert sum(counts.spikes.values()) > 0
        with pytest.raises(ContractError, match="there is not the memory"):
            session.reset(MOST_COPIES)
        assert session.counts == counts
        np.testing.assert_array_equal(session.step(np.ones(4)), expected)


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = compiled(random_policy(6, sizes=(4, 5, 2)))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(MissingDependencyError, match=r"needs a C compiler.*gcc or clang"):
        CSession(policy)
    monkeypatch.setenv("CC", "no-such-compiler -m32")
    with pytest.raises(MissingDependencyError, match="names 'no-such-compiler'"):
        CSession(policy)
    monkeypatch.setenv("CC", '"gcc')
    with pytest.raises(MissingDependencyError, match="variable CC"):
        CSession(policy)


@pytest.mark.parametrize("flags", [pytest.param(library.FAST, marks=pytest.mark.optimised), ("-O1",)])
def test_the_flags_that_it_is_built_with(flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's, where a test is marked so; others are built more quickly (tests/conftest.py)."""
    used: list[tuple[str, ...]] = []

    def build(*arguments: Any) -> Path:
        used.append(arguments[-1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(library, "build", build)
    with pytest.raises(EngineError):
        CSession(compiled(random_policy(9, sizes=(4, 5, 2))))
    assert used == [library.FAST if ALL else flags]


def test_a_compiler_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "false")
    with pytest.raises(NervecordError, match=r"\bfalse .*code 1"):
        CSession(compiled(random_policy(7, sizes=(4, 5, 2))))


def test_it_needs_no_numba() -> None:
    import subprocess
    import sys

    text = (
        "import sys; sys.modules['numba'] = None\n"
        "import nervecord.runtime.engines.c.session, nervecord.runtime.engines.c.source, nervecord.targets.integers\n"
        "assert 'nervecord.runtime.engines.emulator.kernel' not in sys.modules"
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


def test_ties_are_rounded_to_even_and_limits_are_kept() -> None:
    """What enters the core, beside numpy: halves, what lies beside them, and what the limit cuts off."""
    policy = compiled(random_policy(5, sizes=(9, 20, 3)))
    graph = policy.graph
    nodes = dict(graph.nodes)
    limit = 0
    for name, op in graph.nodes.items():
        if isinstance(op, Normalise):
            nodes[name] = Normalise(np.zeros(9), np.ones(9), 0.0, 1e6)
        if isinstance(op, Quantise):
            nodes[name], limit = op.replace(scale=1.0), op.limit
    emitted = Emitted(policy.replace(graph=graph.replace(nodes=nodes)))
    halves = np.arange(-9, 9) + 0.5
    beside = np.nextafter(halves.astype(np.float32), np.float32(0)).astype(np.float64)
    ends = np.array(
        [
            limit - 0.5,
            limit,
            limit + 0.5,
            limit + 0.75,
            1e5,
            -limit + 0.5,
            -limit - 0.5,
            -limit - 0.75,
            -1e5,
            0.0,
            -0.0,
            0.25,
            -0.25,
            0.75,
            -0.75,
            1.5,
            -1.5,
            1.0,
        ]
    )
    for row in np.concatenate([halves, beside, -beside, ends]).reshape(-1, 9):
        emitted.step(row)
        expected = np.clip(np.rint(single(row)), -limit, limit)
        np.testing.assert_array_equal(emitted.state["in"][0, :9], expected)


def test_receptive_fields_are_those_of_the_definition_to_the_unit() -> None:
    """Every activation of the population code over what can enter, not the spikes alone that they lead to."""
    policy = compiled(random_policy(5, sizes=(9, 20, 3), population=6))
    graph = policy.graph
    (encode,) = [op for op in graph.nodes.values() if isinstance(op, PopulationEncode)]
    (normalise,) = [op for op in graph.nodes.values() if isinstance(op, Normalise)]
    emitted = Emitted(policy)
    rng = np.random.default_rng(0)
    values = set()
    for _ in range(300):
        row = single(normalise.mean + normalise.divisor * rng.normal(size=9) * rng.choice([0.1, 1, 3]))
        emitted.step(row)
        expected = HostStep(encode).values(normalise.step({}, row[None]))[0]
        np.testing.assert_array_equal(emitted.state["in"][0], expected)
        values |= set(expected.tolist())
    assert len(values) > 1000


@pytest.mark.long
@pytest.mark.optimised
@pytest.mark.parametrize("carried", [False, True])
def test_whole_episodes_in_the_simulator(carried: bool) -> None:
    """Ant-v4, each engine in a world of its own that its own actions drive: the same bits until the episode ends."""
    import warnings
    from pathlib import Path

    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("mujoco")
    if carried:
        policy = compiled(random_policy(5, sizes=(27, 40, 8), state="carried", current=True))
    else:
        import nervecord

        zoo = Path(__file__).parents[2] / "zoo" / "ant-small" / "policy.nir"
        policy = nervecord.compile(nervecord.read(zoo), "lava").policy
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        worlds = [gymnasium.make("Ant-v4") for _ in range(2)]
        observations = [single(world.reset(seed=3)[0]) for world in worlds]
        engines = [EmulatorSession(policy), CSession(policy, trace=False)]
        steps = 0
        for _ in range(1000):
            actions = [single(engine.step(x)) for engine, x in zip(engines, observations, strict=True)]
            assert np.array_equal(*actions), steps
            after = [world.step(action) for world, action in zip(worlds, actions, strict=True)]
            observations = [single(each[0]) for each in after]
            assert np.array_equal(*observations)
            steps += 1
            if after[0][2] or after[0][3]:
                break
    for world in worlds:
        world.close()
    assert steps > (10 if carried else 500)


@pytest.mark.parametrize("target", ["c", "lava", "a-chip-of-mine"])
def test_every_program_of_integers_opens_in_c(target: str) -> None:
    """By name of the engine; the target c by default. Beside the emulator nothing parts but the float32 of actions."""
    import nervecord
    from nervecord.compiler.files.program import Program

    policy = compiled(random_policy(5, sizes=(9, 20, 3), state="carried"))
    assert policy.recorded is not None
    program = Program(target, policy.graph, policy.contract)
    rows = single(policy.recorded[:20])
    with nervecord.open(program, engine="c") as session, nervecord.open(program, engine="emulator") as fast:
        assert session.engine == "c"
        comparison = nervecord.compare(session, fast, rows, tolerance=1e-6)
        assert comparison.agrees
        assert not nervecord.compare(session, fast, rows, tolerance=0).agrees
    if target == "c":
        with nervecord.open(program) as session:
            assert session.engine == "c"
    case = draw(7)
    stream = Program(target, case.plan.graph, None, case.plan.schedule)
    a, b = (nervecord.stream(stream, engine=engine).run(case.inputs) for engine in ("c", "definition"))
    for name, values in b.items():
        np.testing.assert_array_equal(a[name], values)


@pytest.mark.parametrize("seed", range(6))
def test_networks_of_changes_are_the_definition_to_the_bit(seed: int) -> None:
    assert_same_blocks(sigma_delta_nets.draw(seed))


@pytest.mark.parametrize("threshold", [0, 1, (1 << 31) - 1])
@pytest.mark.parametrize(("compare", "reset", "most"), [(">", "zero", 1), (">=", "subtract", 1), (">", "subtract", 3)])
def test_thresholds_at_the_ends_of_what_can_be_said(threshold: int, compare: str, reset: str, most: int) -> None:
    """Of 0, and beyond all that 32 bits hold: no comparison that a compiler calls always false."""
    case = draw(12)
    graph = case.plan.graph
    arithmetic = dataclasses.replace(
        LAVA,
        threshold_bits=32,
        compare=compare,
        reset=reset,
        spikes_per_step=most,
        readout="membrane",
        membrane_bits=32,
        membrane_overflow="saturate",
    )
    nodes = {
        name: op.replace(spike=IntegerSpike(threshold)) if isinstance(op, Neuron) and op.spikes else op
        for name, op in graph.nodes.items()
    }
    network_plan = plan(graph.replace(nodes=nodes, arithmetic=arithmetic), case.plan.schedule)
    assert_same_blocks(Case(12, network_plan, case.inputs))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("spike", [None, IntegerSpike((1 << 30) + 5)])
def test_a_membrane_behind_a_current_that_saturates(sign: int, spike: IntegerSpike | None) -> None:
    """Almost nothing decays, so that the bounds of both are far beyond int64 before they are cut."""
    arithmetic = dataclasses.replace(
        LAVA,
        decay="shift",
        decay_bits=5,
        decay_rounding="floor",
        current_decay_low=0,
        current_overflow="saturate",
        membrane_overflow="saturate",
        membrane_bits=32,
        readout="membrane",
        threshold_bits=31,
        threshold_shift=0,
        weight_signs="twos-complement",
    )
    nodes: dict[str, Op] = {
        "in": Input((1,), "spikes"),
        "dense": Dense(np.array([[100 * sign]]), 4, 8, 1),
        "out": Output((1,)),
        "neurons": Neuron(IntegerMembrane(31, np.zeros(1, dtype=np.int32)), IntegerSynapse(30), spike),
    }
    edges = (("in", "dense"), ("dense", "neurons"), ("neurons", "out"))
    network_plan = plan(Graph(Level.INTEGER, nodes, edges, 1e-3, arithmetic))
    assert_same_blocks(Case(0, network_plan, {"in": np.ones((500, 1), dtype=np.int64)}))


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_what_holds_a_library_says_that_it_cannot_be_copied(way: Callable[[Any], Any]) -> None:
    policy = random_policy(sizes=(3, 4, 2))
    integers, _ = lower(policy, LAVA, calibrate(policy))
    assert isinstance(integers, Policy)
    for session in (CSession(integers), CStream(integers.graph)):
        with session, pytest.raises(ContractError, match="neither copied nor pickled"):
            way(session)
