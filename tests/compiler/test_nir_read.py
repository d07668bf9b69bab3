"""Reading NIR files of other makers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from nervecord.compiler import ops as n
from nervecord.compiler.graph.edges import reading_order
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.verify import require, verify
from nervecord.compiler.nir.file import read_nir
from nervecord.compiler.nir.hdf5child import load
from nervecord.compiler.nir.reading import import_graph
from nervecord.compiler.ops import Level
from nervecord.errors import FileFormatError, GraphError, NervecordError

DATA = Path(__file__).parent.parent / "data" / "nir"


def shape(*sizes: int) -> dict[str, np.ndarray]:
    return {"input": np.array(sizes)}


def output(*sizes: int) -> nir.Output:
    return nir.Output({"output": np.array(sizes)})


def read(graph: nir.NIRGraph, path: Path, without: str | None = None) -> Graph:
    """As `read_nir`, without the other process: the files are our own. `without`: a field that the file leaves out."""
    nir.write(path, graph, compression=None)
    if without:
        with h5py.File(path, "a") as file:
            del file[f"node/nodes/x/{without}"]
    return require(import_graph(load(str(path), 1 << 20)["node"], where=path.name, dt=None))


def middle(node: Any, before: tuple[int, ...], after: tuple[int, ...], path: Path, without: str | None = None) -> Any:
    """What one NIR node between an Input and an Output is read as."""
    nodes = {"input": nir.Input(shape(*before)), "x": node, "output": output(*after)}
    graph = nir.NIRGraph(nodes, [("input", "x"), ("x", "output")], type_check=False)
    return read(graph, path, without).nodes["x"]


def random(*sizes: int) -> np.ndarray:
    return np.random.default_rng(sum(sizes)).uniform(0.1, 1.0, sizes)


V = {"v_threshold": random(3), "v_reset": -random(3)}
SPIKE = n.Spike(V["v_threshold"], V["v_reset"])
A, B, C, D, E = (random(3) + k for k in range(5))
ONE = ("x",)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (nir.Affine(random(3, 3), A), n.Affine(random(3, 3), A, origin=ONE)),
        (nir.Linear(random(3, 3)), n.Affine(random(3, 3), origin=ONE)),
        (nir.Scale(A), n.Scale(A, origin=ONE)),
        (nir.Threshold(A), n.Threshold(A, origin=ONE)),
        (nir.Delay(A), n.Delay(A, origin=ONE)),
        (nir.I(A), n.Neuron(n.ContinuousMembrane(A), origin=ONE)),
        (nir.IF(A, **V), n.Neuron(n.ContinuousMembrane(A), spike=SPIKE, origin=ONE)),
        (nir.LI(tau=A, r=B, v_leak=C), n.Neuron(n.ContinuousMembrane(B, A, C), origin=ONE)),
        (nir.LIF(tau=A, r=B, v_leak=C, **V), n.Neuron(n.ContinuousMembrane(B, A, C), spike=SPIKE, origin=ONE)),
        (
            nir.CubaLI(tau_syn=A, tau_mem=B, r=C, v_leak=D, w_in=E),
            n.Neuron(n.ContinuousMembrane(C, B, D), n.ContinuousSynapse(A, E), origin=ONE),
        ),
        (
            nir.CubaLIF(tau_syn=A, tau_mem=B, r=C, v_leak=D, w_in=E, **V),
            n.Neuron(n.ContinuousMembrane(C, B, D), n.ContinuousSynapse(A, E), SPIKE, origin=ONE),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_elementwise_and_weighted_types(node: Any, expected: Any, tmp_path: Path) -> None:
    read_ = middle(node, (3,), (3,), tmp_path / "a.nir")
    assert read_ == expected
    assert read_.kind == {"Linear": "Affine"}.get(type(node).__name__, type(node).__name__)


def test_flatten_counts_axes_without_the_batch(tmp_path: Path) -> None:
    node = middle(nir.Flatten(shape(2, 3, 4), 0, -1), (2, 3, 4), (24,), tmp_path / "a.nir")
    assert node == n.Flatten((2, 3, 4), 0, -1, origin=ONE)
    # NIR lets the shape out; what feeds the node has it.
    node = middle(nir.Flatten(shape(2, 3, 4), 1, 2), (2, 3, 4), (2, 12), tmp_path / "b.nir", "input_type")
    assert node.input_shape == (2, 3, 4)


@pytest.mark.parametrize("without", [None, "input_shape"])
def test_conv2d(without: str | None, tmp_path: Path) -> None:
    weight = random(4, 1, 3, 2)
    conv = nir.Conv2d((6, 5), weight, (2, 1), (1, 0), 1, 2, np.arange(4.0))
    node = middle(conv, (2, 6, 5), (4, 3, 4), tmp_path / "a.nir", without)
    assert node == n.Conv(weight, np.arange(4.0), (2, 1), (1, 0), (1, 1), 2, (6, 5), origin=ONE)


@pytest.mark.parametrize("without", [None, "input_shape"])
def test_conv1d(without: str | None, tmp_path: Path) -> None:
    weight = random(4, 1, 3)
    node = middle(nir.Conv1d(6, weight, 2, 1, 1, 2, np.arange(4.0)), (2, 6), (4, 3), tmp_path / "a.nir", without)
    assert node == n.Conv(weight, np.arange(4.0), (2,), (1,), (1,), 2, (6,), origin=ONE)
    assert node.kind == "Conv1d"
    same = middle(nir.Conv1d(6, weight, 1, "same", 1, 2, np.zeros(4)), (2, 6), (4, 6), tmp_path / "b.nir")
    assert same.padding == (1,)
    with pytest.raises(FileFormatError, match=r"stride .*2 values"):
        middle(nir.Conv1d(6, weight, np.array([1, 2]), 0, 1, 2, np.zeros(4)), (2, 6), (4, 3), tmp_path / "c.nir")


def test_conv2d_padding_by_name(tmp_path: Path) -> None:
    weight, bias = random(1, 1, 3, 5), np.zeros(1)
    same = middle(nir.Conv2d((6, 6), weight, 1, "same", 1, 1, bias), (1, 6, 6), (1, 6, 6), tmp_path / "a.nir")
    assert same.padding == (1, 2)
    valid = middle(nir.Conv2d((6, 6), weight, 1, "valid", 1, 1, bias), (1, 6, 6), (1, 4, 2), tmp_path / "b.nir")
    assert valid.padding == (0, 0)
    with pytest.raises(FileFormatError, match="not symmetric"):
        middle(nir.Conv2d((6, 6), random(1, 1, 2, 2), 1, "same", 1, 1, bias), (1, 6, 6), (1, 6, 6), tmp_path / "c.nir")


@pytest.mark.parametrize(("kind", "mode"), [(nir.SumPool2d, "sum"), (nir.AvgPool2d, "average")])
def test_pools_take_their_shape_from_what_feeds_them(kind: Any, mode: Any, tmp_path: Path) -> None:
    node = middle(kind(np.array([2, 2]), np.array(2), np.array([0, 0])), (3, 6, 4), (3, 3, 2), tmp_path / "a.nir")
    assert node == n.Pool(mode, (2, 2), (2, 2), (0, 0), (3, 6, 4), origin=ONE)


def test_scalars_and_integers(tmp_path: Path) -> None:
    """A 0-d parameter has the shape of the others, else of what feeds the node; whole numbers are floats."""
    mixed = nir.LI(tau=np.full(3, 0.01), r=np.full(3, 2), v_leak=np.zeros(3))
    mixed.r = np.array(2)
    node = middle(mixed, (3,), (3,), tmp_path / "a.nir")
    assert node.membrane.tau.tolist() == [0.01] * 3
    assert node.membrane.r.dtype == np.float64
    assert node.membrane.r.tolist() == [2.0] * 3
    # All of them scalars, as snnTorch leaves a scalar beta.
    scalar = np.array(2.0)
    assert middle(nir.LI(scalar, scalar, scalar), (3,), (3,), tmp_path / "b.nir").membrane.tau.tolist() == [2.0] * 3


def lif(size: int) -> nir.LIF:
    ones = np.ones(size)
    return nir.LIF(tau=ones / 50, r=ones, v_leak=0 * ones, v_threshold=ones)


def test_subgraphs_become_dotted_names(tmp_path: Path) -> None:
    inner = nir.NIRGraph(
        {"in": nir.Input(shape(2)), "lif": lif(2), "rec": nir.Linear(np.eye(2)), "out": output(2)},
        [("in", "lif"), ("lif", "rec"), ("rec", "lif"), ("lif", "out")],
    )
    outer = nir.NIRGraph(
        {
            "a": nir.Input(shape(2)),
            "deep": nir.NIRGraph(
                {"i": nir.Input(shape(2)), "sub": inner, "o": output(2)}, [("i", "sub"), ("sub", "o")]
            ),
            "fc": nir.Linear(np.ones((1, 2))),
            "z": output(1),
        },
        [("a", "deep"), ("deep", "fc"), ("fc", "z")],
        type_check=False,
    )
    graph = read(outer, tmp_path / "a.nir")
    assert list(graph.nodes) == ["a", "deep.sub.lif", "deep.sub.rec", "fc", "z"]
    assert sorted(graph.edges) == [
        ("a", "deep.sub.lif"),
        ("deep.sub.lif", "deep.sub.rec"),
        ("deep.sub.lif", "fc"),
        ("deep.sub.rec", "deep.sub.lif"),
        ("fc", "z"),
    ]
    assert graph.nodes["deep.sub.lif"].origin == ("deep.sub.lif",)


def test_order_is_topological_and_ties_go_by_name() -> None:
    edges = [("in", "b"), ("in", "a"), ("a", "z"), ("b", "z"), ("z", "rec"), ("rec", "a"), ("z", "out")]
    expected = ["in", "b", "a", "z", "out", "rec"]
    assert reading_order(["out", "z", "rec", "b", "a", "in"], edges) == expected
    assert reading_order(["a", "b", "in", "out", "rec", "z"], edges[::-1]) == expected
    # Nothing feeds a cycle from outside: by name.
    assert reading_order(["y", "x"], [("x", "y"), ("y", "x")]) == ["x", "y"]


def test_a_cycle_needs_state(tmp_path: Path) -> None:
    def loop(back: Any) -> nir.NIRGraph:
        nodes = {"in": nir.Input(shape(2)), "a": nir.Linear(np.eye(2)), "b": back, "out": output(2)}
        return nir.NIRGraph(nodes, [("in", "a"), ("a", "b"), ("b", "a"), ("b", "out")])

    for back in (lif(2), nir.Delay(np.full(2, 0.001)), nir.I(np.ones(2))):
        assert read(loop(back), tmp_path / "a.nir").level is Level.IMPORTED
    with pytest.raises(GraphError, match="delay: a, b"):
        read(loop(nir.Scale(np.ones(2))), tmp_path / "b.nir")


# --------------------------------------------------------------------------------------------------------------------
# Published files, through the whole of `read_nir`


def test_norse_file_of_nir_0_1() -> None:
    graph = read_nir(DATA / "lif_norse.nir")
    assert isinstance(graph, Graph)
    assert graph.level is Level.IMPORTED
    assert graph.dt is None
    assert list(graph.nodes) == ["input", "0", "1", "output"]
    tau = float(np.float32(0.0025))
    # No v_reset in files of that time.
    membrane = n.ContinuousMembrane(r=[1], tau=[tau], leak=[0])  # type: ignore[arg-type]
    spike = n.Spike([float(np.float32(0.1))], [0])  # type: ignore[arg-type]
    assert graph.nodes["1"] == n.Neuron(membrane, spike=spike, origin=("1",))
    again = read_nir(DATA / "lif_norse.nir", dt=1e-4)
    assert isinstance(again, Graph)
    assert again.dt == 1e-4


def test_braille_file_of_nir_0_2_is_quick_to_read() -> None:
    start = time.monotonic()
    graph = read_nir(DATA / "braille_noDelay_bias_zero.nir")
    # A quarter of a second alone; the bound allows for a busy machine.
    assert time.monotonic() - start < 5
    assert isinstance(graph, Graph)
    assert verify(graph) == []
    assert list(graph.nodes) == ["input", "fc1", "lif1.lif", "fc2", "lif1.w_rec", "lif2", "output"]
    assert ("lif1.w_rec", "lif1.lif") in graph.edges
    assert graph.nodes["lif1.w_rec"].out_shape == (38,)


def test_dt_and_convention_are_checked_before_the_file() -> None:
    with pytest.raises(NervecordError, match=r"\bdt .*-1\.0 s"):
        read_nir("none.nir", dt=-1.0)
    with pytest.raises(NervecordError, match=r"\bdt .*nan s"):
        read_nir("none.nir", dt=float("nan"))
    with pytest.raises(NervecordError, match=r"'eulr'.*'euler'"):
        read_nir("none.nir", convention="eulr")


def test_reading_does_not_load_nir_or_hdf5() -> None:
    import subprocess
    import sys

    code = "import sys, nervecord.compiler.nir.file; print(sorted({'nir', 'h5py'} & set(sys.modules)))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"
