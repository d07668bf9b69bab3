"""Each verb in process, on a small random policy: what it prints, what it writes, what --json holds."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nets import lif, net, write_integrators

from nervecord.compiler.body.intervals import UNBOUNDED
from nervecord.compiler.compile import compile_graph
from nervecord.compiler.files.program import load
from nervecord.compiler.lower.reports import bound_text
from nervecord.compiler.nir.file import read_nir, write_nir
from nervecord.compiler.ops import Affine
from nervecord.targets.catalogue import target_names
from nervecord.targets.lava.netx import export_netx
from nervecord.targets.lava.target import LavaTarget

DATA = Path(__file__).parent.parent / "data"
FINDING = {"code", "severity", "node", "message", "value", "limit", "fix", "target", "source"}


# --------------------------------------------------------------------------------------------------------------------
# compile


def test_compile_writes_the_program_the_compiler_makes(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    path = tmp_path / "ant.nervecord"
    answer = nervecord_cli("compile", files / "ant.nir", "-o", path)
    assert (answer.code, answer.err) == (0, "")
    assert path.read_bytes() == compile_graph(read_nir(files / "ant.nir"), LavaTarget()).to_bytes()
    for words in (f"program       {path}", "verdict       feasible", "lif1", "readout"):
        assert words in answer.out
    assert os.listdir(tmp_path) == ["ant.nervecord"]


def test_compile_json(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    path = tmp_path / "ant.nervecord"
    data = nervecord_cli("compile", files / "ant.nir", "-o", path, "--json").json
    assert {"program", "target", "verdict", "cores", "memory_bits", "report", "versions", "allowances"} <= set(data)
    assert (data["program"], data["target"], data["verdict"]) == (str(path), "lava", "feasible")
    assert data["cores"] >= 1
    assert data["report"] == load(path).report
    assert [one["population"] for one in data["report"]["lowering"]["populations"]] == ["lif1", "readout"]


def test_what_nothing_bounds_is_written_so_and_layers_that_may_saturate_once(
    nervecord_cli: Any, tmp_path: Path
) -> None:
    write_integrators(tmp_path / "net.nir")
    words = ("compile", tmp_path / "net.nir", "--dt", "1e-3", "--reset", "zero", "--inputs", "spikes")
    answer = nervecord_cli(*words)
    assert answer.code == 0
    # What saturates is bounded by what it saturates at and what enters in one step.
    assert "-131,300..930" in answer.out
    assert "-131,284..976" in answer.out
    (line,) = (line for line in answer.out.splitlines() if "may saturate" in line)
    assert "one, two" in line
    assert "verdict  feasible, with a warning" in answer.out
    assert (bound_text(-float(UNBOUNDED)), bound_text(-131300.0)) == ("unbounded", "-131,300")
    for needed in ("plotly", "jinja2", "networkx"):
        pytest.importorskip(needed)
    nervecord_cli(*words, "--html", tmp_path / "net.html")
    assert "-131,300" in (tmp_path / "net.html").read_text()


def test_compile_without_a_file_says_so(nervecord_cli: Any, files: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    answer = nervecord_cli("compile", files / "ant.nir", "--target", "reference")
    assert answer.code == 0
    assert answer.out.endswith(": -o FILE keeps it\n")
    assert os.listdir(tmp_path) == []


def test_compile_options_change_the_program(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(1).normal(size=(32, 27))
    np.savez(tmp_path / "rows.npz", observations=rows)
    for name, more in (
        ("eight", ()),
        ("four", ("--weight-bits", 4)),
        ("calibrated", ("--calibration", tmp_path / "rows.npz")),
        ("again", ("--weight-bits", 8)),
    ):
        assert nervecord_cli("compile", files / "ant.nir", "-o", tmp_path / name, *more).code == 0
    eight, four, calibrated, again = (
        (tmp_path / name).read_bytes() for name in ("eight", "four", "calibrated", "again")
    )
    assert eight == again
    assert len({eight, four, calibrated}) == 3


def test_compile_emits_what_the_target_makes(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    path, folder = tmp_path / "ant.nervecord", tmp_path / "new" / "netx"
    emit = ("compile", files / "ant.nir", "--emit", folder)
    (emitted,) = nervecord_cli(*emit, "--netx", "-o", path, "--json").json["emitted"]
    assert emitted["file"] == str(folder / "policy.net")
    assert set(emitted["arguments"]) == {"input_message_bits", "reset_interval", "reset_offset"}
    assert f"net_config='{folder}/policy.net', input_message_bits=16" in emitted["use"]
    export_netx(load(path).policy, tmp_path / "again.net")
    assert (folder / "policy.net").read_bytes() == (tmp_path / "again.net").read_bytes()
    (folder / "policy.net").unlink()
    nervecord_cli(*emit, "--target", "reference").refused("target 'reference': ", "files")
    nervecord_cli("compile", files / "ant.nir", "--emit", path).refused("ant.nervecord is a file, a folder is needed")
    answer = nervecord_cli(*emit, "-o", path.with_name("plain.nervecord"))
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("(--netx)") == 1
    assert sorted(os.listdir(tmp_path)) == ["again.net", "ant.nervecord", "new"]


@pytest.mark.parametrize(("target", "what"), [("c", "C"), ("onnx", "policy.onnx"), ("lava", None)])
def test_a_target_that_is_there_to_emit_says_where_nothing_was_emitted(
    target: str, what: str | None, nervecord_cli: Any, files: Path, tmp_path: Path
) -> None:
    if target == "onnx":
        pytest.importorskip("onnx")
    path = tmp_path / "ant_out"
    words = ("compile", files / "ant.nir", "--target", target, "-o", path)
    sentence = f"no {what} was written: -o {path}/ or --emit DIR writes it"
    assert (sentence in nervecord_cli(*words).out) == (what is not None)
    assert "was written:" not in nervecord_cli(*words[:-1], f"{tmp_path}/folder/").out


def test_what_a_controller_needs_is_printed(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    words = ("compile", files / "ant.nir", "--target", "c", "-o", f"{tmp_path}/c/")
    needs = nervecord_cli(*words, "--json").json["needs"]
    header = (tmp_path / "c" / "policy.h").read_text()
    assert f"POLICY_STATE_BYTES {needs['ram']} " in header
    assert f"POLICY_FLASH_BYTES {needs['flash_constants']} " in header
    text = nervecord_cli(*words).out
    for number in (*needs.values(),):
        assert f"{number:,}" in text
    assert "cores" not in text


def test_compile_dumps_and_explains(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    answer = nervecord_cli("compile", files / "ant.nir", "--dump", tmp_path / "d", "--explain")
    assert answer.code == 0
    assert re.search("fc1: Affine .*Dense", answer.err)
    assert "became" not in answer.out
    assert len(os.listdir(tmp_path / "d")) == 3


def test_an_output_is_replaced_whole_or_not_at_all(
    nervecord_cli: Any, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ant.nervecord"
    path.write_bytes(b"old" * 100_000)
    assert nervecord_cli("compile", files / "ant.nir", "-o", path).code == 0
    new = path.read_bytes()
    assert load(path).to_bytes() == new
    assert oct(path.stat().st_mode & 0o777) == oct(0o666 & ~_umask())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", full)
    nervecord_cli("compile", files / "ant.nir", "-o", path).refused(f"{path}: ", "space")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["ant.nervecord"]


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


@pytest.mark.parametrize(
    "line",
    [
        "compile {none} -o {folder}/none/a.nervecord",
        "compile {none} -o {folder}",
        "run {none} --picture {folder}/none/a.png",
        "run {none} --video {folder}/none/a.mp4",
        "simulate {none} --input {none} -o {folder}/none/a.npz",
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    line: str, nervecord_cli: Any, tmp_path: Path
) -> None:
    # The policy does not exist either; whoever looks at it first would say so.
    words = line.format(none=tmp_path / "none.nir", folder=tmp_path).split()
    text = nervecord_cli(*words).refused()
    assert "is a folder, a file name is needed" in text or f"the folder {tmp_path}/none does not exist" in text
    assert os.listdir(tmp_path) == []


def test_pictures_and_videos_need_a_known_ending(nervecord_cli: Any, tmp_path: Path) -> None:
    nervecord_cli("run", "none.nir", "--picture", tmp_path / "a.bmp").refused("a.bmp: ", "'.bmp'", ".png, .svg")
    nervecord_cli("run", "none.nir", "--video", tmp_path / "a.avi").refused("a.avi: ", "'.avi'", ".mp4")


# --------------------------------------------------------------------------------------------------------------------
# inspect


def test_inspect_json(nervecord_cli: Any, files: Path) -> None:
    answer = nervecord_cli("inspect", files / "ant.nir", "--json")
    assert (answer.code, answer.err) == (0, "")
    data = answer.json
    assert {"file", "format", "graph", "findings", "targets"} <= set(data)
    assert [target["target"] for target in data["targets"]] == list(target_names())
    for target in data["targets"]:
        assert target["verdict"] in ("feasible", "infeasible", "unknown")
        for finding in target["findings"]:
            assert set(finding) == FINDING
            assert finding["severity"] in ("error", "unknown", "warning", "info")
        assert {"neurons", "synapses", "cores", "memory_bits", "layers"} <= set(target["resources"])
        assert {"synaptic_events", "input_events", "spike_events", "updates", "bound"} <= set(target["events"])
    by_name = {target["target"]: target for target in data["targets"]}
    assert by_name["lava"]["resources"]["neurons"] == 12 + 8
    assert by_name["lava"]["resources"]["synapses"] == 27 * 12 + 12 * 8
    assert by_name["lava"]["resources"]["cores"] >= 1
    assert by_name["lava"]["verdict"] == "feasible"
    (inputs,) = [finding for finding in by_name["xylo"]["findings"] if finding["code"] == "inputs"]
    assert (inputs["severity"], inputs["value"]) == ("error", 27)
    assert inputs["limit"] < 27
    assert inputs["fix"]


def test_inspect_named_targets_in_their_order(nervecord_cli: Any, files: Path) -> None:
    answer = nervecord_cli("inspect", files / "ant.nervecord", "--target", "loihi1", "lava", "--json")
    assert [target["target"] for target in answer.json["targets"]] == ["loihi1", "lava"]
    text = nervecord_cli("inspect", files / "ant.nervecord", "--target", "loihi1", "lava").out
    assert text.index("\nloihi1 ") < text.index("\nlava ")


def test_inspect_takes_the_options_of_the_one_target_that_is_named(nervecord_cli: Any, tmp_path: Path) -> None:
    """A threshold that has a unit with a second slice alone."""
    weight = np.full((2, 2), 1e-4)
    weight[0, 0] = 1.0
    write_nir(net(Affine(weight), lif(threshold=np.full(2, 2e-4)), spiking=True), tmp_path / "far.nir")
    words = ("inspect", tmp_path / "far.nir", "--target", "lava")
    assert nervecord_cli(*words, "--json").json["targets"][0]["findings"][-1]["code"] == "no-scale"
    assert nervecord_cli(*words, "--weight-slices", 2).code == 0
    nervecord_cli(*words, "loihi1", "--weight-slices", 2).refused("'--weight-slices'")


def test_a_limit_that_was_given_is_kept(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    sentence = "neurons_per_core = 4: given by the user, in place of 8,192 (second-hand)"
    words = ("--target", "lava", "--set", "neurons_per_core=4")
    (lava,) = nervecord_cli("inspect", files / "ant.nir", *words, "--json").json["targets"]
    assert lava["limits_given"] == [sentence]
    assert lava["resources"]["cores"] == 5
    assert f"limit given: {sentence} " in " ".join(nervecord_cli("inspect", files / "ant.nir", *words).out.split())
    path = tmp_path / "ant.nervecord"
    assert f"allowed: {sentence}\n" in nervecord_cli("compile", files / "ant.nir", *words, "-o", path).out
    assert load(path).allowances == (sentence,)
    assert nervecord_cli("inspect", files / "ant.nir", *words[:2], "--set", "neurons=unlimited").code == 0


def test_inspect_what_another_tool_wrote(nervecord_cli: Any) -> None:
    path = DATA / "nir" / "braille_noDelay_bias_zero.nir"
    answer = nervecord_cli("inspect", path, "--json")
    assert answer.code == 0
    assert answer.json["graph"]["dt"] is None
    assert answer.json["graph"]["recurrent"] == ["lif1.w_rec"]
    assert nervecord_cli("inspect", path, "--dt", "1e-4", "--json").json["graph"]["dt"] == 1e-4


# --------------------------------------------------------------------------------------------------------------------
# simulate


def test_simulate_the_published_neuron(nervecord_cli: Any, tmp_path: Path) -> None:
    published = np.loadtxt(DATA / "nir" / "lif_exact.csv", delimiter=",")
    np.savez(tmp_path / "in.npz", input=published[:, :1])
    out = tmp_path / "out.npz"
    out.write_bytes(b"old")
    for convention in ("euler", "exact"):
        answer = nervecord_cli(
            "simulate",
            DATA / "nir" / "lif_norse.nir",
            "--dt",
            "1e-4",
            "--convention",
            convention,
            "--input",
            tmp_path / "in.npz",
            "-o",
            out,
            "--json",
        )
        assert (answer.code, answer.err) == (0, "")
        with np.load(out) as trace:
            spikes = trace["1"][:, 0, 0]
        assert np.flatnonzero(spikes).tolist() == np.flatnonzero(published[:, 2]).tolist() == [460, 510, 710, 760]
        assert answer.json["steps"] == 1000
        assert answer.json["spikes"] == {"1": 4, "output": 4}
        assert answer.json["engine"] == "definition"
    assert sorted(os.listdir(tmp_path)) == ["in.npz", "out.npz"]


def test_simulate_needs_a_time_step(nervecord_cli: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.zeros((5, 1)))
    path = DATA / "nir" / "lif_norse.nir"
    nervecord_cli("simulate", path, "--input", tmp_path / "in.npy").refused("--dt")


def test_simulate_a_program_gives_the_actions_of_its_session(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    import nervecord

    out = tmp_path / "out.npz"
    answer = nervecord_cli("simulate", files / "ant.nervecord", "--input", files / "rows.npz", "-o", out)
    assert answer.code == 0
    assert answer.out.endswith(f"written: {out}\n")
    with np.load(out) as trace, np.load(files / "rows.npz") as rows, nervecord.open(files / "ant.nervecord") as session:
        actions = np.array([session.step(row) for row in rows["observations"]])
        assert np.array_equal(trace["actions"][:, 0], actions)
    assert "nothing was written" in nervecord_cli("simulate", files / "ant.nir", "--input", files / "rows.npz").out


# --------------------------------------------------------------------------------------------------------------------
# targets


def test_targets(nervecord_cli: Any) -> None:
    answer = nervecord_cli("targets")
    assert (answer.code, answer.err) == (0, "")
    for name in target_names():
        assert f"\n{name} " in answer.out
    data = nervecord_cli("targets", "--json").json["targets"]
    assert [target["name"] for target in data] == list(target_names())
    assert {target["name"] for target in data if target["compiles"]} == {"reference", "c", "fpga", "lava", "onnx"}
    lava = {target["name"]: target for target in data}["lava"]
    assert lava["engines"][0] == "emulator"
    assert [(option["name"], option["type"], option["default"]) for option in lava["options"]] == [
        ("weight_bits", "int", 8),
        ("weight_slices", "int", 1),
        ("netx", "bool", False),
    ]
    assert set(lava["installation"]) == {"engine", "installed", "path", "python", "lava", "shim", "problem"}
    assert [target["name"] for target in data if target["installation"] is not None] == ["lava"]


def test_one_target_with_its_sources(nervecord_cli: Any) -> None:
    lava = nervecord_cli("targets", "lava").out
    assert re.search(r"--weight-bits .* from 2 to 8  8\b", lava)
    assert re.search(r"--weight-slices .* from 1 to 2  1\b", lava)
    text = nervecord_cli("targets", "loihi1").out
    assert text.startswith("loihi1: ")
    (data,) = nervecord_cli("targets", "loihi1", "--json").json["targets"]
    assert data["compiles"] is False
    assert len(data["facts"]) > 10
    for name, fact in data["facts"].items():
        assert set(fact) == {"value", "confidence", "source", "about"}
        assert fact["source"] or fact["value"] is None, name
        assert f"\n{name} " in text


def test_compile_into_a_folder(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    """-o FOLDER/: the program, and what the target makes for other tools."""
    folder = tmp_path / "new" / "leg_c"
    answer = nervecord_cli(
        "compile", files / "pendulum.nir", "--target", "c", "--prefix", "leg", "--vectors", 3, "-o", f"{folder}/"
    )
    assert answer.code == 0, answer.err
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "policy.nervecord",
        "leg.h",
        "leg.c",
        "leg_weights.h",
        "leg_weights.c",
        "leg_selftest.c",
        "leg_vectors.h",
        "Makefile",
        "CMakeLists.txt",
        "README.md",
    }
    assert f"emitted: {folder}/leg.h" in answer.out
    assert "#define LEG_VECTORS 3 " in (folder / "leg_vectors.h").read_text()
    assert nervecord_cli("inspect", folder / "policy.nervecord", "--target", "c").code == 0
    refused = nervecord_cli("compile", files / "pendulum.nir", "--target", "c", "--prefix", "9", "-o", f"{folder}/")
    assert "prefix: '9'" in refused.refused()
    refused = nervecord_cli("compile", files / "pendulum.nir", "--target", "c", "-o", f"{folder}/leg.h/")
    assert f"{folder}/leg.h" in refused.refused()
    # A target that makes nothing for other tools says so.
    refused = nervecord_cli("compile", files / "pendulum.nir", "--target", "reference", "-o", f"{tmp_path}/none/")
    assert "target 'reference': " in refused.refused()
