"""Every primitive of NIR 1.0.8, from a file through reading and discretising to spikes and values, against torch.

Each is also computed without any of our code: torch for what convolves, pools and multiplies, the closed form or a loop
in plain Python for neurons and delays. One tolerance, of float64 sums in another order: 1e-12.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from scripts import script

import nervecord
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.verify import require
from nervecord.compiler.nir.file import read_nir, write_nir
from nervecord.compiler.nir.hdf5child import load
from nervecord.compiler.nir.reading import import_graph
from nervecord.compiler.ops import NIR_READERS
from nervecord.compiler.passes.discretise import discretise
from nervecord.compiler.plan.interpret import simulate
from nervecord.errors import InfeasibleError
from nervecord.targets.catalogue import load_spec

torch = pytest.importorskip("torch")
DT = 1e-3
EXACT = 1e-12
PRIMITIVES = {
    "Input",
    "Output",
    "Affine",
    "Linear",
    "Scale",
    "Conv1d",
    "Conv2d",
    "AvgPool2d",
    "SumPool2d",
    "Flatten",
    "Delay",
    "Threshold",
    "I",
    "IF",
    "LI",
    "LIF",
    "CubaLI",
    "CubaLIF",
}


def test_the_primitives_of_nir_are_these() -> None:
    """A release with another one must be looked at; NIRGraph is the graph itself."""
    assert {name for name in nir.ir.__all__ if isinstance(getattr(nir, name), type)} - {"NIRNode"} == PRIMITIVES | {
        "NIRGraph"
    }
    assert set(NIR_READERS) == PRIMITIVES


def sized(*sizes: int) -> np.ndarray:
    return np.array(sizes)


def discrete_graph(nodes: dict[str, Any], edges: list[tuple[str, str]], path: Path, convention: str = "euler") -> Graph:
    """The discrete graph of a file with these nodes, as the maker of the file would write them."""
    nir.write(path, nir.NIRGraph(nodes, edges, type_check=False), compression=None)
    graph = require(import_graph(load(str(path), 1 << 24)["node"], where=path.name, dt=None))
    discrete = discretise(graph, dt=DT, convention=convention)
    assert isinstance(discrete, Graph)
    # What was written comes back from a file of our own, to the bit.
    write_nir(discrete, path)
    assert read_nir(path) == discrete
    return discrete


def chained(path: Path, shape: tuple[int, ...], *middle: Any, out: tuple[int, ...], convention: str = "euler") -> Graph:
    names = ["in", *(f"n{k}" for k in range(len(middle))), "out"]
    ends = nir.Input({"input": sized(*shape)}), nir.Output({"output": sized(*out)})
    nodes = dict(zip(names, [ends[0], *middle, ends[1]], strict=True))
    return discrete_graph(nodes, list(itertools.pairwise(names)), path, convention)


def ran(graph: Graph, x: np.ndarray) -> np.ndarray:
    """(steps, ...) in and out, a batch of one."""
    outputs: np.ndarray = simulate(graph, x[:, None]).left["out"][:, 0]
    return outputs


def close(a: np.ndarray, b: Any) -> None:
    b = np.asarray(b)
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= EXACT * max(1.0, float(np.abs(b).max()))


RNG = np.random.default_rng(7)


# --------------------------------------------------------------------------------------------------------------------
# Without state: torch


def test_affine_and_linear(tmp_path: Path) -> None:
    weight, bias, x = RNG.normal(size=(4, 3)), RNG.normal(size=4), RNG.normal(size=(6, 3))
    tx = torch.from_numpy(x)
    expected = torch.nn.functional.linear(tx, torch.from_numpy(weight), torch.from_numpy(bias))
    close(ran(chained(tmp_path / "a.nir", (3,), nir.Affine(weight, bias), out=(4,)), x), expected)
    close(
        ran(chained(tmp_path / "b.nir", (3,), nir.Linear(weight), out=(4,)), x),
        torch.nn.functional.linear(tx, torch.from_numpy(weight)),
    )


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [(1, 0, 1, 1), (2, 1, 1, 2), (3, 2, 2, 1), (1, "same", 1, 1), (1, "valid", 2, 4)],
)
def test_conv1d(stride: int, padding: Any, dilation: int, groups: int, tmp_path: Path) -> None:
    weight, bias, x = RNG.normal(size=(8, 4 // groups, 3)), RNG.normal(size=8), RNG.normal(size=(5, 4, 11))
    expected = torch.nn.functional.conv1d(
        torch.from_numpy(x), torch.from_numpy(weight), torch.from_numpy(bias), stride, padding, dilation, groups
    )
    node = nir.Conv1d(11, weight, stride, padding, dilation, groups, bias)
    close(ran(chained(tmp_path / "a.nir", (4, 11), node, out=tuple(expected.shape[1:])), x), expected)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [(1, 0, 1, 1), ((2, 1), (1, 0), 1, 2), (2, (2, 1), (1, 2), 1), (1, "same", 1, 4), (1, "valid", 1, 1)],
)
@pytest.mark.parametrize("kernel", [(3, 3), (5, 1)])
def test_conv2d(kernel: tuple[int, int], stride: Any, padding: Any, dilation: Any, groups: int, tmp_path: Path) -> None:
    weight, bias, x = RNG.normal(size=(8, 4 // groups, *kernel)), RNG.normal(size=8), RNG.normal(size=(3, 4, 9, 7))
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(x), torch.from_numpy(weight), torch.from_numpy(bias), stride, padding, dilation, groups
    )
    node = nir.Conv2d((9, 7), weight, stride, padding, dilation, groups, bias)
    close(ran(chained(tmp_path / "a.nir", (4, 9, 7), node, out=tuple(expected.shape[1:])), x), expected)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [((2, 2), (2, 2), (0, 0)), ((3, 2), (1, 2), (1, 1)), ((1, 4), (2, 3), (0, 2))]
)
def test_pools(kernel: Any, stride: Any, padding: Any, tmp_path: Path) -> None:
    x = RNG.normal(size=(3, 2, 8, 7))
    mean = torch.nn.functional.avg_pool2d(torch.from_numpy(x), kernel, stride, padding)
    args = (np.array(kernel), np.array(stride), np.array(padding))
    out = tuple(mean.shape[1:])
    close(ran(chained(tmp_path / "a.nir", (2, 8, 7), nir.AvgPool2d(*args), out=out), x), mean)
    ones = torch.ones(2, 1, *kernel, dtype=torch.float64)
    summed = torch.nn.functional.conv2d(torch.from_numpy(x), ones, stride=stride, padding=padding, groups=2)
    close(ran(chained(tmp_path / "b.nir", (2, 8, 7), nir.SumPool2d(*args), out=out), x), summed)


@pytest.mark.parametrize(("start", "end"), [(0, -1), (1, -1), (0, 1), (1, 2), (-2, -1)])
def test_flatten(start: int, end: int, tmp_path: Path) -> None:
    x = RNG.normal(size=(3, 2, 4, 5))
    # torch counts the batch as an axis.
    expected = torch.flatten(torch.from_numpy(x), start + (start >= 0), end + (end >= 0))
    node = nir.Flatten({"input": sized(2, 4, 5)}, start, end)
    close(ran(chained(tmp_path / "a.nir", (2, 4, 5), node, out=tuple(expected.shape[1:])), x), expected)


def test_scale_and_threshold(tmp_path: Path) -> None:
    factor, level, x = RNG.normal(size=(2, 3)), RNG.normal(size=(2, 3)), RNG.normal(size=(9, 2, 3))
    close(ran(chained(tmp_path / "a.nir", (2, 3), nir.Scale(factor), out=(2, 3)), x), factor * x)
    x[4] = level  # the Heaviside step is 0 at the threshold itself
    actual = ran(chained(tmp_path / "b.nir", (2, 3), nir.Threshold(level), out=(2, 3)), x)
    assert np.array_equal(actual, torch.heaviside(torch.from_numpy(x - level), torch.zeros(1, dtype=torch.float64)))
    assert not actual[4].any()


# --------------------------------------------------------------------------------------------------------------------
# Delays


@pytest.mark.parametrize("steps", [[0, 1, 5], [3, 3, 3], [2, 7, 4]])
def test_delay(steps: list[int], tmp_path: Path) -> None:
    """Each channel waits for itself, and nothing is there before the first input."""
    x = RNG.normal(size=(12, 3))
    expected = np.zeros_like(x)
    for k, count in enumerate(steps):
        expected[count:, k] = x[: len(x) - count, k]
    graph = chained(tmp_path / "a.nir", (3,), nir.Delay(np.array(steps) * DT), out=(3,))
    assert np.array_equal(ran(graph, x), expected)
    # Between an Affine and something else, where the Affine can take it only if all wait alike.
    weight, y = RNG.normal(size=(3, 3)), np.zeros_like(x)
    for k, count in enumerate(steps):
        y[count:, k] = (x @ weight.T)[: len(x) - count, k]
    graph = chained(
        tmp_path / "b.nir", (3,), nir.Linear(weight), nir.Delay(np.array(steps) * DT), nir.Scale(np.ones(3)), out=(3,)
    )
    assert ("n1" in graph.nodes) == (len(set(steps)) > 1)
    close(ran(graph, x), y)


def test_a_delay_of_an_image_and_batches_apart(tmp_path: Path) -> None:
    steps = RNG.integers(0, 4, size=(2, 2, 3))
    x = RNG.normal(size=(9, 5, 2, 2, 3))
    graph = chained(tmp_path / "a.nir", (2, 2, 3), nir.Delay(steps * DT), out=(2, 2, 3))
    outputs = simulate(graph, x).left["out"]
    for place in np.ndindex(2, 2, 3):
        count = int(steps[place])
        assert not outputs[(slice(count), slice(None), *place)].any()
        assert np.array_equal(
            outputs[(slice(count, None), slice(None), *place)], x[(slice(9 - count), slice(None), *place)]
        )


def test_a_delay_closes_a_loop_without_any_affine(tmp_path: Path) -> None:
    """v' = r (x + v(t - 2 dt)): a neuron heard by itself through a Scale and a Delay of two steps."""
    nodes = {
        "in": nir.Input({"input": sized(1)}),
        "i": nir.I(np.array([1.0 / DT])),
        "d": nir.Delay(np.array([2 * DT])),
        "s": nir.Scale(np.array([0.5])),
        "out": nir.Output({"output": sized(1)}),
    }
    edges = [("in", "i"), ("i", "s"), ("s", "d"), ("d", "i"), ("i", "out")]
    graph = discrete_graph(nodes, edges, tmp_path / "a.nir")
    x = RNG.normal(size=(20, 1))
    expected: list[float] = []
    for t in range(20):
        before = expected[t - 1] if t else 0.0
        back = 0.5 * expected[t - 2] if t > 1 else 0.0
        expected.append(before + float(x[t, 0]) + back)
    close(ran(graph, x)[:, 0], np.array(expected))


