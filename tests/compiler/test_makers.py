"""Files of other tools against the spikes of their own forward; `tests/data/makers/generate.py` recorded both.

What a file does not say, its time step and its reset rule, is given as docs/nir.md lists it. Zero spikes differ, but
where the tool's export loses what it did: those are here with the number that no reader can mend.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.verify import require, verify
from nervecord.compiler.nir.hdf5child import load
from nervecord.compiler.nir.reading import import_graph
from nervecord.compiler.ops import Affine, Output
from nervecord.compiler.passes.discretise import discretise
from nervecord.compiler.passes.resets import UNSAID, with_reset
from nervecord.compiler.plan.interpret import simulate
from nervecord.errors import GraphError

DATA = Path(__file__).parent.parent / "data" / "makers"
FAITHFUL = {
    # case: time step, reset rule
    "norse-iaf": (1.0, "zero"),
    "norse-lifbox": (1e-6, "zero"),
    "sinabs-conv": (1.0, "subtract"),
    "sinabs-iaf-subtract": (1.0, "subtract"),
    "sinabs-iaf-zero": (1.0, "zero"),
    "snntorch-conv2d-zero": (1e-4, "zero"),
    "snntorch-leaky-subtract": (1e-4, "subtract-late"),
    "snntorch-leaky-subtract-now": (1e-4, "subtract-early"),
    "snntorch-leaky-zero": (1e-4, "zero"),
    "snntorch-rleaky-subtract": (1e-4, "subtract-late"),
    "snntorch-rleaky-subtract-now": (1e-4, "subtract-early"),
    "snntorch-rleaky-zero": (1e-4, "zero-late"),
    "snntorch-rleaky-zero-now": (1e-4, "zero"),
    "snntorch-rsynaptic-subtract": (1e-4, "subtract-late"),
    "snntorch-synaptic-subtract": (1e-4, "subtract-late"),
    "snntorch-synaptic-subtract-now": (1e-4, "subtract-early"),
    "snntorch-synaptic-zero-now": (1e-4, "zero"),
    "spikingjelly-if-hard": (1e-3, "zero"),
    "spikingjelly-lif-hard": (1e-3, "zero"),
}
LOST = {
    # case: time step, nearest reset rule, spikes that differ; why stands in docs/nir.md
    "norse-lifcell": (1e-6, "zero", 155),
    "rockpool-lif-bias": (1e-3, "subtract", 323),
    "rockpool-lif-default": (1e-3, "subtract", 316),
    "rockpool-lif-one-spike": (1e-3, "subtract", 254),
    "rockpool-lif-recurrent": (1e-3, "subtract", 517),
    "sinabs-iaf-default": (1.0, "subtract", 8),
    "snntorch-rsynaptic-zero": (1e-4, "zero", 316),
    "snntorch-synaptic-zero": (1e-4, "zero", 114),
}


def imported(name: str) -> Graph:
    return require(import_graph(load(str(DATA / f"{name}.nir"), 1 << 24)["node"], where=name, dt=None))


def different(name: str, dt: float, rule: str) -> tuple[int, int]:
    """(spikes that differ from the maker's, the maker's spikes)."""
    recorded = np.load(DATA / f"{name}.npz")
    graph = discretise(with_reset(imported(name), rule), dt=dt)
    assert isinstance(graph, Graph)
    x = recorded["x"].astype(np.float64)
    (actual,) = simulate(graph, x.reshape(len(x), 1, *graph.nodes[graph.inputs[0]].in_shape)).left.values()
    expected = recorded["spikes"].reshape(len(x), -1)
    return int(np.count_nonzero(actual.reshape(len(x), -1) != expected)), int(expected.sum())


def test_every_recorded_case_is_looked_at() -> None:
    assert {path.stem for path in DATA.glob("*.nir")} == {*FAITHFUL, *LOST}


@pytest.mark.parametrize("name", FAITHFUL)
def test_spike_for_spike(name: str) -> None:
    dt, rule = FAITHFUL[name]
    apart, spikes = different(name, dt, rule)
    assert spikes > 50
    assert apart == 0


@pytest.mark.parametrize("name", LOST)
def test_what_an_export_lost_stays_lost(name: str) -> None:
    dt, rule, apart = LOST[name]
    assert different(name, dt, rule)[0] == apart


def test_snntorchs_files_alone_are_taken_for_its() -> None:
    for name in (*FAITHFUL, *LOST):
        codes = [note.code for note in imported(name).notes]
        assert codes == ([UNSAID] if name.startswith("snntorch-") else []), name


def test_a_late_reset_of_a_current_is_refused() -> None:
    with pytest.raises(GraphError, match="a late reset to zero clears the synaptic current too"):
        with_reset(imported("snntorch-synaptic-zero"), "zero-late")


def test_what_rockpool_computed_is_not_in_its_files() -> None:
    """Its own equations, with what its export leaves out, give its spikes: so what is lost is lost there."""
    for name, most, bias, back in (
        ("one-spike", 1, 0.0, 0.0),
        ("default", None, 0.0, 0.0),
        ("bias", None, 0.05, 0.0),
        ("recurrent", 1, 0.0, 0.1),
    ):
        recorded = np.load(DATA / f"rockpool-lif-{name}.npz")
        graph = imported(f"rockpool-lif-{name}")
        (weight,) = [op.weight for op in graph.nodes.values() if isinstance(op, Affine)]
        current, v, spikes, raster = np.zeros(6), np.zeros(6), np.zeros(6), []
        for row in recorded["x"].astype(np.float64):
            current = np.exp(-1e-3 / 0.005) * (current + weight @ row + back * spikes.sum())
            v = np.exp(-1e-3 / 0.02) * v + current + bias
            spikes = np.clip(np.floor(v), 0, most)
            v = v - spikes
            raster.append(spikes)
        np.testing.assert_array_equal(np.stack(raster), recorded["spikes"].reshape(150, 6), err_msg=name)


def test_axes_of_batch_and_time_are_named() -> None:
    graph = imported("rockpool-lif-default")
    nodes = {**graph.nodes, "output": Output((1, 1, 6))}
    (finding,) = verify(graph.replace(nodes=nodes))
    assert finding.message == "takes shape (1, 1, 6), and 1_LIFTorch gives (6,)"
    assert finding.fix.endswith("give its Input and Output the shapes (6,) before it is written")
