"""Small ONNX models, made by hand."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")


def model(nodes: list[Any], constants: dict[str, Any], size: int, outputs: int, **how: Any) -> Any:
    helper = onnx.helper
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("obs", onnx.TensorProto.FLOAT, how.pop("shape", ["batch", size]))],
        [helper.make_tensor_value_info(how.pop("out", "actions"), onnx.TensorProto.FLOAT, ["batch", outputs])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
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


W = np.ones((2, 3), dtype=np.float32)


def write_model(network: Any, path: Path) -> Path:
    path.write_bytes(network if isinstance(network, bytes) else network.SerializeToString())
    return path


def gemm(output: str = "actions", source: str = "obs") -> Any:
    return node("Gemm", [source, "w"], output, transB=1)
