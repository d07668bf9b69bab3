"""Writing NIR files: exact round trips, the same bytes, and equations that every NIR tool reads as ours."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nervecord.compiler import ops as n
from nervecord.compiler.files.serialise import graph_to_data
from nervecord.compiler.graph.contract import Channels, Contract
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.verify import require
from nervecord.compiler.nir.file import nir_bytes, read_nir, write_nir
from nervecord.compiler.nir.form import nir_name
from nervecord.compiler.nir.hdf5child import load
from nervecord.compiler.nir.metadata import restore
from nervecord.compiler.nir.reading import import_graph
from nervecord.compiler.ops import Level, Op
from nervecord.compiler.passes.discretise import discretise
from nervecord.errors import ContractError, FileFormatError, GraphError, NervecordError

ZOO = Path(__file__).parents[2] / "zoo"


def contract(observations: int, actions: int, choices: int = 0) -> Contract:
    """With `choices` the action is one of so many."""
    limits = ((0.0,), (choices - 1.0,)) if choices else ((-4.0,) * actions, None)
    return Contract(
        environment="Toy-v0",
        observation=Channels(tuple(f"o{k}" for k in range(observations)), ("rad",) * observations),
        action=Channels(tuple(f"a{k}" for k in range(actions)), ("N m",) * actions, *limits),
        steps=3,
        state="carried",
        control_period=0.05,
        fail_safe=(0.0 if choices else 0.1,) * actions,
        seed=7,
        provenance={"who": "tëst"},
        choices=tuple(f"çhoice {k}" for k in range(choices)),
    )


# --------------------------------------------------------------------------------------------------------------------
# Random graphs. Structure is drawn, values come from a drawn seed: fewer choices, quicker, and no less random.

DECAYS = (0.0, 2.0**-40, 0.1, 0.5, 0.9, 1 - 2.0**-53)


def decays(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.where(rng.random(size) < 0.5, rng.choice(DECAYS, size), rng.random(size))


def neuron(
    rng: np.random.Generator, size: int, *, cuba: bool, spike: str | None, refractory: int, integrates: bool
) -> Op:
    """`spike`: how it resets; None gives its membrane."""
    membrane = n.Membrane(decays(rng, size), *rng.normal(size=(2, size)))
    if integrates and not cuba:
        membrane = n.Membrane(np.ones(size), membrane.gain, np.zeros(size))
    synapse = n.Synapse(decays(rng, size), rng.normal(size=size)) if cuba else None
    fires = None if spike is None else n.Spike(*rng.normal(size=(2, size)), spike, refractory)
    return n.Neuron(membrane, synapse, fires, origin=("maker's name", "b"))


names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6)
SIZES = st.integers(1, 4)


@st.composite
def graphs(draw: st.DrawFn) -> Graph | Policy:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(SIZES)
    nodes: list[Op] = [n.Input((size,))]
    count = draw(st.integers(1, 3))
    if policy := draw(st.booleans()):
        nodes.append(n.Normalise(rng.normal(size=size), rng.random(size), 1e-8, 5.0, draw(st.booleans())))
        observations = size
        if draw(st.booleans()):
            mean = np.sort(rng.normal(size=(size, draw(st.integers(2, 4)))), axis=1)
            nodes.append(n.PopulationEncode(mean, float(rng.uniform(0.1, 1))))
            size = mean.size
    back: list[tuple[int, int, Op]] = []
    for _ in range(count):
        out = draw(SIZES)
        bias = rng.normal(size=out) if draw(st.booleans()) else None
        nodes.append(n.Affine(rng.normal(size=(out, size)), bias, draw(st.integers(0, 3)), origin=("fc",)))
        size = out
        match draw(st.sampled_from(("neuron", "scale", "threshold", "flatten"))):
            case "neuron":
                spike = draw(st.sampled_from(("value", "subtract", "none", None)))
                cuba, integrates = draw(st.booleans()), draw(st.booleans())
                refractory = draw(st.sampled_from((0, 0, 3)))
                nodes.append(neuron(rng, size, cuba=cuba, spike=spike, refractory=refractory, integrates=integrates))
                if draw(st.booleans()):
                    recurrent = n.Affine(rng.normal(size=(size, size)), None, draw(st.integers(1, 3)))
                    back.append((len(nodes) - 1, len(nodes) - 1, recurrent))
            case "scale":
                nodes.append(n.Scale(rng.normal(size=size)))
            case "threshold":
                nodes.append(n.Threshold(rng.normal(size=size)))
            case "flatten":
                nodes.append(n.Flatten((size,), draw(st.sampled_from((0, -1))), draw(st.sampled_from((0, -1)))))
    choices = 0
    counted = policy and isinstance(nodes[-1], n.Neuron) and nodes[-1].spikes and draw(st.booleans())
    if counted:
        actions = draw(st.sampled_from([k for k in range(1, size + 1) if size % k == 0]))
        limit = np.full(actions, np.pi)
        weight, offset = rng.normal(size=(actions, size // actions)), rng.normal(size=actions)
        choices = actions * draw(st.booleans())
        nodes.append(n.CountArgmaxDecode(weight, offset) if choices else n.CountDecode(weight, offset, -limit, limit))
        size = 1 if choices else actions
    elif policy and draw(st.booleans()):
        choices = size
        nodes.append(n.ArgmaxDecode(size, float(rng.uniform(0.1, 9))))
        size = 1
    elif policy:
        nodes.append(n.Decode(*rng.normal(size=(2, size)), np.full(size, -np.pi), np.full(size, np.pi)))
    nodes.append(n.Output((size,)))
    count = len(nodes) + len(back)
    labels = draw(st.lists(names, min_size=count, max_size=count, unique=True))
    edges = [(labels[k], labels[k + 1]) for k in range(len(nodes) - 1)]
    by_label = dict(zip(labels, nodes, strict=False))
    for k, (source, target, node) in enumerate(back):
        label = labels[len(nodes) + k]
        by_label[label] = node
        edges += [(labels[source], label), (label, labels[target])]
    ordered = dict(draw(st.permutations(list(by_label.items()))))
    dt = draw(st.sampled_from((1e-3, 1e-4, 1 / 3, 0.1)))
    graph = Graph(Level.DISCRETE, ordered, tuple(draw(st.permutations(edges))), dt)
    if not policy:
        return graph
    recorded = rng.normal(size=(3, observations)) if draw(st.booleans()) else None
    return Policy(graph, contract(observations, size, choices), recorded)


def back_from(data: bytes) -> Graph | Policy:
    """`read_nir` without the other process."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.nir")
        Path(path).write_bytes(data)
        return restore(load(path, 1 << 26)["node"], where="a.nir")


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs())
def test_round_trip_is_exact(graph: Graph | Policy) -> None:
    require(graph)
    data = nir_bytes(graph)
    again = back_from(data)
    assert again == graph
    assert nir_bytes(again) == data


