"""`nervecord train --recipe`: a chain of trainings, its stages as commands, progress, and the result."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from nervecord.cli import show
from nervecord.cli.show import Outcome, Ticker
from nervecord.errors import NervecordError
from nervecord.training.processes.launch import alone
from nervecord.training.recipes.recipe import Plan, PlannedStage, built_in, plan, read_recipe
from nervecord.training.recipes.watcher import Side, Watcher
from nervecord.training.settings.config import marked

if TYPE_CHECKING:
    from nervecord.training.recipes.chain import ChainResult

ShownProgress = Callable[[Ticker, int], Callable[[Any], None]]
"""Makes the callback of a training from a ticker and the number of test episodes."""


def recipe_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "recipe", "a chain of trainings up to the compiled policy and its evaluation (docs/teacher.md)"
    )
    group.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"train by this chain: {', '.join(built_in())}, or a TOML file; the same command continues it wherever it "
        "stopped. Takes --env, --seed, --name, --out, --wrappers, and flags that do not decide what is learnt",
    )
    group.add_argument("--dry-run", action="store_true", help="show the stages and the commands that do the same")
    group.add_argument(
        "--ignore-gates", action="store_true", help="continue also where a stage is below what the recipe asks for"
    )


def require_recipe(args: argparse.Namespace) -> None:
    """Refuse the flags of recipes where there is none.

    Raises:
        NervecordError: there is one.
    """
    for name in ("dry_run", "ignore_gates"):
        if getattr(args, name):
            flag = "--" + name.replace("_", "-")
            raise NervecordError("has no meaning without a recipe", where=flag, hint="add --recipe zoo")


def recipe_verb(args: argparse.Namespace, chosen: dict[str, Any], progress: ShownProgress) -> Outcome:
    """Show or do what a recipe asks for. chosen: the fields that were given."""
    for name in ("resume", "topology_from"):
        if getattr(args, name) is not None:
            flag = "--" + name.replace("_", "-")
            raise NervecordError("has no meaning with a recipe", where=flag, hint="drop it")
    alone("nervecord train --recipe")
    planned = plan(read_recipe(args.recipe), **{"env": "Ant-v4", **chosen})
    if args.dry_run:
        return _shown(planned)
    from nervecord.training.recipes.chain import run_chain

    free = {name: value for name, value in chosen.items() if name in marked("free")}
    watcher = _Watcher(quiet=args.quiet, progress=progress)
    return _outcome(run_chain(planned, watcher=watcher, ignore_gates=args.ignore_gates, **free))


class _Watcher(Watcher):
    """Shows on stderr how a chain proceeds."""

    def __init__(self, *, quiet: bool, progress: ShownProgress) -> None:
        self.quiet, self.progress = quiet, progress

    @contextlib.contextmanager
    def training(self, stage: PlannedStage) -> Iterator[Callable[[Any], None]]:
        with Ticker(stage.stage.name, quiet=self.quiet) as ticker:
            yield self.progress(ticker, stage.config.run.test_episodes)

    @contextlib.contextmanager
    def episodes(self, side: Side) -> Iterator[Callable[[int, int, float], None]]:
        with Ticker(f"run {side}", unit="episodes", quiet=self.quiet) as ticker:
            yield lambda done, total, mean: ticker.show(done, total, note=f"mean return {mean:,.0f}")

    def note(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)


def _shown(planned: Plan) -> Outcome:
    """What would be done, and what of it is."""
    from nervecord.training.recipes.chain import commands, gate_values, is_finished

    rows = [["stage", "algorithm", "steps", "gates: step, mean of validations", "now"]]
    stages = []
    for stage in planned.stages:
        gates = [(gate.step, None if planned.aim is None else gate.least * planned.aim) for gate in stage.stage.gates]
        texts = [f"{step:,}: {'-' if least is None else f'{least:,.0f}'}" for step, least in gates]
        now = "finished" if is_finished(stage) else "begun" if stage.folder.exists() else "-"
        total = stage.config.total_steps
        name, reached = stage.stage.name, [value.to_dict() for value in gate_values(planned, stage)]
        rows.append([name, stage.config.algorithm.name, f"{total:,}", ", ".join(texts) or "-", now])
        stages.append({"name": name, "folder": str(stage.folder), "steps": total, "gates": reached, "now": now})
    lines = [(name, shlex.join(words)) for name, words in commands(planned)]
    settings = planned.recipe.evaluation
    aim = "no aim is named for it, so no gates" if planned.aim is None else f"aim {planned.aim:,.0f}"
    text = "\n\n".join(
        [
            f"{planned.recipe.name}: {planned.recipe.about}\n{planned.env}, {aim}; in {planned.folder}",
            show.columns(rows, indent=0, right=(2,)),
            "The same by single commands:\n" + "\n".join(f"  {line}" for _, line in lines),
            f"Both policies play {settings.episodes:,} episodes; where an episode spreads by more than "
            f"{settings.spread:.0%} of the mean, seeds {settings.seed + 1} and following make it {settings.most:,}.",
        ]
    )
    data = {
        "recipe": planned.recipe.name,
        "env": planned.env,
        "folder": str(planned.folder),
        "aim": planned.aim,
        "stages": stages,
        "commands": dict(lines),
    }
    return Outcome(data, text)


def _outcome(result: ChainResult) -> Outcome:
    data = result.to_dict()
    rows = [["chain", str(result.plan.folder)], ["program", str(result.plan.program)]]
    for side, title in (("float", "return, float64"), ("fixed", "return, fixed point")):
        rows.append([title, show.interval(data[side]["mean"], data[side]["ci95"])])
    rows += [
        ["episodes", f"{data['episodes']:,}, held-out, the same for both"],
        ["loss", f"{100 * data['loss']:.1f} % ± {100 * data['loss_ci95']:.1f} %"],
    ]
    if data["aim"] is not None:
        rows.append(["aim", f"{data['aim']:,.0f}, {'reached' if data['reached'] else 'not reached'}"])
    return Outcome({"folder": str(result.plan.folder), **data}, show.columns(rows, indent=0))
