"""One action of the emitted C beside the emulator, on one core, in one run.

    python benchmarks/c_latency.py [policy.nir] [--rounds N] [--actions N]

The policy (by default zoo/ant) is compiled for the target c, its C with -O3 -march=native, and both are driven by the
observations that it carries, rounded to float32; their actions, rounded to float32, must be the same bits. Three lines:
the C as firmware calls it, in a loop in C; the C by one ctypes call per action from Python; the emulator's session,
which is called from Python too. Trust the ratios, not the times. Exits with 1 where the C takes more than twice the
emulator's time, called the same way, or where an action differs.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import ctypes
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import nervecord
from nervecord.compiler.c.source import c_source
from nervecord.compiler.plan import plan
from nervecord.runtime.c_library import FAST, build, compiler
from nervecord.runtime.emulator import EmulatorSession

LIMIT = 2.0
"""Times the emulator's time."""
LOOP = """
#include "policy.h"
#include <stddef.h>

void loop(policy_state_t *s, const float *obs, float *act, size_t rows, size_t count);
void loop(policy_state_t *s, const float *obs, float *act, size_t rows, size_t count)
{
    for (size_t k = 0; k < count; k++) {
        policy_step(s, obs + k % rows * POLICY_OBS_DIM, act + k % rows * POLICY_ACT_DIM);
    }
}
"""


def best_us(call: Callable[[], object], actions: int, rounds: int) -> float:
    """Best time per action of several rounds, in microseconds."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        found.append((time.perf_counter() - began) / actions)
    return min(found) * 1e6


def main() -> None:
    """Measure, compare and print."""
    zoo = Path(__file__).parent.parent / "zoo" / "ant" / "policy.nir"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", nargs="?", default=zoo, help="a policy's NIR file")
    parser.add_argument("--rounds", type=int, default=15, help="the best of so many counts")
    parser.add_argument("--actions", type=int, default=2000, help="of a round")
    arguments = parser.parse_args()
    given = nervecord.read(arguments.policy)
    assert isinstance(given, nervecord.Policy)
    assert given.recorded is not None
    program = nervecord.compile(given, "c")
    rows = np.ascontiguousarray(given.recorded[:256], dtype=np.float32)
    source = c_source(plan(program.policy))
    with tempfile.TemporaryDirectory() as folder:
        files = {**source.files(), "loop.c": LOOP}
        library = ctypes.CDLL(str(build(files, "policy", Path(folder), compiler(), FAST)))
    loop, step = library.loop, library.policy_step
    loop.argtypes, loop.restype = [ctypes.c_void_p] * 3 + [ctypes.c_size_t] * 2, None
    step.argtypes = [ctypes.c_void_p] * 3
    state, acts = (
        np.zeros(1, dtype=source.dtype),
        np.zeros((len(rows), program.policy.contract.action.size), np.float32),
    )
    session = EmulatorSession(program.policy)
    wide = rows.astype(np.float64)

    loop(state.ctypes.data, rows.ctypes.data, acts.ctypes.data, len(rows), len(rows))
    wanted = np.array([session.step(row) for row in wide]).astype(np.float32)
    same = bool(np.array_equal(acts, wanted))

    places = [(rows[k].ctypes.data, acts[k].ctypes.data) for k in range(len(rows))]
    at = state.ctypes.data
    count = arguments.actions

    def by_ctypes() -> None:
        for k in range(count):
            step(at, *places[k % len(places)])

    def by_session() -> None:
        for k in range(count):
            session.step(wide[k % len(wide)])

    calls: dict[str, Callable[[], object]] = {
        "C, called in C": lambda: loop(at, rows.ctypes.data, acts.ctypes.data, len(rows), count),
        "C, called from Python": by_ctypes,
        "emulator, called from Python": by_session,
    }
    best = dict.fromkeys(calls, float("inf"))
    # In turns, so that a noisy machine is noisy for all of them.
    for _ in range(arguments.rounds):
        for name, call in calls.items():
            best[name] = min(best[name], best_us(call, count, 1))
    emulator = best["emulator, called from Python"]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {' '.join(compiler())}")
    print(f"policy {program.policy.contract.environment}, {' '.join(FAST)}\n")
    for name, value in best.items():
        print(f"{name:30} {value:9.2f} us per action   {value / emulator:6.2f} x the emulator")
    print(f"\nactions equal to the bit: {same} ({len(rows)} observations)")
    if not same or best["C, called from Python"] > LIMIT * emulator:
        sys.exit(1)


if __name__ == "__main__":
    main()
