"""ONNX files in: what other libraries export is what they answer; everything else is refused by name."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exporters
import numpy as np
import pytest
from onnx_models import W, gemm, model, node, perceptron, write_model
from readers import read_here

import nervecord
from nervecord.compiler.files.readerguard import Limits, read_guarded
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.onnx import file as onnxfile
from nervecord.compiler.onnx.reading import read_onnx
from nervecord.compiler.ops import Activation, Affine
from nervecord.compiler.plan.interpret import simulate
from nervecord.errors import FileFormatError, GraphError

onnx = pytest.importorskip("onnx")
onnxchild = pytest.importorskip("nervecord.compiler.onnx.onnxchild")

CLOSE = 1e-5
"""The libraries compute in float32, the definition in float64."""


def answers(graph: Graph, rows: Any) -> Any:
    return simulate(graph, np.asarray(rows, dtype=np.float64)).left["action"][:, 0]


# --------------------------------------------------------------------------------------------------------------------
# Other libraries

CASES: dict[str, tuple[Callable[..., exporters.Answer], int, list[str]]] = {
    "sb3-ppo": (
        lambda path, **how: exporters.stable_baselines3("PPO", "Ant-v4", path, **how),
        27,
        ["Input", "Affine", "Tanh", "Affine", "Tanh", "Affine", "Output"],
    ),
    "sb3-sac": (
        lambda path, **how: exporters.stable_baselines3("SAC", "Pendulum-v1", path, **how),
        3,
        ["Input", "Affine", "Relu", "Affine", "Relu", "Affine", "Tanh", "Output"],
    ),
    "sb3-choice": (
        lambda path, **how: exporters.stable_baselines3("PPO", "CartPole-v1", path, **how),
        4,
        ["Input", "Affine", "Tanh", "Affine", "Tanh", "Affine", "ArgmaxDecode", "Output"],
    ),
    "rsl_rl": (exporters.rsl_rl, 27, ["Input", "Normalise", "Affine", "Elu", "Affine", "Elu", "Affine", "Output"]),
    "rsl_rl-plain": (
        lambda path, **how: exporters.rsl_rl(path, normalised=False, **how),
        27,
        ["Input", "Affine", "Elu", "Affine", "Elu", "Affine", "Output"],
    ),
    "skrl": (
        exporters.skrl,
        27,
        ["Input", "Normalise", "Affine", "Relu", "Affine", "Relu", "Affine", "Decode", "Output"],
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("name", list(CASES))
def test_what_other_libraries_export(name: str, dynamo: bool, tmp_path: Path) -> None:
    network, size, kinds = CASES[name]
    path = tmp_path / "policy.onnx"
    answer = network(path, dynamo=dynamo)
    graph = nervecord.read(path)
    assert isinstance(graph, Graph)
    assert [op.kind for op in graph.nodes.values()] == kinds
    rows = (np.random.default_rng(0).normal(size=(50, size)) * 3).astype(np.float32)
    expected = answer(rows)
    assert np.ptp(expected) > 0.1, "answers differ"
    np.testing.assert_allclose(answers(graph, rows), expected, rtol=1e-5, atol=CLOSE)
    assert {op.origin for op in graph.nodes.values()} != {()}, "nodes keep the file's names"


# --------------------------------------------------------------------------------------------------------------------
# Random perceptrons, against ONNX's own reference


@pytest.mark.parametrize("seed", range(60))
def test_random_perceptrons_against_the_reference_of_onnx(seed: int, tmp_path: Path) -> None:
    from onnx.reference import ReferenceEvaluator

    network, size = perceptron(seed)
    path = tmp_path / "p.onnx"
    path.write_bytes(network.SerializeToString())
    graph = read_onnx(path)
    rows = np.random.default_rng(seed).normal(size=(20, size)).astype(np.float32)
    reference = ReferenceEvaluator(network)
    expected = np.concatenate([reference.run(None, {"obs": row[None]})[0].reshape(1, -1) for row in rows])
    np.testing.assert_allclose(answers(graph, rows), expected, rtol=2e-4, atol=1e-4)


def test_activations_are_those_of_onnx() -> None:
    from onnx.reference import ReferenceEvaluator

    rows = np.linspace(-6, 6, 101, dtype=np.float32)[:, None]
    for kind, alpha in (("Tanh", 1.0), ("Relu", 1.0), ("Elu", 1.0), ("Elu", 0.3)):
        network = model([node(kind, ["obs"], "actions", **({"alpha": alpha} if kind == "Elu" else {}))], {}, 1, 1)
        (expected,) = ReferenceEvaluator(network).run(None, {"obs": rows})
        op = Activation(kind.lower(), (1,), alpha)
        assert op.kind == kind
        np.testing.assert_allclose(op.step({}, rows.astype(np.float64)), expected, atol=1e-6)


# --------------------------------------------------------------------------------------------------------------------
# Refused


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
            {"w": W, "a": np.float32(-1), "b": np.float32(1)},
            3,
            2,
        ),
        "limits a value inside the network",
    ),
    "no network": (lambda: model([node("Identity", ["obs"], "actions")], {}, 3, 3), "holds no network"),
    "a constant": (lambda: model([node("Identity", ["w"], "actions")], {"w": W}, 3, 2), "does not depend on its input"),
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
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_read_is_said(name: str, tmp_path: Path) -> None:
    network, message = REFUSED[name]
    path = write_model(network(), tmp_path / "p.onnx")
    with pytest.raises((FileFormatError, GraphError), match=message) as caught:
        read_onnx(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value) or isinstance(caught.value, GraphError)


def test_several_inputs_are_refused(tmp_path: Path) -> None:
    network = model([gemm()], {"w": W}, 3, 2)
    network.graph.input.append(onnx.helper.make_tensor_value_info("h_in", onnx.TensorProto.FLOAT, [1, 4]))
    path = write_model(network, tmp_path / "p.onnx")
    with pytest.raises(FileFormatError, match=r"2 .*\(obs, h_in\)"):
        read_onnx(path)


def test_functions_and_sparse_constants_are_refused(tmp_path: Path) -> None:
    network = model([gemm()], {"w": W}, 3, 2)
    network.functions.add(name="f", domain="own")
    with pytest.raises(FileFormatError, match="has functions of its own"):
        read_onnx(write_model(network, tmp_path / "f.onnx"))
    network = model([gemm()], {"w": W}, 3, 2)
    network.graph.sparse_initializer.add()
    with pytest.raises(FileFormatError, match="has sparse constants"):
        read_onnx(write_model(network, tmp_path / "s.onnx"))


@pytest.mark.long
@pytest.mark.reader_process
def test_a_child_reads_what_this_process_reads(tmp_path: Path) -> None:
    network = model([gemm("h"), node("Tanh", ["h"], "actions")], {"w": W}, 3, 2)
    onnx.helper.set_model_props(network, {"a": "b"})
    path = write_model(network, tmp_path / "p.onnx")
    size = path.stat().st_size
    child, here = (reader(onnxfile.READER, str(path), size, onnxfile.LIMITS) for reader in (read_guarded, read_here))
    assert child.keys() == here.keys()
    np.testing.assert_equal(child, here)
    assert [op.kind for op in read_onnx(path).nodes.values()] == ["Input", "Affine", "Tanh", "Output"]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(FileFormatError, match=r"no ONNX "):
        read_onnx(path)


def test_a_policy_of_ours_is_not_read_back(tmp_path: Path) -> None:
    network = model([gemm()], {"w": W}, 3, 2)
    onnx.helper.set_model_props(network, {"nervecord_form": "float"})
    with pytest.raises(FileFormatError, match=r"policy\.nervecord --engine onnxruntime"):
        read_onnx(write_model(network, tmp_path / "p.onnx"))


def test_what_does_not_lead_to_the_action_may_be_anything(tmp_path: Path) -> None:
    nodes = [gemm("h"), node("Sigmoid", ["h"], "value"), node("Tanh", ["h"], "actions")]
    graph = read_onnx(write_model(model(nodes, {"w": W}, 3, 2), tmp_path / "p.onnx"))
    assert [op.kind for op in graph.nodes.values()] == ["Input", "Affine", "Tanh", "Output"]


def test_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write_model(model([gemm()], {"w": W}, 3, 2), tmp_path / "p.onnx")
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
    with pytest.raises(FileFormatError, match=r"\b10 are"):
        onnxfile.load_onnx(path, Limits(file_bytes=10))
    with pytest.raises(FileFormatError, match="than 20 bytes"):
        onnxfile.load_onnx(path, Limits(value_bytes=20, expansion=0))


def field(number: int, content: bytes) -> bytes:
    """A message or text in a message of protobuf's."""
    length, encoded = len(content), b""
    while length > 127:
        encoded, length = encoded + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + encoded + bytes([length]) + content


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
    path = write_model(content, tmp_path / "p.onnx")
    monkeypatch.setattr(onnxchild, "MOST_FIELDS", 5000)
    with pytest.raises(onnxchild.RefusedError, match=r"\b5000 fields"):
        onnxchild.load(str(path), 1 << 20)


