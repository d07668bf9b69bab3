"""The verb `compare`: where two policies part, and whether they agree as closely as was asked."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from nets import write_integrators
from policies import RECORDED

import nervecord
from nervecord.cli.command import main
from nervecord.runtime.measure.compare import Comparison, LayerComparison


@pytest.mark.parametrize("mode", ["free", "layers"])
def test_compare_a_policy_with_its_program(mode: str, nervecord_cli: Any, files: Path) -> None:
    answer = nervecord_cli("compare", files / "ant.nir", files / "ant.nervecord", "--mode", mode, "--json")
    assert (answer.code, answer.err) == (0, "")
    data = answer.json
    assert (data["mode"], data["observations"], data["b"]) == (mode, RECORDED, "emulator")
    assert [layer["layer"] for layer in data["layers"]] == ["lif1", "readout"]
    assert data["identical"] is False
    assert {"action", "step", "layer", "neuron", "a", "b"} == set(data["first"])
    assert 0 < data["action_rms"] < data["action_max"]
    text = nervecord_cli("compare", files / "ant.nir", files / "ant.nervecord", "--mode", mode).out
    assert f"they part at action {data['first']['action']}, step" in text


def test_compare_engines_on_rows_of_a_file(nervecord_cli: Any, files: Path) -> None:
    path = files / "ant.nervecord"
    answer = nervecord_cli(
        "compare", path, path, "--engine-b", "definition", "--observations", files / "rows.npz", "--json"
    )
    assert (answer.json["identical"], answer.json["observations"], answer.json["first"]) == (True, 10, None)
    assert (answer.json["a"], answer.json["b"]) == ("emulator", "definition")


@pytest.mark.parametrize("mode", ["free", "layers"])
def test_compare_within_a_tolerance(mode: str, nervecord_cli: Any, files: Path) -> None:
    words = ("compare", files / "ant.nir", files / "ant.nervecord", "--mode", mode, "--json", "--tolerance")
    loose, tight, nothing = (nervecord_cli(*words, value) for value in (10, 1e-9, 0))
    assert [answer.code for answer in (loose, tight, nothing)] == [0, 2, 2]
    assert [answer.json["agrees"] for answer in (loose, tight, nothing)] == [True, False, False]
    # Spikes differ within any tolerance, and are named all the same.
    assert loose.json["identical"] is False
    assert loose.json["first"] is not None
    assert loose.json["tolerance"] == 10
    assert nervecord_cli(*words[:-2], "--tolerance", 10).out.endswith("\nwithin the tolerance of 10\n")
    assert nervecord_cli(*words[:-2], "--tolerance", 0).out.endswith("\nbeyond the tolerance of 0\n")


def test_compare_asks_for_everything_with_a_tolerance_of_zero(nervecord_cli: Any, files: Path) -> None:
    path, rows = files / "ant.nervecord", files / "rows.npz"
    words = ("compare", path, path, "--engine-b", "definition", "--observations", rows, "--tolerance", 0)
    assert nervecord_cli(*words).code == 0
    assert nervecord_cli(*words[:-2], "--json").json["agrees"] is True


def compared(**changes: Any) -> Comparison:
    """A comparison of a policy with one layer of spikes and a readout; equal but for the changes."""
    return Comparison(
        **{
            "a": "x",
            "b": "y",
            "mode": "free",
            "observations": 5,
            "epsilon": 0.0,
            "tolerance": 0.5,
            "alone": (),
            "layers": (
                LayerComparison("lif", True, 10, changes.pop("spikes", 0), None, 1.0, None),
                LayerComparison("readout", False, 10, changes.pop("membranes", 0), None, 0.4, None),
            ),
            "action_rms": 0.1,
            "action_max": 0.4,
            "actions_different": 3,
            "actions_beyond": 0,
            "first": None,
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("comparison", "within"),
    [
        (compared(actions_different=0), True),
        (compared(), True),
        (compared(spikes=4), True),
        (compared(actions_beyond=1), False),
        (compared(membranes=1), False),
        (compared(tolerance=0.0, actions_different=0), True),
        (compared(tolerance=0.0, actions_beyond=3), False),
        (compared(tolerance=0.0, actions_different=0, spikes=1), False),
        (compared(action_max=None, action_rms=None, actions_beyond=3), False),
    ],
)
def test_what_lies_within_a_tolerance(comparison: Comparison, within: bool) -> None:
    assert comparison.agrees is within


def test_compare_without_observations(nervecord_cli: Any, files: Path) -> None:
    path = files / "ant.nervecord"
    nervecord_cli("compare", path, path).refused("observations: ")
    nervecord_cli("compare", files / "ant.nir", files / "pendulum.nir").refused("observations: ", f"({RECORDED}, 27)")


# --------------------------------------------------------------------------------------------------------------------
# Networks of other tools


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.nir, other.nir (a weight differs), renamed.nir, net.nervecord (in fixed point), spikes.npz."""
    folder = tmp_path_factory.mktemp("networks")
    write_integrators(folder / "net.nir")
    write_integrators(folder / "other.nir", change=0.5)
    write_integrators(folder / "renamed.nir", names=("lif1", "lif2"))
    words = ["compile", folder / "net.nir", "--dt", "1e-3", "--reset", "zero", "--inputs", "spikes"]
    assert main([*map(str, words), "-o", str(folder / "net.nervecord"), "--quiet"]) == 0
    np.savez(folder / "spikes.npz", input=(np.random.default_rng(4).random((60, 6)) < 0.4).astype(float))
    return folder


