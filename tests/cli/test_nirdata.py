"""NIRData beside npz: simulate and run write it, nir reads it, simulate and compare take it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from nets import write_integrators

ZERO = ("--dt", "1e-3", "--reset", "zero")


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_integrators(tmp_path / "net.nir")
    np.savez("spikes.npz", input=(np.random.default_rng(4).random((60, 6)) < 0.4).astype(float))
    return tmp_path / "net.nir"


def test_simulate_writes_what_nir_reads_and_takes_it_again(network: Path, nervecord_cli: Any) -> None:
    assert nervecord_cli("simulate", network, *ZERO, "--input", "spikes.npz", "-o", "trace.nir").code == 0
    assert nervecord_cli("simulate", network, *ZERO, "--input", "spikes.npz", "-o", "trace.npz").code == 0
    data, plain = nir.read_data("trace.nir"), np.load("trace.npz")
    for name in ("one", "two"):
        spikes = data.nodes[name].observables["spikes"]
        assert (spikes.dt, spikes.data.dtype) == (1e-3, bool)
        np.testing.assert_array_equal(spikes.data.swapaxes(0, 1), plain[name])
    assert set(data.nodes) == set(nir.read("net.nir").nodes)
    assert nervecord_cli("simulate", network, *ZERO, "--input", "trace.nir", "-o", "again.npz").code == 0
    np.testing.assert_array_equal(np.load("again.npz")["two"], plain["two"])
    words = ("compare", network, network, *ZERO, "--tolerance", 0, "--json")
    for file in ("trace.nir", "spikes.npz"):
        assert nervecord_cli(*words, "--input", file).json["observations"] == 60


def test_events_are_sorted_into_steps(network: Path, nervecord_cli: Any) -> None:
    spikes = np.load("spikes.npz")["input"]
    spikes[-7:] = 0  # the recording ends later than its last event
    np.savez("spikes.npz", input=spikes)
    step, neuron = np.nonzero(spikes)
    events = nir.EventData(neuron[None], step[None] * 1e-3 + 4e-4, 6, 0.06)
    nir.write_data("events.nir", nir.NIRGraphData({"input": nir.NIRNodeData({"input": events})}))
    for name in ("spikes.npz", "events.nir"):
        assert nervecord_cli("simulate", network, *ZERO, "--input", name, "-o", f"{name}.npz").code == 0
    assert len(np.load("events.nir.npz")["two"]) == 60
    np.testing.assert_array_equal(np.load("events.nir.npz")["two"], np.load("spikes.npz.npz")["two"])
    # nir's own conversion gives the same steps, and its times the same ones, rounded as they are.
    grid = nir.TimeGriddedData(spikes[None].astype(bool), 1e-3)
    nir.write_data("events.nir", nir.NIRGraphData({"input": nir.NIRNodeData({"input": grid.to_event(400)})}))
    assert nervecord_cli("simulate", network, *ZERO, "--input", "events.nir", "-o", "again.npz").code == 0
    np.testing.assert_array_equal(np.load("again.npz")["two"], np.load("spikes.npz.npz")["two"])
    words = ("compare", network, network, *ZERO, "--tolerance", 0, "--json", "--input", "events.nir")
    assert nervecord_cli(*words).json["observations"] == 60


def test_a_run_leaves_a_trace(files: Path, nervecord_cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program = files / "pendulum.nervecord"
    answer = nervecord_cli("run", program, "--episodes", 1, "--trace", "episode.nir", "--json")
    assert answer.json["trace"] == "episode.nir"
    data = nir.read_data("episode.nir")
    steps = int(answer.json["length_mean"])
    assert data.nodes["observation"].observables["input"].data.shape == (1, steps, 3)
    assert data.nodes["lif1"].observables["spikes"].data.shape[1] % steps == 0
    assert data.nodes["observation"].observables["input"].dt == 0.05  # an observation comes once an action
    assert data.nodes["lif1"].observables["spikes"].dt == 1e-3
    # The observations drive the policy again, in simulate and in compare.
    words = ("compare", files / "pendulum.nir", program, "--observations", "episode.nir", "--json")
    assert nervecord_cli(*words).json["observations"] == steps
    assert nervecord_cli("simulate", program, "--input", "episode.nir", "-o", "again.npz").code == 0
    trace = np.load("again.npz")["lif1"]
    per, window = data.nodes["lif1"].observables["spikes"].data.shape[1] // steps, len(trace) // steps
    useful = trace.reshape(steps, window, -1)
    assert any(
        (useful[:, k : k + per].reshape(steps * per, -1) == data.nodes["lif1"].observables["spikes"].data[0]).all()
        for k in range(window - per + 1)
    )


def single_event(neuron: int, time: float, end: float) -> None:
    data = nir.EventData(np.array([[neuron]]), np.array([[time]]), 6, end)
    nir.write_data("x.nir", nir.NIRGraphData({"input": nir.NIRNodeData({"input": data})}))


def attribute(name: str, value: Any) -> None:
    grid = nir.TimeGriddedData(np.zeros((1, 4, 6)), 1e-3)
    nir.write_data("x.nir", nir.NIRGraphData({"input": nir.NIRNodeData({"input": grid})}))
    with h5py.File("x.nir", "a") as file:
        file["nodes/input/observables/input"].attrs[name] = value


def events(**fields: Any) -> None:
    """A list of two events, some of whose fields are others."""
    data = nir.EventData(np.array([[0, 1]]), np.array([[0.0, 0.001]]), 6, 16001.0)
    nir.write_data("x.nir", nir.NIRGraphData({"input": nir.NIRNodeData({"input": data})}))
    with h5py.File("x.nir", "a") as file:
        group = file["nodes/input/observables/input"]
        for name, values in fields.items():
            del group[name]
            group[name] = np.array(values)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda: nir.write_data("x.nir", nir.NIRGraphData({})), "'input'"),
        (lambda: Path("x.nir").write_bytes(Path("net.nir").read_bytes()), "a graph, "),
        (lambda: Path("x.nir").write_bytes(Path("net.nir").read_bytes()[:900]), "damaged"),
        (
            lambda: nir.write_data(
                "x.nir",
                nir.NIRGraphData({"input": nir.NIRNodeData({"input": nir.TimeGriddedData(np.zeros((1, 4, 5)), 1e-3)})}),
            ),
            "(1, 4, 5), (samples, steps, 6)",
        ),
        (
            lambda: nir.write_data(
                "x.nir",
                nir.NIRGraphData(
                    {"input": nir.NIRNodeData({"input": nir.EventData(np.array([[99]]), np.array([[0.0]]), 100, 1.0)})}
                ),
            ),
            "100 neurons, 6 ",
        ),
        (lambda: single_event(99, 0.0, 1.0), "6 neurons and 1 s"),
        (lambda: single_event(0, 0.3, 0.2), "6 neurons and 0.2 s"),
        (lambda: single_event(0, 0.3, float("inf")), "inf s"),
        (lambda: single_event(0, 0.3, 1e9), "1e+09 s, 1 to 16,777,216"),
        (
            lambda: nir.write_data(
                "x.nir",
                nir.NIRGraphData({"input": nir.NIRNodeData({"input": nir.TimeGriddedData(np.zeros((1, 4, 6)), 1e-4)})}),
            ),
            " 0.0001 s, and a step is 0.001 s",
        ),
        (lambda: attribute("dt", "soon"), " dt is "),
        (lambda: attribute("dt", np.ones(3)), " dt "),
        (lambda: events(idx=[[np.nan, 1e300]]), "whose neurons are no integers"),
        (lambda: events(idx=np.array([[2**64 - 1, 0]], dtype=np.uint64)), "6 neurons"),
        (lambda: events(idx=[[True, False]]), "neurons are no"),
        (lambda: events(time=[[0.0, 16000.0]]), "16001000 steps of 6 "),
    ],
)
def test_recordings_that_are_none(write: Any, words: str, network: Path, nervecord_cli: Any) -> None:
    write()
    nervecord_cli("simulate", network, *ZERO, "--input", "x.nir").refused(words)


def test_a_recording_is_no_graph(network: Path, nervecord_cli: Any) -> None:
    nir.write_data("x.nir", nir.NIRGraphData({}))
    nervecord_cli("compare", network, "x.nir", *ZERO).refused("x.nir: ", "NIRData: --input ")
