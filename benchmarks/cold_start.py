"""From the start of Python to the first action, for each engine; and what an installation weighs.

    python benchmarks/cold_start.py [--starts 5] [--fresh] [--size] [--json FILE]

Each start is a process of its own that imports nervecord, opens zoo/ant-small and acts once: the time it takes itself,
and with the interpreter's start and end. With --fresh the emulator also starts with an empty cache of numba's, where it
compiles its loop (once; it takes half a minute or more), and once more after it. With --size a new environment is made
and the core alone is installed into it, with pip, and weighed: all of it, and its largest packages.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import engines
from measure import ZOO, keep, machine_line, parser, print_rows

ROOT = Path(__file__).parent.parent
START = """
import time
began = time.perf_counter()
import sys
import nervecord
imported = time.perf_counter()
with nervecord.open(sys.argv[1], engine=sys.argv[2] or None, trace=False) as session:
    opened = time.perf_counter()
    session.step([0.0] * session.contract.observation.size)
    acted = time.perf_counter()
    print(imported - began, opened - imported, acted - opened, int("numba" in sys.modules))
"""


def started(program: Path, engine: str, environment: dict[str, str] | None = None) -> dict[str, float]:
    """Seconds of one start: import, open, first action, their sum, and of the whole process; and whether numba came."""
    began = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", START, str(program), engine],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **(environment or {})},
    )
    whole = time.perf_counter() - began
    imported, opened, acted, numba = map(float, process.stdout.split())
    return {
        "import": imported,
        "open": opened,
        "act": acted,
        "sum": imported + opened + acted,
        "process": whole,
        "numba": numba,
    }


def weighed(folder: Path) -> dict[str, int]:
    """Bytes of each package of an environment, of everything in "all"."""
    sizes: dict[str, int] = {"all": 0}
    (site,) = folder.glob("lib/python*/site-packages")
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            size = path.stat().st_size
            sizes["all"] += size
            if path.is_relative_to(site):
                top = path.relative_to(site).parts[0].removesuffix(".libs").partition("-")[0]
                sizes[top] = sizes.get(top, 0) + size
    return sizes


def installed_size() -> dict[str, int]:
    """The same of a new environment with the core alone, without pip itself."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "core"
        venv.create(folder, with_pip=True)
        python = folder / "bin" / "python"
        # Of a copy: building leaves files behind.
        left_out = shutil.ignore_patterns(".*", "build", "runs", "demo", "zoo", "tests", "*.egg-info")
        copy = shutil.copytree(ROOT, Path(name) / "source", ignore=left_out)
        words = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(copy)]
        subprocess.run(words, check=True)
        subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "pip"], check=True)
        return weighed(folder)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure and print; returns engine -> medians."""
    flags = parser(__doc__)
    flags.add_argument("--starts", type=int, default=5, help="of each engine; the median is shown")
    flags.add_argument("--fresh", action="store_true", help="also with an empty cache of numba's")
    flags.add_argument("--size", action="store_true", help="also weigh the core installation")
    options = flags.parse_args(arguments)
    program = ZOO / "ant-small" / "ant-small.nervecord"
    print(machine_line())
    names = ["definition", "emulator"]
    names += ["c"] if engines.has_compiler() else []
    names += ["torch"] if engines.has("torch") else []
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        ways = {name: (program, name, None) for name in names}
        if engines.has("onnx", "onnxruntime"):
            import nervecord

            exact = Path(folder) / "onnx.nervecord"
            nervecord.compile(program, "onnx").save(exact)
            ways["onnxruntime"] = (exact, "onnxruntime", None)
        for way in ways.values():
            started(*way)  # files are in memory, and numba's cache is made
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for _ in range(options.starts):
            for name, way in ways.items():
                runs[name].append(started(*way))
        if options.fresh:
            fresh = {"NUMBA_CACHE_DIR": str(Path(folder) / "cache")}
            runs["emulator, no cache"] = [started(program, "emulator", fresh)]
            runs["emulator, after it"] = [started(program, "emulator", fresh)]
        for name, rows in runs.items():
            results[name] = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    print_rows(
        ["seconds", "import", "open", "first action", "sum", "process", "numba"],
        [
            [
                name,
                *(f"{row[key]:.3f}" for key in ("import", "open", "act", "sum", "process")),
                "yes" if row["numba"] else "no",
            ]
            for name, row in results.items()
        ],
    )
    size = None
    if options.size:
        size = installed_size()
        largest = sorted(size.items(), key=lambda pair: -pair[1])[:9]
        print("core installation: " + ", ".join(f"{name} {value / 1e6:.0f} MB" for name, value in largest))
    keep(options.json, {"engines": results, "size": size})
    return results


if __name__ == "__main__":
    main()
