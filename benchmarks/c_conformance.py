"""Random graphs and policies in C against the definition: every step, to the bit.

    python benchmarks/c_conformance.py [--graphs 100 --policies 50 --damaged 100 --first 300000] [--sanitize]

A third of the graphs are in Lava's arithmetic, a third in any that can be said, a third in those of the smallest and
largest widths. Half are drawn as integers (tests/graphs.py), a quarter with bias sources, connections of several
sources and compressed rows besides (tests/streams.py), a quarter is lowered from float streams with currents,
biases, second slices, skips and delays; all from other seeds than the tests'. Of each the text that engines run, which
keeps every spike and membrane, and the text that is emitted; streams twice, and beside the emulator. And damaged
programs, as the fuzzer makes them (tests/fuzz), as far as they are read at all.

With --sanitize GCC's sanitizers of addresses and undefined behaviour watch engine and emitted text: of what a step
takes and gives, of every array of its state, of shifts, sums and conversions. Exits with 1 at the first difference or
report.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from nervecord.compiler.ops import Array, Level, Op
from nervecord.compiler.plan.plan import plan
from nervecord.errors import InfeasibleError, NervecordError
from nervecord.runtime.engines.c.session import CSession, CStream
from nervecord.runtime.engines.emulator.session import EmulatorStream
from nervecord.runtime.session import MachineSession
from nervecord.runtime.stream import MachineStream
from nervecord.targets.source import load_program

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from compiled_c import (
    QUICK,
    SANITIZED,
    assert_same_actions,
    assert_same_blocks,
    guarded,
    loaded_sanitizer,
    sanitized,
    sanitizer,
)
from emulated import observations_of, policy_of, random_arithmetic, widest_arithmetic
from fuzz.kinds import MOST_STEPS, damaged
from graphs import LAVA, Case, NoneDrawnError, draw
from streams import as_float32, draw_policy, draw_stream, lowered_stream

ARITHMETICS = (lambda seed: LAVA, random_arithmetic, widest_arithmetic)


def case_of(seed: int) -> Case | None:
    """A stream; None where its arithmetic holds none."""
    arithmetic = ARITHMETICS[seed % 3](seed)
    try:
        if seed % 4 == 3:
            # Float neurons are reset to zero; the narrowest widths hold none of them.
            return lowered_stream(seed, arithmetic if arithmetic.reset == "zero" and seed % 3 < 2 else LAVA)
        return draw_stream(seed, arithmetic) if seed % 2 else draw(seed, arithmetic)
    except NoneDrawnError:
        return None


def compare_stream(case: Case, flags: tuple[str, ...]) -> None:
    """Definition and C in every step; engine and emulator on two copies, twice."""
    assert_same_blocks(case, flags)
    inputs = {name: np.stack([x, np.roll(x, 1, axis=0)], axis=1) for name, x in case.inputs.items()}
    with guarded(flags):  # the text that was built above
        session = CStream(case.plan, flags=flags)
    with session, EmulatorStream(case.plan) as fast:
        expected = fast.run(inputs)
        for _ in range(2):
            for name, rows in session.run(inputs).items():
                np.testing.assert_array_equal(rows, expected[name], err_msg=f"engine c beside the emulator: {name}")


def compare_policy(seed: int, flags: tuple[str, ...]) -> bool:
    """Definition, engine and emitted text; False where none is drawn."""
    arithmetic, choices = ARITHMETICS[seed % 3](seed), seed % 5 == 0
    try:
        policy = (
            draw_policy(seed, arithmetic, choices=choices)
            if seed % 2
            else policy_of(draw(seed, arithmetic), choices=choices)
        )
    except NoneDrawnError:
        return False
    if policy is not None:
        assert_same_actions(policy, observations_of(policy, seed, 8, 2), flags)
    return policy is not None


def compare_damaged(number: int, flags: tuple[str, ...], folder: Path) -> bool:
    """Definition and engine on the fuzzer's program of this number; False where reading it refuses it."""
    path = folder / "case.nervecord"
    path.write_bytes(damaged("program", number))
    try:
        program = load_program(path)
        network_plan = plan(program.subject, None if program.contract else program.schedule)
        if program.graph.level is not Level.INTEGER or network_plan.window > MOST_STEPS:
            return False
        session = (
            CStream(network_plan, flags=flags) if program.contract is None else CSession(network_plan, flags=flags)
        )
    except NervecordError:
        return False
    rng = np.random.default_rng(number)
    if isinstance(session, CStream):
        inputs = {
            name: values_for(network_plan.graph.nodes[name], network_plan.schedule.steps * 6, rng)
            for name in network_plan.graph.inputs
        }
        expected = MachineStream(network_plan).run(inputs)
        for name, rows in session.run(inputs).items():
            np.testing.assert_array_equal(rows, expected[name], err_msg=f"damaged program {number}: {name}")
        return True
    plain = MachineSession(network_plan)
    for observation in as_float32(
        rng.normal(size=(6, network_plan.contract.observation.size)) * 10.0 ** np.arange(6)[:, None]
    ):
        with np.errstate(over="ignore"):
            expected = as_float32(plain.step(observation))
        np.testing.assert_array_equal(session.step(observation), expected, err_msg=f"damaged program {number}")
    return True


def values_for(op: Op, steps: int, rng: np.random.Generator) -> Array:
    """What an Input may be given, some of it far beyond any limit."""
    shape = (steps, *op.in_shape)
    if op.spikes:
        return (rng.random(shape) < 0.5).astype(np.float64)
    return as_float32(rng.normal(size=shape) * 10.0 ** rng.integers(0, 7, size=shape))


def main() -> None:
    """Compare, and say how many were equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=100)
    parser.add_argument("--policies", type=int, default=50)
    parser.add_argument("--damaged", type=int, default=100, help="damaged programs")
    parser.add_argument("--first", type=int, default=300_000, help="first seed")
    parser.add_argument("--sanitize", action="store_true", help="with the sanitizers of GCC")
    arguments = parser.parse_args()
    if arguments.sanitize and loaded_sanitizer() is None:
        library = sanitizer()
        if library is None:
            sys.exit("needs GCC and its libasan")
        process = sanitized([__file__, *sys.argv[1:]], library)
        print(process.stdout, end="")
        sys.exit(0 if process.returncode == 0 else f"{process.stderr[-8000:]}\nexit code {process.returncode}")
    flags = SANITIZED if arguments.sanitize else QUICK
    start, totals = time.monotonic(), dict.fromkeys(("graphs", "policies", "damaged programs"), 0)
    counts = (arguments.graphs, arguments.policies, arguments.damaged)
    with tempfile.TemporaryDirectory() as folder:
        for k in range(max(counts)):
            seed = arguments.first + k
            if arguments.sanitize:
                print(f"seed {seed}", file=sys.stderr, flush=True)  # a report of the sanitizers follows its seed
            try:
                if k < arguments.graphs and (case := case_of(seed)) is not None:
                    compare_stream(case, flags)
                    totals["graphs"] += 1
                totals["policies"] += k < arguments.policies and compare_policy(seed, flags)
                totals["damaged programs"] += k < arguments.damaged and compare_damaged(seed, flags, Path(folder))
            except (AssertionError, InfeasibleError) as error:
                sys.exit(f"seed {seed}: {error}")
    note = ", and the sanitizers report nothing" if arguments.sanitize else ""
    counted = ", ".join(f"{count:,} {what}" for what, count in totals.items())
    print(f"C and definition equal bit for bit{note}: {counted} in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
