"""One picture of a run: the robot walking, its path, its spikes, its actions and its returns.

Drawn with matplotlib from recorded episodes; neither OpenGL nor a screen is needed. `docs/ant.png` is made by it.
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nervecord.compiler.files.atomic import write_atomically
from nervecord.compiler.ops import Array
from nervecord.errors import MissingDependencyError, NervecordError, install_command
from nervecord.runtime.activity import SECONDS, Activity, replay_activity
from nervecord.runtime.report.sketch import Camera, Robot, beside, draw, floor
from nervecord.runtime.result import Episode, Result
from nervecord.runtime.session import Session
from nervecord.runtime.worker.environment import make_environment

COLOURS = ("#c8502a", "#3d6b9c", "#4c8c6b", "#8a5f9e")
"""One for each run, the first being the one the picture is about."""
SNAPSHOTS = 7
"""Poses of the walking robot side by side."""
WARM_UP = 5.0
"""Seconds at the start of an episode that the snapshots leave out (a third of a shorter one): the robot gets up."""
MOST_NAMES = 24
"""Of an action's values are written at the heat map; more would not be read."""
LEFT_EDGE = 0.008
"""Share of a picture's width that its text keeps free at the left."""
COLOUR_BAR = 0.014
"""Share of a picture's width that stays free beside the labels of the actions' colour bar."""
POINTS_PER_INCH = 72
SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True, slots=True)
class Drawn:
    """One run in the picture. label: for the legend. activity: of its recorded episode, or None."""

    label: str
    result: Result
    activity: Activity | None = None

    @classmethod
    def of(
        cls, session: Session, label: str, result: Result, *, seconds: float = SECONDS, first: int | None = None
    ) -> Drawn:
        """A run with what its neurons did in a part of its recorded episode; see `replay_activity`."""
        if result.recorded is None:
            raise NervecordError("has no recorded episode", where="picture", hint="run with record=True")
        return cls(label, result, replay_activity(session, result.recorded, seconds=seconds, first=first))


def require(path: str | os.PathLike[str]) -> None:
    """Refuse a picture that could not be written, before the run and not after it.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        NervecordError: the file's ending is no picture format.
    """
    figure_type()
    if Path(path).suffix.lower() not in SUFFIXES:
        raise NervecordError(
            f"ends in {Path(path).suffix!r}, which is no picture format",
            where=str(path),
            hint=f"one of: {', '.join(SUFFIXES)}",
        )


def picture(path: str | os.PathLike[str], session: Session, result: Result, *, label: str | None = None) -> None:
    """Draw a recorded run: the robot walking, its path, its spikes, its actions, its returns. Needs the extra `plot`.

    Args:
        path: .png, .svg or .pdf.
        session: over the policy that was run; it replays a second of the first episode.
        result: of `run` with record=True.
        label: of the policy in the picture, by default its engine.

    Raises:
        NervecordError: nothing was recorded, or the file cannot be written.
    """
    panel = Drawn.of(session, label or session.engine, result)
    subtitle = f"first of {len(result.returns)} episodes"
    draw_picture(path, [panel], title=f"{result.environment}: {panel.label}", subtitle=subtitle)


