"""The verb `inspect`."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rich.console import Group

import nervecord
from nervecord.cli import html
from nervecord.cli.flags import (
    inputs_of,
    integer,
    limit_flags,
    limits_of,
    option_flags,
    options_given,
    subject_of,
    time_step_flags,
)
from nervecord.cli.inspect_text import inspect_text
from nervecord.cli.show import Outcome
from nervecord.cli.verb import Parser, Verb
from nervecord.compiler.findings import Finding
from nervecord.compiler.inspect import Report
from nervecord.compiler.target.abilities import Needing, Survey, Surveying
from nervecord.errors import InfeasibleError, NervecordError
from nervecord.targets import catalogue

INFEASIBLE = 2
"""Exit code."""


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("graph", help="any NIR file, a .net of lava-dl, or a program")
    parser.add_argument("--target", nargs="+", metavar="NAME", help="by default all targets")
    limit_flags(parser)
    parser.add_argument(
        "--inputs", metavar="KIND", help="what enters a network that is no policy: spikes, or the limit of values"
    )
    parser.add_argument(
        "--steps", type=integer, metavar="N", help="such a network's state is cleared before each N steps"
    )
    time_step_flags(parser)
    html.add_flag(parser)
    html.add_drawing_flags(parser)
    parser.add_argument("--verbose", action="store_true", help="nodes, notes, resources, events and sources too")


def _run(args: argparse.Namespace) -> Outcome:
    html.require(args)
    limits = limits_of(args.limits)
    targets: list[Any] = list(args.target or ())
    options = options_given(args)
    if args.target_file is not None:
        targets.append(nervecord.target(file=args.target_file, **options))
    elif options:
        targets = [nervecord.target(targets[0], **options)]
    if limits and len(targets) != 1:
        raise NervecordError("sets a limit of one target", where="--set", hint="name it, and no other: --target NAME")
    subject = subject_of(args.graph, args.dt, args.convention, args.reset)
    report = nervecord.inspect(subject, targets or None, limits=limits, inputs=inputs_of(args.inputs), steps=args.steps)
    surveys = _surveys(subject, targets, report, args)
    report = _with_surveys(report, surveys)
    infeasible = [target.target for target in report.targets if target.verdict == "infeasible"]
    data = {"file": args.graph, **report.to_dict()}
    text: Any = inspect_text(report, args.graph, verbose=args.verbose)
    for name, (numbers, rows) in _needs(subject, targets).items():
        text = Group(text, *(f"{name}: {what}: {how}" for what, how in rows))
        data["needs"] = {**data.get("needs", {}), name: numbers}
    for name, it in surveys.items():
        text = Group(text, "", *(f"{name}: {what}: {how}" for what, how in it.rows))
        data["boards"] = {**data.get("boards", {}), name: it.data}
    after = [*html.drawings(args, data, report), *html.after(args, data, [subject], report=report, labels=[args.graph])]
    return Outcome(data, text, INFEASIBLE if targets and infeasible else 0, after=after)


def _needs(subject: Any, targets: Sequence[Any]) -> dict[str, tuple[Any, Any]]:
    """What a program takes of the named targets that say so.

    Raises:
        InfeasibleError: it is more than there is.
    """
    if not isinstance(subject, nervecord.Program) or subject.graph.arithmetic is None:
        return {}
    needs = {}
    for it in targets:
        named: Any = nervecord.target(it) if isinstance(it, str) and it in catalogue.compiling_names() else it
        if isinstance(named, Needing) and not isinstance(named, Surveying):
            needs[named.spec.name] = named.needs(subject)  # type: ignore[attr-defined]
    return needs


def _surveys(subject: Any, targets: Sequence[Any], report: Report, args: argparse.Namespace) -> dict[str, Survey]:
    """What named targets that know boards find on them; what is no program is compiled for it.

    Raises:
        NervecordError: it cannot be compiled or measured, and to be measured was asked for.
    """
    surveys = {}
    names = catalogue.compiling_names()
    named: list[Any] = [nervecord.target(it) if isinstance(it, str) and it in names else it for it in targets]
    for it in named:
        if not isinstance(it, Surveying):
            continue
        name = it.spec.name  # type: ignore[attr-defined]
        if _verdict(report, name) == "infeasible":
            continue
        try:
            program = subject
            if not isinstance(subject, nervecord.Program) or subject.graph.arithmetic is None:
                program = nervecord.compile(
                    subject,
                    cast(Any, it),
                    limits=limits_of(args.limits),
                    inputs=inputs_of(args.inputs),
                    steps=args.steps,
                )
            surveys[name] = it.survey(program, getattr(subject, "recorded", None))
        except InfeasibleError as error:
            finding = Finding(
                "board", "error", error.where or "graph", error.message, fix=error.hint or "", target=name
            )
            surveys[name] = Survey({}, (), finding)
        except NervecordError as error:
            if getattr(it, "place_and_route", False):
                raise
            surveys[name] = Survey({}, (("boards", f"not looked at: {error}"),), None)
    return surveys


def _verdict(report: Report, name: str) -> str:
    return next((target.verdict for target in report.targets if target.target == name), "")


def _with_surveys(report: Report, surveys: Mapping[str, Survey]) -> Report:
    """The report with what speaks against boards that were chosen."""
    against = {name: survey.finding for name, survey in surveys.items() if survey.finding is not None}
    targets = [
        dataclasses.replace(target, verdict="infeasible", findings=(*target.findings, against[target.target]))
        if target.target in against
        else target
        for target in report.targets
    ]
    return dataclasses.replace(report, targets=tuple(targets))


def _option_flags(parser: Parser, argv: Sequence[str]) -> None:
    """The options of the one target that is named; of several, what each does by default is looked at."""
    early = Parser(prog=parser.prog, add_help=False, allow_abbrev=False)
    early.add_argument("--target", nargs="+", default=[])
    early.add_argument("--target-file", nargs="?")
    named, _ = early.parse_known_args(list(argv))
    words = [f"--target={name}" for name in named.target]
    words += [f"--target-file={named.target_file}"] * (named.target_file is not None)
    # A program's own target may be no installed one.
    if len(words) == 1 and set(named.target) <= set(catalogue.target_names()):
        option_flags(parser, words)


VERBS = {
    "inspect": Verb(
        "Whether targets can hold and express a graph, what it would use of them, and what to change. Runs nothing. "
        "Exit code 2 where a target that was named is infeasible.",
        (
            "nervecord inspect policy.nir",
            "nervecord inspect any.nir --target loihi1 lava --json",
            "nervecord inspect any.nir --target lava --set neurons_per_core=4096 --set cores=120",
            "nervecord inspect any.nir --target-file my_chip.toml",
            "nervecord inspect policy.nir --target lava --weight-slices 2",
            "nervecord inspect ant.nervecord --target fpga --board icebreaker",
            "nervecord inspect lif.nir --dt 1e-4 --convention exact",
            "nervecord inspect lif.nir --dt 1e-4 --inputs spikes --target lava",
            "nervecord inspect policy.nir --html policy.html --svg policy.svg",
        ),
        _flags,
        _run,
        _option_flags,
    )
}
