"""The benchmark of the target onnx runs, on little, and measures something."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from policies import random_policy

from nervecord.compiler.nir.file import write_nir

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("state", ["reset", "carried"])
def test_onnx_latency(
    state: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "onnx_latency", raising=False)
    import onnx_latency  # type: ignore[import-not-found]

    write_nir(random_policy(1, sizes=(5, 8, 2), state=state), tmp_path / "policy.nir")
    found = onnx_latency.main([str(tmp_path / "policy.nir"), "--rounds", "20"])
    assert set(found) == {
        "float, policy.onnx", "float, session", "float, definition", "integer, policy.onnx", "integer, session",
        "integer, emulator", "integer, definition",
    }  # fmt: skip
    assert all(value > 0 for value in found.values())
    assert "integer: " in capsys.readouterr().out
