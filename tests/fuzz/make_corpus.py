"""Makes the sound files that the fuzzer starts from: `python tests/fuzz/make_corpus.py`, from the repository's root.

Files in the corpus that this does not name were once read wrongly, and stay.
"""

from __future__ import annotations

import io
import re
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx

TESTS = Path(__file__).parent.parent
CORPUS = Path(__file__).parent / "corpus"
sys.path[:0] = [str(TESTS), str(TESTS / "data" / "malformed")]


def main() -> None:
    """Write them."""
    import generate
    from cli.test_own_chip import MINI
    from compiler.test_contract_file import TOML
    from compiler.test_program import stream_graph
    from graphs import draw
    from policies import random_policy

    from nervecord.compiler.compile import compile_graph
    from nervecord.compiler.files.program import Program
    from nervecord.compiler.graph.schedule import Schedule
    from nervecord.compiler.nir.file import nir_bytes
    from nervecord.compiler.schema import canonical
    from nervecord.compiler.target.specfile import spec_from_dict
    from nervecord.runtime.measure.certify import Certificate
    from nervecord.targets.integers import IntegerTarget
    from nervecord.targets.lava.target import LavaTarget
    from nervecord.targets.reference.target import ReferenceTarget
    from nervecord.training.settings.config import TrainConfig

    CORPUS.mkdir(exist_ok=True)
    returns = np.arange(50.0)
    certificate = Certificate(0.02, {"median": 0.001, "max": 0.1}, 64, "Ant-v4", 0, returns, returns + 0.01)
    small = random_policy(sizes=(3, 4, 2), steps=3)
    policies = {
        "policy": small,
        "population": random_policy(sizes=(3, 4, 2), steps=3, population=4, output_population=2, state="carried"),
        "current": random_policy(sizes=(3, 4, 3, 2), steps=2, current=True),
        "choice": random_policy(sizes=(4, 5, 2), steps=2, choices=True),
    }
    for name, policy in policies.items():
        program = compile_graph(policy, LavaTarget())
        bare = Program("lava", program.graph, program.contract, versions={"nervecord": "0.1.0"})
        (CORPUS / f"{name}.nervecord").write_bytes(bare.to_bytes())
        if name == "policy":
            reported = {**program.report, "certificate": certificate.to_dict()}
            (CORPUS / "policy.report.json").write_bytes(canonical(reported) + b"\n")
    chip = compile_graph(small, IntegerTarget(spec_from_dict(tomllib.loads(MINI + LIMITS), file="chip.toml")))
    carried = {"target": chip.report["target"]}
    mine = Program("mini", chip.graph, chip.contract, report=carried, versions={"nervecord": "0.1.0"})
    (CORPUS / "mini.chip.program").write_bytes(mine.to_bytes())
    (CORPUS / "both.recording.h5").write_bytes(recording())
    floats = compile_graph(small, ReferenceTarget())
    (CORPUS / "floats.nervecord").write_bytes(Program("reference", floats.graph, floats.contract).to_bytes())
    stream = Program("reference", stream_graph(), schedule=Schedule(7, "reset", held=False))
    (CORPUS / "stream.nervecord").write_bytes(stream.to_bytes())
    for seed in (1, 4):
        case = draw(seed)
        stream_program = Program("lava", case.plan.graph, schedule=case.plan.schedule)
        (CORPUS / f"drawn{seed}.nervecord").write_bytes(stream_program.to_bytes())
    generate.write(CORPUS / "foreign.nir", generate.sound())
    (CORPUS / "ours.nir").write_bytes(nir_bytes(small))
    (CORPUS / "population.nir").write_bytes(nir_bytes(policies["population"]))
    shutil.copy(TESTS / "data" / "nir" / "lif_norse.nir", CORPUS)
    rows = np.random.default_rng(0).normal(size=(4, 3))
    for name, write in (("stored", np.savez), ("packed", np.savez_compressed)):
        with io.BytesIO() as out:
            write(out, observations=rows)
            (CORPUS / f"{name}.npz").write_bytes(out.getvalue())
    with io.BytesIO() as out:
        np.save(out, rows)
        (CORPUS / "plain.npz").write_bytes(out.getvalue())
    (CORPUS / "current.contract.toml").write_text(TOML)
    one_channel = (
        TOML[: TOML.index("[normaliser]")].replace('"x", "v", "w"', '"x"').replace('"m", "m/s", "rad/s"', '"m"')
    )
    counted = one_channel + (
        '[encoder]\nkind = "population"\nneurons = 3\nlow = -1.0\nhigh = 1.0\nsigma = 0.5\n'
        '[decoder]\nkind = "count"\nneurons = 1\nweight = 0.5\n'
    )
    (CORPUS / "counted.contract.toml").write_text(counted)
    for name in ("xylo", "lava", "loihi1"):
        text = (TESTS.parent / "targets" / name / "spec.toml").read_text()
        text = re.sub(r"(?m)^engines = .*$", "engines = []", text.replace(f'name = "{name}"', 'name = "my-chip"', 1))
        (CORPUS / f"{name}.target.toml").write_text(text)
    (CORPUS / "depth.study.toml").write_text(STUDY)
    shutil.copy(TESTS.parent / "zoo" / "cartpole" / "config.json", CORPUS / "cartpole.config.json")
    (CORPUS / "td7.config.json").write_text(TrainConfig.of(algorithm="td7", env="Pendulum-v1").to_json())
    shutil.copy(TESTS / "data" / "slayer" / "network.net", CORPUS)
    onnx.save(small_network(), str(CORPUS / "network.onnx"))


