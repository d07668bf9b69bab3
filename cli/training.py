"""The verbs `train` and `distill`: `TrainConfig`'s fields as flags, progress, and the result."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nervecord.cli import show
from nervecord.cli.flags import integer
from nervecord.cli.recipe import recipe_flags, recipe_verb, require_recipe
from nervecord.cli.show import Outcome, Ticker
from nervecord.cli.verb import Verb
from nervecord.errors import NervecordError
from nervecord.training import front
from nervecord.training.algorithms import DEFAULT, of_verb
from nervecord.training.algorithms.base import Algorithm
from nervecord.training.folder import run_folder
from nervecord.training.folder.start import shared_with
from nervecord.training.folder.topology import read_topology
from nervecord.training.processes.launch import launch
from nervecord.training.settings.config import TrainConfig, algorithm_named, all_fields
from nervecord.training.settings.presets import PRESETS

if TYPE_CHECKING:
    from nervecord.training.run import Progress, TrainResult

TRAIN = (
    "Train a policy, with PPO unless --algorithm says otherwise. Writes a run folder with policy.nir, checkpoints and "
    "metrics; never overwrites one. "
    "Needs the extra 'train'. Several processes: torchrun --nproc-per-node N -m nervecord train ..."
)
TRAIN_EXAMPLES = (
    "nervecord train",
    "nervecord train --steps 12e6 --num-envs 64 --minibatch 1024 --threads 2 --seed 1",
    "nervecord train --env CartPole-v1",
    "nervecord train --layers 128 128 --neuron synaptic --name deep",
    "nervecord train --policy ann",
    "nervecord train --resume runs/deep",
    "nervecord train --start runs/deep --lr 1e-4 --name deeper",
    "nervecord train --start runs/student --reference runs/teacher --lr 2e-5 --name finished",
    "nervecord train --algorithm finetune --start runs/student --critic-run runs/td7 --name finer",
    "nervecord train --recipe zoo --env Walker2d-v4 --seed 1 --name walker2d",
)
DISTILL = (
    "Train a policy, spiking by default, to act as a teacher does: it acts, and learns the teacher's action in every "
    "state it visits (DAgger). Writes a run folder as train does, and resumes by train --resume. "
    "Needs the extra 'train'."
)
DISTILL_EXAMPLES = (
    "nervecord distill runs/teacher",
    "nervecord distill runs/teacher --layers 256 --steps 2e6 --lr 1e-3 --name student",
    "nervecord distill policy.onnx --env Ant-v4 --steps 2e6",
    "nervecord distill my_controller:act --env Ant-v4",
)


def add_flags(parser: argparse.ArgumentParser, *algorithms: type[Any]) -> None:
    """One flag for each field of these algorithms; a flag that is not given leaves no trace in the namespace."""
    presets = ", ".join(PRESETS)
    group = parser.add_argument_group(
        "configuration", f"{presets} begin with settings of their own (docs/training.md), other tasks with the defaults"
    )
    for name, f in all_fields(*algorithms).items():
        if name in {kind.positional for kind in algorithms}:
            parser.add_argument(name, metavar="RUN", help=f.metadata["help"].replace("%", "%%"))
            continue
        owners = {a.name: each for a in algorithms for each in dataclasses.fields(a) if each.name == name}
        text = _text(f, owners, of_all=len(owners) in (0, len(algorithms)))
        options: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS}
        default = f.default
        if isinstance(default, bool):
            options["action"] = argparse.BooleanOptionalAction
        elif isinstance(default, tuple):
            numbers = "least" in f.metadata
            kind, metavar = (integer, "N") if numbers else (str, "NAME")
            options |= {"nargs": "+", "type": kind, "metavar": metavar}
        elif isinstance(default, int):
            options |= {"type": integer, "metavar": "N"}
        elif isinstance(default, float):
            options |= {"type": float, "metavar": "X"}
        else:
            choices = f.metadata.get("choices")
            options["metavar"] = "{" + ",".join(choices) + "}" if choices else "TEXT"
        flag = "--" + name.replace("_", "-")
        group.add_argument(flag, help=text.replace("%", "%%"), **options)


def _text(f: dataclasses.Field[Any], owners: dict[str, dataclasses.Field[Any]], *, of_all: bool) -> str:
    """The help of a flag: what it means and its default, and where these are others in an algorithm's own field."""
    text, default = str(f.metadata["help"]), f"default {_default(f.default)}"
    others: dict[str, list[str]] = {}
    for name, own in owners.items():
        if own.metadata["help"] != text:
            others.setdefault(str(own.metadata["help"]), []).append(name)
    first = [name for name in owners if all(name not in names for names in others.values())]
    if not of_all or others:
        text += f"; with --algorithm {' or '.join(first)}"
    for words, names in others.items():
        text += f"; with {' or '.join(names)}: {words}"
    defaults: dict[str, list[str]] = {}
    for name, own in owners.items():
        if own.default != f.default:
            defaults.setdefault(_default(own.default), []).append(name)
    default += "".join(f", with {' or '.join(names)} {value}" for value, names in defaults.items())
    return f"{text} ({default})"


