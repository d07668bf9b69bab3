"""Reading takes time and memory in proportion to the file, however many nodes, inputs, outputs or subgraphs it has."""

from __future__ import annotations

import functools
import itertools
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nervecord.compiler.files.program import Program, load
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.nir.reading import import_graph
from nervecord.compiler.ops import Affine, Input, Level, Membrane, Neuron, Op, Output, Spike
from nervecord.compiler.plan.plan import plan

ONE = np.ones(1)
FEW, TIMES = 250, 8
MOST_COST = 2.5
"""How many times as much per node the larger file may take: a quadratic part would show as up to 8."""


def neuron() -> Op:
    return Neuron(Membrane(0.5 * ONE, ONE, 0 * ONE), None, Spike(ONE, 0 * ONE))


def ends(count: int) -> Graph:
    """So many inputs and outputs, each pair by itself."""
    nodes: dict[str, Op] = {}
    edges: list[tuple[str, str]] = []
    for k in range(count // 4):
        names = [f"in{k}", f"fc{k}", f"lif{k}", f"out{k}"]
        nodes |= zip(names, (Input((1,)), Affine(np.ones((1, 1))), neuron(), Output((1,))), strict=True)
        edges += itertools.pairwise(names)
    return Graph(Level.DISCRETE, nodes, tuple(edges), 1e-3)


def long(count: int) -> Graph:
    """One after the other."""
    nodes: dict[str, Op] = {"in": Input((1,))}
    for k in range(count // 2):
        nodes |= {f"fc{k}": Affine(np.ones((1, 1))), f"lif{k}": neuron()}
    nodes["out"] = Output((1,))
    return Graph(Level.DISCRETE, nodes, tuple(itertools.pairwise(nodes)), 1e-3)


def fan(count: int) -> Graph:
    """All behind one input, and before one output."""
    nodes: dict[str, Op] = {"in": Input((1,)), "out": Output((1,))}
    edges: list[tuple[str, str]] = []
    for k in range(count // 2):
        nodes |= {f"fc{k}": Affine(np.ones((1, 1))), f"lif{k}": neuron()}
        edges += [("in", f"fc{k}"), (f"fc{k}", f"lif{k}"), (f"lif{k}", "out")]
    return Graph(Level.DISCRETE, nodes, tuple(edges), 1e-3)


def cost(work: Callable[[], Any]) -> float:
    """Seconds of processor time, the least of three."""
    seconds = []
    for _ in range(3):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return min(seconds)


@pytest.mark.long
@pytest.mark.parametrize("make", [fan, *(pytest.param(make, marks=pytest.mark.slow) for make in (ends, long))])
def test_programs(make: Callable[[int], Graph], tmp_path: Path) -> None:
    seconds, peaks = [], []
    for count in (FEW, FEW * TIMES):
        path = tmp_path / f"{count}.nervecord"
        Program("reference", make(count)).save(path)

        def work(path: Path = path) -> None:
            program = load(path)
            plan(program.graph, program.schedule)

        seconds.append(cost(work))
        tracemalloc.start()
        work()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert seconds[1] < MOST_COST * TIMES * seconds[0]
    assert peaks[1] < MOST_COST * TIMES * peaks[0]


def nested(count: int) -> dict[str, Any]:
    """The tree of a NIR file of so many subgraphs, one after the other."""
    inner = {
        "type": "NIRGraph",
        "edges": [["in", "fc"], ["fc", "out"]],
        "nodes": {
            "in": {"type": "Input", "shape": np.array([1])},
            "fc": {"type": "Linear", "weight": np.ones((1, 1))},
            "out": {"type": "Output", "shape": np.array([1])},
        },
    }
    names = ["in", *(f"g{k:05}" for k in range(count)), "out"]
    nodes = dict.fromkeys(names, inner) | {name: inner["nodes"][name] for name in ("in", "out")}
    return {"type": "NIRGraph", "nodes": nodes, "edges": [list(pair) for pair in itertools.pairwise(names)]}


def test_subgraphs_of_nir() -> None:
    trees = [nested(count) for count in (200, 1600)]
    few, many = (cost(functools.partial(import_graph, tree, where="x", dt=None)) for tree in trees)
    assert many < MOST_COST * 8 * few
