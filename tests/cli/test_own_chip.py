"""A chip that a user's file or package describes, as she types it; and its document."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies import lif, random_policy

import nervecord
from nervecord.compiler.graph.graph import chain
from nervecord.compiler.nir.file import write_nir
from nervecord.compiler.ops import Affine, Input, Level, Output
from nervecord.compiler.target.specfile import read_spec, spec_from_dict, spec_to_dict
from nervecord.compiler.target.template import template
from nervecord.errors import FileFormatError

ROOT = Path(__file__).parents[2]
MINI = """\
name = "mini"
[arithmetic]
weight_bits = 6
membrane_bits = 20
decay_bits = 10
threshold_bits = 19
graded_bits = 10
bias_bits = 16
weight_exponent_low = -6
weight_exponent_high = 6
"""
"""A chip of which little is stated: what a file needs, and enough to hold the policies of this file."""


def test_its_document_is_current(document: Callable[[str], str]) -> None:
    document("own-chip")


@pytest.fixture
def call(nervecord_cli: Any, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """call(line): the command in a folder with mini.toml and a policy, ant.nir or pendulum.nir."""
    monkeypatch.chdir(tmp_path)
    for name in ("ant.nir", "pendulum.nir"):
        shutil.copy(files / name, tmp_path)
    Path("mini.toml").write_text(MINI, encoding="utf-8")
    return lambda line: nervecord_cli(*line.split())


def output_of(answer: Any) -> str:
    assert answer.code == 0, answer
    return str(answer.out)


def described(path: str, *, take: str = "", **arithmetic: object) -> None:
    """Write mini.toml with more keys under [arithmetic], without those named in `take`."""
    lines = [line for line in MINI.splitlines() if line.split(" ")[0] not in (*take.split(), *arithmetic)]
    Path(path).write_text("\n".join([*lines, *(f"{k} = {json.dumps(v)}" for k, v in arithmetic.items())]) + "\n")


def assert_same_integers(call: Callable[[str], Any], a: str, b: str, engine: str, inputs: int = 27) -> None:
    """Every spike and membrane is the same; C decodes its actions in float32."""
    np.savez("rows.npz", observations=np.random.default_rng(3).normal(size=(20, inputs)))
    report = call(f"compare {a} {b} --engine-b {engine} --observations rows.npz --json").json
    assert sum(layer["compared"] for layer in report["layers"]) > 0
    assert [layer["different"] for layer in report["layers"]] == [0] * len(report["layers"]), engine
    assert report["action_max"] < 1e-6


# --------------------------------------------------------------------------------------------------------------------
# The template


def test_the_template_compiles_as_it_is_and_with_every_key_stated(call: Callable[[str], Any]) -> None:
    text = output_of(call("targets template"))
    assert json.loads(output_of(call("targets template --json")))["template"] == text
    stated = re.sub(r"^#(?=\w|\[)", "", text, flags=re.MULTILINE)
    assert stated != text
    for name, content in (("as it is", text), ("stated", stated)):
        Path("chip.toml").write_text(content)
        data = call("compile ant.nir --target-file chip.toml --json").json
        assert (data["verdict"], data["target"]) == ("feasible", "my-chip"), name
    assert data["cores"] == 2
    (report,) = json.loads(output_of(call("inspect ant.nir --target-file chip.toml --json")))["targets"]
    assert report["energy"]["source"] == "measured by its makers"
    # Of what a file may say nothing is missing in it.
    spec = read_spec(Path("chip.toml"), own=True)
    assert [name for name, _, fact in spec.facts() if not fact.known] == []


# --------------------------------------------------------------------------------------------------------------------
# Verbs and reports


def test_every_verb_takes_it_with_a_report_and_its_program_needs_no_file(call: Callable[[str], Any]) -> None:
    pytest.importorskip("jinja2", reason="pages need the extra report")
    pytest.importorskip("plotly", reason="pages need the extra report")
    output_of(call("compile pendulum.nir --target-file mini.toml -o mini.nervecord --html compile.html"))
    Path("mini.toml").unlink()
    output_of(call("run mini.nervecord --episodes 1 --html run.html"))
    output_of(call("compare pendulum.nir mini.nervecord --html compare.html"))
    for page in ("compile", "run", "compare"):
        text = Path(f"{page}.html").read_text(encoding="utf-8")
        assert "No energy per operation is stated in mini.toml" in text
        assert "not stated in mini.toml: " in text
    reports = call("inspect mini.nervecord --json").json["targets"]
    assert [it["verdict"] for it in reports if it["target"] == "mini"] == ["unknown"]
    (report,) = call("inspect mini.nervecord --target mini --json").json["targets"]
    assert [f["message"] for f in report["findings"] if f["severity"] == "unknown"] == [
        "mini.toml does not say how many neurons the chip holds"
    ]
    call("inspect mini.nervecord --target minni").refused("'minni'", "spinnaker2")


def test_engines_are_shown_and_all_run_the_same_integers(call: Callable[[str], Any]) -> None:
    output_of(call("compile ant.nir --target-file mini.toml -o mini.nervecord"))
    text = output_of(call("targets --target-file mini.toml"))
    assert "engines: emulator, definition, torch, c\n" in text
    engines = call("targets --target-file mini.toml --json").json["targets"][0]["engines"]
    assert engines == ["emulator", "definition", "torch", "c"]
    for engine in engines[1:]:
        if engine == "torch" and importlib.util.find_spec("torch") is None:
            continue
        assert_same_integers(call, "mini.nervecord", "mini.nervecord", engine)
    call("run mini.nervecord --engine lava").refused("mini: ", "'lava'")


def test_numbers_of_the_file_are_called_the_users(call: Callable[[str], Any]) -> None:
    pytest.importorskip("jinja2", reason="pages need the extra report")
    pytest.importorskip("plotly", reason="pages need the extra report")
    limits = "[limits]\nneurons = 500\ncores = 4\nneurons_per_core = 8\n[energy]\nprocess_nm = 28\n"
    energy = "synaptic_event_pj = 1.0\nupdate_active_pj = 2.0\nupdate_inactive_pj = 1.0\n"
    Path("mini.toml").write_text(MINI + limits + energy)
    text = output_of(call("compile ant.nir --target-file mini.toml -o mini.nervecord --html mini.html"))
    assert "(what a core holds: the user's own numbers)" in text
    assert "allowed:" not in text
    assert "user&#39;s" in Path("mini.html").read_text(encoding="utf-8")
    verbose = output_of(call("inspect mini.nervecord --target mini --verbose"))
    assert "mini.toml [the user's own]" in " ".join(verbose.split())
    assert "not published" not in verbose
    # One that --set replaces is an allowance, as of every target.
    text = output_of(call("compile ant.nir --target-file mini.toml --set cores=5"))
    assert re.search(r"allowed: cores = 5: .* 4 \(given\)", text)


def test_everything_that_is_wrong_is_told_at_once(call: Callable[[str], Any]) -> None:
    described("bad.toml", take="decay_bits", weight_bits=99, reset="zeroo", input_shift=-1)
    with Path("bad.toml").open("a") as file:
        file.write('[limits]\nnuerons = 3\ncores = 1.5\nneurons = { value = 3, confidence = "exact" }\n')
    refusal = call("compile ant.nir --target-file bad.toml").refused("bad.toml: 7 ", notes=7)
    for words in (
        "arithmetic.decay_bits: ",
        "arithmetic.weight_bits: is 99, ",
        "arithmetic.reset: is 'zeroo', ",
        "arithmetic.input_shift: is -1",
        "limits.nuerons: ",
        "limits.cores: is 1.5, ",
        "limits.neurons.source: ",
    ):
        assert words in refusal
    described("bad.toml", reset="subtract", spikes_per_step=1, delay_max=3)
    with Path("bad.toml").open("a") as file:
        file.write('[limits]\ndelay_max = 4\n[behaviour]\nresets = ["value"]\n')
    call("inspect ant.nir --target-file bad.toml").refused(
        "bad.toml: 2 ", "behaviour.resets: says value, ", "limits.delay_max: says 4", notes=2
    )


JUNK = (None, 3, -1, 1e300, True, "", "x", [], {}, [1, "a"], {"value": "unlimited"}, {"value": [1], "source": 3})


def test_whatever_stands_under_a_key_is_read_or_refused() -> None:
    """Nothing but a refusal comes of values of other types, in a file or in what a program carries."""
    rng = random.Random(0)
    stated = tomllib.loads(re.sub(r"^#(?=\w|\[)", "", template(), flags=re.MULTILINE))
    count = 0
    for _ in range(400):
        data = copy.deepcopy(stated)
        table = data if rng.random() < 0.3 else data[rng.choice([k for k in data if isinstance(data[k], dict)])]
        table[rng.choice([*table, "odd"])] = copy.deepcopy(rng.choice(JUNK))
        with contextlib.suppress(FileFormatError):
            spec_from_dict(data, file="chip.toml")
            count += 1
    assert 20 < count < 200


# --------------------------------------------------------------------------------------------------------------------
# Lowering options


def outliers() -> nervecord.Policy:
    """A policy with weights that a few others dwarf."""
    policy = random_policy(5, sizes=(6, 12, 4), recorded=48)
    op = policy.graph.nodes["fc1"]
    weight = op.weight.copy()
    weight[0, 0] *= 200
    return policy.replace(graph=policy.graph.replace(nodes={**policy.graph.nodes, "fc1": op.replace(weight=weight)}))


@pytest.mark.parametrize("accumulate", ["sum-then-shift", "shift-each"])
def test_bits_and_slices_reach_it(accumulate: str, call: Callable[[str], Any]) -> None:
    write_nir(outliers(), "p.nir")
    described("mini.toml", accumulate=accumulate)
    lowered = [
        call(f"compile p.nir --target-file mini.toml {flags} --json -o {name}.nervecord").json["report"]["lowering"]
        for name, flags in (("one", ""), ("two", "--weight-slices 2"), ("few", "--weight-bits 3"))
    ]
    one, two, few = (report["action_error_rms"] for report in lowered)
    assert two < one < few
    links = [link for population in lowered[2]["populations"] for link in population["connections"]]
    assert {link["weight_bits"] for link in links} == {3}
    assert any(name.endswith(".rest") for name in nervecord.load("two.nervecord").graph.nodes)
    assert_same_integers(call, "two.nervecord", "two.nervecord", "c", inputs=6)
    (answer,) = call("inspect p.nir --target-file mini.toml --weight-slices 2 --json").json["targets"]
    assert answer["target"] == "mini"


def test_the_arithmetic_bounds_the_options(call: Callable[[str], Any]) -> None:
    text = " ".join(output_of(call("compile --target-file mini.toml --help")).split())
    assert " mini:" in text
    assert "from 2 to 6 (default 6)" in text
    call("compile ant.nir --target-file mini.toml --weight-bits 7").refused(
        "weight_bits: is 7", "'mini'", "from 2 to 6"
    )
    call("compile ant.nir --target-file gone.toml --weight-bits 7").refused("gone.toml: ")
    for target, words in (("lava", "from 2 to 8 (default 8)"), ("c", "from 2 to 8 (default 8)")):
        assert words in " ".join(output_of(call(f"compile --target {target} --help")).split())


def test_a_second_slice_that_a_chip_has_no_room_for_is_found_before_lowering(call: Callable[[str], Any]) -> None:
    """A policy carries the input that chooses slices, so that inspect knows what compile will do."""
    write_nir(outliers(), "p.nir")
    plain = call("compile p.nir --target-file mini.toml --json").json["report"]["placement"]["synapses"]
    sliced = call("compile p.nir --target-file mini.toml --weight-slices 2 --json").json["report"]["placement"]
    assert sliced["synapses"] > plain
    for most, verdict, code in ((sliced["synapses"] - 1, "infeasible", 2), (sliced["synapses"], "feasible", 0)):
        Path("mini.toml").write_text(f"{MINI}[limits]\nneurons = 100\nsynapses = {most}\n")
        answer = call("inspect p.nir --target-file mini.toml --weight-slices 2 --json")
        (report,) = answer.json["targets"]
        assert (report["verdict"], answer.code) == (verdict, code)
        assert call("compile p.nir --target-file mini.toml --weight-slices 2").code == code


def test_of_a_network_without_a_recording_it_is_an_estimate(call: Callable[[str], Any]) -> None:
    """What enters chooses how many weights have a second slice; inspect knows how many may have one."""
    weight = np.random.default_rng(0).uniform(0.5, 1.0, size=(12, 6))
    nodes = [("in", Input((6,))), ("fc", Affine(weight)), ("lif", lif(12, 0.5)), ("out", Output((12,)))]
    write_nir(chain(Level.DISCRETE, nodes, dt=1e-3), "g.nir")
    line = "g.nir --dt 1e-3 --inputs spikes --target-file mini.toml --weight-slices 2"
    sliced = call(f"compile {line} --json").json["report"]["placement"]["synapses"]
    assert sliced > 72
    Path("mini.toml").write_text(f"{MINI}[limits]\nneurons = 100\nsynapses = {sliced - 1}\n")
    (report,) = call(f"inspect {line} --json").json["targets"]
    (finding,) = [finding for finding in report["findings"] if finding["code"] == "synapses"]
    assert (report["verdict"], finding["severity"]) == ("unknown", "unknown")
    assert "--calibration" in finding["fix"]
    assert (finding["value"], finding["limit"]) == (sliced, sliced - 1)


# --------------------------------------------------------------------------------------------------------------------
# C, and integers that go elsewhere


def test_c_is_emitted_of_it_and_passes_its_own_test(call: Callable[[str], Any]) -> None:
    if shutil.which("cc") is None or shutil.which("make") is None:
        pytest.skip("no C compiler")
    described(
        "wraps.toml",
        membrane_overflow="wrap",
        weight_signs="twos-complement",
        compare=">=",
        delay_max=7,
        connection_delay=1,
    )
    output_of(call("compile ant.nir --target-file wraps.toml -o mini.nervecord --emit own"))
    output_of(call("compile mini.nervecord --target c --prefix mini -o other/"))
    for folder in ("own", "other"):
        process = subprocess.run(["make", "-C", folder, "selftest"], capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
    arithmetics = [nervecord.load(path).graph.arithmetic for path in ("mini.nervecord", "other/policy.nervecord")]
    assert arithmetics[0] == arithmetics[1]
    output_of(call("inspect other/policy.nervecord --target c"))


def test_inspect_and_compile_agree_about_integers_elsewhere(call: Callable[[str], Any]) -> None:
    """The reference, C and ONNX take integers of any arithmetic; Lava only its own."""
    output_of(call("compile ant.nir --target-file mini.toml -o mini.nervecord"))
    for target, code in (("reference", 0), ("c", 0), ("onnx", 0), ("lava", 2)):
        assert call(f"inspect mini.nervecord --target {target}").code == code, target
        assert call(f"compile mini.nervecord --target {target} -o {target}.nervecord").code == code, target
    assert_same_integers(call, "mini.nervecord", "reference.nervecord", "reference")


# --------------------------------------------------------------------------------------------------------------------
# What a program carries of its target


def test_a_description_comes_back_as_it_was(call: Callable[[str], Any]) -> None:
    text = re.sub(r"^#(?=\w|\[)", "", output_of(call("targets template")), flags=re.MULTILINE)
    Path("chip.toml").write_text(text)
    spec = read_spec(Path("chip.toml"), own=True)
    assert spec_from_dict(json.loads(json.dumps(spec_to_dict(spec))), file="chip.toml") == spec


@pytest.mark.parametrize(
    "change", [{"spec": 3}, {"file": 3}, {"spec": {"name": "other"}}, {"spec": {"name": "mini", "arithmetic": {}}}]
)
def test_a_damaged_description_is_refused(change: dict[str, Any], call: Callable[[str], Any]) -> None:
    output_of(call("compile ant.nir --target-file mini.toml -o mini.nervecord"))
    program = nervecord.load("mini.nervecord")
    target = {**program.report["target"], **change}
    broken = type(program)(program.target, program.graph, program.contract, report={**program.report, "target": target})
    broken.save("broken.nervecord")
    with pytest.raises(FileFormatError, match=r"\bmini .*: "):
        nervecord.open("broken.nervecord")


def test_a_program_of_a_described_target_that_says_nothing_of_it_runs_by_its_arithmetic(
    call: Callable[[str], Any],
) -> None:
    output_of(call("compile ant.nir --target-file mini.toml -o mini.nervecord"))
    program = nervecord.load("mini.nervecord")
    bare = type(program)(program.target, program.graph, program.contract)
    row = np.random.default_rng(0).normal(size=27)
    with nervecord.open(bare) as one, nervecord.open(program) as two:
        assert np.array_equal(one.step(row), two.step(row))
    (report,) = nervecord.inspect(bare, "mini").to_dict()["targets"]
    assert not [finding for finding in report["findings"] if finding["severity"] == "error"]


# --------------------------------------------------------------------------------------------------------------------
# A package that adds one

PACKAGE = """\
from dataclasses import dataclass

