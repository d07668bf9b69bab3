"""The demo: the whole line, live, ending with a table and a picture.

Trains a spiking policy for Ant-v4, compiles it for Loihi 2's fixed point, plays the same episodes with the float policy
and the compiled one, inspects it, and draws it. Everything lands in a new numbered folder.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nervecord
from nervecord.cli import show
from nervecord.cli.flags import integer
from nervecord.cli.show import Outcome, Ticker
from nervecord.cli.training import TrainProgress
from nervecord.cli.verb import Verb
from nervecord.compiler.files.atomic import write_atomically
from nervecord.errors import NervecordError
from nervecord.training import front
from nervecord.training.processes.launch import alone

if TYPE_CHECKING:
    from nervecord.compiler.check.cost import Estimate
    from nervecord.compiler.files.program import Program
    from nervecord.compiler.graph.policy import Policy
    from nervecord.compiler.inspect import Report
    from nervecord.runtime.report.picture import Drawn
    from nervecord.runtime.result import Result
    from nervecord.runtime.session import Counts

TARGETS = ("lava", "loihi1")
"""Inspected at the end."""
PLAY_SEED = 1000
"""Of the episodes that are played; no training has seen them."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two policies, played."""

    policy: Policy | Program
    result: Result
    counts: Counts
    drawn: Drawn
    energy: Estimate | None


def run_demo(
    out: Path, *, steps: int | None, episodes: int, seed: int, video: bool, html: bool, quiet: bool
) -> Outcome:
    """Run it all.

    Args:
        out: folder in which a new numbered folder is made.
        steps: of the training; None for the demo's own number.
        episodes: of each policy. seed: of the training.
        video: film both side by side. html: write a report of both.
        quiet: no progress.

    Returns:
        The result, and what is filmed and written once it has been printed.
    """
    from nervecord.runtime.report import picture
    from nervecord.runtime.report import video as videos
    from nervecord.runtime.report.frames import require_frames
    from nervecord.targets.source import policy_of

    front.training()  # what is missing is said before a folder is made
    picture.require("ant.png")
    if video:
        videos.require("ant.mp4")
        require_frames("Ant-v4")
    if html:
        from nervecord.runtime.report.html import page

        page.require("report.html")
    if episodes < 2:
        raise NervecordError(f"is {episodes}, at least 2 are needed for an interval", where="--episodes")
    folder = _new_folder(out)
    clock = _Clock(quiet)
    clock.say(f"everything goes to {folder}")
    with clock.stage("train a spiking policy"):
        policy_path = _train(folder, steps, seed, quiet)
    with clock.stage("compile it for Loihi 2's fixed point"):
        policy = policy_of(policy_path)
        program = nervecord.compile(policy, "lava")
        program.save(folder / "ant.nervecord")
    with clock.stage(f"play {episodes} episodes with each"):
        floating = _play("float", policy, episodes, quiet)
        fixed = _play("fixed point", program, episodes, quiet)
    with clock.stage("inspect and draw"):
        report = nervecord.inspect(policy, TARGETS)
        title = f"{program.policy.contract.environment}: a spiking policy, trained and compiled just now"
        picture.draw_picture(
            folder / "ant.png", [fixed.drawn, floating.drawn], title=title, subtitle=_subtitle(program)
        )
        files = [folder / "ant.png", folder / "ant.nervecord", Path(policy_path)]
    data = _data(folder, program, floating, fixed, report, clock)
    text = _text(program, floating, fixed, report, clock, files)
    write_atomically(folder / "demo.json", (json.dumps(json.loads(show.to_json(data)), indent=1) + "\n").encode())
    write_atomically(folder / "demo.txt", (text + "\n").encode())
    after: list[Callable[[], str]] = []
    if html:
        after.append(lambda: _report(folder / "report.html", title, fixed, floating))
    if video:
        after.append(lambda: _film(folder / "ant.mp4", [fixed, floating], quiet))
    return Outcome(data, text, after=after)


