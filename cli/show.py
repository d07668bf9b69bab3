"""Text for people: results as aligned columns, progress as a bar or as plain lines.

Results go to stdout without colours, so that they can be piped and pasted; progress goes to stderr, as a bar where that
is a terminal.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from nervecord.errors import escaped

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nervecord.compiler.files.program import Program
    from nervecord.compiler.target.options import Option
    from nervecord.compiler.target.protocol import TargetSpec
    from nervecord.runtime.measure.compare import Comparison, Difference
    from nervecord.runtime.measure.neurobench import NeuroBench
    from nervecord.runtime.result import Result

LINE_WIDTH = 110
"""Of a result that goes to no terminal, letters."""
SATURATES = "membrane-saturates"
"""Code of a finding."""
LINE_SECONDS = 10.0
"""Between two lines of progress where stderr is no terminal."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a verb came to: `data` for --json, `text` (or what rich lays out) for people, the exit code.

    Of several processes that came to the same only the first says it, the others are `silent`. What is drawn from a
    result comes `after` it was printed, so that no picture that fails takes it away: each call returns a line for
    stderr.
    """

    data: dict[str, Any]
    text: str | RenderableType
    code: int = 0
    silent: bool = False
    after: Sequence[Callable[[], str]] = ()


def clean(text: str) -> str:
    """A file's own words, with nothing in them that a terminal would obey."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def laid_out(text: str | RenderableType) -> str:
    """A result for people as it is printed: text as it is, what rich lays out to the terminal's width."""
    if isinstance(text, str):
        return escaped(text)  # it may quote the name of a file
    from rich.console import Console

    # What rich captures it also writes to the real stdout, which may be full; so it is told of another one, and of
    # the width and colours of the real one. Where there is no terminal that has a width, lines stay readable ones.
    real: Any = Console()  # rich names its colour systems by literals in one place and by texts in another
    width = real.width if sys.stdout.isatty() or os.environ.get("COLUMNS") else LINE_WIDTH
    page = io.StringIO()
    console = Console(
        file=page,
        width=width,
        force_terminal=real.is_terminal,
        no_color=real.no_color,
        color_system=real.color_system,
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.print(text)
    # Columns are filled up with blanks, which nobody wants in a file.
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


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


def columns(rows: Sequence[Sequence[str]], *, indent: int = 2, right: Sequence[int] = ()) -> str:
    """Rows of text, aligned; `right` are the columns of numbers. The first row may be a heading."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(w) if k in right else cell.ljust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((" " * indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def number(value: float | None, digits: int = 1) -> str:
    """A number with thousands separated; a dash where there is none."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.{digits}f}"


def interval(mean: float, half: float) -> str:
    """A mean with the half width of its 95 % interval."""
    return f"{mean:,.0f}" if math.isnan(half) else f"{mean:,.0f} ± {half:,.0f}"


def program_text(program: Program, path: str | None, needed: Sequence[tuple[str, str]] = ()) -> str:
    """What compiling did. needed: what the program takes on its target, in place of cores and memory."""
    report = program.report
    placement, lowering = report["placement"], report["lowering"]
    cores, sources = placement["cores"], _sources(placement["confidence"])
    bits = placement["memory_bits"]
    saturating, others = _saturating((*lowering.get("findings", ()), *report["findings"]))
    warnings = sum(finding["severity"] == "warning" for finding in others) + bool(saturating)
    rows = [
        ["target", program.target],
        ["verdict", f"feasible, with {_warnings(warnings)}" if warnings else "feasible"],
        *(
            [list(row) for row in needed]
            or [
                ["cores", "-" if cores is None else f"{cores} (what a core holds: {sources})"],
                ["memory", "-" if bits is None else f"{bits / 8192:,.1f} KiB of synapses"],
            ]
        ),
        ["neurons", f"{placement['neurons']:,}, {placement['synapses']:,} synapses"],
    ]
    if path is not None:
        rows.insert(0, ["program", path])
    if "action_error_rms" in lowering:
        error = f"rms {lowering['action_error_rms']:.4f}, max {lowering['action_error_max']:.4f}"
        rows.append(["action error", f"{error} on {lowering['observations']:,} recorded observations"])
    if "choices_different" in lowering:
        margin = f", by a margin of at most {lowering['choice_margin_max']:.2g}" * bool(lowering["choices_different"])
        error = f"{lowering['choices_different']:,} of {lowering['observations']:,} recorded observations{margin}"
        rows.append(["choice differs", f"{error}; ties {lowering['choice_ties']:,}"])
    if "output_error_rms" in lowering:
        error = f"rms {lowering['output_error_rms']:.4g}, max {lowering['output_error_max']:.4g}"
        changed = f", {lowering['spikes_different']:,} spikes differ" * bool(lowering["spikes_different"])
        rows.append(["output error", f"{error} over {lowering['observations']:,} recorded steps{changed}"])
    if "clustered" in lowering:
        rows.append(["clustered decays", _clustered(lowering["clustered"])])
    if program.contract is None and lowering.get("latency"):
        rows.append(["latency", f"{_count(lowering['latency'], 'step')} from input to output"])
    if "certificate" in report:
        rows += certificate_rows(report["certificate"])
    text = columns(rows, indent=0)
    if lowering.get("populations"):
        text += "\n\n" + _populations_text(lowering["populations"])
    for sentence in program.allowances:
        text += f"\nallowed: {sentence}"
    for warning in lowering.get("warnings", ()):
        if not any(warning.startswith(f"{name}: may saturate") for name in saturating):
            text += f"\nwarning: {warning}"
    if saturating:
        text += f"\nwarning: {', '.join(saturating)} may saturate, as the target does it, bit for bit: nothing to do"
    for finding in report["findings"]:
        if finding["code"] == SATURATES:
            continue
        if finding["severity"] in ("warning", "unknown"):
            fix = f" ({finding['fix']})" if finding["fix"] else ""
            text += f"\n{finding['severity']}: {finding['node']}: {finding['message']}{fix}"
    return text


def _sources(confidence: str) -> str:
    return "the user's own numbers" if confidence == "given" else f"{confidence} sources"


def _saturating(findings: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[Mapping[str, Any]]]:
    """Populations whose membranes may saturate, each once; and all other findings."""
    names = dict.fromkeys(str(f["node"]) for f in findings if f["code"] == SATURATES and f["severity"] == "warning")
    return list(names), [f for f in findings if f["code"] != SATURATES or f["severity"] != "warning"]


def _clustered(clustered: Mapping[str, Any]) -> str:
    """What clustering of decays changed of the float network."""
    change = max(it["moved"] for it in clustered["populations"])
    text = f"moved by at most {change:.3g}"
    if "action_error_rms" in clustered:
        error = f"rms {clustered['action_error_rms']:.4g}, max {clustered['action_error_max']:.4g}"
        return f"{text}; float actions differ by {error}"
    if "output_error_rms" not in clustered:
        return f"{text}; without --calibration nothing says what that changes"
    spikes = f", {clustered['spikes_different']:,} spikes differ beside {clustered['spikes']:,}"
    changed = spikes if clustered["spikes"] else ""
    error = f"rms {clustered['output_error_rms']:.4g}, max {clustered['output_error_max']:.4g}"
    return f"{text}; float outputs differ by {error}{changed}"


def _count(count: int, of: str) -> str:
    return f"{count:,} {of}" if count == 1 else f"{count:,} {of}s"


def _warnings(count: int) -> str:
    return "a warning" if count == 1 else f"{count} warnings"


def _populations_text(populations: Sequence[Mapping[str, Any]]) -> str:
    """Ranges are proved for every input that the limits let through; errors are those of the worst link's rounding."""
    from nervecord.compiler.lower.reports import bound_text

    rows = [["neurons", "accumulator", "of", "membrane", "of", "threshold", "step", "weight error", "decay error"]]
    rows += [
        [
            str(one["population"]),
            f"{one['accumulator']:,.0f}",
            f"{one['accumulator_limit']:,.0f}",
            f"{bound_text(one['membrane_low'])}..{bound_text(one['membrane_high'])}",
            f"{one['membrane_limit']:,.0f}",
            "read" if one["threshold"] is None else f"{one['threshold']:,}",
            f"{one['unit']:.2g}",
            f"{max(link['weight_error_rms'] for link in one['connections']):.2%}",
            f"{one['decay_error']:.1g}",
        ]
        for one in populations
    ]
    return columns(rows, indent=0, right=range(1, 9))


def result_text(result: Result, target: str) -> str:
    """What a run measured."""
    latency, budget = result.latency_us, result.deadline_us
    rows = [
        ["policy", f"{target}, engine {result.engine}"],
        ["environment", f"{result.environment}, {_count(len(result.returns), 'episode')}, seed {result.seed}"],
        *([["wrappers", ", ".join(result.wrappers)]] if result.wrappers else []),
        ["return", f"{interval(result.mean, result.ci95)} ({_of(len(result.returns))})"],
        ["episode length", f"{number(float(result.lengths.mean()))} steps"],
        ["latency", f"median {latency['median']:,.0f} us, p99 {latency['p99']:,.0f} us, of {budget:,.0f} us"],
        ["spikes", f"{number(result.per_action['spikes'])} per action"],
        ["synaptic events", f"{number(result.per_action['synaptic_events'], 0)} per action"],
    ]
    if result.engine_error is not None:
        rows.append(["engine died", result.engine_error])
    if result.deadline_missed:
        rows.append(["deadline", f"missed {result.deadline_missed} times"])
    rows += [["fail-safe", f"{count} actions: {reason}"] for reason, count in sorted(result.fail_safe.items())]
    return columns(rows, indent=0)


def _of(episodes: int) -> str:
    return "mean with 95 % interval" if episodes > 1 else "one episode, so no interval"


def neurobench_text(metrics: NeuroBench) -> str:
    """NeuroBench's metrics, per action and per episode."""
    rows = [
        ["Footprint", f"{metrics.footprint:,} bytes"],
        ["ParameterCount", f"{metrics.parameter_count:,}"],
        ["ConnectionSparsity", f"{metrics.connection_sparsity:.4f}"],
        ["ActivationSparsity", f"{metrics.activation_sparsity:.4f}"],
        ["ModelExecutionRate", f"{metrics.execution_rate:g} Hz"],
    ]
    counts = [
        ("SynapticOperations, Dense", metrics.dense),
        ("SynapticOperations, Effective_MACs", metrics.effective_macs),
        ("SynapticOperations, Effective_ACs", metrics.effective_acs),
        ("MembraneUpdates", metrics.membrane_updates),
    ]
    table = [["NeuroBench", "per action", f"per episode ({metrics.actions:,} actions)"]]
    table += [[name, number(n), number(n * metrics.actions, 0)] for name, n in counts]
    return f"{columns(rows, indent=0)}\n{columns(table, indent=0, right=(1, 2))}"


def certificate_rows(certificate: Mapping[str, Any]) -> list[list[str]]:
    """What a certificate says, of `Certificate.to_dict`: (what, value)."""
    words = {
        "holds": f"holds: the loss is at most {certificate['tolerance']:.2%}",
        "fails": f"fails: the loss is above {certificate['tolerance']:.2%}",
        "open": f"open: {certificate['tolerance']:.2%} lies within the interval of the loss",
    }
    error = certificate["action_error"]
    apart = ", ".join(f"{name} {value:.4g}" for name, value in error.items())
    loss = f"{certificate['loss']:+.2%} ± {certificate['loss_ci95']:.2%}"
    return [
        ["certificate", words[certificate["verdict"]]],
        ["loss of return", f"{loss} (95 %, {certificate['pairs']} paired episodes)"],
        ["return, float", interval(certificate["return_float"], certificate["return_float_ci95"])],
        ["return, compiled", interval(certificate["return_compiled"], certificate["return_compiled_ci95"])],
        ["error of actions", f"{apart} on {certificate['observations']:,} recorded observations"],
        ["episodes", f"{certificate['environment']}, from seed {certificate['seed']} on"],
    ]


def robustness_text(results: Sequence[Mapping[str, Any]]) -> str:
    """Returns of both policies under perturbations, of `Perturbed.to_dict`."""
    rows = [["perturbation", "return, float", "compiled", "loss from compiling"]]
    rows += [
        [
            row["perturbation"],
            interval(row["return_float"], row["return_float_ci95"]),
            interval(row["return_compiled"], row["return_compiled_ci95"]),
            f"{row['loss']:+.1%} ± {row['loss_ci95']:.1%}",
        ]
        for row in results
    ]
    note = f"{results[0]['episodes']} paired episodes each, means with 95 % intervals"
    return f"\n{columns(rows, indent=0, right=(1, 2, 3))}\n{note}"


def robustness_rows(cases: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The same as lines of a certificate: (what, value)."""
    return [
        (
            f"return, {row['perturbation']}",
            f"float {interval(row['return_float'], row['return_float_ci95'])}, "
            f"compiled {interval(row['return_compiled'], row['return_compiled_ci95'])}, "
            f"loss {row['loss']:+.1%} ± {row['loss_ci95']:.1%}, {row['episodes']} paired episodes",
        )
        for row in cases
    ]


def comparison_text(comparison: Comparison, a: str, b: str) -> str:
    """Where two policies or two streams part."""
    c = comparison
    rows_of, values = ("steps", "outputs") if c.stream else ("observations", "actions")

    def place(first: Difference, *, layer: str = "") -> str:
        when = f"step {first.step}" if first.action is None else f"action {first.action}, step {first.step}"
        return f"{when}, {layer}neuron {first.neuron}"

    lines = [f"{a} ({c.a}) against {b} ({c.b}), {c.observations:,} {rows_of}, mode {c.mode}"]
    rows = [["layer", "compared", "different", "largest", "within epsilon of threshold", "first difference"]]
    for layer in c.layers:
        near = "-" if layer.near is None else f"{layer.near:,}"
        where = "-" if layer.first is None else place(layer.first)
        rows.append([layer.layer, f"{layer.compared:,}", f"{layer.different:,}", f"{layer.largest:.3g}", near, where])
    lines += [columns(rows, indent=0, right=(1, 2, 3, 4))]
    if c.alone:
        lines.append("on one side alone, and not compared: " + ", ".join(c.alone))
    different = f"{c.actions_different:,} of {c.observations:,} differ"
    size = "" if c.action_rms is None else f", rms {c.action_rms:.4g}, max {c.action_max:.4g}"
    lines.append(f"{values}: {different}{size}")
    if c.identical:
        lines.append("identical")
    elif c.first is not None:
        f = c.first
        lines.append(f"they part at {place(f, layer=f'layer {f.layer}, ')}: {f.a:g} against {f.b:g}")
    return "\n".join(lines)


def targets_text(targets: Sequence[tuple[TargetSpec, bool]]) -> str:
    """The targets there are: (spec, whether it compiles)."""
    rows = [["target", "what it does", "engines", "title"]]
    for spec, compiles in targets:
        does = "compile, run, inspect" if compiles else "inspect"
        rows.append([spec.name, does, ", ".join(spec.engines) or "-", spec.title])
    return columns(rows, indent=0)


def target_text(spec: TargetSpec, options: Sequence[Option]) -> str:
    """One target with its options, and every fact with its source."""
    engines = ", ".join(spec.engines) or "none, inspect only"
    lines = [f"{spec.name}: {spec.title}", spec.summary, f"engines: {engines}", f"arithmetic: {spec.arithmetic}", ""]
    if options:
        rows = [["option", "takes", "default", "what it is"]]
        rows += [[option.flag, option.allowed, str(option.default).lower(), option.about] for option in options]
        lines += [columns(rows, indent=0), ""]
    from nervecord.compiler.target.specfile import trust

    rows = [["fact", "value", "trust", "source"]]
    for name, _, fact in spec.facts():
        rows.append([name, str(fact), trust(fact.confidence), fact.source])
    return "\n".join(lines) + "\n" + columns(rows, indent=0)


class Ticker:
    """Progress on stderr: a bar where that is a terminal, else a line every few seconds. quiet: neither.

    Args:
        label: what is going on.
        unit: what is counted, in the plain lines.
    """

    def __init__(self, label: str, *, unit: str = "steps", quiet: bool = False) -> None:
        self.label, self.unit, self.quiet = label, unit, quiet
        self._bar: Any = None
        self._task: Any = None
        self._last = -math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the bar as it is and go on below it."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def show(self, done: int, total: int, *, note: str = "", seconds_left: float | None = None) -> None:
        """`done` of `total`; `note` is what has been measured so far."""
        if self.quiet:
            return
        remaining = "" if seconds_left is None else f"{_clock(seconds_left)} left"
        if sys.stderr.isatty():
            self._draw(done, total, note, remaining)
            return
        now = time.monotonic()
        if done < total and now - self._last < LINE_SECONDS:
            return
        self._last = now
        parts = [f"{done:,} of {total:,} {self.unit}", remaining, note]
        print(f"{self.label}: {', '.join(part for part in parts if part)}", file=sys.stderr, flush=True)

    def _draw(self, done: int, total: int, note: str, remaining: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                TextColumn("{task.percentage:>3.0f} %  {task.fields[left]}  {task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=total, left=remaining, note=note)
        self._bar.update(self._task, completed=done, total=total, left=remaining, note=note)


def _clock(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    whole = int(seconds + 0.5)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
