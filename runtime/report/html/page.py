"""The page: data in, one HTML file out. The template says what stands where; this module picks and measures."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from nervecord.compiler.lower.reports import bound_text
from nervecord.compiler.target.specfile import trust
from nervecord.errors import MissingDependencyError, NervecordError, install_command

SUFFIXES = (".html", ".htm")
MOST_HISTOGRAMS = 24
"""Connections whose weights are drawn; of a larger graph the first ones."""
GRAVEST_FIRST = ("error", "unknown", "warning", "info")
PER_CORE = {
    "neurons_per_core": "neurons",
    "axons_in_per_core": "axons in",
    "axons_out_per_core": "axons out",
    "synapse_bits_per_core": "synapse bits",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """A graph that the report is about.

    Args:
        label: its file, or what the caller calls it.
        inspection: `Report.to_dict`, of the targets that matter.
        program: `Program.to_dict` where it is a program, else None.
    """

    label: str
    inspection: Mapping[str, Any]
    program: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Played:
    """A run: a label, `Result.to_dict`, and `Activity.to_dict` of its recorded episode, or None."""

    label: str
    result: Mapping[str, Any]
    activity: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Contents:
    """What a report shows; every part may be absent.

    Args:
        title: the headline. subtitle: a sentence under it.
        comparison: `Comparison.to_dict` of the two subjects.
        facts: (what, value) rows at the top. certificates: such rows of what compiling cost.
    """

    title: str
    subtitle: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    subjects: tuple[Subject, ...] = ()
    runs: tuple[Played, ...] = ()
    comparison: Mapping[str, Any] | None = None
    certificates: tuple[tuple[str, str], ...] = ()


def require(path: str | os.PathLike[str]) -> None:
    """Refuse a report that could not be written, before the work and not after it.

    Raises:
        MissingDependencyError: a library of the extra `report` is not installed.
        NervecordError: the file's ending is not that of a page.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise NervecordError(
            f"ends in {Path(path).suffix!r}, which is no page", where=str(path), hint=f"one of: {', '.join(SUFFIXES)}"
        )
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
        import networkx  # noqa: F401
        import plotly.offline  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed", where="report", hint=install_command("report")
        ) from None


def write_report(path: str | os.PathLike[str], contents: Contents) -> None:
    """Write the report; a crash leaves the old file or the new one.

    Raises:
        MissingDependencyError, NervecordError: as `require`; or the file cannot be written.
    """
    from nervecord.compiler.files.atomic import write_atomically

    require(path)
    write_atomically(path, render(contents).encode("utf-8", "backslashreplace"))  # names of files that are no text


def render(contents: Contents) -> str:
    """The page as text. The same contents and versions give the same text."""
    from plotly.offline import get_plotlyjs

    folder = Path(__file__).parent
    board = _Board()
    page = {
        "title": contents.title,
        "subtitle": contents.subtitle,
        "facts": contents.facts,
        "certificates": contents.certificates,
        "subjects": [_subject(subject, board) for subject in contents.subjects],
        "runs": contents.runs,
        "run_charts": _runs(contents, board),
        "comparison": contents.comparison,
        "parting": None if contents.comparison is None else board.add_chart("parting", contents.comparison),
        "nervecord": metadata.version("nervecord"),
        "plotly": metadata.version("plotly"),
    }
    library, ours = get_plotlyjs(), (folder / "report.js").read_text(encoding="utf-8")
    return _template().render(
        page=page,
        style=_trusted((folder / "report.css").read_text(encoding="utf-8")),
        library=_trusted(library),
        script=_trusted(ours),
        script_hashes=_trusted(" ".join(_hash(text) for text in (library, ours))),
        charts=_trusted(_script_json(board.figures)),
    )


