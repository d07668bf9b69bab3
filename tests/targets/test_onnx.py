"""The target onnx: the file, the float form within an epsilon, the session, and what is refused.

EPSILON is the largest difference between the core in float32 and its definition in float64 while no spike differs: the
rounding of sums of some hundred terms of magnitude below 100. Where one spike differs the membrane lay within EPSILON
of its threshold, and the two trajectories part, so that the action is not looked at any further.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulated import policy_of, random_arithmetic
from graphs import LAVA, draw
from policies import random_dag, random_policy, with_node

import nervecord
from nervecord.compiler.compile import compile_graph
from nervecord.compiler.contract import Contract
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph import chain
from nervecord.compiler.interpret import Machine
from nervecord.compiler.ops import (
    Affine,
    Conv,
    Decode,
    Dense,
    Flatten,
    Input,
    IntegerMembrane,
    IntegerSpike,
    Level,
    Membrane,
    Neuron,
    Output,
    Scale,
    Spike,
    Threshold,
)
from nervecord.compiler.plan import plan
from nervecord.compiler.policy import Policy
from nervecord.compiler.schedule import Schedule
from nervecord.errors import ContractError, GraphError, InfeasibleError, NervecordError
from nervecord.runtime.emulator import EmulatorSession
from nervecord.runtime.session import MachineSession, Session
from nervecord.targets.onnx.engine import OnnxSession, inference_session
from nervecord.targets.onnx.model import MOST_STEPS, check_ops, make_model
from nervecord.targets.onnx.target import OnnxTarget, export

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

EPSILON = 2e-5


def single(x: Any) -> Any:
    """Rounded to float32; what that does not hold is infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(x, dtype=np.float64).astype(np.float32).astype(np.float64)


# --------------------------------------------------------------------------------------------------------------------
# Floats


class Watched(Machine):
    """The definition, with the membranes of its neurons before they spike."""

    def reset(self, batch: int | None = None) -> None:
        super().reset(batch)
        self.membranes: dict[str, list[Any]] = {}

    def window(self, observation: Any) -> Any:
        self.membranes = {}
        for step in self.plan.core:
            if isinstance(step.op, Neuron):
                self._steppers[step.name] = self._watching(step.name, step.op)
        return super().window(observation)

    def _watching(self, name: str, op: Neuron) -> Any:
        def step(state: Any, x: Any) -> Any:
            before = {key: value.copy() for key, value in state.items()}
            self.membranes.setdefault(name, []).append(op.before_spike(before, x))
            return op.step(state, x)

        return step


def agree(machine: Watched, steps: list[dict[str, Any]], found: dict[str, Any]) -> bool:
    """Whether an action's trace is the same but for EPSILON; else that its first difference is at a threshold."""
    for k, values in enumerate(steps):
        for step in machine.plan.core:
            wanted, given = values[step.name], found[step.name][k]
            if not step.op.spikes:
                np.testing.assert_allclose(given, wanted, rtol=0, atol=EPSILON, err_msg=f"step {k}: {step.name}")
            elif (wanted != given).any():
                assert isinstance(step.op, Neuron)
                assert isinstance(step.op.spike, Spike)
                distance = np.abs(machine.membranes[step.name][k] - step.op.spike.threshold)
                assert distance[wanted != given].max() <= EPSILON, f"step {k}: {step.name}"
                return False
    return True


def assert_close(policy: Policy, rows: Any) -> int:
    """Every action within EPSILON, or parted at a threshold; returns how many were the same to the end."""
    machine, same = Watched(policy), 0
    with OnnxSession(policy) as session:
        for row in rows:
            action, steps = machine.window(single(row))
            found = session.step(single(row))
            if not agree(machine, steps, session.trace()):
                machine.reset()
                session.reset()
                continue
            same += 1
            np.testing.assert_allclose(found, action, rtol=0, atol=2 * EPSILON)
    return same


FLOATS: list[dict[str, Any]] = [
    {},
    {"current": True},
    {"state": "carried"},
    {"population": 5, "output_population": 4},
    {"population": 5, "state": "carried"},
    {"choices": True},
    {"choices": True, "output_population": 3},
]