def _report(path: Path, title: str, *sides: Side) -> str:
    from nervecord.cli import html

    labels = [side.drawn.label for side in sides]
    results = [side.result for side in sides]
    html.write(path, [side.policy for side in sides], targets=TARGETS, results=results, labels=labels, title=title)
    return f"wrote {path}"


def _film(path: Path, sides: list[Side], quiet: bool) -> str:
    """Both, side by side, the whole episode."""
    from nervecord.runtime.report import video
    from nervecord.runtime.report.picture import Drawn

    runs = []
    for side in sides:
        with nervecord.open(side.policy) as session:
            runs.append(Drawn.of(session, side.drawn.label, side.result, seconds=math.inf, first=0))
    with Ticker("video", unit="frames", quiet=quiet) as ticker:
        how = video.write_video(path, runs, progress=ticker.show)
    return f"wrote {path} ({how})"


class _Clock:
    """Says what is going on, and remembers how long it took."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.seconds: dict[str, float] = {}

    def say(self, line: str) -> None:
        """One line on stderr."""
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)

    @contextmanager
    def stage(self, what: str) -> Iterator[None]:
        """A part of the demo."""
        self.say(f"\n{len(self.seconds) + 1}. {what}")
        began = time.monotonic()
        yield
        self.seconds[what] = time.monotonic() - began
        self.say(f"   {self.seconds[what]:.0f} s")


def _new_folder(out: Path) -> Path:
    """The first free of out/1, out/2, ..."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for k in range(1, 10_000):
            try:
                (out / str(k)).mkdir()
            except FileExistsError:
                continue
            return out / str(k)
    except OSError as error:
        raise NervecordError(f"cannot be made: {error.strerror}", where=str(out)) from None
    raise NervecordError("is full", where=str(out), hint="remove old demos")


def _train(folder: Path, steps: int | None, seed: int, quiet: bool) -> str:
    from nervecord.training.run import train
    from nervecord.training.settings.config import demo_config

    changes: dict[str, Any] = {} if steps is None else {"steps": steps}
    # The episodes that are played afterwards are the test.
    config = demo_config(out=str(folder), name="training", seed=seed, test_episodes=0, **changes)
    with Ticker("train", quiet=quiet) as ticker:
        result = train(config, progress=TrainProgress(ticker, 0))
    assert result.policy is not None
    return str(result.policy)


def _play(label: str, policy: Policy | Program, episodes: int, quiet: bool) -> Side:
    from nervecord.compiler.check.cost import count_events, estimate
    from nervecord.compiler.graph.policy import Policy
    from nervecord.runtime.report.picture import Drawn
    from nervecord.targets.catalogue import load_spec

    with nervecord.open(policy) as session, Ticker(label, unit="episodes", quiet=quiet) as ticker:
        result = nervecord.run(
            session,
            episodes=episodes,
            seed=PLAY_SEED,
            environments=min(episodes, 20),
            record=True,
            progress=lambda done, total, mean: ticker.show(done, total, note=f"return {mean:,.0f}"),
        )
        counts = session.counts
        spec = load_spec("lava")
        spikes = {name: total / counts.actions for name, total in counts.spikes.items()}
        acting = Policy(session.graph, session.contract)
        energy = estimate(count_events(acting, spec, spikes), spec) if label != "float" else None
        return Side(policy, result, counts, Drawn.of(session, label, result), energy)


def _subtitle(program: Program) -> str:
    contract, lowering = program.policy.contract, program.report["lowering"]
    bits = lowering["populations"][0]["connections"][0]["weight_bits"]
    hidden = [str(layer["neurons"]) for layer in program.report["placement"]["layers"][:-1]]
    shape = "-".join([str(contract.observation.size), *hidden, str(contract.action.size)])
    return f"{shape} spiking neurons, T = {contract.steps}, {bits}-bit weights, Loihi 2 arithmetic"


def _loss(floating: Result, fixed: Result) -> tuple[float, float]:
    """Loss of mean return by quantisation and the half width of its 95 % interval, as shares of the float return."""
    from nervecord.runtime.result import interval95

    base = abs(floating.mean)
    return (floating.mean - fixed.mean) / base, interval95(floating.returns - fixed.returns) / base


