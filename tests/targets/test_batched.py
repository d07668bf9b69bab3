"""Engine torch against the definition: integers to the bit at every step, floats op by op; and that it stays on its
device."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import floatgraphs
from batched import assert_same_stream
from emulated import assert_same_state, observations_of, policy_of, random_arithmetic
from examples import examples, some
from graphs import LAVA, Case, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import random_dag, random_policy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nervecord.compiler.graph.graph import chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.ops import Affine, Input, Level, Membrane, Neuron, Output, Spike
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.errors import ContractError, GraphError, NervecordError
from nervecord.runtime.answer import NOT_FINITE
from nervecord.runtime.engines.emulator.session import EmulatorSession
from nervecord.runtime.engines.torch import kernels
from nervecord.runtime.engines.torch.agreement import agreement
from nervecord.runtime.engines.torch.machine import BatchedMachine
from nervecord.runtime.engines.torch.session import BatchedSession, BatchedStream
from nervecord.runtime.session import MachineSession, Session
from nervecord.runtime.stream import MachineStream, StreamSession

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
"""Where there is a card, everything is tested on it as well."""
on_every_device = pytest.mark.parametrize("device", DEVICES)


def integer(policy: Policy) -> Policy:
    integers, _ = lower(policy, LAVA, calibrate(policy))
    assert isinstance(integers, Policy)
    return integers.replace(recorded=policy.recorded)


# --------------------------------------------------------------------------------------------------------------------
# Integers, to the bit


@on_every_device
@settings(max_examples=examples(40), deadline=None)
@given(seed=st.integers(0, 10**6), batch=st.sampled_from([1, 3]))
def test_graphs_of_every_shape(device: str, seed: int, batch: int) -> None:
    assert_same_stream(draw(seed), batch, device)


@on_every_device
@settings(max_examples=examples(40), deadline=None)
@given(seed=st.integers(0, 10**6), batch=st.sampled_from([1, 3]))
def test_any_arithmetic(device: str, seed: int, batch: int) -> None:
    assert_same_stream(draw(seed, random_arithmetic(seed)), batch, device)


def assert_same_actions(policy: Policy, observations: np.ndarray, device: str) -> None:
    batch = observations.shape[1]
    plain, engine = MachineSession(policy, batch=batch), BatchedSession(policy, batch, device=device)
    rng = np.random.default_rng(len(observations))
    for k, rows in enumerate(observations):
        active = rng.random(batch) < 0.7
        if k == 3:
            rows[0, 0] = np.nan
        np.testing.assert_array_equal(engine.step(rows, active), plain.step(rows, active))
        for name, values in plain.trace().items():
            np.testing.assert_array_equal(engine.trace()[name], values, err_msg=name)
        assert_same_state(plain.state(), engine.state())
        assert engine.counts == plain.counts
        if k == 5 and batch > 1:
            for session in (plain, engine):
                session.reset(rows=np.array([0, 2]))


@on_every_device
@settings(max_examples=examples(30), deadline=None)
@given(seed=st.integers(0, 10**6), batch=st.sampled_from([1, 3]), choices=st.booleans())
def test_policies_of_every_shape(device: str, seed: int, batch: int, choices: bool) -> None:
    policy = policy_of(draw(seed), choices=choices)
    if policy is not None:
        assert_same_actions(policy, observations_of(policy, seed, 8, batch), device)


@on_every_device
@pytest.mark.parametrize("state", ["reset", "carried"])
@pytest.mark.parametrize(("population", "output_population"), [(0, 0), (6, 0), (0, 4), (6, 4)])
@pytest.mark.parametrize("choices", some([False, True], 1))  # tests/conformance has choices
def test_compiled_policies(device: str, state: str, population: int, output_population: int, choices: bool) -> None:
    """Against the definition, and against the emulator over a longer run."""
    policy = integer(
        random_policy(
            5,
            sizes=(27, 40, 8),
            state=state,
            current=True,
            population=population,
            output_population=output_population,
            choices=choices,
        )
    )
    assert policy.recorded is not None
    assert_same_actions(policy, policy.recorded[:20].reshape(5, 4, -1).copy(), device)
    engine, emulator = BatchedSession(policy, 16, device=device), EmulatorSession(policy, 16)
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = rng.normal(size=(16, 27)) * 2
        assert np.array_equal(engine.step(rows), emulator.step(rows))
    assert engine.counts == emulator.counts


# --------------------------------------------------------------------------------------------------------------------
# Floats, op by op


@on_every_device
@pytest.mark.parametrize("precision", ["float64", "float32"])
@settings(max_examples=examples(25), deadline=None)
@given(seed=st.integers(0, 10**6))
def test_floats_agree_op_by_op(device: str, precision: str, seed: int) -> None:
    case = floatgraphs.draw(seed)
    report = agreement(case.plan, case.blocks(), device=device, precision=precision)
    assert report.agrees, [op for op in report.ops if op.beyond]
    assert {op.name for op in report.ops} == {step.name for step in case.plan.core}
    assert all(op.compared for op in report.ops)


@settings(max_examples=examples(25), deadline=None)
@given(seed=st.integers(0, 10**6))
def test_float_streams_of_every_shape(seed: int) -> None:
    """Free trajectories, no spike of which lies near a threshold. 1e-9: sums in another order, of values near 1."""
    case = floatgraphs.draw(seed)
    plain, engine = MachineStream(case.plan, batch=2), BatchedStream(case.plan, 2)
    for block in case.blocks():
        outputs, actual_outputs = plain.step(block), engine.step(block)
        for name, rows in outputs.items():
            assert rows.shape == actual_outputs[name].shape
            np.testing.assert_allclose(actual_outputs[name], rows, rtol=1e-9, atol=1e-9, err_msg=name)
        expected = plain.state()
        for name, state in engine.state().items():
            assert {key: value.dtype for key, value in state.items()} == {k: v.dtype for k, v in expected[name].items()}
        assert engine.counts == plain.counts


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_float_policies(carried: bool, precision: str) -> None:
    """Skips, several ends, recurrence; the host's part is float64 in both."""
    for seed in range(3):
        policy = random_dag(seed, carried=carried, recurrent=carried)
        assert policy.recorded is not None
        rows = policy.recorded[:24].reshape(8, 3, -1)
        engine, plain = BatchedSession(policy, 3, precision=precision), MachineSession(policy, batch=3)
        report = engine.agreement(rows)
        assert report.agrees, report
        assert report.precision == precision
        assert sum(op.compared for op in report.ops) > 1000
        if precision == "float64":
            for row in rows:
                np.testing.assert_allclose(engine.step(row), plain.step(row), atol=1e-9)


