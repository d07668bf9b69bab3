"""The verb `compare`."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

import nervecord
from nervecord.cli import html, show
from nervecord.cli.show import Outcome
from nervecord.cli.verb import Verb
from nervecord.errors import NervecordError, unknown_name

if TYPE_CHECKING:
    pass

DIFFERENT = 2
"""Exit code. Not 1, which is a defect of ours: what was asked of these two files does not hold, as with `inspect`."""


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", help="policy or program")
    parser.add_argument("b", help="policy or program")
    parser.add_argument(
        "--observations", metavar="FILE", help=".npz of observations; by default those that a policy.nir carries"
    )
    parser.add_argument("--mode", default="free", help="free: each on its own (default); layers: layer by layer")
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="exit with 2 where an action, or a readout's membrane in the action's units, differs by more; 0 asks for "
        "everything to be identical, spikes included. Of actions that are choices each must be the same",
    )
    parser.add_argument("--engine-a", metavar="NAME", help="engine of a")
    parser.add_argument("--engine-b", metavar="NAME", help="engine of b")
    html.add_flag(parser)


def _run(args: argparse.Namespace) -> Outcome:
    from nervecord.targets.given import acting, observations_for, read_given

    if args.mode not in ("free", "layers"):
        raise unknown_name("mode", args.mode, ("free", "layers"), where="--mode")
    if args.tolerance is not None and not (math.isfinite(args.tolerance) and args.tolerance >= 0):
        raise NervecordError(f"is {args.tolerance}, zero or more is needed", where="--tolerance")
    html.require(args)
    found = [read_given(path) for path in (args.a, args.b)]
    programs = [acting(subject) for subject in found]
    rows = observations_for(args.observations, found)
    with (
        nervecord.open(programs[0], engine=args.engine_a) as a,
        nervecord.open(programs[1], engine=args.engine_b) as b,
    ):
        comparison = nervecord.compare(a, b, rows, mode=args.mode, tolerance=args.tolerance)
    data, text = comparison.to_dict(), show.comparison_text(comparison, args.a, args.b)
    after = html.after(args, data, found, comparison=comparison, targets=("reference",), labels=[args.a, args.b])
    if args.tolerance is None:
        return Outcome(data, text, after=after)
    verdict = f"{'within' if comparison.agrees else 'beyond'} the tolerance of {comparison.tolerance:g}"
    return Outcome(data, f"{text}\n{verdict}", 0 if comparison.agrees else DIFFERENT, after=after)


VERBS = {
    "compare": Verb(
        "Drive two policies over the same observations and say where they part: layer, action, step, neuron. With "
        "--tolerance exit code 2 where they differ by more.",
        (
            "nervecord compare policy.nir ant.nervecord",
            "nervecord compare policy.nir ant.nervecord --mode layers --observations trace.npz --json",
            "nervecord compare policy.nir ant.nervecord --tolerance 0.05",
            "nervecord compare ant.nervecord ant.nervecord --engine-b lava --observations trace.npz --tolerance 0",
        ),
        _flags,
        _run,
    )
}