def _data(folder: Path, program: Program, floating: Side, fixed: Side, report: Report, clock: _Clock) -> dict[str, Any]:
    loss, half = _loss(floating.result, fixed.result)
    return {
        "folder": str(folder),
        "float": {"target": "reference", **floating.result.to_dict()},
        "fixed": {"target": program.target, **fixed.result.to_dict()},
        "loss": loss,
        "loss_ci95": half,
        "cores": program.report["placement"]["cores"],
        "energy_per_action": None if fixed.energy is None else fixed.energy.to_dict(),
        "inspection": report.to_dict(),
        "seconds": clock.seconds,
    }


def _text(program: Program, floating: Side, fixed: Side, report: Report, clock: _Clock, files: list[Path]) -> str:
    a, b = floating.result, fixed.result
    loss, half = _loss(a, b)
    budget = f"{b.deadline_us / 1000:.0f} ms"

    def latency(result: Result) -> str:
        return f"{result.latency_us['median'] / 1000:.2f} / {result.latency_us['p99'] / 1000:.2f} ms"

    rows = [
        [f"{b.environment}, {len(b.returns)} episodes", "float", "fixed point"],
        ["return, mean with 95 % interval", show.interval(a.mean, a.ci95), show.interval(b.mean, b.ci95)],
        ["loss from quantisation", "", f"{loss:+.1%} ± {half:.1%}"],
        ["episode length", show.number(float(a.lengths.mean()), 0), show.number(float(b.lengths.mean()), 0)],
        ["spikes per action", show.number(a.per_action["spikes"]), show.number(b.per_action["spikes"])],
        [
            "synaptic operations per action",
            show.number(a.per_action["synaptic_events"], 0),
            show.number(b.per_action["synaptic_events"], 0),
        ],
        [f"latency median / p99, of {budget}", latency(a), latency(b)],
        ["cores", "", str(program.report["placement"]["cores"])],
    ]
    lines = [show.columns(rows, indent=0, right=(1, 2)), ""]
    if fixed.energy is not None:
        lines.append(f"energy per action: {fixed.energy}")
    for target in report.targets:
        lines.append(f"{target.target}: {target.verdict}")
        lines += [
            f"  {finding.code}: {finding.message}; {finding.fix}"
            for finding in target.findings
            if finding.severity in ("error", "unknown")
        ]
    spent = ", ".join(f"{what} {seconds:.0f} s" for what, seconds in clock.seconds.items())
    lines += ["", f"time: {spent}", *(f"wrote {file}" for file in files)]
    return "\n".join(lines)


def demo_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", default="demo", metavar="DIR", help="folder for the demo's numbered folders (default demo)"
    )
    parser.add_argument(
        "--steps", type=integer, metavar="N", help="environment steps of the training (default 1,250,000)"
    )
    parser.add_argument("--episodes", type=integer, default=20, metavar="N", help="of each policy (default 20)")
    parser.add_argument("--seed", type=integer, default=0, metavar="N", help="of the training (default 0)")
    parser.add_argument("--video", action="store_true", help="write a video of both policies too")
    parser.add_argument("--html", action="store_true", help="write a report of both as one page too")


def demo_verb(args: argparse.Namespace) -> Outcome:
    alone("nervecord demo")
    return run_demo(
        Path(args.out),
        steps=args.steps,
        episodes=args.episodes,
        seed=args.seed,
        video=args.video,
        html=args.html,
        quiet=args.quiet,
    )


VERBS = {
    "demo": Verb(
        "Train a spiking ant, compile it for Loihi 2's fixed point, run it beside the float policy, inspect it, draw "
        "it. Takes 4 to 12 minutes on two cores; every time a new folder. Needs the extra 'train'.",
        ("nervecord demo", "nervecord demo --steps 300_000 --out demos", "nervecord demo --video"),
        demo_flags,
        demo_verb,
    )
}