@pytest.mark.parametrize("population", [0, 6])
@pytest.mark.parametrize("output_population", [0, 4])
@pytest.mark.parametrize("choices", [False, True])
def test_float_policies_with_codes_and_choices(population: int, output_population: int, choices: bool) -> None:
    policy = random_policy(4, population=population, output_population=output_population, choices=choices)
    assert policy.recorded is not None
    engine, plain = BatchedSession(policy, 8), MachineSession(policy, batch=8)
    for row in policy.recorded.reshape(3, 8, -1):
        np.testing.assert_allclose(engine.step(row), plain.step(row), atol=1e-9)
        np.testing.assert_array_equal(engine.trace()["lif1"], plain.trace()["lif1"])
    assert engine.counts == plain.counts


def on_the_edge() -> tuple[Plan, list[dict[str, np.ndarray]]]:
    """Sums that pass the threshold by less than float32 can tell."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(400, 30))
    x = rng.normal(size=(1, 1, 30))
    one = np.ones(400)
    total = (x[0] @ weight.T)[0]
    neuron = Neuron(Membrane(0 * one, one, 0 * one), None, Spike(total - 1e-10 * np.abs(total), 0 * one))
    nodes = [("in", Input((30,))), ("fc", Affine(weight)), ("lif", neuron), ("out", Output((400,)))]
    return plan(chain(Level.DISCRETE, nodes, dt=1e-3)), [{"in": x}]


def test_flipped_spikes_are_counted_and_within_epsilon() -> None:
    policy, blocks = on_the_edge()
    report = agreement(policy, blocks, precision="float32")
    assert report.agrees
    assert report.flipped > 350
    assert agreement(policy, blocks).flipped == 0
    assert report.to_dict()["flipped"] == report.flipped
    (lif,) = (op for op in report.ops if op.name == "lif")
    assert lif.flipped == report.flipped
    assert lif.compared == 400


def test_a_kernel_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """By one part in a million, in float64; and a comparison that is not strict."""
    policy, blocks = on_the_edge()
    right = kernels.KERNELS[Affine]

    def wrong(op: Any, ground: Any) -> Any:
        run = right(op, ground)
        return lambda state, x: run(state, x) * (1 + 1e-6)

    monkeypatch.setitem(kernels.KERNELS, Affine, wrong)
    report = agreement(policy, blocks)
    assert [op.name for op in report.ops if op.beyond] == ["fc"]
    monkeypatch.setitem(kernels.KERNELS, Affine, right)


def test_a_rounding_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decay that rounds down where it should round to zero."""
    monkeypatch.setattr("nervecord.runtime.engines.torch.equations.torch.trunc", torch.floor)
    wrong = [seed for seed in range(20) if not same_stream(draw(seed))]
    assert len(wrong) > 5


