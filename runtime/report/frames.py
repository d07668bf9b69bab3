"""The pictures of a recorded episode, one for each step: rendered by MuJoCo, by the environment itself, or drawn.

MuJoCo renders in a process of its own: it chooses its OpenGL when it is first imported, and a driver that fails takes
its process with it. Any other environment is asked for pictures itself, its episode played again from its seed and
actions.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from nervecord.compiler.ops import Array
from nervecord.errors import EngineError, MissingDependencyError, NervecordError
from nervecord.runtime.report.sketch import Camera, Robot, draw, floor
from nervecord.runtime.result import Episode
from nervecord.runtime.worker.environment import given_action, make_environment

WIDTH, HEIGHT = 640, 480
TIMEOUT = 60.0
"""Seconds a renderer gets for one frame, its start included."""


class Frames:
    """The pictures of one episode, (HEIGHT, WIDTH, 3) uint8 or of the environment's own size.

    Args:
        environment: Gymnasium id. episode: recorded in it. choices: of the contract.
        count: pictures wanted, at most one more than there are actions.
        wrappers: around the environment in which it was recorded.

    Attributes:
        how: what makes them, in words; settled when the first picture has been made.
    """

    def __init__(
        self, environment: str, episode: Episode, choices: tuple[str, ...], count: int, wrappers: tuple[str, ...] = ()
    ) -> None:
        self.environment, self.episode, self.choices, self.wrappers = environment, episode, choices, wrappers
        self.count = min(count, len(episode.actions) + 1)
        self.how = ""

    def __iter__(self) -> Iterator[Array]:
        positions = self.episode.positions
        if positions is None:
            self.how = "rendered by the environment"
            yield from self._replayed()
            return
        for backend in backends():
            child = _Renderer(self.environment, positions[: self.count], backend)
            with child:
                first = child.frame()
                if first is None:
                    continue
                self.how = f"rendered by MuJoCo ({backend})" if backend else "rendered by MuJoCo"
                yield first
                for k in range(1, self.count):
                    frame = child.frame()
                    if frame is None:
                        raise EngineError(f"the renderer ended at frame {k} of {self.count}", where="video")
                    yield frame
                return
        self.how = "drawn, as no OpenGL was found"
        yield from _drawn(self.environment, positions[: self.count])

    def _replayed(self) -> Iterator[Array]:
        env = make_environment(self.environment, self.wrappers, render_mode="rgb_array")
        try:
            env.reset(seed=self.episode.seed)
            yield _picture(env, self.environment)
            for k in range(self.count - 1):
                _, reward, *_ = env.step(given_action(self.episode.actions[k], self.choices))
                if not np.isclose(float(reward), self.episode.rewards[k], rtol=1e-6, atol=1e-9):
                    raise NervecordError(
                        f"played again from its seed and actions, the episode is another one at step {k + 1} "
                        f"(reward {float(reward):g}, was {self.episode.rewards[k]:g})",
                        where=self.environment,
                        hint="an environment can be filmed if all its chance comes from reset(seed=...)",
                    )
                yield _picture(env, self.environment)
        finally:
            env.close()


def require_frames(environment: str) -> None:
    """Refuse an environment of which no picture can be made, before a run.

    Raises:
        NervecordError: it has neither a MuJoCo robot nor the render mode rgb_array.
        MissingDependencyError: what renders it is not installed.
    """
    env = make_environment(environment)
    try:
        model = getattr(env.unwrapped, "model", None)
        modes = tuple(env.metadata.get("render_modes") or ())
        if model is not None and hasattr(getattr(env.unwrapped, "data", None), "qpos"):
            Robot(model)
            return
    finally:
        env.close()
    if "rgb_array" not in modes:
        has = f"has the render modes {', '.join(map(str, modes))}" if modes else "has no render mode"
        raise NervecordError(f"{has}, and a video needs rgb_array", where=environment)
    env = make_environment(environment, render_mode="rgb_array")
    try:
        env.reset(seed=0)
        _picture(env, environment)
    finally:
        env.close()


def _picture(env: Any, environment: str) -> Array:
    try:
        with warnings.catch_warnings():
            # A video has the control period's rate, whatever the task says of its own.
            warnings.filterwarnings("ignore", message=".*No render fps was declared.*")
            frame = env.render()
    except ImportError as error:  # gymnasium's DependencyNotInstalled is one in name only
        raise MissingDependencyError(f"cannot be rendered: {error}", where=environment) from None
    except Exception as error:
        if type(error).__name__ != "DependencyNotInstalled":
            raise
        raise MissingDependencyError(
            f"cannot be rendered: {error}", where=environment, hint="install what it names"
        ) from None
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3:
        raise NervecordError(
            f"its render() gave {type(frame).__name__}, an array (height, width, 3) is needed", where=environment
        )
    return np.asarray(frame, dtype=np.uint8)


def backends() -> tuple[str, ...]:
    """MuJoCo's ways to OpenGL, to be tried in this order."""
    chosen = os.environ.get("MUJOCO_GL")
    if chosen:
        return (chosen,)
    return ("egl", "osmesa") if sys.platform.startswith("linux") else ("",)


