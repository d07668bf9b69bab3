"""The command `nervecord`: finds the verb, runs it, and turns errors into a sentence and an exit code.

stdout is the result, stderr progress and log. Exit codes: 0 done; 1 an internal error, or an engine that died; 2 the
input's fault, infeasible and beyond a tolerance included; 130 interrupted; 141 the reader of stdout went away. Each
verb has a module of its own; this one imports little, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nervecord.cli.compiling import announced
from nervecord.cli.show import clean, laid_out, to_json
from nervecord.cli.streams import complain, discard, prepare, say
from nervecord.cli.verb import Verb
from nervecord.errors import EngineError, NervecordError, escaped, unknown_name

DONE, OURS, THEIRS, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141

VERBS: dict[str, tuple[str, str]] = {
    "train": ("training", "train a policy and write policy.nir"),
    "distill": ("training", "train a policy to act as another one does"),
    "sweep": ("sweep", "train all runs of a study, and compare them"),
    "compile": ("compile", "compile a policy for a target"),
    "contract": ("contract", "a commented contract file for an environment, to start from"),
    "run": ("run", "run a policy or program in its environment"),
    "inspect": ("inspection", "whether targets can hold a graph, and what it would use"),
    "compare": ("compare", "drive two policies over the same observations"),
    "simulate": ("simulate", "run any graph on recorded input"),
    "targets": ("targets", "list targets, show one, install an engine"),
    "warmup": ("warmup", "compile the emulator's loop once, for a quick start"),
    "doctor": ("doctor", "what is installed, what works here, and what fixes the rest"),
    "demo": ("demo", "train, compile, run and inspect a spiking ant, in minutes"),
}
"""Verb -> (module of this folder whose `VERBS` holds it, one line for --help). Only the one called is imported."""

EMULATING = ("run", "compile", "compare", "simulate")
"""Verbs that may open the emulator, whose first start compiles it."""

HELP = """usage: nervecord VERB ...

Train spiking control policies, compile them for neuromorphic fixed point, run them in the control loop.

{verbs}

  nervecord VERB --help     flags and examples of a verb
  nervecord --version [--json]

Every verb takes --json (the result for machines, on stdout), --quiet (no progress) and --debug (tracebacks).
Exit codes: 0 done, 1 an internal error or a dead engine, 2 something is wrong with the input (infeasible included,
and what differs beyond a tolerance).

  nervecord train --steps 1e6                          a spiking policy for Ant-v4 in runs/
  nervecord compile policy.nir --target lava -o ant.nervecord
  nervecord run ant.nervecord --episodes 20 --picture ant.png
  nervecord inspect ant.nervecord"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    prepare()
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except SystemExit as done:  # argparse's --help
        return _flushed(done.code if isinstance(done.code, int) else DONE)
    except BrokenPipeError:
        return _pipe_closed()
    except NervecordError as error:  # stdout's, while it was told what is there
        return _report("", error, machine=False)


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _pipe_closed()
    return code


def _pipe_closed() -> int:
    discard(sys.stdout)
    return PIPE_CLOSED


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        if len(words) > 1 and words[0] == "help":
            return _dispatch([words[1], "--help"])
        width = max(map(len, VERBS))
        say(HELP.format(verbs="\n".join(f"  {verb:<{width}}  {does}" for verb, (_, does) in VERBS.items())))
        return DONE if words else THEIRS
    if words[0] == "--version":
        return _version(words[1:])
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


def _version(rest: list[str]) -> int:
    """`--version`, for people, or with --json of all that matters to a result."""
    if rest not in ([], ["--json"]):
        surplus = next((word for word in rest if word != "--json"), "--json")
        return _report("--version", NervecordError(f"{surplus!r} is one word too many"), machine="--json" in rest)
    if rest:
        from nervecord.cli.doctor import versions

        say(to_json(versions()))
    else:
        from importlib import metadata

        say(f"nervecord {metadata.version('nervecord')}")
    return DONE


