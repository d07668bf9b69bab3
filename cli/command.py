"""The command `nervecord`: finds the verb, runs it, and turns errors into a sentence and an exit code.

stdout is the result, stderr progress and log. Exit codes: 0 done; 1 a defect of ours, or an engine that died; 2 the
input's fault, infeasible included; 130 interrupted; 141 the reader of stdout went away. What a verb does is in
`nervecord.cli.verbs`; this module imports little, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from nervecord.errors import EngineError, NervecordError, unknown_name

DONE, OURS, THEIRS, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141

VERBS: dict[str, str] = {
    "train": "train a policy with PPO and write policy.nir",
    "distill": "train a policy to act as another one does",
    "sweep": "train all runs of a study, and compare them",
    "compile": "compile a policy for a target",
    "run": "run a policy or program in its environment",
    "inspect": "whether targets can hold a graph, and what it would use",
    "compare": "drive two policies over the same observations",
    "simulate": "run any graph on recorded input",
    "targets": "list targets, show one, install an engine",
    "doctor": "what is installed, what works here, and what mends the rest",
    "demo": "train, compile, run and inspect a spiking ant, in minutes",
}

HELP = """usage: nervecord VERB ...

Train spiking control policies, compile them for neuromorphic fixed point, run them in the control loop.

{verbs}

  nervecord VERB --help     flags and examples of a verb
  nervecord --version [--json]

Every verb takes --json (the result for machines, on stdout), --quiet (no progress) and --debug (tracebacks).
Exit codes: 0 done, 1 a defect or a dead engine, 2 something is wrong with the input (infeasible included).

  nervecord train --steps 1e6                          a spiking policy for Ant-v4 in runs/
  nervecord compile policy.nir --target lava -o ant.nervecord
  nervecord run ant.nervecord --episodes 20 --picture ant.png
  nervecord inspect ant.nervecord"""


class Parser(argparse.ArgumentParser):
    """argparse whose refusals are `NervecordError`s that name the nearest flag."""

    def error(self, message: str) -> NoReturn:
        text = message.removeprefix("argument ")
        raise NervecordError(text, hint=f"{self.prog} --help lists the flags and examples")

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse; unknown flags and surplus words are refused by name."""
        args, surplus = self.parse_known_args(list(argv))
        if not surplus:
            return args
        flag = surplus[0].split("=")[0]
        if flag.startswith("-"):
            known = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
            raise unknown_name("flag", flag, known)
        raise NervecordError(f"{surplus[0]!r} is one word too many", hint=f"{self.prog} --help shows the usage")


def make_parser(verb: str) -> Parser:
    """The parser of a verb, with the flags that all share; the verb's own are added by `nervecord.cli.verbs`."""
    from nervecord.cli import verbs

    made = verbs.VERBS[verb]
    parser = Parser(
        prog=f"nervecord {verb}",
        description=textwrap.fill(made.description, 100),
        epilog="examples:\n" + "\n".join(f"  {line}" for line in made.examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_flags(parser)
    shared = parser.add_argument_group("output")
    shared.add_argument("--json", action="store_true", help="the result as one JSON object on stdout")
    shared.add_argument("--quiet", action="store_true", help="no progress on stderr")
    shared.add_argument("--debug", action="store_true", help="a traceback where something goes wrong")
    return parser


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
        print(HELP.format(verbs="\n".join(f"  {verb:<{width}}  {does}" for verb, does in VERBS.items())))
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

        print(to_json(versions()))
    else:
        from importlib import metadata

        print(f"nervecord {metadata.version('nervecord')}")
    return DONE


def _run(verb: str, rest: list[str]) -> int:
    from nervecord.cli import verbs
    from nervecord.cli.show import put

    args = make_parser(verb).read(rest)
    # What libraries print is log; the result is ours alone.
    with contextlib.redirect_stdout(sys.stderr):
        outcome = verbs.VERBS[verb].run(args)
    if not outcome.silent:
        if args.json:
            print(to_json(outcome.data), flush=True)
        else:
            put(outcome.text)
    return max([outcome.code, *(_afterwards(verb, task, args) for task in outcome.after)])


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
        print(line, file=sys.stderr, flush=True)
    return DONE


def to_json(data: Any) -> str:
    """JSON without NaN or infinities, which it has no words for: null stands for them."""
    return json.dumps(_plain(data), indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


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
        from nervecord.cli.show import clean

        text = clean(text)
    if code in (THEIRS, INTERRUPTED) and os.environ.get("LOCAL_RANK", "0") != "0":
        return code  # torchrun started this with others, and the first one says the same
    for note in getattr(error, "__notes__", ()):
        text += f"\n{note}"
    print(f"nervecord {verb}: {text}", file=sys.stderr, flush=True)
    if machine:
        print(to_json({"error": details, "exit_code": code}))
    return code


if __name__ == "__main__":
    raise SystemExit(main())
