"""The verb `warmup`."""

from __future__ import annotations

import argparse
import os
import sys

import nervecord
from nervecord.cli import show
from nervecord.cli.show import Outcome
from nervecord.cli.verb import Verb
from nervecord.compiler.files.atomic import made_folder
from nervecord.errors import NervecordError


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--to",
        metavar="DIR",
        help="make the cache in this folder, to be shipped; where it is used, NUMBA_CACHE_DIR names it",
    )


def _run(args: argparse.Namespace) -> Outcome:
    if args.to is not None:
        if "numba" in sys.modules:
            raise NervecordError("numba has its cache already", where="--to", hint=f"NUMBA_CACHE_DIR={args.to}")
        os.environ["NUMBA_CACHE_DIR"] = str(made_folder(args.to).resolve())  # read when numba is imported
    with show.Ticker("compiling the emulator's loop", unit="forms", quiet=args.quiet) as ticker:
        result = nervecord.warmup(ticker.show)
    data = {"folder": str(result.folder), "compiled": result.compiled, "found": result.found, "seconds": result.seconds}
    what = "everything was there" if not result.compiled else f"{result.compiled} functions compiled"
    text = f"{what}, in {result.seconds:.1f} s; the cache: {result.folder}"
    if args.to is not None:
        data["variable"] = "NUMBA_CACHE_DIR"
        text += f"\nuse it: NUMBA_CACHE_DIR={os.environ['NUMBA_CACHE_DIR']}, beside the same files of nervecord"
    return Outcome(data, text)


VERBS = {
    "warmup": Verb(
        "Compile the emulator's loop into numba's cache, so that the first program that is opened afterwards does not "
        "wait for it. Run it where the policy will run, as the user who will run it, after each update of nervecord or "
        "numba: the cache is one of a processor, a user (or NUMBA_CACHE_DIR) and these versions.",
        ("nervecord warmup", "nervecord warmup --to numba_cache"),
        _flags,
        _run,
    )
}