@pytest.mark.parametrize("shape", FLOATS, ids=lambda shape: "-".join(shape) or "plain")
def test_floats_are_within_epsilon_of_the_definition(shape: dict[str, Any]) -> None:
    policy = random_policy(2, **shape)
    rows = np.random.default_rng(0).normal(size=(40, 1, 27)) * 2
    assert assert_close(policy, rows) >= 38


@pytest.mark.parametrize("seed", range(6))
def test_branching_float_policies(seed: int) -> None:
    policy = random_dag(seed, carried=seed % 2 == 1, recurrent=seed % 4 == 3)
    rows = np.random.default_rng(seed).normal(size=(25, 1, policy.contract.observation.size)) * 2
    assert assert_close(policy, rows) >= 23


def test_a_difference_that_is_none_of_a_threshold_is_found() -> None:
    """The comparison above can fail: another decay is no rounding."""
    policy = random_policy(2)
    op = policy.graph.nodes["lif1"]
    assert isinstance(op, Neuron)
    assert isinstance(op.membrane, Membrane)
    other = dataclasses.replace(op.membrane, decay=op.membrane.decay * 0.9)
    machine, refused = Watched(policy), 0
    with OnnxSession(with_node(policy, "lif1", op.replace(membrane=other))) as session:
        for row in np.random.default_rng(0).normal(size=(40, 1, 27)):
            _, steps = machine.window(single(row))
            session.step(single(row))
            try:
                agree(machine, steps, session.trace())
            except AssertionError:
                refused += 1
    assert refused > 5


RESETS: list[dict[str, Any]] = [
    {"reset": "subtract"}, {"reset": "none"}, {"refractory": 2}, {"reset": "subtract", "refractory": 1},
    {"reset_value": 0.25},
]  # fmt: skip


@pytest.mark.parametrize("state", ["reset", "carried"])
@pytest.mark.parametrize("changes", RESETS, ids=str)
def test_every_reset_rule(changes: dict[str, Any], state: str) -> None:
    policy = random_policy(4, sizes=(6, 20, 3), state=state)
    op = policy.graph.nodes["lif1"]
    assert isinstance(op, Neuron)
    assert isinstance(op.spike, Spike)
    changes = {k: np.full(20, v) if k == "reset_value" else v for k, v in changes.items()}
    leaking = dataclasses.replace(op.membrane, leak=np.linspace(-0.1, 0.2, 20))
    policy = with_node(policy, "lif1", op.replace(spike=dataclasses.replace(op.spike, **changes), membrane=leaking))
    assert assert_close(policy, np.random.default_rng(1).normal(size=(30, 1, 6)) * 2) >= 28


def test_what_passes_values_on() -> None:
    """Scale, Flatten and Threshold beside connections."""
    base = random_policy(5, sizes=(4, 6, 2), population=0)
    given = dict(base.graph.nodes)
    nodes = [
        ("observation", given["observation"]), ("normalise", given["normalise"]),
        ("scale", Scale(np.linspace(0.5, 2, 4))), ("flat", Flatten((4,), 0, -1)), ("fc1", given["fc1"]),
        ("over", Threshold(np.full(6, 0.1))), ("fc2", given["fc2"]), ("readout", given["readout"]),
        ("decode", given["decode"]), ("action", given["action"]),
    ]  # fmt: skip
    policy = base.replace(graph=chain(Level.DISCRETE, nodes, dt=1e-3))
    machine = Machine(policy)
    with OnnxSession(policy) as session:
        for row in np.random.default_rng(2).normal(size=(30, 1, 4)):
            action, _ = machine.window(single(row))
            np.testing.assert_allclose(session.step(single(row)), action, atol=EPSILON)


# --------------------------------------------------------------------------------------------------------------------
# The file


def compiled(policy: Policy, **options: Any) -> Program:
    return compile_graph(policy, OnnxTarget(**options))


