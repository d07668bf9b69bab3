"""The verb `warmup`."""

from __future__ import annotations

import argparse

import nervecord
from nervecord.cli import show
from nervecord.cli.show import Outcome
from nervecord.cli.verb import Verb


def _flags(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def _run(args: argparse.Namespace) -> Outcome:
    with show.Ticker("compiling the emulator's loop", unit="forms", quiet=args.quiet) as ticker:
        found = nervecord.warmup(ticker.show)
    data = {
        "folder": str(found.folder), "compiled": found.compiled, "found": found.found, "seconds": found.seconds
    }  # fmt: skip
    what = "everything was there" if not found.compiled else f"{found.compiled} functions compiled"
    return Outcome(data, f"{what}, in {found.seconds:.1f} s; the cache: {found.folder}")


VERBS = {
    "warmup": Verb(
        "Compile the emulator's loop into numba's cache, so that the first program that is opened afterwards does not "
        "wait for it. Run it where the policy will run, as the user who will run it, after each update of nervecord or "
        "numba: the cache is one of a processor, a user (or NUMBA_CACHE_DIR) and these versions.",
        ("nervecord warmup", "nervecord warmup --json"),
        _flags,
        _run,
    )
}