def same_stream(case: Case) -> bool:
    try:
        assert_same_stream(case, 1, "cpu")
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("kind", ["float", "integer"])
def test_rows_are_independent(kind: str) -> None:
    """What a robot gets is its own observations' alone: to the bit, whatever the others see."""
    policy = random_policy(7, state="carried", population=5)
    policy = integer(policy) if kind == "integer" else policy
    rng = np.random.default_rng(1)
    first, second = BatchedSession(policy, 33), BatchedSession(policy, 33)
    for _ in range(6):
        rows, others = rng.normal(size=(2, 33, 27))
        others[::4] = rows[::4]
        others[1, 3] = np.inf
        assert np.array_equal(first.step(rows)[::4], second.step(others)[::4])
    alone = [BatchedSession(policy) for _ in range(3)]
    together = BatchedSession(policy, 3)
    for _ in range(6):
        rows = rng.normal(size=(3, 27))
        one_by_one = np.stack([session.step(row) for session, row in zip(alone, rows, strict=True)])
        np.testing.assert_allclose(together.step(rows), one_by_one, rtol=0, atol=0 if kind == "integer" else 1e-12)


# --------------------------------------------------------------------------------------------------------------------
# It stays on its device


class _Watch(TorchDispatchMode):
    """Refuses tensors of another device, and remembers what ran."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, output)):
            assert not isinstance(leaf, torch.Tensor) or leaf.device.type == "meta", func.name()
        self.ran.append(func.name())
        return output


@pytest.mark.parametrize("kind", ["float", "integer"])
@pytest.mark.parametrize(("population", "output_population"), [(0, 0), (6, 4)])
@pytest.mark.parametrize("choices", [False, True])
def test_nothing_of_an_action_goes_through_the_host(
    kind: str, population: int, output_population: int, choices: bool
) -> None:
    """Torch's device `meta` holds no data: whoever looks at a value, or takes it to the host, fails there."""
    policy = random_policy(
        2, state="carried", population=population, output_population=output_population, choices=choices
    )
    policy = integer(policy) if kind == "integer" else policy
    session = BatchedSession(policy, 64, device="meta", trace=False)
    x = torch.empty(64, 27, device="meta")
    with _Watch() as watch:
        for _ in range(2):
            action = session.act(x, torch.ones(64, dtype=torch.bool, device="meta"))
        session.reset(rows=torch.ones(64, dtype=torch.bool, device="meta"))
    assert action.device.type == "meta"
    assert tuple(action.shape) == (64, 1 if choices else 8)
    assert len(watch.ran) > 50
    with pytest.raises(RuntimeError, match="meta"):
        session.counts.actions  # noqa: B018  # the counts are what does wait for the device


