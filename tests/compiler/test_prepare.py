"""All that is done before lowering (`compiler.lower.prepare`), compiled and run. Each pass has a file of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pass_graphs import convolutional, raster

import nervecord
from nervecord.compiler.check.table import findings_of, verdict
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.lower.prepare import prepared
from nervecord.compiler.plan.interpret import simulate
from nervecord.targets.catalogue import load_spec

LAVA = load_spec("lava")


def compiled(graph: Graph, steps: int = 200) -> tuple[Any, np.ndarray]:
    x = raster(9, steps, *graph.nodes["input"].in_shape)
    program = nervecord.compile(graph, "lava", calibration=x[:, 0])
    return program, x.reshape(steps, -1)


@pytest.mark.parametrize("seed", range(3))
def test_a_convolutional_network_compiles_and_runs(seed: int) -> None:
    """The emulator's integers are the definition's to the bit; what rounding changed of the spikes is reported."""
    graph = convolutional(seed)
    assert verdict(findings_of(graph, LAVA)) == "feasible"
    assert [name for name, _ in prepared(graph, LAVA)] == ["composed", "thresholds", "split"]
    program, x = compiled(graph)
    expected = nervecord.simulate(program, x).left["output"][:, 0]
    with nervecord.stream(program) as session:
        actual = np.asarray(session.run(x)["output"])[:, 0]
    assert np.array_equal(actual, expected)
    floats = simulate(graph, x.reshape(200, 1, 1, 6, 6)).left["output"][:, 0]
    latency = program.report["lowering"]["latency"]
    apart = int(np.count_nonzero(actual[latency:] != floats[:-latency]))
    assert apart == program.report["lowering"]["spikes_different"]
    assert floats.sum() > 50
    # Three spiking layers carry every early difference on; how much is fired stays.
    assert abs(actual.sum() - floats.sum()) < 0.2 * floats.sum()


def test_steps_are_dumped_by_name(tmp_path: Any) -> None:
    graph = convolutional(0)
    nervecord.compile(graph, "lava", dump=tmp_path)
    names = [path.name for path in sorted(tmp_path.iterdir())]
    assert names == [
        "00-read.txt",
        "01-discrete.txt",
        "02-composed.txt",
        "03-thresholds.txt",
        "04-split.txt",
        "05-lowered.txt",
    ]


@pytest.mark.lava
def test_stock_lava_runs_a_convolutional_network() -> None:
    program, x = compiled(convolutional(0), steps=60)
    expected = nervecord.simulate(program, x).left["output"][:, 0]
    assert expected.sum() > 0
    with nervecord.stream(program, engine="lava") as session:
        assert np.array_equal(np.asarray(session.run(x)["output"])[:, 0], expected)