@settings(max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs())
def test_stock_nir_reads_it_and_metadata_survives(graph: Graph | Policy) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.nir")
        Path(path).write_bytes(nir_bytes(graph))
        stock = nir.read(path)  # with its own check of types
        nir.write(path, stock)  # alphabetical order, compressed
        assert restore(load(path, 1 << 26)["node"], where="a.nir") == graph


# --------------------------------------------------------------------------------------------------------------------


def example(reset: Any = "value", **changes: Any) -> Graph:
    """A recurrent graph without host ops, one of each neuron that NIR has."""
    ones = np.ones(2)
    rng = np.random.default_rng(1)
    lif = {"decay": 0.9 * ones, "gain": 0.3 * ones, "leak": 0.01 * ones} | changes
    fires = n.Spike(ones, 0 * ones)
    cuba = n.Membrane(0.8 * ones, 0.5 * ones, 0.1 * ones)
    integrates = n.Membrane(ones, 0.25 * ones, 0 * ones)
    nodes: dict[str, Op] = {
        "in": n.Input((2,)),
        "fc": n.Affine(rng.normal(size=(2, 2)), rng.normal(size=2), delay=2),
        "lif": n.Neuron(n.Membrane(**lif), None, n.Spike(ones, -0.5 * ones, reset)),
        "rec": n.Affine(rng.normal(size=(2, 2)), delay=1),
        "fc2": n.Affine(rng.normal(size=(2, 2))),
        "cuba": n.Neuron(n.Membrane(0.8 * ones, 0.5 * ones, 0 * ones), n.Synapse(0.7 * ones, 2 * ones), fires),
        "if": n.Neuron(integrates, None, fires),
        "cubali": n.Neuron(cuba, n.Synapse(0.7 * ones, 2 * ones)),
        "i": n.Neuron(integrates),
        "li": n.Neuron(n.Membrane(0.6 * ones, 0.25 * ones, 0.1 * ones)),
        "out": n.Output((2,)),
    }
    chained = [name for name in nodes if name != "rec"]
    edges = (*itertools.pairwise(chained), ("lif", "rec"), ("rec", "lif"))
    return Graph(Level.DISCRETE, nodes, edges, dt=1e-3)


