"""`--html`, `--svg`, `--dot`: reports and drawings of what a verb worked on; in Python, `nervecord.report`."""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import nervecord
from nervecord.cli.flags import writable
from nervecord.errors import NervecordError

if TYPE_CHECKING:
    from nervecord.compiler.files.program import Program
    from nervecord.compiler.graph.graph import Graph
    from nervecord.compiler.graph.policy import Policy
    from nervecord.compiler.inspect import Report
    from nervecord.runtime.measure.compare import Comparison
    from nervecord.runtime.report.html.page import Played, Subject
    from nervecord.runtime.result import Result


def add_flag(parser: argparse.ArgumentParser) -> None:
    """`--html FILE`."""
    parser.add_argument("--html", metavar="FILE", help="a report as one page that needs nothing else (.html)")


def add_drawing_flags(parser: argparse.ArgumentParser) -> None:
    """`--svg FILE` and `--dot FILE`."""
    parser.add_argument("--svg", metavar="FILE", help="the graph alone, drawn")
    parser.add_argument("--dot", metavar="FILE", help="the graph alone, in Graphviz' language")


def require(args: argparse.Namespace) -> None:
    """Refuse files that could not be written, before the work and not after it."""
    for flag in ("html", "svg", "dot"):
        path = getattr(args, flag, None)
        if path is None:
            continue
        writable(path, where=f"--{flag}")
        from nervecord.runtime.report.html import page

        page.require(path if flag == "html" else "drawing.html")


def drawings(args: argparse.Namespace, data: dict[str, Any], report: Report) -> list[Callable[[], str]]:
    """What `--svg` and `--dot` ask for, to be written after the result is printed; named in `data`."""

    def draw(flag: str, path: str) -> str:
        from nervecord.compiler.files.atomic import write_atomically
        from nervecord.runtime.report.html import drawing, layout

        report_data = report.to_dict()
        if report_data["graph"] is None:
            raise NervecordError("the graph is too damaged to be drawn", where=args.graph)
        if flag == "dot":
            text = layout.to_dot(report_data["graph"])
        else:
            placed = next((t for t in report_data["targets"] if (t["resources"] or {}).get("cores") is not None), None)
            resources, title = (None, "") if placed is None else (placed["resources"], placed["title"])
            text = drawing.draw_svg(report_data["graph"], resources, title=title)
        write_atomically(path, text.encode())
        return f"wrote {path}"

    targets = {flag: path for flag in ("svg", "dot") if (path := getattr(args, flag)) is not None}
    data |= targets
    return [functools.partial(draw, flag, path) for flag, path in targets.items()]


def after(
    args: argparse.Namespace, data: dict[str, Any], policies: Sequence[Any], **how: Any
) -> list[Callable[[], str]]:
    """The report that `--html` asks for, to be written after the result is printed; named in `data`."""
    if args.html is None:
        return []
    data["html"] = args.html

    def written() -> str:
        write(args.html, policies, **how)
        return f"wrote {args.html}"

    return [written]


def report(
    path: str | os.PathLike[str],
    *policies: Graph | Policy | Program | str | os.PathLike[str],
    targets: Sequence[str] | None = None,
    results: Sequence[Result] = (),
    comparison: Comparison | None = None,
    title: str | None = None,
) -> None:
    """Write a report as one HTML page that needs nothing else. Needs the extra `report`.

    Args:
        path: .html; replaced if it exists.
        policies: graphs, programs, or the files of such.
        targets: what graphs are inspected for, by default all; a program is inspected for its own.
        results: of `run`, one for each of the first policies; with record=True their spikes are shown.
        comparison: of the first two.
        title: of the page.

    Raises:
        MissingDependencyError: the extra is not installed.

    Example:
        >>> nervecord.report("ant.html", "ant.nervecord")  # doctest: +SKIP
    """
    write(path, policies, targets=targets, results=results, comparison=comparison, title=title)


