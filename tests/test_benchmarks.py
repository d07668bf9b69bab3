"""Every benchmark runs, on as little as it takes, and says what it measured. Those of Lava: tests/targets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks"
SHARED = {"measure", "engines", "report"}
"""No benchmarks: what they share, and what writes their document."""


def run(name: str, *words: object) -> str:
    """Its output; it must exit with 0."""
    process = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert process.returncode == 0, f"{process.stdout[-2000:]}\n{process.stderr[-2000:]}"
    return process.stdout


def slow(*values: object) -> object:
    """A case that takes more than ten seconds."""
    return pytest.param(*values, marks=pytest.mark.slow)


def test_each_has_a_test() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*bench*.py"))
    names = {path.stem for path in FOLDER.glob("*.py")} - SHARED
    assert len(names) > 10
    ways = ('"{}"', '"{}.py"', "import {} ")
    assert [name for name in sorted(names) if not any(way.format(name) in tests for way in ways)] == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "words", "text"),
    [
        (
            "c_conformance",
            ["--graphs", 2, "--policies", 2, "--damaged", 5, "--first", 11],
            "equal bit for bit: 2 graphs",
        ),
        (
            "c_conformance",
            ["--sanitize", "--graphs", 20, "--policies", 5, "--damaged", 50],
            "sanitizers report nothing: 20",
        ),
        ("c_cortex", ["--steps", 3, str(ROOT / "zoo" / "cartpole" / "policy.nir")], ""),
        ("choices", ["--integers", 3, "--floats", 3, "--c-every", 2], "floats equal to the definition: 3 graphs"),
        slow("conformance", ["--graphs", 5, "--float-graphs", 3, "--first", 7], "equal to the definition: 5 graphs"),
        slow("fpga_conformance", ["--graphs", 1, "--first", 30], "equal to the definition: 1 graphs"),
        ("fpga_estimates", ["--estimate", "--only", "random 6-12-4"], "| random 6-12-4 | icebreaker | 1 | 2,"),
        slow("sigma_delta", ["--actions", 20, "--sizes", 4, 6, 2], "emulator equal to the definition: True"),
        ("snn_mlir", [], "snn-mlir"),
        slow("verbs", ["--runs", 1, "--only", "inspect", "compare"], "zoo/ant-small/policy.nir --target lava"),
    ],
)
def test_prints(name: str, words: list[object], text: str) -> None:
    if name in ("choices", "c_conformance", "c_cortex", "snn_mlir"):
        compilers()
    if name.startswith("fpga"):
        pytest.importorskip("amaranth")
    if name == "fpga_conformance" and shutil.which("verilator") is None:
        pytest.skip("no Verilator")
    if name == "choices":
        pytest.importorskip("torch")
        pytest.importorskip("onnxruntime")
    out = run(name, *words)
    assert text in out
    if name == "c_cortex" and "left out" not in out:
        assert "cartpole" in out
        assert "DIFFERS" not in out


def compilers() -> None:
    sys.path.insert(0, str(FOLDER))
    try:
        from engines import has_compiler  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(FOLDER))
    if not has_compiler():
        pytest.skip("no C compiler")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the benchmarks of the document wrote, on little."""
    pytest.importorskip("gymnasium")
    folder = tmp_path_factory.mktemp("bench")
    words = {
        "latency": ["--rounds", 1, "--seconds", 0.01, "--paced", 3, "--no-lava"],
        "scaling": ["--rounds", 1, "--seconds", 0.001, "--first", 2],
        "returns": ["--episodes", 2, "--lava-episodes", 0],
        "compile_cost": ["--synapses", 5e3, 1e4],
        "cold_start": ["--starts", 1],
    }
    for name, value in words.items():
        run(name, *value, "--json", folder / f"{name}.json")
    return folder


def loaded(results: Path, name: str) -> dict[str, object]:
    result: dict[str, object] = json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
    assert result["machine"]["versions"]["numpy"] == np.__version__  # type: ignore[index]
    return result


@pytest.mark.slow
def test_latency(results: Path) -> None:
    rows: dict[str, dict[str, dict[str, float]]] = loaded(results, "latency")["rows"]  # type: ignore[assignment]
    assert {"emulator", "definition", "float: definition"} <= set(rows)
    assert all(0 < row["full"]["median"] < 1e6 for row in rows.values())
    assert rows["definition"]["full"]["median"] > rows["emulator"]["full"]["median"]
    assert rows["emulator"]["paced"]["calls"] == 3
    differences: dict[str, float] = loaded(results, "latency")["differences"]  # type: ignore[assignment]
    if "snnTorch, eager" in differences:
        assert differences["snnTorch, eager"] < 1e-3, "the literal loop is another policy"


@pytest.mark.slow
def test_scaling(results: Path) -> None:
    sweeps: dict[str, dict[str, dict[str, list[float]]]] = loaded(results, "scaling")["sweeps"]  # type: ignore[assignment]
    assert set(sweeps) == {"batch", "neurons", "layers", "steps", "zeros"}
    assert all(len(row) == 2 and None not in row for row in sweeps["neurons"]["us"].values())
    assert all(us > 0 for sweep in sweeps.values() for row in sweep["us"].values() for us in row if us is not None)


@pytest.mark.slow
def test_returns(results: Path) -> None:
    engines: dict[str, dict[str, object]] = loaded(results, "returns")["engines"]  # type: ignore[assignment]
    assert {name: row["same"] for name, row in engines.items() if not name.startswith("float")} == {
        name: True for name in engines if not name.startswith("float")
    }
    assert len(engines["emulator"]["digests"]) == 2  # type: ignore[arg-type]
    assert engines["emulator"]["digests"] != engines["float: reference"]["digests"]


@pytest.mark.slow
def test_compiling_and_starting(results: Path) -> None:
    rows: list[dict[str, float]] = loaded(results, "compile_cost")["rows"]  # type: ignore[assignment]
    assert 9_000 < rows[1]["synapses"] < 11_000
    assert rows[1]["program_bytes"] > rows[0]["program_bytes"] > 4_000
    assert rows[1]["memory_mb"] >= rows[1]["before_mb"] > 10
    starts: dict[str, dict[str, float]] = loaded(results, "cold_start")["engines"]  # type: ignore[assignment]
    assert {name: row["numba"] for name, row in starts.items() if name in ("emulator", "definition", "c")} == {
        name: float(name == "emulator") for name in starts if name in ("emulator", "definition", "c")
    }
    assert starts["definition"]["process"] > starts["definition"]["sum"] > 0


@pytest.mark.slow
def test_the_document(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert "wrote" in run("report", results, "--out", tmp_path)
    text = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    for title in ("One action", "How it grows", "Returns", "Compiling", "Cold start"):
        assert f"\n## {title}\n" in text
    missing = "snn_mlir.py, verbs.py, c_cortex.py, fused_update.py, train_cost.py"
    assert f"Not measured in this run: {missing}." in text
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == ["benchmarks-compile.png", "benchmarks-latency.png", "benchmarks-scaling.png"]
    assert all(f"({name})" in text for name in pictures)


def test_the_document_that_is_kept_is_whole() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert text.startswith("# Benchmarks\n")
    assert "Not measured" not in text
    assert "DIFFER" not in text
