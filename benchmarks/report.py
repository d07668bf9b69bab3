"""Writes docs/benchmarks.md and its pictures from what the benchmarks measured.

    python benchmarks/report.py build/bench [--out docs]

Takes the files that `latency.py`, `scaling.py`, `returns.py`, `compile_cost.py`, `cold_start.py`, `snn_mlir.py` and
`verbs.py` wrote with --json, under those names, and the outputs of `c_cortex.py`, `train_cost.py` and `fused_update.py`
as text. A section whose file is missing is left out, and said to be.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measure import FLOATS, value_text

STYLES = {
    "emulator": ("C0", "-"),
    "c": ("C1", "-"),
    "onnxruntime": ("C2", "-"),
    "torch": ("C3", "-"),
    "definition": ("C4", "-"),
    "float: torch": ("C3", "--"),
    "float: torch, float32": ("C3", ":"),
    "float: definition": ("C4", "--"),
    "ANN": ("0.5", "-"),
    "lava": ("C5", "-"),
}
"""Colour and line of an engine in every picture."""
AXES = {
    "batch": ("batch size", True),
    "neurons": ("neurons in one layer", True),
    "layers": ("layers of 256 neurons", False),
    "steps": ("steps per action, T", False),
    "zeros": ("share of weights that are zero, 512-512", False),
}


def us(value: float | None) -> str:
    """Microseconds with three figures; nothing where there are none."""
    return "" if value is None else value_text(value)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of Markdown."""
    names = list(head)
    lines = ["| " + " | ".join(row) + " |" for row in (names, ["---"] * len(names), *map(list, rows))]
    return "\n".join(lines)


