"""What numba compiles runs whatever its cache is like: one warning, and what was damaged is there at the next start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys, warnings
if len(sys.argv) > 1:
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    from functions import double, twice
    results = [double(2), double(2.5), twice(3)]
print(results, [str(w.message).split(":")[0] for w in said])
"""
FUNCTIONS = """
from nervecord.runtime.engines.emulator.jit import Guarded

@Guarded
def double(x):
    return 2 * x

@Guarded
def twice(x):
    return x + x
"""
WHOLE = "[4, 5.0, 6] []"
ANEW = '[4, 5.0, 6] ["numba\'s cache was damaged and is made anew"]'
NONE = '[4, 5.0, 6] ["numba\'s cache cannot be used, each start compiles anew"]'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    return tmp_path


def output_of(home: Path, *words: str, cache: str = "", **environment: str) -> str:
    """What a start of its own prints."""
    env = {**os.environ, "NUMBA_CACHE_DIR": cache or str(home / "cache"), **environment}
    # Only that folder: as root every other one can be written.
    env["NUMBA_CACHE_LOCATOR_CLASSES"] = "UserProvidedCacheLocator"
    env["PYTHONPATH"] = os.pathsep.join([str(home), env.get("PYTHONPATH", "")])
    process = subprocess.run(
        [sys.executable, "-B", "-c", CODE, *words], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout.strip()


def files(home: Path, ending: str) -> list[Path]:
    paths = sorted((home / "cache").rglob(f"*.{ending}"))
    assert paths
    return paths


@pytest.mark.long
@pytest.mark.parametrize("ending", ["nbi", pytest.param("nbc", marks=pytest.mark.slow)])
def test_a_damaged_file_is_made_anew_and_the_next_start_has_it(home: Path, ending: str) -> None:
    assert output_of(home) == WHOLE
    for content in (b"", b"\x80\x05\x8c"):
        for path in files(home, ending):
            path.write_bytes(content or path.read_bytes()[: path.stat().st_size // 2])
        assert output_of(home) == ANEW
        assert output_of(home) == WHOLE
    assert all(path.stat().st_size > 100 for path in files(home, "nbc"))


@pytest.mark.long
def test_a_file_that_cannot_be_read_or_replaced(home: Path) -> None:
    assert output_of(home) == WHOLE
    for path in files(home, "nbi"):
        path.unlink()
        path.mkdir()
    assert output_of(home) == NONE


def test_no_folder_can_be_written(home: Path) -> None:
    assert output_of(home, cache="/proc/none", HOME="/proc") == NONE
    assert not (home / "cache").exists()


@pytest.mark.slow  # a file that cannot be replaced is the same to it
def test_a_full_disk(home: Path) -> None:
    assert output_of(home, "0") == NONE  # not even an index
    assert output_of(home, "1000") == NONE  # that, and nothing else
    assert output_of(home) == WHOLE
    assert output_of(home, "0") == WHOLE  # nothing has to be written


@pytest.mark.long
def test_an_error_of_the_call_is_no_damage(home: Path) -> None:
    """Nor is the cache thrown away for it."""
    assert output_of(home) == WHOLE
    before = [path.stat().st_mtime_ns for path in files(home, "nbi")]
    wrong = (
        "import warnings; from functions import double; from nervecord.runtime.engines.emulator import jit\n"
        "warnings.simplefilter('error')\n"
        "for given in ((1, 2), (None,)):\n"
        "    try:\n        double(*given)\n    except Exception as error:\n        print(type(error).__name__)\n"
        "print(jit.serves(), jit.keeps())\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(home / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join([str(home), environment.get("PYTHONPATH", "")])
    process = subprocess.run(
        [sys.executable, "-B", "-c", wrong], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == ["TypeError", "TypingError", "True", "True"]
    assert [path.stat().st_mtime_ns for path in files(home, "nbi")] == before
    assert output_of(home) == WHOLE
