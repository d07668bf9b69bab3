"""What a verb of the command line is, and the parser of its flags."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from nervecord.cli.show import Outcome
from nervecord.cli.streams import say
from nervecord.errors import NervecordError, unknown_name

SYNONYMS: dict[str, tuple[str, ...]] = {
    "--learning-rate": ("--lr",),
    "--total-timesteps": ("--steps",),
    "--timesteps": ("--steps",),
    "--max-steps": ("--steps",),
    "--n-envs": ("--num-envs",),
    "--n-steps": ("--rollout",),
    "--num-steps": ("--rollout",),
    "--batch-size": ("--minibatch", "--num-envs"),
    "--minibatch-size": ("--minibatch",),
    "--n-epochs": ("--epochs",),
    "--discount": ("--gamma",),
    "--gae-lambda": ("--lam",),
    "--max-grad-norm": ("--grad-norm",),
    "--clip-range": ("--clip",),
    "--ent-coef": ("--entropy",),
    "--hidden": ("--layers",),
    "--hidden-sizes": ("--layers",),
    "--env-id": ("--env",),
    "--task": ("--env",),
    "--output-dir": ("--out", "--output"),
    "--out": ("--output",),
    "--output": ("--out",),
    "--n-episodes": ("--episodes",),
    "--timestep": ("--dt",),
    "--bits": ("--weight-bits",),
    "--backend": ("--engine", "--target"),
    "--record": ("--video",),
}
"""A flag of other tools -> the flags that mean it here; those that the verb has are named."""


class Parser(argparse.ArgumentParser):
    """argparse whose refusals are `NervecordError`s that name the nearest flag."""

    late_flags: Callable[[Parser, Sequence[str]], None] | None = None

    def error(self, message: str) -> NoReturn:
        text = message.removeprefix("argument ")
        raise NervecordError(text, hint=f"{self.prog} --help lists the flags and examples")

    def print_help(self, file: Any = None) -> None:
        say(self.format_help().rstrip("\n"))

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse; unknown flags and surplus words are refused by name. May be called once."""
        if self.late_flags is not None:
            self.late_flags(self, argv)
        args, surplus = self.parse_known_args(list(argv))
        if not surplus:
            return args
        if "--" in argv and surplus[0] in list(argv)[list(argv).index("--") :]:
            raise NervecordError(
                f"{surplus[0]!r} stands after --, where every word is a file or a name", hint="put flags before --"
            )
        flag = surplus[0].split("=")[0]
        if flag.startswith("-"):
            known = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
            meant = [option for option in SYNONYMS.get(flag, ()) if option in known]
            if meant:
                raise NervecordError(f"unknown flag {flag!r}", hint=f"here it is {' or '.join(meant)}")
            raise unknown_name("flag", flag, known)
        raise NervecordError(f"{surplus[0]!r} is one word too many", hint=f"{self.prog} --help shows the usage")


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb of the command line.

    Args:
        add_flags: puts its flags into a parser.
        run: does it.
        late_flags: puts in those flags that depend on the others, as options depend on the target.
    """

    description: str
    examples: tuple[str, ...]
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Outcome]
    late_flags: Callable[[Parser, Sequence[str]], None] | None = None

    def parser(self, name: str) -> Parser:
        """The parser of the verb, with the flags that all share."""
        parser = Parser(
            prog=f"nervecord {name}",
            description=textwrap.fill(self.description, 100),
            epilog="examples:\n" + "\n".join(f"  {line}" for line in self.examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        parser.late_flags = self.late_flags
        self.add_flags(parser)
        shared = parser.add_argument_group("output")
        shared.add_argument("--json", action="store_true", help="the result as one JSON object on stdout")
        shared.add_argument("--quiet", action="store_true", help="no progress on stderr")
        shared.add_argument("--debug", action="store_true", help="a traceback where something goes wrong")
        return parser
