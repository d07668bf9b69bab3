"""Random graphs with every choice drawn, in each engine that runs here, against the definition: to the bit.

    python benchmarks/choices.py [--integers 1000 --floats 1000 --c-every 20 --first 400000]

Graphs of integers (tests/graphs.py) in an arithmetic of which every choice is drawn (tests/emulated.py): the emulator,
engine torch and ONNX Runtime, and of every so many the C that is emitted. Graphs of floats (tests/floatgraphs.py) with
resets, silent steps, pools, limits and the like drawn, their numbers made multiples of one half: torch in float64 and
ONNX Runtime in float32 then round nothing, and must give the definition's bits; graphs in which float32 would round are
left out. Exits with 1 at the first difference.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nervecord.compiler.ops import Array, Op, fields
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.errors import GraphError
from nervecord.runtime.engines.c.session import CStream
from nervecord.runtime.engines.emulator.session import EmulatorStream
from nervecord.runtime.engines.torch.session import BatchedStream
from nervecord.runtime.stream import MachineStream
from nervecord.targets.onnx.engine import OnnxStream

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import floatgraphs
from emulated import random_arithmetic
from graphs import draw

SHORT = 6
"""Steps of a graph of floats: each may take a bit of what float32 holds."""


def differs(session: Any, network_plan: Plan, blocks: list[dict[str, Array]], expected: list[Any]) -> str | None:
    """What differs first: an Output, or what a population gave in a useful step."""
    for k, (block, (outputs, trace)) in enumerate(zip(blocks, expected, strict=True)):
        actual = session.step(block)
        actual_trace = session.trace()
        for name, rows in outputs.items():
            if not np.array_equal(actual[name], rows):
                return f"block {k}: {name}"
        for unit in network_plan.units:
            name = unit.step.name
            at = network_plan.useful(name)
            if not np.array_equal(actual_trace[name][at], trace[name][at]):
                return f"block {k}: {name}"
    return None


def defined(network_plan: Plan, blocks: list[dict[str, Array]], batch: int) -> list[Any] | None:
    """Outputs and trace of each block; None where a membrane that is read would spike, which has no meaning."""
    session, steps = MachineStream(network_plan, batch=batch), []
    try:
        for block in blocks:
            outputs = {name: rows.copy() for name, rows in session.step(block).items()}
            steps.append((outputs, session.trace()))
    except GraphError:
        return None
    return steps


def halves(op: Op) -> Op:
    """An op whose numbers are multiples of one half, decays 0, 0.5 and 1, thresholds positive."""
    changes: dict[str, Any] = {}
    for name, declared in fields.declarations(type(op)):
        value = getattr(op, name)
        if value is None or name in ("steps", "starts", "columns"):
            continue
        if declared.kind == "part":
            changes[name] = halves(value)
        elif declared.kind == "array":
            rounded = np.round(value * 2) / 2
            changes[name] = np.maximum(rounded, 0.5) if name == "threshold" else rounded
    return dataclasses.replace(op, **changes)


def single(network_plan: Plan, expected: list[Any]) -> bool:
    """Whether float32 holds everything that was computed, with bits to spare for sums."""
    values = [rows.ravel() for outputs, trace in expected for rows in (*outputs.values(), *trace.values())]
    every = np.concatenate(values)
    return bool((every * 2.0**14 == np.round(every * 2.0**14)).all() and np.abs(every).max(initial=0) < 2.0**8)


def of_floats(seed: int) -> tuple[Plan, list[dict[str, Array]], list[Any]] | None:
    case = floatgraphs.draw(seed)
    graph = case.plan.graph
    network_plan = plan(graph.replace(nodes={n: halves(op) for n, op in graph.nodes.items()}), case.plan.schedule)
    count = max(1, SHORT // network_plan.schedule.steps)
    blocks = [{n: np.round(x) for n, x in block.items()} for block in case.blocks()[:count]]
    expected = defined(network_plan, blocks, 2)
    return None if expected is None or not single(network_plan, expected) else (network_plan, blocks, expected)


def of_integers(seed: int) -> tuple[Plan, list[dict[str, Array]], list[Any]] | None:
    try:
        case = draw(seed, random_arithmetic(seed))
    except AssertionError:
        return None  # this arithmetic has no legal graph
    steps = case.plan.schedule.steps
    length = len(next(iter(case.inputs.values())))
    blocks = [{n: x[k : k + steps] for n, x in case.inputs.items()} for k in range(0, length - steps + 1, steps)]
    expected = defined(case.plan, blocks, 1)
    return None if expected is None else (case.plan, blocks, expected)


def compare(
    what: str, make: Callable[[int], Any], engines: dict[str, Any], first: int, count: int, c_every: int
) -> None:
    """Draw and compare, and say how many were equal."""
    start, equal = time.process_time(), collections.Counter[str]()
    had: dict[str, int] = collections.Counter()
    seed = first
    while had["graphs"] < count:
        sample = make(seed)
        seed += 1
        if sample is None:
            had["left out"] += 1
            continue
        network_plan, blocks, expected = sample
        had["graphs"] += 1
        for name, opened in engines.items():
            if name == "c" and seed % c_every:
                continue
            with opened(network_plan) as session:
                where = differs(session, network_plan, blocks, expected)
            if where is not None:
                sys.exit(f"seed {seed - 1}, {name}: {where} differs")
            equal[name] += 1
    each = ", ".join(f"{name} {n:,}" for name, n in equal.items())
    print(
        f"{what} equal to the definition: {had['graphs']:,} graphs ({each}), {had['left out']:,} left out, "
        f"{time.process_time() - start:.0f} s of processor time"
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--integers", type=int, default=1000)
    parser.add_argument("--floats", type=int, default=1000)
    parser.add_argument("--c-every", type=int, default=20, help="of integers, which share is compiled as C as well")
    parser.add_argument("--first", type=int, default=400_000, help="first seed")
    arguments = parser.parse_args()
    whole: dict[str, Any] = {"emulator": EmulatorStream, "torch": BatchedStream, "onnx": OnnxStream, "c": CStream}
    real: dict[str, Any] = {
        "torch": lambda network_plan: BatchedStream(network_plan, 2),
        "onnx": lambda network_plan: OnnxStream(network_plan, batch=2),
    }
    compare("integers", of_integers, whole, arguments.first, arguments.integers, arguments.c_every)
    compare("floats", of_floats, real, arguments.first, arguments.floats, 1)


if __name__ == "__main__":
    main()
