"""Reports as pages: what they say, that nothing from a file becomes markup, and that a browser draws them quietly.

The pages are opened in a headless Chromium of the system's, where there is one.
"""

# ruff: noqa: E402 -- what a machine without the extra must not import comes after the question whether it is there
from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

for needed in ("plotly", "jinja2", "networkx", "matplotlib"):
    pytest.importorskip(needed, reason="the extra report is not installed")

from policies import random_policy

import nervecord
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.nir.file import read_nir
from nervecord.runtime.report.html import charts, layout, page
from nervecord.runtime.report.html.drawing import cores_of, draw_svg
from nervecord.runtime.report.html.layout import lay_out, to_dot

TOOLBAR = 30
"""Pixels that Plotly's toolbar is high, at most."""
PUBLISHED = Path(__file__).parents[1] / "data" / "nir"
HOSTILE = "</script><script>window.hacked = 1</script><img src='https://example.org/x' onerror='window.hacked = 2'>"


def facts(graph: Graph | Policy) -> dict[str, Any]:
    result = nervecord.inspect(graph, ()).to_dict()["graph"]
    assert result is not None
    return result


def braille() -> Graph:
    """A published graph with a loop."""
    return nervecord.read(PUBLISHED / "braille_noDelay_bias_zero.nir", dt=1e-4)


def hostile() -> Policy:
    """A policy every name of which would be markup."""
    policy = random_policy(sizes=(3, 4, 2))
    graph, contract = policy.graph, policy.contract
    names = {name: f"{k}{HOSTILE}" for k, name in enumerate(graph.nodes)}
    contract = dataclasses.replace(
        contract,
        environment=HOSTILE,
        action=dataclasses.replace(contract.action, names=(HOSTILE, "$x^2$")),
        provenance={HOSTILE: HOSTILE},
    )
    nodes = {names[name]: dataclasses.replace(op, origin=(names[name],)) for name, op in graph.nodes.items()}
    renamed = graph.replace(nodes=nodes, edges=tuple((names[a], names[b]) for a, b in graph.edges))
    return Policy(renamed, contract, policy.recorded)


def contents(kind: str) -> page.Contents:
    """What a report shows, of each kind that the verbs make."""
    if kind == "inspect":
        return page.Contents("policy", subjects=(subject(random_policy()),))
    if kind == "loop":
        return page.Contents("braille", subjects=(subject(braille()),))
    if kind == "continuous time":
        return page.Contents("lif", subjects=(subject(read_nir(PUBLISHED / "lif_norse.nir")),))
    if kind == "damaged":
        graph = random_policy().graph
        damaged = graph.replace(nodes={**graph.nodes, "fc1": dataclasses.replace(graph.nodes["fc1"], weight=[[1.0]])})
        return page.Contents("damaged", subjects=(subject(damaged),))
    if kind == "hostile":
        return page.Contents(HOSTILE, HOSTILE, ((HOSTILE, HOSTILE),), (subject(hostile(), HOSTILE),))
    program = nervecord.compile(random_policy(), "lava")
    compiled = page.Subject("ant", nervecord.inspect(program, ("lava",)).to_dict(), program.to_dict())
    if kind == "compile":
        return page.Contents("program", subjects=(compiled,))
    assert kind == "compare"
    graph = random_policy()
    rows = np.random.default_rng(0).normal(size=(20, 27))
    with nervecord.open(graph) as a, nervecord.open(program) as b:
        comparison = nervecord.compare(a, b, rows)
    return page.Contents("both", subjects=(subject(graph), compiled), comparison=comparison.to_dict())


KINDS = ("inspect", "loop", "continuous time", "damaged", "hostile", "compile", "compare")


def subject(graph: Graph | Policy, label: str = "a graph") -> page.Subject:
    return page.Subject(label, nervecord.inspect(graph).to_dict())


# --------------------------------------------------------------------------------------------------------------------
# What is in it


class _Reader(HTMLParser):
    """Elements and text of a page, as a browser's parser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._inside: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text.append(data)


def parsed(text: str) -> _Reader:
    from plotly.offline import get_plotlyjs

    reader = _Reader()
    # Plotly itself is five million letters of script.
    reader.feed(text.replace(get_plotlyjs(), ""))
    return reader


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_needs_nothing_else(kind: str) -> None:
    text = page.render(contents(kind))
    reader = parsed(text)
    scripts = [attributes for tag, attributes in reader.elements if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "figures"}, {}, {}]
    for tag, attributes in reader.elements:
        assert tag not in ("img", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href") and value:
                # References within the drawing, and the icon that keeps a browser from asking for one.
                assert value.startswith(("#", "data:,")), (tag, value)
    (policy,) = [a["content"] or "" for t, a in reader.elements if t == "meta" and "http-equiv" in a]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_contents_give_the_same_page(kind: str) -> None:
    assert page.render(contents(kind)) == page.render(contents(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_toolbars_appear_on_hover_above_the_plot(kind: str) -> None:
    """A browser's test looks where there is one."""
    text = page.render(contents(kind))
    assert 'displayModeBar: "hover"' in text
    (data,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL)
    for figure in json.loads(data).values():
        assert figure["layout"]["margin"]["t"] >= TOOLBAR
        assert figure["layout"]["modebar"]["orientation"] == "h"