@pytest.mark.parametrize("form", ["float", "integer"])
@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize("state", ["reset", "carried"])
def test_what_robots_expect_of_the_file(form: str, opset: int, state: str, tmp_path: Path) -> None:
    policy = random_policy(1, state=state)
    program = compiled(policy, form=form, opset=opset)
    (emitted,) = nervecord.emit(program, tmp_path)
    assert emitted.path.name == "policy.onnx"
    model = onnx.load(emitted.path)
    onnx.checker.check_model(model, full_check=True)
    assert [(said.domain, said.version) for said in model.opset_import] == [("", opset)]
    sizes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    kinds = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    assert kinds == {onnx.TensorProto.FLOAT}
    assert next(iter(sizes)) == "obs"
    assert model.graph.output[0].name == "actions"
    assert (sizes["obs"], sizes["actions"]) == ([1, 27], [1, 8])
    if state == "reset":
        assert list(sizes) == ["obs", "actions"]
    else:
        assert list(sizes) == ["obs", "h_in", "actions", "h_out"]
        assert sizes["h_in"] == sizes["h_out"]
        layout = json.loads({p.key: p.value for p in model.metadata_props}["nervecord_state_layout"])
        assert sizes["h_in"] == [1, sum(slot["size"] * (2 if slot["wide"] else 1) for slot in layout)]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    shapes = [value.type.tensor_type.shape for value in inferred.graph.value_info]
    assert shapes
    assert all(axis.HasField("dim_value") for shape in shapes for axis in shape.dim), "static shapes"
    assert {node.domain for node in model.graph.node} == {""}


def test_metadata_holds_the_contract_exactly() -> None:
    program = compiled(random_policy(1), form="integer")
    said = {entry.key: entry.value for entry in export(program).proto.metadata_props}
    assert Contract.from_dict(json.loads(said["nervecord_contract"])) == program.policy.contract
    assert said["nervecord_form"] == "integer"
    assert json.loads(said["nervecord_arithmetic"])["weight_bits"] == 8
    assert said["joint_names"].split(",") == list(program.policy.contract.action.names)
    assert said["observation_names"].split(",") == list(program.policy.contract.observation.names)
    assert said["action_scale"].split(",") == ["1.000"] * 8
    assert said["run_path"]


def test_a_name_with_a_comma_stays_out_of_lists_joined_by_commas() -> None:
    policy = random_policy(1, sizes=(3, 4, 2))
    names = dataclasses.replace(policy.contract.action, names=("a", "b,c"))
    policy = policy.replace(contract=dataclasses.replace(policy.contract, action=names))
    said = {entry.key: entry.value for entry in export(compiled(policy)).proto.metadata_props}
    assert "joint_names" not in said
    assert "observation_names" in said
    assert json.loads(said["nervecord_contract"])["action"]["names"] == ["a", "b,c"]


def test_the_same_program_gives_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for k in range(2):
        (emitted,) = nervecord.emit(compiled(random_policy(1), form="integer"), tmp_path / str(k))
        found.append(emitted.path.read_bytes())
    assert found[0] == found[1]


def test_a_program_of_another_target_is_exported_by_its_own_arithmetic(tmp_path: Path) -> None:
    program = nervecord.compile(random_policy(3), target="lava", weight_bits=4)
    session = inference_session(export(program).proto.SerializeToString())
    with nervecord.open(program) as reference:
        for row in np.random.default_rng(0).normal(size=(20, 1, 27)):
            (found,) = session.run(["actions"], {"obs": row.astype(np.float32)})
            np.testing.assert_array_equal(found, reference.step(single(row)).astype(np.float32))


@pytest.mark.parametrize("seed", range(4, 40, 3))
def test_carried_state_wider_than_float32_travels_in_two_columns(seed: int) -> None:
    """32 bit membranes: the state that leaves and comes back as float32 is the emulator's."""
    wide = dataclasses.replace(
        random_arithmetic(seed), membrane_bits=32, current_bits=32, threshold_bits=20, threshold_shift=6, input_shift=6,
        readout="membrane",
    )  # fmt: skip
    case = draw(seed, wide)
    policy = policy_of(case)
    if policy is None or policy.schedule.resets:
        pytest.skip("nothing is carried")
    model = make_model(plan(policy))
    assert any(slot.wide for slot in model.slots)
    with MachineSession(policy) as reference, OnnxSession(policy) as session:
        for row in np.random.default_rng(seed).normal(size=(30, 1, policy.contract.observation.size)) * 50:
            np.testing.assert_array_equal(session.step(single(row)), single(reference.step(single(row))))


