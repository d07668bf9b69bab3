"""Estimates of the target fpga beside what place and route finds, on ten networks of differing shapes.

    python benchmarks/fpga_estimates.py [--only "zoo/ant" ...] [--estimate]

Prints the table of docs/fpga.md. Place and route takes a minute or two for a small network and ten for zoo/ant-small,
whose board is nearly full. `--estimate` leaves it out.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import nervecord
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Affine
from nervecord.errors import InfeasibleError
from nervecord.targets.fpga.package import design, placed

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from graphs import LAVA, draw
from policies import random_dag, random_policy

ROOT = Path(__file__).parent.parent


def zoo(name: str) -> Program:
    """A program of the zoo."""
    return nervecord.load(ROOT / "zoo" / name / f"{name}.nervecord")


def random(*sizes: int) -> Program:
    """A random policy of these sizes."""
    return nervecord.compile(random_policy(0, sizes=sizes), "fpga")


def sparse() -> Program:
    """A random policy of which nine of ten weights between populations are zero."""
    policy, rng = random_policy(0, sizes=(8, 64, 64, 4)), np.random.default_rng(0)
    nodes = {
        name: op.replace(weight=np.where(rng.random(op.weight.shape) < 0.1, op.weight, 0.0))
        if isinstance(op, Affine) and name != "fc1"
        else op
        for name, op in policy.graph.nodes.items()
    }
    return nervecord.compile(Policy(policy.graph.replace(nodes=nodes), policy.contract, policy.recorded), "fpga")


def own_chip() -> Program:
    """A random graph in the integers of a chip of one's own: several spikes per step, soft reset, sums that wrap."""
    own = dataclasses.replace(
        LAVA, spikes_per_step=7, reset="subtract", current_overflow="wrap", decay_rounding="floor", compare=">="
    )
    case = draw(6, own)
    return Program("fpga", case.plan.graph, schedule=case.plan.schedule)


NETWORKS: dict[str, tuple[Callable[[], Program], str, int]] = {
    "zoo/ant-small": (lambda: zoo("ant-small"), "icebreaker", 1),
    "zoo/ant": (lambda: zoo("ant"), "ulx3s-45f", 1),
    "random 6-12-4": (lambda: random(6, 12, 4), "icebreaker", 1),
    "random 8-32-4": (lambda: random(8, 32, 4), "hx8k-evn", 1),
    "random 8-64-64-4": (lambda: random(8, 64, 64, 4), "ulx3s-25f", 1),
    "random 8-64-64-4, four lanes": (lambda: random(8, 64, 64, 4), "ulx3s-25f", 4),
    "sparse 8-64-64-4": (sparse, "icebreaker", 1),
    "zoo/cartpole-recurrent": (lambda: zoo("cartpole-recurrent"), "icebreaker", 1),
    "branches, delays, two readouts": (
        lambda: nervecord.compile(random_dag(5, carried=True, recurrent=True), "fpga"),
        "ulx3s-25f",
        1,
    ),
    "own chip's arithmetic": (own_chip, "hx8k-evn", 1),
}


def main() -> None:
    """Prints a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NETWORK")
    parser.add_argument("--estimate", action="store_true", help="without place and route")
    arguments = parser.parse_args()
    print("| network | board | lanes | logic cells, estimate and placed | block RAM | multipliers | clock, MHz |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in arguments.only:
        make, board, lanes = NETWORKS[name]
        board_design = design(make(), board, lanes)
        used, measured, clock = board_design.estimate.used, {}, ""
        if not arguments.estimate:
            try:
                routed = placed(board_design)
            except InfeasibleError as error:
                clock = error.message
            else:
                measured, clock = routed.used, f"{routed.mhz:.1f}"
        cells = [
            ", ".join(f"{each[what]:,}" for each in (used, measured) if what in each)
            if getattr(board_design.estimate.board, what)
            else ""
            for what in ("cells", "ram", "dsp")
        ]
        print(f"| {name} | {board} | {lanes} | {' | '.join(cells)} | {clock} |", flush=True)


if __name__ == "__main__":
    main()
