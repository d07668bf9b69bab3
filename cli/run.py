"""The verb `run`: a policy in its environment, alone or beside another one, and what is drawn of it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import nervecord
from nervecord.cli import html, show
from nervecord.cli.flags import integer, wrapper_flag, writable
from nervecord.cli.show import Outcome
from nervecord.cli.simulate import write_trace
from nervecord.cli.verb import Verb
from nervecord.errors import NervecordError

if TYPE_CHECKING:
    from nervecord.compiler.files.program import Program
    from nervecord.compiler.ops import Array
    from nervecord.runtime.report.picture import Drawn
    from nervecord.runtime.result import Result
    from nervecord.runtime.session import Session

ENGINE_DIED = 1
"""Exit code."""


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", help="program, or NIR or ONNX file of a policy (which runs in float64)")
    parser.add_argument(
        "--env",
        metavar="ID",
        help="Gymnasium id, or MODULE:ID, which imports the module; by default the one the policy was trained in",
    )
    wrapper_flag(parser, "around the environment: those that the policy was trained with")
    parser.add_argument("--episodes", type=integer, default=10, metavar="N", help="whole episodes (default 10)")
    parser.add_argument("--seed", type=integer, default=0, metavar="N", help="of the episodes (default 0)")
    parser.add_argument(
        "--num-envs", type=integer, default=1, metavar="N", help="environments side by side (default 1)"
    )
    parser.add_argument("--engine", metavar="NAME", help="by default the target's first; see nervecord targets")
    parser.add_argument(
        "--library", metavar="FILE", help="of the engine c: what compile --shared wrote; its code is executed"
    )
    parser.add_argument("--device", metavar="NAME", help="of the engine torch: cpu (default), cuda, cuda:1")
    parser.add_argument(
        "--precision", metavar="NAME", help="of the engine torch, in floats: float64 (default) or float32"
    )
    parser.add_argument("--beside", metavar="FILE", help="play the same episodes with this policy too, and show both")
    parser.add_argument("--picture", metavar="FILE", help="picture of the first episode (.png, .svg, .pdf)")
    parser.add_argument("--video", metavar="FILE", help="video of the first episode (.mp4)")
    parser.add_argument(
        "--video-seconds", type=float, metavar="S", help="film so much of the episode (by default all of it)"
    )
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="what every neuron gave in the first episode: .npz, or .nir, .h5: NIRData with the observations",
    )
    html.add_flag(parser)
    parser.add_argument(
        "--neurobench", action="store_true", help="count the first episode in the names and definitions of NeuroBench"
    )
    parser.add_argument(
        "--allow-other-env", action="store_true", help="accept an environment of another name and the same shapes"
    )


def _run(args: argparse.Namespace) -> Outcome:
    from nervecord.runtime.report.frames import require_frames
    from nervecord.runtime.worker.environment import chosen_environment

    _require(args)
    programs = [_program(path, args.env, args.wrappers) for path in (args.policy, args.beside) if path is not None]
    # Before an engine is opened, which may have to be compiled first.
    chosen = [
        chosen_environment(program.policy.contract, args.env, args.wrappers, allow_other=args.allow_other_env)
        for program in programs
    ]
    if args.video is not None:
        require_frames(chosen[0][0])
    labels = _labels(args, programs)
    played = [
        _play(args, program, label, beside=bool(k))
        for k, (program, label) in enumerate(zip(programs, labels, strict=True))
    ]
    data: dict[str, Any] = {"target": programs[0].target, **played[0].to_dict()}
    text = show.result_text(played[0], programs[0].target)
    if args.neurobench:
        data["neurobench"], lines = _neurobench(programs[0], played[0])
        text += f"\n\n{lines}"
    if args.beside is not None:
        data["beside"] = {"target": programs[1].target, **played[1].to_dict()}
        text += f"\n\n{show.result_text(played[1], programs[1].target)}"
    if any(result.engine_error is not None for result in played):
        return Outcome(data, text, ENGINE_DIED)
    return Outcome(data, text, after=_drawn(args, data, programs, labels, played))


def _program(path: str, env: str | None, wrappers: Sequence[str] | None) -> Program:
    """What runs of a file. An ONNX file says nothing of where it acts: the environment makes a policy of it."""
    from nervecord.compiler.onnx.file import is_onnx
    from nervecord.targets.source import acting_program

    if not is_onnx(path):
        return acting_program(path)
    if env is None:
        raise NervecordError("does not say in which environment it acts", where=path, hint="name it: --env Ant-v4")
    return acting_program(nervecord.network_policy(path, env, wrappers=wrappers or ()))


def _require(args: argparse.Namespace) -> None:
    """Refuse files that could not be written, before anything else is done."""
    from nervecord.runtime.report import picture, video

    for flag in ("picture", "video", "trace"):
        writable(getattr(args, flag), where=f"--{flag}")
    html.require(args)
    if args.picture is not None:
        picture.require(args.picture)
    if args.video is not None:
        video.require(args.video)
    elif args.video_seconds is not None:
        raise NervecordError("nothing is filmed", where="--video-seconds", hint="add --video")
    if args.video_seconds is not None and not 0 < args.video_seconds < math.inf:
        raise NervecordError(
            f"is {args.video_seconds}, a finite number above 0 is needed",
            where="--video-seconds",
            hint="without it the whole episode is filmed",
        )


def _labels(args: argparse.Namespace, programs: list[Program]) -> list[str]:
    """What each is called in pictures: the target where they differ by it, else the file."""
    targets = [program.target for program in programs]
    return targets if len(set(targets)) == len(targets) else [args.policy, args.beside]


def _opened(args: argparse.Namespace, program: Program, *, beside: bool, trace: bool) -> Session:
    """A session; --engine and what goes with it are of the policy that is named first."""
    if beside:
        return nervecord.open(program, trace=trace)
    return nervecord.open(
        program, engine=args.engine, trace=trace, device=args.device, precision=args.precision, library=args.library
    )


def _play(args: argparse.Namespace, program: Program, label: str, *, beside: bool) -> Result:
    watched = args.neurobench or any(path is not None for path in (args.picture, args.video, args.html, args.trace))
    with (
        _opened(args, program, beside=beside, trace=False) as session,
        show.Ticker("run" if args.beside is None else f"run {label}", unit="episodes", quiet=args.quiet) as ticker,
    ):

        def progress(done: int, total: int, mean: float) -> None:
            ticker.show(done, total, note=f"mean return {mean:,.0f}")

        return nervecord.run(
            session,
            args.env,
            args.episodes,
            args.seed,
            wrappers=args.wrappers,
            environments=args.num_envs,
            record=watched,
            allow_other_env=args.allow_other_env,
            progress=progress,
        )


def _neurobench(program: Program, result: Result) -> tuple[dict[str, Any], str]:
    """NeuroBench's metrics of the first episode, for --json and for people."""
    assert result.recorded is not None
    metrics = nervecord.neurobench(program, result.recorded.observations)
    return metrics.to_dict(), show.neurobench_text(metrics)