def test_floats_graphs_of_every_shape_stay_on_the_device() -> None:
    for seed in range(10):
        case = floatgraphs.draw(seed)
        machine = BatchedMachine(case.plan, 2, device="meta")
        with _Watch():
            for block in case.blocks()[:2]:
                machine.block({name: torch.empty(x.shape, device="meta") for name, x in block.items()})


def test_acting_on_tensors_is_stepping_and_gives_what_can_be_written_to() -> None:
    policy = integer(random_policy(1, state="carried"))
    stepped, acted = BatchedSession(policy, 5), BatchedSession(policy, 5, trace=False)
    rng = np.random.default_rng(0)
    for k in range(8):
        rows = rng.normal(size=(5, 27))
        rows[k % 5, 0] = np.nan if k == 4 else 0.5
        tensor = torch.from_numpy(rows.copy())
        action = acted.act(tensor, torch.tensor([True, True, False, True, True]))
        assert np.array_equal(action.numpy(), stepped.step(rows, np.array([True, True, False, True, True])))
        tensor.fill_(3.0)
        action.fill_(7.0)
        if k == 5:
            acted.reset(rows=torch.tensor([False, True, False, False, True]))
            stepped.reset(rows=np.array([1, 4]))
    assert acted.counts == stepped.counts
    assert acted.counts.actions == 32
    assert acted.counts.fail_safe == {NOT_FINITE: 1}
    with pytest.raises(ContractError, match="keeps no trace"):
        acted.trace()


