"""Files of lava-dl's netx come back as the graph that was written, or that slayer meant; everything else is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from examples import examples
from graphs import LAVA
from hypothesis import given, settings
from hypothesis import strategies as st
from lava_graphs import chained
from policies import random_policy

import nervecord
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.ops import Array, Dense, IntegerMembrane, IntegerSpike, IntegerSynapse, Level, Neuron
from nervecord.compiler.passes.declare import declare
from nervecord.compiler.plan.plan import plan
from nervecord.compiler.target.specfile import spec_from_dict
from nervecord.errors import FileFormatError, InfeasibleError, NervecordError
from nervecord.runtime.stream import MachineStream
from nervecord.targets.lava.netx import export_netx
from nervecord.targets.lava.netx_read import read_netx

SLAYER = Path(__file__).parents[1] / "data" / "slayer"
NEURON = {"type": b"CUBA", "iDecay": 1024, "vDecay": 128, "vThMant": 80, "refDelay": 1, "gradedSpike": False}


def slayer(path: Path, layers: list[dict[str, Any]]) -> Path:
    """A file as slayer's blocks write it: texts as arrays of one, integers as floats, no layer of inputs."""
    with h5py.File(path, "w") as file:
        for k, layer in enumerate(layers):
            group = file.create_group(f"layer/{k}")
            for name, value in layer.items():
                if name == "type":
                    group.create_dataset("type", (1,), "S10", [value])
                elif name == "neuron":
                    for key, field in value.items():
                        if key == "type":
                            group.create_dataset("neuron/type", (1,), f"S{len(field)}", [field])
                        else:
                            group.create_dataset(f"neuron/{key}", data=field)
                else:
                    group.create_dataset(name, data=value)
    return path


def dense(size: int = 3, inputs: int = 4, **changes: Any) -> dict[str, Any]:
    weight = (np.arange(size * inputs).reshape(size, inputs) * 2 - 10).astype(np.float32)
    return {
        "type": b"dense",
        "shape": np.array([size]),
        "inFeatures": inputs,
        "outFeatures": size,
        "weight": weight,
        "neuron": NEURON,
        **changes,
    }


def neuron(**changes: Any) -> dict[str, Any]:
    return dense(neuron={**NEURON, **changes})


def ran(graph: Graph, schedule: Any, x: Array) -> Array:
    (outputs,) = MachineStream(plan(graph, schedule)).run(x).values()
    return outputs


# --------------------------------------------------------------------------------------------------------------------
# What is read


@pytest.mark.hypothesis
def test_what_was_written_comes_back(tmp_path: Path) -> None:
    """Random chains: the same outputs at every step, and written again the same bytes."""
    same, seeds = 0, examples(30)
    for seed in range(seeds):
        case = chained(seed)
        try:
            export_netx(case.plan, tmp_path / "a.net")
        except InfeasibleError:
            continue
        graph = read_netx(tmp_path / "a.net")
        assert graph.level is Level.INTEGER
        (x,) = case.inputs.values()
        (entry,) = case.plan.entries
        if entry.graded:
            graph = declare(graph, 9.0)
        expected = ran(case.plan.graph, case.plan.schedule, x)
        np.testing.assert_array_equal(ran(graph, case.plan.schedule, x), expected, err_msg=f"graph {seed}")
        export_netx(plan(graph, case.plan.schedule), tmp_path / "b.net")
        assert (tmp_path / "a.net").read_bytes() == (tmp_path / "b.net").read_bytes()
        same += 1
    assert same > seeds * 2 // 3 - 1


def test_a_file_of_slayer_is_what_it_says(tmp_path: Path) -> None:
    """By the equations: odd weights, a bias in steps of 64, du = iDecay - 1, no readout."""
    weight = np.array([[1, -3, 5, 7], [2, 0, -128, 127]], dtype=np.float32)
    path = slayer(tmp_path / "a.net", [dense(2, weight=weight, bias=np.array([3.0, -4.0])), dense(3, 2)])
    graph = nervecord.read(path)
    assert isinstance(graph, Graph)
    first, second = graph.nodes["dense1"], graph.nodes["neurons2"]
    assert isinstance(first, Dense)
    np.testing.assert_array_equal(first.weight * 2.0**first.weight_exp, weight)
    neurons = graph.nodes["neurons1"]
    assert isinstance(neurons, Neuron)
    assert neurons.synapse == IntegerSynapse(1024)
    assert neurons.membrane == IntegerMembrane(128, np.array([3, -4]), 6)
    assert neurons.spike == IntegerSpike(80)
    assert isinstance(second, Neuron)
    assert second.spikes
    assert (graph.dt, graph.arithmetic) == (1e-3, LAVA)
    assert nervecord.read(path, dt=5e-4).dt == 5e-4  # type: ignore[union-attr]
    # One step of the equations by hand: what entered a step ago, W x * 64 + bias * 64, decayed as Lava decays.
    machine = MachineStream(graph)
    x = np.array([1, 0, 1, 0])
    machine.step(x)
    machine.step(np.zeros(4))
    state = machine.state()["neurons1"]
    assert state["u"].tolist() == [[6 * 64, -126 * 64]]
    bias = np.array([3, -4]) * 64
    leaked = np.sign(bias) * (np.abs(bias) * (4096 - 128) >> 12)  # the bias of the step before
    assert state["v"].tolist() == [(leaked + np.array([6, -126]) * 64 + bias).tolist()]


