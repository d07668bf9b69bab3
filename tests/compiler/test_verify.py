"""Every rule of a level is broken once, and found by its code and node."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import random_policy

from nervecord.compiler import nodes as n
from nervecord.compiler.calibrate import calibrate
from nervecord.compiler.contract import Channels, Contract
from nervecord.compiler.graph import Graph, Level, chain
from nervecord.compiler.node import Node
from nervecord.compiler.verify import require, verify
from nervecord.errors import ContractError, GraphError
from nervecord.targets.lava.lower import lower

POLICY = random_policy(sizes=(5, 4, 2))
INTEGER = lower(POLICY, calibrate(POLICY))[0]


def put(graph: Graph, name: str, node: Node | None = None, **changes: object) -> Graph:
    nodes = dict(graph.nodes)
    nodes[name] = node if node is not None else dataclasses.replace(nodes[name], **changes)
    return graph.replace(nodes=nodes)


def array(graph: Graph, name: str, field: str) -> np.ndarray:
    return np.array(getattr(graph.nodes[name], field))


def poisoned(graph: Graph, name: str, field: str, value: float) -> Graph:
    values = array(graph, name, field)
    values.flat[0] = value
    return put(graph, name, **{field: values})


BROKEN = {
    "not-finite": (poisoned(POLICY, "fc1", "weight", np.nan), "fc1"),
    "illegal-node": (put(POLICY, "lif1", n.ContinuousIF(np.ones(4), np.ones(4), np.zeros(4))), "lif1"),
    "shape": (put(POLICY, "fc1", n.Affine(np.ones((3, 5)))), "lif1"),
    "decay": (poisoned(POLICY, "lif1", "decay", 1.5), "lif1"),
    "delay": (put(POLICY, "fc1", delay=-1), "fc1"),
    "variance": (poisoned(POLICY, "normalise", "variance", -1.0), "normalise"),
    "clip": (put(POLICY, "normalise", clip=0.0), "normalise"),
    "epsilon": (put(POLICY, "normalise", variance=np.zeros(5), epsilon=0.0), "normalise"),
    "limits": (put(POLICY, "decode", low=np.full(2, 3.0)), "decode"),
    "dt": (POLICY.replace(dt=None), "graph"),
    "no-end": (
        POLICY.replace(edges=POLICY.edges[:-1], nodes={k: v for k, v in POLICY.nodes.items() if k != "action"}),
        "graph",
    ),
    "disconnected": (POLICY.replace(edges=POLICY.edges[1:]), "normalise"),
    "contract": (put(POLICY, "observation", n.Input((6,))), "observation"),
    "range": (put(INTEGER, "lif1", du=4096), "lif1"),
    "weight-grid": (put(INTEGER, "fc1", weight=INTEGER.nodes["fc1"].weight + 1), "fc1"),  # type: ignore[attr-defined]
    "reset-window": (put(INTEGER, "lif1", reset_offset=99), "lif1"),
    "empty": (put(POLICY, "fc1", n.Affine(np.ones((0, 5)))), "fc1"),
}


@pytest.mark.parametrize("code", BROKEN)
def test_each_violation_is_found_where_it_is(code: str) -> None:
    graph, node = BROKEN[code]
    assert (code, node) in {(finding.code, finding.node) for finding in verify(graph)}
    with pytest.raises(GraphError, match=node):
        require(graph, where="file.nir")


def test_every_violation_is_listed_at_once() -> None:
    graph = put(poisoned(POLICY, "fc1", "weight", np.inf), "normalise", clip=-1.0).replace(dt=0.0)
    assert {"not-finite", "clip", "dt"} <= {finding.code for finding in verify(graph)}


def test_time_constants_are_positive_and_levels_are_kept() -> None:
    one = np.ones(1)
    graph = chain(
        Level.IMPORTED,
        [("in", n.Input((1,))), ("lif", n.ContinuousLIF(-one, one, 0 * one, one, 0 * one)), ("out", n.Output((1,)))],
    )
    assert [finding.code for finding in verify(graph)] == ["time-constant"]
    assert "level" in {finding.code for finding in verify(graph, Level.DISCRETE)}
    assert verify(POLICY) == verify(INTEGER) == []


def test_cycles_need_a_delay_where_they_are_executed() -> None:
    one = np.ones(1)
    lif = n.DiscreteLIF(one, one, 0 * one, one, 0 * one)
    edges = (("in", "lif"), ("lif", "loop"), ("loop", "lif"), ("lif", "out"))
    nodes = {"in": n.Input((1,)), "lif": lif, "loop": n.Affine([[1.0]]), "out": n.Output((1,))}
    graph = Graph(Level.DISCRETE, nodes, edges, dt=1e-3)
    assert [finding.code for finding in verify(graph)] == ["cycle"]
    with pytest.raises(GraphError, match="no delay"):
        graph.order()
    assert verify(put(graph, "loop", delay=1)) == []


def test_graphs_and_nodes_are_values() -> None:
    node = POLICY.nodes["fc1"]
    with pytest.raises(ValueError, match="read-only"):
        node.weight[0, 0] = 1.0  # type: ignore[attr-defined]
    with pytest.raises(dataclasses.FrozenInstanceError):
        node.delay = 3  # type: ignore[attr-defined,misc]
    with pytest.raises(TypeError):
        POLICY.nodes["x"] = node  # type: ignore[index]
    with pytest.raises(GraphError, match="does not exist"):
        POLICY.replace(edges=(("observation", "nowhere"),))
    with pytest.raises(GraphError, match="twice"):
        POLICY.replace(edges=POLICY.edges + POLICY.edges[:1])
    assert POLICY == random_policy(sizes=(5, 4, 2)) != random_policy(seed=1, sizes=(5, 4, 2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "at least 1"),
        ({"steps": 2.0}, "not a whole number"),
        ({"steps": True}, "not a whole number"),
        ({"latency": -1}, "negative"),
        ({"state": "kept"}, "neither"),
        ({"control_period": 0.0}, "positive"),
        ({"fail_safe": [0.0]}, "fail-safe"),
        ({"fail_safe": "ab"}, "malformed"),
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"observation": {"names": ["a"], "units": []}}, "0 units for 1 names"),
        ({"action": None}, "malformed"),
    ],
)
def test_malformed_contracts_are_refused(change: dict[str, object], words: str) -> None:
    assert POLICY.contract is not None
    with pytest.raises(ContractError, match=words):
        Contract.from_dict({**POLICY.contract.to_dict(), **change})


@settings(max_examples=50, deadline=None)
@given(
    names=st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True),
    steps=st.integers(1, 99),
    period=st.floats(1e-6, 10, allow_nan=False),
    provenance=st.dictionaries(st.text(), st.text(), max_size=3),
)
def test_contracts_survive_their_json(names, steps, period, provenance) -> None:
    import json

    count = len(names)
    observed = Channels(tuple(names), ("m",) * count)
    acted = Channels(tuple(names), ("N",) * count, (-1.0,) * count, (1.0,) * count)
    contract = Contract("E", observed, acted, steps, "carried", period, (0.5,) * count, 2, 7, provenance)
    again = Contract.from_dict(json.loads(contract.to_json()))
    assert again == contract
    assert again.to_json() == contract.to_json()
    missing = contract.to_dict()
    del missing["steps"]
    with pytest.raises(ContractError, match="'steps' is missing"):
        Contract.from_dict(missing)