@functools.cache
def _template() -> Any:
    """The page's template, compiled once for all pages."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "percent": percent,
        "energy": _energy,
        "json": _json_text,
        "bound": bound_text,
        "trust": trust,
    }
    return environment.get_template("report.html.jinja")


def _trusted(text: str) -> Any:
    """Text of our own, or made safe by the one who made it, that the template does not escape."""
    from markupsafe import Markup

    return Markup(text)


def _hash(script: str) -> str:
    """What the page's policy knows a script by: no other one runs, wherever it came from."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _script_json(data: Any) -> str:
    """JSON that can stand in a script element: no word of it can end the element."""
    text = json.dumps(_finite(data), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(slots=True)
class _Board:
    """The charts of a page; each has a name that its element carries."""

    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, figure: Any) -> str:
        name = f"chart-{len(self.figures) + 1}"
        self.figures[name] = figure
        return name

    def add_chart(self, kind: str, *data: Any) -> str:
        from nervecord.runtime.report.html import charts

        return self.add(getattr(charts, kind)(*data))


def _subject(subject: Subject, board: _Board) -> dict[str, Any]:
    """A graph with its drawing and charts, and what each target says of it."""
    from nervecord.runtime.report.html import drawing

    graph = subject.inspection["graph"]
    targets = [_target(target, graph, board) for target in subject.inspection["targets"]]
    with_cores = next((t["raw"] for t in targets if (t["raw"]["resources"] or {}).get("cores") is not None), None)
    data: dict[str, Any] = {"label": subject.label, "graph": graph, "targets": targets, "program": subject.program}
    data["findings"] = _by_gravity(subject.inspection["findings"])
    data["drawing"], data["drawn_for"], data["histograms"], data["left_out"] = None, "", [], 0
    if graph is not None:
        placement = None if with_cores is None else with_cores["resources"]
        data["drawn_for"] = "" if with_cores is None else with_cores["title"]
        data["drawing"] = _trusted(_inline(drawing.draw_svg(graph, placement, title=data["drawn_for"])))
        cores = drawing.cores_of(graph, placement)
        weighted = [node for node in graph["nodes"] if (node["weights"] or {}).get("counts")]
        data["left_out"] = max(0, len(weighted) - MOST_HISTOGRAMS)
        for node in weighted[:MOST_HISTOGRAMS]:
            colour = cores[node["id"]].colour if node["id"] in cores else drawing.PALETTE[0]
            data["histograms"].append((node, board.add_chart("weights", node, colour)))
    data |= _lowering(subject.program, board)
    return data


def _lowering(program: Mapping[str, Any] | None, board: _Board) -> dict[str, Any]:
    """What compiling measured: per layer ranges and rounding, and the action's error."""
    lowering: Mapping[str, Any] = (program or {}).get("report", {}).get("lowering", {})
    layers = [_population(one) for one in lowering.get("populations") or ()]
    return {
        "lowering": lowering,
        "layers": layers,
        "ranges": board.add_chart("ranges", layers) if layers else None,
        "errors": board.add_chart("errors", layers) if layers else None,
    }


def _population(one: Mapping[str, Any]) -> dict[str, Any]:
    """A population's report with the rounding of its worst connection."""
    links = one["connections"]
    worst = {key: max(link[key] for link in links) for key in ("weight_error_rms", "weight_error_max")} if links else {}
    bits = sorted({link["weight_bits"] for link in links})
    none = {"weight_error_rms": None, "weight_error_max": None}
    return {**one, **none, **worst, "layer": one["population"], "weight_bits": ", ".join(map(str, bits)) or "-"}


def _target(target: Mapping[str, Any], graph: Mapping[str, Any] | None, board: _Board) -> dict[str, Any]:
    resources, limits = target["resources"], target["limits"]
    rows = []
    if resources is not None and resources["cores"] is not None:
        for layer in resources["layers"]:
            cells = []
            for name in PER_CORE:
                amount, limit = layer["per_core"].get(name), limits.get(name, {}).get("value")
                share = None if amount is None or not limit else amount / limit
                cells.append({"used": amount, "limit": limit, "share": share, "exceeded": name in layer["exceeded"]})
            rows.append((layer, cells))
    return {
        "raw": target,
        "findings": _by_gravity(target["findings"]),
        "counts": {s: sum(f["severity"] == s for f in target["findings"]) for s in GRAVEST_FIRST},
        "use": board.add_chart("use", resources, limits) if resources and resources["utilisation"] else None,
        "per_core": rows,
        "per_core_names": list(PER_CORE.values()),
        "limits": limits,
        "latency": _latency(target, graph),
    }


