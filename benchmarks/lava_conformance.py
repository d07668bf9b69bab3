"""Random graphs in stock Lava and by the definition: spikes and membranes at every step, to the bit.

    python benchmarks/lava_conformance.py [--graphs 100 --first 100000]

The graphs are those of the test suite (tests/graphs.py), from other seeds: skips, fan-in, several ends, recurrence,
delays, nodes and edges in any order. Prints what was compared and exits with 1 at the first difference. Needs Lava's
environment; about a second for each graph.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
from pathlib import Path

import numpy as np

from nervecord.targets.lava.network import start_worker

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from lava_graphs import differences, draw, traits


def main() -> None:
    """Prints a line for every hundred graphs and a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=100)
    parser.add_argument("--first", type=int, default=100_000, help="first seed")
    arguments = parser.parse_args()
    sizes: dict[str, int] = collections.Counter()
    having: dict[str, int] = collections.Counter()
    start = time.monotonic()
    with start_worker() as worker:
        for k in range(arguments.graphs):
            case = draw(arguments.first + k)
            wrong, spikes = differences(case, worker)
            if wrong:
                sys.exit(f"graph {case.seed}: {', '.join(wrong)} differ")
            sizes["populations"] += len(spikes) + sum(not unit.step.op.spikes for unit in case.plan.units)
            sizes["places for a spike"] += sum(values.size for values in spikes.values())
            sizes["spikes"] += sum(int(np.sum(values)) for values in spikes.values())
            for what, has in traits(case).items():
                having[what] += has
            if (k + 1) % 100 == 0:
                print(f"{k + 1:5d} equal, {time.monotonic() - start:.0f} s", flush=True)
    print(
        f"equal bit for bit: {arguments.graphs:,} graphs in {time.monotonic() - start:.0f} s; "
        + ", ".join(f"{count:,} {what}" for what, count in sizes.items())
    )
    print("of the graphs: " + ", ".join(f"{count:,} with {what}" for what, count in having.items()))


if __name__ == "__main__":
    main()