def test_a_network_of_slayer_gives_the_spikes_that_slayer_computed() -> None:
    """Exported by lava-dl 0.6.0's own blocks (tests/data/slayer/make.py): every neuron, every step."""
    graph = nervecord.read(SLAYER / "network.net")
    recorded = np.load(SLAYER / "spikes.npz")
    outputs = nervecord.simulate(graph, recorded["x"].T).outputs
    for k in (1, 2, 3):
        expected = recorded[f"y{k}"].T
        np.testing.assert_array_equal(outputs[f"neurons{k}"][:, 0], expected, err_msg=f"layer {k}")
        assert expected.sum() > 20
    with nervecord.stream(SLAYER / "network.net") as session:
        np.testing.assert_array_equal(session.run(recorded["x"].T)["output"][:, 0], recorded["y3"].T)


def test_delays_of_slayer_are_refused() -> None:
    with pytest.raises(InfeasibleError, match=r"layer 0: .*delays .*\d+ steps"):
        nervecord.read(SLAYER / "delayed.net")


@pytest.mark.long
@pytest.mark.parametrize("engine", ["emulator", "definition", pytest.param("lava", marks=pytest.mark.lava)])
def test_it_is_inspected_simulated_and_compiled(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = slayer(tmp_path / "net.net", [dense(6, 4), dense(3, 6)])
    report = nervecord.inspect(path, "lava")
    assert report.targets[0].verdict == "feasible"
    x = (np.random.default_rng(0).random((40, 4)) < 0.5).astype(np.int64)
    simulated = nervecord.simulate(path, x)
    assert simulated.left["output"].any()
    program = nervecord.compile(path, "lava")
    program.save(tmp_path / "net.nervecord")
    with nervecord.stream(nervecord.load(tmp_path / "net.nervecord"), engine=engine) as session:
        np.testing.assert_array_equal(session.run(x)["output"], simulated.left["output"][:, 0][:, None])
    with nervecord.stream(path, engine=engine) as session:
        np.testing.assert_array_equal(session.run(x)["output"][:, 0], simulated.left["output"][:, 0])
    (emitted,) = nervecord.emit(program, tmp_path / "again")
    with h5py.File(path) as a, h5py.File(emitted.path) as b:
        for k in range(2):
            np.testing.assert_array_equal(a["layer"][str(k)]["weight"], b["layer"][str(k + 1)]["weight"])


def test_graded_input_and_windows_are_the_callers_to_say(tmp_path: Path) -> None:
    path = slayer(tmp_path / "net.net", [dense(6, 4), dense(3, 6)])
    program = nervecord.compile(path, "lava", inputs=12.0, steps=5)
    assert program.schedule.resets
    assert program.graph.nodes["input"].bound == 12.0
    assert nervecord.stream(program).run(np.full((20, 4), 11))["output"].shape == (20, 1, 3)


def test_a_policys_core_comes_back(tmp_path: Path) -> None:
    policy = random_policy(sizes=(27, 24, 8))
    program = nervecord.compile(policy, "lava", netx=True)
    (emitted,) = nervecord.emit(program, tmp_path)
    graph = read_netx(emitted.path)
    last = graph.nodes["neurons2"]
    assert isinstance(last, Neuron)
    assert not last.spikes  # the readout, by its threshold
    assert [op.size for op in graph.nodes.values()][-1] == 8


def test_the_reference_keeps_its_integers_and_a_chip_of_another_arithmetic_refuses_them(tmp_path: Path) -> None:
    path = slayer(tmp_path / "net.net", [dense()])
    program = nervecord.compile(path, "reference")
    assert program.graph == nervecord.compile(path, "lava").graph
    assert nervecord.inspect(path, "reference").feasible
    four = {"weight_bits": 8, "membrane_bits": 24, "decay_bits": 12, "threshold_bits": 17}
    other = nervecord.IntegerTarget(spec_from_dict({"name": "mine", "arithmetic": four}))
    with pytest.raises(InfeasibleError, match="is in integers already, of an arithmetic that is not this target's"):
        nervecord.compile(path, other)
    assert "foreign-integers" in [finding.code for finding in nervecord.inspect(path, other).targets[0].findings]


# --------------------------------------------------------------------------------------------------------------------
# What is refused

NO_NET: dict[str, tuple[list[dict[str, Any]], str]] = {
    "a convolution": ([{"type": b"conv", "shape": [3]}], "layer 0: is a layer of type 'conv', and only dense"),
    "an average": ([dense(), {"type": b"average"}], "layer 1: is a layer of type 'average'"),
    "an input with neurons": (
        [{"type": b"input", "shape": [4], "neuron": NEURON}, dense()],
        "layer 0: its input layer",
    ),
    "no dense layer": ([{"type": b"input", "shape": [4]}], "has no dense layer"),
    "an input of another size": (
        [{"type": b"input", "shape": [5]}, dense()],
        r"its weight has shape \(3, 4\), \(3, 5\)",
    ),
    "layers that do not fit": ([dense(), dense(2, 4)], r"layer 1: its weight has shape \(2, 4\), \(2, 3\) is needed"),
    "a weight that is no number": ([dense(weight=np.full((3, 4), np.nan))], "weight holds other than integers"),
    "half a weight": ([dense(weight=np.full((3, 4), 0.5))], "weight holds other than integers below"),
    "huge weights": ([dense(weight=np.full((3, 4), 1e30))], "weight holds other than integers below"),
    "odd weights beyond 127": ([dense(weight=np.array([[201.0, -3, 0, 1]] * 3))], "netx would not keep its weights"),
    "zeros": ([dense(weight=np.zeros((3, 4)))], "netx would not keep its weights"),
    "delays": ([dense(delay=np.array([0.0, 3, 1]))], "delays up to 3 steps, which netx drops"),
    "a bias of another size": ([dense(bias=np.zeros(2))], r"its bias has shape \(2,\)"),
    "a large bias": ([dense(bias=np.full(3, 5000.0))], "values up to 5000"),
    "sigma-delta neurons": ([neuron(type=b"SDNN")], "neuron: is of type 'SDNN', and only CUBA and LOIHI"),
    "graded spikes": ([neuron(gradedSpike=True)], "gradedSpike is 1, and only 0 is read"),
    "a refractory period": ([neuron(refDelay=4)], "refDelay is 4, and only 1 is read"),
    "a decay that is none": ([neuron(iDecay=0)], "iDecay is 0, 1 to 4096 is needed"),
    "a decay beyond 12 bits": ([neuron(vDecay=5000)], "vDecay is 5000, 0 to 4095 is needed"),
    "a threshold beyond 17 bits": ([neuron(vThMant=1 << 17)], "vThMant is 131072, 0 to 131071"),
    "a threshold for each neuron": ([neuron(vThMant=[1, 2, 3])], r"vThMant has shape \(3,\), one number is needed"),
    "no neurons": ([{k: v for k, v in dense().items() if k != "neuron"}], "layer 0, neuron: is missing"),
    "no shape": ([{k: v for k, v in dense().items() if k != "shape"}], "layer 0: shape is missing"),
    "a huge shape": ([dense(shape=np.array([1 << 30]))], "its weight has shape"),
}


@pytest.mark.parametrize("kind", NO_NET)
def test_what_is_refused_by_the_place_in_the_file(kind: str, tmp_path: Path) -> None:
    layers, words = NO_NET[kind]
    path = slayer(tmp_path / "bad.net", layers)
    with pytest.raises(NervecordError, match=words) as caught:
        nervecord.read(path)
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, (FileFormatError, InfeasibleError))