def _latency(target: Mapping[str, Any], graph: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Steps of an action, and how long one may take: what is known, with its source, and what is not."""
    if graph is None or graph["policy"] is None or target["events"] is None:
        return None
    policy, steps = graph["policy"], target["events"]["steps"]
    delay = target["limits"].get("connection_delay", {})
    return {
        "steps": steps,
        "held": policy["steps"],
        "period": policy["control_period"],
        "per_step": policy["control_period"] / steps,
        "source": delay.get("source", "the graph's own delays"),
    }


def _runs(contents: Contents, board: _Board) -> dict[str, Any]:
    if not contents.runs:
        return {}
    contracts = [
        subject.inspection["graph"] and subject.inspection["graph"]["contract"] for subject in contents.subjects
    ]
    contract = next((data for data in contracts if data), None)
    data: dict[str, Any] = {
        "returns": board.add_chart("returns", [(run.label, run.result) for run in contents.runs]),
        "activity": [],
    }
    for run in contents.runs:
        if run.activity is not None:
            data["activity"].append(_activity(run, run.activity, contract, board))
    return data


def _activity(
    run: Played, activity: Mapping[str, Any], contract: Mapping[str, Any] | None, board: _Board
) -> dict[str, Any]:
    from nervecord.runtime.report.html import charts
    from nervecord.runtime.report.html.drawing import PALETTE

    seconds = activity["seconds"]
    period = seconds / max(len(activity["actions"]), 1)
    channels = len(activity["actions"][0]) if activity["actions"] else 0
    names = contract["action"]["names"] if contract else [str(k) for k in range(channels)]
    choices = contract.get("choices", []) if contract else []
    raster = note = None
    if activity["layers"]:
        figure, note = charts.raster(activity["layers"], seconds)
        raster = board.add(figure)
    layers = [
        {
            "layer": layer["layer"],
            "silent": sum(rate == 0 for rate in layer["rates"]),
            "neurons": layer["neurons"],
            "mean": sum(layer["rates"]) / max(len(layer["rates"]), 1),
            "hertz": sum(layer["rates"]) / max(len(layer["rates"]), 1) * layer["steps"] / seconds,
            "chart": board.add(charts.rates(layer, seconds, PALETTE[k % len(PALETTE)])),
        }
        for k, layer in enumerate(activity["layers"])
    ]
    return {
        "label": run.label,
        "first": activity["first"],
        "seconds": seconds,
        "raster": raster,
        "note": note,
        "layers": layers,
        "actions": board.add(charts.actions(activity, names, choices, period)),
    }


def _by_gravity(findings: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(findings, key=lambda finding: GRAVEST_FIRST.index(finding["severity"]))


def _inline(svg: str) -> str:
    """An SVG document as an element of a page."""
    return svg[svg.index("<svg") :]


def number(value: float | int | str | None, digits: int = 4) -> str:
    """A number with thousands separated; words as they are; a dash where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float) and not value.is_integer():
        text = f"{value:,.{digits}g}" if abs(value) < 1000 else f"{value:,.1f}"
        return re.sub(r"e([+-])0*(\d)", r"e\1\2", text)
    return value if isinstance(value, str) else f"{int(value):,}" if math.isfinite(value) else str(value)


def percent(share: float | None, digits: int = 1) -> str:
    """A share in percent; very small ones are said to be under the smallest that is shown."""
    if share is None:
        return "-"
    smallest = 10.0 ** -(digits + 2)
    return f"under {smallest:.{digits}%}" if 0 < share < smallest / 2 else f"{share:.{digits}%}"


def _energy(joules: float) -> str:
    from nervecord.compiler.check.cost import energy_text

    return energy_text(joules)


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
