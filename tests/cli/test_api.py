"""The Python API, used as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nervecord
from nervecord.compiler.files.program import Program
from nervecord.compiler.findings import Finding
from nervecord.compiler.graph.graph import Graph, Level
from nervecord.errors import ContractError, FileFormatError, GraphError, NervecordError
from nervecord.runtime.session import Session

DATA = Path(__file__).parent.parent / "data"
FUNCTIONS = (
    "compare",
    "compile",
    "inspect",
    "list_targets",
    "load",
    "open",
    "read",
    "run",
    "simulate",
    "target",
    "train",
)


# --------------------------------------------------------------------------------------------------------------------
# Names


def test_all_is_complete_and_every_name_is_there() -> None:
    assert sorted(nervecord.__all__) == list(nervecord.__all__)
    assert set(FUNCTIONS) <= set(nervecord.__all__)
    assert set(nervecord._ELSEWHERE) <= set(nervecord.__all__)
    for name in nervecord.__all__:
        assert getattr(nervecord, name).__module__.startswith("nervecord")
        assert name in dir(nervecord)
    public = {
        name
        for name, value in vars(nervecord).items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", "") == "nervecord"
    }
    assert public <= set(nervecord.__all__)
    assert "__version__" in dir(nervecord)


def test_functions_are_documented() -> None:
    for name in FUNCTIONS:
        assert len(getattr(nervecord, name).__doc__) > 60, name


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'nervecord' has no attribute 'trian'"):
        nervecord.trian  # noqa: B018


def test_types_are_the_ones_the_rooms_define() -> None:
    assert nervecord.Graph is Graph
    assert nervecord.Program is Program
    assert nervecord.Session is Session
    assert nervecord.Finding is Finding


def test_each_step_imports_what_it_needs_and_no_more(files: Path, tmp_path: Path) -> None:
    code = f"""
import sys
def loaded(*names):
    return [name for name in names if name in sys.modules]
import nervecord
assert loaded("numpy", "numba", "torch", "mujoco", "gymnasium", "nir", "h5py") == []
policy = nervecord.read({str(files / "ant.nir")!r})
program = nervecord.compile(policy)
program.save("ant.nervecord")
nervecord.inspect("ant.nervecord")
assert loaded("numba", "torch", "mujoco", "gymnasium", "nir", "h5py", "matplotlib") == []
with nervecord.open("ant.nervecord") as session:
    session.step([0.0] * 27)
assert loaded("numba") == ["numba"]
assert loaded("torch", "mujoco", "gymnasium", "matplotlib") == []
nervecord.TrainConfig()
assert loaded("torch", "mujoco", "gymnasium", "matplotlib") == []
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (process.returncode, process.stderr) == (0, "")
    assert os.listdir(tmp_path) == ["ant.nervecord"]


# --------------------------------------------------------------------------------------------------------------------
# The line from file to result


def test_from_a_file_to_a_program_and_its_actions(files: Path, tmp_path: Path) -> None:
    policy = nervecord.read(files / "ant.nir")
    assert isinstance(policy, nervecord.Policy)
    assert policy.graph.level is Level.DISCRETE
    program = nervecord.compile(policy, target="lava")
    program.save(tmp_path / "ant.nervecord")
    again = nervecord.load(tmp_path / "ant.nervecord")
    assert again.graph == program.graph
    rows = np.random.default_rng(0).normal(size=(20, 27))
    with nervecord.open(tmp_path / "ant.nervecord") as a, nervecord.open(again, engine="definition") as b:
        assert isinstance(a, Session)
        for row in rows:
            action = a.step(row)
            assert action.shape == (8,)
            assert np.array_equal(action, b.step(row))
        a.reset(batch=4)
        assert a.step(rows[:4]).shape == (4, 8)


def test_paths_may_be_text(files: Path) -> None:
    path = str(files / "ant.nir")
    assert nervecord.read(path) == nervecord.read(files / "ant.nir")
    assert nervecord.compile(path).to_bytes() == nervecord.compile(files / "ant.nir").to_bytes()
    assert nervecord.load(str(files / "ant.nervecord")).target == "lava"


def test_opening_a_policy_runs_it_in_floats(files: Path) -> None:
    row = np.random.default_rng(0).normal(size=27)
    graph = nervecord.read(files / "ant.nir")
    with nervecord.open(graph) as a, nervecord.open(files / "ant.nir") as b:
        action = a.step(row)
        assert np.array_equal(action, b.step(row))
    trace = nervecord.simulate(graph, row[None])
    assert trace.actions is not None
    assert np.array_equal(trace.actions[0, 0], action)


