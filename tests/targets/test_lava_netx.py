"""The HDF5 for netx: read back as netx reads it, it is the same network; what it cannot say is refused.

The reader here is ours. That lava-dl 0.6.0 itself loads such files, and that its network has the same membranes at
every step, was checked by hand with 40 random graphs.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from lava_graphs import expected, expressible
from policies import random_policy

from nervecord.compiler import nodes as n
from nervecord.compiler.calibrate import calibrate
from nervecord.compiler.graph import Graph, Level, chain
from nervecord.compiler.interpret import Machine
from nervecord.compiler.node import Node
from nervecord.errors import InfeasibleError
from nervecord.targets.lava.lower import lower
from nervecord.targets.lava.netx import as_netx_loads, export_netx


def read(path: Path) -> Graph:
    """The graph that netx builds of a file: `Network._create` and `get_neuron_params`."""
    with h5py.File(path) as file:
        arguments = json.loads(file.attrs["nervecord"])
        layers = [file["layer"][str(k)] for k in range(len(file["layer"]))]
        assert layers[0]["type"][()] == b"input"
        size = int(layers[0]["shape"][0])
        nodes: list[tuple[str, Node]] = [("input", n.Input((size,)))]
        interval = arguments.get("reset_interval", 0)
        for k, layer in enumerate(layers[1:]):
            assert layer["type"][()] == b"dense"
            loaded = as_netx_loads(layer["weight"][()])
            assert loaded is not None
            graded = k == 0 and arguments["input_message_bits"] > 0
            nodes.append((f"dense{k}", n.FixedDense(loaded.weight, loaded.weight_exp, loaded.weight_bits, graded)))
            neuron = layer["neuron"]
            assert neuron["type"][()] == b"CUBA"
            size = int(layer["shape"][0])
            lif = n.FixedLIF(
                du=int(neuron["iDecay"][()]) - 1,
                dv=int(neuron["vDecay"][()]),
                bias_mant=layer["bias"][()] if "bias" in layer else np.zeros(size),
                bias_exp=6,
                threshold=int(neuron["vThMant"][()]),
                reset_interval=interval,
                # netx counts steps from 1, as Lava does.
                reset_offset=(arguments["reset_offset"] + 1 + k - 1) % interval if interval else 0,
            )
            nodes.append((f"neurons{k}", lif))
        nodes.append(("output", n.Output((size,))))
    return chain(Level.INTEGER, nodes, dt=1e-3)


def test_a_policy_of_spikes_needs_no_message_bits(tmp_path: Path) -> None:
    policy = random_policy(sizes=(5, 9, 2), population=4, output_population=3)
    graph, _ = lower(policy, calibrate(policy), whole=True)
    exported = export_netx(graph, tmp_path / "a.net")
    assert exported.arguments["input_message_bits"] == 0
    found = read(tmp_path / "a.net")
    assert found.nodes["input"].in_shape == (20,)
    machine, core = Machine(graph), Machine(found)
    assert policy.recorded is not None
    _, steps = machine.window(policy.recorded[:1])
    for row, values in zip(machine.entered, steps, strict=True):
        got = core.step({"input": row})
        assert np.array_equal(got["neurons1"], values["lif2"])


def test_a_file_read_as_netx_reads_it_is_the_same_network(tmp_path: Path) -> None:
    same = 0
    for seed in range(60):
        graph, x = expressible(seed)
        wanted = expected(graph, x)
        try:
            exported = export_netx(graph, tmp_path / "a.net")
        except InfeasibleError as error:
            assert "netx would not keep" in str(error)  # noqa: PT017
            continue
        if wanted is None:  # its readout passes its threshold
            continue
        assert exported.layers == len(list(graph.of_type(n.FixedDense)))
        got = expected(read(tmp_path / "a.net"), x)
        assert got is not None
        for name, values in wanted[1].items():
            np.testing.assert_array_equal(got[1][name], values, err_msg=f"{name} in graph {seed}")
        same += 1
    assert same > 20


def test_the_same_graph_gives_the_same_bytes(tmp_path: Path) -> None:
    graph, _ = small()
    export_netx(graph, tmp_path / "a.net")
    export_netx(graph, tmp_path / "b.net")
    assert (tmp_path / "a.net").read_bytes() == (tmp_path / "b.net").read_bytes()


def small(
    weight: object = ((2, -4), (6, 8)), exp: int = 0, bias: int = 64, offsets: tuple[int, int] = (1, 2)
) -> tuple[Graph, None]:
    def neurons(k: int) -> dict[str, object]:
        return {"du": 4095, "dv": 9, "bias_exp": 0, "reset_interval": 5, "reset_offset": offsets[k]}

    first = n.FixedLIF(threshold=3, bias_mant=np.full(2, bias), **neurons(0))  # type: ignore[arg-type]
    read_out = n.FixedReadout(bias_mant=np.zeros(2), **neurons(1))  # type: ignore[arg-type]
    nodes: list[tuple[str, Node]] = [
        ("input", n.Input((2,))),
        ("a", n.FixedDense(np.array(weight), exp, 8, graded=True)),
        ("lif", first),
        ("b", n.FixedDense(np.array([[2, -2], [4, 6]]), 0, 8, graded=False)),
        ("readout", read_out),
        ("output", n.Output((2,))),
    ]
    return chain(Level.INTEGER, nodes, dt=1e-3), None


def test_how_to_load_it_is_said(tmp_path: Path) -> None:
    exported = export_netx(small()[0], tmp_path / "a.net")
    assert exported.arguments == {"input_message_bits": 16, "reset_interval": 5, "reset_offset": 1}
    graph, _ = small(weight=((252, -4), (6, 8)), exp=-1)  # what is halved exactly stays
    export_netx(graph, tmp_path / "a.net")
    with h5py.File(tmp_path / "a.net") as file:
        np.testing.assert_array_equal(file["layer"]["1"]["weight"], [[126, -2], [3, 4]])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"exp": -2}, "a: weight exponent -2 cuts bits"),
        ({"exp": 6}, "a: netx would not keep"),
        ({"weight": ((0, 0), (0, 0))}, "a: netx would not keep"),
        ({"weight": ((-128, -64), (-64, -64))}, "a: netx would not keep"),  # it makes zeros of these
        ({"bias": 63}, "lif: its bias is not expressible"),
        ({"offsets": (1, 1)}, "readout: netx clears all layers"),
    ],
)
def test_what_the_format_cannot_say_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    graph, _ = small(**changes)  # type: ignore[arg-type]
    with pytest.raises(InfeasibleError, match=said):
        export_netx(graph, tmp_path / "a.net")
    assert not list(tmp_path.iterdir())
