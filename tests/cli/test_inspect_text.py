"""What `inspect` prints for people."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from policies import random_policy
from rich.console import Console

import nervecord
from nervecord.cli.inspect_text import inspect_text
from nervecord.compiler.nir.file import write_nir

PUBLISHED = Path(__file__).parents[1] / "data" / "nir"


def laid_out(report: Any, width: int, *, verbose: bool = False, colour: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=colour, color_system="standard" if colour else None)
    console.print(inspect_text(report, "a.nir", verbose=verbose))
    return out.getvalue()


def test_verdicts_come_first_and_findings_say_what_to_do(nervecord_cli: Any, tmp_path: Path) -> None:
    write_nir(random_policy(), tmp_path / "a.nir")
    answer = nervecord_cli("inspect", tmp_path / "a.nir")
    assert (answer.code, answer.err) == (0, "")
    text = answer.out
    report = nervecord.inspect(tmp_path / "a.nir")
    first = max(text.index(f"\n{target.target} ") for target in report.targets)
    for target in report.targets:
        line = next(line for line in text.splitlines() if line.startswith(f"{target.target} "))
        assert line.split()[1] == target.verdict
        assert text.index(line) <= first + 1
        for finding in target.findings:
            assert (finding.code in text[first:]) == (finding.severity != "info")
            if finding.fix and finding.severity != "info":
                assert " ".join(finding.fix.split()[:4]) in text
    assert "energy is an estimate, not measured" in text


def test_what_is_said_of_several_nodes_is_said_once() -> None:
    both = nervecord.inspect(PUBLISHED / "braille_noDelay_bias_zero.nir", "spinnaker2")
    nodes = [f.node for f in both.targets[0].findings if f.code == "bias-channel"]
    assert nodes == ["fc1", "fc2", "lif1.w_rec"]
    text = laid_out(both, 110)
    assert text.count("and the chip's adds at once what that settles at") == 1
    assert "bias-channel  fc1, fc2, lif1.w_rec" in text


def test_what_is_said_of_several_targets_is_said_once() -> None:
    report = nervecord.inspect(PUBLISHED / "lif_norse.nir")
    text = "\n".join(line.rstrip() for line in laid_out(report, 110).splitlines())
    names = [it.target for it in report.targets if any(f.code == "time-step" for f in it.findings)]
    assert len(names) > 3
    assert f"{', '.join(names)}\n  warning  time-step  graph\n" in text
    assert text.count("the file does not say its time step") == 1
    # What is of one target alone stands under its name.
    assert "unsupported-node  1\n" in text[text.index("speck (Speck") : text.index("xylo (Xylo")]


def test_channels_are_listed(nervecord_cli: Any) -> None:
    zoo = Path(__file__).parents[2] / "zoo" / "ant-small" / "ant-small.nervecord"
    lines = [line.split() for line in nervecord_cli("inspect", zoo, "--target", "lava", "--verbose").out.splitlines()]
    contract = nervecord.load(zoo).contract
    assert contract is not None
    for channels in (contract.observation, contract.action):
        for k, (name, unit) in enumerate(zip(channels.names, channels.units, strict=True)):
            assert any(line[:3] == [str(k), name, unit] for line in lines)
    assert ["0", "hip_4", "1", "-1", "to", "1"] in lines


@pytest.mark.parametrize("width", [40, 60, 80, 110, 200])
@pytest.mark.parametrize("verbose", [False, True])
def test_lines_keep_to_the_width(width: int, verbose: bool) -> None:
    text = laid_out(nervecord.inspect(random_policy()), width, verbose=verbose)
    assert max(map(len, text.splitlines())) <= width


def test_verbose_says_everything_that_the_report_says() -> None:
    report = nervecord.inspect(random_policy(), ("lava", "loihi1"))
    words = " ".join(laid_out(report, 400, verbose=True).split())
    assert report.facts is not None
    for node in report.facts.nodes:
        assert node.name in words
    for target in report.targets:
        for finding in target.findings:
            for part in (finding.message, finding.fix, finding.source or ""):
                assert " ".join(part.split()) in words
        for text in target.not_checked:
            assert " ".join(text.split()) in words
        assert str(target.energy) in words


def test_a_published_graph_without_a_time_step() -> None:
    text = laid_out(nervecord.inspect(PUBLISHED / "lif_norse.nir", "lava"), 110)
    assert "not said" in text
    assert "energy per step" in text


def test_a_graph_that_is_damaged_has_its_violations() -> None:
    text = laid_out(nervecord.inspect(random_policy().graph.replace(dt=None), "lava"), 110)
    assert "the graph itself" in text
    assert "infeasible" in text


def test_colour_where_there_is_one_and_no_color_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    report = nervecord.inspect(random_policy(), "lava")
    assert "\x1b[1;32mfeasible" in laid_out(report, 110, colour=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "32m" not in laid_out(report, 110, colour=True)


def test_names_cannot_speak_to_the_terminal() -> None:
    graph = random_policy().graph
    nodes = {f"\x1b[31m{name}": node for name, node in graph.nodes.items()}
    edges = tuple((f"\x1b[31m{a}", f"\x1b[31m{b}") for a, b in graph.edges)
    text = laid_out(nervecord.inspect(graph.replace(nodes=nodes, edges=edges)), 110, verbose=True)
    assert "\x1b" not in text
    assert "\\x1b[31mfc1" in text


def test_all_chips_say_the_same_of_an_input_that_nobody_declared(nervecord_cli: Any) -> None:
    # 'unknown' on one chip and 'feasible' on another would send a reader to the wrong one.
    network = Path(__file__).parent.parent / "data" / "nir" / "braille_noDelay_bias_zero.nir"
    words = ("inspect", network, "--dt", "1e-4", "--reset", "zero", "--json")
    open_question = {target["target"]: target for target in nervecord_cli(*words).json["targets"]}
    chips = [name for name in open_question if name not in ("reference", "onnx")]
    for name in chips:
        (finding,) = (f for f in open_question[name]["findings"] if f["code"] == "undeclared-input")
        assert "--inputs spikes" in finding["fix"]
        assert open_question[name]["verdict"] in ("unknown", "infeasible")
    assert {open_question[name]["verdict"] for name in ("lava", "c", "loihi1", "spinnaker2")} == {"unknown"}
    for kind, loihi1 in (("spikes", "feasible"), ("4.0", "infeasible")):
        answered = {target["target"]: target for target in nervecord_cli(*words, "--inputs", kind).json["targets"]}
        assert all(f["code"] != "undeclared-input" for name in chips for f in answered[name]["findings"])
        assert (answered["lava"]["verdict"], answered["loihi1"]["verdict"]) == ("feasible", loihi1)