# --------------------------------------------------------------------------------------------------------------------
# Neurons


def scalar_neuron(kind: str, p: dict[str, float], x: np.ndarray, convention: str) -> tuple[list[float], list[float]]:
    """(what it gives, v before any reset) of one neuron, by its equations in plain Python."""
    v = i = 0.0
    inputs, membranes = [], []
    for value in x.tolist():
        drive = value
        if "tau_syn" in p:
            if convention == "euler":
                i += DT / p["tau_syn"] * (-i + p["w_in"] * drive)
            else:
                i = i * math.exp(-DT / p["tau_syn"]) + p["w_in"] * drive * (1 - math.exp(-DT / p["tau_syn"]))
            drive = i
        if "tau" in p:
            target = p["v_leak"] + p["r"] * drive
            if convention == "euler":
                v += DT / p["tau"] * (target - v)
            else:
                v = target + (v - target) * math.exp(-DT / p["tau"])
        else:
            v += DT * p["r"] * drive
        membranes.append(v)
        if "v_threshold" in p:
            spiked = v > p["v_threshold"]
            inputs.append(float(spiked))
            v = p["v_reset"] if spiked else v
        else:
            inputs.append(v)
    return inputs, membranes


FIELDS = {"I": ("r",), "LI": ("tau", "r", "v_leak"), "CubaLI": ("tau_syn", "tau", "r", "v_leak", "w_in")}
RANGES = {
    "r": (0.5, 3),
    "tau": (0.003, 0.05),
    "tau_syn": (0.002, 0.02),
    "v_leak": (-0.2, 0.2),
    "w_in": (0.5, 3),
    "v_threshold": (0.1, 0.6),
    "v_reset": (-0.3, 0.05),
}


