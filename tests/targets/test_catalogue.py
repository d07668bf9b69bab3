"""Targets that are not of this package: one that an installed package adds, one that a file describes; and options."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies import random_policy

import nervecord
from nervecord.cli.command import main
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.nir.file import write_nir
from nervecord.compiler.target.options import Option, check_options, option, options_of
from nervecord.compiler.target.protocol import UNLIMITED, Target, TargetSpec
from nervecord.errors import FileFormatError, InfeasibleError, NervecordError
from nervecord.targets import catalogue
from nervecord.targets.lava.target import LavaTarget

ROOT = Path(__file__).parents[2]
CHIP = ROOT / "tests" / "data" / "chip"
SPEC = (ROOT / "targets" / "xylo" / "spec.toml").read_text(encoding="utf-8")


@pytest.fixture
def policy() -> Policy:
    return random_policy(sizes=(27, 12, 8))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package `example_chip`, where Python finds it; its folder, to be changed."""
    folder = tmp_path / "site"
    shutil.copytree(CHIP, folder)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("example_chip", None)


def declare(folder: Path, *lines: str) -> None:
    """Replace what the package declares."""
    path = folder / "example_chip-1.0.dist-info" / "entry_points.txt"
    path.write_text("\n".join(["[nervecord.targets]", *lines]) + "\n")
    os.utime(folder)  # as an installation changes it


# --------------------------------------------------------------------------------------------------------------------
# A package that adds a target


@pytest.mark.usefixtures("installed")
def test_it_is_found_inspected_compiled_and_run(policy: Graph, tmp_path: Path) -> None:
    assert catalogue.target_names()[-1] == "example-chip"
    assert "example-chip" in [spec.name for spec in nervecord.list_targets()]
    report = nervecord.inspect(policy, "example-chip")
    assert report.feasible
    assert report.targets[0].title == "Example chip"
    program = nervecord.compile(policy, "example-chip", clock_mhz=200)
    assert program.report["lowering"] == {"clock_mhz": 200, "mode": "fast"}
    program.save(tmp_path / "p.nervecord")
    row = np.random.default_rng(0).normal(size=27)
    with nervecord.open(tmp_path / "p.nervecord") as session, nervecord.open(policy) as float_session:
        assert session.engine == "model"
        assert np.array_equal(session.step(row), float_session.step(row))
    with pytest.raises(NervecordError, match=r"example-chip: .*'lava'"):
        nervecord.open(tmp_path / "p.nervecord", engine="lava")
    (emitted,) = nervecord.emit(tmp_path / "p.nervecord", tmp_path / "out")
    assert json.loads(emitted.path.read_text()) == list(policy.graph.nodes)
    assert isinstance(nervecord.target("example-chip"), Target)


@pytest.mark.long
def test_by_the_command_line_in_a_process_of_its_own(
    policy: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_nir(policy, tmp_path / "policy.nir")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHIP), os.environ.get("PYTHONPATH", "")])}

    def call(line: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "nervecord", *line.split()]
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    process = call(
        "compile policy.nir --target example-chip --clock-mhz 50 --gain 2 --mode thrifty -o p --emit out --json"
    )
    assert (process.returncode, process.stderr) == (0, "")
    data = json.loads(process.stdout)
    assert data["report"]["lowering"] == {"clock_mhz": 50, "mode": "thrifty"}
    assert data["emitted"] == [
        {"file": "out/layers.json", "use": "chipload out/layers.json", "arguments": {"clock_mhz": 50}}
    ]
    (report,) = json.loads(call("targets example-chip --json").stdout)["targets"]
    assert [option["name"] for option in report["options"]] == ["clock_mhz", "mode", "gain", "traced"]
    assert (report["compiles"], report["installation"]) == (True, None)
    help_text = call("compile --target example-chip --help").stdout
    assert "options of target example-chip:" in help_text
    assert "from 1 to 400 (default 100)" in " ".join(help_text.split())
    for line, words in (
        ("--clock-mhz 401", "clock_mhz: is 401, target 'example-chip' takes an integer from 1 to 400"),
        ("--mode slow", "mode: is 'slow', target 'example-chip' takes one of fast, thrifty"),
        ("--gain nan", "gain: is nan, target 'example-chip' takes a number of at least 0"),
        ("--weight-bits 3", "unknown flag '--weight-bits'"),
    ):
        monkeypatch.chdir(tmp_path)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(CHIP))
            assert main(["compile", "policy.nir", "--target", "example-chip", *line.split()]) == 2
        assert words in capfd.readouterr().err
    # Without the package nothing of it is known, and the file says no more than a name.
    del environment["PYTHONPATH"]
    process = call("inspect p")
    assert process.returncode == 2
    assert "p: " in process.stderr
    assert "'example-chip'" in process.stderr


