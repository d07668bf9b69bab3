"""What each verb of the command line takes, started as a user starts it.

    python benchmarks/verbs.py [--runs 3] [--quick] [--only VERB ...] [--json FILE]

Each command is a process of its own, in an empty folder beside zoo/; its wall time, processor time and greatest memory
are those of the process and its children. The verbs take turns, and of several runs the median is shown. --quick leaves
out what trains.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import ZOO, keep, machine_line, parser, print_rows

POLICY, PROGRAM = "zoo/ant-small/policy.nir", "zoo/ant-small/ant-small.nervecord"
VERBS = {
    "--version": "",
    "doctor": "",
    "targets": "",
    "warmup": "",
    "contract": "--env Ant-v4 -o NEW.toml",
    "inspect": f"{POLICY} --target lava",
    "compile": f"{POLICY} --target lava -o NEW.nervecord",
    "compile, C": f"{POLICY} --target c -o NEW/",
    "compile, ONNX": f"{POLICY} --target onnx -o NEW/",
    "simulate": f"{POLICY} --input observations.npy -o NEW.npz",
    "run": f"{PROGRAM} --episodes 10 --num-envs 10",
    "run, one robot": f"{PROGRAM} --episodes 1",
    "compare": f"{POLICY} {PROGRAM}",
    "train": "--env CartPole-v1 --steps 20000 --name NEW",
    "distill": "zoo/ant-teacher-3 --steps 10000 --test-episodes 0 --name NEW",
    "sweep": "small.toml --out NEW",
    "demo": "--steps 20000 --episodes 2 --out NEW",
}
"""Verb -> its arguments; NEW is a name of its own for each run."""
TRAINS = ("train", "distill", "sweep", "demo")
STUDY = """[study]
name = "small"
[base]
env = "CartPole-v1"
steps = 5000
test_episodes = 5
[grid]
layers = [[8]]
seeds = [0, 1]
"""


def timed(words: list[str], folder: Path) -> dict[str, float]:
    """Seconds of wall and processor, and MB, of one command."""
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "nervecord", *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        message = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"nervecord {' '.join(words)}: exit {process.returncode}\n{message.decode()}")
    return {
        "wall": time.perf_counter() - began,
        "processor": usage.ru_utime + usage.ru_stime,
        "memory": usage.ru_maxrss / 1024,
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure and print; returns verb -> medians."""
    flags = parser(__doc__)
    flags.add_argument("--runs", type=int, default=3, help="of each verb; the median is shown")
    flags.add_argument("--quick", action="store_true", help="leave out what trains")
    flags.add_argument("--only", nargs="+", choices=tuple(VERBS), default=list(VERBS), metavar="VERB")
    options = flags.parse_args(arguments)
    print(machine_line())
    results: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "zoo").symlink_to(ZOO)
        (folder / "small.toml").write_text(STUDY)
        np.save(folder / "observations.npy", np.random.default_rng(0).normal(size=(500, 27)))
        for number in range(options.runs):
            for place, (verb, words) in enumerate(VERBS.items()):
                if verb not in options.only or (options.quick and verb in TRAINS):
                    continue
                command = words.replace("NEW", f"new{place}-{number}").split()
                results.setdefault(verb, []).append(timed([verb.partition(",")[0], *command], folder))
    medians = {
        verb: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for verb, runs in results.items()
    }
    print_rows(
        ["verb", "wall s", "processor s", "MB", "arguments"],
        [
            [verb, f"{row['wall']:.2f}", f"{row['processor']:.2f}", f"{row['memory']:.0f}", VERBS[verb]]
            for verb, row in medians.items()
        ],
    )
    keep(options.json, {"verbs": medians, "arguments": VERBS, "runs": options.runs})
    return medians


if __name__ == "__main__":
    main()