@pytest.mark.parametrize("convention", ["euler", "exact"])
@pytest.mark.parametrize("kind", ["I", "IF", "LI", "LIF", "CubaLI", "CubaLIF"])
@pytest.mark.parametrize("shape", [(7,), (2, 3, 2)], ids=str)
def test_neurons(kind: str, convention: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    """Parameters that differ from neuron to neuron, reset values and leaks that are not zero."""
    rng = np.random.default_rng(len(kind) + len(shape))
    names = [*FIELDS[kind.removesuffix("F")], *(("v_threshold", "v_reset") if kind.endswith("F") else ())]
    values = {name: rng.uniform(*RANGES[name], size=shape) for name in names}
    if kind.removesuffix("F") == "I":
        values["r"] = values["r"] * 60
    parameters = {("tau_mem" if kind.startswith("Cuba") and k == "tau" else k): v for k, v in values.items()}
    x = rng.normal(0.4, 1.0, size=(80, *shape))
    actual = ran(
        chained(tmp_path / "a.nir", shape, getattr(nir, kind)(**parameters), out=shape, convention=convention), x
    )
    spikes = 0.0
    for place in np.ndindex(*shape):
        p = {name: float(value[place]) for name, value in values.items()}
        expected, membranes = scalar_neuron(kind, p, x[(slice(None), *place)], convention)
        if kind.endswith("F"):
            # No membrane comes nearer to its threshold than the sums of two orders can differ.
            assert np.abs(np.array(membranes) - p["v_threshold"]).min() > 1e-9
            assert actual[(slice(None), *place)].tolist() == expected
            spikes += sum(expected)
        else:
            close(actual[(slice(None), *place)], np.array(expected))
    assert spikes > 20 or not kind.endswith("F")


def test_the_exact_convention_is_the_solution_of_the_equation(tmp_path: Path) -> None:
    """A constant input from t = 0: v(t) = leak + r x + (0 - that) exp(-t / tau), at every step."""
    tau, r, leak = 0.0173, 1.7, -0.4
    node = nir.LI(tau=np.array([tau]), r=np.array([r]), v_leak=np.array([leak]))
    actual = ran(chained(tmp_path / "a.nir", (1,), node, out=(1,), convention="exact"), np.full((50, 1), 0.9))
    t = DT * np.arange(1, 51)
    close(actual[:, 0], (leak + r * 0.9) * (1 - np.exp(-t / tau)))


# --------------------------------------------------------------------------------------------------------------------
# Graphs


def test_several_inputs_and_outputs_and_fan_in(tmp_path: Path) -> None:
    a, b = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 2))
    nodes = {
        "x": nir.Input({"input": sized(3)}),
        "y": nir.Input({"input": sized(2)}),
        "fa": nir.Linear(a),
        "fb": nir.Linear(b),
        "sum": nir.LI(tau=np.full(4, 0.01), r=np.ones(4), v_leak=np.zeros(4)),
        "whole": nir.Output({"output": sized(4)}),
        "raw": nir.Output({"output": sized(4)}),
    }
    edges = [("x", "fa"), ("y", "fb"), ("fa", "sum"), ("fb", "sum"), ("sum", "whole"), ("fa", "raw")]
    graph = discrete_graph(nodes, edges, tmp_path / "a.nir")
    x, y = RNG.normal(size=(15, 1, 3)), RNG.normal(size=(15, 1, 2))
    outputs = simulate(graph, {"x": x, "y": y}).left
    drive, v, expected = x[:, 0] @ a.T + y[:, 0] @ b.T, np.zeros(4), []
    for row in drive:
        v = 0.9 * v + 0.1 * row
        expected.append(v)
    close(outputs["whole"][:, 0], np.array(expected))
    close(outputs["raw"][:, 0], x[:, 0] @ a.T)


