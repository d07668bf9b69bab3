"""ONNX files in: what other libraries export is what they answer; everything else is refused by name."""

from __future__ import annotations

import itertools
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exporters
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers import read_here

import nervecord
from nervecord.compiler.files.readerguard import Limits, read_guarded
from nervecord.compiler.graph.contract import Channels, Contract
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.onnx import file as onnxfile
from nervecord.compiler.onnx.reading import read_onnx
from nervecord.compiler.ops import Activation, Affine, ArgmaxDecode, Decode, Level, Normalise
from nervecord.compiler.passes.act import act
from nervecord.compiler.plan.interpret import Machine, simulate
from nervecord.errors import ContractError, FileFormatError, GraphError, NervecordError

onnx = pytest.importorskip("onnx")
onnxchild = pytest.importorskip("nervecord.compiler.onnx.onnxchild")

CLOSE = 1e-5
"""The libraries compute in float32, the definition in float64."""


@pytest.fixture(autouse=True)
def parse_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the code of the child, in this process: hundreds of processes would take minutes."""
    monkeypatch.setattr(onnxfile, "read_guarded", read_here)


@pytest.fixture
def parse_in_child(monkeypatch: pytest.MonkeyPatch, parse_here: None) -> None:
    monkeypatch.setattr(onnxfile, "read_guarded", read_guarded)


def answers(graph: Graph, rows: Any) -> Any:
    return simulate(graph, np.asarray(rows, dtype=np.float64)).left["action"][:, 0]


# --------------------------------------------------------------------------------------------------------------------
# Other libraries

CASES: dict[str, tuple[Callable[..., exporters.Answer], int, list[str]]] = {
    "sb3-ppo": (
        lambda path, **how: exporters.stable_baselines3("PPO", "Ant-v4", path, **how), 27,
        ["Input", "Affine", "Tanh", "Affine", "Tanh", "Affine", "Output"],
    ),
    "sb3-sac": (
        lambda path, **how: exporters.stable_baselines3("SAC", "Pendulum-v1", path, **how), 3,
        ["Input", "Affine", "Relu", "Affine", "Relu", "Affine", "Tanh", "Output"],
    ),
    "sb3-choice": (
        lambda path, **how: exporters.stable_baselines3("PPO", "CartPole-v1", path, **how), 4,
        ["Input", "Affine", "Tanh", "Affine", "Tanh", "Affine", "ArgmaxDecode", "Output"],
    ),
    "rsl_rl": (
        exporters.rsl_rl, 27,
        ["Input", "Normalise", "Affine", "Elu", "Affine", "Elu", "Affine", "Output"],
    ),
    "rsl_rl-plain": (
        lambda path, **how: exporters.rsl_rl(path, normalised=False, **how), 27,
        ["Input", "Affine", "Elu", "Affine", "Elu", "Affine", "Output"],
    ),
    "skrl": (
        exporters.skrl, 27,
        ["Input", "Normalise", "Affine", "Relu", "Affine", "Relu", "Affine", "Decode", "Output"],
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("name", list(CASES))
def test_what_other_libraries_export(name: str, dynamo: bool, tmp_path: Path) -> None:
    made, size, kinds = CASES[name]
    path = tmp_path / "policy.onnx"
    answer = made(path, dynamo=dynamo)
    graph = nervecord.read(path)
    assert isinstance(graph, Graph)
    assert [op.kind for op in graph.nodes.values()] == kinds
    rows = (np.random.default_rng(0).normal(size=(50, size)) * 3).astype(np.float32)
    wanted = answer(rows)
    assert np.ptp(wanted) > 0.1, "answers differ"
    np.testing.assert_allclose(answers(graph, rows), wanted, rtol=1e-5, atol=CLOSE)
    assert {op.origin for op in graph.nodes.values()} != {()}, "nodes keep the file's names"


# --------------------------------------------------------------------------------------------------------------------
# Random perceptrons, against ONNX's own reference


def model(nodes: list[Any], constants: dict[str, Any], size: int, outputs: int, **how: Any) -> Any:
    helper = onnx.helper
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("obs", onnx.TensorProto.FLOAT, how.pop("shape", ["batch", size]))],
        [helper.make_tensor_value_info(how.pop("out", "actions"), onnx.TensorProto.FLOAT, ["batch", outputs])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", how.pop("opset", 18))], ir_version=8, **how)


def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> Any:
    return onnx.helper.make_node(kind, inputs, [output], name=f"the {output}", **attributes)


def perceptron(seed: int) -> tuple[Any, int]:
    """A random file in the ways that exporters write them, and its input's size."""
    rng = np.random.default_rng(seed)
    sizes = [int(k) for k in rng.integers(1, 9, size=int(rng.integers(2, 5)))]
    nodes: list[Any] = []
    constants: dict[str, Any] = {}
    at, count = "obs", itertools.count()

    def then(kind: str, *others: Any, first: bool = True, **attributes: Any) -> None:
        nonlocal at
        names = []
        for value in others:
            names.append(f"c{next(count)}")
            constants[names[-1]] = np.asarray(value)
        output = f"v{next(count)}"
        nodes.append(node(kind, [at, *names] if first else [*names, at], output, **attributes))
        at = output

    def vector(n: int) -> Any:
        return rng.normal(size=(n,) if rng.random() < 0.5 else (1, n)).astype(np.float32)

    n = sizes[0]
    if rng.random() < 0.6:
        then("Sub", vector(n))
        then("Div", np.abs(vector(n)) + np.float32(0.3))
        if rng.random() < 0.5:
            then("Clip", np.float32(-2), np.float32(2))
    for k, (a, b) in enumerate(itertools.pairwise(sizes)):
        last = k == len(sizes) - 2
        weight = rng.normal(size=(b, a)).astype(np.float32)
        match int(rng.integers(3)):
            case 0:
                then("Gemm", weight, vector(b).ravel(), transB=1, alpha=float(rng.choice([1, 0.5])))
            case 1:
                then("Gemm", weight.T, vector(b).ravel(), beta=2.0)
            case _:
                then("MatMul", weight.T)
                if rng.random() < 0.8:
                    then("Add", vector(b), first=bool(rng.random() < 0.5))
        for _ in range(int(rng.integers(0, 3))):
            kind = str(rng.choice(["Add", "Sub", "Mul", "Div", "Identity", "Reshape", "Flatten", "Unsqueeze"]))
            match kind:
                case "Reshape":
                    then(kind, np.array([int(rng.choice([-1, 1])), b] if rng.random() < 0.5 else [-1, b], np.int64))
                case "Unsqueeze":
                    then(kind, np.array([0], np.int64))
                    then("Squeeze", np.array([0], np.int64))
                case "Flatten" | "Identity":
                    then(kind)
                case "Div":
                    then(kind, np.abs(vector(b)) + np.float32(0.5))
                case _:
                    then(kind, vector(b), first=kind != "Sub" or bool(rng.random() < 0.5))
        if not last or rng.random() < 0.3:
            kind = str(rng.choice(["Tanh", "Relu", "Elu"]))
            then(kind, **({"alpha": float(rng.uniform(0.5, 2))} if kind == "Elu" else {}))
            if rng.random() < 0.3:
                then("Mul", vector(b))
    match int(rng.integers(4)):
        case 0:
            then("Clip", np.float32(-0.7), np.float32(0.4))
        case 1:
            then("Max", np.float32(-0.7))
            then("Min", vector(sizes[-1]).ravel() + np.float32(5))
        case 2:
            nodes.append(node("Exp", [at], "unused"))
    nodes.append(node("Identity", [at], "actions"))
    return model(nodes, constants, sizes[0], sizes[-1]), sizes[0]


