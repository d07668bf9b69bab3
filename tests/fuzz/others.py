"""The other files that are read: studies, the records of run folders, networks in ONNX and of lava-dl, recordings, and
programs that carry the description of their chip."""

from __future__ import annotations

import copy
import functools
import json
import random
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from fuzz.mutation import mutate_array, mutate_bytes, mutate_tree, places, to_archive, to_json
from readers import read_here

import nervecord
from nervecord.compiler.graph.verify import verify
from nervecord.compiler.nir.hdf5child import load as load_tree
from nervecord.compiler.onnx import file as onnxfile
from nervecord.compiler.onnx.reading import read_onnx
from nervecord.runtime import nirdata
from nervecord.targets.source import load_program
from nervecord.training.folder.records import read_record
from nervecord.training.settings.config import TrainConfig
from nervecord.training.sweeps.study import MOST_RUNS, read_study

LONGEST_NAME = 4096
"""Letters of a run folder's name: a study may name a field by a long text, and the file system refuses it later."""
OPERATORS = ("Gemm", "Tanh", "Relu", "Elu", "MatMul", "Add", "Conv", "Loop", "Identity", "Constant", "")


def check_study(path: Path, rng: random.Random) -> None:
    """A study of a number of runs that can be looked at, each of them a configuration that is written and read back."""
    study = read_study(path)
    assert 0 < len(study.runs) <= 4 * MOST_RUNS
    assert len({run.name for run in study.runs}) == len(study.runs)
    for run in rng.sample(study.runs, min(3, len(study.runs))):
        assert run.name.isprintable()
        assert "/" not in run.name
        assert TrainConfig.from_json(run.config.to_json()) == run.config


def damage_record(sound: Path, rng: random.Random) -> bytes:
    """Other values, or other text."""
    if rng.random() < 0.2:
        return mutate_bytes(sound.read_bytes(), rng)
    tree = json.loads(sound.read_bytes())
    for _ in range(rng.choice((1, 1, 2, 3))):
        mutate_tree(tree, rng)
    return to_json(tree)


def check_record(path: Path, rng: random.Random) -> None:
    """A configuration of a run, which is written and read back the same."""
    config = TrainConfig.from_dict(read_record(path), where="config.json")
    assert config.total_steps >= config.algorithm.steps > 0
    assert TrainConfig.from_json(config.to_json()) == config


def damage_onnx(sound: Path, rng: random.Random) -> bytes:
    """Other operators, wires, shapes and weights, or other bytes."""
    import onnx

    if rng.random() < 0.3:
        return mutate_bytes(sound.read_bytes(), rng)
    model = onnx.load(sound)
    graph = model.graph
    for _ in range(rng.choice((1, 1, 2, 3))):
        node, weights = rng.choice(graph.node), rng.choice(graph.initializer)
        match rng.randrange(8):
            case 0:
                node.op_type = rng.choice(OPERATORS)
            case 1:
                names = [*(name for each in graph.node for name in each.output), "obs", "", "\x1b[2J"]
                node.input[rng.randrange(len(node.input))] = rng.choice(names)
            case 2:
                node.output[0] = rng.choice(("obs", "actions", "", "x" * 5000))
            case 3:
                weights.dims[rng.randrange(len(weights.dims))] = rng.choice((0, 1, -1, 1 << 40, 7))
            case 4:
                weights.raw_data = mutate_bytes(weights.raw_data, rng)
            case 5:
                weights.data_type = rng.randrange(24)
            case 6:
                weights.data_location = 1
                weights.external_data.add(key="location", value=rng.choice(("/etc/passwd", "../x", "")))
            case _:
                graph.node.append(rng.choice(graph.node))
    return model.SerializeToString()


def check_onnx(path: Path, rng: random.Random) -> None:
    """A legal graph, of which is said what a chip would find."""
    with mock.patch.object(onnxfile, "read_guarded", read_here):  # the campaign has no conftest
        graph = read_onnx(path)
    assert verify(graph) == []
    assert json.dumps(nervecord.inspect(graph, "lava").to_dict())


def check_net(path: Path, rng: random.Random) -> None:
    """The same of a network of lava-dl."""
    graph = nervecord.read(path)
    assert verify(graph) == []


def damage_description(sound: Path, rng: random.Random) -> bytes:
    """Another description of the chip, which no hash covers."""
    with zipfile.ZipFile(sound) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    report = json.loads(members["report.json"])
    for _ in range(rng.choice((1, 1, 2, 4))):
        mutate_tree(report["target"] if rng.random() < 0.9 else report, rng)
    members["report.json"] = to_json(report)
    return to_archive(members)


def check_description(path: Path, rng: random.Random) -> None:
    """A program that is inspected for the chip that it describes, and runs."""
    program = load_program(path)
    report = nervecord.inspect(program, (program.target,))
    assert json.dumps(report.to_dict(), allow_nan=False)
    assert program.contract is not None
    with nervecord.open(program, engine="definition") as session:
        assert np.isfinite(session.step(np.zeros(program.contract.observation.size))).all()


@functools.cache
def _recorded(path: Path) -> dict[str, Any]:
    return load_tree(str(path), 1 << 24)


def damage_recording(sound: Path, rng: random.Random) -> dict[str, Any]:
    """Other content in well-formed HDF5, as the child hands it over."""
    tree = copy.deepcopy(_recorded(sound))
    for _ in range(rng.choice((1, 1, 2, 3))):
        arrays = [(group, key) for group, key in places(tree) if isinstance(group[key], np.ndarray)]
        if arrays and rng.random() < 0.7:
            group, key = rng.choice(arrays)
            group[key] = mutate_array(group[key], rng)
        else:
            mutate_tree(tree, rng)
    for group, key in places(tree):
        if str(key).startswith("/") and not _is_number(group[key]):
            group[key] = np.array(rng.choice((1e-3, 0.0, -1.0, 5e-324, 1e300, np.nan, np.inf, 3, -3, 2**63 - 1)))
    return tree


def _is_number(value: Any) -> bool:
    """Whether it is what the child gives of an attribute."""
    return isinstance(value, np.ndarray) and value.shape == () and value.dtype.kind in "iuf"


def check_recording(tree: Any, rng: random.Random) -> None:
    """Rows for the nodes that are asked for, of a size that may be laid out."""
    sizes = {"grid": 3} if rng.random() < 0.5 else {"events": 3}
    content = _recorded(tree) if isinstance(tree, Path) else tree
    with mock.patch.object(nirdata, "read_hdf5", return_value=content):
        data = nirdata.read_nirdata("case.h5", sizes, rng.choice((1e-3, 1e-3, 1e-9, 1e3, None)))
    for name, rows in data.items():
        assert rows.dtype == np.float64
        assert rows.ndim == 3
        assert rows.shape[2] == sizes[name]
        assert rows.size <= nirdata.MOST_VALUES
