"""Labels in the picture of a run: on the page, beside each other."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nervecord
from nervecord.runtime.report import frames, picture
from nervecord.runtime.report.sketch import Camera
from nervecord.training.settings.tasks import channels

pytest.importorskip("matplotlib")


@pytest.mark.parametrize("names", [tuple(channels("Humanoid-v4", 376, (-1,) * 17, (1,) * 17)[1].names), ("a", "bc")])
def test_names_of_actions_stay_on_the_page_and_apart(names: tuple[str, ...]) -> None:
    figure = picture.figure_type()(figsize=(12, 9.4), dpi=150)
    axes = figure.add_axes((0.06, 0.06, 0.5, 0.19))
    axes.set_ylim(len(names) - 0.5, -0.5)
    right = axes.get_position().x1
    picture._name_rows(axes, names)
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert min(box.x0 for box in boxes) > 0
    # A font's line is a little higher than its size.
    assert all(above.y0 + above.height / 4 >= below.y1 for above, below in itertools.pairwise(boxes))
    assert axes.get_position().x1 == pytest.approx(right)
    assert (axes.get_position().x0 > 0.06) == (len(names) == 17)


def test_a_second_and_nearly_one_are_one_second() -> None:
    assert [picture._seconds(seconds) for seconds in (1.0, 0.9999, 2.0, 1.99)] == [
        "one second",
        "one second",
        "two seconds",
        "1.99 seconds",
    ]


@pytest.mark.parametrize(
    ("name", "task", "words"),
    [
        ("halfcheetah", "HalfCheetah-v4", ("Vertical position", "z")),
        ("ant-small", "Ant-v4", ("Path seen from above", "y")),
    ],
)
def test_a_path_is_seen_from_where_the_robot_moves(
    name: str, task: str, words: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("mujoco")
    drawn: list[Any] = []
    monkeypatch.setattr(picture, "save_figure", lambda figure, path: drawn.append(figure))
    with nervecord.open(Path(__file__).parents[2] / "zoo" / name / f"{name}.nervecord") as session:
        result = nervecord.run(session, task, 1, 0, record=True)
        nervecord.picture(tmp_path / "run.png", session, result)
    assert result.recorded is not None
    assert result.recorded.positions is not None
    view, up = words
    (axes,) = [each for each in drawn[0].axes if each.get_title(loc="left") == f"{view}, same first episode"]
    assert axes.get_ylabel() == f"{up} (m)"
    (path, *_) = axes.lines
    assert path.get_ydata() == pytest.approx(result.recorded.positions[:, 1])
    (bar,) = [each for each in drawn[0].axes if each.get_label() == "<colorbar>"]
    (returns,) = [each for each in drawn[0].axes if each.get_title(loc="left").startswith("Return of")]
    ends, starts = ([label.get_window_extent() for label in each.get_yticklabels()] for each in (bar, returns))
    assert max(box.x1 for box in ends) < min(box.x0 for box in starts)


def test_a_videos_camera_stands_beside_a_planar_robot(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mujoco")
    robot = picture.robot_of("Walker2d-v4")
    assert robot is not None
    positions = np.zeros((30, 9))
    positions[:, :2] = 7.0, 1.25
    places: list[Any] = []
    monkeypatch.setattr(frames, "Camera", lambda *ends: places.append(np.concatenate(ends)) or Camera(*ends))
    frames._draw_frame(picture.figure_type()(figsize=(4, 3)), robot, positions, 15)
    assert places == [pytest.approx((8.2, -4.2, 2.2, 7.0, 0.0, 0.4))]