@pytest.mark.long
@pytest.mark.reader_process
def test_millions_of_empty_messages_are_counted_before_they_are_made(tmp_path: Path) -> None:
    """Of 8 MB protobuf would make objects of a gigabyte."""
    path = write_model(TINY["nodes"], tmp_path / "p.onnx")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.raises(FileFormatError, match="524288"):
        read_onnx(path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < 5
    # A child begins with the size of the process that forked it.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after.ru_maxrss < max(before.ru_maxrss, own, 256 << 10) + (64 << 10)


@pytest.mark.long
@pytest.mark.reader_process
def test_what_hangs_or_asks_for_much_is_ended_with_its_child(tmp_path: Path) -> None:
    path = write_model(model([gemm()], {"w": W}, 3, 2), tmp_path / "p.onnx")
    with pytest.raises(FileFormatError, match=r"0\.001 s"):
        onnxfile.load_onnx(path, Limits(seconds=0.001, patience=1))
    large = write_model(model([gemm()], {"w": np.zeros((2, 30_000_000), np.float32)}, 3, 2), tmp_path / "q.onnx")
    with pytest.raises(FileFormatError, match=r"memory|reader"):
        onnxfile.load_onnx(large, Limits(process_bytes=-(1 << 28), expansion=1))


def test_no_interpreter_is_started_for_a_file_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxfile, "read_guarded", lambda *args: pytest.fail("started"))
    os.mkfifo(tmp_path / "pipe.onnx")
    write_model(b"", tmp_path / "empty.onnx")
    for name, message in (("pipe", "no regular file"), ("empty", "is empty"), ("none", "does not exist")):
        with pytest.raises(FileFormatError, match=message):
            read_onnx(tmp_path / f"{name}.onnx")


