"""The compiled emulator against the definition: every spike, every state, to the bit."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import random_policy

from nervecord.compiler import nodes as n
from nervecord.compiler.calibrate import calibrate
from nervecord.compiler.graph import Graph, Level, chain
from nervecord.compiler.node import Node
from nervecord.compiler.ranges import check, prove
from nervecord.errors import ContractError, InfeasibleError
from nervecord.runtime.session import MachineSession
from nervecord.targets.lava.emulator import EmulatorSession
from nervecord.targets.lava.lower import lower


def random_integer_policy(seed: int) -> Graph:
    """Extremes the compiler would not choose: any decay, bias, threshold, exponent, sign mode, reset window."""
    rng = np.random.default_rng(seed)
    policy = random_policy(seed, sizes=(3, 4, 2), steps=int(rng.integers(1, 6)))
    sizes = (3, *(int(x) for x in rng.integers(1, 9, size=rng.integers(1, 4))), 2)
    constant = int(rng.choice([0, 0, 9]))
    normalise = policy.nodes["normalise"]
    encoder: Node = n.Quantise(3, float(rng.choice([1, 8, 64])), int(rng.integers(5, 640)), constant)
    if coded := bool(rng.random() < 0.4):
        mean = np.sort(rng.normal(size=(3, int(rng.integers(2, 6)))) * 2, axis=1)
        encoder = n.PopulationEncode(mean, float(rng.uniform(0.1, 2)), always=bool(constant))
    sizes = (encoder.out_shape[0] - bool(constant), *sizes[1:-1], sizes[-1])
    counted = int(rng.integers(1, 4)) if rng.random() < 0.4 else 0
    sizes = (*sizes[:-1], 2 * max(counted, 1))
    nodes = [("observation", n.Input((3,))), ("normalise", normalise), ("encode", encoder)]
    interval = int(rng.choice([0, 3, 7]))
    for k, (a, b) in enumerate(itertools.pairwise(sizes)):
        bits = int(rng.integers(2, 9))
        step = 1 << (9 - bits)
        weight = rng.integers(-(254 // step), 254 // step + 1, size=(b, a + (1 if k == 0 and constant else 0))) * step
        weight = np.abs(weight) if rng.random() < 0.2 else weight
        exponent = int(rng.integers(-8, 1))
        nodes.append((f"fc{k}", n.FixedDense(weight, exponent, bits, graded=k == 0 and not coded)))
        offset = int(rng.integers(0, max(interval, 1)))
        bias = rng.integers(-4096, 4096, size=b)
        shared = (int(rng.choice([0, 9, 2048, 4095])), int(rng.choice([1, 600, 2048, 4095])), bias)
        exp = int(rng.integers(0, 5))
        if k == len(sizes) - 2 and not counted:
            nodes.append(("readout", n.FixedReadout(*shared, exp, interval, offset)))
        else:
            nodes.append((f"lif{k}", n.FixedLIF(*shared, exp, int(rng.integers(0, 900)), interval, offset)))
    decode = policy.nodes["decode"]
    if counted:
        decode = n.CountDecode(rng.normal(size=(2, counted)), rng.normal(size=2), [-5.0, -5.0], [5.0, 5.0])
    chosen = random_policy(sizes=(3, 4, 2), choices=True) if rng.random() < 0.3 else None
    if chosen:
        assert chosen.contract is not None
        decode = n.CountArgmaxDecode(decode.weight, decode.offset) if counted else n.ArgmaxDecode(2, 0.01)  # type: ignore[attr-defined]
        policy = policy.replace(contract=chosen.contract)
    nodes += [("decode", decode), ("action", n.Output(decode.out_shape))]
    assert policy.contract is not None
    state = "carried" if rng.random() < 0.5 else "reset"
    latency = int(rng.integers(0, 4)) if state == "reset" else 0
    contract = dataclasses.replace(policy.contract, state=state, latency=latency)  # type: ignore[arg-type]
    return chain(Level.INTEGER, nodes, dt=1e-3, contract=contract)


def assert_same(graph: Graph, rows: np.ndarray, batch: int) -> None:
    plain, fast = MachineSession(graph, batch=batch), EmulatorSession(graph, batch=batch)
    for k in range(0, len(rows) - batch + 1, batch):
        assert np.array_equal(plain.step(rows[k : k + batch]), fast.step(rows[k : k + batch]))
        a, b = plain.trace(), fast.trace()
        assert list(a) == list(b)
        for name in a:
            assert np.array_equal(a[name], b[name]), name
        state = fast.state()
        for name, values in plain._machine.state.items():
            for key, value in values.items():
                assert np.array_equal(value, state[name][key]), (name, key)
    assert plain.counts.per_action() == fast.counts.per_action()
    assert plain.counts.synaptic_events == fast.counts.synaptic_events


@settings(max_examples=250, deadline=None)
@given(seed=st.integers(0, 10**6), batch=st.sampled_from([1, 3]))
def test_bit_exact_on_random_integer_policies(seed: int, batch: int) -> None:
    graph = random_integer_policy(seed)
    rows = np.random.default_rng(seed).normal(size=(9, 3)) * 5
    if check(prove(graph)):
        with pytest.raises(InfeasibleError):
            EmulatorSession(graph)
        return
    assert_same(graph, rows, batch)


@pytest.mark.parametrize("state", ["reset", "carried"])
@pytest.mark.parametrize("current", [False, True])
@pytest.mark.parametrize("sizes", [(27, 40, 8), (27, 16, 16, 8)])
@pytest.mark.parametrize(("population", "output_population"), [(0, 0), (6, 0), (0, 4), (6, 4)])
def test_bit_exact_on_compiled_policies(
    state: str, current: bool, sizes: tuple[int, ...], population: int, output_population: int
) -> None:
    policy = random_policy(
        5, sizes=sizes, state=state, current=current, population=population, output_population=output_population
    )
    graph, _ = lower(policy, calibrate(policy))
    assert policy.recorded is not None
    assert_same(graph, policy.recorded[:20], 1)
    assert_same(graph, policy.recorded[:20], 4)


@pytest.mark.parametrize("population", [0, 5])
def test_a_nan_gives_that_robot_the_fail_safe_action_and_spoils_nothing(population: int) -> None:
    policy = random_policy(state="carried", population=population)
    graph, _ = lower(policy, calibrate(policy))
    assert policy.recorded is not None
    rows = policy.recorded[:3].copy()
    rows[1, 4] = np.nan
    plain, fast = MachineSession(graph, batch=3), EmulatorSession(graph, batch=3)
    a, b = plain.step(rows), fast.step(rows)
    assert np.array_equal(a, b)
    assert np.array_equal(b[1], np.zeros(8))
    assert b[0].any()
    assert fast.counts.fail_safe == {"observation not finite": 1} == plain.counts.fail_safe
    assert np.array_equal(plain.step(policy.recorded[:3]), fast.step(policy.recorded[:3]))
    fast.reset(rows=np.array([1]))
    plain.reset(rows=np.array([1]))
    assert np.array_equal(plain.step(policy.recorded[3:6]), fast.step(policy.recorded[3:6]))


@pytest.mark.parametrize("wrong", [np.zeros(5), np.zeros((2, 27)), np.array(["x"] * 27), np.zeros(27, dtype=complex)])
def test_a_wrong_observation_is_refused(wrong: np.ndarray) -> None:
    policy = random_policy()
    session = EmulatorSession(lower(policy, calibrate(policy))[0])
    with pytest.raises(ContractError, match="observation"):
        session.step(wrong)
    session.close()
    with pytest.raises(ContractError, match="closed"):
        session.step(np.zeros(27))


def test_other_number_types_give_the_same_action() -> None:
    policy = random_policy()
    session = EmulatorSession(lower(policy, calibrate(policy))[0])
    row = np.linspace(-3, 3, 27).astype(np.float32)
    assert np.array_equal(session.step(row), session.step(row.astype(np.float64)[None])[0])
    assert np.array_equal(session.step([int(x) for x in row]), session.step(np.trunc(row)))  # type: ignore[arg-type]
