"""The compiled emulator against the definition: every graph, every arithmetic, every step, to the bit."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulated import assert_same_blocks, assert_same_state, observations_of, policy_of, random_arithmetic
from examples import examples, some
from graphs import LAVA, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import RECORDED, random_policy, with_node

from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.ops import (
    Dense,
    Input,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Level,
    Neuron,
    Output,
    PopulationEncode,
)
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.compiler.plan.plan import plan
from nervecord.errors import ContractError, GraphError, InfeasibleError
from nervecord.runtime.answer import NOT_FINITE
from nervecord.runtime.engines.emulator.session import Emulator, EmulatorSession, EmulatorStream
from nervecord.runtime.session import MachineSession
from nervecord.runtime.stream import MachineStream

FORMS = [{}, {"wide": True}, {"sparse": 2.0}, {"sparse": 2.0, "wide": True}, {"fast": False}]
"""As the ranges say; all in 64 bits; all matrices by their rows; all neurons by their instructions."""


def compiled(**options: object) -> Policy:
    """A chain that our own training could have made, in Lava's integers."""
    policy = random_policy(5, **options)  # type: ignore[arg-type]
    integers, _ = lower(policy, LAVA, calibrate(policy))
    assert isinstance(integers, Policy)
    return integers.replace(recorded=policy.recorded)


@settings(max_examples=examples(80), deadline=None)
@given(seed=st.integers(0, 10**6), batch=st.sampled_from([1, 3]), form=st.sampled_from(FORMS))
def test_graphs_of_every_shape(seed: int, batch: int, form: dict[str, bool]) -> None:
    assert_same_blocks(draw(seed), batch, **form)


@settings(max_examples=examples(80), deadline=None)
@given(seed=st.integers(0, 10**6), batch=st.sampled_from([1, 3]), form=st.sampled_from(FORMS))
def test_any_arithmetic(seed: int, batch: int, form: dict[str, bool]) -> None:
    assert_same_blocks(draw(seed, random_arithmetic(seed)), batch, **form)


@settings(max_examples=examples(40), deadline=None)
@given(seed=st.integers(0, 10**6), batch=st.sampled_from([1, 3]), choices=st.booleans())
def test_policies_of_every_shape(seed: int, batch: int, choices: bool) -> None:
    """The host's part in the loop or in numpy: the same actions, states, traces and counts."""
    policy = policy_of(draw(seed), choices=choices)
    if policy is not None:
        assert_same_actions(policy, observations_of(policy, seed, 8, batch))


def assert_same_actions(policy: Policy, observations: np.ndarray) -> bool:
    """Definition and emulator over (count, batch, observations); returns whether the host's part was in the loop."""
    batch = observations.shape[1]
    plain = MachineSession(policy, batch=batch)
    engines = [EmulatorSession(policy, batch), EmulatorSession(policy, batch, fuse=False)]
    rng = np.random.default_rng(len(observations))
    for k, rows in enumerate(observations):
        active = rng.random(batch) < 0.7
        if k == 3:
            rows[0, 0] = np.nan
        action, trace, state = plain.step(rows, active), plain.trace(), plain.state()
        for engine in engines:
            np.testing.assert_array_equal(engine.step(rows, active), action)
            actual = engine.trace()
            assert list(actual) == list(trace)
            for name, values in trace.items():
                np.testing.assert_array_equal(actual[name], values, err_msg=name)
            assert_same_state(state, engine.state())
        if k == 5 and batch > 1:
            for session in (plain, *engines):
                session.reset(rows=np.array([0, 2]))
    for engine in engines:
        assert engine.counts == plain.counts
    return engines[0].fused


@pytest.mark.parametrize("state", ["reset", "carried"])
@pytest.mark.parametrize("current", [False, True])
@pytest.mark.parametrize("sizes", some([(27, 16, 16, 8), (27, 40, 8)], 1))
@pytest.mark.parametrize(("population", "output_population"), [(0, 0), (6, 0), (0, 4), (6, 4)])
def test_compiled_policies(
    state: str, current: bool, sizes: tuple[int, ...], population: int, output_population: int
) -> None:
    policy = compiled(
        sizes=sizes, state=state, current=current, population=population, output_population=output_population
    )
    assert policy.recorded is not None
    assert assert_same_actions(policy, policy.recorded[:20, None].copy())
    assert assert_same_actions(policy, policy.recorded[:20].reshape(5, 4, -1).copy())


