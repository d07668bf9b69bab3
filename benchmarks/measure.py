"""What the benchmarks share: times in turns and at a rate, the machine, tables, and files of results."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

ZOO = Path(__file__).parent.parent / "zoo"
PACKAGES = ("nervecord", "numpy", "numba", "torch", "snntorch", "onnx", "onnxruntime", "mujoco")
"""Whose versions a result names."""
FLOATS = ("float", "snnTorch")
"""How the names of engines that compute in floats begin."""

Call = Callable[[Any], object]
"""One action of an observation."""


def machine() -> dict[str, Any]:
    """Processor, cores, load and versions: what a figure is worth nothing without."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
        "versions": versions,
    }


def machine_line() -> str:
    """The same in a line."""
    info = machine()
    packages = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
    return f"{info['processor']}, {info['cores']} cores, load {info['load']}, Python {info['python']}, {packages}"


def in_turns(calls: Mapping[str, Call], rows: Sequence[Any], *, rounds: int, seconds: float) -> dict[str, Any]:
    """Times of single calls, in microseconds: name -> (calls,).

    The names take turns, so that a machine that others use as well is slow for all of them; each turn lasts about
    `seconds`, whatever a call takes.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            fed = itertools.cycle(rows)
            for row in itertools.islice(fed, 3):  # the caches hold what another one left
                call(row)
            until = time.perf_counter() + seconds
            while True:
                row = next(fed)
                began = time.perf_counter()
                call(row)
                ended = time.perf_counter()
                samples[name].append(ended - began)
                if ended > until:
                    break
    return {name: 1e6 * np.array(times) for name, times in samples.items()}


def at_rate(call: Call, rows: Sequence[Any], *, hertz: float, actions: int) -> Any:
    """Times of so many calls in microseconds, each at a tick of its own and asleep between: (actions,)."""
    call(rows[0])
    times = []
    start = time.perf_counter() + 1 / hertz
    for k, row in enumerate(itertools.islice(itertools.cycle(rows), actions)):
        time.sleep(max(0.0, start + k / hertz - time.perf_counter()))
        began = time.perf_counter()
        call(row)
        times.append(time.perf_counter() - began)
    return 1e6 * np.array(times)


def quantiles(times: Any) -> dict[str, float]:
    """Median and 99th percentile of times, and how many there are."""
    median, late = np.percentile(times, [50, 99])
    return {"median": float(median), "p99": float(late), "calls": len(times)}


def parser(about: str) -> argparse.ArgumentParser:
    """A benchmark's flags; all have --json."""
    flags = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--json", type=Path, metavar="FILE", help="also write the result to this file")
    return flags


def keep(path: Path | None, data: Mapping[str, Any]) -> None:
    """The result and the machine as a JSON file, where one is asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": machine(), **data}, indent=1) + "\n", encoding="utf-8")


def print_rows(head: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """A table whose first column is words."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    for line in lines:
        print(
            "  ".join(
                word.rjust(width) if k else word.ljust(width)
                for k, (word, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
        )


def value_text(value: float | None) -> str:
    """Microseconds with three figures."""
    if value is None:
        return "-"
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"