def test_equations_are_ours_without_the_metadata(tmp_path: Path) -> None:
    """Another tool sees continuous time; Euler's method at dt gives back every decay, gain, leak and delay."""
    graph, path = example(), tmp_path / "a.nir"
    write_nir(graph, path)
    types = {name: type(node).__name__ for name, node in nir.read(path).nodes.items()}
    assert types == {
        "in": "Input",
        "fc": "Affine",
        "fc%delay": "Delay",
        "lif": "LIF",
        "rec": "Linear",
        "rec%delay": "Delay",
        "fc2": "Linear",
        "cuba": "CubaLIF",
        "if": "IF",
        "cubali": "CubaLI",
        "i": "I",
        "li": "LI",
        "out": "Output",
    }
    root = load(str(path), 1 << 20)["node"]
    del root["metadata"]
    foreign = discretise(require(import_graph(root, where="a.nir", dt=1e-3)))
    assert sorted(foreign.nodes) == sorted(graph.nodes)
    assert sorted(foreign.edges) == sorted(graph.edges)
    for name, node in graph.nodes.items():
        other = foreign.nodes[name]
        assert type(other) is type(node)
        assert other.kind == node.kind
        assert getattr(other, "delay", None) == getattr(node, "delay", None)
    arrays, others = (graph_to_data(g)[1] for g in (graph, foreign))
    assert sorted(arrays) == sorted(others)
    for key, value in arrays.items():
        # One rounding each in dt / (1 - decay) and back.
        np.testing.assert_allclose(others[key], value, rtol=1e-14, atol=1e-15, err_msg=key)


def test_reset_rules_come_back(tmp_path: Path) -> None:
    for reset in ("value", "subtract", "none"):
        write_nir(example(reset), tmp_path / "a.nir")
        assert read_nir(tmp_path / "a.nir") == example(reset)


@pytest.mark.long
def test_same_bytes_in_every_process() -> None:
    code = (
        "import sys, hashlib; sys.path[:0] = sys.argv[1:]; import test_nir_write as t;"
        "from nervecord.compiler.nir.file import nir_bytes; print(hashlib.sha256(nir_bytes(t.example())).hexdigest())"
    )
    digests = {hashlib.sha256(nir_bytes(example())).hexdigest()}
    for seed in ("1", "2"):
        process = subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent), str(Path(__file__).parents[1])],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        digests.add(process.stdout.strip())
    assert len(digests) == 1


@pytest.mark.parametrize("path", sorted(ZOO.glob("*/policy.nir")), ids=lambda path: path.parent.name)
def test_the_zoos_policies_are_written_as_they_were_read(path: Path, tmp_path: Path) -> None:
    policy = read_nir(path)
    assert isinstance(policy, Policy)
    assert policy.recorded is not None
    write_nir(policy, tmp_path / "a.nir")
    assert read_nir(tmp_path / "a.nir") == policy


