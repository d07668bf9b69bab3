"""The verb `contract`."""

from __future__ import annotations

import argparse

import nervecord
from nervecord.cli.flags import wrapper_flag, writable
from nervecord.cli.show import Outcome
from nervecord.cli.verb import Verb


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--env", required=True, metavar="ID", help="Gymnasium id, or module:id to import a module first"
    )
    wrapper_flag(parser, "around the environment")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write it; by default to stdout")


def _run(args: argparse.Namespace) -> Outcome:
    writable(args.output, where="--output")
    text = nervecord.contract(args.env, args.output, wrappers=args.wrappers or ())
    data = {"environment": args.env, "output": args.output, "contract": text}
    return Outcome(data, text.rstrip("\n") if args.output is None else f"written: {args.output}")


VERBS = {
    "contract": Verb(
        "A commented contract file for an environment: channels, normaliser, steps, encoder, decoder, limits. Edit it, "
        "and it makes a policy of a network of any tool: nervecord compile any.nir --contract contract.toml.",
        ("nervecord contract --env Ant-v4 -o contract.toml", "nervecord contract --env mytasks:Reach-v0"),
        _flags,
        _run,
    )
}