def test_what_a_report_of_a_program_says() -> None:
    report = contents("compile")
    words = " ".join(" ".join(parsed(page.render(report)).text).split())
    data = report.subjects[0].program
    assert data is not None
    assert "estimate, not measured" in words
    assert "2018, IEEE Micro 38(1), Table 2" in words
    assert "23.6" in words
    for value in (*data["hashes"].values(), *data["versions"].values()):
        assert value in words
    for layer in data["report"]["lowering"]["populations"]:
        assert f"{layer['accumulator']:,}" in words
    assert page.number(data["report"]["lowering"]["action_error_rms"]) in words
    assert '"control_period": 0.05' in words
    assert "core 0" in words
    assert "no published limit" in words


def test_every_finding_stands_in_it_with_its_fix() -> None:
    report = contents("inspect")
    words = " ".join(" ".join(parsed(page.render(report)).text).split())
    findings = [f for target in report.subjects[0].inspection["targets"] for f in target["findings"]]
    assert {finding["severity"] for finding in findings} >= {"error", "unknown", "info"}
    for finding in findings:
        for text in (finding["code"], finding["message"], finding["fix"]):
            assert " ".join(text.split()) in words


def test_a_damaged_graph_has_findings_and_no_drawing() -> None:
    reader = parsed(page.render(contents("damaged")))
    assert "svg" not in {tag for tag, _ in reader.elements}
    assert "infeasible" in reader.text


def test_names_of_a_file_are_text_everywhere() -> None:
    text = page.render(contents("hostile"))
    reader = parsed(text)
    assert HOSTILE in "".join(reader.text)
    # The three of the page, none of the names'.
    assert [tag for tag, _ in reader.elements].count("script") == 3
    (figures,) = re.findall(r'id="figures">(.*?)</script>', text, re.DOTALL)
    assert "<" not in figures
    json.loads(figures)


def test_data_in_a_script_ends_no_script() -> None:
    assert page._script_json({"a": "</script>&", "b": [float("nan"), (1.5, float("inf"))]}) == (
        '{"a":"\\u003c/script\\u003e\\u0026","b":[null,[1.5,null]]}'
    )


