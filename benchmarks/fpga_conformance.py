"""Random graphs as simulated hardware against the definition and the emulator: every step, bit for bit.

    python benchmarks/fpga_conformance.py [--graphs 300 --first 0]

The graphs are those of the test suite (tests/hardware.py): skips, fan-in, several inputs and outputs, recurrence with
carried state, delays, extremes of every parameter, in the arithmetic of every target and in four of one's own, at 1, 2
and 4 lanes. Each becomes Verilog with the files of its memories, which Verilator simulates (the engine fpga-sim and the
test suite use CXXRTL): 2 seconds of processor time. Exits with 1 at the first difference.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from conformance import difference
from hardware import random_case, require_equal, shapes
from verilated import Verilator, missing

from nervecord.targets.fpga.layout import layout
from nervecord.targets.fpga.microcode import microcode


def main() -> None:
    """Prints how many were equal, and what was in them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    arguments = parser.parse_args()
    if missing():
        sys.exit(f"needs {' and '.join(missing())}")
    start = time.monotonic()
    having: dict[str, int] = collections.Counter()
    cycles = 0
    with TemporaryDirectory() as folder:
        verilator = Verilator(Path(folder))
        for seed in range(arguments.first, arguments.first + arguments.graphs):
            case, lanes = random_case(seed)
            with verilator.core(microcode(layout(case.plan), lanes)) as hardware:
                try:
                    require_equal(case, hardware)
                except AssertionError as error:
                    sys.exit(f"graph {seed}, {lanes} lanes: {error}")
                where = difference(case)
                if where is not None:
                    sys.exit(f"graph {seed}: {where} differs in the emulator")
                having.update(shapes(case, hardware.code))
                cycles += sum(hardware.cycles)
            print(f"graph {seed} is equal", file=sys.stderr, flush=True)
    print(
        f"hardware and emulator equal to the definition: {arguments.graphs:,} graphs, {cycles:,} clock cycles in "
        f"{time.monotonic() - start:.0f} s; of them " + ", ".join(f"{having[name]:,} {name}" for name in sorted(having))
    )


if __name__ == "__main__":
    main()
