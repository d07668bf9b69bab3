"""What compiling takes by the number of synapses: seconds, memory, and the size of what comes out.

    python benchmarks/compile_cost.py [--synapses 1e4 1e5 1e6 1e7] [--json FILE]

Random policies of 27 observations, two equal hidden layers and 8 actions, so that most synapses are in one dense
matrix, compiled for the target lava. Each runs in a process of its own: "memory" is the largest resident size of that
process, and what Python and the imports hold before is told apart. Also the time to open the program in the emulator
and to act once, and the sizes of the program and of what the targets c and onnx emit.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import keep, machine_line, parser, print_rows

import nervecord

TESTS = Path(__file__).parent.parent / "tests"
LARGEST_EMITTED = 2_000_000
"""Synapses up to which C and ONNX are written: the C of a large matrix is text, five characters a weight."""


def width_for(synapses: float) -> int:
    """Neurons of each of two hidden layers, so that all connections together have about so many synapses."""
    ends = 27 + 8
    return round((-ends + (ends**2 + 4 * synapses) ** 0.5) / 2)


def resident() -> float:
    """Largest resident size of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one(synapses: float) -> dict[str, float]:
    """Compile one, in this process."""
    sys.path.insert(0, str(TESTS))
    from policies import random_policy

    width = width_for(synapses)
    policy = random_policy(sizes=(27, width, width, 8), recorded=64)
    program = nervecord.compile(random_policy(recorded=64), "lava")  # what is imported at the first call
    before, began = resident(), time.perf_counter()
    program = nervecord.compile(policy, "lava")
    costs: dict[str, float] = {
        "synapses": 27 * width + width * width + 8 * width,
        "compile_s": time.perf_counter() - began,
        "before_mb": before,
        "memory_mb": resident(),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.nervecord"
        began = time.perf_counter()
        program.save(path)
        costs |= {"save_s": time.perf_counter() - began, "program_bytes": path.stat().st_size}
        began = time.perf_counter()
        with nervecord.open(path, trace=False) as session:
            session.step(np.zeros(27))
        costs["open_s"] = time.perf_counter() - began
        if costs["synapses"] <= LARGEST_EMITTED:
            for target in ("c", "onnx"):
                try:
                    emitted = nervecord.emit(
                        program,
                        Path(folder) / target,
                        target=nervecord.target(target, **{"vectors": 1} if target == "c" else {}),
                    )
                except nervecord.NervecordError as error:
                    print(f"{target}: {error}", file=sys.stderr)
                    continue
                costs[f"{target}_bytes"] = sum(
                    it.path.stat().st_size for it in emitted if it.path.suffix in (".c", ".h", ".onnx")
                )
    costs["end_mb"] = resident()
    return costs


def main(arguments: list[str] | None = None) -> list[dict[str, float]]:
    """Measure each size in a process of its own, print, and return what was measured."""
    flags = parser(__doc__)
    flags.add_argument("--synapses", type=float, nargs="+", default=[1e4, 1e5, 1e6, 1e7])
    flags.add_argument("--one", type=float, help="measure this size in this process, and print it as JSON")
    options = flags.parse_args(arguments)
    if options.one is not None:
        print(json.dumps(one(options.one)))
        return []
    print(machine_line())
    rows = []
    for synapses in options.synapses:
        words = [sys.executable, __file__, "--one", f"{synapses:g}"]
        process = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(process.stdout))

    def size(row: dict[str, float], key: str) -> str:
        return f"{row[key] / 1e3:,.0f} KB" if key in row else "-"

    print_rows(
        ["synapses", "compile", "memory", "before it", "program", "open, act once", "C", "ONNX"],
        [
            [
                f"{row['synapses']:,.0f}",
                f"{row['compile_s']:.2f} s",
                f"{row['memory_mb']:,.0f} MB",
                f"{row['before_mb']:,.0f} MB",
                size(row, "program_bytes"),
                f"{row['open_s']:.2f} s",
                size(row, "c_bytes"),
                size(row, "onnx_bytes"),
            ]
            for row in rows
        ],
    )
    keep(options.json, {"rows": rows})
    return rows


if __name__ == "__main__":
    main()
