"""A video of a recorded episode: rendered by MuJoCo where there is OpenGL, else drawn.

Rendering happens in a process of its own: MuJoCo chooses its OpenGL when it is first imported, and a driver that fails
takes its process with it. The answer always says which of the two it was.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from nervecord.compiler.node import Array
from nervecord.errors import EngineError, MissingDependencyError, NervecordError, install_command
from nervecord.runtime.picture import robot_of
from nervecord.runtime.result import Result
from nervecord.runtime.sketch import Camera, Robot, draw, floor

WIDTH, HEIGHT = 640, 480
SUFFIXES = (".mp4", ".mkv", ".webm", ".gif")
SECONDS = 20.0
"""Of the episode are shown, from its start."""
TIMEOUT = 60.0
"""Seconds a renderer gets for one frame, its start included."""

Progress: TypeAlias = Callable[[int, int], Any]


def require(path: str | os.PathLike[str]) -> None:
    """Refuse a video that could not be written, before the run and not after it.

    Raises:
        MissingDependencyError: imageio-ffmpeg or matplotlib is not installed.
        NervecordError: the file's ending is no video format.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise NervecordError(
            f"ends in {suffix!r}, which is no video format", where=str(path), hint=f"one of: {', '.join(SUFFIXES)}"
        )
    try:
        import imageio_ffmpeg  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed", where="video", hint=install_command("video")
        ) from None


def write_video(path: str | os.PathLike[str], result: Result, *, progress: Progress | None = None) -> str:
    """Write the recorded episode of a run.

    Args:
        path: .mp4, .mkv, .webm or .gif; replaced if it exists.
        result: with its first episode recorded, in a MuJoCo environment.
        progress: called with frames done and of how many.

    Returns:
        "rendered by MuJoCo (egl)", or "drawn, as no OpenGL was found".

    Raises:
        NervecordError: nothing that can be shown was recorded, or the file cannot be written.
    """
    require(path)
    if result.recorded is None or result.recorded.positions is None:
        raise NervecordError(
            "no positions were recorded; only MuJoCo environments have them", where="video", hint="run with record=True"
        )
    period = result.deadline_us * 1e-6
    positions = result.recorded.positions[: max(2, round(SECONDS / period))]
    for backend in _backends():
        if _render(path, result.environment, positions, 1 / period, backend, progress):
            return f"rendered by MuJoCo ({backend})"
    _encode(path, _drawn(result.environment, positions, progress), 1 / period)
    return "drawn, as no OpenGL was found"


def _backends() -> tuple[str, ...]:
    chosen = os.environ.get("MUJOCO_GL")
    if chosen:
        return (chosen,)
    return ("egl", "osmesa") if sys.platform.startswith("linux") else ("",)


def _render(
    path: str | os.PathLike[str],
    environment: str,
    positions: Array,
    rate: float,
    backend: str,
    progress: Progress | None,
) -> bool:
    """Render in a child with this OpenGL; False where it has none that works."""
    header = f"{environment}\n{rate!r}\n{positions.shape[0]} {positions.shape[1]}\n".encode()
    child = subprocess.Popen(
        [sys.executable, "-m", "nervecord.runtime.video", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **({"MUJOCO_GL": backend} if backend else {})},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    alarm = threading.Timer(TIMEOUT, child.kill)
    alarm.start()
    try:
        with child.stdin as stdin:
            stdin.write(header + np.ascontiguousarray(positions, dtype=np.float64).tobytes())
        for done, _ in enumerate(child.stdout, start=1):
            alarm.cancel()
            alarm = threading.Timer(TIMEOUT, child.kill)
            alarm.start()
            if progress is not None:
                progress(done, len(positions))
        return child.wait() == 0
    except BrokenPipeError:
        return child.wait() == 0
    finally:
        alarm.cancel()
        child.kill()
        child.stdout.close()
        child.wait()


def _child(path: str) -> None:
    """The other side of `_render`: header and positions on stdin, the file written."""
    environment, rate, shape = (sys.stdin.buffer.readline().decode().strip() for _ in range(3))
    rows, width = (int(part) for part in shape.split())
    positions = np.frombuffer(sys.stdin.buffer.read(), dtype=np.float64).reshape(rows, width)
    _encode(path, _rendered(environment, positions), float(rate))


def _rendered(environment: str, positions: Array) -> Iterator[Array]:
    import mujoco

    from nervecord.runtime.environment import make_environment

    env = make_environment(environment)
    model = env.unwrapped.model
    data = mujoco.MjData(model)
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
    # The first body of the robot; the world is body 0.
    camera.trackbodyid, camera.distance, camera.elevation, camera.azimuth = 1, 5.0, -20.0, 110.0
    model.vis.quality.offsamples = 0
    with mujoco.Renderer(model, HEIGHT, WIDTH) as renderer:
        for row in positions:
            data.qpos[:] = row
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera)
            # Without a GPU shadows and mirrors take four fifths of the time.
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
            yield renderer.render()
            print("frame", flush=True)
    env.close()


def _drawn(environment: str, positions: Array, progress: Progress | None) -> Iterator[Array]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    robot = robot_of(environment)
    if robot is None:
        raise NervecordError("has no MuJoCo robot to draw", where=environment)
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    for k, row in enumerate(positions):
        figure.clear()
        _frame(figure, robot, positions, k)
        figure.text(
            0.97, 0.03, f"drawn, not rendered  {k + 1}/{len(positions)}", ha="right", fontsize=7, color="#8a9096"
        )
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()
        if progress is not None:
            progress(k + 1, len(positions))
        del row


def _frame(figure: Any, robot: Robot, positions: Array, k: int) -> None:
    axes = figure.add_axes((0, 0, 1, 1))
    # The camera follows the mean of a second, so that it does not shake with each step.
    near = positions[max(0, k - 10) : k + 11, :2].mean(axis=0)
    camera = Camera(np.array([near[0] + 1.2, near[1] - 4.2, 2.2]), np.array([near[0], near[1], 0.4]))
    floor(axes, camera, near, half=9.0)
    draw(axes, camera, robot.pose(positions[k]))
    axes.set_xlim(-0.42, 0.42)
    axes.set_ylim(-0.315, 0.315)
    axes.axis("off")


def _encode(path: str | os.PathLike[str], frames: Iterator[Array], rate: float) -> None:
    """Write frames to a temporary file beside `path` and rename it."""
    import imageio_ffmpeg

    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    writer = imageio_ffmpeg.write_frames(
        str(temporary), (WIDTH, HEIGHT), fps=rate, macro_block_size=1, ffmpeg_log_level="error"
    )
    try:
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
        os.replace(temporary, target)
    except OSError as error:
        raise EngineError(f"ffmpeg did not write it: {error}", where=str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    _child(sys.argv[1])