def test_layers_must_be_numbered(tmp_path: Path) -> None:
    path = slayer(tmp_path / "bad.net", [dense(), dense(2, 3)])
    with h5py.File(path, "a") as file:
        file.move("layer/1", "layer/7")
    with pytest.raises(FileFormatError, match=r"2 layers .*0 to 1: 1"):
        nervecord.read(path)


def test_files_of_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "text.net").write_text("layer")
    with pytest.raises(FileFormatError, match="is not an HDF5 file"):
        nervecord.read(tmp_path / "text.net")
    with h5py.File(tmp_path / "other.net", "w") as file:
        file.create_group("node")
    with pytest.raises(FileFormatError, match="is HDF5 and no netx file"):
        nervecord.read(tmp_path / "other.net")
    with h5py.File(tmp_path / "linked.net", "w") as file:
        file["layer"] = h5py.ExternalLink("/etc/passwd", "/")
    with pytest.raises(FileFormatError, match="is a link into another file"):
        nervecord.read(tmp_path / "linked.net")
    with pytest.raises(NervecordError, match=r"\bdt\b.*\bnan s"):
        nervecord.read(tmp_path / "linked.net", dt=float("nan"))


@pytest.mark.reader_process
@settings(max_examples=examples(30), deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_in_one_sentence(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Bytes changed anywhere: a graph still, or a refusal; never anything else."""
    folder = tmp_path_factory.mktemp("damaged")
    path = slayer(folder / "a.net", [dense(), dense(2, 3)])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        graph = read_netx(path)
    except NervecordError as error:
        assert "\n" not in str(error) or "layer" in str(error)  # noqa: PT017
    else:
        assert graph.level is Level.INTEGER
