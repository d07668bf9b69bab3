"""Kills at random moments: what does engine lava leave behind? It should be nothing, every time.

    python benchmarks/lava_faults.py [--runs 50 --seed 0]

Each run starts a process that opens a session and acts in a loop, and kills something at a random moment between its
start and its fiftieth action or so: that process (SIGKILL, SIGTERM, SIGINT), the worker, its guardian, or one of Lava's
own processes. Then it counts processes that still run and shared-memory segments that still exist after a second, and
checks that a survivor saw an EngineError. Needs Lava's environment, and Linux. Exit code 1 if anything was left.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

SESSION = """
import signal
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from engines import ant
from nervecord.compiler.compile import compile_graph
from nervecord.targets.catalogue import find_target
from nervecord.errors import EngineError
from nervecord.targets.lava.engine_lava import LavaSession
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
compiled = compile_graph(ant(10), find_target("lava")).policy
print("begun", flush=True)
try:
    with LavaSession(compiled, full_trace=False) as session:
        first = session.step(np.zeros(27))
        while np.array_equal(session.step(np.zeros(27)), first):
            print("acted", flush=True)
    sys.exit(43)
except EngineError:
    sys.exit(42)
"""
VICTIMS = ("parent KILL", "parent TERM", "parent INT", "worker", "guardian", "lava")
WINDOW = 3.0
"""Seconds after its start in which a run is killed: start and first actions take about two."""
LONGEST = 10.0
"""Seconds until a session that cannot go on must have ended."""
GOES_ON, HANGS = 0, 99
"""The exit codes noted for a session that goes on, every action the same, and for one that gives no more actions."""
SETTLE = 1.0
"""Seconds until nothing may be left."""


def marked(parent: int) -> list[int]:
    """Living processes of this parent's workers, oldest first, and itself not among them."""
    token = f"NERVECORD_WORKER=nvc{parent:x}_".encode()
    pids = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if any(entry.startswith(token) for entry in (folder / "environ").read_bytes().split(b"\0")):
                    pids.append(int(folder.name))
            except OSError:  # gone, or not ours
                continue
    return sorted(pids)


def segments(parent: int) -> list[str]:
    """Names of shared-memory segments of this parent's workers."""
    return [path.name for path in Path("/dev/shm").glob(f"nvc{parent:x}_*")]


def strike(parent: subprocess.Popen[str], victim: str, rng: random.Random) -> str:
    """Kill it; returns what was killed (the parent where there is nothing else yet)."""
    name, _, number = victim.partition(" ")
    theirs = marked(parent.pid)
    order = {"guardian": theirs[:1], "worker": theirs[1:2], "lava": theirs[2:]}.get(name, [])
    if not order:
        parent.send_signal(getattr(signal, f"SIG{number or 'KILL'}"))
        return f"parent {number or 'KILL'}"
    os.kill(rng.choice(order), signal.SIGKILL)
    return name


def acts(output: IO[str], seconds: float = 2.0) -> bool:
    """Whether a session gives actions in the seconds that follow."""
    os.set_blocking(output.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        while os.read(output.fileno(), 65536):
            pass
    time.sleep(seconds)
    try:
        return b"acted" in os.read(output.fileno(), 65536)
    except BlockingIOError:
        return False


def run(victim: str, moment: float, rng: random.Random) -> tuple[str, int, float, int, int]:
    """One run: (what was killed, exit code of the parent, seconds until it ended, processes left, segments left)."""
    parent = subprocess.Popen(
        [sys.executable, "-c", SESSION, str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        time.sleep(moment)
        killed = strike(parent, victim, rng)
        began = time.monotonic()
        try:
            code = parent.wait(LONGEST)
        except subprocess.TimeoutExpired:
            # Did what was killed take no part in the work, as a tracker of Python's multiprocessing? Then it acts on.
            code = GOES_ON if acts(parent.stdout) else HANGS
            parent.terminate()
            parent.wait()
        seconds = time.monotonic() - began
        deadline = time.monotonic() + SETTLE
        while (marked(parent.pid) or segments(parent.pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        return killed, code, seconds, len(marked(parent.pid)), len(segments(parent.pid))


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    runs: dict[str, int] = collections.Counter()
    bad: dict[str, int] = collections.Counter()
    slowest = 0.0
    for k in range(arguments.runs):
        moment = rng.uniform(0, WINDOW)
        killed, code, seconds, processes, segments_left = run(VICTIMS[k % len(VICTIMS)], moment, rng)
        runs[killed] += 1
        bad["processes"] += processes
        bad["segments"] += segments_left
        if code != GOES_ON:
            slowest = max(slowest, seconds)
        else:
            runs["went on"] += 1
        if code == HANGS:
            bad["hung"] += 1
        elif not killed.startswith("parent") and code != 42 and (killed, code) != ("lava", GOES_ON):
            bad["not told"] += 1
        print(
            f"{k:3d}  {killed:12s} after {moment:4.2f} s  exit {code:4d} in {seconds:4.1f} s  "
            f"left: {processes} processes, {segments_left} segments",
            flush=True,
        )
    print(f"runs: {dict(runs)}")
    print(
        f"left: {bad['processes']} processes, {bad['segments']} segments; deaths not reported: {bad['not told']}; "
        f"hung: {bad['hung']}; slowest end {slowest:.1f} s"
    )
    sys.exit(1 if any(bad.values()) else 0)


if __name__ == "__main__":
    main()