def latency(data: dict[str, Any], out: Path) -> str:
    """One action in everything that runs it."""
    rows, base = data["rows"], data["rows"]["emulator"]["full"]["median"]
    order = sorted(rows, key=lambda name: rows[name]["full"]["median"])
    body = []
    for name in order:
        full, paced = rows[name]["full"], rows[name]["paced"] or {}
        body.append(
            [
                name,
                us(full["median"]),
                us(full["p99"]),
                f"{full['median'] / base:.2f}",
                us(paced.get("median")),
                us(paced.get("p99")),
            ]
        )
    integers = [name for name in data["differences"] if not name.startswith(FLOATS)]
    exact = all(data["differences"][name] == 0 for name in integers)
    gave = "gave the same actions, bit for bit, in this run" if exact else "DID NOT give the same actions in this run"
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for k, name in enumerate(reversed(order)):
        full, paced = rows[name]["full"], rows[name]["paced"]
        axes.plot([full["median"]], [k], "o", color="C0", label="as fast as it goes" if not k else None)
        if full["p99"] is not None:
            axes.plot([full["median"], full["p99"]], [k, k], "-", color="C0", linewidth=2, alpha=0.5)
        if paced is not None:
            label = f"at {data['hertz']:g} Hz" if k == len(order) - 1 or not k else None
            axes.plot([paced["median"]], [k - 0.25], "s", color="C1", label=label)
            axes.plot([paced["median"], paced["p99"]], [k - 0.25] * 2, "-", color="C1", linewidth=2, alpha=0.5)
    axes.set_yticks(range(len(order)), list(reversed(order)))
    axes.set_xscale("log")
    axes.set_xlabel("microseconds of an action: median, and the line to the 99th percentile")
    axes.axvline(50_000, color="0.6", linestyle=":")
    axes.text(50_000, len(order) - 0.6, "control period ", ha="right", color="0.4", fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(handles.values(), handles.keys(), loc="upper right", bbox_to_anchor=(1, 0.92))
    figure.savefig(out / "benchmarks-latency.png", dpi=110)
    return f"""## One action

zoo/ant-small (27-256-8, T = 5), one robot, one thread, by `benchmarks/latency.py`: microseconds of an action as fast as
it goes, the engines in turns, and at the real {data["hertz"]:g} Hz, asleep between two actions, where caches and clocks
are cold. Rows that begin with "float", the literal loop and the ANNs compute in floats, the others in Loihi 2's fixed
point, and those {gave}. "policy.c" and "policy.onnx" are the emitted files alone;
engines are our sessions, which also count spikes and check what they are given. "snnTorch, eager" is
the trained policy by snnTorch's own modules in a Python loop. An ANN is a tanh network of those layers, with
normaliser and limits.

{table(["us", "median", "p99", "x emulator", f"at {data['hertz']:g} Hz: median", "p99"], body)}

![time of an action](benchmarks-latency.png)"""


def scaling(data: dict[str, Any], out: Path) -> str:
    """Curves, and their numbers."""
    sweeps = data["sweeps"]
    figure = Figure(figsize=(11, 3.4 * ((len(sweeps) + 1) // 2)), layout="constrained")
    grid = figure.subplots((len(sweeps) + 1) // 2, 2, squeeze=False)
    for axes, (sweep, result) in zip(grid.flat, sweeps.items(), strict=False):
        _curves(axes, sweep, result)
    for axes in grid.flat[len(sweeps) :]:
        axes.axis("off")
    handles, labels = max((axes.get_legend_handles_labels() for axes in grid.flat), key=lambda pair: len(pair[0]))
    (grid.flat[-1] if len(sweeps) % 2 else grid.flat[0]).legend(handles, labels, loc="center", fontsize=9)
    figure.savefig(out / "benchmarks-scaling.png", dpi=100)
    parts = [
        f"""## How it grows

Random policies of 27 observations and 8 actions, by `benchmarks/scaling.py`, one thread; microseconds of an action,
median. Where a line does not change it, a policy has one layer of 256 neurons, T = 5, dense weights, and there is one
robot. "c" is the emitted file for one robot and the engine for more. Engine torch is on its device "{data["device"]}"
and takes tensors.

![time of an action against batch, neurons, layers, T and zeros](benchmarks-scaling.png)"""
    ]
    for sweep, result in sweeps.items():
        head = [AXES[sweep][0], *(f"{value:,g}" for value in result["values"])]
        rows = [[name, *map(us, row)] for name, row in result["us"].items()]
        rows.append(["spikes per action", *(f"{value:,.0f}" for value in result["spikes"])])
        parts.append(table(head, rows))
    return "\n\n".join(parts)


def _curves(axes: Axes, sweep: str, result: dict[str, Any]) -> None:
    label, logarithmic = AXES[sweep]
    for name, times in result["us"].items():
        points = [(x, y) for x, y in zip(result["values"], times, strict=True) if y is not None]
        colour, line = STYLES[name]
        axes.plot(*zip(*points, strict=True), line, color=colour, marker="o", markersize=3, label=name)
    axes.set_xlabel(label)
    axes.set_ylabel("us per action")
    axes.set_yscale("log")
    if logarithmic:
        axes.set_xscale("log", base=2)
    if sweep != "zeros":
        axes.set_xticks(result["values"], [f"{value:g}" for value in result["values"]])
    axes.grid(alpha=0.3)


def returns(data: dict[str, Any], out: Path) -> str:
    """Every engine on the same episodes."""
    rows = [
        [
            name,
            str(row["episodes"]),
            f"{row['mean']:,.1f}" + (f" ± {row['half']:,.1f}" if row["half"] else ""),
            f"{sum(row['lengths']):,}",
            {True: "the same bits", False: "DIFFER", None: ""}[row["same"]],
        ]
        for name, row in data["engines"].items()
    ]
    same = all(row["same"] in (True, None) for row in data["engines"].values())
    gave = "gave the same actions, bit for bit, in every episode" if same else "DID NOT give the same actions"
    return f"""## Returns

zoo/ant-small in {data["environment"]}, the same seeds, by `benchmarks/returns.py`: each engine in worlds of its own,
observations rounded to float32 for all, and actions too. Mean return with its 95 % interval. Integer engines
{gave}; floats part where a rounding flips a spike.

{table(["engine", "episodes", "return", "actions", "against the emulator"], rows)}"""


def compile_cost(data: dict[str, Any], out: Path) -> str:
    """Compiling by synapses."""

    def size(row: dict[str, float], key: str) -> str:
        return f"{row[key] / 1e6:,.2f} MB" if key in row else ""

    rows = [
        [
            f"{row['synapses']:,.0f}",
            f"{row['compile_s']:.2f} s",
            f"{row['memory_mb']:,.0f} MB",
            size(row, "program_bytes"),
            f"{row['open_s']:.2f} s",
            size(row, "c_bytes"),
            size(row, "onnx_bytes"),
        ]
        for row in data["rows"]
    ]
    head = ["synapses", "compile", "memory", "program", "open and act once", "C as text", "policy.onnx"]
    before = min(row["before_mb"] for row in data["rows"])
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    seconds, memory = figure.subplots(1, 2)
    xs = [row["synapses"] for row in data["rows"]]
    seconds.loglog(xs, [row["compile_s"] for row in data["rows"]], "o-", label="compile")
    seconds.loglog(xs, [row["open_s"] for row in data["rows"]], "s--", label="open and act once")
    seconds.set_ylabel("seconds")
    seconds.legend()
    memory.loglog(xs, [row["memory_mb"] for row in data["rows"]], "o-", label="largest resident size")
    memory.loglog(xs, [row["program_bytes"] / 1e6 for row in data["rows"]], "s--", label="program")
    memory.set_ylabel("MB")
    memory.legend()
    for axes in (seconds, memory):
        axes.set_xlabel("synapses")
        axes.grid(alpha=0.3)
    figure.savefig(out / "benchmarks-compile.png", dpi=100)
    return f"""## Compiling

Two equal hidden layers, for the target lava, each size in a process of its own, by `benchmarks/compile_cost.py`.
Memory is the process's largest resident size, {before:,.0f} MB of it Python and the imports.

{table(head, rows)}

![seconds and memory against synapses](benchmarks-compile.png)"""


def cold_start(data: dict[str, Any], out: Path) -> str:
    """Starts and sizes."""
    rows = [
        [
            name,
            *(f"{row[key]:.2f}" for key in ("import", "open", "act", "sum", "process")),
            "yes" if row["numba"] else "no",
        ]
        for name, row in data["engines"].items()
    ]
    text = f"""## Cold start

From `import nervecord` to the first action of zoo/ant-small, median of several starts, each a process, by
`benchmarks/cold_start.py`, in seconds; "process" is the whole of it, interpreter included. "no cache" is the
emulator's first start on a machine, which compiles its loop: `nervecord warmup` does that beforehand, and "after it"
is the next start.

{table(["s", "import", "open", "first action", "sum", "process", "loads numba"], rows)}"""
    if data["size"]:
        largest = sorted(data["size"].items(), key=lambda pair: -pair[1])[1:7]
        sizes = ", ".join(f"{name} {value / 1e6:.0f} MB" for name, value in largest)
        numba = sum(value for name, value in data["size"].items() if name in ("numba", "llvmlite"))
        text += f"""

The core installation weighs {data["size"]["all"] / 1e6:,.0f} MB in a new environment: {sizes}. Without numba and
llvmlite, which the emulator alone needs, it is {(data["size"]["all"] - numba) / 1e6:,.0f} MB, and the engines `c` and
`definition` run."""
    return text


def verbs(data: dict[str, Any], out: Path) -> str:
    """The command line."""
    rows = [
        [
            f"`nervecord {verb.partition(',')[0]} {data['arguments'][verb]}`".replace(" `", "`"),
            f"{row['wall']:.2f}",
            f"{row['processor']:.2f}",
            f"{row['memory']:,.0f}",
        ]
        for verb, row in data["verbs"].items()
    ]
    missing = [verb for verb in data["arguments"] if verb not in data["verbs"]]
    left_out = f" Left out: {', '.join(missing)}." if missing else ""
    return f"""## The command line

Each command a process of its own, median of {data["runs"]}, by `benchmarks/verbs.py`.{left_out}

{table(["", "seconds", "of a processor", "MB"], rows)}"""


def snn_mlir(data: dict[str, Any], out: Path) -> str:
    """Beside snn-mlir."""
    text = f"## Beside snn-mlir\n\n{data['about']}"
    if data["rows"]:
        rows = [
            [
                row["name"],
                *(us(row[key]) if row.get(key) is not None else "" for key in ("median", "p99")),
                f"{row['code_bytes']:,}" if row.get("code_bytes") else "",
                row.get("note", ""),
            ]
            for row in data["rows"]
        ]
        text += "\n\n" + table(["", "us a step, median", "p99", "bytes of code and constants", ""], rows)
    return text


SECTIONS: dict[str, Callable[[dict[str, Any], Path], str]] = {
    "latency": latency,
    "scaling": scaling,
    "returns": returns,
    "compile_cost": compile_cost,
    "cold_start": cold_start,
    "snn_mlir": snn_mlir,
    "verbs": verbs,
}
TEXTS = {
    "c_cortex": "On a Cortex-M4 in QEMU",
    "fused_update": "The fused update in training",
    "train_cost": "What training costs",
}


def page(folder: Path, out: Path) -> str:
    """The document; pictures go to `out`."""
    parts, machines, missing = [], [], []
    for name, section in SECTIONS.items():
        path = folder / f"{name}.json"
        if not path.is_file():
            missing.append(f"{name}.py")
            continue
        data = json.loads(path.read_text(encoding="utf-8"))
        machines.append((name, data["machine"]))
        parts.append(section(data, out))
    for name, title in TEXTS.items():
        path = folder / f"{name}.txt"
        if path.is_file():
            parts.append(f"## {title}\n\nAs `benchmarks/{name}.py` prints it:\n\n```\n{path.read_text().rstrip()}\n```")
        else:
            missing.append(f"{name}.py")
    first = machines[0][1] if machines else {"processor": "?", "cores": 0, "system": "", "python": "", "versions": {}}
    loads = ", ".join(f"{info['load']} at {name}" for name, info in machines)
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    head = f"""# Benchmarks

Written by `make bench`, which measures everything again. Machine: {first["processor"]},
{first["cores"]} cores, {first["system"]}, Python {first["python"]}; {versions}. It was shared with other work while
this was measured (load average {loads}): trust the ratios within a table, not times between tables, and not the 99th
percentiles, which hold what the others did. No GPU was there: engine torch on CUDA is untested."""
    if missing:
        parts.append(f"Not measured in this run: {', '.join(missing)}.")
    return filled("\n\n".join([head, *parts])) + "\n"


def filled(text: str) -> str:
    """Paragraphs of prose in lines of 120 characters; tables, titles, pictures and code as they are."""
    paragraphs, code = [], False
    for part in text.split("\n\n"):
        prose = not code and not part.startswith(("|", "#", "!", "```"))
        paragraphs.append(textwrap.fill(part, 120, break_long_words=False, break_on_hyphens=False) if prose else part)
        code ^= part.count("```") % 2 == 1
    return "\n\n".join(paragraphs)


def main(arguments: list[str] | None = None) -> Path:
    """Write the page; returns its path."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("folder", type=Path, help="with what was measured")
    flags.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs")
    options = flags.parse_args(arguments)
    path: Path = options.out / "benchmarks.md"
    path.write_text(page(options.folder, options.out), encoding="utf-8")
    print(f"wrote {path}")
    return path


if __name__ == "__main__":
    main()
