"""One action of a policy in everything that runs it: median and 99th percentile, as fast as it goes and at 20 Hz.

    python benchmarks/latency.py [policy.nir] [--rounds 8 --seconds 0.25] [--hertz 20 --paced 300] [--json FILE]

The policy (by default zoo/ant-small, 27-256-8, T = 5) is driven by the observations that it carries, rounded to
float32, one at a time on one thread. Beside its engines and the files that they emit stand the literal snnTorch loop
in eager torch (of zoo/ant-small alone) and networks without spikes in ONNX Runtime, normaliser and limits included.
At full speed they take turns; at the rate each has the process for itself and sleeps between two actions, as on a
robot, so that caches and clocks are cold. What is not installed is left out. Actions are compared first: the integer
engines must agree to the bit. Exits with 1 where they do not, or where the emitted C, called from Python, takes more
than twice the emulator's time.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
from pathlib import Path
from typing import Any

import engines
import numpy as np
from measure import FLOATS, ZOO, Call, at_rate, in_turns, keep, machine_line, parser, print_rows, quantiles, value_text

import nervecord
from nervecord.compiler.graph.policy import Policy

LIMIT = 2.0
"""Times the emulator's time, that the emitted C may take."""


def compared(calls: dict[str, Call], rows: Any) -> dict[str, float]:
    """Name -> largest difference of an action from the emulator's, or from the float definition's; of float32."""
    actions = {name: np.array([np.array(call(row), np.float32) for row in rows]) for name, call in calls.items()}
    differences = {}
    for name, values in actions.items():
        reference = actions["float: definition" if name.startswith(FLOATS) else "emulator"]
        differences[name] = float(np.abs(values - reference).max())
    return differences


def twins(policy: Policy) -> dict[str, Call]:
    """Networks without spikes in ONNX Runtime: of the policy's own layers, and the usual 64-64."""
    calls: dict[str, Call] = {}
    if engines.has("onnx", "onnxruntime"):
        ends = policy.contract.observation.size, policy.contract.action.size
        hidden = tuple(op.size for op in policy.graph.nodes.values() if op.spikes and op.neurons)
        for widths in dict.fromkeys((hidden, (64, 64))):
            name = f"ANN {'-'.join(map(str, widths))} in ONNX Runtime"
            calls[name] = engines.ann_twin((ends[0], *widths, ends[1]))
    return calls


def looped_c(policy: Policy, rows: Any, rounds: int) -> float:
    """Median microseconds of an action of the emitted C, called in a loop in C."""
    _, loop = engines.emitted_c(nervecord.compile(policy, "lava"))
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        loop(rows, 2000)
        times.append(1e6 * (time.perf_counter() - began) / 2000)
    return float(np.median(times[1:]))


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure and print; returns name -> {"full": quantiles, "paced": quantiles or None}."""
    flags = parser(__doc__)
    flags.add_argument(
        "policy", nargs="?", type=Path, default=ZOO / "ant-small" / "policy.nir", help="a policy's NIR file"
    )
    flags.add_argument("--rounds", type=int, default=8, help="turns of each")
    flags.add_argument("--seconds", type=float, default=0.25, help="of a turn")
    flags.add_argument("--hertz", type=float, default=20.0, help="the rate")
    flags.add_argument("--paced", type=int, default=300, help="actions at the rate; 0 leaves it out")
    flags.add_argument("--no-lava", action="store_true", help="leave Lava out")
    options = flags.parse_args(arguments)
    policy = nervecord.read(options.policy)
    assert isinstance(policy, Policy)
    rows = engines.observations(policy)
    print(machine_line())
    with engines.opened(policy, lava=not options.no_lava) as calls:
        if options.policy == ZOO / "ant-small" / "policy.nir" and engines.has("torch", "snntorch"):
            calls["snnTorch, eager"] = engines.snntorch_loop()
        differences = compared(calls, rows[:64])
        calls |= twins(policy)
        full = in_turns(calls, rows, rounds=options.rounds, seconds=options.seconds)
        results: dict[str, Any] = {name: {"full": quantiles(times)} for name, times in full.items()}
        for name, call in calls.items():
            paced = at_rate(call, rows, hertz=options.hertz, actions=options.paced) if options.paced else None
            results[name]["paced"] = None if paced is None else quantiles(paced)
    if engines.has_compiler():
        median = looped_c(policy, rows, options.rounds)
        results["policy.c, in C"] = {
            "full": {"median": median, "p99": None, "calls": options.rounds * 2000},
            "paced": None,
        }
    report(results, differences, options)
    exact = all(value == 0 for name, value in differences.items() if not name.startswith(FLOATS))
    print(f"\ninteger engines equal bit for bit: {exact}")
    keep(
        options.json,
        {"policy": policy.contract.environment, "hertz": options.hertz, "rows": results, "differences": differences},
    )
    slow = {name: row["full"]["median"] for name, row in results.items()}
    if not exact or slow.get("policy.c, from Python", 0.0) > LIMIT * slow["emulator"]:
        sys.exit(1)
    return results


def report(results: dict[str, Any], differences: dict[str, float], options: Any) -> None:
    """The table."""
    base = results["emulator"]["full"]["median"]
    head = ["us per action", "median", "p99", "x emulator", f"{options.hertz:g} Hz: median", "p99", "difference"]
    rows = []
    for name, row in sorted(results.items(), key=lambda pair: (pair[0].startswith(FLOATS), pair[1]["full"]["median"])):
        full, paced = row["full"], row["paced"] or {}
        apart = f"{differences[name]:.1g}" if name in differences else ""
        rows.append(
            [
                name,
                value_text(full["median"]),
                value_text(full["p99"]),
                f"{full['median'] / base:.2f}",
                value_text(paced.get("median")),
                value_text(paced.get("p99")),
                apart,
            ]
        )
    print_rows(head, rows)


if __name__ == "__main__":
    main()
