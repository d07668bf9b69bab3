"""Random graphs and policies in C against the definition: every step, to the bit.

    python benchmarks/c_conformance.py [--graphs 100 --policies 50 --first 300000]

Half of the graphs are in Lava's arithmetic, half in any that can be said (tests/graphs.py, tests/emulated.py, other
seeds than the tests'). Of each the text that engines run, which keeps every spike and membrane, and the text that is
emitted. Exits with 1 at the first difference.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from compiled_c import assert_same_actions, assert_same_blocks
from emulated import observations_of, policy_of, random_arithmetic
from graphs import LAVA, draw


def main() -> None:
    """Compare, and say how many were equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=100)
    parser.add_argument("--policies", type=int, default=50)
    parser.add_argument("--first", type=int, default=300_000, help="first seed")
    arguments = parser.parse_args()
    begun, acted = time.monotonic(), 0
    for k in range(max(arguments.graphs, arguments.policies)):
        seed = arguments.first + k
        case = draw(seed, random_arithmetic(seed) if k % 2 else LAVA)
        try:
            if k < arguments.graphs:
                assert_same_blocks(case)
            policy = policy_of(case, choices=k % 3 == 0) if k < arguments.policies else None
            if policy is not None:
                assert_same_actions(policy, observations_of(policy, seed, 8, 2))
                acted += 1
        except AssertionError as error:
            sys.exit(f"seed {seed}: {error}")
    print(
        f"C and definition equal to the bit: {arguments.graphs:,} graphs, {acted:,} policies in "
        f"{time.monotonic() - begun:.0f} s"
    )


if __name__ == "__main__":
    main()
