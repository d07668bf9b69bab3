"""Random graphs in stock Lava and by the definition: spikes and membranes of every layer at every step, to the bit.

    python benchmarks/lava_conformance.py [--graphs 100 --first 100000]

The graphs are those of the test suite (tests/lava_graphs.py), from other seeds. Prints what was compared and exits with
1 at the first difference. Needs Lava's environment; about a second for each graph.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
from pathlib import Path

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.semantics import V_LIMIT
from nervecord.targets.lava.engine_lava import LavaNetwork, connections, start_worker

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from lava_graphs import usable


def main() -> None:
    """Prints a line for every hundred graphs and a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=100)
    parser.add_argument("--first", type=int, default=100_000, help="first seed")
    arguments = parser.parse_args()
    seen: dict[str, int] = collections.Counter()
    begun, seed = time.monotonic(), arguments.first
    with start_worker() as worker:
        while seen["graphs"] < arguments.graphs:
            ((used, graph, x, spikes, membranes),) = usable(seed, 1)
            seed = used + 1
            network = LavaNetwork(connections(graph), len(x), membranes="all", worker=worker)
            got_spikes, got_membranes = network.play(x)
            network.rewind()
            for name, values in got_membranes.items():
                if not np.array_equal(values, membranes[name]):
                    sys.exit(f"graph {used}: v of {name} differs")
                seen["membranes"] += values.size
                seen["saturated"] += int((np.abs(values) == V_LIMIT).sum())
            for name, values in got_spikes.items():
                if not np.array_equal(values, spikes[name]):
                    sys.exit(f"graph {used}: spikes of {name} differ")
                seen["places for a spike"] += values.size
                seen["spikes"] += int(values.sum())
            seen["graphs"] += 1
            seen["steps"] += len(x)
            seen["layers"] += len(connections(graph))
            seen["graded"] += any(node.graded for _, node in graph.of_type(n.FixedDense))  # type: ignore[attr-defined]
            seen["with reset windows"] += any(
                node.reset_interval  # type: ignore[attr-defined]
                for _, node in graph.of_type(*n.FIXED_NEURONS)
            )
            if seen["graphs"] % 100 == 0:
                print(f"{seen['graphs']:5d} equal, {time.monotonic() - begun:.0f} s", flush=True)
    print("equal to the bit: " + ", ".join(f"{count:,} {what}" for what, count in seen.items()))


if __name__ == "__main__":
    main()