@pytest.mark.parametrize("seed", range(60))
def test_random_perceptrons_against_the_reference_of_onnx(seed: int, tmp_path: Path) -> None:
    from onnx.reference import ReferenceEvaluator

    made, size = perceptron(seed)
    path = tmp_path / "p.onnx"
    path.write_bytes(made.SerializeToString())
    graph = read_onnx(path)
    rows = np.random.default_rng(seed).normal(size=(20, size)).astype(np.float32)
    reference = ReferenceEvaluator(made)
    wanted = np.concatenate([reference.run(None, {"obs": row[None]})[0].reshape(1, -1) for row in rows])
    np.testing.assert_allclose(answers(graph, rows), wanted, rtol=2e-4, atol=1e-4)


def test_activations_are_those_of_onnx() -> None:
    from onnx.reference import ReferenceEvaluator

    rows = np.linspace(-6, 6, 101, dtype=np.float32)[:, None]
    for kind, alpha in (("Tanh", 1.0), ("Relu", 1.0), ("Elu", 1.0), ("Elu", 0.3)):
        made = model([node(kind, ["obs"], "actions", **({"alpha": alpha} if kind == "Elu" else {}))], {}, 1, 1)
        (wanted,) = ReferenceEvaluator(made).run(None, {"obs": rows})
        op = Activation(kind.lower(), (1,), alpha)
        assert op.kind == kind
        np.testing.assert_allclose(op.step({}, rows.astype(np.float64)), wanted, atol=1e-6)


