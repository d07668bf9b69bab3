"""The verb `targets`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nervecord.cli import show
from nervecord.cli.show import Outcome
from nervecord.cli.verb import Verb
from nervecord.compiler.target.options import Option, options_of
from nervecord.compiler.target.template import template
from nervecord.errors import NervecordError, unknown_name
from nervecord.targets import catalogue

if TYPE_CHECKING:
    from nervecord.compiler.target.abilities import Installable, Installation
    from nervecord.compiler.target.protocol import Target, TargetSpec
    from nervecord.runtime.session import Session

TEMPLATE = "template"
"""The word that writes a file to start from."""


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="NAME", help=f"a target to show; or: install NAME; or: {TEMPLATE}")
    parser.add_argument("--target-file", metavar="FILE", help="show what a file describes")
    parser.add_argument("--python", metavar="PATH", help="install: the interpreter to build on")
    parser.add_argument(
        "--allow-shim",
        action="store_true",
        help="install: without an interpreter of the version that the engine declares use a newer one and a shim",
    )


def _run(args: argparse.Namespace) -> Outcome:
    if args.words[:1] == ["install"]:
        return _install(args)
    if args.words == [TEMPLATE] and args.target_file is None:
        text = template()
        return Outcome({"template": text}, text.rstrip("\n"))
    if len(args.words) > 1:
        raise NervecordError(
            f"{args.words[1]!r} is one word too many", hint=f"one target, or: {TEMPLATE}, or: install NAME"
        )
    if args.target_file is not None:
        if args.words:
            raise NervecordError("a target is named beside it", where="--target-file", hint=f"drop {args.words[0]}")
        targets = [catalogue.target_from_file(Path(args.target_file))]
    else:
        names = catalogue.target_names()
        if args.words and args.words[0] not in names:
            raise unknown_name("target", args.words[0], [*names, "install", TEMPLATE])
        targets = [catalogue.find_target(name) for name in args.words or names]
    installations = [_installation(target) for target in targets]
    data = {"targets": [_data(*pair) for pair in zip(targets, installations, strict=True)]}
    if args.words or args.target_file is not None:
        text = show.target_text(targets[0].spec, options_of(targets[0]))
    else:
        text = show.targets_text([(target.spec, _compiles(target)) for target in targets])
    lines = [f"engine {found.engine}: {found.about}" for found in installations if found is not None]
    return Outcome(data, "\n\n".join([text, *lines]))


def _compiles(target: Target[Session]) -> bool:
    return not isinstance(target, catalogue.InspectedTarget)


def _installable(target: Target[Session]) -> Installable | None:
    from nervecord.compiler.target.abilities import Installable

    return target if isinstance(target, Installable) else None


def _installation(target: Target[Session]) -> Installation | None:
    installable = _installable(target)
    return None if installable is None else installable.installation()


def _data(target: Target[Session], installation: Installation | None) -> dict[str, Any]:
    spec: TargetSpec = target.spec
    options: tuple[Option, ...] = options_of(target)
    facts = {
        name: {"value": fact.value, "confidence": fact.confidence, "source": fact.source, "about": about}
        for name, about, fact in spec.facts()
    }
    return {
        "name": spec.name,
        "title": spec.title,
        "summary": spec.summary,
        "compiles": _compiles(target),
        "engines": list(spec.engines),
        "options": [option.to_dict() for option in options],
        "arithmetic": spec.arithmetic,
        "facts": facts,
        "not_checked": list(spec.not_checked),
        "installation": None if installation is None else _installation_data(installation),
    }


def _installation_data(installation: Installation) -> dict[str, Any]:
    return {"engine": installation.engine, "installed": installation.installed, **installation.details}


def _install(args: argparse.Namespace) -> Outcome:
    installable = {
        name: found
        for name in catalogue.compiling_names()
        if (found := _installable(catalogue.find_target(name))) is not None
    }
    names = args.words[1:]
    example = next(iter(installable), "NAME")
    if len(names) != 1:
        what = "install what?" if not names else f"{names[1]!r} is one word too many"
        raise NervecordError(what, hint=f"nervecord targets install {example}")
    if names[0] not in installable:
        raise unknown_name("installable target", names[0], installable)

    def progress(line: str) -> None:
        if not args.quiet:
            print(line, file=sys.stderr, flush=True)

    python = None if args.python is None else Path(args.python)
    installation = installable[names[0]].install(progress, python=python, allow_shim=args.allow_shim)
    return Outcome(_installation_data(installation), installation.about)


VERBS = {
    "targets": Verb(
        "List the targets, show one with its options and all its limits and their sources, write a file that describes "
        "a chip of your own (docs/own-chip.md), or install what an engine needs.",
        (
            "nervecord targets",
            "nervecord targets loihi1",
            "nervecord targets template > my_chip.toml",
            "nervecord targets --target-file my_chip.toml",
            "nervecord targets install lava",
        ),
        _flags,
        _run,
    )
}
