"""The verb `compare`."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

import nervecord
from nervecord.cli import html, show
from nervecord.cli.flags import integer, time_step_flags, wrapper_flag
from nervecord.cli.show import Outcome
from nervecord.cli.verb import Verb
from nervecord.errors import NervecordError, unknown_name

if TYPE_CHECKING:
    from nervecord.compiler.files.program import Program
    from nervecord.compiler.graph.graph import Graph
    from nervecord.compiler.graph.policy import Policy
    from nervecord.compiler.ops import Array

DIFFERENT = 2
"""Exit code. Not 1, an internal error: what was asked of these two files does not hold, as with `inspect`."""


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", help="policy, network or program")
    parser.add_argument("b", help="policy, network or program")
    parser.add_argument(
        "--observations",
        metavar="FILE",
        help=".npz or .npy of observations, of policies; by default those that a policy.nir carries",
    )
    parser.add_argument(
        "--env",
        metavar="ID",
        help="take the observations of one episode that a plays there: a Gymnasium id, or MODULE:ID, which imports the "
        "module; a network in an ONNX file becomes a policy of it",
    )
    wrapper_flag(parser, "around that environment: those that the policies were trained with")
    parser.add_argument(
        "--input",
        metavar="FILE",
        help="of networks without a contract: .npz, .npy, (steps, n), or an array for each input by name; or NIRData",
    )
    parser.add_argument(
        "--contract", metavar="FILE", help="makes a policy of a network of any tool; see nervecord contract"
    )
    parser.add_argument(
        "--steps",
        type=integer,
        metavar="N",
        help="clear the state of networks before each block of N steps; a program says it itself",
    )
    time_step_flags(parser)
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
    from nervecord.targets.comparing import compare

    if args.mode not in ("free", "layers"):
        raise unknown_name("mode", args.mode, ("free", "layers"), where="--mode")
    if args.tolerance is not None and not (math.isfinite(args.tolerance) and args.tolerance >= 0):
        raise NervecordError(f"is {args.tolerance}, zero or more is needed", where="--tolerance")
    html.require(args)
    for flag in ("observations", "input"):
        if args.env is not None and getattr(args, flag) is not None:
            raise NervecordError("gives observations, and so does --env", where=f"--{flag}", hint="leave one out")
    if args.wrappers is not None and args.env is None:
        raise NervecordError("are around an environment", where="--wrappers", hint="add --env ID")
    sides = _sides(args)
    observations = args.observations if args.env is None else _played(args, sides)
    comparison = compare(
        sides[0],
        sides[1],
        observations,
        inputs=args.input,
        steps=args.steps,
        engines=(args.engine_a, args.engine_b),
        mode=args.mode,
        tolerance=args.tolerance,
    )
    data, text = comparison.to_dict(), show.comparison_text(comparison, args.a, args.b)
    after = html.after(args, data, sides, comparison=comparison, targets=("reference",), labels=[args.a, args.b])
    if args.tolerance is None:
        return Outcome(data, text, after=after)
    verdict = f"{'within' if comparison.agrees else 'beyond'} the tolerance of {comparison.tolerance:g}"
    return Outcome(data, f"{text}\n{verdict}", 0 if comparison.agrees else DIFFERENT, after=after)


def _sides(args: argparse.Namespace) -> list[Graph | Policy | Program]:
    """The two that are compared. What the flags say of networks must be said of one of them at least."""
    sides = [_side(args, path) for path in (args.a, args.b)]
    if not any(is_network for _, is_network in sides):
        for flag in ("dt", "reset", "contract"):
            if getattr(args, flag) is not None:
                raise NervecordError(
                    "is for networks of other tools, and these two files say it themselves",
                    where=f"--{flag}",
                    hint="leave it out",
                )
    return [side for side, _ in sides]


def _side(args: argparse.Namespace, path: str) -> tuple[Graph | Policy | Program, bool]:
    """What is compared of a file, and whether it is a network of another tool."""
    from nervecord.compiler.onnx.file import is_onnx
    from nervecord.targets.comparing import compared

    if args.env is not None and args.contract is None and is_onnx(path):
        return nervecord.network_policy(path, args.env, wrappers=args.wrappers or ()), True
    return compared(path, dt=args.dt, convention=args.convention, reset=args.reset, contract=args.contract)


def _played(args: argparse.Namespace, sides: list[Graph | Policy | Program]) -> Array:
    """Observations of one episode that the first of them plays."""
    if getattr(sides[0], "contract", None) is None:
        raise NervecordError("a network without a contract acts in no environment", where="--env", hint="--input FILE")
    with nervecord.open(sides[0], engine=args.engine_a, trace=False) as session:
        result = nervecord.run(session, args.env, 1, wrappers=args.wrappers, record=True)
    assert result.recorded is not None
    return result.recorded.observations


VERBS = {
    "compare": Verb(
        "Drive two policies over the same observations, or two networks over the same recording, and say where they "
        "part: layer, action, step, neuron. With --tolerance exit code 2 where they differ by more.",
        (
            "nervecord compare policy.nir ant.nervecord",
            "nervecord compare policy.nir ant.nervecord --mode layers --observations trace.npz --json",
            "nervecord compare policy.nir ant.nervecord --tolerance 0.05",
            "nervecord compare a.nervecord b.nervecord --env mytasks:Reach-v0 --wrappers FlattenObservation",
            "nervecord compare ant.nervecord ant.nervecord --engine-b lava --observations trace.npz --tolerance 0",
            "nervecord compare any.nir net.nervecord --dt 1e-4 --input spikes.npz",
            "nervecord compare one.nir other.nir --dt 1e-3 --input spikes.npz --mode layers",
            "nervecord compare any.nir mine.nervecord --dt 1e-4 --contract contract.toml --observations rows.npz",
        ),
        _flags,
        _run,
    )
}
