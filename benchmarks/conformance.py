"""Random graphs: the emulator against the definition at every step, to the bit; and which float graphs compile.

    python benchmarks/conformance.py [--graphs 3000 --float-graphs 300 --first 200000]

The integer graphs are those of the test suite (tests/graphs.py), from other seeds: skips, fan-in, several ends,
recurrence, delays, nodes and edges in any order, extremes of every parameter. The float graphs (tests/policies.py)
branch in the same ways; what is refused is counted by its code. With NUMBA_BOUNDSCHECK=1 the emulator's loop also
checks every place that it reads and writes. Exits with 1 at the first difference. benchmarks/lava_conformance.py does
the same in Lava.
"""

from __future__ import annotations

import argparse
import collections
import os
import sys
import time
from pathlib import Path

import numpy as np

import nervecord
from nervecord.compiler.check.table import errors
from nervecord.compiler.graph.policy import Policy
from nervecord.errors import InfeasibleError
from nervecord.runtime.engines.emulator.session import Emulator

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from graphs import Case, draw, expected
from policies import random_dag


def difference(case: Case) -> str | None:
    """The first core node whose values differ; None where all are equal, or where a readout fires by definition."""
    reference = expected(case)
    if reference is None:
        return None
    emulator = Emulator(case.plan)
    steps = case.plan.schedule.steps
    actual: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(next(iter(case.inputs.values()))), steps):
        block = {name: x[start : start + steps, None] for name, x in case.inputs.items()}
        emulator.block(block, np.ones(1, dtype=np.bool_))
        for name, values in emulator.trace().items():
            actual.setdefault(name, []).append(values[:, 0])
    for name, values in reference[0].items():
        if not np.array_equal(np.concatenate(actual[name]), values):
            return name
    return None


def refusals(subject: Policy) -> list[str]:
    """Codes that speak against compiling it for lava; empty where it compiles."""
    target = nervecord.target("lava")
    codes = sorted({finding.code for finding in errors(subject, target.spec)})
    try:
        nervecord.compile(subject, target)
    except InfeasibleError as error:
        return codes or [f"not foreseen: {error}"]
    return [f"false alarm: {code}" for code in codes]


def main() -> None:
    """Prints what was equal, and a table of refusals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=3000)
    parser.add_argument("--float-graphs", type=int, default=300)
    parser.add_argument("--first", type=int, default=200_000, help="first seed")
    arguments = parser.parse_args()
    start = time.monotonic()
    having: dict[str, int] = collections.Counter()
    for k in range(arguments.graphs):
        case = draw(arguments.first + k)
        where = difference(case)
        if where is not None:
            sys.exit(f"graph {case.seed}: {where} differs")
        having["carried"] += not case.plan.schedule.resets
        having["fan-in"] += any(len(unit.incoming) > 1 for unit in case.plan.units)
        having["several inputs"] += len(case.plan.graph.inputs) > 1
        having["several outputs"] += len(case.plan.graph.outputs) > 1
        having["recurrence"] += any(name.startswith("back") for name in case.plan.graph.nodes)
    checked = "with" if os.environ.get("NUMBA_BOUNDSCHECK") == "1" else "without"
    print(
        f"emulator equal to the definition: {arguments.graphs:,} graphs in {time.monotonic() - start:.0f} s, "
        f"{checked} bounds checks; of them " + ", ".join(f"{count:,} {what}" for what, count in having.items())
    )
    start, compiled = time.monotonic(), 0
    refused: dict[str, int] = collections.Counter()
    for k in range(arguments.float_graphs):
        carried = k % 2 == 1
        codes = refusals(random_dag(arguments.first + k, carried=carried, recurrent=carried and k % 4 == 3))
        compiled += not codes
        refused.update(codes)
    if arguments.float_graphs:
        print(
            f"float graphs that compile for lava: {compiled:,} of {arguments.float_graphs:,} "
            f"({compiled / arguments.float_graphs:.0%}) in {time.monotonic() - start:.0f} s"
        )
    for code, count in sorted(refused.items(), key=lambda pair: -pair[1]):
        print(f"  {count:5,}  {code}")


if __name__ == "__main__":
    main()