# --------------------------------------------------------------------------------------------------------------------
# Refused

W = np.ones((2, 3), dtype=np.float32)


def written(made: Any, path: Path) -> Path:
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return path


def gemm(output: str = "actions", source: str = "obs") -> Any:
    return node("Gemm", [source, "w"], output, transB=1)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "an operator": (
        lambda: model([gemm("h"), node("Sigmoid", ["h"], "actions")], {"w": W}, 3, 2),
        "node 'the actions': the operator Sigmoid cannot be read",
    ),
    "recurrence": (
        lambda: model([onnx.helper.make_node("GRU", ["obs", "w", "w"], ["actions"], hidden_size=2)], {"w": W}, 3, 2),
        "the operator GRU cannot be read",
    ),
    "another domain": (
        lambda: model([onnx.helper.make_node("Gelu", ["obs"], ["actions"], domain="com.x")], {}, 3, 3),
        "the operator com.x.Gelu cannot be read",
    ),
    "softmax": (
        lambda: model([gemm("h"), node("Softmax", ["h"], "actions", axis=-1)], {"w": W}, 3, 2),
        "its output is a softmax",
    ),
    "a clip inside": (
        lambda: model(
            [gemm("h"), node("Clip", ["h", "a", "b"], "k"), node("Tanh", ["k"], "actions")],
            {"w": W, "a": np.float32(-1), "b": np.float32(1)}, 3, 2,
        ),
        "limits a value inside the network",
    ),
    "no network": (lambda: model([node("Identity", ["obs"], "actions")], {}, 3, 3), "holds no network"),
    "a constant": (
        lambda: model([node("Identity", ["w"], "actions")], {"w": W}, 3, 2), "does not depend on its input"
    ),
    "a picture": (lambda: model([gemm()], {"w": W}, 3, 2, shape=[1, 3, 8, 8]), r"a row \[1, n\] of known length"),
    "an open size": (lambda: model([gemm()], {"w": W}, 3, 2, shape=["batch", "n"]), r"a row \[1, n\] of known length"),
    "another size": (lambda: model([gemm()], {"w": W}, 4, 2), "takes .* values of a row of 4"),
    "a missing value": (lambda: model([gemm(source="x")], {"w": W}, 3, 2), "takes 'x', which nothing before it gives"),
    "a value made twice": (lambda: model([gemm(), gemm()], {"w": W}, 3, 2), "'actions' is made twice"),
    "a loop": (
        lambda: model([gemm("a", "b"), node("Tanh", ["a"], "b"), gemm(source="b")], {"w": W}, 3, 2),
        "takes 'b', which nothing before it gives",
    ),
    "not a number": (lambda: model([gemm()], {"w": W * np.nan}, 3, 2), "NaN or infinite"),
    "an opset of the future": (lambda: model([gemm()], {"w": W}, 3, 2, opset=999), "is of opset 999, 7 to 30 are read"),
    "text": (
        lambda: model([gemm()], {"w": W, "s": np.array(["a"], dtype=object)}, 3, 2),
        "the constant 's' is of type STRING",
    ),
    "division by zero": (
        lambda: model([gemm("h"), node("Div", ["h", "z"], "actions")], {"w": W, "z": np.float32(0)}, 3, 2),
        "Div divides by zero",
    ),
    "nothing": (lambda: b"", "is empty"),
    "something else": (lambda: b"\x89HDF\r\n\x1a\n" * 20, "is no ONNX file"),
    "no graph": (lambda: onnx.ModelProto(ir_version=8), "is no ONNX file, or one without a graph"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_read_is_said(name: str, tmp_path: Path) -> None:
    made, message = REFUSED[name]
    path = written(made(), tmp_path / "p.onnx")
    with pytest.raises((FileFormatError, GraphError), match=message) as caught:
        read_onnx(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value) or isinstance(caught.value, GraphError)


def test_several_inputs_are_refused(tmp_path: Path) -> None:
    made = model([gemm()], {"w": W}, 3, 2)
    made.graph.input.append(onnx.helper.make_tensor_value_info("h_in", onnx.TensorProto.FLOAT, [1, 4]))
    path = written(made, tmp_path / "p.onnx")
    with pytest.raises(FileFormatError, match=r"has 2 inputs \(obs, h_in\), .*carries state cannot be read"):
        read_onnx(path)


def test_functions_and_sparse_constants_are_refused(tmp_path: Path) -> None:
    made = model([gemm()], {"w": W}, 3, 2)
    made.functions.add(name="f", domain="own")
    with pytest.raises(FileFormatError, match="has functions of its own"):
        read_onnx(written(made, tmp_path / "f.onnx"))
    made = model([gemm()], {"w": W}, 3, 2)
    made.graph.sparse_initializer.add()
    with pytest.raises(FileFormatError, match="has sparse constants"):
        read_onnx(written(made, tmp_path / "s.onnx"))


@pytest.mark.usefixtures("parse_in_child")
def test_a_child_reads_what_this_process_reads(tmp_path: Path) -> None:
    made = model([gemm("h"), node("Tanh", ["h"], "actions")], {"w": W}, 3, 2)
    onnx.helper.set_model_props(made, {"a": "b"})
    path = written(made, tmp_path / "p.onnx")
    size = path.stat().st_size
    child, here = (read(onnxfile.READER, str(path), size, onnxfile.LIMITS) for read in (read_guarded, read_here))
    assert child.keys() == here.keys()
    np.testing.assert_equal(child, here)
    assert [op.kind for op in read_onnx(path).nodes.values()] == ["Input", "Affine", "Tanh", "Output"]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(FileFormatError, match=r"is no ONNX file, or a damaged one .*export or copy it again"):
        read_onnx(path)


def test_a_policy_of_ours_is_not_read_back(tmp_path: Path) -> None:
    made = model([gemm()], {"w": W}, 3, 2)
    onnx.helper.set_model_props(made, {"nervecord_form": "float"})
    with pytest.raises(FileFormatError, match=r"was written by nervecord.*policy\.nervecord --engine onnxruntime"):
        read_onnx(written(made, tmp_path / "p.onnx"))


def test_what_does_not_lead_to_the_action_may_be_anything(tmp_path: Path) -> None:
    nodes = [gemm("h"), node("Sigmoid", ["h"], "value"), node("Tanh", ["h"], "actions")]
    graph = read_onnx(written(model(nodes, {"w": W}, 3, 2), tmp_path / "p.onnx"))
    assert [op.kind for op in graph.nodes.values()] == ["Input", "Affine", "Tanh", "Output"]


def test_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = written(model([gemm()], {"w": W}, 3, 2), tmp_path / "p.onnx")
    for name, limit, message in (
        ("MOST_NODES", 0, "has 1 nodes, the limit is 0"),
        ("MOST_TENSORS", 0, "has 1 constants, the limit is 0"),
        ("MOST_FIELDS", 10, "has more than 10 fields"),
        ("MOST_DEEP", 1, "is nested more than 1 deep"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(onnxchild, name, limit)
            with pytest.raises(onnxchild.RefusedError, match=message):
                onnxchild.load(str(path), 1 << 20)
    with pytest.raises(FileFormatError, match="at most 10 are read"):
        onnxfile.load_onnx(path, Limits(file_bytes=10))
    with pytest.raises(FileFormatError, match="its constants take more than 20 bytes"):
        onnxfile.load_onnx(path, Limits(value_bytes=20, expansion=0))


def field(number: int, content: bytes) -> bytes:
    """A message or text in a message of protobuf's."""
    length, said = len(content), b""
    while length > 127:
        said, length = said + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + said + bytes([length]) + content


NODES, ATTRIBUTES, INPUTS = field(1, b""), field(5, b""), field(1, b"")
TINY: dict[str, bytes] = {
    "nodes": field(7, NODES * 4_000_000),
    "attributes of a node": field(7, field(1, ATTRIBUTES * 4_000_000)),
    "inputs of a node": field(7, field(1, INPUTS * 4_000_000)),
    "axes of an input": field(7, field(1, b"") + field(11, field(2, field(1, field(2, field(1, b"") * 4_000_000))))),
    "operator sets": field(8, b"") * 4_000_000,
    "functions": field(25, b"") * 2_000_000,
    "training": field(20, b"") * 2_000_000,
}


@pytest.mark.parametrize("content", TINY.values(), ids=TINY)
def test_empty_messages_are_counted_wherever_they_stand(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(content, tmp_path / "p.onnx")
    monkeypatch.setattr(onnxchild, "MOST_FIELDS", 5000)
    with pytest.raises(onnxchild.RefusedError, match="has more than 5000 fields in its messages"):
        onnxchild.load(str(path), 1 << 20)


@pytest.mark.usefixtures("parse_in_child")
def test_millions_of_empty_messages_are_counted_before_they_are_made(tmp_path: Path) -> None:
    """Of 8 MB protobuf would make objects of a gigabyte."""
    path = written(TINY["nodes"], tmp_path / "p.onnx")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.raises(FileFormatError, match="has more than 524288 fields in its messages"):
        read_onnx(path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < 5
    assert after.ru_maxrss < max(before.ru_maxrss, 256 << 10) + 1


@pytest.mark.usefixtures("parse_in_child")
def test_what_hangs_or_asks_for_much_is_ended_with_its_child(tmp_path: Path) -> None:
    path = written(model([gemm()], {"w": W}, 3, 2), tmp_path / "p.onnx")
    with pytest.raises(FileFormatError, match=r"took longer than 0\.001 s"):
        onnxfile.load_onnx(path, Limits(seconds=0.001, patience=1))
    large = written(model([gemm()], {"w": np.zeros((2, 30_000_000), np.float32)}, 3, 2), tmp_path / "q.onnx")
    with pytest.raises(FileFormatError, match=r"memory limit|ended the reader"):
        onnxfile.load_onnx(large, Limits(process_bytes=-(1 << 28), expansion=1))


def test_no_interpreter_is_started_for_a_file_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxfile, "read_guarded", lambda *given: pytest.fail("started"))
    os.mkfifo(tmp_path / "pipe.onnx")
    written(b"", tmp_path / "empty.onnx")
    for name, message in (("pipe", "no regular file"), ("empty", "is empty"), ("none", "does not exist")):
        with pytest.raises(FileFormatError, match=message):
            read_onnx(tmp_path / f"{name}.onnx")


def test_a_shape_of_terabytes_costs_nothing(tmp_path: Path) -> None:
    made = model([gemm()], {"w": W}, 3, 2)
    del made.graph.initializer[0].dims[:]
    made.graph.initializer[0].dims.extend([1 << 40, 1 << 20])
    with pytest.raises(FileFormatError, match="its constants take more than"):
        read_onnx(written(made, tmp_path / "p.onnx"))
    folded = model(
        [node("ConstantOfShape", ["s"], "big"), node("Add", ["obs", "big"], "h"), gemm(source="h")],
        {"w": W, "s": np.array([1 << 40], np.int64)}, 3, 2,
    )  # fmt: skip
    with pytest.raises(FileFormatError, match="the operator ConstantOfShape cannot be read"):
        read_onnx(written(folded, tmp_path / "q.onnx"))


# --------------------------------------------------------------------------------------------------------------------
# Weights in a file beside


def external(location: str, path: Path, **said: str) -> Path:
    made = model([gemm()], {"w": W}, 3, 2)
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **said}.items():
        tensor.external_data.add(key=key, value=value)
    return written(made, path)


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(b"\0" * 8 + W.tobytes())
    path = external("w.data", tmp_path / "p.onnx", offset="8", length=str(W.nbytes))
    op = read_onnx(path).nodes["fc1"]
    assert isinstance(op, Affine)
    np.testing.assert_array_equal(op.weight, W)


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../w.data", "a/../../w.data", "sub/w.data", "..", "", "a\\b", "C:w"]
)
def test_weights_elsewhere_are_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(W.tobytes())
    (tmp_path / "in").mkdir()
    with pytest.raises(FileFormatError, match="no plain name of a file beside it"):
        read_onnx(external(location, tmp_path / "in" / "p.onnx"))


def test_weights_that_are_a_link_or_no_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(W.tobytes())
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "folder").mkdir()
    for location, message in (("link", "a link"), ("folder", "is a folder"), ("none", "does not exist")):
        with pytest.raises(FileFormatError, match=message):
            read_onnx(external(location, tmp_path / "p.onnx"))
    for said in ({"offset": "1"}, {"length": "1"}, {"offset": "x"}, {"offset": "-4"}):
        with pytest.raises(FileFormatError, match="is damaged"):
            read_onnx(external("real", tmp_path / "p.onnx", **said))


# --------------------------------------------------------------------------------------------------------------------
# Damaged bytes


CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6)


