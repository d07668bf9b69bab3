"""The other files that are read: studies, the records of run folders, networks in ONNX and of lava-dl."""

from __future__ import annotations

import json
import random
from pathlib import Path
from unittest import mock

from fuzz.mutation import mutate_bytes, mutate_tree, to_json
from readers import read_here

import nervecord
from nervecord.compiler.graph.verify import verify
from nervecord.compiler.onnx import file as onnxfile
from nervecord.compiler.onnx.reading import read_onnx
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
