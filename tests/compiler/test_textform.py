"""The text of a graph, and changes in words."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import graphs
import numpy as np
from policies import random_policy, with_node

from nervecord.compiler.graph.contract import Channels, Contract
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.text import explain, to_text
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.ops import (
    Affine,
    ContinuousMembrane,
    Delay,
    Input,
    Level,
    Membrane,
    Neuron,
    Normalise,
    Op,
    Output,
    Scale,
    Spike,
)
from nervecord.compiler.passes.discretise import discretise
from nervecord.compiler.plan.calibrate import calibrate

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


def policy() -> Policy:
    spike = Spike(ONES, 0 * ONES, "subtract")
    nodes: list[tuple[str, Op]] = [
        ("in", Input((2,))),
        ("normalise", Normalise(0 * ONES, ONES, 1e-8, 5.0)),
        ("fc", Affine([[0.5, -0.25], [1.0, 2.0]], None, 1, origin=("layers.0",))),  # type: ignore[arg-type]
        ("lif", Neuron(Membrane(0.9 * ONES, ONES, 0 * ONES), None, spike, origin=("lif",))),
        ("read out", Affine([[1.0, 1.0]], [0.5])),  # type: ignore[arg-type]
        ("out", Output((1,))),
    ]
    return Policy(chain(Level.DISCRETE, nodes, dt=1e-3), CONTRACT, np.zeros((3, 2)))


def test_golden(golden: Callable[[str, str], None]) -> None:
    golden("textform.txt", to_text(policy()))


def test_every_change_shows() -> None:
    subject = policy()
    graph = subject.graph
    texts = {to_text(subject)}
    fc, lif = graph.nodes["fc"], graph.nodes["lif"]
    assert isinstance(fc, Affine)
    assert isinstance(lif, Neuron)
    assert lif.spike is not None
    weight = fc.weight.copy()
    weight[0, 0] = np.nextafter(weight[0, 0], 1)
    edges = graph.edges
    longer = dataclasses.replace(CONTRACT, steps=5)
    changed: list[Graph | Policy] = [
        graph,
        subject.replace(graph=graph.replace(dt=2e-3)),
        subject.replace(contract=longer),
        subject.replace(recorded=np.ones((3, 2))),
        subject.replace(graph=graph.replace(edges=(edges[1], edges[0], *edges[2:]))),
        with_node(subject, "fc", fc.replace(weight=weight)),
        with_node(subject, "fc", fc.replace(origin=("fc",))),
        with_node(subject, "fc", fc.replace(delay=2)),
        with_node(subject, "lif", lif.replace(spike=dataclasses.replace(lif.spike, refractory=2))),
        with_node(subject, "lif", lif.replace(spike=None)),
    ]
    for other in changed:
        texts.add(to_text(other))
        renamed = isinstance(other, Policy) and other.graph.nodes["fc"].origin == ("fc",)
        assert explain(subject, other) or renamed
    assert len(texts) == len(changed) + 1
    assert explain(subject, policy()) == []


def test_a_part_is_named_where_it_changed() -> None:
    subject = policy()
    lif = subject.graph.nodes["lif"]
    assert isinstance(lif, Neuron)
    assert lif.spike is not None
    rests = with_node(subject, "lif", lif.replace(spike=dataclasses.replace(lif.spike, refractory=2)))
    assert [change.split(maxsplit=4)[-1] for change in explain(subject, rests)] == ["spike.refractory: 0 -> 2"]


def test_integers_name_their_arithmetic() -> None:
    floats = random_policy(sizes=(3, 4, 2))
    lowered, _ = lower(floats, graphs.LAVA, calibrate(floats))
    text = to_text(lowered)
    assert "graph integer dt=0.001\narithmetic weight_bits=8 weight_signs=mode" in text
    assert "membrane.decay=" in text
    changes = explain(floats, lowered)
    assert re.search("discrete .*integer", changes[0])
    assert re.search(r"fc1: Affine .*Dense .*weight \[", " ".join(changes))
    assert any(line.startswith("lif1: LIF ") and "membrane.bias [" in line for line in changes)
    assert any("observations" in line for line in changes)


def test_a_name_never_breaks_a_line() -> None:
    graph = chain(Level.DISCRETE, [("a\nb", Input((1,))), ("", Output((1,)))], dt=1.0)
    assert len(to_text(graph).splitlines()) == 6
    assert "'a\\nb' -> ''" in to_text(graph)


def test_explain_discretise() -> None:
    lif = Neuron(ContinuousMembrane(8 * ONES, ONES / 8), None, Spike(ONES, 0 * ONES))
    nodes: dict[str, Op] = {
        "in": Input((2,)),
        "fc": Affine(np.eye(2), origin=("fc",)),
        "d": Delay(ONES / 64, origin=("d",)),
        "lif": lif,
        "rec": Affine(np.eye(2)),
        "out": Output((2,)),
    }
    edges = (("in", "fc"), ("fc", "d"), ("d", "lif"), ("lif", "rec"), ("rec", "lif"), ("lif", "out"))
    before = Graph(Level.IMPORTED, nodes, edges)
    assert explain(before, discretise(before, dt=1 / 64)) == [
        "the graph went from imported to discrete",
        "dt: - -> 0.015625 s",
        "d (Delay) went into fc",
        "fc (Affine) has another delay: 0 -> 1, origin: none -> fc+d",
        "lif: LIF became LIF (discrete) with membrane.decay [0.875], membrane.gain [1.0], membrane.leak [0.0]",
        "rec (Affine) has another delay: 0 -> 1",
        "edges gone: fc -> d, d -> lif",
        "edges new: fc -> lif",
    ]


def test_explain_order_and_new_nodes() -> None:
    subject = policy()
    graph = subject.graph
    turned = graph.replace(nodes=dict(reversed(graph.nodes.items())), edges=graph.edges[::-1])
    assert explain(graph, turned) == ["the order of the nodes changed", "the order of the edges changed"]
    more = graph.replace(nodes={**graph.nodes, "more": Scale(ONES)})
    assert explain(subject, more) == [
        "more (Scale) is new",
        "the contract changed",
        "the recorded observations changed",
    ]
    assert explain(more, subject)[0] == "more (Scale) is gone"
