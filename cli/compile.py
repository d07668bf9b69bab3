"""The verb `compile`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nervecord
from nervecord.cli import html, show
from nervecord.cli.flags import (
    inputs_of,
    integer,
    limit_flags,
    option_flags,
    options_given,
    target_of,
    time_step_flags,
    wrapper_flag,
    writable,
)
from nervecord.cli.show import Outcome
from nervecord.cli.verb import Verb
from nervecord.compiler.files.atomic import made_folder
from nervecord.compiler.target.abilities import Emitting, Needing
from nervecord.errors import InfeasibleError, NervecordError

if TYPE_CHECKING:
    from nervecord.compiler.files.program import Program
    from nervecord.compiler.graph.policy import Policy
    from nervecord.runtime.measure.robustness import Perturbation, Perturbed

PERTURBED_EPISODES = 50
"""Pairs under each perturbation."""
PROGRAM = "policy.nervecord"
"""The program's name in a folder that -o names."""


def _flags(parser: argparse.ArgumentParser) -> None:
    from nervecord.targets.catalogue import DEFAULT

    parser.add_argument(
        "policy", metavar="FILE", help="NIR file of a policy, or of any network; or a program, for another target"
    )
    parser.add_argument(
        "--target", metavar="NAME", help=f"what to compile for (default {DEFAULT}); see nervecord targets"
    )
    limit_flags(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help=f"the program; replaced if it exists. FOLDER/ takes it as {PROGRAM}, and what --emit writes",
    )
    parser.add_argument(
        "--emit", metavar="DIR", help="also write what the target makes for other tools into this folder"
    )
    parser.add_argument(
        "--shared",
        metavar="FILE",
        help="also compile the policy's C into a shared library (.so), which run --library opens without a compiler; "
        "the variable CC names the compiler, of another kind of processor too",
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
        "--steps",
        type=integer,
        metavar="N",
        help="clear such a network's state before each block of N steps; by default it is carried",
    )
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        help=".npz of recorded input that chooses the scales; by default a policy's own observations",
    )
    parser.add_argument(
        "--certify",
        type=_part,
        metavar="P%",
        help="play the same episodes with both policies until the loss of return is known to this, such as 1%%; the "
        "certificate is kept in the program",
    )
    parser.add_argument("--env", metavar="ID", help="to certify in; by default the one the policy was trained in")
    wrapper_flag(parser, "around that environment: those that the policy was trained with")
    parser.add_argument(
        "--certify-episodes", type=integer, default=1000, metavar="N", help="at most so many, 50 or more (default 1000)"
    )
    parser.add_argument("--certify-seed", type=integer, default=0, metavar="N", help="of the episodes (default 0)")
    parser.add_argument(
        "--perturb",
        nargs="*",
        metavar="KIND=X",
        help="also play with both policies under perturbations, side by side: noise=0.1, latency=1, friction=0.7, "
        "mass=1.2 (docs/watching.md); without any, a standard set",
    )
    parser.add_argument("--picture", metavar="FILE", help="picture of what --perturb found (.png, .svg, .pdf)")
    parser.add_argument(
        "--allow-clustered-decays",
        action="store_true",
        help="bring the decays of a population together where it has more than it can be split by; the report says "
        "what that changed",
    )
    parser.add_argument("--dump", metavar="DIR", help="write the graph as text after each step")
    parser.add_argument("--explain", action="store_true", help="say what each step changed")
    time_step_flags(parser)
    html.add_flag(parser)