STUDY = """
[study]
name = "s"
notes = "two lines\\nof notes"
[base]
env = "CartPole-v1"
steps = 1e4
[grid]
policy = ["snn", "ann"]
neurons = [8]
depth = [1, 2]
seeds = [0, 1]
[[also]]
name = "steps"
layers = [[8]]
steps_per_action = [1, 3]
[[search]]
name = "rates"
samples = 3
lr = { log = [1e-4, 1e-2] }
epochs = { uniform = [1, 9] }
[[where]]
depth = 2
set = { gamma = 0.9 }
"""

LIMITS = """
[limits]
neurons = { value = 1008, source = "data sheet, page 3", confidence = "exact" }
neurons_per_core = 64
[packing]
weight_bits = 6
"""


def recording() -> bytes:
    """A grid of values and a list of events, of three neurons each."""
    import nir

    events = nir.EventData(
        np.array([[0, 2, 1, -1]]), np.array([[0.0, 0.001, 0.0031, np.inf]]), n_neurons=3, t_max=0.005
    )
    grid = nir.TimeGriddedData(np.random.default_rng(0).normal(size=(1, 5, 3)), 1e-3)
    nodes = {"grid": nir.NIRNodeData({"input": grid}), "events": nir.NIRNodeData({"spikes": events})}
    with tempfile.TemporaryDirectory() as folder:
        nir.write_data(Path(folder) / "a.h5", nir.NIRGraphData(nodes))
        return (Path(folder) / "a.h5").read_bytes()


def small_network() -> Any:
    """3 values in, 4 tanh neurons, 2 values out."""
    draw = np.random.default_rng(0)
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    arrays = {"w1": (4, 3), "b1": (4,), "w2": (2, 4), "b2": (2,)}
    weights = [onnx.numpy_helper.from_array(draw.normal(size=s).astype(np.float32), n) for n, s in arrays.items()]
    nodes = [
        helper.make_node("Gemm", ["obs", "w1", "b1"], ["h"], transB=1),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("Gemm", ["t", "w2", "b2"], ["actions"], transB=1),
    ]
    ends = [[helper.make_tensor_value_info(name, kind, [1, size])] for name, size in (("obs", 3), ("actions", 2))]
    return helper.make_model(helper.make_graph(nodes, "network", *ends, weights))


if __name__ == "__main__":
    main()
