"""The verb `sweep`: its flags, its progress, and the table it prints."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from nervecord.cli import show
from nervecord.cli.flags import integer
from nervecord.cli.show import Outcome, Ticker
from nervecord.cli.verb import Verb
from nervecord.training.processes.launch import alone
from nervecord.training.sweeps.study import Study, read_study

if TYPE_CHECKING:
    from nervecord.training.sweeps.ray_tasks import SweepProgress
    from nervecord.training.sweeps.standing import Standing

FAILED = 1
"""Exit code where a run has failed."""

DESCRIPTION = (
    "Train all runs of a study, a TOML file of field values and seeds, and compare them. Every combination is checked "
    "first. Called again it continues: finished runs stay, interrupted ones are resumed. Exit code 1 where a run has "
    "failed. Needs the extras 'train' and 'sweep'."
)
EXAMPLES = (
    "nervecord sweep study.toml --plan",
    "nervecord sweep study.toml --workers 4",
    "nervecord sweep study.toml --workers 64 --address auto",
    "nervecord sweep study.toml --report docs/study.md",
)


def sweep_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", help="the study file; see docs/sweep.md")
    parser.add_argument(
        "--workers", type=integer, default=1, metavar="N", help="runs at once (default 1), each in a process of its own"
    )
    parser.add_argument("--cpus", type=integer, default=1, metavar="N", help="cores of each run (default 1)")
    parser.add_argument(
        "--gpus", type=float, default=0.0, metavar="X", help="GPUs of each run, 0.5 is a half (default 0)"
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="a Ray cluster, or auto; by default Ray is started on this machine"
    )
    parser.add_argument("--out", metavar="FOLDER", help="what holds the study's folder, instead of the file's `out`")
    parser.add_argument("--retry-failed", action="store_true", help="try runs that failed once more")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--plan", action="store_true", help="say what would be trained, and train nothing")
    only.add_argument(
        "--report",
        metavar="PATH",
        help="train nothing: write tables and figures of what is finished, to FILE.md or a folder",
    )


def sweep_verb(args: argparse.Namespace) -> Outcome:
    study = read_study(args.study, out=args.out)
    if args.plan:
        return _plan(study)
    if args.report is not None:
        return _report(study, args)
    from nervecord.training.sweeps.ray_tasks import run_sweep

    alone("nervecord sweep")
    if not args.quiet:
        print(_budget(study), file=sys.stderr, flush=True)
    with Ticker("sweep", unit="runs", quiet=args.quiet) as ticker:
        progress = _Progress(ticker, len(study.runs))
        try:
            standing = run_sweep(
                study,
                workers=args.workers,
                cpus=args.cpus,
                gpus=args.gpus,
                address=args.address,
                retry_failed=args.retry_failed,
                progress=progress,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted with {progress.done} of {len(study.runs)} runs finished; the same command continues, "
                "from the last checkpoint of each run"
            ) from None
    return _outcome(study, standing, [])


def _plan(study: Study) -> Outcome:
    from nervecord.training.sweeps.ray_tasks import check_tasks

    study.check_folders()
    check_tasks(study)
    rows = [["run", "steps", "now"]]
    for run in study.runs:
        now = "-" if not run.folder.exists() else "finished" if _is_finished(run.folder) else "begun"
        rows.append([run.name, f"{run.config.total_steps:,}", now])
    data = {
        "study": study.name,
        "folder": str(study.folder),
        "total_steps": study.total_steps,
        "runs": [
            {"name": row[0], "steps": run.config.total_steps} for row, run in zip(rows[1:], study.runs, strict=True)
        ],
    }
    return Outcome(data, f"{show.columns(rows, indent=0, right=(1,))}\n\n{_budget(study)}")


def _is_finished(folder: Any) -> bool:
    from nervecord.training.folder.records import result_of

    return result_of(folder) is not None


def _budget(study: Study) -> str:
    """What the whole study costs, and what of it is done."""
    done = [run for run in study.runs if _is_finished(run.folder)]
    remaining = study.total_steps - sum(run.config.total_steps for run in done)
    return (
        f"{study.name}: {len(study.cells)} configurations, {len(study.runs)} runs, {study.total_steps:,} environment "
        f"steps; finished: {len(done)} runs, left: {remaining:,} steps; in {study.folder}"
    )


class _Progress:
    """The callback of a sweep."""

    def __init__(self, ticker: Ticker, runs: int) -> None:
        self.ticker, self.runs = ticker, runs
        self.done = 0

    def __call__(self, progress: SweepProgress) -> None:
        from nervecord.training.sweeps.standing import State

        standing = progress.standing
        self.done, failed = standing.count(State.DONE), standing.count(State.FAILED)
        notes = [f"{standing.count(State.BEGUN)} begun"]
        if failed:
            notes.append(f"{failed} failed")
        notes.append(f"{progress.steps:,} of {progress.total_steps:,} steps")
        self.ticker.show(self.done + failed, self.runs, note=", ".join(notes), seconds_left=progress.seconds_left)


def _report(study: Study, args: argparse.Namespace) -> Outcome:
    from nervecord.training.sweeps.report import write_report
    from nervecord.training.sweeps.standing import standing_of

    standing = standing_of(study)
    paths = [str(path) for path in write_report(args.report, study, standing)]
    outcome = _outcome(study, standing, paths)
    return Outcome(outcome.data, outcome.text)


def _outcome(study: Study, standing: Standing, paths: list[str]) -> Outcome:
    from nervecord.training.sweeps.cells import read_cells
    from nervecord.training.sweeps.report import report_data, table

    cells = read_cells(study, standing)
    data = report_data(study, cells, standing) | {"written": paths}
    parts = [f"{data['finished']} of {data['runs']} runs finished, in {study.folder}; returns on test seeds:"]
    for series in study.series:
        rows = table(study, series, cells)
        parts.append(f"{series.title}\n{show.columns(rows, indent=2, right=range(2, len(rows[0])))}")
    if data["failed"]:
        lines = [f"  {name}: {sentence}" for name, sentence in data["failed"].items()]
        parts.append("failed, and tried again with --retry-failed:\n" + "\n".join(lines))
    if paths:
        parts.append("written: " + ", ".join(paths))
    else:
        parts.append(f"next: the same command with --report {study.name}.md")
    return Outcome(data, "\n\n".join(parts), FAILED if data["failed"] else 0)


VERBS = {"sweep": Verb(DESCRIPTION, EXAMPLES, sweep_flags, sweep_verb)}
