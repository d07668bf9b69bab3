"""The verb `run`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import nervecord
from nervecord.cli import show
from nervecord.cli.flags import whole_number, writable
from nervecord.cli.show import Outcome
from nervecord.cli.verb import Verb

if TYPE_CHECKING:
    from nervecord.compiler.files.program import Program
    from nervecord.runtime.result import Result
    from nervecord.runtime.session import Session

ENGINE_DIED = 1
"""Exit code."""


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", help="program, or NIR file of a policy (which runs in float64)")
    parser.add_argument(
        "--env",
        metavar="ID",
        help="Gymnasium id, or MODULE:ID, which imports the module; by default the one the policy was trained in",
    )
    parser.add_argument("--episodes", type=whole_number, default=10, metavar="N", help="whole episodes (default 10)")
    parser.add_argument("--seed", type=whole_number, default=0, metavar="N", help="of the episodes (default 0)")
    parser.add_argument(
        "--num-envs", type=whole_number, default=1, metavar="N", help="environments side by side (default 1)"
    )
    parser.add_argument("--engine", metavar="NAME", help="by default the target's first; see nervecord targets")
    parser.add_argument("--picture", metavar="FILE", help="picture of the first episode (.png, .svg, .pdf)")
    parser.add_argument("--video", metavar="FILE", help="video of the first episode (.mp4)")
    parser.add_argument(
        "--allow-other-env", action="store_true", help="accept an environment of another name and the same shapes"
    )


def _run(args: argparse.Namespace) -> Outcome:
    from nervecord.runtime import picture, video
    from nervecord.targets.given import acting

    writable(args.picture, where="--picture")
    writable(args.video, where="--video")
    if args.picture is not None:
        picture.require(args.picture)
    if args.video is not None:
        video.require(args.video)
    program = acting(args.policy)
    target = program.target
    with nervecord.open(program, engine=args.engine, trace=bool(args.picture)) as session:
        result = _play(session, args)
        data = {"target": target, **result.to_dict()}
        text = show.result_text(result, target)
        if result.engine_error is not None:
            return Outcome(data, text, ENGINE_DIED)
        if args.picture:
            _draw(args.picture, session, result, program)
            data["picture"] = args.picture
            text += f"\npicture: {args.picture}"
    if args.video:
        with show.Ticker("video", unit="frames", quiet=args.quiet) as ticker:
            how = video.write_video(args.video, result, progress=ticker.show)
        data["video"] = args.video
        text += f"\nvideo: {args.video} ({how})"
    return Outcome(data, text)


def _play(session: Session, args: argparse.Namespace) -> Result:
    with show.Ticker("run", unit="episodes", quiet=args.quiet) as ticker:
        return nervecord.run(
            session,
            args.env,
            args.episodes,
            args.seed,
            environments=args.num_envs,
            record=bool(args.picture or args.video),
            allow_other_env=args.allow_other_env,
            progress=lambda done, total, mean: ticker.show(done, total, note=f"mean return {mean:,.0f}"),
        )


def _draw(path: str, session: Session, result: Result, program: Program) -> None:
    """The picture of one run."""
    from nervecord.runtime.picture import Drawn, draw_picture, hidden_spikes

    assert result.recorded is not None
    spikes = hidden_spikes(session, result.recorded)
    title = f"{result.environment}: {program.target}, engine {result.engine}"
    subtitle = f"first of {len(result.returns)} episodes"
    draw_picture(path, [Drawn(program.target, result, spikes)], title=title, subtitle=subtitle)


VERBS = {
    "run": Verb(
        "Run a policy for whole episodes in its Gymnasium environment: return with its interval, latency, spikes, "
        "synaptic events. A NIR file runs in float64, a program on its target's engine. Exit code 1 where the engine "
        "died: every later action was the fail-safe one. Needs the extra 'mujoco'.",
        (
            "nervecord run ant.nervecord",
            "nervecord run policy.nir --env Ant-v4 --episodes 100 --num-envs 16 --seed 7",
            "nervecord run ant.nervecord --engine lava --episodes 2",
            "nervecord run ant.nervecord --picture ant.png --video ant.mp4 --json",
        ),
        _flags,
        _run,
    )
}
