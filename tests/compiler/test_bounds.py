"""Files and graphs that ask for more than they are: refused, or handled in time and memory that follow their size."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import some
from policies import random_policy

from nervecord.compiler.files.program import Program, load
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.verify import require, verify
from nervecord.compiler.nir.reading import import_graph
from nervecord.compiler.ops import Affine, Conv, Input, Level, Membrane, Neuron, Op, Output, Spike
from nervecord.compiler.plan.plan import plan
from nervecord.compiler.schema import MOST_JSON, MOST_LISTS, brackets, from_json, nesting
from nervecord.errors import FileFormatError, GraphError, NervecordError

Tree = dict[str, Any]


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Processor time, not the clock: the machine may be busy. What is quadratic takes minutes."""
    start = time.process_time()
    yield
    assert time.process_time() - start < seconds


def eye() -> Affine:
    return Affine(np.eye(1))


def lif(size: int = 1) -> Neuron:
    one = np.ones(size)
    return Neuron(Membrane(0.5 * one, one, 0 * one), None, Spike(one, 0 * one))


def long_chain(count: int) -> Graph:
    nodes: list[tuple[str, Op]] = [("in", Input((1,)))]
    for k in range(count // 2):
        nodes += [(f"fc{k}", eye()), (f"lif{k}", lif())]
    return chain(Level.DISCRETE, [*nodes, ("out", Output((1,)))], dt=1e-3)


def many_edges() -> Graph:
    """300 Affines into each of 300 populations."""
    nodes: dict[str, Op] = {"in": Input((1,)), "out": Output((1,))}
    edges = []
    for k in range(300):
        nodes |= {f"fc{k}": eye(), f"lif{k}": lif()}
        edges += [("in", f"fc{k}"), (f"lif{k}", "out"), *((f"fc{j}", f"lif{k}") for j in range(300))]
    return Graph(Level.DISCRETE, nodes, tuple(edges), 1e-3)


def many_ends() -> Graph:
    nodes: dict[str, Op] = {}
    edges = []
    for k in range(5_000):
        nodes |= {f"in{k}": Input((1,), "spikes"), f"fc{k}": eye(), f"lif{k}": lif(), f"out{k}": Output((1,))}
        edges += [(f"in{k}", f"fc{k}"), (f"fc{k}", f"lif{k}"), (f"lif{k}", f"out{k}")]
    return Graph(Level.DISCRETE, nodes, tuple(edges), 1e-3)


@pytest.mark.long
@pytest.mark.parametrize(
    "make", some([lambda: long_chain(10_000), many_edges, many_ends], 2), ids=["chain", "edges", "ends"]
)
def test_large_programs_take_time_that_follows_their_size(make: Callable[[], Graph], tmp_path: Path) -> None:
    graph = make()
    with within(10):  # about 2 s
        assert verify(graph) == []
        plan(graph)
        Program("reference", graph).save(tmp_path / "p")
        assert load(tmp_path / "p").graph == graph


def scales(pairs: Callable[[int], list[tuple[str, str]]], count: int) -> Tree:
    nodes: Tree = {"in": {"type": "Input", "shape": np.array([1])}, "out": {"type": "Output", "shape": np.array([1])}}
    nodes |= {f"s{k}": {"type": "Scale", "scale": np.ones(1)} for k in range(count)}
    return {"type": "NIRGraph", "nodes": nodes, "edges": [list(pair) for pair in pairs(count)]}


def in_a_row(count: int) -> list[tuple[str, str]]:
    names = ["in", *(f"s{k}" for k in range(count)), "out"]
    return list(itertools.pairwise(names))


def side_by_side(count: int) -> list[tuple[str, str]]:
    return [pair for k in range(count) for pair in (("in", f"s{k}"), (f"s{k}", "out"))]


@pytest.mark.long
@pytest.mark.parametrize(("pairs", "count"), [(in_a_row, 10_000), (side_by_side, 45_000)], ids=["chain", "90000 edges"])
def test_large_nir_graphs(pairs: Any, count: int) -> None:
    tree = scales(pairs, count)
    with within(10):
        assert len(require(import_graph(tree, where="a.nir", dt=None)).nodes) == count + 2


def test_subgraphs_that_multiply_their_edges() -> None:
    """Forty diamonds of subgraphs without anything in them: 2^40 ways through."""
    inner = {"type": "NIRGraph", "nodes": scales(in_a_row, 0)["nodes"], "edges": [["in", "out"]]}
    tree = scales(in_a_row, 0)
    tree["edges"], before = [], "in"
    for k in range(40):
        tree["nodes"] |= {f"{name}{k}": inner for name in "abj"}
        tree["edges"] += [[before, f"a{k}"], [before, f"b{k}"], [f"a{k}", f"j{k}"], [f"b{k}", f"j{k}"]]
        before = f"j{k}"
    tree["edges"].append([before, "out"])
    with within(5), pytest.raises(GraphError, match=r"\b131072 edges"):
        import_graph(tree, where="a.nir", dt=None)


def one_node(node: Tree, before: tuple[int, ...], after: tuple[int, ...]) -> Tree:
    nodes = {
        "in": {"type": "Input", "shape": np.array(before)},
        "x": node,
        "out": {"type": "Output", "shape": np.array(after)},
    }
    return {"type": "NIRGraph", "nodes": nodes, "edges": [["in", "x"], ["x", "out"]]}


CONV = {
    "type": "Conv2d",
    "weight": np.ones((1, 1, 3, 3)),
    "bias": np.zeros(1),
    "stride": np.array(1),
    "padding": np.array(0),
    "dilation": np.array(1),
    "groups": np.array(1),
}
LIF = {"type": "LIF"} | {name: np.array(1.0) for name in ("tau", "r", "v_leak", "v_threshold", "v_reset")}
FLATTEN = {"type": "Flatten", "start_dim": np.array(0), "end_dim": np.array(-1)}


@pytest.mark.parametrize(
    ("tree", "cause"),
    [
        (one_node(CONV, (1, 30_000, 30_000), (1, 29_998, 29_998)), "x: has too many values (900000000 against"),
        (one_node({**CONV, "padding": np.array(1 << 40)}, (1, 4, 4), (1, 4, 4)), "x: padding is too large"),
        (one_node({**CONV, "stride": np.array(10**15)}, (1, 4, 4), (1, 1, 1)), "x: stride is too large"),
        (one_node(LIF, (1 << 26,), (1 << 26,)), "its scalars stand for 67108864 neurons"),
        (one_node(FLATTEN, (1 << 26,) * 16, (1,)), "in: has too many values (4611686018427387904 against"),
        (one_node({**CONV, "padding": np.zeros(1000)}, (1, 4, 4), (1, 1, 1)), "a list of up to 64 integers"),
    ],
)
def test_shapes_that_stand_for_gigabytes(tree: Tree, cause: str) -> None:
    with within(2), pytest.raises(NervecordError) as caught:
        require(import_graph(tree, where="a.nir", dt=None), where="a.nir")
    assert cause in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_an_action_of_many_steps_of_many_values() -> None:
    policy = random_policy(sizes=(2_000, 4, 2), recorded=0)
    assert verify(policy) == []
    long = policy.replace(contract=replace(policy.contract, steps=1 << 16))
    with pytest.raises(GraphError, match=r"graph: .*\(262144000 against 67108864\)"):
        require(long)


def test_delays_are_memory() -> None:
    nodes: list[tuple[str, Op]] = [
        ("in", Input((5_000,))),
        ("fc", Affine(np.ones((1, 5_000)), None, 1 << 16)),
        ("out", Output((1,))),
    ]
    with pytest.raises(GraphError, match=r"graph: .*delays"):
        require(chain(Level.DISCRETE, nodes, dt=1e-3))


def test_sizes_that_make_no_shape_are_said_and_not_stumbled_over() -> None:
    conv = Conv(np.ones((1, 1, 2, 2)), None, (0, 1), (0, 0), (1, 1), 1, (3, 3))
    nodes: list[tuple[str, Op]] = [("in", Input((1, 3, 3))), ("x", conv), ("out", Output((1, 2, 2)))]
    with pytest.raises(GraphError, match=r"x: stride .*\(0 against 1\)"):
        require(chain(Level.DISCRETE, nodes, dt=1e-3))


def test_a_manifest_of_hundreds_of_megabytes_is_not_read() -> None:
    with within(2), pytest.raises(FileFormatError, match=r"a: .*\b20971521\b.*\b20971520\b"):
        from_json(b" " * (MOST_JSON + 1), dict[str, Any], "a")


def test_millions_of_empty_lists_are_not_made() -> None:
    """Each would take twenty times its bytes."""
    with within(5), pytest.raises(FileFormatError, match=r"a: .*\b1048578 .*\b1048576 "):
        from_json(b'{"x":[' + b"{}," * MOST_LISTS + b"0]}", dict[str, Any], "a")


def test_a_long_text_in_json_takes_little_memory() -> None:
    tracing = pytest.importorskip("resource")
    content = b'"' + b"a" * 20_000_000 + b'\\n"'
    before = tracing.getrusage(tracing.RUSAGE_SELF).ru_maxrss
    with within(5):
        assert nesting(brackets(content)) == 0
    assert tracing.getrusage(tracing.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
