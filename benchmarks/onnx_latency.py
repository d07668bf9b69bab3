"""One action in ONNX Runtime: a policy's policy.onnx in both forms, beside the emulator and the definition, in one run.

    python benchmarks/onnx_latency.py [policy.nir] [--rounds N]

The policy (by default zoo/ant, 27-256-8) is compiled for the target onnx, and each file is driven by the observations
that the policy carries, one at a time, on one thread, as a robot's controller drives it. The row "session" is our
engine onnxruntime, which also counts spikes. Trust the ratios, not the times.
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
from nervecord.compiler.files.program import Program
from nervecord.runtime.emulator import EmulatorSession
from nervecord.runtime.session import MachineSession
from nervecord.targets.onnx.engine import OnnxSession, inference_session
from nervecord.targets.onnx.target import export


def median_us(call: Callable[[Any], object], rows: Any, rounds: int) -> float:
    """Median time of a call in microseconds; the calls see different observations."""
    for row in rows[:20]:
        call(row)
    times = []
    for row in itertools.islice(itertools.cycle(rows), rounds):
        began = time.perf_counter()
        call(row)
        times.append(time.perf_counter() - began)
    return float(np.median(times)) * 1e6


def file_call(program: Program) -> tuple[Callable[[Any], object], int, int]:
    """(one action of the file, its nodes, its bytes); carried state goes round as a controller would hand it."""
    proto = export(program).proto
    content = proto.SerializeToString()
    session = inference_session(content)
    state = {value.name: np.zeros(value.shape, dtype=np.float32) for value in session.get_inputs()[1:]}

    def call(row: Any) -> object:
        action, *after = session.run(None, {"obs": row, **state})
        if after:
            state["h_in"] = after[0]
        return action

    return call, len(proto.graph.node), len(content)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Measure, print a table, and return its times by row, in microseconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("policy", nargs="?", default=Path(__file__).parents[1] / "zoo" / "ant" / "policy.nir")
    parser.add_argument("--rounds", type=int, default=2000)
    chosen = parser.parse_args(arguments)
    policy: Any = nervecord.read(chosen.policy)
    rows = policy.recorded.astype(np.float32)[:, None]
    found: dict[str, float] = {}
    print(f"{Path(chosen.policy).parent.name}, {platform.machine()}, one thread, {chosen.rounds} actions each")
    for form in ("float", "integer"):
        program = nervecord.compile(policy, "onnx", form=form)
        call, nodes, size = file_call(program)
        found[f"{form}, policy.onnx"] = median_us(call, rows, chosen.rounds)
        print(f"{form}: {nodes} nodes, {size / 1024:.0f} KiB")
        with OnnxSession(program.policy) as session:
            found[f"{form}, session"] = median_us(session.step, rows, chosen.rounds)
        if form == "integer":
            with EmulatorSession(program.policy) as emulator:
                found["integer, emulator"] = median_us(emulator.step, rows, chosen.rounds)
        with MachineSession(program.policy) as definition:
            found[f"{form}, definition"] = median_us(definition.step, rows, max(chosen.rounds // 10, 1))
    for name, value in found.items():
        print(f"{name:24}{value:9.1f} us")
    return found


if __name__ == "__main__":
    main()