def _drawn(
    args: argparse.Namespace, data: dict[str, Any], programs: list[Program], labels: list[str], played: list[Result]
) -> list[Callable[[], str]]:
    """What is to be drawn of the first episodes, and named in `data`."""
    from nervecord.runtime.activity import SECONDS
    from nervecord.runtime.report import picture, video

    def drawn(first: int | None, seconds: float) -> list[Drawn]:
        """The runs with what their neurons did in a part of the recorded episode."""
        pictures = []
        for k, (program, label, result) in enumerate(zip(programs, labels, played, strict=True)):
            with _opened(args, program, beside=bool(k), trace=True) as session:
                pictures.append(picture.Drawn.of(session, label, result, seconds=seconds, first=first))
        return pictures

    def draw() -> str:
        result = played[0]
        title = f"{result.environment}: {' beside '.join(labels)}, engine {result.engine}"
        subtitle = f"first of {len(result.returns)} episodes"
        picture.draw_picture(args.picture, drawn(None, SECONDS), title=title, subtitle=subtitle)
        _, missing = picture.drawable(result)
        return f"picture: {args.picture}" + (f" (without the robot: {missing})" if missing else "")

    def film() -> str:
        seconds = args.video_seconds or math.inf
        with show.Ticker("video", unit="frames", quiet=args.quiet) as ticker:
            how = video.write_video(args.video, drawn(0, seconds), seconds=args.video_seconds, progress=ticker.show)
        return f"video: {args.video} ({how})"

    def trace() -> str:
        with _opened(args, programs[0], beside=False, trace=True) as session:
            write_trace(args.trace, _traced(session, played[0]), programs[0])
        return f"trace: {args.trace}"

    tasks: list[Callable[[], str]] = []
    for flag, task in (("picture", draw), ("video", film), ("trace", trace)):
        if getattr(args, flag) is not None:
            data[flag] = getattr(args, flag)
            tasks.append(task)
    title = f"{played[0].environment}: {' beside '.join(labels)}"
    how: dict[str, Any] = {"results": played, "labels": labels, "engine": args.engine, "title": title}
    return [*tasks, *html.after(args, data, programs, targets=("reference",), **how)]


def _traced(session: Session, result: Result) -> dict[str, Array]:
    """First episode: Input -> observations, (actions, 1, n); population -> useful steps, (actions x T, 1, ...)."""
    from nervecord.compiler.plan.host_steps import split
    from nervecord.runtime.measure.replay import useful_steps

    assert result.recorded is not None
    session.reset(1)
    traces: dict[str, list[Array]] = {}
    for row in result.recorded.observations:
        session.step(row)
        for name, values in useful_steps(session.plan, session.trace()).items():
            traces.setdefault(name, []).append(values)
    rows = {name: np.concatenate(values)[:, None] for name, values in traces.items()}
    return {**split(session.plan, result.recorded.observations[:, None]), **rows}


VERBS = {
    "run": Verb(
        "Run a policy for whole episodes in its Gymnasium environment: return with its interval, latency, spikes, "
        "synaptic events. A NIR file runs in float64, a program on its target's engine. Exit code 1 where the engine "
        "died: every later action was the fail-safe one. Needs the extra 'mujoco'.",
        (
            "nervecord run ant.nervecord",
            "nervecord run policy.nir --env Ant-v4 --episodes 100 --num-envs 16 --seed 7",
            "nervecord run policy.nir --env mytasks:Reach-v0 --wrappers FlattenObservation",
            "nervecord run ant.nervecord --engine lava --episodes 2",
            "nervecord run ant.nervecord --engine torch --num-envs 256 --episodes 1000 --device cuda",
            "nervecord run ant.nervecord --picture ant.png --video ant.mp4 --json",
            "nervecord run policy.onnx --env Ant-v4 --episodes 10",
            "nervecord run ant.nervecord --beside policy.nir --video ant.mp4 --html ant.html",
            "nervecord run ant.nervecord --neurobench --episodes 1",
        ),
        _flags,
        _run,
    )
}
