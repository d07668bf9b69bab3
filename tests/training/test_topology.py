"""A policy's shape is taken from a run or from the best of a study, its weights never."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nervecord.cli.command import main
from nervecord.compiler.nir.file import read_nir
from nervecord.errors import FileFormatError, NervecordError
from nervecord.training import run
from nervecord.training.folder.topology import read_topology
from nervecord.training.settings.config import TrainConfig
from nervecord.training.settings.parts import NetworkConfig
from nervecord.training.sweeps.study import read_study

STUDY = Path(__file__).parents[2] / "docs" / "study-isaacgym.toml"
SHORT = (
    "--steps",
    128,
    "--num-envs",
    4,
    "--rollout",
    16,
    "--minibatch",
    32,
    "--epochs",
    1,
    "--validation-episodes",
    0,
    "--test-episodes",
    0,
    "--critic",
    8,
    "--no-tensorboard",
    "--quiet",
)


def write_run(folder: Path, test_return: float | None, **fields: Any) -> Path:
    """A run folder, finished where it has a tested return."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(TrainConfig.of(**{"env": "Ant", "sim": "isaacgym", **fields}).to_json())
    if test_return is not None:
        result = {"step": 1, "validation_return": None, "test": {"mean_return": test_return}}
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_a_run_gives_its_shape_and_nothing_else(tmp_path: Path) -> None:
    shape: dict[str, Any] = {
        "policy": "snn",
        "neuron": "synaptic",
        "layers": (96, 32),
        "steps_per_action": 3,
        "state": "carried",
        "delays": True,
        "encoder": "population",
        "population": 7,
        "decoder": "count",
        "output_population": 5,
    }
    folder = write_run(tmp_path / "isaac", 12.5, lr=1e-2, num_envs=77, seed=9, **shape)
    topology = read_topology(folder)
    assert shape.items() <= topology.fields.items()
    assert topology.fields.keys() == NetworkConfig.__dataclass_fields__.keys()
    assert (topology.env, topology.test_return, topology.runs) == ("Ant", 12.5, 1)
    assert "layers 96x32" in str(topology)
    assert TrainConfig.of(env="Ant-v4", **topology.fields) == TrainConfig.of(env="Ant-v4", **shape)


def test_of_a_study_the_shape_with_the_highest_mean_return(tmp_path: Path) -> None:
    for name, value, fields in (
        ("snn-64-seed0", 90.0, {"layers": (64,), "seed": 0}),
        ("snn-64-seed1", 10.0, {"layers": (64,), "seed": 1}),
        ("snn-128-seed0", 60.0, {"layers": (128,), "seed": 0}),
        ("snn-128-seed1", 62.0, {"layers": (128,), "seed": 1}),
        ("snn-256-seed0", None, {"layers": (256,)}),
        ("ann-32-seed0", 99.0, {"layers": (32,), "policy": "ann"}),
    ):
        write_run(tmp_path / "depth" / name, value, **fields)
    (tmp_path / "depth" / "logs").mkdir()
    best = read_topology(tmp_path / "depth")
    assert (best.fields["layers"], best.test_return, best.runs) == ((128,), 61.0, 2)
    assert best.source == tmp_path / "depth" / "snn-128-seed0"
    assert read_topology(tmp_path / "depth", policy="ann").fields["layers"] == (32,)


def test_what_holds_no_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NervecordError, match=r"neither .*snn"):
        read_topology(tmp_path)
    write_run(tmp_path / "study" / "one", None)
    with pytest.raises(NervecordError, match=r"/study: .*finished"):
        read_topology(tmp_path / "study")
    write_run(tmp_path / "study" / "two", 1.0)
    write_run(tmp_path / "study" / "three", 2.0, env="Ant-v4", sim="auto")
    with pytest.raises(NervecordError, match=r"\(Ant, Ant-v4\)"):
        read_topology(tmp_path / "study")
    (tmp_path / "study" / "two" / "result.json").write_text("{}")
    with pytest.raises(FileFormatError, match=r"result\.json"):
        read_topology(tmp_path / "study" / "two")


def test_the_studys_way_from_one_task_to_another(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A policy of 4 observations gives its shape to one of 11: the weights are new, and have the new sizes."""

    def nervecord(*words: object) -> int:
        return main([str(word) for word in words])

    first = ("--env", "InvertedPendulum-v4", "--layers", 12, "--steps-per-action", 2, "--neuron", "synaptic")
    assert nervecord("train", *first, *SHORT, "--out", tmp_path, "--name", "found") == 0
    second = ("--topology-from", tmp_path / "found", "--env", "InvertedDoublePendulum-v4", "--steps-per-action", 4)
    assert nervecord("train", *second, *SHORT, "--out", tmp_path, "--name", "used") == 0
    config = TrainConfig.from_json((tmp_path / "used" / "config.json").read_text())
    # A flag that is given counts more than the topology.
    assert (config.network.layers, config.network.neuron, config.network.steps_per_action) == ((12,), "synaptic", 4)
    source, target = (read_nir(tmp_path / name / "policy.nir") for name in ("found", "used"))
    assert source.graph.nodes["fc1"].weight.shape == (12, 4)  # type: ignore[attr-defined]
    assert target.graph.nodes["fc1"].weight.shape == (12, 11)  # type: ignore[attr-defined]
    assert type(source.graph.nodes["lif1"]) is type(target.graph.nodes["lif1"])
    # Nothing but the shape decides: the same training with its flags written out.
    plain = config.replace(name="plain")
    same = run.train(plain)
    assert same.policy is not None
    other = read_nir(same.policy)
    assert (other.graph.nodes["fc1"].weight == target.graph.nodes["fc1"].weight).all()  # type: ignore[attr-defined]
    capfd.readouterr()
    assert nervecord("train", "--topology-from", tmp_path / "found", "--resume", tmp_path / "used") == 2
    assert "a run that continues keeps its topology" in capfd.readouterr().err


def test_the_topology_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "isaac", 3.0, layers=(24,))
    # A task that is unknown, so that nothing is trained.
    assert (
        main(["train", "--topology-from", str(tmp_path / "isaac"), "--env", "Nothing-v0", "--out", str(tmp_path)]) == 2
    )
    assert "topology: policy snn, neuron leaky, layers 24, " in capfd.readouterr().err


def test_the_study_file_for_isaac_gym_is_one() -> None:
    study = read_study(STUDY)
    assert {(each.config.run.sim, each.config.task.env) for each in study.runs} == {("isaacgym", "Ant")}
    assert {each.config.network.layers for each in study.runs} >= {(64,), (256, 256, 256)}
    assert study.base.algorithm.num_envs == 4096
