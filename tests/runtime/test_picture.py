"""Labels in the picture of a run: on the page, beside each other."""

from __future__ import annotations

import itertools

import pytest

from nervecord.runtime.report import picture
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
