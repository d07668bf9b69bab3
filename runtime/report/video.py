"""A video of recorded episodes: policies side by side, each with its spikes and its return so far.

Pillow puts the frames together and ffmpeg (by imageio-ffmpeg) encodes them. The answer says what made the pictures and
how much of the episode is shown.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from nervecord.compiler.files.scratch import scratch_folder
from nervecord.compiler.ops import Array
from nervecord.errors import EngineError, MissingDependencyError, NervecordError, escaped, install_command
from nervecord.runtime.report.frames import HEIGHT, WIDTH, Frames
from nervecord.runtime.report.picture import COLOURS, Drawn
from nervecord.runtime.result import Result
from nervecord.runtime.session import Session

SUFFIXES = (".mp4", ".mkv", ".webm", ".gif")
RASTER, CURVE = 150, 90
"""Heights of the strips below each picture, pixels."""
WINDOW = 3.0
"""Seconds of spikes that the raster shows, the newest at its right edge."""
INK, GREY, PAPER = (34, 38, 42), (140, 146, 152), (255, 255, 255)

MOST_LOST = 1 << 20
"""Bytes: a disk that takes as many was not what kept ffmpeg from writing."""

Progress: TypeAlias = Callable[[int, int], Any]


def require(path: str | os.PathLike[str]) -> None:
    """Refuse a video that could not be written, before the run and not after it: two frames are encoded to find out.

    Whether an environment can be filmed is `frames.require_frames`' to say.

    Raises:
        MissingDependencyError: imageio-ffmpeg or Pillow is not installed.
        NervecordError: the file's ending is no video format, or the folder cannot be written.
        EngineError: ffmpeg cannot encode it.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise NervecordError(
            f"ends in {suffix!r}, which is no video format", where=str(path), hint=f"one of: {', '.join(SUFFIXES)}"
        )
    try:
        import imageio_ffmpeg  # noqa: F401
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed", where="video", hint=install_command("video")
        ) from None
    try:
        with scratch_folder(Path(path).resolve().parent, hidden=True) as folder:
            blank = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
            encode(folder / f"try{suffix}", iter([blank, blank]), 20.0, (WIDTH, HEIGHT))
    except OSError as error:
        raise NervecordError(f"its folder cannot be written: {error.strerror}", where=str(path)) from None


def video(path: str | os.PathLike[str], *runs: tuple[Session, Result], seconds: float | None = None) -> str:
    """Film recorded runs side by side, with their spikes and returns. Needs the extra `video`.

    Args:
        path: .mp4, .mkv, .webm or .gif.
        runs: (session, result) of each policy; results of `run` with record=True.
        seconds: of the first episode, from its start; by default all of it.

    Returns:
        What made the pictures, and how much of the episode is shown.

    Raises:
        NervecordError: nothing was recorded, or the environment has no pictures.
    """
    length = math.inf if seconds is None else seconds
    views = [Drawn.of(session, session.engine, result, seconds=length, first=0) for session, result in runs]
    return write_video(path, views, seconds=seconds)


def write_video(
    path: str | os.PathLike[str],
    runs: Sequence[Drawn],
    *,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> str:
    """Write the recorded first episodes of runs in the same environment, side by side.

    Args:
        path: .mp4, .mkv, .webm or .gif; replaced if it exists.
        runs: each with its first episode recorded, and with its activity from the first action on, or None.
        seconds: of the episode that are shown, from its start; None: all of it.
        progress: called with frames done and of how many.

    Returns:
        "rendered by MuJoCo (egl); the whole episode, 50.0 s".

    Raises:
        NervecordError: nothing that can be shown was recorded, or the file cannot be written.
        EngineError: the renderer or ffmpeg died.
    """
    require(path)
    if not runs or any(run.result.recorded is None for run in runs):
        raise NervecordError("has no recorded episode", where="video", hint="run with record=True")
    period = runs[0].result.deadline_us * 1e-6
    most = None if seconds is None else max(2, round(seconds / period))
    views = [_View(run, colour, most) for run, colour in zip(runs, _colours(len(runs)), strict=True)]
    total = max(view.frames.count for view in views)
    size = (WIDTH * len(views), HEIGHT + RASTER + CURVE)
    encode(path, _composed(views, total, progress), 1 / period, size)
    longest = max(view.length for view in views)
    title = f"the first {total * period:.1f} of {longest * period:.1f} s"
    if total > longest:
        title = f"the whole episode, {longest * period:.1f} s"
    return f"{' / '.join(dict.fromkeys(view.frames.how for view in views))}; {title}"


def encode(path: str | os.PathLike[str], frames: Iterator[Array], rate: float, size: tuple[int, int]) -> None:
    """Write frames (height, width, 3) to a file beside `path`, look whether all of them are in it, and rename it.

    Raises:
        NervecordError: the disk takes no more, or the folder none at all.
        EngineError: ffmpeg did not write it.
    """
    target = Path(path)
    try:
        with scratch_folder(target.resolve().parent, hidden=True) as folder:
            file_path = folder / f"video{target.suffix}"
            _encode(file_path, frames, rate, size, escaped(os.fspath(path)))
            with file_path.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(file_path, target)
    except OSError as error:
        raise NervecordError(f"cannot be written: {error.strerror or error}", where=escaped(os.fspath(path))) from None


def _encode(file_path: Path, frames: Iterator[Array], rate: float, size: tuple[int, int], where: str) -> None:
    import imageio_ffmpeg

    writer = imageio_ffmpeg.write_frames(
        str(file_path), size, fps=rate, macro_block_size=1, ffmpeg_log_level="error", codec=_codec(file_path.suffix)
    )
    count = 0
    try:
        writer.send(None)
        for frame in frames:
            pixels = np.ascontiguousarray(frame)
            try:
                writer.send(pixels)
            except OSError as error:
                raise _failed(file_path.parent, str(error).splitlines()[0], where) from None
            count += 1
        writer.close()  # waits for ffmpeg
    finally:
        writer.close()
    # Of what it could not write, a full disk among it, ffmpeg tells nobody here.
    try:
        frames_written = imageio_ffmpeg.count_frames_and_secs(str(file_path))[0] if file_path.is_file() else 0
    except RuntimeError as error:
        lines = str(error).strip().splitlines() or ["it cannot be read"]
        raise _failed(file_path.parent, f"what it wrote is no video ({lines[-1]})", where) from None
    if frames_written != count:
        raise _failed(file_path.parent, f"{frames_written} of {count} frames are in what it wrote", where)


def _failed(folder: Path, reason: str, where: str) -> NervecordError:
    """Why ffmpeg did not write a video: the disk, which is found out by writing to it, or ffmpeg itself.

    Raises:
        OSError: the disk.
    """
    with (folder / "try").open("wb") as file:
        file.write(bytes(MOST_LOST))
        file.flush()
        os.fsync(file.fileno())
    return EngineError(f"ffmpeg did not write it: {reason}", where=where)


def _codec(suffix: str) -> str | None:
    return {".webm": "libvpx-vp9", ".gif": "gif"}.get(suffix.lower(), "libx264")


def _colours(count: int) -> list[tuple[int, int, int]]:
    colours = []
    for k in range(count):
        text = COLOURS[k % len(COLOURS)].lstrip("#")
        colours.append((int(text[0:2], 16), int(text[2:4], 16), int(text[4:6], 16)))
    return colours


class _View:
    """One policy's column: its picture, its spikes, its return."""

    def __init__(self, run: Drawn, colour: tuple[int, int, int], most: int | None) -> None:
        episode = run.result.recorded
        assert episode is not None
        self.run, self.colour = run, colour
        self.length = len(episode.actions)
        self.frames = Frames(
            run.result.environment, episode, run.result.choices, most or self.length + 1, run.result.wrappers
        )
        self.period = run.result.deadline_us * 1e-6
        self.returns = np.concatenate([[0.0], np.cumsum(episode.rewards)])
        self.strip = None if run.activity is None else _strip(run.activity.spikes, run.activity.seconds)
        self.curve: Array | None = None

    def below(self, k: int, low: float, high: float, span: int) -> Array:
        """The strips under frame k, (RASTER + CURVE, WIDTH, 3)."""
        if self.curve is None:
            self.curve = _curve(self.returns, low, high, span, self.colour)
        out = np.full((RASTER + CURVE, WIDTH, 3), 255, dtype=np.uint8)
        if self.strip is not None:
            end = round(min(k, self.length) * self.period / WINDOW * WIDTH)
            part = self.strip[:, max(0, end - WIDTH) : end]
            if part.shape[1]:
                out[:RASTER, WIDTH - part.shape[1] :] = part
        out[RASTER:] = self.curve
        now = min(WIDTH - 1, round(min(k, self.length) / max(span, 1) * (WIDTH - 1)))
        out[RASTER:, max(0, now - 1) : now + 1] = self.colour
        out[[0, RASTER]] = 223
        return out


def _composed(views: list[_View], total: int, progress: Progress | None) -> Iterator[Array]:
    low = min(float(view.returns[:total].min()) for view in views)
    high = max(float(view.returns[:total].max()) for view in views)
    sources = [iter(view.frames) for view in views]
    last: list[Array] = [np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)] * len(views)
    for k in range(total):
        columns = []
        for number, view in enumerate(views):
            # An episode that is over stays on its last picture.
            frame = next(sources[number], None)
            if frame is not None:
                last[number] = _fitted(frame)
            below = view.below(k, low, high, total - 1)
            columns.append(_labelled(np.concatenate([last[number], below]), view, k))
        yield np.concatenate(columns, axis=1)
        if progress is not None:
            progress(k + 1, total)


def _fitted(frame: Array) -> Array:
    """A picture of any size, scaled into WIDTH x HEIGHT with white at the sides."""
    if frame.shape == (HEIGHT, WIDTH, 3):
        return frame
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.pad(Image.fromarray(frame), (WIDTH, HEIGHT), color=PAPER))


def _labelled(column: Array, view: _View, k: int) -> Array:
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(column)
    pen = ImageDraw.Draw(image)
    step = min(k, view.length)
    over = "  (over)" if k > view.length else ""
    title = f"{_short(view.run.label)}    return {view.returns[step]:,.1f}    {step * view.period:.2f} s{over}"
    pen.rectangle((0, 0, WIDTH, 30), fill=PAPER)
    pen.rectangle((0, 0, 8, 30), fill=view.colour)
    pen.text((18, 6), title, fill=INK, font=ImageFont.load_default(16))
    small = ImageFont.load_default(12)
    spikes = f"spikes of the last {WINDOW:g} s" if view.strip is not None else "no spikes"
    pen.text((8, HEIGHT + 4), spikes, fill=GREY, font=small)
    pen.text((8, HEIGHT + RASTER + 4), "return so far", fill=GREY, font=small)
    return np.asarray(image)


def _short(label: str, length: int = 28) -> str:
    return label if len(label) <= length else "…" + label[-length + 1 :]


def _strip(spikes: dict[str, Array], seconds: float) -> Array | None:
    """All spikes as one long picture (RASTER, pixels, 3), dark where any neuron of a pixel fired in its time."""
    if not spikes:
        return None
    matrix = np.concatenate(list(spikes.values()), axis=1) != 0
    layer = np.concatenate([np.full(values.shape[1], k) for k, values in enumerate(spikes.values())])
    width = max(1, round(seconds / WINDOW * WIDTH))
    when = np.arange(width) * matrix.shape[0] // width
    rows = min(RASTER - 24, matrix.shape[1])
    who = np.arange(rows) * matrix.shape[1] // rows
    fired = np.maximum.reduceat(np.maximum.reduceat(matrix, when, axis=0), who, axis=1).T
    fired = fired[np.arange(RASTER - 24) * rows // (RASTER - 24)]
    dark = np.array(_colours(len(COLOURS)), dtype=np.uint8)
    colours = dark[layer[who] % len(dark)][np.arange(RASTER - 24) * rows // (RASTER - 24)]
    out = np.full((RASTER, width, 3), 255, dtype=np.uint8)
    out[22:-2] = np.where(fired[..., None], colours[:, None, :], 255)
    return out


def _curve(returns: Array, low: float, high: float, span: int, colour: tuple[int, int, int]) -> Array:
    """The return over the steps shown, (CURVE, WIDTH, 3), on the scale that all views share."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (WIDTH, CURVE), PAPER)
    height = max(high - low, 1e-9)
    visible = returns[: span + 1]
    points = [
        (k / max(span, 1) * (WIDTH - 1), CURVE - 6 - (float(value) - low) / height * (CURVE - 28))
        for k, value in enumerate(visible)
    ]
    if len(points) > 1:
        pale = tuple(round(255 - (255 - part) * 0.55) for part in colour)
        ImageDraw.Draw(image).line(points, fill=pale, width=2)
    return np.asarray(image)
