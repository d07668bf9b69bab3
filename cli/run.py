"""The verb `run`: a policy in its environment, alone or beside another one, and what is drawn of it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import nervecord
from nervecord.cli import html, show
from nervecord.cli.show import Outcome, writable
from nervecord.cli.training import number
from nervecord.errors import NervecordError

if TYPE_CHECKING:
    from nervecord.compiler.program import Program
    from nervecord.runtime.picture import Drawn
    from nervecord.runtime.result import Result


def run_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", help="NIR file of a policy, or a program")
    parser.add_argument("--env", metavar="ID", help="by default the environment the policy was trained in")
    parser.add_argument("--episodes", type=number, default=10, metavar="N", help="default 10")
    parser.add_argument("--seed", type=number, default=0, metavar="N", help="of the episodes; the same for any policy")
    parser.add_argument("--num-envs", type=number, default=1, metavar="N", help="environments side by side (default 1)")
    parser.add_argument("--engine", metavar="NAME", help="by default the target's first; see nervecord targets")
    parser.add_argument("--beside", metavar="FILE", help="play the same episodes with this policy too, and show both")
    parser.add_argument("--picture", metavar="FILE", help="picture of the first episode (.png, .svg, .pdf)")
    parser.add_argument("--video", metavar="FILE", help="video of the first episode (.mp4)")
    parser.add_argument(
        "--video-seconds", type=float, metavar="S", help="film so much of the episode (by default all of it)"
    )
    html.add_flag(parser)
    parser.add_argument(
        "--allow-other-env", action="store_true", help="accept an environment of another name and the same shapes"
    )


def run_verb(args: argparse.Namespace) -> Outcome:
    programs = [nervecord._acting(path) for path in (args.policy, args.beside) if path is not None]
    _require(args, args.env or programs[0].contract.environment)
    labels = _labels(args, programs)
    played = [
        _play(args, program, label, None if k else args.engine)
        for k, (program, label) in enumerate(zip(programs, labels, strict=True))
    ]
    data: dict[str, Any] = {"target": programs[0].target, **played[0].to_dict()}
    text = show.result_text(played[0], programs[0].target)
    if args.beside is not None:
        data["beside"] = {"target": programs[1].target, **played[1].to_dict()}
        text += f"\n\n{show.result_text(played[1], programs[1].target)}"
    return Outcome(data, text, after=_drawn(args, data, programs, labels, played))


def _require(args: argparse.Namespace, environment: str) -> None:
    """Refuse what could not be drawn, before the run and not after it."""
    from nervecord.runtime import picture, video

    for flag in ("picture", "video"):
        writable(getattr(args, flag), where=f"--{flag}")
    html.require(args)
    if args.picture is not None:
        picture.require(args.picture)
    if args.video is not None:
        video.require(args.video, environment)
    elif args.video_seconds is not None:
        raise NervecordError("nothing is filmed", where="--video-seconds", hint="add --video")
    if args.video_seconds is not None and not args.video_seconds > 0:
        raise NervecordError(f"is {args.video_seconds}, more than 0 is needed", where="--video-seconds")


def _labels(args: argparse.Namespace, programs: list[Program]) -> list[str]:
    """What each is called in pictures: the target where they differ by it, else the file."""
    targets = [program.target for program in programs]
    return targets if len(set(targets)) == len(targets) else [args.policy, args.beside]


def _play(args: argparse.Namespace, program: Program, label: str, engine: str | None) -> Result:
    watched = any(path is not None for path in (args.picture, args.video, args.html))
    with (
        nervecord.open(program, engine=engine, trace=False) as session,
        show.Ticker("run" if args.beside is None else f"run {label}", unit="episodes", quiet=args.quiet) as ticker,
    ):

        def progress(done: int, total: int, mean: float) -> None:
            ticker.show(done, total, note=f"mean return {mean:,.0f}")

        return nervecord.run(
            session,
            args.env,
            args.episodes,
            args.seed,
            environments=args.num_envs,
            record=watched,
            allow_other_env=args.allow_other_env,
            progress=progress,
        )


def _drawn(
    args: argparse.Namespace, data: dict[str, Any], programs: list[Program], labels: list[str], played: list[Result]
) -> list[Callable[[], str]]:
    """What is to be drawn of the first episodes, and named in `data`."""
    from nervecord.runtime import picture, video
    from nervecord.runtime.activity import SECONDS

    def drawn(first: int | None, seconds: float) -> list[Drawn]:
        """The runs with what their neurons did in a part of the recorded episode."""
        found = []
        for k, (program, label, result) in enumerate(zip(programs, labels, played, strict=True)):
            with nervecord.open(program, engine=None if k else args.engine) as session:
                found.append(picture.Drawn.of(session, label, result, seconds=seconds, first=first))
        return found

    def draw() -> str:
        result = played[0]
        title = f"{result.environment}: {' beside '.join(labels)}, engine {result.engine}"
        subtitle = f"first of {len(result.returns)} episodes"
        picture.draw_picture(args.picture, drawn(None, SECONDS), title=title, subtitle=subtitle)
        return f"picture: {args.picture}"

    def film() -> str:
        seconds = args.video_seconds or math.inf
        with show.Ticker("video", unit="frames", quiet=args.quiet) as ticker:
            how = video.write_video(args.video, drawn(0, seconds), seconds=args.video_seconds, progress=ticker.show)
        return f"video: {args.video} ({how})"

    asked: list[Callable[[], str]] = []
    for flag, task in (("picture", draw), ("video", film)):
        if getattr(args, flag) is not None:
            data[flag] = getattr(args, flag)
            asked.append(task)
    title = f"{played[0].environment}: {' beside '.join(labels)}"
    how: dict[str, Any] = {"results": played, "labels": labels, "engine": args.engine, "title": title}
    return [*asked, *html.after(args, data, programs, targets=("reference",), **how)]