def refusal(path: Path) -> str | None:
    """What is said of a file; None where it is read, and then it runs."""
    try:
        graph = read_onnx(path)
    except NervecordError as error:
        return str(error)
    # Bytes of weights or names may change and leave a network.
    with np.errstate(all="ignore"):
        Machine(graph).block({"observation": np.zeros((1, 1, graph.nodes["observation"].size))})
    return None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 30), changes=CHANGES, cut=st.floats(0.3, 1))
def test_damaged_bytes_are_refused_in_a_sentence(
    seed: int, changes: list[tuple[float, int]], cut: float, tmp_path: Path
) -> None:
    content = bytearray(perceptron(seed)[0].SerializeToString())
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    path = written(bytes(content[: int(len(content) * cut)]), tmp_path / "p.onnx")
    said = refusal(path)
    assert said is None or (said.startswith(str(path)) and len(said) < 4000)


def test_names_that_are_no_text_and_numbers_that_are_none(tmp_path: Path) -> None:
    content = model([gemm()], {"w": W}, 3, 2).SerializeToString()
    named = read_onnx(written(content.replace(b"the actions", b"the \xffctions"), tmp_path / "p.onnx"))
    assert named.nodes["fc1"].origin == ("the \\xffctions",)
    signalling = np.full(2, 0x7FA00000, dtype=np.uint32).tobytes()
    path = written(content.replace(W.tobytes()[:8], signalling), tmp_path / "q.onnx")
    with pytest.raises(GraphError, match="6 values that are NaN or infinite"):
        read_onnx(path)
    hidden = written(content.replace(b"the actions", b"the \x1bctions"), tmp_path / "r.onnx")
    with pytest.raises(FileFormatError, match="cannot be printed"):
        read_onnx(hidden)


