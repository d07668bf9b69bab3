"""The target onnx: the file, the session, streams, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulated import policy_of, random_arithmetic
from graphs import LAVA, draw, expected
from policies import random_policy
from singles import EPSILON, single

import nervecord
from nervecord.compiler.body.trace import Tracer, Value
from nervecord.compiler.compile import compile_graph
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.graph.graph import chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import STREAM, Schedule
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
    Pool,
    Scale,
    Spike,
)
from nervecord.compiler.plan.plan import plan
from nervecord.errors import ContractError, GraphError, InfeasibleError, NervecordError
from nervecord.runtime.answer import NOT_FINITE
from nervecord.runtime.engines.emulator.session import EmulatorSession
from nervecord.runtime.session import MachineSession, Session
from nervecord.runtime.stream import MachineStream
from nervecord.targets.onnx.engine import OnnxSession, OnnxStream, inference_session
from nervecord.targets.onnx.model import MOST_STEPS, check_ops, make_model
from nervecord.targets.onnx.target import OnnxTarget, export

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

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
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
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
    metadata = {entry.key: entry.value for entry in export(program).proto.metadata_props}
    assert Contract.from_dict(json.loads(metadata["nervecord_contract"])) == program.policy.contract
    assert metadata["nervecord_form"] == "integer"
    assert json.loads(metadata["nervecord_arithmetic"])["weight_bits"] == 8
    assert metadata["joint_names"].split(",") == list(program.policy.contract.action.names)
    assert metadata["observation_names"].split(",") == list(program.policy.contract.observation.names)
    assert metadata["action_scale"].split(",") == ["1.000"] * 8
    assert metadata["run_path"]


def test_a_name_with_a_comma_stays_out_of_lists_joined_by_commas() -> None:
    policy = random_policy(1, sizes=(3, 4, 2))
    names = dataclasses.replace(policy.contract.action, names=("a", "b,c"))
    policy = policy.replace(contract=dataclasses.replace(policy.contract, action=names))
    metadata = {entry.key: entry.value for entry in export(compiled(policy)).proto.metadata_props}
    assert "joint_names" not in metadata
    assert "observation_names" in metadata
    assert json.loads(metadata["nervecord_contract"])["action"]["names"] == ["a", "b,c"]


def test_the_same_program_gives_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for k in range(2):
        (emitted,) = nervecord.emit(compiled(random_policy(1), form="integer"), tmp_path / str(k))
        contents.append(emitted.path.read_bytes())
    assert contents[0] == contents[1]


def test_a_program_of_another_target_is_exported_by_its_own_arithmetic(tmp_path: Path) -> None:
    program = nervecord.compile(random_policy(3), target="lava", weight_bits=4)
    program.save(tmp_path / "lava.nervecord")
    (emitted,) = nervecord.emit(tmp_path / "lava.nervecord", tmp_path, target="onnx")
    session = inference_session(emitted.path.read_bytes())
    with nervecord.open(program) as reference:
        for row in np.random.default_rng(0).normal(size=(20, 1, 27)):
            (actions,) = session.run(["actions"], {"obs": row.astype(np.float32)})
            np.testing.assert_array_equal(actions, reference.step(single(row)).astype(np.float32))


@pytest.mark.parametrize("seed", range(4, 40, 3))
def test_carried_state_wider_than_float32_travels_in_two_columns(seed: int) -> None:
    """32 bit membranes: the state that leaves and comes back as float32 is the emulator's."""
    wide = dataclasses.replace(
        random_arithmetic(seed),
        membrane_bits=32,
        current_bits=32,
        threshold_bits=20,
        threshold_shift=6,
        input_shift=6,
        readout="membrane",
    )
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
    integer_policy = compiled(policy, form=form).policy
    rows = np.random.default_rng(0).normal(size=(6, 1, 27))
    with MachineSession(integer_policy) as reference, OnnxSession(integer_policy) as session:
        for k, row in enumerate(rows):
            broken = row.copy()
            if k == 2:
                broken[0, 5] = bad
            reference_action = reference.step(single(broken))
            actual = session.step(broken)
            np.testing.assert_allclose(actual, reference_action, atol=EPSILON)
            assert (actual == 0.25).all() == (k == 2)
        assert session.counts.fail_safe == {NOT_FINITE: 1} == reference.counts.fail_safe