def test_dt_of_the_file(tmp_path: Path) -> None:
    write_nir(example(), tmp_path / "a.nir")
    assert read_nir(tmp_path / "a.nir", dt=1e-3) == example()
    with pytest.raises(NervecordError, match=r"a\.nir: .*0\.001 s, not 0\.0001 s"):
        read_nir(tmp_path / "a.nir", dt=1e-4)


def test_weights_may_be_edited_by_another_tool(tmp_path: Path) -> None:
    path = tmp_path / "a.nir"
    write_nir(example("subtract"), path)
    graph = nir.read(path)
    graph.nodes["fc"].weight = np.zeros((2, 2), dtype=np.float32)
    graph.nodes["lif"].v_threshold = np.full(2, 3.0)
    nir.write(path, graph)
    result = read_nir(path)
    assert isinstance(result, Graph)
    assert not result.nodes["fc"].weight.any()  # type: ignore[attr-defined]
    lif = result.nodes["lif"]
    assert isinstance(lif, n.Neuron)
    assert isinstance(lif.spike, n.Spike)
    assert lif.spike.threshold.tolist() == [3.0, 3.0]
    assert lif.spike.reset == "subtract"


def test_a_tool_that_saves_float32_changes_no_decay(tmp_path: Path) -> None:
    path = tmp_path / "a.nir"
    write_nir(example(), path)
    graph = nir.read(path)
    for node in graph.nodes.values():
        for field in ("tau", "tau_mem", "tau_syn", "r", "v_leak", "w_in", "delay"):
            if hasattr(node, field):
                setattr(node, field, getattr(node, field).astype(np.float32))
    nir.write(path, graph)
    assert read_nir(path) == example()


def graph_with_input(name: str) -> Graph:
    """A graph whose Input has this name."""
    nodes: list[tuple[str, Op]] = [(name, n.Input((1,))), ("fc", n.Affine(np.eye(1))), ("o", n.Output((1,)))]
    return chain(Level.DISCRETE, nodes, dt=1.0)


@pytest.mark.parametrize(
    ("graph", "cause"),
    [
        (example(decay=np.array([1.0, 0.5])), "lif: decay is 1 for 1 of 2 neurons"),
        (example(decay=np.ones(2)), "lif: decay is 1 and leak is not 0"),
        (example(gain=np.full(2, 1e308), decay=np.full(2, 1 - 2.0**-50)), "lif: r is beyond float64"),
        (Graph(Level.IMPORTED, {}, ()), "graph: is imported, only a discrete graph is written"),
        (Graph(Level.INTEGER, {}, ()), "graph: is integer, only a discrete graph is written"),
        (example().replace(dt=None), "a positive number of seconds is needed"),
        (
            chain(Level.DISCRETE, [("i", n.Input(())), ("s", n.Scale(2.0)), ("o", n.Output(()))], dt=1.0),  # type: ignore[arg-type]
            "i: shape is (), at least 1 integers are needed",
        ),
        (graph_with_input(""), "a node has an empty name"),
        (graph_with_input("\ud800"), "the name '\\ud800' cannot be printed"),
        (graph_with_input("\x1b[2J"), "graph: the name '\\x1b[2J' cannot be printed"),
    ],
)
def test_what_nir_cannot_say_is_refused_by_name(graph: Graph, cause: str, tmp_path: Path) -> None:
    with pytest.raises(GraphError) as caught:
        write_nir(graph, tmp_path / "a.nir")
    assert cause in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_no_contract_holds_what_is_not_finite() -> None:
    for limit in (float("inf"), float("nan")):
        with pytest.raises(ContractError, match=r"contract: low .*None"):
            Channels(("a",), ("m",), (-limit,), None)
        with pytest.raises(ContractError, match=r"contract: .*\bu is "):
            Contract("Toy-v0", Channels(("a",), ("m",)), Channels(("u",), ("N",)), 1, "reset", 0.1, (limit,))