def draw_picture(path: str | os.PathLike[str], runs: Sequence[Drawn], *, title: str, subtitle: str = "") -> None:
    """Write the picture.

    Args:
        path: a file name; its ending says the format (.png, .svg, .pdf).
        runs: recorded runs in the same environment; the first one is drawn walking.
        title, subtitle: of the picture.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        NervecordError: nothing was recorded, or the file cannot be written.
    """
    episode = runs[0].result.recorded if runs else None
    if episode is None:
        raise NervecordError("has no recorded episode", where="picture", hint="run with record=True")
    figure = figure_type()(figsize=(12, 9.4), dpi=150, facecolor="white")
    figure.text(0.045, 0.962, title, fontsize=17, fontweight="bold", color="#22262a")
    figure.text(0.045, 0.936, subtitle, fontsize=10.5, color="#5b6268")
    period = runs[0].result.deadline_us * 1e-6
    robot, _ = drawable(runs[0].result)
    walking = robot is not None and (_walk if robot.travels else _stand)(figure, robot, episode, period)
    top = 0.535 if walking else 0.90
    rows = figure.add_gridspec(2, 12, left=0.06, right=0.975, top=top, bottom=0.06, hspace=0.52, wspace=2.2)
    with_paths = episode.positions is not None and episode.positions.shape[1] > 2 and (robot is None or robot.travels)
    if with_paths:
        _paths(figure.add_subplot(rows[0, :5]), runs, is_planar=robot is not None and not robot.is_free)
    _raster(figure.add_subplot(rows[0, 5 if with_paths else 0 :]), runs[0])
    _actions(figure.add_subplot(rows[1, :7]), episode, period, runs[0].result)
    returns = figure.add_subplot(rows[1, 7:])
    # Returns of five digits would come up to the labels of the colour bar.
    box = returns.get_position()
    returns.set_position((box.x0 + COLOUR_BAR, box.y0, box.width - COLOUR_BAR, box.height))
    _returns(returns, runs)
    _save(figure, path)