def test_a_shape_of_terabytes_costs_nothing(tmp_path: Path) -> None:
    network = model([gemm()], {"w": W}, 3, 2)
    del network.graph.initializer[0].dims[:]
    network.graph.initializer[0].dims.extend([1 << 40, 1 << 20])
    with pytest.raises(FileFormatError, match=r"\d+ bytes"):
        read_onnx(write_model(network, tmp_path / "p.onnx"))
    folded = model(
        [node("ConstantOfShape", ["s"], "big"), node("Add", ["obs", "big"], "h"), gemm(source="h")],
        {"w": W, "s": np.array([1 << 40], np.int64)},
        3,
        2,
    )
    with pytest.raises(FileFormatError, match="ConstantOfShape"):
        read_onnx(write_model(folded, tmp_path / "q.onnx"))


# --------------------------------------------------------------------------------------------------------------------
# Weights in a file beside


def external(location: str, path: Path, **entries: str) -> Path:
    network = model([gemm()], {"w": W}, 3, 2)
    tensor = network.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return write_model(network, path)


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
    for entries in ({"offset": "1"}, {"length": "1"}, {"offset": "x"}, {"offset": "-4"}):
        with pytest.raises(FileFormatError, match="is damaged"):
            read_onnx(external("real", tmp_path / "p.onnx", **entries))
