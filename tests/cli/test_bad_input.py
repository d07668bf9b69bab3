"""Bad files and bad worlds: exit code 2 and one clear sentence that names the file, whatever the verb."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from malformed import generator, malformed

from nervecord.compiler.nir.file import read_nir
from nervecord.errors import NervecordError

DATA = Path(__file__).parent.parent / "data"
VERBS = ("inspect", "compile", "run")


def two_verbs(name: str) -> tuple[str, str]:
    """`inspect`, and one of the others in turn: all of them read files by the same function."""
    return "inspect", VERBS[1 + len(name) % 2]


# What the sentence about each program must say, beside the file's name.
CAUSES = {
    "empty": "is no program, or a damaged one",
    "not_a_zip": "is no program, or a damaged one",
    "another_zip": "holds 1 entries, a program has manifest.json, report.json, arrays.bin and no others",
    "truncated": "is no program, or a damaged one",
    "cut_directory": "is no program, or a damaged one",
    "damaged_member": "is no program, or a damaged one (Bad CRC-32 for file 'manifest.json')",
    "compressed": "has compressed or encrypted parts, which no program has",
    "compressed_bomb": "has compressed or encrypted parts, which no program has",
    "declares_gigabytes": "declares more bytes than it has",
    "overlapping_entries": "holds 54 entries, a program has manifest.json, report.json, arrays.bin and no others",
    "traversal": "holds 4 entries, a program has manifest.json, report.json, arrays.bin and no others",
    "absolute_name": "holds 4 entries, a program has manifest.json, report.json, arrays.bin and no others",
    "surplus_member": "holds 4 entries, a program has manifest.json, report.json, arrays.bin and no others",
    "duplicate_manifest": "holds 4 entries, a program has manifest.json, report.json, arrays.bin and no others",
    "missing_member": "holds 2 entries, a program has manifest.json, report.json, arrays.bin and no others",
    "encrypted": "has compressed or encrypted parts, which no program has",
    "zip64": "is no program, or a damaged one",
    "comment": "is no program, or a damaged one",
    "no_manifest": "holds 'report.json', 'arrays.bin', 'manifest.txt', a program has manifest.json, report.j",
    "manifest_no_json": "manifest.json: is no JSON: object keys must be strings",
    "manifest_no_text": "manifest.json: is no JSON: invalid character",
    "manifest_a_list": "manifest.json: expected object, got array",
    "manifest_nested": "manifest.json: is nested more than 64 deep",
    "manifest_huge_number": "manifest.json: [...]: integer value out of range",
    "manifest_nan": "manifest.json: is no JSON: invalid character",
    "manifest_surrogate": "manifest.json: is no JSON: Input data was truncated",
    "old_format": "has the old format 1, this version reads 2 (compile its policy again: nervecord compile",
    "newer_format": "has format 3, this version reads 2 (upgrade nervecord)",
    "no_format": "says format None, which is no version",
    "format_is_text": "says format '1', which is no version",
    "no_target": "manifest.json: field 'target' is missing",
    "target_is_a_list": "manifest.json: target: expected str, got array",
    "unknown_target": "is for target 'lavva', and nothing here runs that",
    "inspected_target": "is for target 'xylo', and nothing here runs that",
    "target_a_path": "manifest.json: target: '../../etc' is no name of a target",
    "no_graph": "manifest.json: field 'graph' is missing",
    "no_hashes": "manifest.json: field 'hashes' is missing",
    "hashes_are_text": "manifest.json: hashes: expected object, got str",
    "arrays_are_a_number": "manifest.json: arrays: expected array, got int",
    "versions_are_a_list": "manifest.json: versions: expected object, got array",
    "allowances_are_a_number": "manifest.json: allowances: expected array, got int",
    "report_a_list": "report.json: expected object, got array",
    "report_escape": "the text '\\x1b[2J' cannot be printed",
    "report_lowering_a_number": "report.json: lowering: expected object, got int",
    "report_lowering_nothing": "report.json: lowering: expected object, got null",
    "report_population_empty": "report.json: lowering.populations[0]: field 'population' is missing",
    "report_error_alone": "report.json: lowering: has 'action_error_rms', and field 'action_error_max' is missing",
    "report_certificate_a_list": "report.json: certificate: expected object, got array",
    "report_certificate_empty": "report.json: certificate: field 'tolerance' is missing",
    "report_nested": "report.json: is nested more than 64 deep",
    "structure_hash": "the hash of its structure is not the one its manifest gives: it was changed or damaged a",
    "arrays_hash": "the hash of its arrays is not the one its manifest gives: it was changed or damaged afte",
    "array_gone": "node 'fc1': the array 'fc1/weight' is missing",
    "array_surplus": "the array 'fc1/mood' belongs to no node",
    "array_twice": "the array 'decode/high' stands twice in its index",
    "array_terabytes": "the array 'fc1/weight' takes 4398046511104 bytes, and 104 are left in arrays.bin",
    "array_sparse_terabytes": "the array 'fc1/weight' in compressed rows has shape (67108864, 67108864): a matrix is",
    "array_negative": "the index of arrays: [4].shape[0]: expected int >= 0, got -1",
    "array_pickled": "the index of arrays: [4].dtype: '|O' is unknown",
    "array_records": "the index of arrays: [4].dtype: \"[('a', '<i4')]\" is unknown",
    "array_complex": "the index of arrays: [4].dtype: '<c16' is unknown",
    "array_float": "node 'fc1': the array 'fc1/weight' holds float64, int32 is needed",
    "array_short": "the hash of its arrays is not the one its manifest gives: it was changed or damaged afte",
    "array_left_over": "node 'fc1': the array 'fc1/weight' is missing",
    "array_shape": "fc1: takes shape (2,), and quantise gives (3,)",
    "array_scalar": "fc1: weight has 1 axes, not 2",
    "sparse_columns": "array 'fc1/weight': its columns are out of order or out of range",
    "sparse_far_column": "array 'fc1/weight': its columns are out of order or out of range",
    "sparse_rows": "array 'fc1/weight': its rows do not start where its values do",
    "sparse_start": "array 'fc1/weight': its rows do not start where its values do",
    "sparse_of_three_axes": "the array 'fc1/weight' in compressed rows has shape (4, 16, 64): a matrix is needed, and",
    "sparse_count": "the array 'fc1/weight' takes 260 bytes, and 252 are left in arrays.bin",
    "weights_nan": "fc1: weight has 6 values that are NaN or infinite",
    "weights_infinite": "fc1: weight has 6 values that are NaN or infinite",
    "weights_scalar": "fc1: weight has 1 axes, not 2",
    "weights_too_wide": "fc1: weight lies outside 0..255 (1048364 against 255)",
    "mean_nan": "normalise: mean has 3 values that are NaN or infinite",
    "graph_a_list": "manifest.json: graph: expected object, got array",
    "nodes_a_number": "the graph: nodes: expected array, got int",
    "no_nodes": "the graph: nodes: expected array of length >= 1, got a length of 0",
    "node_without_kind": "node 'quantise': field 'kind' is missing",
    "kind_is_a_list": "node 'lif1': kind: expected str, got list",
    "unknown_kind": "node 'lif1': kind: 'Izhikevich' is unknown",
    "part_of_a_kind": "node 'lif1': membrane.kind: 'Spike' is unknown",
    "part_of_another_level": "node 'lif1': the array 'lif1/membrane.decay' is missing",
    "part_gone": "node 'lif1': field 'membrane' is missing",
    "unknown_field": "node 'lif1': unknown field 'refractory'",
    "field_of_another_type": "node 'lif1': spike.threshold: expected int, got float",
    "field_a_list": "node 'lif1': spike.threshold: expected int, got array",
    "field_a_flag": "node 'lif1': spike.threshold: expected int, got bool",
    "field_too_large": "node 'lif1': membrane.decay: expected int <= 65536, got 2147483648",
    "weight_bits_64": "node 'fc1': weight_bits: expected int <= 16, got 64",
    "delay_too_long": "node 'fc1': delay: expected int <= 4096, got 2147483648",
    "quantise_limit": "node 'quantise': limit: expected int <= 16777216, got 1152921504606846976",
    "clip_a_list": "node 'normalise': clip: expected float, got array",
    "clip_too_large": "node 'normalise': clip: expected float <= 16777216.0",
    "shape_empty": "node 'observation': shape: expected array of length >= 1, got a length of 0",
    "shape_of_words": "node 'observation': shape[0]: expected int, got str",
    "shape_of_nothing": "node 'observation': shape[0]: expected int, got null",
    "shape_too_large": "node 'observation': shape[0]: expected int <= 67108864, got 134217728",
    "origin_a_number": "node 'lif1': origin[0]: expected str, got int",
    "duplicate_node": "node 'quantise': two nodes have this name",
    "name_with_newline": "the text 'a\\nb' cannot be printed",
    "name_with_escape": "the text '\\x1b[2J' cannot be printed",
    "edge_of_three": "the graph: edges[8]: expected array of length 2, got 3",
    "edge_gone": "decode: it feeds nothing",
    "edge_twice": "edges: the same edge appears twice (merge its weights into one node)",
    "dangling_edge": "nobody: edge fc1 -> nobody names a node that does not exist",
    "unknown_level": "the graph: level: 'quantum' is unknown",
    "imported_level": "the graph: level: 'imported' is unknown",
    "dt_is_text": "the graph: dt: expected float, got str",
    "dt_is_negative": "the graph: dt: expected float > 0.0, got -1.0",
    "no_arithmetic": "graph: is in integers, and does not say of which arithmetic",
    "arithmetic_a_list": "manifest.json: arithmetic: expected object | null, got array",
    "arithmetic_field_gone": "the arithmetic: membrane_bits: is missing",
    "arithmetic_unknown_field": "the arithmetic: mood: unknown key",
    "arithmetic_too_wide": "the arithmetic: membrane_bits: is 64, an integer from 8 to 32",
    "arithmetic_unknown_rounding": "the arithmetic: decay_rounding: is 'up', one of",
    "arithmetic_contradiction": "the arithmetic: at-least-one rounds shifts, no factors",
    "no_schedule": "manifest.json: says its schedule twice, or not at all: the contract does, or the schedul",
    "schedule_twice": "manifest.json: says its schedule twice, or not at all: the contract does, or the schedul",
    "schedule_of_an_age": "manifest.json: schedule.steps: expected int <= 65536, got 2147483648",
    "contract_a_list": "manifest.json: contract: expected object | null, got array",
    "contract_field_gone": "contract: field 'steps' is missing",
    "contract_unknown_field": "contract: unknown field 'mood'",
    "contract_of_another_size": "observation: has 3 values, and the contract's observation has 1",
    "contract_of_an_age": "contract: steps: expected int <= 65536, got 1152921504606846976",
    "contract_fail_safe_outside": "contract: the fail-safe value of right is 1.5, and its limits are -1..1",
    "contract_fail_safe_text": "contract: fail_safe[0]: expected float, got str",
    "contract_limits_narrower": "action: can go beyond the contract's limit (high) of right (1.0 against 0.5)",
    "contract_escape": "the text '\\x1b[2J' cannot be printed",
    "contract_period_400_digits": "contract: control_period: number out of range",
}


# --------------------------------------------------------------------------------------------------------------------
# Programs


def test_every_program_has_a_cause() -> None:
    assert sorted(CAUSES) == sorted(generator(".nervecord").FILES)


def test_the_program_they_all_start_from_is_sound(nervecord_cli: Any, tmp_path: Path) -> None:
    programs = generator(".nervecord")
    for name, target in (("lava", None), ("reference", programs.ReferenceTarget())):
        path = tmp_path / f"{name}.nervecord"
        path.write_bytes(programs.packed(list(programs.opened(target).items())))
        assert nervecord_cli("inspect", path).code == 0
        path.write_bytes(programs.rehashed(lambda manifest, arrays: None, target)())
        assert nervecord_cli("inspect", path).code == 0


@pytest.mark.parametrize("name", CAUSES)
def test_malformed_programs(name: str, nervecord_cli: Any) -> None:
    path = malformed(f"{name}.nervecord")
    for verb in two_verbs(name):
        text = nervecord_cli(verb, path).refused(CAUSES[name])
        assert text.startswith(f"nervecord {verb}: {path}: ")
        assert text.count(str(path)) == 1


def test_a_program_is_not_compiled_again(files: Path, nervecord_cli: Any) -> None:
    path = files / "ant.nervecord"
    nervecord_cli("compile", path).refused(f"{path}: is a program")


# --------------------------------------------------------------------------------------------------------------------
# NIR

NIR = sorted(generator(".nir").FILES)


@pytest.mark.parametrize("name", NIR)
def test_malformed_nir(name: str, nervecord_cli: Any) -> None:
    path = malformed(f"{name}.nir")
    with pytest.raises(NervecordError) as caught:  # tests/compiler/test_nir_malformed.py looks at its words
        read_nir(path)
    assert str(path) in str(caught.value)
    for verb in two_verbs(name):
        assert nervecord_cli(verb, path).refused() == f"nervecord {verb}: {caught.value}\n"


@pytest.mark.reader_process
@pytest.mark.parametrize("name", ["truncated", "external_link", "metadata_nan"])
def test_malformed_nir_to_the_end(name: str, nervecord_cli: Any) -> None:
    path = malformed(f"{name}.nir")
    nervecord_cli("inspect", path).refused(f"nervecord inspect: {path}: ")


# --------------------------------------------------------------------------------------------------------------------
# Other files


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_no_file(verb: str, nervecord_cli: Any, tmp_path: Path) -> None:
    (tmp_path / "folder.nervecord").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    for name, words in (
        ("none.nir", "no such file"),
        ("none.nervecord", "does not exist"),
        ("none", "no such file"),
        ("folder.nervecord", "is a folder without policy.nir"),
        (".", "is a folder without policy.nir"),
        ("text.txt", "is not an HDF5 file"),
        ("no\nfile", "no such file"),
    ):
        text = nervecord_cli(verb, tmp_path / name).refused(words)
        assert str(tmp_path) in text


def test_a_policy_of_another_tool_has_no_contract(nervecord_cli: Any) -> None:
    path = DATA / "nir" / "lif_norse.nir"
    for verb in ("compile", "run"):
        nervecord_cli(verb, path).refused("--dt", str(path), notes=1)
    nervecord_cli("compile", path, "--dt", 1e-4).refused("--inputs spikes")


def bomb(path: Path) -> None:
    """Kilobytes that unpack to more than a gigabyte, as their directory says."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("observations.npy", b"\0" * 1000)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2") + 24
    data[at : at + 4] = (1 << 31).to_bytes(4, "little")
    path.write_bytes(data)


