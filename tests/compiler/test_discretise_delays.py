"""From continuous time to steps: delays, and the step that a way back takes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from nervecord.compiler import ops as n
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.ops import Level, Op
from nervecord.compiler.passes.discretise import discretise
from nervecord.compiler.plan.interpret import simulate
from nervecord.errors import GraphError

DATA = Path(__file__).parent.parent / "data" / "nir"
CONVENTIONS = ("euler", "exact")


def imported(*nodes: tuple[str, Op], size: int = 1, out: int | None = None, dt: float | None = None) -> Graph:
    ends = ("in", n.Input((size,))), ("out", n.Output((size if out is None else out,)))
    return chain(Level.IMPORTED, [ends[0], *nodes, ends[1]], dt=dt)


# --------------------------------------------------------------------------------------------------------------------
# Delays

FC = n.Affine([[1.0, 2.0]], [3.0], origin=("fc",))  # type: ignore[arg-type]
BARE = FC.replace(bias=None)


def delay(*seconds: float) -> n.Delay:
    return n.Delay(np.array(seconds), origin=("d",))


def test_delay_behind_an_affine() -> None:
    graph = discretise(imported(("fc", BARE), ("d", delay(0.003)), size=2, out=1), dt=1e-3)
    assert list(graph.nodes) == ["in", "fc", "out"]
    assert graph.edges == (("in", "fc"), ("fc", "out"))
    assert graph.nodes["fc"] == n.Affine(FC.weight, None, 3, origin=("fc", "d"))
    # y(t) = W x(t - 3 dt), with zero input before the first step.
    x = np.arange(10.0).reshape(5, 2)
    y = simulate(graph, x).outputs["fc"][:, 0, 0]
    assert y.tolist() == [0, 0, 0, 2, 8]


@pytest.mark.parametrize("second", [0.002, 0.003])
def test_a_bias_waits_in_a_delay_as_all_that_enters_it(second: float) -> None:
    """I(t - tau) is zero before tau, whether the channels wait equally long or not."""
    double = n.Affine(np.ones((2, 2)), np.array([3.0, 5.0]), origin=("fc",))
    x = np.arange(10.0).reshape(5, 2)
    behind = discretise(imported(("fc", double), ("d", delay(0.002, second)), size=2), dt=1e-3)
    outputs = simulate(behind, x).left["out"][:, 0]
    assert outputs[:, 0].tolist() == [0, 0, 1 + 3, 5 + 3, 9 + 3]
    assert outputs[:, 1].tolist() == [0, 0, 1 + 5, 5 + 5, 9 + 5] if second == 0.002 else [0, 0, 0, 1 + 5, 5 + 5]
    # An Affine behind the Delay takes it, and its own bias is there from the first step on.
    both = discretise(
        imported(("fc", FC), ("d", delay(0.001)), ("e", n.Affine([[2.0]], [7.0])), size=2, out=1), dt=1e-3
    )
    assert delays(both) == {"fc": 0, "e": 1}
    assert simulate(both, x).left["out"].ravel()[:2].tolist() == [7, 2 * (2 + 3) + 7]


def test_delay_before_an_affine() -> None:
    graph = discretise(imported(("d", delay(0.002, 0.002)), ("fc", FC), size=2, out=1), dt=1e-3)
    assert graph.nodes["fc"] == n.Affine(FC.weight, FC.bias, 2, origin=("fc", "d"))


def test_a_delay_without_an_affine_stays_a_node() -> None:
    graph = discretise(imported(("d", delay(0.002)), ("s", n.Scale(np.ones(1)))), dt=1e-3)
    assert list(graph.nodes) == ["in", "d", "s", "out"]
    assert graph.nodes["d"] == n.DelayLine(np.array([2]), origin=("d",))
    assert simulate(graph, np.arange(1.0, 6)[:, None]).left["out"].ravel().tolist() == [0, 0, 1, 2, 3]


def test_delays_add_up_and_zero_goes() -> None:
    graph = imported(("fc", BARE), ("d", delay(0.001)), ("e", delay(0.0)), ("f", delay(0.002)), size=2, out=1)
    fc = discretise(graph, dt=1e-3).nodes["fc"]
    assert isinstance(fc, n.Affine)
    assert fc.delay == 3
    discrete = discretise(imported(("d", delay(0.0)), ("s", n.Scale(np.ones(1)))), dt=1e-3)
    assert list(discrete.nodes) == ["in", "s", "out"]
    assert discrete.edges == (("in", "s"), ("s", "out"))


def test_a_delay_with_company_stays_a_node() -> None:
    nodes = {"in": n.Input((2,)), "fc": FC, "d": delay(0.001), "out": n.Output((1,)), "out2": n.Output((1,))}
    edges = (("in", "fc"), ("fc", "d"), ("fc", "out2"), ("d", "out"))
    graph = discretise(Graph(Level.IMPORTED, nodes, edges), dt=1e-3)
    assert graph.nodes["d"] == n.DelayLine(np.array([1]), origin=("d",))
    outputs = simulate(graph, np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])).left
    assert outputs["out2"].ravel().tolist() == [4, 5, 3]
    # What leaves the line before anything has come through it is zero.
    assert outputs["out"].ravel().tolist() == [0, 4, 5]


@pytest.mark.parametrize(
    ("seconds", "cause"),
    [
        ((0.0015,), r"d: delay is no whole number of steps \(0\.0015 against 0\.001\)"),
        ((-0.001,), r"d: delay is negative \(-0\.001 against 0\)"),
        ((100.0,), r"d: delay is longer than 65536 steps \(100\.0 against 65\.536\)"),
        ((1e308,), r"d: delay is longer than 65536 steps"),
    ],
)
def test_impossible_delays(seconds: tuple[float, ...], cause: str) -> None:
    with pytest.raises(GraphError, match=cause):
        discretise(imported(("fc", FC), ("d", delay(*seconds)), size=2, out=1), dt=1e-3)


def test_channels_that_differ_in_delay() -> None:
    graph = imported(("d", delay(0.001, 0.002)), ("fc", FC), size=2, out=1)
    result = discretise(graph, dt=1e-3)
    assert result.nodes["d"] == n.DelayLine(np.array([1, 2]), origin=("d",))
    x = np.array([[1.0, 10.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert simulate(result, x).left["out"].ravel().tolist() == [3, 3 + 1, 3 + 20, 3]


def test_delays_saved_as_float32() -> None:
    graph = imported(("fc", BARE), ("d", delay(float(np.float32(0.007)))), size=2, out=1)
    fc = discretise(graph, dt=1e-3).nodes["fc"]
    assert isinstance(fc, n.Affine)
    assert fc.delay == 7


# --------------------------------------------------------------------------------------------------------------------
# Recurrence


def lif(size: int = 1) -> n.Neuron:
    ones = np.ones(size)
    return n.Neuron(n.ContinuousMembrane(ones, ones / 10, 0 * ones), None, n.Spike(ones, 0 * ones))


def eye(bias: bool = False) -> n.Affine:
    return n.Affine(np.eye(1), np.ones(1) if bias else None)


def recurrent(nodes: dict[str, Op], edges: list[str]) -> Graph:
    """Edges as "a b"."""
    ends: dict[str, Op] = {"in": n.Input((1,)), "out": n.Output((1,))}
    return Graph(Level.IMPORTED, {**ends, **nodes}, tuple((e.split()[0], e.split()[1]) for e in edges))


def delays(graph: Graph) -> dict[str, int]:
    return {name: node.delay for name, node in graph.of_type(n.Affine) if isinstance(node, n.Affine)}


def test_the_way_back_gets_the_delay_whatever_the_order() -> None:
    """Two layers, a loop over both: fc2 lies on the way from input to output, back does not."""
    nodes: dict[str, Op] = {"fc": eye(), "a": lif(), "fc2": eye(), "b": lif(), "back": eye()}
    edges = ["in fc", "fc a", "a fc2", "fc2 b", "b out", "b back", "back a"]
    for turn in range(len(edges)):
        mixed = dict(list(nodes.items())[turn % 5 :] + list(nodes.items())[: turn % 5])
        graph = discretise(recurrent(mixed, edges[turn:] + edges[:turn]), dt=1e-3)
        assert {name for name, k in delays(graph).items() if k} == {"back"}


def test_the_way_back_through_other_nodes() -> None:
    nodes: dict[str, Op] = {"fc": eye(), "a": lif(), "rec": eye(), "scale": n.Scale(np.ones(1)), "rec2": eye()}
    edges = ["in fc", "fc a", "a out", "a rec", "rec scale", "scale rec2", "rec2 a"]
    graph = discretise(recurrent(nodes, edges), dt=1e-3)
    # One delay on the way, at the Affine that the neuron feeds.
    assert delays(graph) == {"fc": 0, "rec": 1, "rec2": 0}


def test_a_delay_on_the_way_back_is_enough() -> None:
    edges = ["in fc", "fc a", "a out", "a rec", "rec d", "d a"]
    nodes: dict[str, Op] = {"fc": eye(), "a": lif(), "rec": eye(), "d": delay(0.004)}
    assert delays(discretise(recurrent(nodes, edges), dt=1e-3)) == {"fc": 0, "rec": 4}
    # A bias waits with what the connection gives, in a line of its own.
    graph = discretise(recurrent({**nodes, "rec": eye(bias=True)}, edges), dt=1e-3)
    assert delays(graph) == {"fc": 0, "rec": 0}
    assert graph.nodes["d"].lag == 4


def test_only_what_lies_on_a_cycle_is_delayed() -> None:
    """fc2 leads to a neuron nearer to the input than itself, and no cycle passes through it."""
    nodes: dict[str, Op] = {"fc": eye(), "a": lif(), "rec": eye(bias=True), "fc2": eye(), "near": lif()}
    edges = ["in near", "near out", "in fc", "fc a", "a rec", "rec a", "a fc2", "fc2 near"]
    graph = discretise(recurrent(nodes, edges), dt=1e-3)
    assert delays(graph) == {"fc": 0, "rec": 1, "fc2": 0}
    assert graph.nodes["rec"].bias is not None  # type: ignore[attr-defined]


def test_a_cycle_without_an_affine_for_the_delay() -> None:
    direct = recurrent({"fc": eye(), "a": lif()}, ["in fc", "fc a", "a out", "a a"])
    with pytest.raises(GraphError, match=r"a: .*cycle .*Affine"):
        discretise(direct, dt=1e-3)
    # The only Affine in the cycle lies on the way forward: a delay there would be one of the network's own.
    forward = recurrent({"a": lif(), "fc": eye(), "b": lif()}, ["in a", "a fc", "fc b", "b out", "b a"])
    with pytest.raises(GraphError, match="no Affine"):
        discretise(forward, dt=1e-3)


# --------------------------------------------------------------------------------------------------------------------
# Large graphs: linear time


def quickly(graph: Graph) -> Graph:
    start = time.process_time()
    result = discretise(graph, dt=1e-3)
    assert time.process_time() - start < 10  # a second or so; anything quadratic takes minutes
    return result


def test_a_long_chain_of_delays() -> None:
    nodes: list[tuple[str, Op]] = []
    for k in range(4_000):
        nodes += [(f"fc{k}", eye()), (f"d{k}", delay(0.002))]
    graph = quickly(imported(*nodes))
    assert list(graph.nodes) == ["in", *(f"fc{k}" for k in range(4_000)), "out"]
    assert set(delays(graph).values()) == {2}


def test_a_hub_of_delays() -> None:
    """One neuron feeds thousands of Affines over delays of their own, and all of them feed another one."""
    count = 5_000
    nodes: dict[str, Op] = {"fc": eye(), "a": lif(), "b": lif()}
    edges = ["in fc", "fc a", "b out"]
    for k in range(count):
        nodes |= {f"d{k}": delay(0.001), f"fc{k}": eye()}
        edges += [f"a d{k}", f"d{k} fc{k}", f"fc{k} b"]
    graph = quickly(recurrent(nodes, edges))
    assert len(graph.nodes) == 5 + count
    assert set(delays(graph).values()) == {0, 1}


@pytest.mark.long
def test_a_long_loop_and_many_short_ones() -> None:
    count = 3_000
    nodes: dict[str, Op] = {}
    edges = []
    before = "in"
    for k in range(count):
        nodes |= {f"fc{k}": eye(), f"a{k}": lif(), f"rec{k}": eye()}
        edges += [f"{before} fc{k}", f"fc{k} a{k}", f"a{k} rec{k}", f"rec{k} a{k}"]
        before = f"a{k}"
    nodes["back"] = eye()
    edges += [f"{before} out", f"{before} back", "back a0"]
    graph = quickly(recurrent(nodes, edges))
    assert {name for name, k in delays(graph).items() if k} == {"back", *(f"rec{k}" for k in range(count))}


def test_delays_that_multiply_edges_are_refused() -> None:
    """A delay between 600 sources and 600 destinations stands for 360,000 edges."""
    nodes: dict[str, Op] = {"fc": eye(), "d": delay(0.0)}
    edges = []
    for k in range(600):
        nodes |= {f"a{k}": eye(), f"b{k}": eye()}
        edges += [f"in a{k}", f"a{k} d", f"d b{k}", f"b{k} out"]
    edges += ["in fc", "fc out"]
    with pytest.raises(GraphError, match=r"graph: .*\b131072 edges"):
        discretise(recurrent(nodes, edges), dt=1e-3)


def test_delays_in_a_circle_of_their_own() -> None:
    graph = recurrent({"d": delay(0.0), "e": delay(0.0), "fc": eye()}, ["in fc", "fc out", "d e", "e d"])
    with pytest.raises(GraphError, match="graph: d, e "):
        discretise(graph, dt=1e-3)