def write(
    path: str | os.PathLike[str],
    policies: Sequence[Graph | Policy | Program | str | os.PathLike[str]],
    *,
    targets: Sequence[str] | None = None,
    report: Report | None = None,
    results: Sequence[Result] = (),
    comparison: Comparison | None = None,
    title: str | None = None,
    labels: Sequence[str] = (),
    engine: str | None = None,
    robustness: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write a report about policies and what they did.

    Args:
        policies: graphs, programs, or the files of such.
        targets: of graphs, what they are inspected for, by default all; a program is inspected for its own.
        report: of the only policy, where it was inspected already.
        results: of `run`, one for each of the first policies; a recorded episode is replayed for its spikes.
        comparison: of the first two policies.
        title: of the page. labels: of the policies, by default their files' names or targets.
        engine: that replays the first policy. robustness: returns under perturbations, of `Perturbed.to_dict`.
    """
    from nervecord.cli.show import robustness_rows
    from nervecord.compiler.files.program import Program
    from nervecord.runtime.report.html import page
    from nervecord.targets.source import load_source

    page.require(path)
    named = [labels[k] if k < len(labels) else _label(policy) for k, policy in enumerate(policies)]
    loaded = [load_source(policy) for policy in policies]
    reports = [report] if report is not None else [_inspected(subject, targets) for subject in loaded]
    subjects = [
        page.Subject(name, report_data.to_dict(), subject.to_dict() if isinstance(subject, Program) else None)
        for name, subject, report_data in zip(named, loaded, reports, strict=True)
    ]
    played = [
        _played(name, subject, result, engine if k == 0 else None)
        for k, (name, subject, result) in enumerate(zip(named, loaded, results, strict=False))
    ]
    contents = page.Contents(
        certificates=(*_certificates(loaded), *robustness_rows(robustness)),
        title=title or " and ".join(named),
        subtitle=_subtitle(subjects),
        subjects=tuple(subjects),
        runs=tuple(played),
        comparison=None if comparison is None else comparison.to_dict(),
    )
    page.write_report(path, contents)


def _certificates(loaded: Sequence[Graph | Policy | Program]) -> tuple[tuple[str, str], ...]:
    """What the programs' certificates say."""
    from nervecord.cli.show import certificate_rows
    from nervecord.compiler.files.program import Program

    certificates = [it.report["certificate"] for it in loaded if isinstance(it, Program) and "certificate" in it.report]
    return tuple((what, value) for one in certificates for what, value in certificate_rows(one))


def _label(policy: Graph | Policy | Program | str | os.PathLike[str]) -> str:
    if isinstance(policy, (str, os.PathLike)):
        return str(policy)
    target = getattr(policy, "target", None)
    return f"program for {target}" if target else "graph"


def _inspected(subject: Graph | Policy | Program, targets: Sequence[str] | None) -> Report:
    from nervecord.compiler.files.program import Program

    return nervecord.inspect(subject, (subject.target,) if isinstance(subject, Program) else targets)


def _played(name: str, subject: Graph | Policy | Program, result: Result, engine: str | None) -> Played:
    from nervecord.runtime.activity import replay_activity
    from nervecord.runtime.report.html.page import Played

    activity = None
    if result.recorded is not None:
        with nervecord.open(subject, engine=engine) as session:
            activity = replay_activity(session, result.recorded).to_dict()
    return Played(name, result.to_dict(), activity)


def _subtitle(subjects: Sequence[Subject]) -> str:
    """What it is about, in a sentence."""
    parts = []
    for subject in subjects:
        graph = subject.inspection["graph"]
        if graph is not None and graph["policy"] is not None:
            parts.append(f"a policy for {graph['policy']['environment']}")
        for target in subject.inspection["targets"] if subject.program else ():
            parts[-1:] = [f"{parts[-1] if parts else 'a graph'}, compiled for {target['title']}"]
    return "; ".join(dict.fromkeys(parts))
