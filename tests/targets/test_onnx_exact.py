"""policy.onnx in integers: equal to the emulator and to the definition, to the bit, whatever the graph and arithmetic.

Both sides receive observations rounded to float32, and the actions are compared rounded to float32: that is all that
passes the border of such a file.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulated import observations_of, policy_of, random_arithmetic
from examples import some
from graphs import LAVA, draw
from policies import random_dag, random_policy
from singles import single

import nervecord
from nervecord.compiler.compile import compile_graph
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import STREAM
from nervecord.compiler.ops import Dense, Input, IntegerMembrane, Level, Neuron, Op, Output
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.compiler.plan.plan import plan
from nervecord.errors import GraphError
from nervecord.runtime.engines.emulator.session import EmulatorSession
from nervecord.runtime.session import MachineSession, Session
from nervecord.runtime.stream import MachineStream
from nervecord.runtime.worker.environment import given_action, make_environment
from nervecord.targets.catalogue import load_spec
from nervecord.targets.onnx.engine import OnnxSession, OnnxStream, inference_session
from nervecord.targets.onnx.target import OnnxTarget

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

REPOSITORY = Path(__file__).parents[2]


def lowered(policy: Policy, **options: Any) -> Policy:
    integers = OnnxTarget(form="integer", **options).lower(policy, calibrate(policy), policy.schedule).subject
    assert isinstance(integers, Policy)
    assert integers.graph.level is Level.INTEGER
    return integers


def assert_same(policy: Policy, reference: Session, observations: Any, *, batch: int = 1) -> None:
    """Actions, and what every core node gave in its useful steps."""
    reference.reset(batch)
    with OnnxSession(policy, batch=batch) as session:
        for k, row in enumerate(observations):
            expected, actual = reference.step(single(row)), session.step(single(row))
            np.testing.assert_array_equal(actual, single(expected), err_msg=f"action {k}")
            traced = session.trace()
            for name, values in reference.trace().items():
                useful = session.plan.useful(name)
                np.testing.assert_array_equal(traced[name][useful], values[useful], err_msg=f"action {k}: {name}")
            if k == 5 and batch > 1:
                reference.reset(rows=np.array([1]))
                session.reset(rows=np.array([1]))


@pytest.mark.parametrize("seed", range(28))
def test_random_graphs_in_random_arithmetics(seed: int) -> None:
    try:
        case = draw(seed, random_arithmetic(seed)) if seed % 4 else draw(seed)
    except AssertionError:
        pytest.skip("no legal graph in this arithmetic")
    policy = policy_of(case, choices=seed % 3 == 0)
    if policy is None:
        pytest.skip("no range can be proved")
    batch = 1 + seed % 3
    observations = observations_of(policy, seed, 12, batch)
    if readout_fires(policy, observations, batch):
        pytest.skip("a membrane that is read spikes, which the definition refuses")
    assert_same(policy, MachineSession(policy), observations, batch=batch)


@pytest.mark.parametrize("names", [("small", "large"), ("large", "small")])
def test_two_nodes_may_share_an_op(names: tuple[str, str]) -> None:
    """What enters is each node's own: 255 * 32767 * 4 is beyond float32, 255 * 4 is not."""
    wide = dataclasses.replace(
        LAVA, readout="membrane", current_bits=32, membrane_bits=32, input_shift=0, product_bits=40
    )
    dense, neurons = Dense(np.full((3, 4), 255), 0, 8, 1), Neuron(IntegerMembrane(4095, np.zeros(3)))
    limits = {"small": 1.0, "large": 32767.0}
    nodes: dict[str, Op] = {}
    for name in names:
        nodes |= {
            name: Input((4,), "values", limits[name]),
            f"{name} dense": dense,
            f"{name} neurons": neurons,
            f"{name} out": Output((3,)),
        }
    edges = [
        pair
        for n in names
        for pair in ((n, f"{n} dense"), (f"{n} dense", f"{n} neurons"), (f"{n} neurons", f"{n} out"))
    ]
    network_plan = plan(Graph(Level.INTEGER, nodes, tuple(edges), 1e-3, wide), STREAM)
    rng = np.random.default_rng(0)
    inputs = {n: rng.integers(-limits[n], limits[n], endpoint=True, size=(400, 4)) for n in names}
    expected, actual = MachineStream(network_plan).run(inputs), OnnxStream(network_plan).run(inputs)
    for name, rows in expected.items():
        np.testing.assert_array_equal(actual[name], rows, err_msg=name)