def test_calibration_by_array_and_by_file(files: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(3).normal(size=(40, 27))
    np.save(tmp_path / "rows.npy", rows)
    policy = nervecord.read(files / "ant.nir")
    by_array = nervecord.compile(policy, calibration=rows).to_bytes()
    assert nervecord.compile(policy, calibration=tmp_path / "rows.npy").to_bytes() == by_array
    assert nervecord.compile(policy).to_bytes() != by_array


def test_targets_by_name_and_by_value(files: Path) -> None:
    four = nervecord.target("lava", weight_bits=4)
    assert nervecord.compile(files / "ant.nir", four).to_bytes() == (
        nervecord.compile(files / "ant.nir", "lava", weight_bits=4).to_bytes()
    )
    specs = {spec.name: spec for spec in nervecord.list_targets()}
    assert specs["lava"] == nervecord.target("lava").spec
    assert nervecord.target("reference").spec.engines == specs["reference"].engines
    assert nervecord.target() == nervecord.target("lava")
    assert isinstance(four, nervecord.Target)


def test_dump_and_explain(files: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    nervecord.compile(files / "ant.nir", dump=tmp_path / "dump", explain=lines.append)
    assert len(os.listdir(tmp_path / "dump")) == 3
    assert lines


def test_inspect_of_a_graph_a_program_and_a_file(files: Path) -> None:
    graph, program = nervecord.read(files / "ant.nir"), nervecord.load(files / "ant.nervecord")
    reports = [nervecord.inspect(it, ["lava"]) for it in (graph, files / "ant.nir")]
    assert reports[0] == reports[1]
    assert reports[0].feasible
    assert nervecord.inspect(program, ["lava"]).to_dict() == (
        nervecord.inspect(files / "ant.nervecord", ["lava"]).to_dict()
    )
    everything = nervecord.inspect(graph)
    assert [report.target for report in everything.targets] == [spec.name for spec in nervecord.list_targets()]
    assert not nervecord.inspect(graph, ["xylo"]).feasible
    assert nervecord.inspect(graph, "xylo") == nervecord.inspect(graph, ["xylo"])


def test_compare(files: Path) -> None:
    rows = nervecord.read(files / "ant.nir").recorded
    assert rows is not None
    with nervecord.open(files / "ant.nir") as a, nervecord.open(files / "ant.nervecord") as b:
        for mode in ("free", "layers"):
            comparison = nervecord.compare(a, b, rows, mode=mode)
            assert not comparison.identical
            assert comparison.observations == len(rows)
    with nervecord.open(files / "ant.nervecord") as a, nervecord.open(files / "ant.nervecord") as b:
        assert nervecord.compare(a, b, rows).identical
        with pytest.raises(ContractError, match="NaN"):
            nervecord.compare(a, b, rows * np.nan)


def test_run(files: Path) -> None:
    pytest.importorskip("gymnasium")
    reports: list[tuple[int, int]] = []
    with nervecord.open(files / "pendulum.nervecord") as session:
        result = nervecord.run(
            session, episodes=2, seed=3, record=True, progress=lambda done, total, mean: reports.append((done, total))
        )
        again = nervecord.run(session, "Pendulum-v1", 2, 3, environments=2)
    assert reports == [(1, 2), (2, 2)]
    assert np.array_equal(result.returns, again.returns)
    assert result.mean == result.returns.mean()
    assert result.recorded is not None
    assert again.recorded is None


def test_simulate_any_graph() -> None:
    graph = nervecord.read(DATA / "nir" / "lif_norse.nir", dt=1e-4, convention="exact")
    assert graph.level is Level.DISCRETE
    values = np.ones((50, 1))
    trace = nervecord.simulate(graph, values)
    assert np.array_equal(nervecord.simulate(graph, {"input": values}).outputs["1"], trace.outputs["1"])
    # A spike train may be of any kind of number.
    assert np.array_equal(nervecord.simulate(graph, values.astype(bool)).outputs["1"], trace.outputs["1"])
    assert nervecord.read(DATA / "nir" / "lif_norse.nir").level is Level.IMPORTED


def test_train_takes_a_config() -> None:
    config = nervecord.TrainConfig.of(steps=1000, layers=(16, 16), seed=3)
    assert config.network.layers == (16, 16)
    with pytest.raises(NervecordError, match="'leaky'"):
        nervecord.TrainConfig.of(neuron="leeky")


# --------------------------------------------------------------------------------------------------------------------
# Refusals

WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "read a number": (lambda f: nervecord.read(3), TypeError, "a path"),
    "read nothing": (lambda f: nervecord.read(None), TypeError, "a path"),
    "read a program": (lambda f: nervecord.read(f / "ant.nervecord"), FileFormatError, "is not an HDF5 file"),
    "load a policy": (lambda f: nervecord.load(f / "ant.nir"), FileFormatError, "is no program"),
    "load a number": (lambda f: nervecord.load(3.5), TypeError, "a path"),
    "open a number": (lambda f: nervecord.open(7), TypeError, "the path of one"),
    "open a graph of another tool": (
        lambda f: nervecord.open(nervecord.read(DATA / "nir" / "lif_norse.nir", dt=1e-4)),
        ContractError,
        "carries no contract",
    ),
    "open what has no time step": (
        lambda f: nervecord.open(DATA / "nir" / "lif_norse.nir"),
        GraphError,
        "NIR does not say its time step",
    ),
    "stream a policy": (lambda f: nervecord.stream(f / "ant.nir"), NervecordError, "ant.nir: is a policy"),
    "inputs of a policy": (
        lambda f: nervecord.compile(f / "ant.nir", inputs="spikes"),
        NervecordError,
        "inputs: the file carries a contract already",
    ),
    "compile a number": (lambda f: nervecord.compile(7), TypeError, "the path of one"),
    "compile a program": (lambda f: nervecord.compile(f / "ant.nervecord"), NervecordError, "compiled already"),
    "compile a loaded program": (
        lambda f: nervecord.compile(nervecord.load(f / "ant.nervecord")),
        NervecordError,
        "compiled already",
    ),
    "compile for nothing": (lambda f: nervecord.compile(f / "ant.nir", "loihi"), NervecordError, "'loihi1'"),
    "compile for what is inspected": (
        lambda f: nervecord.compile(f / "ant.nir", "xylo"),
        NervecordError,
        "inspected only",
    ),
    "bits": (lambda f: nervecord.compile(f / "ant.nir", weight_bits=9), NervecordError, "9"),
    "an engine": (lambda f: nervecord.open(f / "ant.nervecord", engine="cuda"), NervecordError, "unknown engine"),
    "inspect for nothing": (lambda f: nervecord.inspect(f / "ant.nir", ["loihi"]), NervecordError, "'loihi1'"),
    "inspect for one that is not": (lambda f: nervecord.inspect(f / "ant.nir", "loihi"), NervecordError, "'loihi1'"),
    "a mode": (lambda f: compared(f, mode="layer"), NervecordError, "unknown mode 'layer'"),
    "rows": (lambda f: compared(f, rows=np.zeros((2, 3))), ContractError, r"shape \(2, 3\)"),
    "calibration": (
        lambda f: nervecord.compile(f / "ant.nir", calibration=np.zeros((20, 3))),
        ContractError,
        r"shape \(20, 3\)",
    ),
    "simulate without time": (
        lambda f: nervecord.simulate(nervecord.read(DATA / "nir" / "lif_norse.nir"), np.ones((3, 1))),
        GraphError,
        "NIR does not say its time step",
    ),
    "simulate nothing": (
        lambda f: nervecord.simulate(nervecord.read(f / "ant.nir"), np.zeros((0, 27))),
        GraphError,
        "at least one step",
    ),
    "no episodes": (lambda f: ran(f, episodes=0), NervecordError, "at least 1"),
    "another world": (lambda f: ran(f, env="Ant-v4"), ContractError, "trained in Pendulum-v1"),
    "train a dict": (lambda f: nervecord.train({"steps": 5}), TypeError, "TrainConfig"),
}


def compared(files: Path, rows: Any = None, mode: Any = "free") -> Any:
    with nervecord.open(files / "ant.nervecord") as a, nervecord.open(files / "ant.nervecord") as b:
        return nervecord.compare(a, b, np.zeros((2, 27)) if rows is None else rows, mode=mode)


def ran(files: Path, **how: Any) -> Any:
    with nervecord.open(files / "pendulum.nir") as session:
        return nervecord.run(session, **how)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused(name: str, files: Path) -> None:
    call, kind, words = WRONG[name]
    with pytest.raises(kind, match=words):
        call(files)


def test_errors_are_of_one_family_and_of_the_standard_librarys() -> None:
    with pytest.raises(ValueError, match=r"none\.nir") as caught:
        nervecord.read("none.nir")
    assert isinstance(caught.value, nervecord.NervecordError)
    assert caught.value.where == "none.nir"


# --------------------------------------------------------------------------------------------------------------------
# What is said twice


def test_a_time_step_of_integers_is_the_files_or_the_callers() -> None:
    network = DATA / "slayer" / "network.net"
    assert nervecord.compile(network, dt=5e-4).graph.dt == 5e-4
    graph = nervecord.read(network)
    assert isinstance(graph, Graph)
    assert nervecord.compile(graph, dt=1e-3).graph.dt == 1e-3
    with pytest.raises(GraphError, match=r"0\.0005.*0\.001"):
        nervecord.compile(graph, dt=5e-4)


def test_steps_are_refused_of_what_says_its_own(files: Path) -> None:
    policy = nervecord.read(files / "ant.nir")
    assert isinstance(policy, nervecord.Policy)
    program = nervecord.compile(policy)
    rows = np.zeros((2, policy.contract.observation.size))
    graph = nervecord.read(DATA / "slayer" / "network.net")
    assert isinstance(graph, Graph)
    blocks = nervecord.compile(graph, steps=4)
    x = np.zeros((8, *graph.nodes[graph.inputs[0]].in_shape))
    for call in (
        lambda: nervecord.simulate(policy, rows, steps=9),
        lambda: nervecord.simulate(program, rows, steps=9),
        lambda: nervecord.inspect(policy, "lava", steps=9),
        lambda: nervecord.compile(policy, steps=9),
        lambda: nervecord.simulate(blocks, x, steps=2),
        lambda: nervecord.stream(blocks, steps=2),
    ):
        with pytest.raises(NervecordError, match=r"^steps: is [29], and a (policy|program) says its steps itself"):
            call()
    assert nervecord.simulate(graph, x, steps=4).left.keys() == set(graph.outputs)
