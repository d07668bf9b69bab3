"""The verb `compile`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import nervecord
from nervecord.cli import html, show
from nervecord.cli.flags import (
    inputs_of,
    limit_flags,
    option_flags,
    options_given,
    target_of,
    time_step_flags,
    whole_number,
    writable,
)
from nervecord.cli.show import Outcome
from nervecord.cli.verb import Verb
from nervecord.compiler.files.atomic import made_folder
from nervecord.errors import NervecordError


def _flags(parser: argparse.ArgumentParser) -> None:
    from nervecord.targets.catalogue import DEFAULT

    parser.add_argument("policy", metavar="FILE", help="NIR file of a policy, or of any network")
    parser.add_argument(
        "--target", metavar="NAME", help=f"what to compile for (default {DEFAULT}); see nervecord targets"
    )
    limit_flags(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="the program; replaced if it exists")
    parser.add_argument(
        "--emit", metavar="DIR", help="also write what the target makes for other tools into this folder"
    )
    parser.add_argument(
        "--contract", metavar="FILE", help="makes a policy of a network of any tool; see nervecord contract"
    )
    parser.add_argument(
        "--inputs",
        metavar="KIND",
        help="what enters a network that is no policy: spikes, or the limit of values; or NAME=KIND,NAME=KIND",
    )
    parser.add_argument(
        "--steps", type=whole_number, metavar="N",
        help="clear such a network's state before each block of N steps; by default it is carried",
    )  # fmt: skip
    parser.add_argument(
        "--calibration", metavar="FILE",
        help=".npz of recorded input that chooses the scales; by default a policy's own observations",
    )  # fmt: skip
    parser.add_argument("--dump", metavar="DIR", help="write the graph as text after each step")
    parser.add_argument("--explain", action="store_true", help="say what each step changed")
    time_step_flags(parser)
    html.add_flag(parser)


def _run(args: argparse.Namespace) -> Outcome:
    writable(args.output, where="--output")
    html.require(args)
    if args.emit is not None and Path(args.emit).exists() and not Path(args.emit).is_dir():
        raise NervecordError(f"{args.emit} is a file, a folder is needed", where="--emit")
    target = target_of(args, **options_given(args))

    def explain(line: str) -> None:
        print(line, file=sys.stderr)

    program = nervecord.compile(
        args.policy,
        target,
        contract=args.contract,
        inputs=inputs_of(args.inputs),
        steps=args.steps,
        dt=args.dt,
        convention=args.convention,
        reset=args.reset,
        calibration=args.calibration,
        dump=args.dump,
        explain=explain if args.explain else None,
    )
    # First, since it may refuse.
    emitted = target.emit(program, made_folder(args.emit)) if args.emit is not None else ()
    if args.output is not None:
        program.save(args.output)
    placement = program.report["placement"]
    data: dict[str, Any] = {
        "program": args.output,
        "target": program.target,
        "verdict": "feasible",
        "cores": placement["cores"],
        "memory_bits": placement["memory_bits"],
        "report": dict(program.report),
        "versions": dict(program.versions),
        "allowances": list(program.allowances),
        "emitted": [{"file": str(it.path), "use": it.use, "arguments": dict(it.arguments)} for it in emitted],
    }
    lines = [show.program_text(program, args.output)]
    lines += [f"emitted: {it.path}\n  {it.use}" for it in emitted]
    if args.output is None:
        lines.append("no program was written: -o FILE keeps it")
    report = html.after(args, data, [program], labels=[args.output or args.policy])
    return Outcome(data, "\n".join(lines), after=report)


VERBS = {
    "compile": Verb(
        "Compile for a target: calibrate on recorded input, quantise with proved ranges, check, place. A network "
        "without a contract becomes a program that takes and gives spikes or values step by step (nervecord simulate "
        "runs it). "
        "Exit code 2 where the target cannot hold it.",
        (
            "nervecord compile policy.nir --target lava -o ant.nervecord",
            "nervecord compile policy.nir --weight-bits 4 -o ant4.nervecord --dump passes --explain",
            "nervecord compile policy.nir --calibration observations.npz --json",
            "nervecord compile policy.nir --set neurons_per_core=4096 -o ant.nervecord",
            "nervecord compile any.nir --dt 1e-4 --contract contract.toml --calibration rows.npz -o mine.nervecord",
            "nervecord compile any.nir --dt 1e-4 --inputs spikes -o net.nervecord",
            "nervecord compile policy.nir --netx --emit netx -o ant.nervecord",
        ),
        _flags,
        _run,
        option_flags,
    )
}
