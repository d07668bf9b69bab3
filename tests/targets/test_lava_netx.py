"""The HDF5 for netx: read back as netx reads it, it is the same network; what it cannot say is refused.

The reader here is ours. That lava-dl 0.6.0 itself loads such files is tested in test_lava_dl.py.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from lava_graphs import LAVA, chained, entered, expected
from pass_graphs import plain_lif
from policies import lif

import nervecord
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops import (
    Affine,
    Array,
    Conv,
    Csr,
    Dense,
    Flatten,
    Input,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Level,
    Neuron,
    Op,
    Output,
    Pool,
    Sparse,
)
from nervecord.compiler.plan.interpret import Machine
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.errors import InfeasibleError
from nervecord.targets.lava.netx import as_netx_loads, export_netx

READOUT = 131071
"""netx has no readouts: the largest threshold stands for one."""


def read(path: Path) -> tuple[Graph, dict[str, tuple[int, int]]]:
    """What netx builds of a file (`Network._create`, `get_neuron_params`): a graph, and when each layer is cleared:
    name -> (interval, offset), steps counted from 0.
    """
    with h5py.File(path) as file:
        arguments = json.loads(file.attrs["nervecord"])
        layers = [file["layer"][str(k)] for k in range(len(file["layer"]))]
        assert layers[0]["type"][()] == b"input"
        graded = arguments["input_message_bits"] > 0
        shape = (int(layers[0]["shape"][0]),)
        nodes: list[tuple[str, Op]] = [
            ("input", Input(shape, "values" if graded else "spikes", 9.0 if graded else None))
        ]
        resets = {}
        for k, layer in enumerate(layers[1:]):
            assert layer["type"][()] == b"dense"
            loaded = as_netx_loads(layer["weight"][()])
            assert loaded is not None
            nodes.append((f"dense{k}", Dense(loaded.weight, loaded.weight_exp, loaded.weight_bits, 1)))
            neuron = layer["neuron"]
            assert neuron["type"][()] == b"CUBA"
            size = int(layer["shape"][0])
            bias = layer["bias"][()] if "bias" in layer else np.zeros(size)
            threshold, decay = int(neuron["vThMant"][()]), int(neuron["iDecay"][()])
            nodes.append(
                (
                    f"neurons{k}",
                    Neuron(
                        IntegerMembrane(int(neuron["vDecay"][()]), bias, 6),
                        None if decay == 4096 else IntegerSynapse(decay),
                        None if threshold == READOUT else IntegerSpike(threshold),
                    ),
                )
            )
            if "reset_interval" in arguments:
                interval = arguments["reset_interval"]
                # netx counts steps from 1, as Lava does, and adds the number of the layer.
                resets[f"neurons{k}"] = interval, (arguments["reset_offset"] + 1 + k - 1) % interval
        nodes.append(("output", Output((size,))))
    return chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=LAVA), resets


def membranes(graph: Graph, resets: dict[str, tuple[int, int]], x: Array) -> dict[str, Array]:
    """v of every population at each step, cleared as `resets` says."""
    machine = Machine(plan(graph))
    names = [unit.step.name for unit in machine.plan.units]
    histories: dict[str, list[Array]] = {name: [] for name in names}
    for t, row in enumerate(x):
        for name, (interval, offset) in resets.items():
            if t % interval == offset:
                machine.state[name] = graph.nodes[name].state(1)
        machine.step({"input": row[None]})
        for name in names:
            histories[name].append(machine.state[name]["v"][0])
    return {name: np.stack(rows) for name, rows in histories.items()}


def test_a_file_read_as_netx_reads_it_is_the_same_network(tmp_path: Path) -> None:
    same = 0
    for seed in range(60):
        case = chained(seed)
        try:
            exported = export_netx(case.plan, tmp_path / "a.net")
        except InfeasibleError as error:
            assert "netx would not" in str(error)  # noqa: PT017
            continue
        reference = expected(case)
        assert reference is not None
        assert exported.layers == len(case.plan.units)
        actual = membranes(*read(tmp_path / "a.net"), entered(case)["input"])
        for name, values in reference[1].items():
            np.testing.assert_array_equal(actual[name], values, err_msg=f"{name} in graph {seed}")
        same += 1
    assert same > 40


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    export_netx(small(), tmp_path / "a.net")
    export_netx(small(), tmp_path / "b.net")
    assert (tmp_path / "a.net").read_bytes() == (tmp_path / "b.net").read_bytes()


def nodes_of(weight: object = ((2, -4), (6, 8)), exp: int = 0, bias: int = 64) -> dict[str, Op]:
    return {
        "input": Input((2,), "values", 9.0),
        "a": Dense(np.array(weight), exp, 8, 1),
        "lif": Neuron(IntegerMembrane(9, np.full(2, bias), 0), None, IntegerSpike(3)),
        "b": Dense(np.array([[2, -2], [4, 6]]), 0, 8, 1),
        "readout": Neuron(IntegerMembrane(9, np.zeros(2), 0), None, None),
        "output": Output((2,)),
    }


def small(**changes: object) -> Plan:
    return plan(chain(Level.INTEGER, nodes_of(**changes).items(), dt=1e-3, arithmetic=LAVA), Schedule(4, "reset"))  # type: ignore[arg-type]


def test_how_to_load_it_is_said(tmp_path: Path) -> None:
    exported = export_netx(small(), tmp_path / "a.net")
    assert exported.arguments == {"input_message_bits": 16, "reset_interval": 6, "reset_offset": 1}
    export_netx(small(weight=((252, -4), (6, 8)), exp=-1), tmp_path / "a.net")  # what is halved exactly stays
    with h5py.File(tmp_path / "a.net") as file:
        np.testing.assert_array_equal(file["layer"]["1"]["weight"], [[126, -2], [3, 4]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exp": -2}, "a: .*exponent -2 "),
        ({"exp": 6}, "a: netx would not keep"),
        ({"weight": ((0, 0), (0, 0))}, "a: "),
        ({"weight": ((-128, -64), (-64, -64))}, "a: "),  # it makes zeros of these
        ({"bias": 63}, "lif: .*bias"),
    ],
)
def test_what_the_format_cannot_say_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InfeasibleError, match=message):
        export_netx(small(**changes), tmp_path / "a.net")
    assert not list(tmp_path.iterdir())


def wired(extra: dict[str, Op], edges: list[tuple[str, str]], schedule: Schedule | None = None) -> Plan:
    """The small chain with more in it."""
    nodes = nodes_of() | extra
    names = list(nodes_of())
    joined = (*zip(names, names[1:]), *edges)  # noqa: B905, RUF007
    return plan(Graph(Level.INTEGER, nodes, joined, 1e-3, LAVA), schedule or Schedule(4))


DENSE = nodes_of()["b"]
DELAYED = DENSE.replace(delay=2)
LIF = nodes_of()["lif"]


NO_CHAIN = {
    "input: feeds 2 connections": lambda: wired({"skip": DELAYED}, [("input", "skip"), ("skip", "readout")]),
    "input: feeds 2 connections,": lambda: wired({}, [("input", "b")]),
    "graph: netx has one input layer, and 2": lambda: wired(
        {"more": DENSE, "in": Input((2,), "spikes")}, [("in", "more"), ("more", "lif")]
    ),
    "lif: is fed by 2 connections": lambda: wired({"back": DENSE}, [("lif", "back"), ("back", "lif")]),
    "lif: is fed by 2 connections,": lambda: wired(
        {"readout": LIF, "end": DENSE}, [("readout", "end"), ("end", "lif")]
    ),
    "lif: is read before the end": lambda: wired({"end": Output((2,))}, [("lif", "end")]),
    "b: has a delay of 2 steps": lambda: wired({"b": DELAYED}, []),
    "b: feeds 2 populations": lambda: wired({"other": LIF, "end": Output((2,))}, [("b", "other"), ("other", "end")]),
}


@pytest.mark.parametrize("message", NO_CHAIN)
def test_what_is_no_chain_is_refused_by_name(tmp_path: Path, message: str) -> None:
    with pytest.raises(InfeasibleError, match=message):
        export_netx(NO_CHAIN[message](), tmp_path / "a.net")
    assert not list(tmp_path.iterdir())


def test_another_arithmetic_is_refused(tmp_path: Path) -> None:
    graph = small().graph
    other = graph.replace(arithmetic=dataclasses.replace(LAVA, membrane_bits=16))
    with pytest.raises(InfeasibleError, match="membrane_bits is 16"):
        export_netx(plan(other, Schedule(4)), tmp_path / "a.net")


def test_a_compiled_graph_that_is_no_policy_is_written_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    network = chain(
        Level.DISCRETE,
        [("in", Input((4,))), ("fc", Affine(rng.normal(size=(6, 4)), None, 1)), ("lif", lif(6)), ("out", Output((6,)))],
        dt=1e-3,
    )
    program = nervecord.compile(network, "lava", inputs="spikes", netx=True)
    (emitted,) = nervecord.emit(program, tmp_path)
    assert emitted.arguments == {"input_message_bits": 0}
    x = rng.integers(0, 2, size=(30, 4))
    (name,) = (unit.step.name for unit in plan(program.graph).units)
    actual = membranes(*read(emitted.path), x)
    machine = Machine(plan(program.graph))
    for t, row in enumerate(x):
        machine.step({"in": row[None]})
        np.testing.assert_array_equal(actual["neurons0"][t], machine.state[name]["v"][0])


def test_a_convolutional_network_is_written_as_it_was_composed(tmp_path: Path) -> None:
    """Convolution, pooling and flattening became one matrix for each layer, which the format can say."""
    rng = np.random.default_rng(0)
    first = Conv(rng.normal(size=(2, 1, 3, 3)), rng.normal(size=2) * 0.1, (1, 1), (1, 1), (1, 1), 1, (6, 6))
    nodes: list[tuple[str, Op]] = [
        ("input", Input((1, 6, 6), "spikes")),
        ("conv", first),
        ("lif1", plain_lif(np.full((2, 6, 6), 0.75))),
        ("pool", Pool("sum", (2, 2), (2, 2), (0, 0), (2, 6, 6))),
        ("flat", Flatten((2, 3, 3), 0, -1)),
        ("fc", Affine(rng.normal(size=(4, 18)) * 0.5)),
        ("lif2", plain_lif(np.full(4, 0.5))),
        ("output", Output((4,))),
    ]
    x = (rng.random((80, 36)) < 0.3).astype(np.float64)
    graph = chain(Level.DISCRETE, nodes, dt=1e-3)
    target = nervecord.target("lava", netx=True)
    program = nervecord.compile(graph, target, calibration=x.reshape(80, 1, 6, 6))
    assert isinstance(program.graph.nodes["conv"], Sparse)
    target.emit(program, tmp_path)
    back = nervecord.read(tmp_path / "policy.net")
    assert isinstance(back, Graph)
    reference_spikes, actual = (nervecord.simulate(it, x).left["output"][:, 0] for it in (program, back))
    assert reference_spikes.sum() > 20
    np.testing.assert_array_equal(actual, reference_spikes)


def test_a_matrix_that_cannot_be_laid_out_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Csr.of(np.full((2, 3), 64, dtype=np.int32))
    nodes: list[tuple[str, Op]] = [
        ("input", Input((3,), "spikes")),
        ("rows", Sparse(rows.values, rows.columns, rows.starts, rows.inputs)),
        ("neurons", Neuron(IntegerMembrane(0, np.zeros(2, np.int32), 6), None, IntegerSpike(90))),
        ("output", Output((2,))),
    ]
    graph = chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=LAVA)
    export_netx(plan(graph), tmp_path / "fits.net")
    monkeypatch.setattr("nervecord.targets.lava.netx.MOST_DENSE", 5)
    with pytest.raises(InfeasibleError, match=r"rows: .*6 weights .* 5 "):
        export_netx(plan(graph), tmp_path / "large.net")