def header(path: Path) -> None:
    """An .npy whose header declares terabytes."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": (100_000_000_000, 27)})
    path.write_bytes(out.getvalue())


ROWS: dict[str, tuple[Any, str]] = {
    "no file": (lambda path: None, "does not exist"),
    "a folder": (lambda path: path.mkdir(), "is a folder"),
    "text": (lambda path: path.write_text("hello"), "is no .npz or .npy file of numbers"),
    "nothing": (lambda path: path.write_bytes(b""), "is no .npz or .npy file of numbers"),
    "another zip": (lambda path: zipfile.ZipFile(path, "w").close(), "holds nothing"),
    "a zip bomb": (bomb, "unpacks to 2147483648 bytes, at most 268435456 are read"),
    "terabytes": (header, "declares 21600000000000 bytes of values in shape (100000000000, 27)"),
    "26 columns": (np.zeros((20, 26)), "have shape (20, 26), "),
    "one row": (np.zeros(27), "have shape (27,), "),
    "no rows": (np.zeros((0, 27)), "have shape (0, 27), "),
    "NaN": (np.full((20, 27), np.nan), ""),
    "words": (np.array(["a", "b"]), "holds something else than numbers under 'observations'"),
    "complex": (np.zeros((20, 27), dtype=complex), "holds something else than numbers under 'observations'"),
    "objects": (np.array([{}], dtype=object), "holds something else than numbers under 'observations': type '|O'"),
}


@pytest.mark.parametrize("name", ROWS)
def test_files_of_observations(name: str, nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    content, words = ROWS[name]
    path = tmp_path / "rows.npz"
    if callable(content):
        content(path)
    else:
        np.savez(path, observations=content)
    policy, output = files / "ant.nir", tmp_path / "out"
    for line in (
        ("compile", policy, "--calibration", path, "-o", output),
        ("compare", policy, files / "ant.nervecord", "--observations", path),
        ("simulate", policy, "--input", path, "-o", output),
    ):
        answer = nervecord_cli(*line)
        if answer.err.startswith("nervecord simulate: observation: "):  # its shape is for the graph to judge
            text = answer.refused(words, f" of {path}\n", notes=1)
        else:
            text = answer.refused(f"nervecord {line[0]}: {path}: ", words)
        assert "allow_pickle=" not in text.replace("allow_pickle=False", "")  # nobody is told to trust the file
    assert not output.exists()


def test_which_array_is_meant_must_be_clear(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.zeros((20, 27)), b=np.zeros((20, 27)))
    for verb, flag in (("compile", "--calibration"), ("simulate", "--input")):
        nervecord_cli(verb, files / "ant.nir", flag, tmp_path / "two.npz").refused("two.npz: holds a, b, ")


def test_too_few_observations_to_calibrate(nervecord_cli: Any, files: Path) -> None:
    answer = nervecord_cli("compile", files / "ant.nir", "--calibration", files / "rows.npz")
    answer.refused("10 observations are too few, 16 ")


# --------------------------------------------------------------------------------------------------------------------
# Other worlds


@pytest.mark.parametrize("kind", ["nir", "nervecord"])
def test_an_ant_elsewhere(kind: str, nervecord_cli: Any, files: Path) -> None:
    path = files / f"ant.{kind}"
    nervecord_cli("run", path, "--env", "HalfCheetah-v4").refused(
        "HalfCheetah-v4: ", "27 observations", "--env Ant-v4;"
    )
    nervecord_cli("run", path, "--env", "Nowhere-v4").refused("Nowhere-v4: ")
    nervecord_cli("run", path, "--env", "Ant").refused("Ant: ", "Ant-v4")
    nervecord_cli("run", path, "--env", "no_module:Ant-v0").refused("no_module:Ant-v0: ", "'no_module'")
    nervecord_cli("run", path, "--env", "Pendulum-v1", "--allow-other-env", "--episodes", 1).refused(
        "Pendulum-v1: ", "(3,), ", " 27 "
    )


# --------------------------------------------------------------------------------------------------------------------
# In a process of its own


@pytest.mark.parametrize(
    ("verb", "name", "cause"),
    [
        ("inspect", "traversal.nervecord", CAUSES["traversal"]),
        ("run", "arrays_hash.nervecord", CAUSES["arrays_hash"]),
        ("compile", "nan_weights.nir", "NaN or infinite"),
    ],
)
def test_the_whole_command(verb: str, name: str, cause: str, tmp_path: Path) -> None:
    path = malformed(name)
    process = subprocess.run(
        [sys.executable, "-m", "nervecord", verb, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith(f"nervecord {verb}: {path}: ")
    assert cause in process.stderr
    assert process.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []
