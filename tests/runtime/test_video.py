"""A video is written whole or not at all, though ffmpeg does not say that it could not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nervecord.errors import EngineError
from nervecord.runtime.report import video

pytest.importorskip("PIL")
imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")

FULL = """
import resource, sys
import numpy as np
from nervecord.errors import NervecordError
from nervecord.runtime.report.video import encode
draw = np.random.default_rng(0)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    encode(sys.argv[1], (draw.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(30)), 20.0, (64, 64))
except NervecordError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.long
@pytest.mark.parametrize("suffix", video.SUFFIXES)
def test_a_full_disk_leaves_the_old_video(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"film{suffix}"
    path.write_bytes(b"old")
    process = subprocess.run(
        [sys.executable, "-c", FULL, path.name], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert re.fullmatch(rf"NervecordError {path.name}: .*File too large\n", process.stdout), process.stderr
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


def test_frames_that_are_missing_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blank = np.zeros((64, 64, 3), dtype=np.uint8)
    path = tmp_path / "film.mp4"
    video.encode(path, iter([blank] * 5), 20.0, (64, 64))
    assert imageio_ffmpeg.count_frames_and_secs(str(path))[0] == 5
    before = path.read_bytes()
    monkeypatch.setattr(imageio_ffmpeg, "count_frames_and_secs", lambda name: (4, 0.2))
    with pytest.raises(EngineError, match="4 of 5 frames"):
        video.encode(path, iter([blank] * 5), 20.0, (64, 64))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["film.mp4"]
