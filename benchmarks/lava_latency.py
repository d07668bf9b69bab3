"""Time of one action: the emulator, the definition in plain numpy, and Lava itself.

    python benchmarks/lava_latency.py [--actions 200 --steps 10]

All of them run the policy of zoo/ant (27-256-8) on the same observations in this process (Lava in its own), one after
the other; their actions are compared. Compare the ratios, not the times. Needs Lava's environment.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import nervecord
from nervecord.compiler.policy import Policy
from nervecord.runtime.emulator import EmulatorSession
from nervecord.runtime.session import MachineSession, Session
from nervecord.targets.lava.engine_lava import LavaSession


def policy(steps: int) -> tuple[Policy, np.ndarray]:
    """zoo/ant (27-256-8) with `steps` steps per action, compiled, and the observations it carries."""
    trained = nervecord.read(Path(__file__).parent.parent / "zoo" / "ant" / "policy.nir")
    assert isinstance(trained, Policy)
    assert trained.recorded is not None
    longer = trained.replace(contract=dataclasses.replace(trained.contract, steps=steps))
    return nervecord.compile(longer, "lava").policy, trained.recorded


medians: dict[str, float] = {}
"""Milliseconds of an action by name."""


def measure(name: str, opened: Callable[[], Session], observations: np.ndarray) -> np.ndarray:
    """Prints milliseconds of an action; returns the actions."""
    begun = time.perf_counter()
    with opened() as session:
        actions = [session.step(observations[0])]
        started = time.perf_counter() - begun
        times = []
        for row in observations[1:]:
            before = time.perf_counter()
            actions.append(session.step(row))
            times.append(1e3 * (time.perf_counter() - before))
        begun = time.perf_counter()
    closed = time.perf_counter() - begun
    median, late = np.percentile(times, [50, 99])
    print(f"{name:34s} {median:8.3f} {late:8.3f} {1e3 * started:10.0f} {1e3 * closed:8.0f}")
    medians[name] = float(np.median(times))
    return np.stack(actions)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=int, default=200)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    compiled, recorded = policy(arguments.steps)
    observations = np.random.default_rng(1).permutation(recorded)[: arguments.actions + 1]
    print(f"27-256-8, {arguments.steps} steps per action, {arguments.actions} actions")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'milliseconds':34s} {'median':>8s} {'p99':>8s} {'to 1st act':>10s} {'close':>8s}")
    found = [
        measure("emulator", lambda: EmulatorSession(compiled), observations),
        measure("definition", lambda: MachineSession(compiled), observations),
        measure("lava", lambda: LavaSession(compiled, full_trace=False), observations),
        measure("lava, readout at every step", lambda: LavaSession(compiled), observations),
    ]
    print(f"emulator faster than lava: {medians['lava'] / medians['emulator']:.0f} times")
    print("actions equal to the bit:", all(np.array_equal(found[0], other) for other in found[1:]))


if __name__ == "__main__":
    main()