# --------------------------------------------------------------------------------------------------------------------
# What is not an observation


@pytest.mark.parametrize("form", ["float", "integer"])
@pytest.mark.parametrize("state", ["reset", "carried"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_a_bad_observation_gives_the_fail_safe_action_and_spoils_nothing(form: str, state: str, bad: float) -> None:
    policy = random_policy(1, state=state)
    policy = policy.replace(contract=dataclasses.replace(policy.contract, fail_safe=(0.25,) * 8))
    made = compiled(policy, form=form).policy
    rows = np.random.default_rng(0).normal(size=(6, 1, 27))
    with MachineSession(made) as reference, OnnxSession(made) as session:
        for k, row in enumerate(rows):
            broken = row.copy()
            if k == 2:
                broken[0, 5] = bad
            wanted = reference.step(single(broken))
            found = session.step(broken)
            np.testing.assert_allclose(found, wanted, atol=EPSILON)
            assert (found == 0.25).all() == (k == 2)
        assert session.counts.fail_safe == {"observation not finite": 1} == reference.counts.fail_safe


def test_an_input_of_spikes_takes_nothing_else() -> None:
    """As in a session: there it is an error, in the file the fail-safe action."""
    bias = np.zeros(3, dtype=np.int32)
    nodes = [
        ("observation", Input((3,), "spikes")), ("fc1", Dense(np.eye(3) * 60, 6)),
        ("lif1", Neuron(IntegerMembrane(400, bias), None, IntegerSpike(900))), ("fc2", Dense(np.eye(3) * 20, 0)),
        ("readout", Neuron(IntegerMembrane(0, bias))), ("decode", Decode([1e-4] * 3, [0.1] * 3, [-1.0] * 3, [1.0] * 3)),
        ("action", Output((3,))),
    ]  # fmt: skip
    contract = dataclasses.replace(random_policy(1, sizes=(3, 4, 3)).contract, fail_safe=(0.5,) * 3)
    policy = Policy(chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=LAVA), contract)
    raw = inference_session(make_model(plan(policy)).proto.SerializeToString())
    answers = set()
    with MachineSession(policy) as reference, OnnxSession(policy) as session:
        for row in np.random.default_rng(0).integers(0, 2, size=(12, 1, 3)).astype(np.float64):
            wanted = single(reference.step(row))
            answers.add(wanted.tobytes())
            np.testing.assert_array_equal(session.step(row), wanted)
            np.testing.assert_array_equal(raw.run(["actions"], {"obs": row.astype(np.float32)})[0], wanted)
        for other in (0.5, 2.0, -1.0):
            row = np.array([[1.0, other, 0.0]])
            with pytest.raises(GraphError, match="carries spikes, which are 0 or 1"):
                session.step(row)
            assert raw.run(["actions"], {"obs": row.astype(np.float32)})[0].tolist() == [[0.5] * 3]
    assert len(answers) > 1


# --------------------------------------------------------------------------------------------------------------------
# The session


def test_it_is_a_session() -> None:
    program = compiled(random_policy(1, state="carried"), form="integer")
    rows = np.random.default_rng(0).normal(size=(8, 3, 27))
    with nervecord.open(program) as session, EmulatorSession(program.policy) as reference:
        assert isinstance(session, Session)
        assert session.engine == "onnxruntime"
        session.reset(3)
        reference.reset(3)
        active = np.array([True, False, True])
        for row in rows:
            wanted = reference.step(single(row), active)
            np.testing.assert_array_equal(session.step(single(row), active), single(wanted))
        assert session.counts == reference.counts
        twin = copy.deepcopy(session)
        np.testing.assert_array_equal(twin.step(rows[0]), session.step(rows[0]))
        session.reset(1)
        assert session.step(rows[0, 0]).shape == (8,)
        with pytest.raises(ContractError, match=r"has shape \(2, 27\)"):
            session.step(rows[0, :2])
    with pytest.raises(ContractError, match="is closed"):
        session.step(rows[0, 0])


def test_counts_are_of_the_useful_steps() -> None:
    """The emulator also counts what a chip's pipeline does between two actions, on which nothing depends."""
    program = compiled(random_policy(1), form="integer")
    rows = np.random.default_rng(0).normal(size=(8, 1, 27))
    with OnnxSession(program.policy) as session, EmulatorSession(program.policy) as reference:
        spikes = 0
        for row in rows:
            session.step(single(row))
            reference.step(single(row))
            useful = session.plan.useful("lif1")
            spikes += int(reference.trace()["lif1"][useful].sum())
        assert session.counts.spikes["lif1"] == spikes > 0
        assert session.counts.actions == 8


def test_engines() -> None:
    floats, integers = (compiled(random_policy(1), form=form) for form in ("float", "integer"))
    row = np.zeros(27)
    for engine in ("definition", "emulator", "onnxruntime"):
        with nervecord.open(integers, engine=engine) as session:
            assert session.engine == engine
            action = session.step(row)
            assert np.array_equal(single(action), single(nervecord.open(integers).step(row)))
    with nervecord.open(floats, engine="definition") as session:
        assert session.engine == "definition"
    with pytest.raises(NervecordError, match="runs integers, and this program is in floats"):
        nervecord.open(floats, engine="emulator")
    with pytest.raises(NervecordError, match=r"unknown engine 'lava'"):
        nervecord.open(floats, engine="lava")


# --------------------------------------------------------------------------------------------------------------------
# Refusals


def test_an_op_without_a_form_is_refused_by_name() -> None:
    nodes = [
        ("input", Input((1, 5))), ("conv", Conv(np.ones((1, 1, 2)), None, (1,), (0,), (1,), 1, (5,))),
        ("output", Output((1, 4))),
    ]  # fmt: skip
    made = plan(chain(Level.DISCRETE, nodes, dt=1e-3), Schedule(1, "carried"))
    with pytest.raises(InfeasibleError, match="conv: Conv1d has no form in ONNX here"):
        check_ops(made)
    report = nervecord.inspect(chain(Level.DISCRETE, nodes, dt=1e-3), "onnx")
    assert report.targets[0].verdict == "infeasible"


def test_what_cannot_be_exported_is_refused() -> None:
    policy = random_policy(1, sizes=(3, 4, 2))
    with pytest.raises(ContractError, match=r"carries no contract, and a policy\.onnx maps an observation"):
        compile_graph(policy.graph.replace(nodes=policy.graph.nodes), OnnxTarget())
    many = policy.replace(contract=dataclasses.replace(policy.contract, steps=MOST_STEPS))
    with pytest.raises(InfeasibleError, match=f"4 core nodes in {MOST_STEPS} steps per action are .* to unroll"):
        check_ops(plan(many))
    with pytest.raises(NervecordError, match="weight_bits: is of integers, and the form is float"):
        nervecord.compile(policy, "onnx", weight_bits=4)
    with pytest.raises(NervecordError, match=r"opset: is 10, .* takes a whole number from 11 to 18"):
        nervecord.compile(policy, "onnx", opset=10)


def test_a_report_that_lies_about_its_opset_is_not_believed() -> None:
    program = compiled(random_policy(1, sizes=(3, 4, 2)))
    for lie in ("x", 99, None, True):
        told = dataclasses.replace(program, report={"lowering": {"onnx": {"opset": lie}}})
        assert export(told).proto.opset_import[0].version == 18


def test_affine_without_input_is_its_bias() -> None:
    """A delay that nothing has left yet: zeros, and the bias is there from the first step on."""
    policy = random_policy(7, sizes=(3, 6, 2), steps=4, state="reset")
    op = policy.graph.nodes["fc1"]
    assert isinstance(op, Affine)
    policy = with_node(policy, "fc1", op.replace(delay=2))
    assert assert_close(policy, np.random.default_rng(0).normal(size=(20, 1, 3)) * 3) >= 18
    with pytest.raises(GraphError):
        plan(policy.graph.replace(level=Level.IMPORTED))
