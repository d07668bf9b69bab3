"""Flags that several verbs have, and what their words mean."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nervecord
from nervecord.cli.verb import Parser
from nervecord.compiler.schema import MOST_WHOLE
from nervecord.compiler.target.options import Option, options_of
from nervecord.errors import NervecordError

if TYPE_CHECKING:
    from nervecord.compiler.target.protocol import Target
    from nervecord.runtime.session import Session


_OPTION = "option of the target: "
"""Before the names of options in a namespace, where they must not meet those of the verb's own flags."""


def integer(text: str) -> int:
    """An integer, also as 1e6 or 1_000_000."""
    try:
        number = int(text)
    except ValueError:
        value = float(text)
        if not math.isfinite(value) or value != int(value):
            raise ValueError(text) from None
        number = int(value)
    if abs(number) > MOST_WHOLE:
        raise argparse.ArgumentTypeError(f"is beyond {MOST_WHOLE:.0e}, which no integer of a flag may be")
    return number


def writable(path: str | None, *, where: str) -> None:
    """Refuse a result file that could not be written, before the work is done and not after it."""
    if path is None:
        return
    file = Path(path)
    if file.is_dir():
        raise NervecordError(f"{path} is a folder, a file name is needed", where=where)
    if not file.parent.is_dir():
        raise NervecordError(f"the folder {file.parent} does not exist", where=where, hint="make it first")
    if file.exists() and not file.is_file():
        raise NervecordError(f"{path} is no ordinary file", where=where)
    try:
        # Files are written beside their place and renamed into it, so it is the folder that must take one.
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise NervecordError(f"{path} cannot be written: {error.strerror}", where=where) from None


# --------------------------------------------------------------------------------------------------------------------
# Graphs


def time_step_flags(parser: argparse.ArgumentParser) -> None:
    """--dt, --convention and --reset."""
    parser.add_argument("--dt", type=float, metavar="SECONDS", help="time step; NIR files of other tools do not say it")
    parser.add_argument(
        "--convention", default="euler", help="how continuous time becomes steps: euler (default) or exact"
    )
    parser.add_argument(
        "--reset",
        metavar="RULE",
        help="what a spike did in training, which NIR cannot say: zero, subtract (the threshold, in the step of the "
        "spike), subtract-late (in the next, snnTorch's default), subtract-early (snnTorch's reset_delay=False) or "
        "zero-late",
    )


def subject_of(path: str, dt: float | None, convention: str, reset: str | None) -> Any:
    """The program or graph of a file; dt, convention and reset are for graphs."""
    from nervecord.targets.source import is_program, policy_file

    path = str(policy_file(path))
    if is_program(Path(path)):
        if dt is not None:
            raise NervecordError("a program has its time step already", where="--dt", hint="leave --dt out")
        if reset is not None:
            raise NervecordError("a program has its reset rule already", where="--reset", hint="leave --reset out")
        return nervecord.load(path)
    return nervecord.read(path, dt=dt, convention=convention, reset=reset)


def inputs_of(text: str | None) -> str | float | dict[str, str | float] | None:
    """What --inputs says: "spikes", a limit, or a mapping of them."""
    if text is None:
        return None
    if "=" not in text:
        return _carried(text)
    inputs: dict[str, str | float] = {}
    for word in text.split(","):
        name, equals, kind = word.rpartition("=")
        if not equals or not name:
            raise NervecordError(f"{word!r} is not NAME=KIND", where="--inputs", hint="NAME=spikes or NAME=4.0")
        if name in inputs:
            raise NervecordError(f"{name} is given twice", where="--inputs")
        inputs[name] = _carried(kind)
    return inputs


def _carried(text: str) -> str | float:
    if text == "spikes":
        return text
    try:
        return float(text)
    except ValueError:
        raise NervecordError(
            f"{text!r} is neither spikes nor the limit of values",
            where="--inputs",
            hint="--inputs spikes, --inputs 4.0",
        ) from None


def wrapper_flag(parser: argparse.ArgumentParser, which: str) -> None:
    """--wrappers."""
    parser.add_argument(
        "--wrappers",
        nargs="+",
        metavar="NAME",
        help=f"wrappers {which}, innermost first: names of gymnasium.wrappers, or MODULE:CLASS, which imports it",
    )


