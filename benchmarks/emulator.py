"""One action of the emulator beside the definition and beside ONNX Runtime running the ANN twin, in one run.

    python benchmarks/emulator.py [policy.nir] [--rounds N]

The policy (by default zoo/ant, 27-256-8) is compiled and driven by the observations it carries. Normalising and
the action are inside on both sides; one thread. Trust the ratios, not the times. Without onnx and onnxruntime the twin
is left out.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import itertools
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import nervecord
from nervecord.runtime.emulator import EmulatorSession
from nervecord.runtime.session import MachineSession

OBSERVATIONS, ACTIONS = 27, 8


def ann_twin(rng: np.random.Generator) -> Any:
    """Normalise, 64-64 tanh, clip: an inference session of ONNX Runtime; None where that is not installed."""
    try:
        import onnx
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        return None
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
    zoo = Path(__file__).parent.parent / "zoo" / "ant" / "policy.nir"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", nargs="?", default=zoo, help="a policy's NIR file")
    parser.add_argument("--rounds", type=int, default=5, help="of 2000 actions each")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    given = nervecord.read(arguments.policy)
    assert isinstance(given, nervecord.Policy)
    program = nervecord.compile(given, target="lava")
    assert program.contract is not None
    assert given.recorded is not None
    rows = given.recorded[rng.permutation(len(given.recorded))[:256]]
    fast, plain = EmulatorSession(program.policy), MachineSession(program.policy)
    count = len(rows)
    calls: dict[str, tuple[Callable[[int], object], int]] = {"emulator": (lambda k: fast.step(rows[k % count]), 2000)}
    twin = ann_twin(rng)
    if twin is not None:
        inputs = rng.normal(size=(256, 1, OBSERVATIONS)).astype(np.float32)
        calls["onnxruntime, ANN twin"] = (lambda k: twin.run(None, {"x": inputs[k % 256]}), 2000)
    calls["definition"] = (lambda k: plain.step(rows[k % count]), 60)
    # In turns, so that a noisy machine is noisy for all of them.
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(arguments.rounds):
        for name, (call, actions) in calls.items():
            found[name].append(median_us(call, actions))
    best = {name: min(values) for name, values in found.items()}
    spikes = fast.counts.per_action()["spikes"]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, one thread")
    print(f"policy {program.contract.environment}: {spikes:.0f} spikes per action\n")
    for name, value in best.items():
        ratio = f"{value / best['onnxruntime, ANN twin']:6.2f} x the ANN twin" if twin is not None else ""
        print(f"{name:24} {value:9.1f} us per action   {ratio}".rstrip())
    print(f"\nemulator against definition: {best['definition'] / best['emulator']:.0f} times faster")
    for batch in (1, 64, 4096):
        fast.reset(batch)
        many = np.tile(rows, (batch // count + 1, 1))[:batch]
        rounds = max(5, 400 * arguments.rounds // batch)
        each = min(median_us(lambda _, many=many: fast.step(many), rounds) for _ in range(3)) / batch  # type: ignore[misc]
        print(f"batch {batch:5}: {each:6.1f} us per action, {1e6 / each:9.0f} actions per second on one core")


if __name__ == "__main__":
    main()
