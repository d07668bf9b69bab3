"""The benchmarks of engine lava still run: each as it is called, on as little as it takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.lava
@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("lava_conformance.py", ["--graphs", "2", "--first", "7"], "bit: 2 graphs"),
        ("latency.py", ["--rounds", "1", "--seconds", "0.01", "--paced", "2"], "bit: True"),
        ("returns.py", ["--episodes", "1", "--lava-episodes", "1"], "lava "),
        ("lava_faults.py", ["--runs", "1"], "left: 0 processes, 0 segments; deaths not reported: 0"),
    ],
)
def test_a_benchmark_runs(name: str, arguments: list[str], message: str) -> None:
    process = subprocess.run(
        [sys.executable, str(FOLDER / name), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert message in process.stdout