# --------------------------------------------------------------------------------------------------------------------
# As a policy


def contract(observations: int, actions: int, choices: int = 0) -> Contract:
    channels = Channels(tuple(f"a{k}" for k in range(actions)), ("",) * actions, (-0.5,) * actions, (0.25,) * actions)
    if choices:
        channels = Channels(("action",), ("1",), (0.0,), (choices - 1.0,))
    return Contract(
        environment="Ant-v4", observation=Channels(tuple(f"o{k}" for k in range(observations)), ("",) * observations),
        action=channels, steps=1, state="reset", control_period=0.05, fail_safe=(0.0,) * channels.size,
        choices=tuple(f"c{k}" for k in range(choices)),
    )  # fmt: skip


def network(*last: Any, **constants: Any) -> Callable[[Path], Graph]:
    nodes = [gemm("h" if last else "actions"), *last]
    return lambda path: read_onnx(written(model(nodes, {"w": W, **constants}, 3, 2), path))


def test_a_network_acts_within_the_contracts_limits(tmp_path: Path) -> None:
    policy = act(network()(tmp_path / "p.onnx"), contract(3, 2))
    assert policy.graph.dt == 0.05
    with nervecord.open(policy) as session:
        assert session.step(np.array([9.0, 0.0, 0.0])).tolist() == [0.25, 0.25]
        assert session.step(np.array([-9.0, 0.0, 0.0])).tolist() == [-0.5, -0.5]
        assert session.step(np.array([0.0625, 0.0, 0.0])).tolist() == [0.0625, 0.0625]