def test_an_input_of_spikes_takes_nothing_else() -> None:
    """As in a session: there it is an error, in the file the fail-safe action."""
    bias = np.zeros(3, dtype=np.int32)
    nodes = [
        ("observation", Input((3,), "spikes")),
        ("fc1", Dense(np.eye(3) * 60, 6)),
        ("lif1", Neuron(IntegerMembrane(400, bias), None, IntegerSpike(900))),
        ("fc2", Dense(np.eye(3) * 20, 0)),
        ("readout", Neuron(IntegerMembrane(0, bias))),
        ("decode", Decode([1e-4] * 3, [0.1] * 3, [-1.0] * 3, [1.0] * 3)),
        ("action", Output((3,))),
    ]
    contract = dataclasses.replace(random_policy(1, sizes=(3, 4, 3)).contract, fail_safe=(0.5,) * 3)
    policy = Policy(chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=LAVA), contract)
    raw = inference_session(make_model(plan(policy)).proto.SerializeToString())
    answers = set()
    with MachineSession(policy) as reference, OnnxSession(policy) as session:
        for row in np.random.default_rng(0).integers(0, 2, size=(12, 1, 3)).astype(np.float64):
            reference_action = single(reference.step(row))
            answers.add(reference_action.tobytes())
            np.testing.assert_array_equal(session.step(row), reference_action)
            np.testing.assert_array_equal(raw.run(["actions"], {"obs": row.astype(np.float32)})[0], reference_action)
        for other in (0.5, 2.0, -1.0):
            row = np.array([[1.0, other, 0.0]])
            with pytest.raises(GraphError, match=r"spikes, .*0 or 1"):
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
            reference_action = reference.step(single(row), active)
            np.testing.assert_array_equal(session.step(single(row), active), single(reference_action))
        assert session.counts == reference.counts
        twin = copy.deepcopy(session)
        np.testing.assert_array_equal(twin.step(rows[0]), session.step(rows[0]))
        session.reset(1)
        assert session.step(rows[0, 0]).shape == (8,)
        with pytest.raises(ContractError, match=r"\(2, 27\)"):
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
    with pytest.raises(NervecordError, match=r"integers, .*floats"):
        nervecord.open(floats, engine="emulator")
    with pytest.raises(NervecordError, match="'lava'"):
        nervecord.open(floats, engine="lava")


# --------------------------------------------------------------------------------------------------------------------
# Graphs that are no policies


@pytest.mark.parametrize("seed", range(0, 36, 2))
def test_streams_of_integers_are_exact(seed: int) -> None:
    try:
        case = draw(seed, random_arithmetic(seed)) if seed % 4 else draw(seed)
    except AssertionError:
        pytest.skip("no legal graph in this arithmetic")
    if expected(case) is None:
        pytest.skip("a membrane that is read spikes, which the definition refuses")
    network_plan, steps = case.plan, case.plan.schedule.steps
    with MachineStream(network_plan, batch=2) as reference, OnnxStream(network_plan, batch=2) as stream:
        for start in range(0, min(len(next(iter(case.inputs.values()))), 12 * steps), steps):
            block = {
                name: np.stack([x[start : start + steps], np.roll(x, 1, axis=0)[start : start + steps]], axis=1)
                for name, x in case.inputs.items()
            }
            try:
                exact = reference.step(block)
            except GraphError:
                pytest.skip("a membrane that is read spikes, which the definition refuses")
            outputs = stream.step(block)
            for name, rows in exact.items() if isinstance(exact, dict) else [("", exact)]:
                actual = outputs[name] if isinstance(outputs, dict) else outputs
                assert actual.dtype == rows.dtype
                np.testing.assert_array_equal(actual, rows, err_msg=name)
            for name, rows in reference.trace().items():
                useful = network_plan.useful(name)
                np.testing.assert_array_equal(stream.trace()[name][useful], rows[useful], err_msg=name)