def delayed(delay: int, schedule: Schedule, limit: float | None, *, fan_in: int = 3) -> Graph:
    """One connection of this delay into neurons that are read, and one of another into the same."""
    rng = np.random.default_rng(delay)
    weight = 2 * rng.integers(-60, 60, size=(4, fan_in))
    neuron = Neuron(IntegerMembrane(4000, np.zeros(4)), IntegerSynapse(3000))
    nodes = [
        ("in", Input((fan_in,), "spikes" if limit is None else "values", limit)),
        ("dense", Dense(weight, -3, 8, delay)),
        ("read", neuron),
        ("out", Output((4,))),
    ]
    return chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=LAVA)


@pytest.mark.parametrize("delay", [1, 2, 7, 63])
@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(),
        Schedule(3, "carried"),
        Schedule(3, "carried", held=True),
        Schedule(3, "reset", held=True),
        Schedule(3, "reset"),
    ],
)
@pytest.mark.parametrize("limit", [None, 40.0])
def test_delays_reach_back_over_blocks(delay: int, schedule: Schedule, limit: float | None) -> None:
    """A held product of an action long ago, and rings, as the definition keeps them; of several copies."""
    network_plan = plan(delayed(delay, schedule, limit), schedule)
    plain, fast = MachineStream(network_plan, batch=2), EmulatorStream(network_plan, batch=2)
    rng = np.random.default_rng(delay)
    shape = (2, 3) if schedule.held else (schedule.steps, 2, 3)
    for _ in range(2 * delay // schedule.steps + 12):
        x = rng.integers(0, 2, size=shape) if limit is None else rng.normal(size=shape) * 30
        np.testing.assert_array_equal(fast.step(x), plain.step(x))
        for name, values in plain.trace().items():
            np.testing.assert_array_equal(fast.trace()[name], values, err_msg=name)
        assert_same_state(plain.state(), fast.state())
    assert fast.counts == plain.counts


def test_the_longest_delay_and_wide_products() -> None:
    """4096 steps; and sums that pass 2^31 before they are shifted, which need float64."""
    arithmetic = dataclasses.replace(LAVA, delay_max=4096, graded_bits=24, product_bits=53, weight_exponent_low=-24)
    graph = delayed(4096, Schedule(), float((1 << 23) - 1), fan_in=40)
    nodes = dict(graph.nodes)
    nodes["dense"] = nodes["dense"].replace(weight_exp=-18)
    network_plan = plan(graph.replace(nodes=nodes, arithmetic=arithmetic), Schedule(512, "carried"))
    plain, fast = MachineStream(network_plan), EmulatorStream(network_plan)
    rng = np.random.default_rng(0)
    total = 0.0
    for _ in range(10):
        x = rng.normal(size=(512, 40)) * (1 << 23)
        actual = fast.step(x)
        np.testing.assert_array_equal(actual, plain.step(x))
        total += np.abs(actual).sum()
    assert total > 0


def test_a_sparse_matrix_takes_a_place_for_each_of_its_weights() -> None:
    rng = np.random.default_rng(0)
    weight = 2 * rng.integers(1, 60, size=(300, 500)) * (rng.random((300, 500)) < 0.02)
    nodes = [
        ("in", Input((500,), "spikes")),
        ("dense", Dense(weight, 0, 8, 1)),
        ("lif", Neuron(IntegerMembrane(4000, np.zeros(300)), None, IntegerSpike(100))),
        ("out", Output((300,))),
    ]
    network_plan = plan(chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=LAVA))
    rows, full = EmulatorStream(network_plan), EmulatorStream(network_plan, sparse=0.0)
    count = int(np.count_nonzero(weight))
    assert rows._machine.packed.weights.size == count
    assert rows._machine.packed.columns.size == count + 1
    assert full._machine.packed.weights.size == weight.size
    x = rng.integers(0, 2, size=(40, 500))
    assert rows.run(x)["out"].sum() > 0
    np.testing.assert_array_equal(rows.run(x)["out"], full.run(x)["out"])


def test_more_memory_than_there_is_is_refused() -> None:
    """Rings of the longest block; and a batch that no machine holds."""
    graph = delayed(1, Schedule(), None)
    wide = {**graph.nodes, "in": Input((40000,), "spikes"), "dense": Dense(np.zeros((4, 40000)), 0, 8, 1)}
    with pytest.raises(InfeasibleError, match="memory, "):
        EmulatorStream(plan(graph.replace(nodes=wide), Schedule(1 << 16, "carried")))
    session = EmulatorStream(graph)
    with pytest.raises(ContractError, match=" 16777216 "):
        session.reset(10**15)
    with pytest.raises(InfeasibleError, match=r"GB for 1000000000000000 copies"):
        session._machine.reset(10**15)