import nervecord

@dataclass(frozen=True)
class MyChip(nervecord.IntegerTarget):
    spec: nervecord.TargetSpec = nervecord.spec_beside(__file__)
"""


@pytest.mark.long
def test_a_package_adds_one_by_an_entry_point(call: Callable[[str], Any], tmp_path: Path) -> None:
    """In a process of its own, which finds the package's entry point as that of any installed package."""
    assert PACKAGE.rstrip() in re.sub(r"^    ", "", (ROOT / "docs" / "own-chip.md").read_text(), flags=re.MULTILINE)
    site = tmp_path / "site"
    (site / "my_chip").mkdir(parents=True)
    (site / "my_chip" / "__init__.py").write_text(PACKAGE)
    (site / "my_chip" / "spec.toml").write_text(MINI.replace('"mini"', '"my-chip"'))
    (site / "my_chip-1.0.dist-info").mkdir()
    (site / "my_chip-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: my-chip\nVersion: 1.0\n")
    (site / "my_chip-1.0.dist-info" / "entry_points.txt").write_text("[nervecord.targets]\nmy-chip = my_chip:MyChip\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}

    def other(line: str) -> str:
        words = [sys.executable, "-m", "nervecord", *line.split()]
        process = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert process.returncode == 0, process.stderr
        return process.stdout

    (listed,) = [it for it in json.loads(other("targets --json"))["targets"] if it["name"] == "my-chip"]
    assert listed["engines"] == ["emulator", "definition", "torch", "c"]
    assert [option["name"] for option in listed["options"]] == ["weight_bits", "weight_slices"]
    data = json.loads(other("compile ant.nir --target my-chip --weight-bits 5 -o p.nervecord --emit c --json"))
    assert "target" not in data["report"]
    assert Path("c/policy.c").is_file()
    assert "feasible" in other("inspect p.nervecord --target my-chip --set neurons=1000")
    # Without the package the program's arithmetic still runs.
    assert call("inspect p.nervecord --target my-chip --json").json["targets"][0]["target"] == "my-chip"