def test_nested_recurrent_graphs_against_torch(tmp_path: Path) -> None:
    """Two recurrent layers, each a graph in the graph as snnTorch writes RLeaky, one of them two levels deep."""
    n, dt = 5, DT
    w_in, w_out = RNG.normal(size=(n, 3)) * 0.8, RNG.normal(size=(n, n)) * 0.8
    rec = [RNG.normal(size=(n, n)) * 0.5 for _ in range(2)]
    tau = RNG.uniform(0.003, 0.02, size=n)

    def layer(weight: np.ndarray) -> nir.NIRGraph:
        lif = nir.LIF(tau=tau, r=tau / dt, v_leak=np.zeros(n), v_threshold=np.ones(n), v_reset=np.zeros(n))
        return nir.NIRGraph(
            {
                "input": nir.Input({"input": sized(n)}),
                "lif": lif,
                "w_rec": nir.Linear(weight),
                "output": nir.Output({"output": sized(n)}),
            },
            [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")],
        )

    deep = nir.NIRGraph(
        {
            "i": nir.Input({"input": sized(n)}),
            "fc": nir.Linear(w_out),
            "layer": layer(rec[1]),
            "o": nir.Output({"output": sized(n)}),
        },
        [("i", "fc"), ("fc", "layer"), ("layer", "o")],
    )
    nodes = {
        "in": nir.Input({"input": sized(3)}),
        "fc": nir.Linear(w_in),
        "first": layer(rec[0]),
        "second": deep,
        "out": nir.Output({"output": sized(n)}),
    }
    edges = [("in", "fc"), ("fc", "first"), ("first", "second"), ("second", "out")]
    graph = discrete_graph(nodes, edges, tmp_path / "a.nir")
    x = RNG.normal(size=(60, 3))
    beta = torch.from_numpy(1 - dt / tau)
    v = [torch.zeros(n, dtype=torch.float64) for _ in range(2)]
    s = [torch.zeros(n, dtype=torch.float64) for _ in range(2)]
    weights = [(torch.from_numpy(w_in), torch.from_numpy(rec[0])), (torch.from_numpy(w_out), torch.from_numpy(rec[1]))]
    expected = []
    for row in torch.from_numpy(x):
        inputs = row
        for k, (forward, back) in enumerate(weights):
            v[k] = beta * v[k] + forward @ inputs + back @ s[k]
            s[k] = (v[k] > 1).double()
            v[k] = v[k] * (1 - s[k])
            inputs = s[k]
        expected.append(inputs.numpy())
    actual = ran(graph, x)
    assert actual.sum() > 10
    assert np.array_equal(actual, np.array(expected))


def test_a_spiking_convolutional_network_against_torch(tmp_path: Path) -> None:
    """Conv2d, IF, SumPool2d, Conv2d, IF, Flatten, Affine, IF: the shape of NIR's published image network."""
    F = torch.nn.functional
    w1, w2 = RNG.normal(size=(3, 2, 3, 3)) * 0.5, RNG.normal(size=(4, 3, 3, 3)) * 0.4
    b1, b2, w3, b3 = RNG.normal(size=3) * 0.1, RNG.normal(size=4) * 0.1, RNG.normal(size=(6, 64)) * 0.4, np.zeros(6)

    def fire(*shape: int) -> nir.IF:
        return nir.IF(r=np.full(shape, 1 / DT), v_threshold=np.ones(shape), v_reset=np.zeros(shape))

    two = np.array([2, 2])
    graph = chained(
        tmp_path / "a.nir",
        (2, 8, 8),
        nir.Conv2d((8, 8), w1, 1, 1, 1, 1, b1),
        fire(3, 8, 8),
        nir.SumPool2d(two, two, np.zeros(2, dtype=int)),
        nir.Conv2d((4, 4), w2, 1, 1, 1, 1, b2),
        fire(4, 4, 4),
        nir.Flatten({"input": sized(4, 4, 4)}, 0, -1),
        nir.Affine(w3, b3),
        fire(6),
        out=(6,),
    )
    x = (RNG.random(size=(40, 2, 8, 8)) < 0.3).astype(float)
    t = {
        name: torch.from_numpy(value)
        for name, value in {"w1": w1, "b1": b1, "w2": w2, "b2": b2, "w3": w3, "b3": b3, "x": x}.items()
    }
    v: dict[int, Any] = {}

    def spike(k: int, current: Any) -> Any:
        v[k] = v.get(k, 0) + current
        fired = (v[k] > 1).double()
        v[k] = v[k] * (1 - fired)
        return fired

    expected = []
    for row in t["x"]:
        s = spike(0, F.conv2d(row[None], t["w1"], t["b1"], padding=1))
        s = spike(1, F.conv2d(F.avg_pool2d(s, 2) * 4, t["w2"], t["b2"], padding=1))
        expected.append(spike(2, F.linear(s.flatten(1), t["w3"], t["b3"]))[0].numpy())
    actual = ran(graph, x)
    assert actual.sum() > 10
    assert np.array_equal(actual, np.array(expected))


# --------------------------------------------------------------------------------------------------------------------
# The table


def test_the_table_of_primitives_is_current(document: Callable[[str], str]) -> None:
    document("primitives")


def test_what_the_table_says_compiles_does() -> None:
    """Each network of the table that is said to compile is compiled for lava, and runs there as defined."""
    primitives, lava = script("docs/primitives.py"), load_spec("lava")
    graphs = primitives.smallest()
    assert set(graphs) == PRIMITIVES - {"Input", "Output"}
    for name, graph in graphs.items():
        if primitives.cell(graph, name, lava) != "compiles":
            with pytest.raises(InfeasibleError):
                nervecord.compile(graph, "lava")
            continue
        program = nervecord.compile(graph, "lava")
        x = (np.random.default_rng(0).random((30, 1, graph.nodes["input"].size)) < 0.4).astype(float)
        expected = nervecord.simulate(program, x).left["output"]
        with nervecord.stream(program) as session:
            assert np.array_equal(np.asarray(session.run(x)["output"]).reshape(expected.shape), expected), name