def test_what_is_out_of_range_is_refused() -> None:
    graph = delayed(1, Schedule(), 32767.0)
    nodes = dict(graph.nodes)
    nodes["dense"] = nodes["dense"].replace(weight_exp=7)
    with pytest.raises(InfeasibleError, match="overflow"):
        EmulatorStream(graph.replace(nodes=nodes))
    with pytest.raises(GraphError, match="the emulator runs integers"):
        Emulator(random_policy())


@pytest.mark.parametrize("population", [0, 5])
def test_a_nan_gives_that_robot_the_fail_safe_action_and_spoils_nothing(population: int) -> None:
    policy = compiled(state="carried", population=population)
    assert policy.recorded is not None
    rows = policy.recorded[:3].copy()
    rows[1, 4] = np.nan
    plain, fast, general = (
        MachineSession(policy, batch=3),
        EmulatorSession(policy, 3),
        EmulatorSession(policy, 3, fuse=False),
    )
    a, b, c = (session.step(rows) for session in (plain, fast, general))
    assert np.array_equal(a, b)
    assert np.array_equal(a, c)
    assert np.array_equal(b[1], np.zeros(8))
    assert b[0].any()
    assert fast.counts.fail_safe == {NOT_FINITE: 1} == plain.counts.fail_safe == general.counts.fail_safe
    assert np.array_equal(plain.step(policy.recorded[:3]), fast.step(policy.recorded[:3]))
    fast.step(rows, np.array([True, False, True]))
    assert fast.counts.fail_safe == {NOT_FINITE: 1}


@pytest.mark.parametrize("wrong", [np.zeros(5), np.zeros((2, 27)), np.array(["x"] * 27), np.zeros(27, dtype=complex)])
def test_a_wrong_observation_is_refused(wrong: np.ndarray) -> None:
    session = EmulatorSession(compiled())
    with pytest.raises(ContractError, match="observation"):
        session.step(wrong)
    session.close()
    with pytest.raises(ContractError, match="closed"):
        session.step(np.zeros(27))


def test_other_number_types_give_the_same_action() -> None:
    session = EmulatorSession(compiled())
    row = np.linspace(-3, 3, 27).astype(np.float32)
    assert np.array_equal(session.step(row), session.step(row.astype(np.float64)[None])[0])
    assert np.array_equal(session.step([int(x) for x in row]), session.step(np.trunc(row)))  # type: ignore[arg-type]
    wide = np.zeros((1, 54))
    wide[:, ::2] = row
    assert np.array_equal(session.step(wide[:, ::2]), session.step(row)[None])


def test_one_session_in_two_threads_gives_each_its_own_actions() -> None:
    policy = compiled()
    assert policy.recorded is not None
    session = EmulatorSession(policy)
    expected = [session.step(row) for row in policy.recorded]
    wrong: list[int] = []

    def drive(order: range) -> None:
        assert policy.recorded is not None
        rows = [policy.recorded[k % RECORDED] for k in order]
        wrong.extend(
            k
            for k, row in zip(order, rows, strict=True)
            if not np.array_equal(session.step(row), expected[k % RECORDED])
        )

    threads = [threading.Thread(target=drive, args=(range(start, start + 1500),)) for start in (0, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert session.counts.actions == RECORDED + 3000


def test_a_copy_goes_on_from_the_same_state() -> None:
    policy = compiled(state="carried")
    assert policy.recorded is not None
    session = EmulatorSession(policy)
    for row in policy.recorded[:5]:
        session.step(row)
    twins = [copy.deepcopy(session), pickle.loads(pickle.dumps(session))]
    for row in policy.recorded[5:20]:
        expected = session.step(row)
        assert all(np.array_equal(twin.step(row), expected) for twin in twins)
    assert all(twin.counts == session.counts for twin in twins)


@pytest.mark.slow
def test_nothing_is_read_or_written_out_of_bounds(tmp_path: Path) -> None:
    """The same comparisons with numba's bounds checks on, in an interpreter of its own."""
    tests = Path(__file__).parent.parent
    code = (
        "from emulated import *; from graphs import draw\n"
        "for seed in range(12):\n"
        "    case = draw(seed)\n"
        "    assert_same_blocks(case, 1 + seed % 2, sparse=2.0 * (seed % 3 == 0), wide=seed % 4 == 3)\n"
        "    policy = policy_of(case)\n"
        "    if policy is not None:\n"
        "        from nervecord.runtime.engines.emulator.session import EmulatorSession\n"
        "        for fuse in (True, False):\n"
        "            session = EmulatorSession(policy, 2, fuse=fuse)\n"
        "            for rows in observations_of(policy, seed, 4, 2): session.step(rows)\n"
        "print('done')\n"
    )
    # numba's cache does not tell code with checks from code without.
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(tests)}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout.strip()) == (0, "done"), process.stderr[-2000:]