ZERO = ("--dt", "1e-3", "--reset", "zero", "--input", "spikes.npz")


@pytest.mark.parametrize("mode", ["free", "layers"])
@pytest.mark.parametrize(
    "pair", [("net.nir", "net.nervecord"), ("net.nervecord", "net.nir"), ("net.nir", "renamed.nir")]
)
def test_compare_a_network_with_its_program(
    mode: str, pair: tuple[str, str], nervecord_cli: Any, networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The program's second layer works two steps later: step k means the same on both sides all the same.
    monkeypatch.chdir(networks)
    answer = nervecord_cli("compare", *pair, *ZERO, "--mode", mode, "--tolerance", 0, "--json")
    assert (answer.code, answer.err) == (0, "")
    data = answer.json
    assert (data["stream"], data["observations"], data["identical"]) == (True, 60, True)
    assert [layer["compared"] for layer in data["layers"]] == [300, 180]
    assert data["action_max"] == 0


@pytest.mark.parametrize("other", ["other.nir", "other.nervecord"])
def test_compare_names_the_first_step_layer_and_neuron(
    other: str, nervecord_cli: Any, networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(networks)
    words = ("compile", "other.nir", "--dt", "1e-3", "--reset", "zero", "--inputs", "spikes", "-o", "other.nervecord")
    assert nervecord_cli(*words).code == 0
    answer = nervecord_cli("compare", "net.nir", other, *ZERO, "--mode", "layers", "--tolerance", 0, "--json")
    one, two = answer.json["layers"]
    assert answer.code == 2
    assert (one["different"], two["first"]["neuron"]) == (0, 2)
    assert answer.json["first"] == two["first"] | {"layer": "two", "action": None}
    # The step is that of the recording at which the two networks, run alone, part.
    rows = [
        nervecord.simulate(nervecord.read(f, dt=1e-3, reset="zero"), np.load("spikes.npz")["input"]).outputs["two"]
        for f in ("net.nir", "other.nir")
    ]
    steps = np.flatnonzero((rows[0] != rows[1]).any(axis=(1, 2)))
    assert two["first"]["step"] == steps[0]
    assert (
        f"they part at step {steps[0]}, layer two, neuron 2: " in nervecord_cli("compare", "net.nir", other, *ZERO).out
    )
    for needed in ("plotly", "jinja2", "networkx"):
        pytest.importorskip(needed)
    nervecord_cli("compare", "net.nir", other, *ZERO, "--html", "report.html")
    assert f"First at step {steps[0]}, layer two" in Path("report.html").read_text()


def test_compare_blocks_whose_state_is_cleared(
    nervecord_cli: Any, networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(networks)
    program = tmp_path / "blocks.nervecord"
    compiled = ("compile", "net.nir", "--dt", "1e-3", "--reset", "zero", "--inputs", "spikes", "--steps", 7)
    assert nervecord_cli(*compiled, "-o", program).code == 0
    for mode in ("free", "layers"):
        words = ("compare", "net.nir", program, *ZERO, "--mode", mode, "--tolerance", 0)
        assert nervecord_cli(*words).code == 0  # the program says that its state is cleared before each 7 steps
    assert nervecord_cli("compare", "net.nir", "net.nir", *ZERO, "--steps", 7, "--json").json["identical"] is True
    nervecord_cli("compare", "net.nervecord", program, "--input", "spikes.npz").refused("state", "--steps N")


def test_compare_a_network_with_a_contract(
    nervecord_cli: Any, networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(networks)
    contract, program = tmp_path / "contract.toml", tmp_path / "policy.nervecord"
    contract.write_text(
        'environment = "robot"\nsteps = 4\nstate = "reset"\ncontrol_period = 0.02\n[observation]\n'
        'names = ["a", "b", "c", "d", "e", "f"]\nunits = ["1", "1", "1", "1", "1", "1"]\n[action]\n'
        'choices = ["x", "y", "z"]\nfail_safe = "x"\n[encoder]\nkind = "spikes"\n[decoder]\nkind = "choice"\n'
    )
    network = ("--dt", "1e-3", "--reset", "zero", "--contract", contract)
    compiled = ("compile", "net.nir", *network, "--calibration", "spikes.npz", "-o", program)
    assert nervecord_cli(*compiled).code == 0
    compared = ("compare", "net.nir", program, *network, "--observations", "spikes.npz", "--tolerance", 0, "--json")
    answer = nervecord_cli(*compared)
    assert (answer.code, answer.json["stream"], answer.json["observations"]) == (0, False, 60)
    # Without it the network is none, and the hint names a flag that is there.
    plain = ("compare", "net.nir", program, "--dt", "1e-3", "--reset", "zero", "--observations", "spikes.npz")
    nervecord_cli(*plain).refused("--contract FILE")


def test_compare_hints_name_its_own_flags(
    nervecord_cli: Any, networks: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(networks)
    help_text = nervecord_cli("compare", "--help").out
    for words in (
        ("net.nir", "net.nir"),
        ("net.nir", "net.nir", "--dt", "1e-3"),
        ("net.nir", files / "ant.nir", "--dt", "1e-3"),
        (files / "ant.nervecord", files / "ant.nervecord"),
        ("net.nervecord", "net.nervecord", "--input", "spikes.npz", "--dt", "1e-3"),
        (files / "ant.nir", files / "ant.nir", "--input", "spikes.npz"),
        ("net.nervecord", "net.nir", *ZERO, "--steps", 3),
    ):
        answer = nervecord_cli("compare", *words)
        assert answer.code == 2
        flags = set(re.findall(r"--[a-z-]+", answer.err))
        assert flags, answer.err
        assert all(f"  {flag} " in help_text for flag in flags), (flags, answer.err)


def test_a_convolution_and_its_program_take_the_same_recording(nervecord_cli: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)

    def with_largest(weight: np.ndarray) -> np.ndarray:
        weight.flat[0] = 127  # so that mantissas of 8 bits hold them exactly
        return weight / 128

    nodes = {
        "input": nir.Input({"input": np.array([2, 6, 6])}),
        "conv": nir.Conv2d((6, 6), with_largest(rng.integers(-60, 127, (3, 2, 3, 3))), 1, 1, 1, 1, np.zeros(3)),
        "if1": nir.IF(np.full((3, 6, 6), 1e3), np.ones((3, 6, 6)), np.zeros((3, 6, 6))),
        "flatten": nir.Flatten({"input": np.array([3, 6, 6])}, 0, -1),
        "fc": nir.Linear(with_largest(rng.integers(-60, 127, (4, 108)))),
        "if2": nir.IF(np.full(4, 1e3), np.ones(4), np.zeros(4)),
        "output": nir.Output({"output": np.array([4])}),
    }
    path, program, recording = tmp_path / "cnn.nir", tmp_path / "cnn.nervecord", tmp_path / "spikes.npz"
    nir.write(path, nir.NIRGraph(nodes, list(itertools.pairwise(nodes)), type_check=False))
    compiled = ("compile", path, "--dt", "1e-3", "--reset", "zero", "--inputs", "spikes", "-o", program)
    assert nervecord_cli(*compiled).code == 0
    spikes = (rng.random((20, 2, 6, 6)) < 0.3).astype(float)
    trace = tmp_path / "trace.npz"
    outputs = {}
    for form in (spikes, spikes.reshape(20, 72), spikes[:, None], spikes.reshape(20, 1, 72)):
        np.savez(recording, input=form)
        for file, words in ((path, ("--dt", "1e-3", "--reset", "zero")), (program, ("--engine", "emulator"))):
            assert nervecord_cli("simulate", file, "--input", recording, *words, "-o", trace).code == 0
            outputs.setdefault(file, []).append(np.load(trace)["output"])
    assert all((rows == outputs[path][0]).all() for rows in outputs[path])
    assert all((rows == outputs[program][0]).all() for rows in outputs[program])
    assert (outputs[path][0][:-2] == outputs[program][0][2:]).all()
    words = ("compare", path, program, "--dt", "1e-3", "--reset", "zero", "--input", recording, "--mode", "layers")
    assert nervecord_cli(*words, "--tolerance", 0).code == 0
    np.savez(recording, input=spikes[:, :1])
    nervecord_cli("simulate", program, "--input", recording).refused("(20, 1, 6, 6)", "72", notes=1)
