"""The shipped policies in C on a Cortex-M4: memory, stack, instructions per action.

    python benchmarks/c_cortex.py [--steps 1000] [policy.nir ...]

Each policy (by default those of zoo/) is compiled for the target c and by arm-none-eabi-gcc for a Cortex-M4 without a
floating point unit, and run under qemu-system-arm, machine mps2-an386, over recorded steps that must come out to the
bit. QEMU counts: with -icount shift=0 an instruction takes a nanosecond of virtual time, which SysTick reads in ticks
of 40. A real core needs more than a cycle for some of them. Without the tools nothing is measured. Exits with 1 where a
step differs.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nervecord
from nervecord.compiler.plan.plan import plan
from nervecord.runtime.engines.c.source import c_source

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from compiled_c import CORTEX_FLAGS, CORTEX_TOOLS, on_cortex

MHZ = 100.0
LEVELS = ("-O2", "-Os")


def code_bytes(folder: Path, level: str) -> int:
    """Of the policy's functions, without constants and what the compiler's library adds."""
    flags = [flag for flag in CORTEX_FLAGS if not flag.startswith(("-Wl", "-nostart", "--specs"))]
    subprocess.run(["arm-none-eabi-gcc", *flags, level, "-c", "policy.c", "-o", "policy.o"], cwd=folder, check=True)
    process = subprocess.run(["arm-none-eabi-size", "policy.o"], cwd=folder, check=True, capture_output=True, text=True)
    return int(process.stdout.splitlines()[1].split()[0])


def main() -> None:
    """Measure and print a table."""
    zoo = Path(__file__).parent.parent / "zoo"
    shipped = sorted(zoo.glob("*/policy.nir"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policies", nargs="*", type=Path, default=shipped, help="policies' NIR files")
    parser.add_argument("--steps", type=int, default=1000, help="recorded steps that are compared")
    arguments = parser.parse_args()
    missing = [tool for tool in CORTEX_TOOLS if shutil.which(tool) is None]
    if missing:
        print(f"left out: {', '.join(missing)} not found")
        return
    print(
        "policy            flags  constants   code  state  stack  instructions, mean    most   of the period at 100 MHz"
    )
    failed = 0
    for path in arguments.policies:
        program = nervecord.compile(path, nervecord.target("c", vectors=arguments.steps))
        assert program.contract is not None
        source = c_source(plan(program.policy))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            nervecord.target("c", vectors=arguments.steps).emit(program, folder)
            for level in LEVELS:
                wrong, mean, most, stack = on_cortex(folder, level)
                failed += wrong != 0
                share = most / (MHZ * 1e6) / program.contract.control_period
                print(
                    f"{path.parent.name:16} {level:>6} {source.flash_bytes:10,} {code_bytes(folder, level):6,} "
                    f"{source.state_bytes:6,} {stack:6} {mean:19,} {most:7,} {share:24.1%}"
                    + (f"   STEP {wrong} DIFFERS" if wrong else "")
                )
    print(f"\n{arguments.steps} steps each, compared bit for bit")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