@pytest.mark.slow
def test_a_damaged_cache_costs_time_and_one_warning_and_is_made_anew(tmp_path: Path) -> None:
    tests = Path(__file__).parent.parent
    code = (
        "import warnings; from emulated import *; from graphs import draw\n"
        "with warnings.catch_warnings(record=True) as said:\n"
        "    warnings.simplefilter('always')\n"
        "    assert_same_blocks(draw(3), 1); assert_same_blocks(draw(4), 1)\n"
        "print([str(w.message).split(':')[0] for w in said])\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tests)}

    def run() -> str:
        process = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        assert process.returncode == 0, process.stderr[-2000:]
        return process.stdout.strip()

    assert run() == "[]"
    files = list((tmp_path / "cache").rglob("*.nb[ic]"))
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[:50])
    assert run() == '["numba\'s cache was damaged and is made anew"]'
    assert run() == "[]"


def test_population_codes_are_in_the_loop() -> None:
    policy = compiled(population=6)
    assert any(isinstance(op, PopulationEncode) for op in policy.graph.nodes.values())
    assert EmulatorSession(policy).fused
    assert not EmulatorSession(policy, fuse=False).fused


@pytest.mark.parametrize("changes", [{"carries": "values", "limit": 0.25}, {"carries": "spikes"}])
@pytest.mark.parametrize("population", [0, 6])
def test_what_an_input_does_is_not_left_out_of_the_loop(population: int, changes: dict[str, Any]) -> None:
    """A limit clips what the normaliser gets, and an Input of spikes refuses values."""
    policy = compiled(population=population)
    (name,) = policy.graph.inputs
    policy = with_node(policy, name, policy.graph.nodes[name].replace(**changes))
    observations = observations_of(policy, 1, 12, 3)
    if changes["carries"] == "values":
        assert not assert_same_actions(policy, observations)
        return
    for session in (EmulatorSession(policy, 3), MachineSession(policy, batch=3)):
        with pytest.raises(GraphError, match=name):
            session.step(observations[0])


def test_spikes_are_zero_or_one() -> None:
    for session in (MachineStream(delayed(1, Schedule(), None)), EmulatorStream(delayed(1, Schedule(), None))):
        session.step(np.array([0, 1, 1]))
        with pytest.raises(GraphError, match=r"in: .*2, .*spikes"):
            session.step(np.array([0, 1, 2]))


def test_an_unfit_threshold_is_no_spike() -> None:
    """A threshold of zero: only what is above it spikes, as the arithmetic's comparison says."""
    nodes = [
        ("in", Input((1,), "spikes")),
        ("dense", Dense([[0]], 0, 8, 1)),
        ("lif", Neuron(IntegerMembrane(0, [0]), None, IntegerSpike(0))),
        ("out", Output((1,))),
    ]
    graph = chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=LAVA)
    session = EmulatorStream(graph)
    assert not any(session.step(np.array([1])).any() for _ in range(3))


def test_numba_is_imported_with_the_first_emulator_and_its_absence_is_said() -> None:
    tests = Path(__file__).parent.parent
    code = (
        "import sys; from emulated import *; from graphs import draw\n"
        "import nervecord.runtime.stream as stream\n"
        "from nervecord.errors import NervecordError\n"
        "assert 'numba' not in sys.modules\n"
        "sys.modules['numba'] = None\n"
        "case = draw(1); stream.MachineStream(case.plan).run(case.inputs)\n"
        "try: Emulator(case.plan)\n"
        "except NervecordError as error: print(error, '|', error.hint)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tests)}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert re.search(r"^emulator: .*\bnumba\b", process.stdout, re.MULTILINE)
    assert "the engine definition" in process.stdout