# --------------------------------------------------------------------------------------------------------------------
# Targets


def limit_flags(parser: argparse.ArgumentParser) -> None:
    """--target-file and --set."""
    parser.add_argument(
        "--target-file",
        metavar="FILE",
        help="a chip of your own, as a file describes it (docs/own-chip.md); nervecord targets template writes one",
    )
    parser.add_argument(
        "--set",
        dest="limits",
        action="append",
        metavar="LIMIT=N",
        help="your own number for a limit of the target that is not exact: an integer, or unlimited",
    )


def limits_of(words: Sequence[str] | None) -> dict[str, float]:
    """The limits that --set gives."""
    limits: dict[str, float] = {}
    for word in words or ():
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise NervecordError(f"{word!r} is not LIMIT=N", where="--set", hint="such as --set neurons_per_core=4096")
        if name in limits:
            raise NervecordError(f"{name} is given twice", where="--set")
        try:
            limits[name] = math.inf if text == "unlimited" else integer(text)
        except (ValueError, OverflowError, argparse.ArgumentTypeError):
            raise NervecordError(f"{text[:40]!r} is no integer of a limit", where=f"--set {name}") from None
    return limits


def target_of(args: argparse.Namespace, **options: Any) -> Target[Session]:
    """The target that --target or --target-file means, with the limits of --set."""
    limits = limits_of(args.limits)
    if args.target_file is None:
        return nervecord.target(args.target, limits=limits, **options)
    if args.target is not None:
        raise NervecordError("a target is named beside it", where="--target-file", hint="drop --target")
    return nervecord.target(file=args.target_file, limits=limits, **options)


def option_flags(parser: Parser, argv: Sequence[str]) -> None:
    """A flag for each option of the target which these words name, or of the file that describes it."""
    early = Parser(prog=parser.prog, add_help=False, allow_abbrev=False)
    early.add_argument("--target", nargs="?")
    early.add_argument("--target-file", nargs="?")
    named, _ = early.parse_known_args(list(argv))
    if named.target is not None and named.target_file is not None:
        return  # the verb says that one of them is too many
    if named.target_file is None:
        target = nervecord.target(named.target)
        options, name = options_of(target), target.spec.name
    else:
        options, name = _options_of_file(named.target_file)
    if not options:
        return
    flags = {flag for action in parser._actions for flag in action.option_strings}
    group = parser.add_argument_group(f"options of target {name}")
    for option in options:
        if option.flag in flags:
            raise NervecordError(
                f"its option {option.name!r} has the name of the flag {option.flag}", where=f"target {name!r}"
            )
        _option_flag(group, option)


def _options_of_file(path: str) -> tuple[tuple[Option, ...], str]:
    """The options of the target that a file describes, and its name; what is wrong with the file, the verb says."""
    from nervecord.targets.integers import IntegerTarget

    try:
        target = nervecord.target(file=path)
    except NervecordError:
        return options_of(IntegerTarget), path
    return options_of(target), target.spec.name


def _option_flag(group: Any, option: Option) -> None:
    text = option.about.replace("%", "%%")
    if isinstance(option.default, bool):
        action = argparse.BooleanOptionalAction if option.default else "store_true"
        group.add_argument(option.flag, dest=_OPTION + option.name, action=action, default=argparse.SUPPRESS, help=text)
        return
    kinds = {int: (integer, "N"), float: (float, "X"), str: (str, "TEXT")}
    kind, metavar = kinds[type(option.default)]
    group.add_argument(
        option.flag,
        dest=_OPTION + option.name,
        type=kind,
        metavar="{" + ",".join(option.choices) + "}" if option.choices else metavar,
        default=argparse.SUPPRESS,
        help=f"{text}: {option.allowed} (default {option.default})",
    )


def options_given(args: argparse.Namespace) -> dict[str, Any]:
    """The target's options whose flags were given."""
    return {name.removeprefix(_OPTION): value for name, value in vars(args).items() if name.startswith(_OPTION)}
