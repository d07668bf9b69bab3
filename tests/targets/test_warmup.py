"""Warming up compiles all that an emulator needs, and what comes after finds it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nervecord.errors import NervecordError
from nervecord.targets.warmup import FORMS, warmup

ROOT = Path(__file__).parents[2]
OPENED = """
import nervecord
from emulated import observations_of, policy_of
from graphs import draw
from nervecord.runtime.engines.emulator import kernel
from nervecord.runtime.engines.emulator.session import Emulator, EmulatorSession

with nervecord.open({ant!r}) as session:
    session.step([0.0] * 27)
    session.trace()
for seed in range(12):
    case = draw(seed)
    Emulator(case.plan, 2, wide=seed % 2 == 1)
    policy = policy_of(case)
    if policy is not None:
        EmulatorSession(policy, 2, fuse=seed % 3 != 0).step(observations_of(policy, seed, 1, 2)[0])
stats = [function.stats for function in kernel.loop()]
print(sum(sum(it.cache_misses.values()) for it in stats), sum(sum(it.cache_hits.values()) for it in stats))
"""


@pytest.mark.slow
def test_every_form_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process some are loaded already: together with those they are all there are."""
    reports: list[tuple[int, int]] = []
    result = warmup(lambda done, total: reports.append((done, total)))
    assert reports == [(k + 1, len(FORMS)) for k in range(len(FORMS))]
    from nervecord.runtime.engines.emulator import jit, kernel

    loop = kernel.loop()
    assert [len(function.signatures) for function in (loop.act, loop.run)] == [2, 2]  # type: ignore[attr-defined]
    assert result.folder.is_dir()
    again = warmup()
    assert (again.compiled, again.found) == (0, 0), "what this call made or found, not what the process did"
    monkeypatch.setattr(jit, "_keeps", False)
    with pytest.raises(NervecordError, match=r"numba's cache: .*NUMBA_CACHE_DIR"):
        warmup()


@pytest.mark.slow
def test_what_is_opened_afterwards_compiles_nothing(tmp_path: Path) -> None:
    path = os.pathsep.join(filter(None, (str(ROOT / "tests"), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": path}

    def run(*words: str) -> str:
        process = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, env=environment, timeout=600, check=False
        )
        assert process.returncode == 0, process.stderr[-2000:]
        return process.stdout

    assert "there" not in run("-m", "nervecord", "warmup", "--quiet")
    assert "everything was there" in run("-m", "nervecord", "warmup", "--quiet")
    misses, hits = run("-c", OPENED.format(ant=str(ROOT / "zoo" / "ant-small" / "ant-small.nervecord"))).split()
    assert (misses, int(hits) > 4) == ("0", True)
