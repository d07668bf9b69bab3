"""Damaged ONNX files are refused in a sentence; networks of others act within a contract's limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx_models import W, gemm, model, node, perceptron, write_model

import nervecord
from nervecord.compiler.graph.contract import Channels, Contract
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.onnx.reading import read_onnx
from nervecord.compiler.ops import ArgmaxDecode, Decode, Level, Normalise
from nervecord.compiler.passes.act import act
from nervecord.compiler.plan.interpret import Machine
from nervecord.errors import ContractError, FileFormatError, GraphError, NervecordError

onnx = pytest.importorskip("onnx")


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


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 30), changes=CHANGES, cut=st.floats(0.3, 1))
def test_damaged_bytes_are_refused_in_a_sentence(
    seed: int, changes: list[tuple[float, int]], cut: float, tmp_path: Path
) -> None:
    content = bytearray(perceptron(seed)[0].SerializeToString())
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    path = write_model(bytes(content[: int(len(content) * cut)]), tmp_path / "p.onnx")
    message = refusal(path)
    assert message is None or (message.startswith(str(path)) and len(message) < 4000)


def test_names_that_are_no_text_and_numbers_that_are_none(tmp_path: Path) -> None:
    content = model([gemm()], {"w": W}, 3, 2).SerializeToString()
    graph = read_onnx(write_model(content.replace(b"the actions", b"the \xffctions"), tmp_path / "p.onnx"))
    assert graph.nodes["fc1"].origin == ("the \\xffctions",)
    signalling = np.full(2, 0x7FA00000, dtype=np.uint32).tobytes()
    path = write_model(content.replace(W.tobytes()[:8], signalling), tmp_path / "q.onnx")
    with pytest.raises(GraphError, match=r"\b6 values .*NaN"):
        read_onnx(path)
    hidden = write_model(content.replace(b"the actions", b"the \x1bctions"), tmp_path / "r.onnx")
    with pytest.raises(FileFormatError, match="cannot be printed"):
        read_onnx(hidden)


# --------------------------------------------------------------------------------------------------------------------
# As a policy


def contract(observations: int, actions: int, choices: int = 0) -> Contract:
    channels = Channels(tuple(f"a{k}" for k in range(actions)), ("",) * actions, (-0.5,) * actions, (0.25,) * actions)
    if choices:
        channels = Channels(("action",), ("1",), (0.0,), (choices - 1.0,))
    return Contract(
        environment="Ant-v4",
        observation=Channels(tuple(f"o{k}" for k in range(observations)), ("",) * observations),
        action=channels,
        steps=1,
        state="reset",
        control_period=0.05,
        fail_safe=(0.0,) * channels.size,
        choices=tuple(f"c{k}" for k in range(choices)),
    )


def network(*last: Any, **constants: Any) -> Callable[[Path], Graph]:
    nodes = [gemm("h" if last else "actions"), *last]
    return lambda path: read_onnx(write_model(model(nodes, {"w": W, **constants}, 3, 2), path))


def test_a_network_acts_within_the_contracts_limits(tmp_path: Path) -> None:
    policy = act(network()(tmp_path / "p.onnx"), contract(3, 2))
    assert policy.graph.dt == 0.05
    with nervecord.open(policy) as session:
        assert session.step(np.array([9.0, 0.0, 0.0])).tolist() == [0.25, 0.25]
        assert session.step(np.array([-9.0, 0.0, 0.0])).tolist() == [-0.5, -0.5]
        assert session.step(np.array([0.0625, 0.0, 0.0])).tolist() == [0.0625, 0.0625]


def test_limits_of_its_own_are_kept_within_them(tmp_path: Path) -> None:
    clip = node("Clip", ["h", "a", "b"], "actions")
    path = network(clip, a=np.float32(-0.125), b=np.float32(7))(tmp_path / "p.onnx")
    decode = act(path, contract(3, 2)).graph.nodes["decode1"]
    assert isinstance(decode, Decode)
    assert (decode.low.tolist(), decode.high.tolist()) == ([-0.125] * 2, [0.25] * 2)


def test_a_choice(tmp_path: Path) -> None:
    for last in ([], [node("ArgMax", ["h"], "actions", axis=1)]):
        policy = act(network(*last)(tmp_path / "p.onnx"), contract(3, 1, choices=2))
        assert any(isinstance(op, ArgmaxDecode) for op in policy.graph.nodes.values())
        with nervecord.open(policy) as session:
            assert session.step(np.array([1.0, 0.0, 0.0])).tolist() == [0.0]


@pytest.mark.parametrize(
    ("task_contract", "last", "message"),
    [
        (contract(4, 2), [], "takes 3 observations, and Ant-v4 gives 4"),
        (contract(3, 5), [], "gives 2, and Ant-v4 takes 5 values"),
        (contract(3, 1, choices=3), [], r"\b2, .*Ant-v4 .*\b3"),
        (contract(3, 2), [("ArgMax", {"axis": 1})], r"\b2, .*Ant-v4 .*\b2 values"),
    ],
)
def test_sizes_that_do_not_fit(task_contract: Contract, last: list[Any], message: str, tmp_path: Path) -> None:
    path = network(*(node(kind, ["h"], "actions", **how) for kind, how in last))(tmp_path / "p.onnx")
    with pytest.raises(ContractError, match=message):
        act(path, task_contract)


def test_a_normaliser_keeps_its_numbers(tmp_path: Path) -> None:
    mean, divisor = (np.random.default_rng(k).uniform(0.1, 3, size=3).astype(np.float32) for k in range(2))
    nodes = [node("Sub", ["obs", "m"], "a"), node("Div", ["a", "d"], "b"), gemm(source="b")]
    graph = read_onnx(write_model(model(nodes, {"w": W, "m": mean, "d": divisor}, 3, 2), tmp_path / "p.onnx"))
    op = graph.nodes["normalise1"]
    assert isinstance(op, Normalise)
    np.testing.assert_array_equal(op.mean, mean)
    np.testing.assert_array_equal(op.divisor, divisor.astype(np.float64))
    assert graph.level is Level.DISCRETE
