"""How far a network of changes drifts from the rectified network that it stands for, action by action.

    python benchmarks/sigma_delta.py [--actions 1000] [--sizes 27 64 64 8] [--seed 0]

Random weights, rounded to Lava's mantissas below an exponent; Delta, layers of SigmaDelta, Sigma in Lava's arithmetic,
run by the emulator. The rectified network has the same integers and is computed anew from each observation. The
observation walks at random and is held until its sums have arrived, so that without rounding nothing would differ. An
exponent below 0 rounds every message down, and the sums keep what was lost; with exponent 0 weights are 0 or +-2.
"magnitude" is of what the rectified network gives; errors are means over the last tenth of so many actions; "events"
are synaptic events per action behind Delta.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import itertools
import platform
from typing import Any

import numpy as np

from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.lower.ranges import overflows, prove
from nervecord.compiler.ops import Delta, Dense, Input, Level, Op, Output, Sigma, SigmaDelta
from nervecord.compiler.plan.interpret import Machine
from nervecord.compiler.plan.plan import plan
from nervecord.runtime.engines.emulator.session import EmulatorStream
from nervecord.targets.lava.arithmetic import lava_arithmetic

LIMIT = 500
"""Of the observation's integers."""
WAYS = (
    ("every change, exponent 0", 0, 0),
    ("every change", -6, 0),
    ("every change, exponent -8", -8, 0),
    ("changes of 4 or more", -6, 4),
    ("changes of 16 or more", -6, 16),
)
"""(what it is, exponent, threshold)"""


def network(weights: list[Any], biases: list[Any], exponent: int, threshold: int) -> Graph:
    """values -> Delta -> (Dense, SigmaDelta) ... -> Dense -> Sigma."""
    width = weights[0].shape[1]
    nodes: dict[str, Op] = {
        "input": Input((width,), "values", float(LIMIT)),
        "copy": Dense(np.eye(width), 0, 8, 1),
        "delta": Delta(width, threshold),
    }
    for k, weight in enumerate(weights):
        nodes[f"dense{k}"] = Dense(weight, exponent, 8, 1)
        last = k == len(weights) - 1
        nodes[f"layer{k}"] = Sigma(len(weight)) if last else SigmaDelta(biases[k], threshold)
    nodes["output"] = Output((len(weights[-1]),))
    return Graph(Level.INTEGER, nodes, tuple(itertools.pairwise(nodes)), 1e-3, lava_arithmetic())


def rectified(weights: list[Any], biases: list[Any], exponent: int, x: Any) -> Any:
    """The network of values (actions, n): each layer's sum rounded down once, as Lava's Dense does."""
    for k, weight in enumerate(weights):
        x = (x @ weight.T) >> -exponent
        x = np.maximum(x + biases[k], 0) if k < len(weights) - 1 else x
    return x


def observations(rng: np.random.Generator, actions: int, width: int) -> Any:
    """(actions, width) integers that walk."""
    steps = rng.normal(size=(actions, width)).cumsum(axis=0) * LIMIT / 20
    return np.clip(np.rint(steps), -LIMIT, LIMIT).astype(np.int64)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[27, 64, 64, 8])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    pairs = list(itertools.pairwise(args.sizes))
    real = [rng.normal(size=(b, a)) * 1.6 / a**0.5 for a, b in pairs]
    biases = [rng.integers(-100, 100, size=b) for _, b in pairs[:-1]]
    x = observations(rng, args.actions, args.sizes[0])
    marks = sorted({min(k, args.actions) for k in (10, 100, args.actions // 2, args.actions)})
    print(f"python {platform.python_version()}, {'-'.join(map(str, args.sizes))}, {args.actions} actions")
    header = "".join(f"{f'error at {k}':>15}" for k in marks)
    print(f"{'':<26}{'exponent':>9}{'magnitude':>10}{header}{'events':>9}")
    for name, exponent, threshold in WAYS:
        weights = [mantissas(w, exponent) for w in real]
        graph = network(weights, biases, exponent, threshold)
        report(name, graph, rectified(weights, biases, exponent, x), x, marks)
    print(f"{'if each value were sent':<60}{sum(a * b for a, b in pairs):>{19 + 15 * (len(marks) - 1)},}")


def mantissas(weight: Any, exponent: int) -> Any:
    """Even ones, as Lava's are where signs are mixed. Without an exponent the largest weights alone, as +-2."""
    if not exponent:
        return (2 * np.sign(weight) * (np.abs(weight) > 2 * weight.std())).astype(np.int64)
    return 2 * np.clip(np.rint(weight * 2.0**-exponent / 2), -128, 127).astype(np.int64)


def report(name: str, graph: Graph, expected: Any, x: Any, marks: list[int]) -> None:
    """One line: mean error of what is read, over the last tenth of the actions up to each mark."""
    network_plan = plan(graph)
    exponent = graph.nodes["dense0"].weight_exp  # type: ignore[attr-defined]
    refused = [finding for finding in overflows(prove(network_plan), lava_arithmetic()) if finding.severity == "error"]
    if refused:
        print(f"{name:<26}{exponent:>9}  not proved: {refused[0].node}: {refused[0].message}")
        return
    depth = len(network_plan.connections) + 1
    inputs = np.repeat(x, depth, axis=0)
    stream = EmulatorStream(network_plan)
    outputs = stream.run(inputs)["output"][depth - 1 :: depth, 0]
    machine = Machine(network_plan)
    few = inputs[: 50 * depth]
    plain = np.stack([machine.block({"input": row[None, None]})[0]["output"][0, 0] for row in few])
    same = np.array_equal(plain[depth - 1 :: depth], outputs[: len(few) // depth])
    error = np.abs(outputs - expected)
    means = [float(error[max(0, k - max(k // 10, 1)) : k].mean()) for k in marks]
    counts = stream.counts.synaptic_events
    events = sum(counts[step.name] for step in network_plan.connections[1:]) / len(x)
    columns = "".join(f"{mean:>15,.1f}" for mean in means)
    print(f"{name:<26}{exponent:>9}{np.abs(expected).mean():>10,.0f}{columns}{events:>9,.0f}")
    print(f"    emulator equal to the definition: {same}")


if __name__ == "__main__":
    main()
