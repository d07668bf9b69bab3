"""One action of the emulator beside the definition and beside ONNX Runtime running the ANN twin, in one run.

    python benchmarks/emulator.py [policy.nir]

The policy (by default zoo/ant, 27-256-8) is compiled and driven by the observations it carries. Normalising and
the action are inside on both sides; one thread. Trust the ratios, not the times.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import itertools
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from nervecord.compiler.compile import compile_policy
from nervecord.compiler.nir.file import read_nir
from nervecord.runtime.session import MachineSession
from nervecord.targets.lava.emulator import EmulatorSession
from nervecord.targets.lava.target import LavaTarget

OBSERVATIONS, ACTIONS = 27, 8


def ann_twin(rng: np.random.Generator) -> onnxruntime.InferenceSession:
    """Normalise, 64-64 tanh, clip: what ONNX Runtime is given."""
    sizes = (OBSERVATIONS, 64, 64, ACTIONS)
    weights = {"mean": np.zeros(OBSERVATIONS), "scale": np.ones(OBSERVATIONS), "high": np.array(10.0)}
    weights |= {"low": np.array(-10.0), "one": np.array(1.0), "minus": np.array(-1.0)}
    steps = [
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["normal"]),
        helper.make_node("Clip", ["normal", "low", "high"], ["h0"]),
    ]
    for k, (a, b) in enumerate(itertools.pairwise(sizes)):
        weights[f"w{k}"], weights[f"b{k}"] = rng.normal(size=(a, b)) / np.sqrt(a), np.zeros(b)
        last = k == len(sizes) - 2
        steps.append(helper.make_node("Gemm", [f"h{k}", f"w{k}", f"b{k}"], ["y" if last else f"g{k}"]))
        if not last:
            steps.append(helper.make_node("Tanh", [f"g{k}"], [f"h{k + 1}"]))
    steps.append(helper.make_node("Clip", ["y", "minus", "one"], ["action"]))
    graph = helper.make_graph(
        steps,
        "twin",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, OBSERVATIONS])],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, [None, ACTIONS])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def median_us(call: Callable[[int], object], rounds: int) -> float:
    """Median time of a call in microseconds; the calls see different observations."""
    for k in range(min(20, rounds)):
        call(k)
    times = []
    for k in range(rounds):
        began = time.perf_counter()
        call(k)
        times.append(time.perf_counter() - began)
    return float(np.median(times)) * 1e6


def main() -> None:
    """Measure and print."""
    rng = np.random.default_rng(0)
    zoo = Path(__file__).parent.parent / "zoo" / "ant" / "policy.nir"
    policy = read_nir(sys.argv[1] if len(sys.argv) > 1 else zoo)
    program = compile_policy(policy, LavaTarget())
    assert policy.recorded is not None
    rows = policy.recorded[rng.permutation(len(policy.recorded))[:256]]
    rows32 = rows.astype(np.float32)
    twin, fast, plain = ann_twin(rng), EmulatorSession(program.graph), MachineSession(program.graph)
    # In turns, so that a noisy machine is noisy for all three.
    found: dict[str, list[float]] = {"emulator": [], "onnxruntime, ANN twin": [], "definition": []}
    for _ in range(5):
        found["emulator"].append(median_us(lambda k: fast.step(rows[k % 256]), 2000))
        found["onnxruntime, ANN twin"].append(
            median_us(lambda k: twin.run(None, {"x": rows32[k % 256 : k % 256 + 1]}), 2000)
        )
        found["definition"].append(median_us(lambda k: plain.step(rows[k % 256]), 60))
    best = {name: min(values) for name, values in found.items()}
    spikes = fast.counts.per_action()["spikes"]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, one thread")
    print(f"policy {program.contract.environment}: {spikes:.0f} spikes per action\n")
    for name, value in best.items():
        ratio = value / best["onnxruntime, ANN twin"]
        print(f"{name:24} {value:9.1f} us per action   {ratio:6.2f} x the ANN twin")
    print(f"\nemulator against definition: {best['definition'] / best['emulator']:.0f} times faster")
    for batch in (1, 64, 4096):
        fast.reset(batch)
        many = np.tile(rows, (batch // 256 + 1, 1))[:batch]
        each = min(median_us(lambda _, many=many: fast.step(many), max(5, 2000 // batch)) for _ in range(3)) / batch
        print(f"batch {batch:5}: {each:6.1f} us per action, {1e6 / each:9.0f} actions per second on one core")


if __name__ == "__main__":
    main()