def find_verb(name: str) -> Verb:
    """A verb of `VERBS`."""
    module, _ = VERBS[name]
    verbs: dict[str, Verb] = importlib.import_module(f"nervecord.cli.{module}").VERBS
    return verbs[name]


def _run(name: str, rest: list[str]) -> int:
    verb = find_verb(name)
    args = verb.parser(name).read(rest)
    # What libraries print is log; the result is ours alone.
    with (
        contextlib.redirect_stdout(sys.stderr),
        announced(quiet=args.quiet) if name in EMULATING else contextlib.nullcontext(),
    ):
        outcome = verb.run(args)
    if not outcome.silent:
        say(to_json(outcome.data) if args.json else laid_out(outcome.text))
    return max([outcome.code, *(_afterwards(name, task, args) for task in outcome.after)])


def _afterwards(verb: str, task: Callable[[], str], args: argparse.Namespace) -> int:
    """Draw something of a result that is printed already; one that fails does not keep the others from coming."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            line = task()
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        return _report(verb, error, machine=False)
    if line and not args.quiet:
        print(escaped(line), file=sys.stderr, flush=True)
    return DONE


def _place_of_theirs(error: BaseException) -> str | None:
    """File and line of a user's own module (a task, a wrapper, a teacher) in which an error arose, also within a
    library that it called; None where we were the ones who called."""
    if isinstance(error, SyntaxError) and error.filename and not _is_library(error.filename):
        return f"{error.filename}, line {error.lineno}"
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        file, module = frame.f_code.co_filename, str(frame.f_globals.get("__name__", ""))
        if module == "__main__" or module.partition(".")[0] == "nervecord":
            return None
        if os.path.isfile(file) and not _is_library(file):
            return f"{file}, line {line}"
    return None


def _is_library(file: str) -> bool:
    """Whether a file is Python's, an installed package's, or one that torch.compile wrote."""
    folders = Path(file).parts
    return (
        file.startswith(sysconfig.get_path("stdlib") + os.sep)
        or not {"site-packages", "dist-packages"}.isdisjoint(folders)
        or any(part.startswith("torchinductor") for part in folders)
    )


def _report(verb: str, error: BaseException, *, machine: bool) -> int:
    """Say what went wrong in one sentence; returns the exit code."""
    details: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    place = None if isinstance(error, NervecordError | KeyboardInterrupt) else _place_of_theirs(error)
    if isinstance(error, KeyboardInterrupt):
        code, text = INTERRUPTED, str(error) or "interrupted"
    elif isinstance(error, NervecordError):
        # Which call of the interface in Python it was in, the verb says already.
        code, text = OURS if isinstance(error, EngineError) else THEIRS, str(error).removeprefix(f"{verb}: ")
        details |= {"message": error.message, "where": error.where, "hint": error.hint}
    elif isinstance(error, OSError) and error.filename is not None:
        code, text = THEIRS, f"{error.filename}: {error.strerror}"
    elif place is not None:
        code, text = THEIRS, f"{type(error).__name__}: {error} (in {place}; --debug shows how it came there)"
    else:
        code = OURS
        text = f"{type(error).__name__}: {error} (this is a defect of nervecord; --debug shows where)"
    if code == THEIRS:
        # A file's own words stay within the sentence.
        text = clean(text)
    alone = place is not None or getattr(error, "on_one_process", False)
    if code in (THEIRS, INTERRUPTED) and not alone and os.environ.get("LOCAL_RANK", "0") != "0":
        return code  # torchrun started this with others, and the first one says the same
    notes = [clean(note) for note in getattr(error, "__notes__", ())]
    line = f"nervecord {verb}: {text}" if verb else f"nervecord: {text}"
    complain("\n".join([line, *notes]))
    if machine:
        # A stdout that takes nothing is what the line above is about.
        with contextlib.suppress(NervecordError):
            say(to_json({"error": {**details, "notes": notes}, "exit_code": code}))
    return code


if __name__ == "__main__":
    raise SystemExit(main())
