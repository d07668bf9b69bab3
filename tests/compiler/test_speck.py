"""Verdicts on Speck against sinabs' own mapping: `tests/data/speck/generate.py` asked it about random networks."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import examples

from nervecord.compiler.check.convolving import layer_memory
from nervecord.compiler.check.rules import Case
from nervecord.compiler.check.table import case_findings, verdict
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.ops import (
    Affine,
    ContinuousMembrane,
    Conv,
    Flatten,
    Input,
    Level,
    Neuron,
    Op,
    Output,
    Pool,
    Spike,
)
from nervecord.targets.catalogue import load_spec

SPECK = load_spec("speck")
RECORDED: dict[str, Any] = json.loads((Path(__file__).parent.parent / "data" / "speck" / "nets.json").read_text())


def fire(*shape: int) -> Neuron:
    ones = np.ones(shape)
    return Neuron(ContinuousMembrane(ones), None, Spike(ones, 0 * ones, "subtract"))


def built(shape: list[int], layers: list[list[Any]]) -> Graph:
    """The network that sinabs was asked about."""
    nodes: list[tuple[str, Op]] = [("input", Input(tuple(shape), "spikes"))]
    for k, layer in enumerate(layers):
        at = nodes[-1][1].out_shape
        match layer:
            case ["conv", out, kernel, stride, padding, bias]:
                op = Conv(
                    np.full((out, at[0], *kernel), 0.1),
                    np.full(out, 0.1) if bias else None,
                    tuple(stride),
                    tuple(padding),
                    (1, 1),
                    1,
                    at[1:],
                )
                nodes += [(f"conv{k}", op), (f"if{k}", fire(*op.out_shape))]
            case ["pool", mode, kernel, stride]:
                nodes.append((f"pool{k}", Pool(mode, tuple(kernel), tuple(stride), (0, 0), at)))
            case ["linear", out, bias]:
                if len(at) > 1:
                    nodes.append((f"flat{k}", Flatten(at, 0, -1)))
                size = nodes[-1][1].size
                nodes.append((f"fc{k}", Affine(np.full((out, size), 0.1), np.full(out, 0.1) if bias else None)))
                nodes.append((f"if{k}", fire(out)))
    nodes.append(("output", Output(nodes[-1][1].out_shape)))
    return chain(Level.IMPORTED, nodes)


@pytest.mark.long
@pytest.mark.hypothesis
def test_verdicts_agree_with_sinabs() -> None:
    counts: Counter[tuple[str, bool]] = Counter()
    nets = RECORDED["nets"]
    assert len(nets) == 1000
    for shape, layers, why in nets[: examples(1000)]:
        answer = verdict(case_findings(Case.of(built(shape, layers), SPECK)))
        counts[answer, not why] += 1
        assert answer == ("infeasible" if why else "feasible"), (shape, layers, why)
    # Neither answer is the answer to everything.
    assert min(counts.values()) > sum(counts.values()) // 5


@pytest.mark.parametrize(
    ("layers", "weights", "neurons"),
    [
        # 3 channels of 3 x 3 to 5 features: 3 * 2^(4 + 3), and 5 maps of 14 x 30, each counted as 16 x 32.
        ([["conv", 5, [3, 3], [1, 1], [0, 0], False]], 3 * 128, 5 * 512),
        ([["conv", 8, [1, 1], [1, 1], [0, 0], False]], 3 * 8, 8 * 512),
        # A matrix behind a map of 3 x 16 x 32: 3 * 2^(9 + 4).
        ([["linear", 10, False]], 3 * 512 * 16, 10),
    ],
)
def test_memory_is_counted_in_powers_of_two(layers: list[list[Any]], weights: int, neurons: int) -> None:
    case = Case.of(built([3, 16, 32], layers), SPECK)
    assert layer_memory(case, case.topology.wires[0]) == (weights, neurons)


def codes(*nodes: Op, shape: tuple[int, ...] = (2, 8, 8)) -> list[tuple[str, str]]:
    items = [("input", Input(shape, "spikes")), *((f"n{k}", op) for k, op in enumerate(nodes))]
    graph = chain(Level.IMPORTED, [*items, ("output", Output(items[-1][1].out_shape))], dt=1e-3)
    return [(f.code, f.severity) for f in case_findings(Case.of(graph, SPECK)) if f.severity != "info"]


def conv(**changes: Any) -> Conv:
    fields: dict[str, Any] = {"weight": np.ones((2, 2, 3, 3)), "input_size": (8, 8)}
    return Conv(**{**fields, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"stride": (3, 1)},
        {"stride": (1, 3)},
        {"weight": np.ones((2, 2, 3, 2))},
        {"dilation": (1, 2)},
        {"weight": np.ones((2, 1, 3, 3)), "groups": 2},
    ],
)
def test_each_axis_and_setting_is_looked_at(changes: dict[str, Any]) -> None:
    fine = conv()
    assert codes(fine, fire(*fine.out_shape)) == []
    op = conv(**changes)
    assert codes(op, fire(*op.out_shape)) == [("convolution", "error")]


@pytest.mark.parametrize(
    ("kernels", "strides", "fits"),
    [
        ([(2, 2)], [(2, 2)], True),
        ([(2, 2), (2, 2)], [(2, 2), (2, 2)], True),
        ([(2, 1)], [(2, 1)], False),
        ([(2, 2)], [(2, 1)], False),
        ([(3, 3)], [(3, 3)], False),
        ([(2, 2), (4, 4)], [(2, 2), (4, 4)], False),
    ],
)
def test_poolings_in_a_row_count_as_one(kernels: Any, strides: Any, fits: bool) -> None:
    nodes: list[Op] = [conv(padding=(1, 1)), fire(2, 8, 8)]
    for kernel, stride in zip(kernels, strides, strict=True):
        nodes.append(Pool("sum", kernel, stride, (0, 0), nodes[-1].out_shape))
    last = conv(weight=np.ones((1, 2, 1, 1)), input_size=nodes[-1].out_shape[1:])
    problems = codes(*nodes, last, fire(*last.out_shape))
    assert (problems == []) == fits
    assert {code for code, _ in problems} <= {"convolution"}