def test_recorded_observations_are_finite() -> None:
    graph = chain(
        Level.DISCRETE,
        [("i", n.Input((1,))), ("fc", n.Affine([[1.0]])), ("d", n.Decode(*np.ones((4, 1)))), ("o", n.Output((1,)))],
        dt=0.1,
    )  # type: ignore[arg-type]
    policy = Policy(graph, contract(1, 1), np.full((1, 1), np.nan))
    with pytest.raises(GraphError, match=r"graph: .*shape"):
        nir_bytes(policy)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.nir"
    write_nir(example(), path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NervecordError, match="No space left"):
        write_nir(example("none"), path)
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ["a.nir"]
    assert read_nir(path) == example()


def test_convolutions_and_pools_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    nodes: list[tuple[str, Op]] = [
        ("in", n.Input((2, 7, 6))),
        ("conv", n.Conv(rng.normal(size=(4, 1, 3, 2)), None, (2, 1), (1, 0), (1, 2), 2, (7, 6))),
        ("lif", n.Neuron(n.Membrane(*rng.uniform(0.1, 0.9, (3, 4, 4, 4))), None, n.Spike(*rng.random((2, 4, 4, 4))))),
        ("sum", n.Pool("sum", (2, 2), (2, 1), (0, 1), (4, 4, 4))),
        ("average", n.Pool("average", (2, 5), (1, 1), (0, 0), (4, 2, 5))),
        ("flat", n.Flatten((4, 1, 1), 1, -1)),
        ("conv1", n.Conv(rng.normal(size=(3, 4, 1)), rng.normal(size=3), (1,), (0,), (1,), 1, (1,))),
        ("out", n.Output((3, 1))),
    ]
    graph = chain(Level.DISCRETE, nodes, dt=0.1)
    write_nir(graph, tmp_path / "a.nir")
    assert read_nir(tmp_path / "a.nir") == graph
    stock = nir.read(tmp_path / "a.nir", type_check=False)  # its check knows no groups
    assert {name: type(node).__name__ for name, node in stock.nodes.items()} == {
        "in": "Input",
        "conv": "Conv2d",
        "lif": "LIF",
        "sum": "SumPool2d",
        "average": "AvgPool2d",
        "flat": "Flatten",
        "conv1": "Conv1d",
        "out": "Output",
    }
    root = load(str(tmp_path / "a.nir"), 1 << 20)["node"]
    del root["metadata"]
    foreign = discretise(require(import_graph(root, where="a.nir", dt=0.1)))
    assert [op.kind for op in foreign.nodes.values()] == [op.kind for op in graph.nodes.values()]
    assert foreign.nodes["conv"].replace(origin=(), bias=None) == graph.nodes["conv"]


def test_names(tmp_path: Path) -> None:
    assert nir_name("a/b.c%") == "a%2Fb.c%25"
    assert nir_name(".") == "%2E"
    assert nir_name("\n\u00a0é") == "%0A%C2%A0é"
    # A name that a Delay would get.
    nodes: list[tuple[str, Op]] = [
        ("in", n.Input((1,))),
        ("a", n.Affine([[2.0]], delay=1)),
        ("a%delay", n.Scale([3.0])),
        ("metadata", n.Output((1,))),  # type: ignore[arg-type]
    ]
    graph = chain(Level.DISCRETE, nodes, dt=0.1)
    write_nir(graph, tmp_path / "a.nir")
    with h5py.File(tmp_path / "a.nir") as file:
        assert sorted(file["node/nodes"]) == ["a", "a%25delay", "a%delay", "in", "metadata"]
    assert read_nir(tmp_path / "a.nir") == graph


def test_foreign_reading_of_our_file_when_the_metadata_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.nir"
    write_nir(example(), path)
    with h5py.File(path, "a") as file:
        del file["node/metadata/nervecord"]
    graph = read_nir(path, dt=1e-3)
    assert isinstance(graph, Graph)
    assert graph.level is Level.IMPORTED
    with pytest.raises(FileFormatError, match=r"b\.nir"):
        read_nir(tmp_path / "b.nir")