def test_what_is_held_is_multiplied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of T steps one product of the observation, and one of the zeros that follow it."""
    kernel = kernels.KERNELS[kernels.Dense]
    calls: list[str] = []

    def counted(op: Any, ground: Any) -> Any:
        run = kernel(op, ground)

        def wrapped(state: Any, x: Any) -> Any:
            calls.append(op.label)
            return run(state, x)

        return wrapped

    monkeypatch.setitem(kernels.KERNELS, kernels.Dense, counted)
    session = BatchedSession(integer(random_policy(steps=9)), 4)
    session.step(np.random.default_rng(0).normal(size=(4, 27)))
    # fc1 hears what came a step before: zeros, the observation, zeros. fc2 hears spikes, other ones at each step.
    assert calls.count("fc1") == 3
    assert calls.count("fc2") == 11


# --------------------------------------------------------------------------------------------------------------------
# As a session


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
@pytest.mark.parametrize("kind", ["float", "integer"])
def test_a_copy_goes_its_own_way(copied: Any, kind: str) -> None:
    policy = random_policy(3, state="carried", population=4)
    policy = integer(policy) if kind == "integer" else policy
    assert policy.recorded is not None
    session, twin = BatchedSession(policy), BatchedSession(policy)
    assert isinstance(session, Session)
    for row in policy.recorded[:3]:
        session.step(row)
        twin.step(row)
    other = copied(session)
    other.step(np.full(27, 2.0))
    assert np.array_equal(session.step(policy.recorded[3]), twin.step(policy.recorded[3]))
    assert session.counts == twin.counts


def test_it_says_what_an_action_was() -> None:
    session = BatchedSession(integer(random_policy()), 3)
    assert session.last is None
    rows = np.random.default_rng(0).normal(size=(3, 27))
    session.step(rows)
    assert session.last is not None
    assert session.last.trusted
    rows[1, 1] = np.nan
    session.act(torch.from_numpy(rows))
    assert session.last.reasons == (None, NOT_FINITE, None)
    with pytest.raises(ContractError, match="observation: "):
        session.step(rows[:2])
    assert session.last is None


def test_streams_are_streams() -> None:
    case = draw(1)
    assert isinstance(BatchedStream(case.plan), StreamSession)
    actual = BatchedStream(case.plan).run(case.inputs)
    for name, rows in MachineStream(case.plan).run(case.inputs).items():
        np.testing.assert_array_equal(actual[name], rows)


def test_what_it_refuses() -> None:
    policy = random_policy()
    with pytest.raises(NervecordError, match=r"'float16' .*float32, float64"):
        BatchedSession(policy, precision="float16")
    with pytest.raises(GraphError, match=r"2\^53.*float32"):
        BatchedSession(integer(policy), precision="float32")
    with pytest.raises(NervecordError, match=r"device: 'cuda:99' .*cpu"):
        BatchedSession(policy, device="cuda:99")
    with pytest.raises(NervecordError, match="device: 'abacus'"):
        BatchedSession(policy, device="abacus")
    session = BatchedSession(policy, 2)
    with pytest.raises(ContractError, match=r"observation: .*\(3, 27\)"):
        session.act(torch.zeros(3, 27))
    with pytest.raises(ContractError, match=r"observation: .*torch.int64.*\(2, 27\)"):
        session.act(torch.zeros(2, 27, dtype=torch.int64))
    with pytest.raises(ContractError, match=r"observation: .*meta.*cpu"):
        session.act(torch.zeros(2, 27, device="meta"))
    with pytest.raises(ContractError, match="active: "):
        session.act(torch.zeros(2, 27), torch.ones(2))
    with pytest.raises(ContractError, match="rows: "):
        session.reset(rows=torch.ones(2))
    with pytest.raises(ContractError, match=r"rows: .*2 robots"):
        session.reset(rows=np.array([5]))
    session.close()
    with pytest.raises(ContractError, match="closed"):
        session.act(torch.zeros(2, 27))


def test_an_op_without_a_kernel_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(kernels.KERNELS, Affine)
    nodes = [("in", Input((2,))), ("fc", Affine(np.ones((2, 2)))), ("out", Output((2,)))]
    with pytest.raises(GraphError, match=r"Affine .*torch"):
        BatchedMachine(chain(Level.DISCRETE, nodes, dt=1e-3))


def test_coarse_products_are_refused_in_float32() -> None:
    session, exact = BatchedSession(random_policy(), precision="float32"), BatchedSession(random_policy())
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(NervecordError, match=r"float32 .*'high'"):
            session.step(np.zeros(27))
        exact.step(np.zeros(27))
    finally:
        torch.set_float32_matmul_precision(before)
    session.step(np.zeros(27))


def test_without_torch_it_says_what_to_install_and_nothing_else_needs_it() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.path[:0] = ['tests']\n"
        "from policies import random_policy\n"
        "import nervecord\n"
        "program = nervecord.compile(random_policy(), 'lava')\n"
        "nervecord.open(program).step([0.0] * 27)\n"
        "try:\n    nervecord.open(program, engine='torch')\n"
        "except nervecord.NervecordError as error:\n    print(type(error).__name__, error)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.startswith("MissingDependencyError engine torch: ")
    assert "[torch]" in process.stdout


def test_a_reset_for_more_robots_than_there_is_memory_for_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = torch.zeros

    def narrow(*shape: Any, **options: Any) -> torch.Tensor:
        tensor = zeros(*shape, **options)
        if tensor.numel() > 10_000:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] not enough memory: you tried to allocate")
        return tensor

    policy = random_policy(2, state="carried")
    x = np.random.default_rng(0).normal(size=(6, policy.contract.observation.size))
    with BatchedSession(policy) as session, BatchedSession(policy) as other:
        for row in x[:3]:
            np.testing.assert_array_equal(session.step(row), other.step(row))
        monkeypatch.setattr(torch, "zeros", narrow)
        with pytest.raises(ContractError, match="5000"):
            session.reset(5000)
        monkeypatch.undo()
        assert session.batch == 1
        for row in x[3:]:
            np.testing.assert_array_equal(session.step(row), other.step(row))
        assert session.counts == other.counts