def chosen_fields(args: argparse.Namespace) -> dict[str, Any]:
    """The fields whose flags were given, and the algorithm."""
    names = {"algorithm", *all_fields()}
    return {name: value for name, value in vars(args).items() if name in names}


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value) if value != "" else "none"


class TrainProgress:
    """The callback of a training: a bar or lines with the rate, the time left and the return so far."""

    def __init__(self, ticker: Ticker, test_episodes: int) -> None:
        self.ticker, self.test_episodes = ticker, test_episodes
        self.step = 0
        self._began: tuple[float, int] | None = None
        """Time and step of the first call: what came before it (imports, compiling) will not come again."""

    def __call__(self, progress: Progress) -> None:
        self.step = progress.step
        so_far = "no episode over yet" if progress.mean_return is None else f"return {progress.mean_return:,.0f}"
        self.ticker.show(
            progress.step,
            progress.total,
            note=f"{so_far}  {progress.rate:,.0f} steps/s",
            seconds_left=self._left(progress),
        )
        if progress.step >= progress.total and self.test_episodes and not self.ticker.quiet:
            self.ticker.stop()
            print(f"testing the exported checkpoint: {self.test_episodes} episodes", file=sys.stderr, flush=True)

    def _left(self, progress: Progress) -> float | None:
        """Seconds left at the pace since the first call; None while nobody can know."""
        now = time.monotonic()
        if self._began is None:
            self._began = (now, progress.step)
            return None
        began, first = self._began
        done = progress.step - first
        return None if done <= 0 else (progress.total - progress.step) * (now - began) / done


def train_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="continue a run folder from its newest checkpoint; takes few other flags, for example --steps, --threads, "
        "--test-episodes",
    )
    parser.add_argument(
        "--topology-from",
        metavar="RUN",
        help="take the policy's shape (layers, neuron, steps per action, state, encoder, decoder), never weights, from "
        "another run folder, or from a study's folder the best shape; flags that are given count more",
    )
    recipe_flags(parser)
    _algorithm_flags(parser, of_verb("train"))


def _algorithm_flags(parser: argparse.ArgumentParser, kinds: list[type[Algorithm]]) -> None:
    """The algorithm, where there are several, and the fields of all."""
    first = kinds[0].name
    if len(kinds) > 1:
        parser.add_argument(
            "--algorithm",
            default=argparse.SUPPRESS,
            metavar="{" + ",".join(kind.name for kind in kinds) + "}",
            help="how it learns: " + "; ".join(f"{kind.name}, {kind.about}" for kind in kinds) + f" (default {first})",
        )
    add_flags(parser, *kinds)


def _with_sources(args: argparse.Namespace, chosen: dict[str, Any]) -> dict[str, Any]:
    """The given fields, those of the runs that the training starts from, and those of the topology asked for."""
    changes: dict[str, Any] = {}
    kind = algorithm_named(chosen.get("algorithm", DEFAULT))
    for source in kind.sources:
        if not chosen.get(source.field):
            continue
        if "network" in source.shared and args.topology_from is not None:
            raise NervecordError(
                "begins with another run's networks, whose shape is theirs",
                where=kind.spelled(source.field),
                hint="drop --topology-from",
            )
        changes |= shared_with(chosen[source.field], source)
    if args.topology_from is None:
        return {**changes, **chosen}
    topology = read_topology(args.topology_from, policy=chosen.get("policy", "snn"))
    if not args.quiet and launch().rank == 0:
        print(f"topology: {topology}", file=sys.stderr, flush=True)
    return {**changes, **topology.fields, **chosen}


