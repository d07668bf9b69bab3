"""Time of one action: the emulator, the definition in plain numpy, and Lava itself.

    python benchmarks/lava_latency.py [--actions 200 --hidden 256 --steps 10]

All of them run the same random policy on the same observations in this process (Lava in its own), one after the other;
their actions are compared. Compare the ratios, not the times. Needs Lava's environment.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.contract import Channels, Contract
from nervecord.compiler.graph import Graph, Level, chain
from nervecord.runtime.session import MachineSession, Session
from nervecord.targets.lava.emulator import EmulatorSession
from nervecord.targets.lava.engine_lava import LavaSession


def policy(sizes: tuple[int, int, int], steps: int = 10) -> Graph:
    """A random INTEGER policy with one hidden layer and reset windows."""
    rng = np.random.default_rng(0)
    observations, hidden, actions = sizes
    window = steps + 2
    lif = n.FixedLIF(4095, 400, np.zeros(hidden), 0, threshold=700, reset_interval=window, reset_offset=1)
    readout = n.FixedReadout(4095, 100, np.zeros(actions), 0, reset_interval=window, reset_offset=2)
    contract = Contract(
        environment="random",
        observation=Channels(tuple(f"o{k}" for k in range(observations)), ("1",) * observations),
        action=Channels(tuple(f"a{k}" for k in range(actions)), ("1",) * actions),
        steps=steps,
        latency=2,
        state="reset",
        control_period=0.05,
        fail_safe=(0.0,) * actions,
    )
    return chain(
        Level.INTEGER,
        [
            ("input", n.Input((observations,))),
            ("normalise", n.Normalise(np.zeros(observations), np.ones(observations), 1e-8, 2.5)),
            ("quantise", n.Quantise(observations, 8.0, 20)),
            ("fc1", n.FixedDense(2 * rng.integers(-12, 13, (hidden, observations)), 0, 8, graded=True)),
            ("lif1", lif),
            ("fc2", n.FixedDense(2 * rng.integers(-20, 21, (actions, hidden)), 0, 8, graded=False)),
            ("readout", readout),
            ("decode", n.Decode(*(np.full(actions, x) for x in (1e-5, 0.0, -1.0, 1.0)))),
            ("output", n.Output((actions,))),
        ],
        dt=0.005,
        contract=contract,
    )


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
    return np.stack(actions)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=int, default=200)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    graph = policy((27, arguments.hidden, 8), arguments.steps)
    observations = np.random.default_rng(1).normal(size=(arguments.actions + 1, 27))
    print(f"27-{arguments.hidden}-8, {arguments.steps} steps per action, {arguments.actions} actions")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'milliseconds':34s} {'median':>8s} {'p99':>8s} {'to 1st act':>10s} {'close':>8s}")
    found = [
        measure("emulator", lambda: EmulatorSession(graph), observations),
        measure("definition", lambda: MachineSession(graph), observations),
        measure("lava", lambda: LavaSession(graph, full_trace=False), observations),
        measure("lava, readout at every step", lambda: LavaSession(graph), observations),
    ]
    print("actions equal to the bit:", all(np.array_equal(found[0], other) for other in found[1:]))


if __name__ == "__main__":
    main()