def readout_fires(policy: Policy, observations: Any, batch: int) -> bool:
    with MachineSession(policy, batch=batch) as session:
        try:
            for row in observations:
                session.step(single(row))
        except GraphError:
            return True
    return False


SHAPES: list[dict[str, Any]] = [
    {},
    {"current": True},
    {"state": "carried"},
    {"population": 5, "output_population": 4},
    {"population": 5, "output_population": 4, "state": "carried"},
    {"choices": True},
    {"choices": True, "output_population": 3},
    {"sizes": (5, 8, 7, 6, 2), "steps": 9},
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(shape) or "plain")
def test_policies_of_every_shape_against_the_emulator(shape: dict[str, Any]) -> None:
    policy = lowered(random_policy(3, **shape))
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(24, 2, policy.contract.observation.size)) * 2
    assert_same(policy, EmulatorSession(policy), rows, batch=2)


@pytest.mark.parametrize("seed", some(range(8), 2))  # tests/conformance has seven others
def test_branching_policies_with_delays_and_loops(seed: int) -> None:
    policy = lowered(random_dag(seed, carried=seed % 2 == 1, recurrent=seed % 4 == 3))
    assert policy.recorded is None or len(policy.recorded) > 0
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(25, 1, policy.contract.observation.size)) * 2
    assert_same(policy, EmulatorSession(policy), rows)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("opset", [11, 13, 15, 18])
def test_few_bits_and_an_old_opset(bits: int, opset: int, tmp_path: Path) -> None:
    program = compile_graph(random_policy(1), OnnxTarget(form="integer", weight_bits=bits, opset=opset))
    (emitted,) = nervecord.emit(program, tmp_path)
    session = inference_session(emitted.path.read_bytes())
    with EmulatorSession(program.policy) as reference:
        for row in np.random.default_rng(0).normal(size=(20, 1, 27)):
            (actions,) = session.run(["actions"], {"obs": row.astype(np.float32)})
            np.testing.assert_array_equal(actions, reference.step(single(row)).astype(np.float32))


def test_the_arithmetic_is_that_of_the_target_lava() -> None:
    spec = OnnxTarget(form="integer").spec
    assert spec.integers == load_spec("lava").integers
    assert OnnxTarget().spec.integers is None


# --------------------------------------------------------------------------------------------------------------------
# Whole episodes


def play(env: str, seed: int, act: Any) -> tuple[list[Any], float, int]:
    """An episode: observations rounded to float32, its return and length. Actions are given rounded to float32."""
    environment = make_environment(env)
    observation, _ = environment.reset(seed=seed)
    observations, total, steps = [], 0.0, 0
    while True:
        row = np.asarray(observation, dtype=np.float32)
        observations.append(row)
        observation, reward, terminated, truncated, _ = environment.step(act(row))
        total, steps = total + float(reward), steps + 1
        if terminated or truncated:
            environment.close()
            return observations, total, steps


@pytest.mark.parametrize(("name", "carried"), [("ant-small", False), ("cartpole-recurrent", True)])
def test_the_file_and_the_emulator_play_the_same_episode(name: str, carried: bool, tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    program = nervecord.compile(REPOSITORY / "zoo" / name / f"{name}.nervecord", "onnx", form="integer")
    contract = program.policy.contract
    (emitted,) = nervecord.emit(program, tmp_path)
    session = inference_session(emitted.path.read_bytes())
    inputs = [value.name for value in session.get_inputs()]
    assert inputs == (["obs", "h_in"] if carried else ["obs"])
    state = {value.name: np.zeros(value.shape, dtype=np.float32) for value in session.get_inputs()[1:]}

    def file(row: Any) -> Any:
        action, *after = session.run(None, {"obs": row[None], **state})
        if after:
            state["h_in"] = after[0]
        return given_action(action[0], contract.choices)

    with EmulatorSession(program.policy) as reference:

        def emulator(row: Any) -> Any:
            return given_action(single(reference.step(row.astype(np.float64))), contract.choices)

        expected, actual = (play(contract.environment, 7, act) for act in (emulator, file))
    assert actual[1:] == expected[1:]
    assert actual[2] > 50
    np.testing.assert_array_equal(actual[0], expected[0])
    assert plan(program.policy).schedule.resets is not carried
