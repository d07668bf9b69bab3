"""Verdicts on Xylo against Rockpool's own mapper: `tests/data/xylo/generate.py` asked it about random networks."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from nervecord.compiler.check.rules import Case
from nervecord.compiler.check.table import case_findings, verdict
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.ops import Affine, Input, Level, Membrane, Neuron, Op, Output, Spike, Synapse
from nervecord.targets.catalogue import load_spec

XYLO = load_spec("xylo")
RECORDED: dict[str, Any] = json.loads((Path(__file__).parent.parent / "data" / "xylo" / "nets.json").read_text())


def built(net: list[list[Any]]) -> Graph:
    """The network that Rockpool was asked about: neurons with decays of powers of two, as its bit shifts have them."""
    width = net[0][0]
    nodes: dict[str, Op] = {"input": Input((width,), "spikes")}
    edges, last = [], "input"
    for k, (size, recurrent, count) in enumerate(net[1:]):
        for j in range(count):
            name = f"fc{k}.{j}"
            nodes[name] = Affine(np.full((size, width), 0.1))
            edges.append((last, name))
            width, last = size, name
        ones = np.ones(size)
        nodes[f"lif{k}"] = Neuron(
            Membrane(ones * 0.9375, ones, 0 * ones), Synapse(ones * 0.875, ones), Spike(ones, 0 * ones, "subtract")
        )
        edges.append((last, f"lif{k}"))
        last = f"lif{k}"
        if recurrent:
            nodes[f"back{k}"] = Affine(np.full((size, size), 0.1), None, 1)
            edges += [(last, f"back{k}"), (f"back{k}", last)]
    nodes["output"] = Output((width,))
    return Graph(Level.DISCRETE, nodes, (*edges, (last, "output")), 1e-3)


def test_verdicts_agree_with_rockpools_mapper() -> None:
    """Infeasible is what its mapper refuses; a fan-out above 64, which it does not look at, is unknown here."""
    counts: Counter[tuple[str, bool]] = Counter()
    for net, why in RECORDED["nets"]:
        findings = case_findings(Case.of(built(net), XYLO))
        answer = verdict(findings)
        counts[answer, not why] += 1
        assert (answer == "infeasible") == bool(why), (net, why, [f.code for f in findings if f.severity == "error"])
        if answer == "unknown":
            assert {f.code for f in findings if f.severity == "unknown"} == {"fan-out"}
    assert sum(counts.values()) == 300
    assert counts["infeasible", False] > 100
    assert counts["feasible", True] > 5
    assert counts["unknown", True] > 20
