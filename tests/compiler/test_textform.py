"""The text of a graph, and changes in words."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.contract import Channels, Contract
from nervecord.compiler.graph import Graph, Level, chain
from nervecord.compiler.node import Node
from nervecord.compiler.passes.discretise import discretise
from nervecord.compiler.textform import explain, to_text

ONES = np.ones(2)
CONTRACT = Contract(
    environment="Toy-v0",
    observation=Channels(("a", "b"), ("m", "m")),
    action=Channels(("u",), ("N",)),
    steps=4,
    state="reset",
    control_period=0.05,
    fail_safe=(0.0,),
)


def policy() -> Graph:
    nodes: list[tuple[str, Node]] = [
        ("in", n.Input((2,))),
        ("normalise", n.Normalise(0 * ONES, ONES, 1e-8, 5.0)),
        ("fc", n.Affine([[0.5, -0.25], [1.0, 2.0]], None, 1, origin=("layers.0",))),  # type: ignore[arg-type]
        ("lif", n.DiscreteLIF(0.9 * ONES, ONES, 0 * ONES, ONES, 0 * ONES, reset="subtract", origin=("lif",))),
        ("read out", n.Affine([[1.0, 1.0]], [0.5])),  # type: ignore[arg-type]
        ("out", n.Output((1,))),
    ]
    return chain(Level.DISCRETE, nodes, dt=1e-3, contract=CONTRACT, recorded=np.zeros((3, 2)))


def test_golden(golden: Callable[[str, str], None]) -> None:
    golden("textform.txt", to_text(policy()))


def test_every_change_shows() -> None:
    graph = policy()
    texts = {to_text(graph)}
    fc = graph.nodes["fc"]
    assert isinstance(fc, n.Affine)
    weight = fc.weight.copy()
    weight[0, 0] = np.nextafter(weight[0, 0], 1)
    edges = graph.edges
    changed = [
        graph.replace(dt=2e-3),
        graph.replace(contract=None),
        graph.replace(recorded=np.ones((3, 2))),
        graph.replace(edges=(edges[1], edges[0], *edges[2:])),
        graph.replace(nodes={**graph.nodes, "fc": n.Affine(weight, None, 1, origin=("layers.0",))}),
        graph.replace(nodes={**graph.nodes, "fc": n.Affine(fc.weight, None, 1, origin=("fc",))}),
        graph.replace(nodes={**graph.nodes, "fc": n.Affine(fc.weight, None, 2, origin=("layers.0",))}),
    ]
    for other in changed:
        texts.add(to_text(other))
        assert explain(graph, other) or other.nodes["fc"].origin == ("fc",)
    assert len(texts) == len(changed) + 1
    assert explain(graph, policy()) == []


def test_a_name_never_breaks_a_line() -> None:
    graph = chain(Level.DISCRETE, [("a\nb", n.Input((1,))), ("", n.Output((1,)))], dt=1.0)
    assert len(to_text(graph).splitlines()) == 6
    assert "'a\\nb' -> ''" in to_text(graph)


def test_explain_discretise() -> None:
    lif = n.ContinuousLIF(ONES / 8, 8 * ONES, 0 * ONES, ONES, 0 * ONES)
    nodes: dict[str, Node] = {
        "in": n.Input((2,)),
        "fc": n.Affine(np.eye(2), origin=("fc",)),
        "d": n.Delay(ONES / 64, origin=("d",)),
        "lif": lif,
        "rec": n.Affine(np.eye(2)),
        "out": n.Output((2,)),
    }
    edges = (("in", "fc"), ("fc", "d"), ("d", "lif"), ("lif", "rec"), ("rec", "lif"), ("lif", "out"))
    before = Graph(Level.IMPORTED, nodes, edges)
    assert explain(before, discretise(before, dt=1 / 64)) == [
        "the graph went from imported to discrete",
        "dt: - -> 0.015625 s",
        "d (Delay) went into fc",
        "fc (Affine) has another delay: 0 -> 1, origin: none -> fc+d",
        "lif: ContinuousLIF became DiscreteLIF with decay [0.875], gain [1.0]",
        "rec (Affine) has another delay: 0 -> 1",
        "edges gone: fc -> d, d -> lif",
        "edges new: fc -> lif",
    ]


def test_explain_order_and_new_nodes() -> None:
    graph = policy()
    turned = graph.replace(nodes=dict(reversed(graph.nodes.items())), edges=graph.edges[::-1])
    assert explain(graph, turned) == ["the order of the nodes changed", "the order of the edges changed"]
    more = graph.replace(nodes={**graph.nodes, "more": n.Scale(ONES)}, contract=None, recorded=None)
    assert explain(graph, more) == [
        "more (Scale) is new", "the contract changed", "the recorded observations changed"
    ]  # fmt: skip
    assert explain(more, graph)[0] == "more (Scale) is gone"