def figure_type() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError(
            "matplotlib is not installed", where="picture", hint=install_command("plot")
        ) from None
    return Figure


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    require(path)
    save_figure(figure, path)


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure of matplotlib; a full disk leaves the old file, and none that is empty.

    Raises:
        NervecordError: it cannot be written.
    """
    image = io.BytesIO()
    figure.savefig(image, format=Path(path).suffix.removeprefix(".").lower())
    write_atomically(path, image.getvalue())


def robot_of(environment: str) -> Robot | None:
    """The robot of a MuJoCo environment; None where the environment has no MuJoCo model."""
    env = make_environment(environment)
    try:
        model = getattr(env.unwrapped, "model", None)
        return Robot(model) if model is not None else None
    finally:
        env.close()


def drawable(result: Result) -> tuple[Robot | None, str]:
    """The robot of a recorded run; None where it cannot be drawn, and why."""
    if result.recorded is not None and result.recorded.positions is not None:
        try:
            robot = robot_of(result.environment)
        except NervecordError as error:
            return None, f"its model {error.message}"
        if robot is not None:
            return robot, ""
    return None, "the environment has no MuJoCo model"


def _stand(figure: Any, robot: Robot, episode: Episode, period: float) -> bool:
    """Snapshots of a robot that stays in its place, side by side."""
    assert episode.positions is not None
    moments = np.linspace(0, len(episode.positions) - 1, SNAPSHOTS).round().astype(int).tolist()
    poses = [robot.pose(episode.positions[k]) for k in moments]
    points = np.concatenate([[c.a, c.b] for pose in poses for c in pose])
    low, high = points.min(axis=0), points.max(axis=0)
    size = float((high - low).max()) + 2 * max(c.radius for pose in poses for c in pose)
    step = 1.25 * size
    poses = [
        [dataclasses.replace(c, a=c.a + [k * step, 0, 0], b=c.b + [k * step, 0, 0]) for c in pose]
        for k, pose in enumerate(poses)
    ]
    centre = (low + high) / 2 + np.array([step * (SNAPSHOTS - 1) / 2, 0, 0])
    axes = figure.add_axes((0.03, 0.575, 0.945, 0.345))
    # Far away, so that all are seen from nearly the same side.
    camera = Camera(centre + np.array([0.0, -6.0 * step * SNAPSHOTS / 4, 1.2 * size]), centre)
    for capsules in poses:
        draw(axes, camera, capsules)
    _frame(axes, camera, poses)
    for k, (moment, capsules) in enumerate(zip(moments, poses, strict=True)):
        ends = camera.project(np.array([end for c in capsules for end in (c.a, c.b)]))[0]
        middle = camera.project(np.array([centre + [(k - (SNAPSHOTS - 1) / 2) * step, 0, 0]]))[0][0, 0]
        axes.text(
            middle,
            float(ends[:, 1].min()) - 0.02,
            f"{moment * period:.2f} s",
            ha="center",
            va="top",
            fontsize=8.5,
            color="#5b6268",
            zorder=9,
        )
    return True


def _walk(figure: Any, robot: Robot, episode: Episode, period: float) -> bool:
    """Snapshots of a robot along its way over the ground."""
    assert episode.positions is not None
    length = len(episode.positions)
    places = robot.ground(episode.positions)
    moments = _moments(places, min(round(WARM_UP / period), length // 3))
    poses = [robot.pose(episode.positions[k]) for k in moments]
    path = places[moments[0] : moments[-1] + 1]
    axes = figure.add_axes((0.03, 0.575, 0.945, 0.345))
    span = max(float(np.linalg.norm(path[-1] - path[0])), 3.0)
    camera = beside(path, distance=span * 0.95 + 2.0, height=span * 0.28 + 1.2)
    floor(axes, camera, path.mean(axis=0), half=float(np.ceil(span * 0.8 + 3)))
    for index, capsules in enumerate(poses):
        draw(axes, camera, capsules, alpha=0.45 + 0.55 * (index / max(len(poses) - 1, 1)))
    _frame(axes, camera, poses)
    for index, (moment, capsules) in enumerate(zip(moments, poses, strict=True)):
        low = min(float(camera.project(np.stack([c.a, c.b]))[0][:, 1].min()) for c in capsules)
        middle = float(np.mean([camera.project(c.a[None])[0][0, 0] for c in capsules]))
        label = f"{(moment - moments[0]) * period:.2f} s" if index else "0 s"
        axes.text(middle, low - 0.022, label, ha="center", va="top", fontsize=8.5, color="#5b6268", zorder=9)
    return True


def _moments(path: Array, first: int, *, gap: float = 1.45) -> list[int]:
    """Steps at which the robot is about `gap` metres farther along; closer together where it walks slowly."""
    first = min(first, max(0, len(path) - 2))
    ahead = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path[first:], axis=0), axis=1))])
    gap = min(gap, float(ahead[-1]) / (SNAPSHOTS - 1))
    moments = [first + int(np.searchsorted(ahead, k * gap - 1e-9)) for k in range(SNAPSHOTS)]
    return sorted({min(m, len(path) - 1) for m in moments})


def _frame(axes: Any, camera: Any, poses: Sequence[Any]) -> None:
    points = np.concatenate([camera.project(np.stack([c.a, c.b]))[0] for pose in poses for c in pose])
    low, high = points.min(axis=0), points.max(axis=0)
    width = max(high[0] - low[0], 0.1) * 1.10
    height = max((high[1] - low[1]) * 1.5, width * 0.26)
    middle = (low + high) / 2
    axes.set_xlim(middle[0] - width / 2, middle[0] + width / 2)
    axes.set_ylim(middle[1] - height * 0.53, middle[1] + height * 0.47)
    axes.set_aspect("equal", adjustable="box")
    axes.axis("off")


def _style(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color="#22262a")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9aa1a7")
    axes.tick_params(labelsize=8.5, colors="#5b6268")
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_size(9)
        label.set_color("#5b6268")


def _paths(axes: Any, runs: Sequence[Drawn], *, is_planar: bool) -> None:
    for run, colour in reversed(list(zip(runs, COLOURS, strict=False))):
        episode = run.result.recorded
        if episode is None or episode.positions is None:
            continue
        x, y = episode.positions[:, 0], episode.positions[:, 1]
        axes.plot(x, y, color=colour, lw=1.6, label=run.label, solid_capstyle="round")
        axes.plot(x[-1], y[-1], "o", color=colour, ms=5)
    if not is_planar:  # Such a robot slides along x and up z, and moves much farther than it rises.
        axes.plot(0, 0, "o", ms=5, mfc="white", mec="#22262a")
        axes.set_aspect("equal", adjustable="datalim")
    axes.grid(color="#eceef0", lw=0.7)
    axes.set_xlabel("x (m)")
    axes.set_ylabel("z (m)" if is_planar else "y (m)")
    axes.legend(frameon=False, fontsize=8.5, loc="best")
    _style(axes, f"{'Vertical position' if is_planar else 'Path seen from above'}, same first episode")


def _raster(axes: Any, run: Drawn) -> None:
    spikes = None if run.activity is None else run.activity.raster
    if run.activity is None or spikes is None:
        axes.axis("off")
        axes.text(0.5, 0.5, "no spikes", ha="center", color="#5b6268", transform=axes.transAxes)
        return
    steps, count = spikes.shape
    when, who = np.nonzero(spikes)
    seconds = run.activity.seconds
    times = when / steps * seconds
    axes.scatter(times, who, s=2.6, marker="|", color=COLOURS[0], linewidths=0.8)
    axes.set_xlim(0, seconds)
    axes.set_ylim(-2, count + 1)
    axes.set_xlabel(f"time (s); {steps} core steps")
    axes.set_ylabel("hidden neuron")
    share = len(when) / max(spikes.size, 1)
    _style(axes, f"Spikes of {_seconds(seconds)} ({run.label}): {share:.1%} of neuron steps")


def _seconds(seconds: float) -> str:
    words = {"1": "one second", "2": "two seconds"}
    number = f"{seconds:.3g}"
    return words.get(number, f"{number} seconds")


def _actions(axes: Any, episode: Episode, period: float, result: Result) -> None:
    choices = result.choices
    count = min(len(episode.actions), round(2.0 / period))
    first = max(0, min(len(episode.actions) // 2, len(episode.actions) - count))
    part = episode.actions[first : first + count]
    axes.set_xlabel("time (s)")
    _style(axes, f"Actions of {_seconds(count * period)}")
    if choices:
        axes.step(np.arange(count) * period, part[:, 0], where="post", color=COLOURS[0], lw=1.2)
        axes.set_yticks(range(len(choices)), choices)
        return
    limit = max(float(np.abs(part).max()), 1e-9)
    image = axes.imshow(
        part.T,
        aspect="auto",
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        extent=(0, count * period, part.shape[1] - 0.5, -0.5),
    )
    names = result.channels
    if len(names) == part.shape[1] and len(names) <= MOST_NAMES:
        _name_rows(axes, [_short(name) for name in names])
    else:
        axes.set_ylabel("actuator")
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02, use_gridspec=False)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors="#5b6268", length=0)


def _name_rows(axes: Any, names: Sequence[str]) -> None:
    """Label the rows of an image, each label no higher than its row; the image gives way to long labels."""
    box, figure = axes.get_position(), axes.figure
    row = box.height * figure.get_figheight() * POINTS_PER_INCH / len(names)
    axes.set_yticks(range(len(names)), names, fontsize=min(8.5, row))
    outside = max(0.0, LEFT_EDGE - axes.get_tightbbox().x0 / figure.bbox.width)
    axes.set_position([box.x0 + outside, box.y0, box.width - outside, box.height])


def _short(name: str, length: int = 16) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _returns(axes: Any, runs: Sequence[Drawn]) -> None:
    spread = np.random.default_rng(0)
    for place, (run, colour) in enumerate(zip(runs, COLOURS, strict=False)):
        returns, mean, half = run.result.returns, run.result.mean, run.result.ci95
        axes.scatter(
            place + spread.uniform(-0.16, 0.16, len(returns)), returns, s=13, color=colour, alpha=0.45, linewidths=0
        )
        if np.isfinite(half):
            axes.errorbar(place + 0.3, mean, yerr=half, fmt="o", color=colour, capsize=4, ms=5, lw=1.6)
        text = f"{mean:.0f} ± {half:.0f}" if np.isfinite(half) else f"{mean:.0f}"
        axes.annotate(
            text, (place + 0.3, mean), xytext=(8, 0), textcoords="offset points", va="center", fontsize=9, color=colour
        )
    axes.set_xlim(-0.4, len(runs) - 0.1)
    axes.set_xticks(range(len(runs)), [run.label for run in runs])
    axes.grid(axis="y", color="#eceef0", lw=0.7)
    axes.set_axisbelow(True)
    _style(axes, f"Return of {len(runs[0].result.returns)} episodes, mean with 95 % interval")
