"""The Python API where people look at it: short texts of objects, tables in notebooks, drawings, two paths compared."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from policies import RECORDED, random_policy

import nervecord
from nervecord.errors import NervecordError


class _Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(html: str) -> _Cells:
    cells = _Cells()
    cells.feed(html)
    return cells


def test_texts_are_short_and_say_what_it_is(files: Path) -> None:
    graph = nervecord.read(files / "ant.nir")
    assert repr(graph) == "<Policy for Ant-v4, discrete, 8 nodes>"
    assert repr(random_policy().graph) == "<Graph discrete, 8 nodes, 7 edges>"
    assert repr(nervecord.load(files / "ant.nervecord")) == "<Program for lava, 9 nodes, policy for Ant-v4>"
    assert repr(nervecord.inspect(graph, ("lava", "xylo"))) == "<Report: lava feasible, xylo infeasible>"


def test_tables_for_notebooks(files: Path) -> None:
    graph = nervecord.read(files / "ant.nir")
    cells = read(graph._repr_html_())
    assert {"normalise", "Normalise", "27"} <= set(cells.words)
    assert {"lava", "Ant-v4"} <= set(read(nervecord.load(files / "ant.nervecord")._repr_html_()).words)
    report = read(nervecord.inspect(graph, ("lava", "loihi1"))._repr_html_())
    assert {"loihi1", "infeasible", "graded-input"} <= set(report.words)


def test_names_of_a_file_are_text_in_a_notebook() -> None:
    graph = random_policy().graph
    evil = {name: f"<script>{name}</script>" for name in graph.nodes}
    nodes = {evil[name]: node for name, node in graph.nodes.items()}
    graph = graph.replace(nodes=nodes, edges=tuple((evil[a], evil[b]) for a, b in graph.edges))
    cells = read(graph._repr_html_())
    assert "script" not in cells.tags
    assert "<script>fc1</script>" in cells.words


def test_the_interface_lists_itself_and_nothing_else() -> None:
    assert dir(nervecord) == sorted([*nervecord.__all__, "__version__"])


def test_two_paths_are_compared_as_in_the_shell(files: Path) -> None:
    comparison = nervecord.compare(files / "ant.nir", files / "ant.nervecord")
    assert comparison.observations == RECORDED
    rows = np.random.default_rng(5).normal(size=(10, 27))
    assert nervecord.compare(str(files / "ant.nir"), files / "ant.nervecord", files / "rows.npz").observations == 10
    with nervecord.open(files / "ant.nir") as a:
        mixed = nervecord.compare(a, nervecord.load(files / "ant.nervecord"), rows)
    assert mixed.to_dict() == nervecord.compare(files / "ant.nir", files / "ant.nervecord", rows).to_dict()
    with pytest.raises(NervecordError, match="none of these policies carries recorded ones"):
        nervecord.compare(files / "ant.nervecord", files / "ant.nervecord")


@pytest.mark.long
def test_pictures_videos_and_reports(files: Path, tmp_path: Path) -> None:
    for needed in ("mujoco", "matplotlib", "imageio_ffmpeg", "plotly", "jinja2", "networkx"):
        pytest.importorskip(needed)
    with nervecord.open(files / "ant.nervecord") as session:
        result = nervecord.run(session, episodes=1, record=True)
        nervecord.picture(tmp_path / "ant.png", session, result)
        how = nervecord.video(tmp_path / "ant.mp4", (session, result), seconds=0.2)
        bare = nervecord.run(session, episodes=1)
        with pytest.raises(NervecordError, match="recorded"):
            nervecord.picture(tmp_path / "b.png", session, bare)
    assert re.search(r" 0\.2 of|whole", how)
    nervecord.report(tmp_path / "ant.html", files / "ant.nervecord", results=[result], title="Ant & <chip>")
    assert "<title>Ant &amp; &lt;chip&gt;</title>" in (tmp_path / "ant.html").read_text(encoding="utf-8")
    assert (tmp_path / "ant.png").read_bytes().startswith(b"\x89PNG")