def test_limits_of_its_own_are_kept_within_them(tmp_path: Path) -> None:
    clip = node("Clip", ["h", "a", "b"], "actions")
    made = network(clip, a=np.float32(-0.125), b=np.float32(7))(tmp_path / "p.onnx")
    decode = act(made, contract(3, 2)).graph.nodes["decode1"]
    assert isinstance(decode, Decode)
    assert (decode.low.tolist(), decode.high.tolist()) == ([-0.125] * 2, [0.25] * 2)


def test_a_choice(tmp_path: Path) -> None:
    for last in ([], [node("ArgMax", ["h"], "actions", axis=1)]):
        policy = act(network(*last)(tmp_path / "p.onnx"), contract(3, 1, choices=2))
        assert any(isinstance(op, ArgmaxDecode) for op in policy.graph.nodes.values())
        with nervecord.open(policy) as session:
            assert session.step(np.array([1.0, 0.0, 0.0])).tolist() == [0.0]


@pytest.mark.parametrize(
    ("wanted", "last", "message"),
    [
        (contract(4, 2), [], "takes 3 observations, and Ant-v4 gives 4"),
        (contract(3, 5), [], "gives 2, and Ant-v4 takes 5 values"),
        (contract(3, 1, choices=3), [], "gives 2, and Ant-v4 lets choose among 3"),
        (contract(3, 2), [("ArgMax", {"axis": 1})], "chooses among 2, and Ant-v4 takes 2 values"),
    ],
)
def test_sizes_that_do_not_fit(wanted: Contract, last: list[Any], message: str, tmp_path: Path) -> None:
    made = network(*(node(kind, ["h"], "actions", **how) for kind, how in last))(tmp_path / "p.onnx")
    with pytest.raises(ContractError, match=message):
        act(made, wanted)


def test_a_normaliser_keeps_its_numbers(tmp_path: Path) -> None:
    mean, divisor = (np.random.default_rng(k).uniform(0.1, 3, size=3).astype(np.float32) for k in range(2))
    nodes = [node("Sub", ["obs", "m"], "a"), node("Div", ["a", "d"], "b"), gemm(source="b")]
    graph = read_onnx(written(model(nodes, {"w": W, "m": mean, "d": divisor}, 3, 2), tmp_path / "p.onnx"))
    op = graph.nodes["normalise1"]
    assert isinstance(op, Normalise)
    np.testing.assert_array_equal(op.mean, mean)
    np.testing.assert_array_equal(op.divisor, divisor.astype(np.float64))
    assert graph.level is Level.DISCRETE