BROKEN: dict[str, tuple[tuple[str, ...], str, str]] = {
    "a module gone": (("chip = nowhere:Chip",), "chip", r"ModuleNotFoundError: No module named 'nowhere'"),
    "a name gone": (("chip = example_chip:Chop",), "chip", r"AttributeError: .*Chop"),
    "no target": (("chip = pathlib:PurePath",), "chip", "pathlib:PurePath is no target"),
    "a function": (("chip = example_chip:chip",), "chip", "example_chip:chip is no target"),
    "another name": (("chip = example_chip:ExampleChip",), "chip", "its spec calls it 'example-chip'"),
    "a name of ours": (("lava = example_chip:ExampleChip",), "lava", "by nervecord and by example-chip 1.0"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_package_is_named_and_harms_no_other_target(name: str, installed: Path, policy: Policy) -> None:
    lines, target, words = BROKEN[name]
    declare(installed, *lines)
    with pytest.raises(NervecordError, match=words) as caught:
        nervecord.target(target)
    assert "example-chip 1.0" in str(caught.value)
    with pytest.raises(NervecordError, match=words):
        nervecord.list_targets()
    nervecord.compile(policy, "reference")


def test_a_program_makes_nothing_be_imported(installed: Path, policy: Policy, tmp_path: Path) -> None:
    (installed / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()\n")
    good = nervecord.compile(policy, "reference")
    for name in ("trap", "trap:Chip", "nervecord.trap", "../trap", "targets.lava.target", "xylo", "example_chip"):
        Program(name, good.graph, good.contract, report=good.report).save(tmp_path / "p.nervecord")
        for call in (nervecord.open, nervecord.load, nervecord.inspect):
            with pytest.raises(
                FileFormatError, match=r"nothing here runs that \(programs are for: reference, c, fpga|is no name of"
            ):
                call(tmp_path / "p.nervecord")
    assert not (tmp_path / "sprung").exists()


# --------------------------------------------------------------------------------------------------------------------
# A file that describes a target


@pytest.fixture
def described(tmp_path: Path) -> Callable[..., Path]:
    """described(old=new): xylo's spec as a file of the user's, changed."""

    def write(changes: dict[str, str] | None = None) -> Path:
        text = SPEC.replace('name = "xylo"', 'name = "my-chip"')
        for old, new in (changes or {}).items():
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "chip.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_file_is_inspected_as_a_target_of_ours_is(described: Callable[..., Path], policy: Policy) -> None:
    mine = nervecord.target(file=described())
    report, xylo = nervecord.inspect(policy, mine), nervecord.inspect(policy, "xylo")
    assert report.targets[0].target == "my-chip"
    assert [f.code for f in report.targets[0].findings] == [f.code for f in xylo.targets[0].findings]
    wide = nervecord.target(file=described({"inputs = { value = 16": "inputs = { value = 32"}))
    assert "inputs" not in [finding.code for finding in nervecord.inspect(policy, wide).targets[0].findings]
    with pytest.raises(NervecordError, match=r"'my-chip' .*inspected only"):
        nervecord.compile(policy, mine)


def test_a_file_on_the_command_line(
    described: Callable[..., Path], policy: Policy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_nir(policy, tmp_path / "policy.nir")
    words = ["--target-file", str(described()), "--json"]
    assert main(["inspect", str(tmp_path / "policy.nir"), *words]) == 2
    assert [target["target"] for target in json.loads(capsys.readouterr().out)["targets"]] == ["my-chip"]
    assert main(["inspect", str(tmp_path / "policy.nir"), "--target", "lava", *words]) == 2
    assert [target["target"] for target in json.loads(capsys.readouterr().out)["targets"]] == ["lava", "my-chip"]
    assert main(["targets", *words]) == 0
    assert json.loads(capsys.readouterr().out)["targets"][0]["compiles"] is False
    assert main(["compile", str(tmp_path / "policy.nir"), *words]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["type"], "'my-chip'" in error["message"]) == ("NervecordError", True)


REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "a name of ours": ({'"my-chip"': '"lava"'}, "calls itself 'lava', which is an installed target"),
    "no name": ({'"my-chip"': '"../chip"'}, r"name: '\.\./chip' is no name"),
    "a name to be printed": ({'"my-chip"': '"a\\u001b[2J"'}, "name: the text has characters"),
    "engines": ({"engines = []": 'engines = ["emulator"]'}, "engines: emulator cannot come with a file"),
    "a control character": ({'title = "XyloAudio 2"': 'title = "\\u001b[2J"'}, "title: the text has characters"),
    "no number": ({"inputs = { value = 16": "inputs = { value = nan"}, "limits.inputs: is .*, an integer"),
    "no end": ({"inputs = { value = 16": "inputs = { value = inf"}, "limits.inputs: is .*, an integer"),
    "a huge number": (
        {"inputs = { value = 16": "inputs = { value = 1" + "0" * 400},
        "limits.inputs: is .*, an integer",
    ),
    "an endless number": ({"inputs = { value = 16": "inputs = { value = 1" + "0" * 5000}, "is no TOML: Exceeds"),
    "nesting": ({"not_checked = [": "not_checked = [" + "[" * 20_000}, "nested too deeply|is no TOML"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_describes_none_is_refused(name: str, described: Callable[..., Path]) -> None:
    changes, words = REFUSED[name]
    path = described(changes)
    with pytest.raises(FileFormatError, match=words) as caught:
        nervecord.target(file=path)
    assert caught.value.where == str(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "large").write_text("#" * (1 << 20) + "\n")
    for path, words in (
        (tmp_path / "none", "does not exist"),
        (tmp_path, "is a folder, not a target's file"),
        (tmp_path / "large", "at most 1048576 are read"),
        ("a\0b", r"cannot be read: (open: )?embedded null (byte|character)"),
    ):
        with pytest.raises(FileFormatError, match=words):
            nervecord.target(file=path)
    with pytest.raises(NervecordError, match="give no name beside it"):
        nervecord.target("lava", file=tmp_path / "none")


# --------------------------------------------------------------------------------------------------------------------
# Limits of the user's own


def test_a_limit_is_set_and_kept(policy: Graph, tmp_path: Path) -> None:
    limits = {"neurons_per_core": 4, "fan_in": UNLIMITED}
    report = nervecord.inspect(policy, "lava", limits=limits)
    sentences = (
        "neurons_per_core = 4: given by the user, in place of 8,192 (second-hand)",
        "fan_in = unlimited: given by the user, where nothing is published",
    )
    assert set(report.targets[0].limits_given) == set(sentences)
    assert set(report.to_dict()["targets"][0]["limits_given"]) == set(sentences)
    assert all(f": {sentence}\n" in report.to_text() for sentence in sentences)
    program = nervecord.compile(policy, "lava", limits=limits)
    assert set(program.allowances) == set(sentences)
    program.save(tmp_path / "p.nervecord")
    assert nervecord.load(tmp_path / "p.nervecord").allowances == program.allowances
    assert program.report["placement"]["cores"] == 3 + 2
    assert nervecord.compile(policy, "lava").allowances == ()
    assert nervecord.compile(policy, nervecord.target("lava", limits=limits)) == program


def test_a_limit_that_was_given_decides(policy: Graph) -> None:
    with pytest.raises(InfeasibleError, match="more neurons than the chip"):
        nervecord.compile(policy, "lava", limits={"neurons": 19})
    assert nervecord.inspect(policy, "lava", limits={"neurons": 19}).targets[0].verdict == "infeasible"
    assert nervecord.inspect(policy, "lava", limits={"neurons": 20}).targets[0].verdict == "feasible"


def test_findings_that_ask_for_a_number_name_the_flag_that_takes_it(
    described: Callable[..., Path], policy: Graph
) -> None:
    secret = {
        "neurons = { value = 1008,": "neurons = {",
        "hidden = { value = 1000,": "hidden = {",
        'neurons_per_core = { value = "unlimited",': "neurons_per_core = {",
    }
    words = {
        line: line.replace('confidence = "exact"', 'confidence = "unknown"')
        for line in SPEC.splitlines()
        if line.startswith(("neurons ", "hidden ", "neurons_per_core "))
    }
    path = described({line: _without(text, secret) for line, text in words.items()})
    for target, code, values in (
        ("lava", "second-hand-limits", {}),
        (nervecord.target(file=path), "capacity-unknown", {"neurons": 100_000}),
    ):
        (finding,) = [f for f in nervecord.inspect(policy, target).targets[0].findings if f.code == code]
        assert "--set" in finding.fix
        if values:
            own_target = nervecord.target(file=path, limits=values)
            assert code not in [f.code for f in nervecord.inspect(policy, own_target).targets[0].findings]


def _without(text: str, values: dict[str, str]) -> str:
    for old, new in values.items():
        text = text.replace(old, new)
    return text


def test_limits_are_those_of_one_target(policy: Graph) -> None:
    for targets in (None, ["lava", "xylo"]):
        with pytest.raises(NervecordError, match="limits: "):
            nervecord.inspect(policy, targets, limits={"cores": 3})
    for name, value, words in (("state_bits", 30, "exact for lava"), ("corse", 1, "did you mean 'cores'")):
        with pytest.raises(NervecordError, match=words):
            nervecord.inspect(policy, "lava", limits={name: value})


@pytest.mark.usefixtures("installed")
def test_limits_of_a_target_that_a_package_adds(policy: Graph) -> None:
    assert nervecord.inspect(policy, "example-chip", limits={"neurons_per_core": 12}).targets[0].placement.cores == 2  # type: ignore[union-attr]
    with pytest.raises(NervecordError, match=r"\b4 .*example-chip "):
        nervecord.compile(policy, "example-chip", limits={"cores": 5})


# --------------------------------------------------------------------------------------------------------------------
# Options


@dataclass(frozen=True)
class Chosen:
    spec: TargetSpec = field(default_factory=lambda: LavaTarget().spec)
    bits: int = option(8, "bits", low=2, high=8)
    gain: float = option(1.0, "gain", low=0)
    steps: int = option(5, "steps", high=9)
    kind: str = option("a", "kind", choices=("a", "b"))
    word: str = option("", "word")
    yes: bool = option(True, "yes")


GOOD: list[tuple[str, object]] = [
    ("bits", 2),
    ("bits", 8),
    ("gain", 0),
    ("gain", 1e9),
    ("gain", 3),
    ("steps", -5),
    ("steps", 9),
    ("kind", "b"),
    ("word", "any"),
    ("yes", False),
]
BAD: list[tuple[str, object]] = [
    ("bits", 1),
    ("bits", 9),
    ("bits", 3.0),
    ("bits", True),
    ("bits", "3"),
    ("bits", None),
    ("gain", -0.1),
    ("gain", float("nan")),
    ("gain", True),
    ("gain", "1"),
    ("steps", 10),
    ("kind", "c"),
    ("kind", 1),
    ("word", 3),
    ("yes", 1),
    ("yes", "true"),
]


def test_options_are_the_fields_that_declare_them() -> None:
    assert [o.name for o in options_of(Chosen)] == ["bits", "gain", "steps", "kind", "word", "yes"]
    assert options_of(Chosen)[0] == Option("bits", 8, "bits", 2, 8)
    assert options_of(int) == ()
    assert [o.allowed for o in options_of(Chosen)] == [
        "an integer from 2 to 8",
        "a number of at least 0",
        "an integer of at most 9",
        "one of a, b",
        "a text",
        "true or false",
    ]
    assert options_of(Chosen)[0].to_dict() == {
        "name": "bits",
        "default": 8,
        "about": "bits",
        "low": 2,
        "high": 8,
        "choices": [],
        "type": "int",
    }


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_values_that_are_allowed(name: str, value: object) -> None:
    check_options(Chosen, {name: value}, of="it")


@pytest.mark.parametrize(("name", "value"), BAD)
def test_values_that_are_not(name: str, value: object) -> None:
    with pytest.raises(NervecordError, match=f"^{name}: is .*, it takes"):
        check_options(Chosen, {name: value}, of="it")


def test_options_that_are_not_there(policy: Graph) -> None:
    with pytest.raises(NervecordError, match=r"target 'lava': .*'weight_bit' .*'weight_bits'"):
        nervecord.compile(policy, "lava", weight_bit=3)
    with pytest.raises(NervecordError, match=r"weight_bits: .*'reference'"):
        nervecord.compile(policy, "reference", weight_bits=3)
    with pytest.raises(NervecordError, match="weight_bits: the target has its options already"):
        nervecord.compile(policy, nervecord.target("lava"), weight_bits=3)


@pytest.mark.parametrize("name", catalogue.compiling_names())
def test_every_target_keeps_the_protocol(name: str) -> None:
    target: Any = nervecord.target(name)
    assert isinstance(target, Target)
    assert target.spec == tomllib_spec(name)
    for declared in options_of(type(target)):
        assert declared.takes(declared.default)
        assert getattr(target, declared.name) == declared.default
        assert declared.about


def tomllib_spec(name: str) -> TargetSpec:
    from nervecord.compiler.target.specfile import spec_from_dict

    return spec_from_dict(tomllib.loads((ROOT / "targets" / name / "spec.toml").read_text(encoding="utf-8")))