class _Renderer:
    """MuJoCo in a child with one OpenGL; frames come through a pipe. Also a context manager that ends it."""

    def __init__(self, environment: str, positions: Array, backend: str) -> None:
        header = f"{environment}\n{positions.shape[0]} {positions.shape[1]}\n".encode()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "nervecord.runtime.report.frames"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **({"MUJOCO_GL": backend} if backend else {})},
        )
        assert self._child.stdin is not None
        # A child that died already says so by giving no frame.
        with contextlib.suppress(BrokenPipeError), self._child.stdin as stdin:
            stdin.write(header + np.ascontiguousarray(positions, dtype=np.float64).tobytes())

    def frame(self) -> Array | None:
        """The next frame; None where the child ended, or took too long and was ended."""
        assert self._child.stdout is not None
        alarm = threading.Timer(TIMEOUT, self._child.kill)
        alarm.start()
        try:
            data = self._child.stdout.read(WIDTH * HEIGHT * 3)
        finally:
            alarm.cancel()
        if len(data) < WIDTH * HEIGHT * 3:
            return None
        return np.frombuffer(data, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)

    def __enter__(self) -> _Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._child.wait()


def _child() -> None:
    """The other side of `_Renderer`: header and positions on stdin, raw frames on what was stdout."""
    # What libraries print must not come between the frames.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    environment, shape = (sys.stdin.buffer.readline().decode().strip() for _ in range(2))
    rows, width = (int(part) for part in shape.split())
    positions = np.frombuffer(sys.stdin.buffer.read(), dtype=np.float64).reshape(rows, width)
    for frame in _rendered(environment, positions):
        out.write(frame.tobytes())
        out.flush()


def _rendered(environment: str, positions: Array) -> Iterator[Array]:
    import mujoco

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
    env.close()


def _drawn(environment: str, positions: Array) -> Iterator[Array]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    env = make_environment(environment)
    try:
        robot = Robot(env.unwrapped.model)
    finally:
        env.close()
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    for k in range(len(positions)):
        figure.clear()
        _draw_frame(figure, robot, positions, k)
        figure.text(0.97, 0.03, "drawn, not rendered", ha="right", fontsize=7, color="#8a9096")
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_frame(figure: Any, robot: Robot, positions: Array, k: int) -> None:
    axes = figure.add_axes((0, 0, 1, 1))
    # The camera follows the mean of a second, so that it does not shake with each step.
    near = robot.ground(positions[max(0, k - 10) : k + 11]).mean(axis=0)
    camera = Camera(np.array([near[0] + 1.2, near[1] - 4.2, 2.2]), np.array([near[0], near[1], 0.4]))
    floor(axes, camera, near, half=9.0)
    draw(axes, camera, robot.pose(positions[k]))
    axes.set_xlim(-0.42, 0.42)
    axes.set_ylim(-0.315, 0.315)
    axes.axis("off")


if __name__ == "__main__":
    _child()