def train_verb(args: argparse.Namespace) -> Outcome:
    chosen = chosen_fields(args)
    if args.recipe is not None:
        return recipe_verb(args, chosen, TrainProgress)
    require_recipe(args)
    if args.resume is not None and args.topology_from is not None:
        raise NervecordError("a run that continues keeps its topology", where="--topology-from", hint="drop --resume")
    if args.resume is None:
        config = TrainConfig.for_task(**_with_sources(args, chosen))
    elif not (Path(args.resume) / "config.json").is_file():
        raise NervecordError(f"{args.resume} is no run folder", where="--resume", hint="it has no config.json")
    else:
        config = run_folder.open_existing(Path(args.resume))
    return _run(args, config, chosen)


def distill_flags(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(resume=None, topology_from=None)
    _algorithm_flags(parser, of_verb("distill"))


def distill_verb(args: argparse.Namespace) -> Outcome:
    chosen = {"algorithm": of_verb("distill")[0].name, **chosen_fields(args)}
    return _run(args, TrainConfig.for_task(**_with_sources(args, chosen)), chosen)


def _run(args: argparse.Namespace, config: TrainConfig, chosen: dict[str, Any]) -> Outcome:
    """Train, with progress; `chosen` are the fields that were given, which a run that continues is told."""
    is_first = launch().rank == 0
    run = front.training()
    with Ticker("train", quiet=args.quiet or not is_first) as ticker:
        progress = TrainProgress(ticker, config.run.test_episodes)
        try:
            if args.resume is None:
                result = run.train(config, progress=progress)
            else:
                result = run.resume(args.resume, progress=progress, overrides=chosen)
        except KeyboardInterrupt as interrupt:
            if str(interrupt):
                raise
            folder = args.resume or str(Path(config.run.out) / config.run_name)
            raise KeyboardInterrupt(
                f"interrupted at step {progress.step:,}; nervecord train --resume {folder} continues from its last "
                "checkpoint, if it has one"
            ) from None
    return dataclasses.replace(trained(result), silent=not is_first)


def trained(result: TrainResult) -> Outcome:
    """The result of a training."""
    test = None if result.test is None else result.test.as_dict()
    policy = None if result.policy is None else str(result.policy)
    data = {
        "run": str(result.folder),
        "policy": policy,
        "step": result.step,
        "validation_return": result.validation,
        "test": test,
        "config": json.loads(result.config.to_json()),
    }
    rows = [["run", str(result.folder)], ["checkpoint", f"step {result.step:,}"]]
    if result.validation is not None:
        role = " (it chose the checkpoint)" if result.config.run.export == "best" else ""
        rows.append(["validation", f"{result.validation:,.0f}{role}"])
    if test is not None:
        low, high = test["interval95"] or (math.nan, math.nan)
        half = show.interval(test["mean_return"], (high - low) / 2)
        rows.append(["return", f"{half} over {test['episodes']} episodes on held-out test seeds"])
    rows.append(["policy", policy or f"none: {_unwritten(result)}"])
    text = show.columns(rows, indent=0)
    if policy is not None:
        task = result.config.task
        program = f"{task.env.rpartition(':')[2].partition('-')[0].lower()}.nervecord"
        text += f"\nnext: nervecord compile {policy} --target lava -o {program}"
        # A policy's file has nothing imported: whoever runs it names modules and wrappers.
        named = f" --env {task.env}" if ":" in task.env else ""
        named += f" --wrappers {shlex.join(task.wrappers)}" if task.wrappers else ""
        text += f"\n      nervecord run {program}{named}" if named else ""
    return Outcome(data, text)


def _unwritten(result: TrainResult) -> str | None:
    from nervecord.training.folder.export import exportable

    return exportable(result.config)


VERBS = {
    "train": Verb(TRAIN, TRAIN_EXAMPLES, train_flags, train_verb),
    "distill": Verb(DISTILL, DISTILL_EXAMPLES, distill_flags, distill_verb),
}