def test_a_report_needs_a_pages_name(tmp_path: Path) -> None:
    with pytest.raises(nervecord.NervecordError, match=r"'.pdf'"):
        page.write_report(tmp_path / "a.pdf", contents("inspect"))
    page.write_report(tmp_path / "a.HTML", contents("inspect"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.HTML"]


# --------------------------------------------------------------------------------------------------------------------
# Charts


def activity(neurons: int, steps: int, rate: float) -> dict[str, Any]:
    spikes = np.random.default_rng(1).random((steps, neurons)) < rate
    when, who = np.nonzero(spikes)
    rates = spikes.mean(axis=0).tolist()
    return {"layer": "lif", "neurons": neurons, "steps": steps, "rates": rates, "spikes": [when.tolist(), who.tolist()]}


def test_a_raster_holds_every_spike_at_its_time() -> None:
    layer = activity(30, 140, 0.1)
    figure, note = charts.raster([layer], 1.0)
    (trace,) = figure["data"]
    assert note == ""
    assert trace["y"] == layer["spikes"][1]
    assert np.allclose(np.array(trace["x"]) * 140, layer["spikes"][0], atol=1e-3)


def test_a_raster_that_would_be_too_large_says_what_it_leaves_out() -> None:
    layer = activity(2000, 200, 0.5)
    figure, note = charts.raster([layer, {**layer, "layer": "second"}], 1.0)
    assert sum(len(trace["x"]) for trace in figure["data"]) <= charts.MOST_SPIKES * 1.1
    assert re.fullmatch(r"Of second .* 1 of 2,000 .*", note)


def test_names_are_no_markup_in_a_chart() -> None:
    assert charts.plain("<b>a</b> & \x07") == "&lt;b&gt;a&lt;/b&gt; &amp; \ufffd"


def test_ranges_are_shares_of_what_the_arithmetic_holds() -> None:
    layer = {
        "layer": "lif",
        "accumulator": 50,
        "accumulator_limit": 100,
        "membrane_low": -75.0,
        "membrane_high": 25.0,
        "membrane_limit": 100,
        "threshold": 10,
    }
    accumulator, membrane, threshold = charts.ranges([layer])["data"]
    assert (accumulator["base"], accumulator["x"]) == ([-0.5], [1.0])
    assert (membrane["base"], membrane["x"]) == ([-0.75], [1.0])
    assert threshold["x"] == [0.1]


# --------------------------------------------------------------------------------------------------------------------
# The graph alone


def test_columns_run_from_input_to_output_and_loops_are_cut() -> None:
    drawing = lay_out(facts(braille()))
    column = {name: place[0] for name, place in drawing.places.items()}
    assert drawing.back == {("lif1.w_rec", "lif1.lif")}
    assert [column[name] for name in ("input", "fc1", "lif1.lif", "fc2", "lif2", "output")] == [0, 1, 2, 3, 4, 5]
    assert len(set(drawing.places.values())) == len(drawing.places)


def test_every_edge_but_those_back_goes_to_the_right() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        nodes = [{"id": f"n{k}"} for k in range(12)]
        edges = [[f"n{a}", f"n{b}"] for a, b in {tuple(rng.integers(0, 12, 2).tolist()) for _ in range(18)}]
        drawing = lay_out({"nodes": nodes, "edges": edges})
        assert len(set(drawing.places.values())) == 12
        for a, b in edges:
            assert ((a, b) in drawing.back) or drawing.places[a][0] < drawing.places[b][0]


def test_the_cores_of_a_target_have_colours_and_numbers() -> None:
    graph = random_policy(sizes=(27, 300, 8))
    report = nervecord.inspect(graph, ("loihi1",)).to_dict()
    cores = cores_of(report["graph"], report["targets"][0]["resources"])
    layers = report["targets"][0]["resources"]["layers"]
    first = 0
    for layer in layers:
        assert (cores[layer["name"]].first, cores[layer["name"]].last) == (first, first + layer["cores"] - 1)
        first += layer["cores"]
    assert cores["fc1"].colour == cores["lif1"].colour != cores["readout"].colour == cores["fc2"].colour
    assert set(cores) == {"fc1", "lif1", "fc2", "readout"}


@pytest.mark.parametrize("make", [random_policy, braille, hostile])
def test_the_drawing_is_xml_with_every_name(make: Any) -> None:
    graph = facts(make())
    text = draw_svg(graph)
    words = {element.text for element in ElementTree.fromstring(text).iter() if element.text}
    for node in graph["nodes"]:
        assert layout.printable(node["name"], 18) in words
    assert text == draw_svg(graph)


@pytest.mark.parametrize("make", [random_policy, braille, hostile])
def test_graphviz_reads_the_dot(make: Any, tmp_path: Path) -> None:
    if shutil.which("dot") is None:
        pytest.skip("Graphviz is not installed")
    graph = facts(make())
    process = subprocess.run(["dot", "-Tjson0"], input=to_dot(graph), capture_output=True, text=True, check=True)
    drawing = json.loads(process.stdout)
    names = {item["name"]: item["_gvid"] for item in drawing["objects"] if not item["name"].startswith("cluster_")}
    assert set(names) == {node["id"] for node in graph["nodes"]}
    assert {(edge["tail"], edge["head"]) for edge in drawing["edges"]} == {
        (names[a], names[b]) for a, b in graph["edges"]
    }


# --------------------------------------------------------------------------------------------------------------------
# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium of the system's, headless."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(
        (file for name in ("chromium", "chromium-browser", "google-chrome") if (file := shutil.which(name))), None
    )
    if path is None:
        pytest.skip("no Chromium is installed")
    with api.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def open_page(browser: Any, path: Path) -> tuple[Any, list[str], list[str]]:
    """(the page once its charts are drawn, what the console said, what was asked for)."""
    console: list[str] = []
    requests: list[str] = []
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.on("console", lambda message: console.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: console.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(path.as_uri(), timeout=120_000)  # a busy machine
    opened.wait_for_selector("body[data-drawn]", timeout=60_000)
    return opened, console, requests


@pytest.mark.parametrize("kind", KINDS)
def test_a_browser_draws_it_and_asks_for_nothing(kind: str, browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    page.write_report(path, contents(kind))
    opened, console, requests = open_page(browser, path)
    assert console == []
    assert requests == [path.as_uri()]
    assert opened.evaluate("window.hacked") is None
    svg_counts = opened.evaluate("[...document.querySelectorAll('.chart')].map(e => e.querySelectorAll('svg').length)")
    assert len(svg_counts) == int(opened.evaluate("document.body.dataset.drawn"))
    assert all(svg_counts)
    if kind != "damaged":
        assert svg_counts
        assert opened.locator(".drawing svg").count() >= 1
    # A toolbar lies above what is plotted.
    below = """[...document.querySelectorAll('.chart:has(.modebar-group)')].map(chart =>
        [chart.querySelector('.modebar').getBoundingClientRect().bottom,
         chart.querySelector('.plotbg, .cartesianlayer').getBoundingClientRect().top])"""
    bars = opened.evaluate(below)
    assert len(bars) == len(svg_counts)
    assert all(bottom <= top + 1 for bottom, top in bars)
    # Nothing is wider than the window, so that nobody has to scroll sideways.
    assert opened.evaluate("document.documentElement.scrollWidth") <= 1280
    opened.close()


def test_a_script_that_got_in_all_the_same_would_not_run(browser: Any, tmp_path: Path) -> None:
    """The page's own policy: escaping is not the only thing between a file's words and a browser."""
    text = page.render(contents("inspect"))
    path = tmp_path / "report.html"
    path.write_text(text.replace("<h1>", "<script>window.hacked = 1</script><h1>"), encoding="utf-8")
    opened, console, _ = open_page(browser, path)
    assert opened.evaluate("window.hacked") is None
    assert any("Content Security Policy" in line for line in console)
    opened.close()