def _part(text: str) -> float:
    """A part of a whole: 1% or 0.01."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and 0 < value < 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0% and 100%")
    return value


def _certifiable(args: argparse.Namespace) -> Policy:
    """What is to be certified, as it was trained. Refuses what certifying would, before anything is compiled."""
    from nervecord.compiler.graph.policy import Policy
    from nervecord.runtime.measure.certify import LEAST
    from nervecord.runtime.measure.robustness import possible
    from nervecord.runtime.worker.environment import chosen_environment
    from nervecord.targets.network import network_to_compile

    if args.certify_episodes < LEAST:
        raise NervecordError(
            f"is {args.certify_episodes}, at least {LEAST} pairs are needed",
            where="--certify-episodes",
            hint="fewer say nothing of a mean's interval",
        )
    policy = network_to_compile(
        args.policy,
        contract=args.contract,
        inputs=inputs_of(args.inputs),
        dt=args.dt,
        convention=args.convention,
        reset=args.reset,
    )
    if not isinstance(policy, Policy):
        raise NervecordError(
            "is a network without a contract, which acts in no environment",
            where=args.policy,
            hint="give it one: --contract FILE (nervecord contract)",
        )
    if policy.recorded is None and args.calibration is None:
        raise NervecordError(
            "carries no recorded observations, on which actions are compared",
            where=args.policy,
            hint="give it some: --calibration FILE",
        )
    _, name, around = chosen_environment(policy.contract, args.env, args.wrappers, allow_other=False)
    if args.perturb is not None:
        possible(_perturbations(args.perturb), name, around)
    return policy


def _certified(args: argparse.Namespace, program: Program, policy: Policy) -> Program:
    """The program with its certificate in its report."""
    with show.Ticker("certify", unit="pairs", quiet=args.quiet) as ticker:

        def progress(done: int, most: int, half: float) -> None:
            ticker.show(done, most, note=f"the loss is known to {half:.2%}")

        certificate = nervecord.certify(
            program,
            policy,
            args.env,
            args.certify,
            wrappers=args.wrappers,
            observations=args.calibration,
            most=args.certify_episodes,
            seed=args.certify_seed,
            progress=progress,
        )
    return dataclasses.replace(program, report={**program.report, "certificate": certificate.to_dict()})


def _perturbed(args: argparse.Namespace, program: Program, policy: Policy) -> tuple[Perturbed, ...]:
    """Returns of both policies under the perturbations of --perturb."""
    from nervecord.targets.measures import robustness

    with show.Ticker("perturb", unit="worlds", quiet=args.quiet) as ticker:
        return robustness(
            program,
            policy,
            args.env,
            _perturbations(args.perturb),
            observations=args.calibration,
            wrappers=args.wrappers,
            episodes=PERTURBED_EPISODES,
            seed=args.certify_seed,
            progress=lambda done, total, name: ticker.show(done, total, note=name),
        )


def _perturbations(words: Sequence[str]) -> list[Perturbation] | None:
    """What the words of --perturb say; None where there are none."""
    from nervecord.runtime.measure.robustness import Perturbation

    perturbations = []
    for word in words:
        kind, _, value = word.partition("=")
        try:
            perturbations.append(Perturbation(kind, float(value)))
        except ValueError:
            raise NervecordError(f"{word!r} is not KIND=NUMBER", where="--perturb", hint="such as noise=0.1") from None
    return perturbations or None


def _into_folder(args: argparse.Namespace) -> str | None:
    """The folder that -o names with a slash at its end: it takes the program, and what --emit writes."""
    if args.output is None or not args.output.endswith("/"):
        writable(args.output, where="--output")
        return None
    folder: str = args.output
    if Path(folder).exists() and not Path(folder).is_dir():
        raise NervecordError(f"{folder} is a file, a folder is needed", where="--output")
    args.output = str(Path(folder) / PROGRAM)
    args.emit = folder if args.emit is None else args.emit
    return folder


def _run(args: argparse.Namespace) -> Outcome:
    for flag in ("env", "wrappers", "perturb"):
        if getattr(args, flag) is not None and args.certify is None:
            raise NervecordError("is for certifying", where=f"--{flag}", hint="add --certify 1%")
    folder = _into_folder(args)
    html.require(args)
    writable(args.shared, where="--shared")
    if args.picture is not None and args.perturb is None:
        raise NervecordError("is of perturbations", where="--picture", hint="add --perturb")
    if args.perturb is not None:
        _perturbations(args.perturb)
        if args.picture is not None:
            from nervecord.runtime.report.picture import require

            writable(args.picture, where="--picture")
            require(args.picture)
    if args.emit is not None and Path(args.emit).exists() and not Path(args.emit).is_dir():
        raise NervecordError(f"{args.emit} is a file, a folder is needed", where="--emit")
    target = target_of(args, **options_given(args))
    trained = None if args.certify is None else _certifiable(args)

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
        allow_clustered_decays=args.allow_clustered_decays,
        dump=args.dump,
        explain=explain if args.explain else None,
    )
    perturbed = None
    if trained is not None:
        if args.perturb is not None:
            perturbed = _perturbed(args, program, trained)
        program = _certified(args, program, trained)
    # First, since it may refuse.
    emitted = target.emit(program, made_folder(args.emit)) if args.emit is not None else ()
    if folder is not None:
        made_folder(folder)
    if args.output is not None:
        program.save(args.output)
    if args.shared is not None:
        from nervecord.targets.opening import build_library

        build_library(program, args.shared)
    placement = program.report["placement"]
    data: dict[str, Any] = {
        "program": args.output,
        **({"shared": args.shared} if args.shared else {}),
        "target": program.target,
        "verdict": "feasible",
        "cores": placement["cores"],
        "memory_bits": placement["memory_bits"],
        "report": dict(program.report),
        "versions": dict(program.versions),
        "allowances": list(program.allowances),
        "emitted": [{"file": str(it.path), "use": it.use, "arguments": dict(it.arguments)} for it in emitted],
    }
    needed: tuple[tuple[str, str], ...] = ()
    if isinstance(target, Needing):
        with contextlib.suppress(InfeasibleError):  # emitting refuses what it cannot print, by its name
            data["needs"], needed = target.needs(program)
    lines = [show.program_text(program, args.output, needed)]
    lines += [f"emitted: {it.path}\n  {it.use}" for it in emitted]
    if args.shared is not None:
        lines.append(f"library: {args.shared}\n  nervecord.open(program, library={args.shared!r})")
    if args.output is None:
        lines.append("no program was written: -o FILE keeps it")
    if isinstance(target, Emitting) and args.emit is None and args.shared is None:
        where = f"-o {args.output}/ or " if args.output else ""
        lines.append(f"no {target.emits} was written: {where}--emit DIR writes it")
    tasks: list[Callable[[], str]] = []
    if perturbed is not None:
        data["robustness"] = [it.to_dict() for it in perturbed]
        lines.append(show.robustness_text(data["robustness"]))
        if args.picture is not None:
            tasks.append(functools.partial(_draw, args.picture, perturbed))
    labels = [args.output or args.policy]
    report = html.after(args, data, [program], labels=labels, robustness=data.get("robustness", ()))
    return Outcome(data, "\n".join(lines), after=[*tasks, *report])


def _draw(path: str, results: tuple[Perturbed, ...]) -> str:
    from nervecord.runtime.measure.robustness import draw_robustness

    draw_robustness(path, results, title="Float and compiled policy under perturbations")
    return f"picture: {path}"


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
            "nervecord compile policy.nir --env Ant-v4 --certify 1% -o ant.nervecord",
            "nervecord compile policy.nir --env mytasks:Reach-v0 --wrappers FlattenObservation --certify 1%",
            "nervecord compile policy.nir --env Ant-v4 --certify 1% --perturb --picture robustness.png",
            "nervecord compile policy.nir --set neurons_per_core=4096 -o ant.nervecord",
            "nervecord compile any.nir --dt 1e-4 --contract contract.toml --calibration rows.npz -o mine.nervecord",
            "nervecord compile any.nir --dt 1e-4 --inputs spikes -o net.nervecord",
            "nervecord compile any.nir --dt 1e-4 --inputs spikes --allow-clustered-decays -o net.nervecord",
            "nervecord compile policy.nir --netx --emit netx -o ant.nervecord",
            "nervecord compile policy.nir --target c --prefix ant -o ant_c/",
            "nervecord compile policy.nir --target c --shared policy.so -o policy.nervecord",
            "nervecord compile policy.nir --target onnx -o out/",
            "nervecord compile ant.nervecord --target onnx -o out/",
        ),
        _flags,
        _run,
        option_flags,
    )
}
