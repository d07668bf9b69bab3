"""The command `nervecord`: finds the verb, runs it, and turns errors into a sentence and an exit code.

stdout is the result, stderr progress and log. Exit codes: 0 done; 1 a defect of ours, or an engine that died; 2 the
input's fault, infeasible and beyond a tolerance included; 130 interrupted; 141 the reader of stdout went away. Each
verb has a module of its own; this one imports little, so that `--help` is quick.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from nervecord.cli.show import to_json
from nervecord.cli.verb import Verb
from nervecord.errors import EngineError, NervecordError, unknown_name

DONE, OURS, THEIRS, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141

VERBS: dict[str, tuple[str, str]] = {
    "train": ("training", "train a policy with PPO and write policy.nir"),
    "distill": ("training", "train a policy to act as another one does"),
    "sweep": ("sweep", "train all runs of a study, and compare them"),
    "compile": ("compile", "compile a policy for a target"),
    "contract": ("contract", "a commented contract file for an environment, to start from"),
    "run": ("run", "run a policy or program in its environment"),
    "inspect": ("inspection", "whether targets can hold a graph, and what it would use"),
    "compare": ("compare", "drive two policies over the same observations"),
    "simulate": ("simulate", "run any graph on recorded input"),
    "targets": ("targets", "list targets, show one, install an engine"),
    "demo": ("demo", "train, compile, run and inspect a spiking ant, in minutes"),
}
"""Verb -> (module of this folder whose `VERBS` holds it, one line for --help). Only the one called is imported."""

HELP = """usage: nervecord VERB ...

Train spiking control policies, compile them for neuromorphic fixed point, run them in the control loop.

{verbs}

  nervecord VERB --help     flags and examples of a verb
  nervecord --version

Every verb takes --json (the result for machines, on stdout), --quiet (no progress) and --debug (tracebacks).
Exit codes: 0 done, 1 a defect or a dead engine, 2 something is wrong with the input (infeasible included, and what
differs beyond a tolerance).

  nervecord train --steps 1e6                          a spiking policy for Ant-v4 in runs/
  nervecord compile policy.nir --target lava -o ant.nervecord
  nervecord run ant.nervecord --episodes 20 --picture ant.png
  nervecord inspect ant.nervecord"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except SystemExit as done:  # argparse's --help
        return _flushed(done.code if isinstance(done.code, int) else DONE)
    except BrokenPipeError:
        return _pipe_closed()


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _pipe_closed()
    return code


def _pipe_closed() -> int:
    # Python would complain about stdout once more at exit.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_CLOSED


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        if len(words) > 1 and words[0] == "help":
            return _dispatch([words[1], "--help"])
        width = max(map(len, VERBS))
        print(HELP.format(verbs="\n".join(f"  {verb:<{width}}  {does}" for verb, (_, does) in VERBS.items())))
        return DONE if words else THEIRS
    if words[0] == "--version":
        from importlib import metadata

        print(f"nervecord {metadata.version('nervecord')}")
        return DONE
    verb, rest = words[0], words[1:]
    machine, debug = "--json" in rest, "--debug" in rest
    try:
        if verb not in VERBS:
            if verb.startswith("-"):
                raise NervecordError(f"{verb} stands before the verb", hint="nervecord VERB [flags]")
            raise unknown_name("verb", verb, VERBS)
        return _run(verb, rest)
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        if debug and not isinstance(error, KeyboardInterrupt):
            traceback.print_exc()
        return _report(verb, error, machine=machine)


def find_verb(name: str) -> Verb:
    """A verb of `VERBS`."""
    module, _ = VERBS[name]
    found: dict[str, Verb] = importlib.import_module(f"nervecord.cli.{module}").VERBS
    return found[name]


def _run(name: str, rest: list[str]) -> int:
    verb = find_verb(name)
    args = verb.parser(name).read(rest)
    # What libraries print is log; the result is ours alone.
    with contextlib.redirect_stdout(sys.stderr):
        outcome = verb.run(args)
    if not outcome.silent:
        print(to_json(outcome.data) if args.json else outcome.text)
    return outcome.code


def _report(verb: str, error: BaseException, *, machine: bool) -> int:
    """Say what went wrong in one sentence; returns the exit code."""
    details: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, KeyboardInterrupt):
        code, text = INTERRUPTED, str(error) or "interrupted"
    elif isinstance(error, NervecordError):
        code, text = OURS if isinstance(error, EngineError) else THEIRS, str(error)
        details |= {"message": error.message, "where": error.where, "hint": error.hint}
    elif isinstance(error, OSError) and error.filename is not None:
        code, text = THEIRS, f"{error.filename}: {error.strerror}"
    else:
        code = OURS
        text = f"{type(error).__name__}: {error} (this is a defect of nervecord; --debug shows where)"
    if code == THEIRS:
        # A file's own words stay within the sentence.
        text = _one_line(text)
    if code in (THEIRS, INTERRUPTED) and os.environ.get("LOCAL_RANK", "0") != "0":
        return code  # torchrun started this with others, and the first one says the same
    notes = [_one_line(note) for note in getattr(error, "__notes__", ())]
    print("\n".join([f"nervecord {verb}: {text}", *notes]), file=sys.stderr, flush=True)
    if machine:
        print(to_json({"error": {**details, "notes": notes}, "exit_code": code}))
    return code


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


if __name__ == "__main__":
    raise SystemExit(main())