@pytest.mark.parametrize("steps", [None, 3])
def test_a_network_that_convolves(steps: int | None, tmp_path: Path) -> None:
    """Everything that a float graph can hold, in a stream: against the definition, and as a file."""
    rng = np.random.default_rng(0)

    def neurons(*shape: int) -> Neuron:
        one = np.ones(shape)
        return Neuron(Membrane(0.8 * one, one, 0 * one), None, Spike(0.6 * one, 0 * one))

    last = Membrane(np.full(5, 0.9), np.ones(5), np.zeros(5))
    nodes = [
        ("picture", Input((2, 9, 8))),
        ("conv1", Conv(rng.normal(size=(4, 1, 3, 2)) * 0.5, rng.normal(size=4), (2, 1), (1, 0), (1, 2), 2, (9, 8))),
        ("lif1", neurons(4, 5, 6)),
        ("pool1", Pool("average", (2, 2), (1, 2), (1, 0), (4, 5, 6))),
        ("conv2", Conv(rng.normal(size=(3, 4, 2, 2)), None, (1, 1), (0, 0), (1, 1), 1, (6, 3))),
        ("scale", Scale(rng.uniform(0.5, 1, size=(3, 5, 2)))),
        ("lif2", neurons(3, 5, 2)),
        ("pool2", Pool("sum", (2, 1), (2, 1), (0, 0), (3, 5, 2))),
        ("flat", Flatten((3, 2, 2), 0, -1)),
        ("fc", Affine(rng.normal(size=(5, 12)) * 0.1)),
        ("readout", Neuron(last)),
        ("out", Output((5,))),
    ]
    graph = chain(Level.DISCRETE, nodes, dt=1e-3)
    program = compile_graph(graph, OnnxTarget(), schedule=STREAM if steps is None else Schedule(steps, "reset"))
    rows = rng.normal(size=(12, 2, 9, 8))
    with nervecord.stream(program) as stream, nervecord.stream(program, engine="definition") as reference:
        assert (stream.engine, reference.engine) == ("onnxruntime", "definition")
        actual, reference_outputs = stream.run(single(rows))["out"], reference.run(single(rows))["out"]
        assert np.ptp(reference_outputs) > 0.1
        np.testing.assert_allclose(actual, reference_outputs, atol=EPSILON)
        assert stream.counts.spikes == reference.counts.spikes
    (emitted,) = nervecord.emit(program, tmp_path)
    assert emitted.path.name == "network.onnx"
    session, per = inference_session(emitted.path.read_bytes()), steps or 1
    state = {value.name: np.zeros(value.shape, dtype=np.float32) for value in session.get_inputs()[1:]}
    assert bool(state) is (steps is None)
    for start in range(0, 12, per):
        block = rows[start : start + per].reshape(per, 1, -1).astype(np.float32)
        out, *after = session.run(None, {"picture": block, **state})
        state = {"h_in": after[0]} if after else {}
        np.testing.assert_allclose(out[:, 0], reference_outputs[start : start + per, 0], atol=EPSILON)


def test_a_stream_refuses_what_float32_does_not_hold() -> None:
    graph = chain(Level.DISCRETE, [("x", Input((2,))), ("s", Scale(np.ones(2))), ("y", Output((2,)))], dt=1e-3)
    with OnnxStream(graph) as stream:
        assert stream.step(np.array([1.5, 2.0])).tolist() == [1.5, 2.0]
        with pytest.raises(GraphError, match=r"x: .*float32"):
            stream.step(np.array([1e39, 0.0]))


# --------------------------------------------------------------------------------------------------------------------
# Refusals


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Unknown(Scale):
    """An op with an operation that has no form in ONNX."""

    def body(self, do: Tracer, arithmetic: Any) -> Value:
        return do.record("cube", "float", (do.x,))


def test_an_op_without_a_form_is_refused_by_name() -> None:
    nodes = [("input", Input((4,))), ("odd", Unknown(np.ones(4))), ("output", Output((4,)))]
    with pytest.raises(InfeasibleError, match=r"odd: Unknown .*ONNX"):
        check_ops(plan(chain(Level.DISCRETE, nodes, dt=1e-3)))
    report = nervecord.inspect(chain(Level.DISCRETE, nodes, dt=1e-3), "onnx")
    assert report.targets[0].verdict == "infeasible"


def test_what_cannot_be_exported_is_refused() -> None:
    policy = random_policy(1, sizes=(3, 4, 2))
    nodes = [("x", Input((4,))), ("scale", Scale(np.ones(4))), ("h_in", Output((4,)))]
    held_plan = plan(chain(Level.DISCRETE, nodes, dt=1e-3), Schedule(2, held=True))
    with pytest.raises(InfeasibleError, match=r"input .*steps"):
        check_ops(held_plan)
    with pytest.raises(InfeasibleError, match="h_in: has the name of the state"):
        check_ops(plan(held_plan.graph))
    many = policy.replace(contract=dataclasses.replace(policy.contract, steps=MOST_STEPS))
    with pytest.raises(InfeasibleError, match=f"4 .* {MOST_STEPS} steps"):
        check_ops(plan(many))
    with pytest.raises(NervecordError, match=r"weight_bits: .*float"):
        nervecord.compile(policy, "onnx", weight_bits=4)
    with pytest.raises(NervecordError, match=r"opset: .*10.*11 to 18"):
        nervecord.compile(policy, "onnx", opset=10)


def test_a_report_that_lies_about_its_opset_is_not_believed() -> None:
    program = compiled(random_policy(1, sizes=(3, 4, 2)))
    for lie in ("x", 99, None, True):
        forged = dataclasses.replace(program, report={"lowering": {"onnx": {"opset": lie}}})
        assert export(forged).proto.opset_import[0].version == 18
